"""The public compositing verb: checks, backend choice, batching.

Front to back over the Gaussians of a pixel, T transmittance, o opacity:

    alpha = min(o exp(-sigma), 0.999), skipped where o exp(-sigma) < 1/255
    image += T alpha value;  T <- T (1 - alpha);  the pixel stops once T <= 1e-4
"""

import functools
from collections.abc import Callable
from typing import Any, Literal, TypeVar, get_args

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike
from jaxtyping import Float

from lumefield import native as ground
from lumefield.render import _native, _warp, _xla
from lumefield.render._channels import CHANNELS
from lumefield.render._reference import composite_reference

Backend = Literal["auto", "native", "warp", "xla", "reference"]
"""``auto`` takes the C++ kernels on a CPU and the Warp kernels on an NVIDIA GPU, where they are
there, and XLA everywhere else."""

_Result = TypeVar("_Result")


def choose_backend(backend: str, dtype: DTypeLike) -> str:
    """Resolve ``auto`` to ``native``, ``xla`` or ``platform`` (see ``by_platform``).

    Raises:
        ValueError: If the backend is unknown, or ``native`` or ``warp`` cannot do what is asked.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend={backend!r}, expected one of {get_args(Backend)}")
    single = dtype == jnp.float32
    if backend in ("native", "warp") and not single:
        raise ValueError(f"backend={backend!r} with {dtype} arrays, expected float32; use 'xla'")
    if backend == "warp" and not ground.warp_available():
        raise ValueError(f"backend='warp', but {ground.warp_missing()}, or use 'auto'")
    if backend == "native" and not _native.available():
        raise ValueError(
            "backend='native', but no native library could be loaded; `lumefield doctor` says why, "
            "or use 'auto'"
        )
    if backend != "auto":
        return backend
    if not single:
        return "xla"
    # On a CPU-only process the answer is known now; elsewhere each platform lowers its own branch.
    if jax.default_backend() == "cpu":
        return "native" if _native.available() else "xla"
    return "platform"


def by_platform(
    *inputs: Array,
    native: Callable[..., _Result],
    warp: Callable[..., _Result],
    xla: Callable[..., _Result],
) -> _Result:
    """What ``auto`` runs where there is an accelerator: decided when code is made for a device."""
    branches: dict[str, Any] = {"default": xla}
    if _native.available():
        branches["cpu"] = native
    if jax.default_backend() in ("gpu", "cuda") and ground.warp_on_gpu():
        branches["cuda"] = warp
    return lax.platform_dependent(*inputs, **branches)


def composite_gaussians(
    xy: Array,
    factor: Array,
    opacities: Array,
    depth: Array,
    values: Array,
    *,
    height: int,
    width: int,
    probe: Array | None = None,
    backend: Backend = "auto",
    slots: int | None = None,
) -> tuple[Float[Array, "*b h w c"], Float[Array, "*b h w"]]:
    """Composite projected Gaussians, front to back in depth order, into an image of any channels.

    Kerbl et al. 2023, Sec. 6, with two differences: the shape is a triangular factor instead of a
    conic, and the entry that takes T to 1e-4 is applied in full. Equal depths keep input order.
    Differentiable in everything but ``depth``; no gradient where alpha is clamped. Leading axes
    ``*b``, the same for all arrays, are batch axes; so is ``vmap``.

    Args:
        xy: (*b, N, 2) centres in pixels.
        factor: (*b, N, 3) (u, v, w) in 1/px with u, w > 0:
            sigma = ((u dx + v dy)^2 + (w dy)^2) / 2, (dx, dy) = pixel centre - xy.
        opacities: (*b, N) in [0, 1]; 0 is culled.
        depth: (*b, N) sort key, any unit.
        values: (*b, N, C) channels: colours, depths, features.
        height: Rows of the image.
        width: Columns of the image.
        probe: (*b, N, 2) zeros or None. It changes nothing; its gradient is the sum over pixels of
            |dL/dxy| (AbsGS, Ye et al. 2024), which densification uses. At most 8 channels with it:
            kernels take more in groups, and absolute values of groups do not add up.
        backend: ``auto``, ``native`` (C++, CPU, float32), ``warp`` (NVIDIA GPU, and slowly the
            CPU; float32), ``xla`` or ``reference`` (dense; its probe gets no gradient).
        slots: See ``SplatOptions``.

    Returns:
        (*b, H, W, C) sum of T alpha value, no background; (*b, H, W) transmittance in [0, 1].

    Raises:
        ValueError: If shapes, dtypes, sizes or the backend do not fit.

    Example:
        >>> image, t = composite_gaussians(
        ...     jnp.array([[2.0, 2.0]]), jnp.array([[1.0, 0.0, 1.0]]), jnp.array([0.5]),
        ...     jnp.array([1.0]), jnp.ones((1, 3)), height=4, width=5)
        >>> image.shape, t.shape
        ((4, 5, 3), (4, 5))
    """
    arrays = (xy, factor, opacities, depth, values, *([] if probe is None else [probe]))
    _check(arrays, height, width)
    chosen = choose_backend(backend, xy.dtype)

    def one(*arrays: Array) -> tuple[Array, Array]:
        return _unbatched(chosen, *arrays, height=height, width=width, slots=slots)

    for _ in xy.shape[:-2]:
        one = jax.vmap(one)
    return one(*arrays)


def _check(arrays: tuple[Array, ...], height: int, width: int) -> None:
    xy, values = arrays[0], arrays[4]
    if xy.ndim < 2 or xy.shape[-1] != 2:
        raise ValueError(f"xy has shape {xy.shape}, expected (*b, N, 2); transpose it")
    n = xy.shape[:-1]
    channels = values.shape[-1:] if values.ndim else ()
    shapes = ((*n, 2), (*n, 3), n, n, (*n, *channels), (*n, 2))
    names = ("xy", "factor", "opacities", "depth", "values", "probe")
    for name, array, shape in zip(names, arrays, shapes, strict=False):
        if array.shape != shape:
            raise ValueError(
                f"{name} has shape {array.shape}, expected {shape} to go with xy {xy.shape}"
            )
        if array.dtype != xy.dtype or not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(
                f"{name} is {array.dtype} and xy {xy.dtype}, expected one float type; use astype"
            )
    if len(arrays) == len(names) and values.shape[-1] > CHANNELS[-1]:
        raise ValueError(
            f"values has {values.shape[-1]} channels beside a probe, expected at most "
            f"{CHANNELS[-1]}; composite the others in a second call without probe"
        )
    if height < 1 or width < 1:
        raise ValueError(f"height={height}, width={width}, expected at least one pixel")


def _unbatched(
    chosen: str, *arrays: Array, height: int, width: int, slots: int | None
) -> tuple[Array, Array]:
    size = {"height": height, "width": width}
    if arrays[0].shape[0] == 0:
        dtype = arrays[0].dtype
        image = jnp.zeros((height, width, arrays[4].shape[1]), dtype)
        return image, jnp.ones((height, width), dtype)
    if chosen == "reference":
        return composite_reference(*arrays[:5], **size)[:2]
    runs = {
        "native": functools.partial(_native.composite, **size),
        "warp": functools.partial(
            _warp.composite, **size, capacity=slots, single=slots is not None
        ),
        "xla": functools.partial(_xla.composite, **size),
    }
    return by_platform(*arrays, **runs) if chosen == "platform" else runs[chosen](*arrays)
