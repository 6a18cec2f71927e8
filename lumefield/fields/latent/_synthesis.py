"""From upsampled latents to pixels: a native kernel with its gradient on CPUs, or XLA.

The same numbers as ``synthesise`` in ``_model``, which is the readable twin, and what other devices
run; XLA on a CPU gets blocks of rows instead. Letters as there.
"""

from dataclasses import fields
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from lumefield import native
from lumefield.fields.latent import _model
from lumefield.fields.latent._backend import Backend, choose_backend
from lumefield.fields.latent._model import Synthesis, pointwise

MAX_LEVELS, MAX_HIDDEN_WIDTH, MAX_CHANNELS = 16, 32, 4
"""What the kernel takes."""
BLOCK = 32
"""Rows of a block of the XLA route."""

_NAMES = tuple(field.name for field in fields(Synthesis))


def synthesise(
    net: Synthesis, stack: Float[Array, "l h w"], *, backend: Backend = "auto"
) -> Float[Array, "c h w"]:
    """Pixels in [0, 16] (not clipped) from upsampled latents.

    Differentiable in the network and the stack, in reverse mode and once with the native backend.
    Slopes at ties (a hidden activation of exactly 0) are 0 there. Results do not depend on the
    number of threads.

    Args:
        net: The network.
        stack: Upsampled levels, finest first.
        backend: ``auto``, ``native`` (C++, CPU, float32, at most 16 levels, 32 hidden features and
            4 channels) or ``xla``.

    Raises:
        ValueError: If shapes or the backend do not fit.
    """
    hidden, levels = net.x1.shape
    channels = net.x2.shape[0]
    if stack.ndim != 3 or stack.shape[0] != levels:
        raise ValueError(f"stack has shape {stack.shape}, expected ({levels}, rows, columns)")
    unfit = ""
    if levels > MAX_LEVELS or hidden > MAX_HIDDEN_WIDTH or channels > MAX_CHANNELS:
        unfit = (
            f"{levels} levels, {hidden} hidden features and {channels} channels, expected at most "
            f"{MAX_LEVELS}, {MAX_HIDDEN_WIDTH} and {MAX_CHANNELS}"
        )
    if choose_backend(backend, jax.tree.leaves((net, stack)), unfit) == "native":
        return _native(net, stack)
    if jax.default_backend() != "cpu":
        return _model.synthesise(net, stack)
    z = _by_rows(partial(pointwise, net), stack)
    z = jnp.maximum(z + _conv(z, net.conv1, net.g1), 0.0)
    return z + _conv(z, net.conv2, net.g2)


def _by_rows(f: Any, x: Array, halo: int = 0) -> Array:  # noqa: ANN401
    """``f`` of blocks of rows of (k, h, w) with ``halo`` rows around; the rows come together again.

    Only ``x`` is kept for the gradient.
    """
    k, h, w = x.shape
    h -= 2 * halo
    blocks = -(-h // BLOCK)
    padded = jnp.pad(x, ((0, 0), (0, blocks * BLOCK - h), (0, 0)))

    def block(t: Array) -> Array:
        size = (k, BLOCK + 2 * halo, w)
        return f(lax.dynamic_slice(padded, (jnp.zeros_like(t), t, jnp.zeros_like(t)), size))

    y = lax.map(jax.checkpoint(block), jnp.arange(blocks) * BLOCK)
    return jnp.moveaxis(y, 0, 1).reshape(y.shape[1], -1, y.shape[3])[:, :h]


def _conv(z: Array, kernel: Array, bias: Array) -> Array:
    """3 x 3 convolution with repeated edges: a product with nine shifted copies of a block."""
    c = z.shape[0]
    weights = jnp.moveaxis(kernel, 1, -1).reshape(c, -1)

    def block(padded: Array) -> Array:
        rows, columns = padded.shape[1] - 2, padded.shape[2] - 2
        near = [padded[:, i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
        flat = jnp.concatenate(near).reshape(-1, rows * columns)
        return (weights @ flat).reshape(c, rows, columns) + bias[:, None, None]

    return _by_rows(block, jnp.pad(z, ((0, 0), (1, 1), (1, 1)), mode="edge"), halo=1)


def _call(symbol: str, out: list[Any], *inputs: Array) -> list[Array]:
    return native.call(symbol, out, *inputs, n_threads=np.int64(native.threads()))


def _inputs(net: Synthesis, *more: Array) -> list[Array]:
    return [*(getattr(net, name) for name in _NAMES), *more]


def _picture(net: Synthesis, stack: Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((net.x2.shape[0], *stack.shape[1:]), stack.dtype)


@jax.custom_vjp
def _native(net: Synthesis, stack: Array) -> Array:
    return _call("SynthesisForward", [_picture(net, stack)], *_inputs(net, stack))[0]


def _native_fwd(net: Synthesis, stack: Array) -> tuple[Array, Any]:
    out = [_picture(net, stack)] * 3
    y, *kept = _call("SynthesisForward", out, *_inputs(net, stack))
    return y, (net, stack, kept)


def _native_bwd(saved: Any, g: Array) -> tuple[Synthesis, Array]:  # noqa: ANN401
    net, stack, kept = saved
    inputs = _inputs(net, stack)
    out = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in inputs]
    *slopes, g_stack = _call("SynthesisBackward", out, *inputs, *kept, g)
    return Synthesis(**dict(zip(_NAMES, slopes, strict=True))), g_stack


_native.defvjp(_native_fwd, _native_bwd)
