"""The plain ReLU network on raw coordinates: the baseline that the other networks are made to beat.

Tancik et al., "Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional
Domains", 2020, Sec. 1, shows why it stays blurred: it learns high frequencies last, if at all.

Letters: i inputs, o outputs, n inputs of a layer, c half the width of a uniform distribution.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float


class ReluMlp(nnx.Module):
    """ReLU MLP from ``i`` coordinates in [-1, 1] to ``o`` values; no encoding.

    Weights start uniform with He's variance (He et al., 2015, Eq. 10), biases uniform within
    1/sqrt(n) so that the kinks start spread over the domain. Piecewise linear: its second
    derivatives are zero wherever they exist.
    """

    def __init__(
        self, d_in: int, d_out: int, *, width: int = 256, depth: int = 4, rngs: nnx.Rngs
    ) -> None:
        """Draw the weights.

        Args:
            d_in: Number of coordinates.
            d_out: Number of values.
            width: Units of a hidden layer.
            depth: Number of hidden layers.
            rngs: Where the weights come from.

        Raises:
            ValueError: If ``depth`` or ``width`` is below 1.
        """
        self.layers = relu_layers(layer_sizes(d_in, d_out, width, depth), rngs)

    def __call__(self, x: Float[Array, "*s i"]) -> Float[Array, "*s o"]:
        """Values at ``x``; every leading axis is a batch axis."""
        return relu_network(self.layers, x)


def layer_sizes(d_in: int, d_out: int, width: int, depth: int) -> list[int]:
    """Sizes from input to output of an MLP with ``depth`` hidden layers.

    Raises:
        ValueError: If a size is below 1.
    """
    for name, value in (("d_in", d_in), ("d_out", d_out), ("width", width), ("depth", depth)):
        if value < 1:
            raise ValueError(f"{name}={value}, expected at least 1")
    return [d_in, *[width] * depth, d_out]


def linear_layers(
    sizes: Sequence[int], kernels: Sequence[float], biases: Sequence[float], rngs: nnx.Rngs
) -> Sequence[nnx.Linear]:
    """An ``nnx.List`` of linear layers that start uniform within +-``kernels``, +-``biases``."""
    return nnx.List(
        nnx.Linear(i, o, kernel_init=symmetric(k), bias_init=symmetric(b), rngs=rngs)
        for i, o, k, b in zip(sizes[:-1], sizes[1:], kernels, biases, strict=True)
    )


def relu_layers(sizes: Sequence[int], rngs: nnx.Rngs) -> Sequence[nnx.Linear]:
    """Layers for :func:`relu_network`: He's variance, the last layer with a third of it."""
    kernels = [(6 / n) ** 0.5 for n in sizes[:-2]] + [(2 / sizes[-2]) ** 0.5]
    return linear_layers(sizes, kernels, [n**-0.5 for n in sizes[:-1]], rngs)


def relu_network(layers: Sequence[nnx.Linear], x: Float[Array, "*s i"]) -> Float[Array, "*s o"]:
    """Linear layers with a ReLU between them."""
    for layer in layers[:-1]:
        x = jax.nn.relu(layer(x))
    return layers[-1](x)


def symmetric(c: float) -> Initializer:
    """Initializer: uniform within +-``c``."""

    def draw(
        key: Array,
        shape: Sequence[int],
        dtype: object = jnp.float32,
        out_sharding: object = None,
    ) -> Array:
        del out_sharding
        return jax.random.uniform(key, tuple(shape), dtype, -c, c)  # pyright: ignore

    return draw
