"""Instant-NGP's field: a multiresolution hash encoding and a small ReLU network.

Müller, Evans, Schied, Keller, "Instant Neural Graphics Primitives with a Multiresolution Hash
Encoding", 2022, Sec. 3. We differ in the initial network (He's variance) and in that points are
encoded in [-1, 1] with vertices on the box itself.
"""

import jax
from flax import nnx
from jaxtyping import Array, Float

from lumefield.fields.networks._fused_mlp import Backend, mlp
from lumefield.fields.networks._hash_encode import Levels as Levels
from lumefield.fields.networks._hash_encode import encode as encode
from lumefield.fields.networks._mlp import layer_sizes, relu_layers


class HashGrid(nnx.Module):
    """Hash grid from ``i`` coordinates in [-1, 1] to ``o`` values, for 1 to 4 coordinates.

    Piecewise smooth: multilinear in every cell of every level, ReLU after. Its gradient by x exists
    inside the cells and jumps between them; second derivatives of mixed coordinates exist there
    too, those of one coordinate come from nothing but products of levels and are mostly 0.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        shape: Levels | None = None,
        width: int = 64,
        depth: int = 2,
        backend: Backend = "auto",
        rngs: nnx.Rngs,
    ) -> None:
        """Draw table and weights; the table uniform within 1e-4 (paper, Sec. 4).

        Args:
            d_in: Number of coordinates.
            d_out: Number of values.
            shape: Levels of the grid; ``Levels.geometric(d_in)`` when None: 16 levels of at most
                2^15 entries, 16 to 512 cells per axis.
            width: Units of a hidden layer.
            depth: Number of hidden layers.
            backend: "auto", "native" (float32 on CPUs, reverse mode only) or "xla".
            rngs: Where the numbers come from.

        Raises:
            ValueError: If a size is out of its range, or ``shape`` is not for ``d_in`` coordinates.
        """
        levels = Levels.geometric(d_in) if shape is None else shape
        if levels.d != d_in:
            raise ValueError(
                f"shape is for {levels.d} coordinates, expected {d_in}; "
                f"use Levels.geometric({d_in})"
            )
        self.levels = levels
        self.backend: Backend = backend
        self.table = nnx.Param(
            jax.random.uniform(
                rngs.params(), (levels.rows, levels.features), minval=-1e-4, maxval=1e-4
            )
        )
        self.layers = relu_layers(layer_sizes(levels.width, d_out, width, depth), rngs)

    def __call__(self, x: Float[Array, "*s i"]) -> Float[Array, "*s o"]:
        """Values at ``x``; every leading axis is a batch axis."""
        weights, biases = zip(*((y.kernel[...], _bias(y)) for y in self.layers), strict=True)
        features = encode(self.table[...], x, self.levels, backend=self.backend)
        return mlp(features, weights, biases, backend=self.backend)


def _bias(layer: nnx.Linear) -> Array:
    assert layer.bias is not None, "relu_layers makes layers with a bias"
    return layer.bias[...]
