"""An MLP whose activation is a Gaussian.

Ramasinghe and Lucey, "Beyond Periodicity: Towards a Unifying Framework for Activations in
Coordinate-MLPs", 2022, arXiv:2111.15135. Letters: sigma the width of the bell.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lumefield.fields.networks._mlp import layer_sizes, linear_layers


class GaussianMlp(nnx.Module):
    """MLP with activation exp(-x^2 / (2 sigma^2)) (Table 1); smooth of every order.

    Needs no encoding and, unlike SIREN, no particular start (Sec. 5): weights and biases start
    uniform within +-1/sqrt(n).
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        width: int = 256,
        depth: int = 4,
        sigma: float = 0.1,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw the weights.

        Args:
            d_in: Number of coordinates.
            d_out: Number of values.
            width: Units of a hidden layer.
            depth: Number of hidden layers.
            sigma: Width of the bell; smaller fits higher frequencies. Static.
            rngs: Where the weights come from.

        Raises:
            ValueError: If ``depth`` or ``width`` is below 1, or ``sigma`` is not positive.
        """
        if sigma <= 0:
            raise ValueError(f"sigma={sigma}, expected a positive width such as 0.1")
        self.sigma = sigma
        sizes = layer_sizes(d_in, d_out, width, depth)
        bounds = [n**-0.5 for n in sizes[:-1]]
        self.layers = linear_layers(sizes, bounds, bounds, rngs)

    def __call__(self, x: Float[Array, "*s i"]) -> Float[Array, "*s o"]:
        """Values at ``x``; every leading axis is a batch axis."""
        for layer in self.layers[:-1]:
            x = jnp.exp(-0.5 / self.sigma**2 * jnp.square(layer(x)))
        return self.layers[-1](x)
