"""Bits of a picture's latents and their gradients: one native pass on CPUs, row blocks in XLA.

The native kernel computes the gradients together with the value, because both need the same
activations of the same block while they are in fast memory; the backward pass of jax then only
multiplies them by the cotangent. Letters as in ``_model``.
"""

from dataclasses import fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from lumefield import native
from lumefield.fields.latent._backend import Backend, choose_backend
from lumefield.fields.latent._model import (
    INPUTS,
    ContextModel,
    check_pyramid,
    contexts,
    distribution,
    laplace_bits,
)

MAX_WIDTH = 24
"""Widest context network that the kernel takes."""
MAX_LEVELS = 16
"""Most levels that the kernel takes."""
BLOCK = 32
"""Rows of a block of the XLA route; a multiple of four."""
_EDGE = 4  # rows around a block that its contexts may need, in whole cells of two levels up

_NAMES = tuple(field.name for field in fields(ContextModel))


def latent_rate(
    net: ContextModel, latents: tuple[Array, ...], *, backend: Backend = "auto"
) -> tuple[Float[Array, ""], Float[Array, " l"]]:
    """Bits of all latents, and of each level.

    The same number as ``latent_bits(net, latents).sum()``. The total is differentiable in reverse
    mode in the network and the latents, once; the bits of each level are constants. Slopes at ties
    (a hidden activation of exactly 0) are 0. Results do not depend on the number of threads.

    Args:
        net: The context model.
        latents: Levels, finest first, each of half the rows and columns of the one before it,
            rounded up; in units of the quantisation step, whole numbers or noisy stand-ins.
        backend: ``auto``, ``native`` (C++, CPU, float32, at most 24 features and 16 levels) or
            ``xla``.

    Raises:
        ValueError: If shapes or the backend do not fit.
    """
    _check(net, latents)
    width = net.w1.shape[0]
    unfit = ""
    if width > MAX_WIDTH or len(latents) > MAX_LEVELS:
        unfit = (
            f"a context model of {width} features and {len(latents)} levels, expected at most "
            f"{MAX_WIDTH} and {MAX_LEVELS}"
        )
    if choose_backend(backend, jax.tree.leaves((net, latents)), unfit) == "native":
        total, levels = _native(net, latents)
    else:
        levels = jnp.stack([_level_bits(net, latents, i) for i in range(len(latents))])
        total = levels.sum()
    return total, lax.stop_gradient(levels)


def _check(net: ContextModel, latents: tuple[Array, ...]) -> None:
    check_pyramid(latents)
    if net.w1.shape[1] != INPUTS:
        raise ValueError(f"w1 has shape {net.w1.shape}, expected (a, {INPUTS})")
    if net.b1.shape[0] != len(latents):
        raise ValueError(f"b1 has {net.b1.shape[0]} rows for {len(latents)} levels of latents")


def _level_bits(net: ContextModel, latents: tuple[Array, ...], i: int) -> Array:
    """Bits of one level; on a CPU by blocks of rows, of which only the latents are kept."""
    y = latents[i]
    h, w = y.shape
    half, quarter = (
        latents[i + n]
        if i + n < len(latents)
        else jnp.zeros((-(-h // 2**n), -(-w // 2**n)), y.dtype)
        for n in (1, 2)
    )
    if h <= 2 * BLOCK or jax.default_backend() != "cpu":
        return laplace_bits(y, *distribution(net, contexts(y, half, quarter), i)).sum()
    blocks = -(-h // BLOCK)

    def framed(a: Array, halvings: int) -> Array:
        edge, rows = _EDGE >> halvings, (blocks * BLOCK) >> halvings
        return jnp.pad(a, ((edge, rows + edge - a.shape[0]), (0, 0)))

    levels = [framed(a, n) for n, a in enumerate((y, half, quarter))]

    @jax.checkpoint
    def block(levels: list[Array], net: ContextModel, t: Array) -> Array:
        rows = BLOCK + 2 * _EDGE
        cut = [
            lax.dynamic_slice_in_dim(a, t * (BLOCK >> n), rows >> n) for n, a in enumerate(levels)
        ]
        inside = slice(_EDGE, _EDGE + BLOCK)
        x = contexts(cut[0], cut[1], cut[2])[:, inside]
        bits = laplace_bits(cut[0][inside], *distribution(net, x, i))
        valid = t * BLOCK + jnp.arange(BLOCK) < h
        return jnp.where(valid[:, None], bits, 0).sum()

    def step(total: Array, t: Array) -> tuple[Array, None]:
        return total + block(levels, net, t), None

    return lax.scan(step, jnp.zeros((), y.dtype), jnp.arange(blocks))[0]


def _call(net: ContextModel, latents: tuple[Array, ...], *, gradients: bool) -> list[Array]:
    """Bits per level; with gradients also those of the parameters and of each level."""
    inputs = [*(getattr(net, name) for name in _NAMES), *latents]
    out = [jax.ShapeDtypeStruct((len(latents),), jnp.float32)]
    if gradients:
        out += [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in inputs]
    return native.call("LatentRate", out, *inputs, n_threads=np.int64(native.threads()))


@jax.custom_vjp
def _native(net: ContextModel, latents: tuple[Array, ...]) -> tuple[Array, Array]:
    (levels,) = _call(net, latents, gradients=False)
    return levels.sum(), levels


def _native_fwd(net: ContextModel, latents: tuple[Array, ...]) -> tuple[tuple[Array, Array], Any]:
    levels, *slopes = _call(net, latents, gradients=True)
    n = len(_NAMES)
    g_net = ContextModel(**dict(zip(_NAMES, slopes[:n], strict=True)))
    return (levels.sum(), levels), (g_net, tuple(slopes[n:]))


def _native_bwd(slopes: Any, g: tuple[Array, Array]) -> Any:  # noqa: ANN401
    def scaled(slope: Array) -> Array:
        return slope * g[0]

    return jax.tree.map(scaled, slopes)


_native.defvjp(_native_fwd, _native_bwd)
