"""A few dense layers with ReLU between them, as the radiance fields share them."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lumefield.fields.networks._fused_mlp import Precision, mlp


class Stack(nnx.Module):
    """Linear layers of the given sizes, ReLU after all but the last; one fused kernel.

    He et al., "Delving Deep into Rectifiers", 2015: uniform weights of variance 2 / inputs before a
    ReLU, 1 / inputs in the last layer; biases start at 0.

    Args:
        sizes: Inputs, hidden features, outputs.
        bias: Whether layers have one.
        precision: Of the factors of products, see :func:`lumefield.fields.networks.mlp`.
        rngs: For the weights.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        bias: bool = True,
        precision: Precision = "float32",
        rngs: nnx.Rngs,
    ) -> None:
        self.precision: Precision = precision
        pairs = list(itertools.pairwise(sizes))
        gains = [6.0] * (len(pairs) - 1) + [3.0]
        self.weights = nnx.List(
            nnx.Param(_uniform(rngs.params(), i, o, gain))
            for (i, o), gain in zip(pairs, gains, strict=True)
        )
        self.biases = nnx.List(nnx.Param(jnp.zeros((o,))) for _, o in pairs if bias)

    def __call__(self, x: Float[Array, "*s i"]) -> Float[Array, "*s o"]:
        """Evaluate at ``x``; every leading axis is a batch axis."""
        biases = [b[...] for b in self.biases] if len(self.biases) else None
        return mlp(x, [w[...] for w in self.weights], biases, precision=self.precision)


def _uniform(key: Array, i: int, o: int, gain: float) -> Float[Array, "i o"]:
    bound = (gain / i) ** 0.5
    return jax.random.uniform(key, (i, o), minval=-bound, maxval=bound)
