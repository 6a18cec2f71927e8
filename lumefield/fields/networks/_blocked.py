"""A multilayer perceptron in plain XLA, in blocks of samples: the twin and fallback of the kernel.

Letters: n samples, i inputs, o outputs, h hidden features.
"""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from lumefield.fields.networks._trig import sin

Activation = Literal["relu", "sine"]
"""``relu``: max(z, 0), slope 0 at 0. ``sine``: sin(z); scale the weights for SIREN's omega."""

BLOCK = 4096
"""Samples whose activations stay in a core's second-level cache at width 64."""


def plain_mlp(
    x: Array, weights: Sequence[Array], biases: Sequence[Array], activation: Activation
) -> Array:
    """The perceptron as one expression, all samples at once; the readable twin.

    Args:
        x: (*s, i).
        weights: One (in, out) matrix per layer.
        biases: One (out,) vector per layer, or empty.
        activation: Of every layer but the last, which is linear.
    """
    last = len(weights) - 1
    for layer, w in enumerate(weights):
        z = x @ w
        if biases:
            z = z + jnp.broadcast_to(biases[layer], z.shape)
        x = z if layer == last else sin(z) if activation == "sine" else jax.nn.relu(z)
    return x


def blocked_mlp(
    x: Float[Array, "n i"],
    weights: Sequence[Array],
    biases: Sequence[Array],
    activation: Activation,
) -> Float[Array, "n o"]:
    """The same numbers as :func:`plain_mlp`, block by block, so that activations stay in cache.

    Only the inputs are kept for the backward pass, which computes each block again. Differentiable
    in every argument to any order, in forward and reverse mode; any float dtype. On other devices
    than a CPU the samples go through at once.
    """

    def block(x: Array) -> Array:
        return plain_mlp(x, weights, biases, activation)

    n = x.shape[0]
    whole = n - n % BLOCK
    if n <= BLOCK or jax.default_backend() != "cpu":
        return block(x)
    parts = x[:whole].reshape(-1, BLOCK, x.shape[1])
    y = lax.map(jax.checkpoint(block), parts).reshape(whole, -1)
    return y if whole == n else jnp.concatenate([y, block(x[whole:])])
