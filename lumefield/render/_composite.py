"""The public compositing verb: checks, backend choice, batching.

Front to back over the Gaussians of a pixel, T transmittance, o opacity:

    alpha = min(o exp(-sigma), 0.999), skipped where o exp(-sigma) < 1/255
    image += T alpha value;  T <- T (1 - alpha);  the pixel stops once T <= 1e-4
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike
from jaxtyping import Float

from lumefield.render import _native, _xla
from lumefield.render._reference import composite_reference

Backend = Literal["auto", "native", "xla", "reference"]
"""``auto`` takes the C++ kernels on a CPU when they are there, and XLA everywhere else."""


def choose_backend(backend: str, dtype: DTypeLike) -> str:
    """Resolve ``auto`` to ``native``, ``xla`` or ``platform`` (decided at lowering).

    Raises:
        ValueError: If the backend is unknown, or ``native`` cannot do what is asked.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend={backend!r}, expected one of {get_args(Backend)}")
    single = dtype == jnp.float32
    if backend == "native" and not single:
        raise ValueError(f"backend='native' with {dtype} arrays, expected float32; use 'xla'")
    if backend == "native" and not _native.available():
        raise ValueError(
            "backend='native', but no native library could be loaded; `lumefield doctor` says why, "
            "or use 'auto'"
        )
    if backend != "auto":
        return backend
    if not (single and _native.available()):
        return "xla"
    # On a CPU-only process the answer is known now; elsewhere each platform lowers its own branch.
    return "native" if jax.default_backend() == "cpu" else "platform"


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
            the native kernel takes more in groups, and absolute values of groups do not add up.
        backend: ``auto``, ``native`` (C++, CPU, float32), ``xla`` or ``reference`` (dense; its
            probe gets no gradient).

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
        return _unbatched(chosen, *arrays, height=height, width=width)

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
    if len(arrays) == len(names) and values.shape[-1] > _native.CHANNELS[-1]:
        raise ValueError(
            f"values has {values.shape[-1]} channels beside a probe, expected at most "
            f"{_native.CHANNELS[-1]}; composite the others in a second call without probe"
        )
    if height < 1 or width < 1:
        raise ValueError(f"height={height}, width={width}, expected at least one pixel")


def _unbatched(chosen: str, *arrays: Array, height: int, width: int) -> tuple[Array, Array]:
    size = {"height": height, "width": width}
    if arrays[0].shape[0] == 0:
        dtype = arrays[0].dtype
        image = jnp.zeros((height, width, arrays[4].shape[1]), dtype)
        return image, jnp.ones((height, width), dtype)
    if chosen == "reference":
        return composite_reference(*arrays[:5], **size)[:2]
    if chosen == "platform":

        def native(*arrays: Array) -> tuple[Array, Array]:
            return _native.composite(*arrays, **size)

        def xla(*arrays: Array) -> tuple[Array, Array]:
            return _xla.composite(*arrays, **size)

        return lax.platform_dependent(*arrays, cpu=native, default=xla)
    backend = _native if chosen == "native" else _xla
    return backend.composite(*arrays, **size)
