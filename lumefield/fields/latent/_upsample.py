"""All levels of a pyramid at the size of the finest: a native kernel on CPUs, or matrices in XLA.

The same numbers as ``upsample`` in ``_model``, which is the readable twin. Letters as there.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from lumefield import native
from lumefield.fields.latent import _model
from lumefield.fields.latent._backend import Backend, choose_backend

MAX_LEVELS = 16
"""Most levels that the kernel takes."""
DENSE = 1024
"""Longest axis for which XLA is given dense matrices, which are three times faster there."""


def upsample(
    latents: tuple[Array, ...], filters: Float[Array, "m 4"], *, backend: Backend = "auto"
) -> Float[Array, "l h w"]:
    """All levels at the size of the finest, level 0 first: a cascade of separable x2 filters.

    Level i + 1 and all coarser ones pass ``filters[i]``, the outer half of eight symmetric taps
    first; edges repeat. (0, 1/4, 3/4, 0) is bilinear interpolation. Differentiable in the levels
    and the filters, in reverse mode and once with the native backend. Results do not depend on the
    number of threads.

    Args:
        latents: Levels, finest first, each of half the rows and columns of the one before it,
            rounded up.
        filters: Taps.
        backend: ``auto``, ``native`` (C++, CPU, float32, at most 16 levels) or ``xla``.

    Raises:
        ValueError: If shapes or the backend do not fit.
    """
    _model.check_pyramid(latents)
    if filters.shape != (len(latents) - 1, 4):
        raise ValueError(f"filters has shape {filters.shape}, expected ({len(latents) - 1}, 4)")
    unfit = ""
    if len(latents) > MAX_LEVELS:
        unfit = f"{len(latents)} levels, expected at most {MAX_LEVELS}"
    if choose_backend(backend, (*latents, filters), unfit) == "native":
        return _native(latents, filters)
    if max(latents[0].shape) > DENSE or jax.default_backend() != "cpu":
        return _model.upsample(latents, filters)
    stack = latents[-1][None]
    for i in range(len(latents) - 2, -1, -1):
        h, w = latents[i].shape
        down = _matrix(filters[i], stack.shape[1], h)
        across = _matrix(filters[i], stack.shape[2], w)
        wide = jnp.einsum("chw,xw->chx", stack, across, precision="highest")
        tall = jnp.einsum("chx,yh->cyx", wide, down, precision="highest")
        stack = jnp.concatenate([latents[i][None], tall])
    return stack


def _matrix(taps: Array, n: int, doubled: int) -> Array:
    """(doubled, n): what turns n numbers into the first ``doubled`` of 2 n."""
    at = jnp.arange(doubled)
    matrix = jnp.zeros((doubled, n), taps.dtype)
    for t, (even, odd) in enumerate(((-2, 2), (-1, 1), (0, 0), (1, -1))):
        reads = jnp.clip(at // 2 + jnp.where(at % 2 == 0, even, odd), 0, n - 1)
        matrix = matrix + jnp.where(reads[:, None] == jnp.arange(n)[None, :], taps[t], 0)
    return matrix


def _threads() -> dict[str, np.int64]:
    return {"n_threads": np.int64(native.threads())}


@jax.custom_vjp
def _native(latents: tuple[Array, ...], filters: Array) -> Array:
    out = jax.ShapeDtypeStruct((len(latents), *latents[0].shape), filters.dtype)
    return native.call("UpsampleForward", out, filters, *latents, **_threads())


def _native_fwd(latents: tuple[Array, ...], filters: Array) -> tuple[Array, Any]:
    return _native(latents, filters), (latents, filters)


def _native_bwd(saved: Any, g: Array) -> tuple[tuple[Array, ...], Array]:  # noqa: ANN401
    latents, filters = saved
    out = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (filters, *latents)]
    slopes = native.call("UpsampleBackward", out, g, filters, *latents, **_threads())
    return tuple(slopes[1:]), slopes[0]


_native.defvjp(_native_fwd, _native_bwd)
