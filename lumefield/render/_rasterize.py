"""From 3D Gaussians and a camera to pictures: project, colour, composite."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from lumefield.render import _native, _project_warp, _warp
from lumefield.render._cameras import Cameras
from lumefield.render._composite import Backend, by_platform, choose_backend, composite_gaussians
from lumefield.render._project import Projected, project
from lumefield.render._reference import project_reference
from lumefield.render._sh import degree_of

_Arrays = tuple[Array, Array, Array, Array, Array]

_MOST_SLOTS = 4 * _warp.MAX_CAPACITY
_KERNEL_SH = 16
"""Coefficients that the native and warp projections know (degree 3); XLA projects more."""


@dataclasses.dataclass(frozen=True)
class SplatOptions:
    """How Gaussians become pixels; static and hashable."""

    antialiased: bool = False
    """Scale opacities by the area the low-pass adds (the 2D filter of Mip-Splatting)."""
    near: float = 0.01
    """Gaussians whose centre has Z at or below this are culled, world units."""
    backend: Backend = "auto"
    """Which kernels run; see ``composite_gaussians``."""
    slots: int | None = None
    """Meetings of a Gaussian and a tile that the lists of the warp backend hold; others ignore it.

    None: lists are made again and again until all are done, and XLA asks the device after each
    whether they are, which holds up a loop of steps. A number: they are made once; a picture that
    needs more is NaN, and so are its opacity and its gradients: ask again, with ``wider()``."""

    def listed(self, gaussians: int, height: int, width: int) -> "SplatOptions":
        """The same with slots for a usual picture of so many Gaussians."""
        return dataclasses.replace(self, slots=_warp.default_capacity(gaussians, height, width))

    def wider(self) -> "SplatOptions":
        """Twice the slots; from 16 million (0.6 GB in the backward pass) on any number, None."""
        more = 2 * (self.slots or _MOST_SLOTS)
        return dataclasses.replace(self, slots=more if more <= _MOST_SLOTS else None)


class Rendering(NamedTuple):
    """What ``rasterize`` returns; leading axes are those of the camera."""

    rgb: Float[Array, "*b h w 3"]
    """Display sRGB over the background, not clipped above."""
    depth: Float[Array, "*b h w"]
    """Expected camera Z, sum w Z / max(opacity, 1e-8), world units; 0 where nothing is seen."""
    opacity: Float[Array, "*b h w"]
    """1 - transmittance, in [0, 1]."""
    features: Float[Array, "*b h w f"]
    """Composited features, without background; F = 0 when none were given."""


def project_gaussians(
    means: Array,
    quats_wxyz: Array,
    scales: Array,
    opacities: Array,
    sh: Array,
    *,
    camera: Cameras,
    options: SplatOptions | None = None,
) -> Projected:
    """Project Gaussians into a camera and evaluate their colour towards it.

    Zwicker et al. 2002; linearisation and low-pass as in gsplat 1.5. Differentiable in everything,
    pose and intrinsics included; the view direction carries gradient to means and pose.

    Args:
        means: (N, 3) centres, world units.
        quats_wxyz: (N, 4) rotations, any length.
        scales: (N, 3) standard deviations, world units, > 0.
        opacities: (N,) in [0, 1].
        sh: (N, K, 3) coefficients, K in 1 4 9 16 25; rgb = max(0.5 + sum, 0).
        camera: One camera, or many with leading axes.
        options: See ``SplatOptions``; the defaults when None.

    Returns:
        xy, factor, depth, opacities (0 = culled) and rgb, with the leading axes of the camera.

    Raises:
        ValueError: If shapes or dtypes do not fit, or the backend cannot be used.
    """
    gaussians = (means, quats_wxyz, scales, opacities, sh)
    options = options or SplatOptions()
    _check(gaussians)
    camera = _cast(camera, means.dtype)

    def one(camera: Cameras) -> Projected:
        return _project_one(gaussians, camera, options)

    return _over_cameras(one, camera)(camera)


def rasterize_rgb(
    means: Array,
    quats_wxyz: Array,
    scales: Array,
    opacities: Array,
    sh: Array,
    *,
    camera: Cameras,
    background: Array | None = None,
    options: SplatOptions | None = None,
    probe: Array | None = None,
) -> tuple[Float[Array, "*b h w 3"], Float[Array, "*b h w"]]:
    """The colour picture alone: the fast path of training.

    Args:
        means: (N, 3); this and the next four as in ``project_gaussians``.
        quats_wxyz: (N, 4).
        scales: (N, 3).
        opacities: (N,).
        sh: (N, K, 3).
        camera: One camera, or many with leading axes.
        background: (3,) or (*b, 3) display sRGB; black when None.
        options: See ``SplatOptions``.
        probe: (N, 2) or (*b, N, 2) zeros or None; see ``composite_gaussians``.

    Returns:
        (*b, H, W, 3) colours over the background and (*b, H, W) opacity.

    Raises:
        ValueError: If shapes or dtypes do not fit, or the backend cannot be used.
    """
    gaussians = (means, quats_wxyz, scales, opacities, sh)
    options = options or SplatOptions()
    _check(gaussians)
    camera = _cast(camera, means.dtype)
    batch, n = camera.focal.shape[:-1], means.shape[0]
    background = _spread("background", background, (*batch, 3), means.dtype)
    if probe is not None:
        probe = _spread("probe", probe, (*batch, n, 2), means.dtype)

    def one(camera: Cameras, background: Array, probe: Array | None) -> tuple[Array, Array]:
        p = _project_one(gaussians, camera, options)
        image, t = _composite_one(p, p.rgb, camera, options, probe)
        return image + t[..., None] * background[None, None], 1 - t

    return _over_cameras(one, camera)(camera, background, probe)


def rasterize(
    means: Array,
    quats_wxyz: Array,
    scales: Array,
    opacities: Array,
    sh: Array,
    *,
    camera: Cameras,
    features: Array | None = None,
    background: Array | None = None,
    options: SplatOptions | None = None,
) -> Rendering:
    """Colour, expected depth, opacity and any further channels of Gaussians seen by a camera.

    Everything is differentiable in every array and in the camera; the depth order is not.

    Args:
        means: (N, 3); this and the next four as in ``project_gaussians``.
        quats_wxyz: (N, 4).
        scales: (N, 3).
        opacities: (N,).
        sh: (N, K, 3).
        camera: One camera, or many with leading axes.
        features: (N, F) further channels of each Gaussian, or None.
        background: (3,) or (*b, 3) display sRGB; black when None.
        options: See ``SplatOptions``.

    Returns:
        Images with the leading axes of the camera.

    Raises:
        ValueError: If shapes or dtypes do not fit, or the backend cannot be used.

    Example:
        >>> camera = Cameras.from_pinhole(
        ...     jnp.eye(3, 4), jnp.array([8.0, 8.0]), jnp.array([4.0, 3.0]), height=6, width=8)
        >>> seen = rasterize(
        ...     jnp.array([[0.0, 0.0, 2.0]]), jnp.array([[1.0, 0, 0, 0]]), jnp.full((1, 3), 0.2),
        ...     jnp.array([0.9]), jnp.zeros((1, 1, 3)), camera=camera)
        >>> seen.rgb.shape, seen.features.shape
        ((6, 8, 3), (6, 8, 0))
    """
    gaussians = (means, quats_wxyz, scales, opacities, sh)
    options = options or SplatOptions()
    _check(gaussians)
    camera = _cast(camera, means.dtype)
    n = means.shape[0]
    extra = jnp.zeros((n, 0), means.dtype) if features is None else features
    if extra.ndim != 2 or extra.shape[0] != n:
        raise ValueError(f"features has shape {extra.shape}, expected ({n}, F); one row a Gaussian")
    background = _spread("background", background, (*camera.focal.shape[:-1], 3), means.dtype)

    def one(camera: Cameras, background: Array) -> Rendering:
        p = _project_one(gaussians, camera, options)
        values = jnp.concatenate([p.rgb, p.depth[:, None], extra.astype(p.rgb.dtype)], -1)
        image, t = _composite_one(p, values, camera, options, None)
        opacity = 1 - t
        return Rendering(
            rgb=image[..., :3] + t[..., None] * background[None, None],
            depth=image[..., 3] / jnp.maximum(opacity, 1e-8),
            opacity=opacity,
            features=image[..., 4:],
        )

    return _over_cameras(one, camera)(camera, background)


def _check(gaussians: _Arrays) -> None:
    means, sh = gaussians[0], gaussians[4]
    if means.ndim != 2 or means.shape[-1] != 3:
        raise ValueError(
            f"means has shape {means.shape}, expected (N, 3); use vmap over batches of scenes"
        )
    n = means.shape[0]
    if sh.ndim != 3:
        raise ValueError(f"sh has shape {sh.shape}, expected ({n}, K, 3); keep the colours last")
    degree_of(sh.shape[1])
    names = ("means", "quats_wxyz", "scales", "opacities", "sh")
    shapes = ((n, 3), (n, 4), (n, 3), (n,), (n, sh.shape[1], 3))
    for name, array, shape in zip(names, gaussians, shapes, strict=True):
        if array.shape != shape:
            raise ValueError(
                f"{name} has shape {array.shape}, expected {shape} to go with means {means.shape}"
            )
        if array.dtype != means.dtype or not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(
                f"{name} is {array.dtype} and means {means.dtype}, expected one float type"
            )


def _cast(camera: Cameras, dtype: DTypeLike) -> Cameras:
    def cast(x: Array) -> Array:
        return jnp.asarray(x).astype(dtype)

    return jax.tree.map(cast, camera)


def _spread(name: str, value: Array | None, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    if value is None:
        return jnp.zeros(shape, dtype)
    value = jnp.asarray(value)
    if value.shape != shape[len(shape) - value.ndim :]:
        raise ValueError(f"{name} has shape {value.shape}, expected {shape} or its last axes")
    return jnp.broadcast_to(value.astype(dtype), shape)


def _over_cameras(one: Callable[..., Any], camera: Cameras) -> Callable[..., Any]:
    for _ in camera.focal.shape[:-1]:
        one = jax.vmap(one)
    return one


def _project_one(gaussians: _Arrays, camera: Cameras, options: SplatOptions) -> Projected:
    inputs = (*gaussians, camera.world_from_cam, camera.focal, camera.centre)
    static: dict[str, Any] = {
        "height": camera.height,
        "width": camera.width,
        "near": options.near,
        "antialiased": options.antialiased,
    }

    def native(*inputs: Array) -> Projected:
        return Projected(*_native.project(*inputs, **static))

    def warp(*inputs: Array) -> Projected:
        return Projected(*_project_warp.project(*inputs, **static))

    def xla(*inputs: Array) -> Projected:
        return project(*inputs, model=camera.model, **static)

    chosen = choose_backend(options.backend, gaussians[0].dtype)
    if chosen == "reference":
        pose = (camera.world_from_cam, camera.focal, camera.centre)
        return project_reference(*gaussians, *pose, model=camera.model, **static)
    n, k = gaussians[4].shape[:2]
    if chosen == "xla" or camera.model != "pinhole" or n == 0 or k > _KERNEL_SH:
        return xla(*inputs)
    if chosen == "platform":
        return by_platform(*inputs, native=native, warp=warp, xla=xla)
    return warp(*inputs) if chosen == "warp" else native(*inputs)


def _composite_one(
    p: Projected, values: Array, camera: Cameras, options: SplatOptions, probe: Array | None
) -> tuple[Array, Array]:
    return composite_gaussians(
        p.xy,
        p.factor,
        p.opacities,
        p.depth,
        values,
        height=camera.height,
        width=camera.width,
        probe=probe,
        backend=options.backend,
        slots=options.slots,
    )
