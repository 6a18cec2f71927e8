"""The C++ backend: each kernel as a differentiable function of float32 arrays, one camera a call.

Kept between forward and backward: the inputs, the image with its transmittance, and the depth order
of the visible Gaussians (4 bytes each); tile lists are made again.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lumefield import native
from lumefield.render._channels import in_groups


def available() -> bool:
    """Whether the native kernels can be used (they are built at the first call)."""
    return native.load()


def _f32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _threads() -> np.int64:
    return np.int64(native.threads())


@partial(jax.custom_vjp, nondiff_argnums=(8, 9, 10, 11))
def _project(
    means: Array,
    quats: Array,
    scales: Array,
    opacities: Array,
    sh: Array,
    pose: Array,
    focal: Array,
    centre: Array,
    height: int,
    width: int,
    near: float,
    antialiased: bool,
) -> tuple[Array, ...]:
    n = means.shape[0]
    out = (_f32(n, 2), _f32(n, 3), _f32(n), _f32(n), _f32(n, 3))
    inputs = (means, quats, scales, opacities, sh, pose, focal, centre)
    return native.call("ProjectForward", out, *inputs, **_static(height, width, near, antialiased))


def _static(height: int, width: int, near: float, antialiased: bool) -> dict[str, Any]:
    return {
        "n_threads": _threads(),
        "height": np.int64(height),
        "width": np.int64(width),
        "near": np.float32(near),
        "antialiased": np.bool_(antialiased),
    }


def _project_fwd(*args: Any) -> tuple[tuple[Array, ...], tuple[Array, ...]]:  # noqa: ANN401
    return _project(*args), args[:8]


def _project_bwd(
    height: int,
    width: int,
    near: float,
    antialiased: bool,
    inputs: tuple[Array, ...],
    cotangents: tuple[Array, ...],
) -> tuple[Array, ...]:
    out = tuple(_f32(*x.shape) for x in inputs)
    static = _static(height, width, near, antialiased)
    return tuple(native.call("ProjectBackward", out, *inputs, *cotangents, **static))


_project.defvjp(_project_fwd, _project_bwd)


def project(
    *inputs: Array, height: int, width: int, near: float, antialiased: bool
) -> tuple[Array, ...]:
    """Project Gaussians and evaluate their colour; see ``project_gaussians``.

    Args:
        *inputs: means (N, 3), quats_wxyz (N, 4), scales (N, 3), opacities (N,), sh (N, K, 3) with
            K <= 16, world_from_cam (3, 4), focal (2,), centre (2,), all float32.
        height: Rows of the image.
        width: Columns of the image.
        near: Cull at Z <= near.
        antialiased: Scale opacities as Mip-Splatting does.

    Returns:
        xy, factor, depth, opacities, rgb; rgb is 0 where a whole SIMD group is culled.
    """
    return tuple(_project(*inputs, height, width, near, antialiased))


@partial(jax.custom_vjp, nondiff_argnums=(6, 7, 8))
def _composite(
    xy: Array,
    factor: Array,
    opacities: Array,
    depth: Array,
    values: Array,
    probe: Array,
    height: int,
    width: int,
    absolute: bool,
) -> tuple[Array, Array]:
    return _composite_fwd(xy, factor, opacities, depth, values, probe, height, width, absolute)[0]


def _composite_fwd(
    xy: Array,
    factor: Array,
    opacities: Array,
    depth: Array,
    values: Array,
    probe: Array,
    height: int,
    width: int,
    absolute: bool,
) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
    del probe, absolute
    n, channels = values.shape
    out = (
        _f32(height, width, channels),
        _f32(height, width),
        jax.ShapeDtypeStruct((n + 1,), jnp.int32),
    )
    inputs = (xy, factor, opacities, depth, values)
    image, trans, kept = native.call("CompositeForward", out, *inputs, n_threads=_threads())
    return (image, trans), (*inputs, kept, image, trans)


def _composite_bwd(
    height: int,
    width: int,
    absolute: bool,
    saved: tuple[Array, ...],
    cotangents: tuple[Array, Array],
) -> tuple[Array, ...]:
    del height, width
    n, channels = saved[4].shape
    out = (_f32(n, 2), _f32(n, 3), _f32(n), _f32(n, channels), _f32(n, 2))
    xy, factor, opacities, values, probe = native.call(
        "CompositeBackward",
        out,
        *saved,
        *cotangents,
        n_threads=_threads(),
        absolute=np.bool_(absolute),
    )
    return xy, factor, opacities, jnp.zeros_like(saved[3]), values, probe


_composite.defvjp(_composite_fwd, _composite_bwd)


def composite(
    xy: Array,
    factor: Array,
    opacities: Array,
    depth: Array,
    values: Array,
    probe: Array | None = None,
    *,
    height: int,
    width: int,
) -> tuple[Array, Array]:
    """Composite projected Gaussians; see ``composite_gaussians``. Any number of channels.

    Args:
        xy: (N, 2), like all inputs float32.
        factor: (N, 3).
        opacities: (N,).
        depth: (N,).
        values: (N, C).
        probe: (N, 2) zeros whose cotangent is the AbsGS statistic, or None: it is not computed.
        height: Rows of the image.
        width: Columns of the image.

    Returns:
        (H, W, C) image and (H, W) transmittance.
    """
    absolute = probe is not None
    probe = jnp.zeros_like(xy) if probe is None else probe
    geometry = (xy, factor, opacities, depth)

    def part(values: Array) -> tuple[Array, Array]:
        done: Any = _composite(*geometry, values, probe, height, width, absolute)
        return done

    return in_groups(part, values)
