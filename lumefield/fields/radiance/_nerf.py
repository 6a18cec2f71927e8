"""NeRF: one network from an encoded point and direction to density and colour.

Mildenhall et al., "NeRF: Representing Scenes as Neural Radiance Fields for View Synthesis", 2020,
Fig. 7 and Sec. 5. We differ in the size (4 layers of 128 instead of 8 of 256 with a skip
connection: what two CPU cores can train in minutes), in a softplus density (it cannot die), in that
samples of the fine pass are drawn anew instead of merged with the coarse ones, and in products of
bfloat16 where the CPU has them.
"""

import jax
from flax import nnx
from jaxtyping import Array, Float

from lumefield.fields.networks._encoding import positional_encoding
from lumefield.fields.radiance._directions import joined
from lumefield.fields.radiance._stack import Stack


class NerfNet(nnx.Module):
    """Trunk and colour head of one pass."""

    def __init__(
        self, *, width: int, depth: int, degrees: int, degrees_d: int, look: int, rngs: nnx.Rngs
    ) -> None:
        self.degrees, self.degrees_d = degrees, degrees_d
        layers = [3 + 6 * degrees, *[width] * depth, 1 + width // 2]
        self.trunk = Stack(layers, precision="bfloat16", rngs=rngs)
        layers = [width // 2 + 3 + 6 * degrees_d + look, width // 2, 3]
        self.head = Stack(layers, precision="bfloat16", rngs=rngs)

    def density(self, x: Float[Array, "*s 3"]) -> tuple[Float[Array, "*s"], Float[Array, "*s f"]]:
        """Density and the features of colour."""
        y = self.trunk(joined([x, positional_encoding(x, self.degrees)]))
        return jax.nn.softplus(y[..., 0] - 1), jax.nn.relu(y[..., 1:])

    def colour(
        self, features: Float[Array, "*s f"], d: Float[Array, "*d 3"], look: Array | None
    ) -> Float[Array, "*s 3"]:
        """Display sRGB of features seen along ``d``."""
        parts = [features, d, positional_encoding(d, self.degrees_d)]
        return jax.nn.sigmoid(self.head(joined(parts if look is None else [*parts, look])))


class Nerf(nnx.Module):
    """Coarse and fine networks; ``density`` and ``colour`` are those of the fine one."""

    def __init__(
        self,
        *,
        width: int = 128,
        depth: int = 4,
        degrees: int = 10,
        degrees_d: int = 4,
        look: int = 0,
        rngs: nnx.Rngs,
    ) -> None:
        if depth < 1 or width < 2:
            raise ValueError(f"depth={depth}, width={width}, expected at least 1 and 2")
        self.look = look

        def net(width: int) -> NerfNet:
            return NerfNet(
                width=width, depth=depth, degrees=degrees, degrees_d=degrees_d, look=look, rngs=rngs
            )

        self.coarse, self.fine = net(max(2, width // 2)), net(width)

    def density(
        self, x: Float[Array, "*s 3"], cov: Float[Array, "*s 3 3"] | None = None
    ) -> tuple[Float[Array, "*s"], Float[Array, "*s f"]]:
        """See ``RadianceField.density``; only points count."""
        del cov
        return self.fine.density(x)

    def colour(
        self,
        features: Float[Array, "*s f"],
        d: Float[Array, "*d 3"],
        look: Float[Array, "*e a"] | None = None,
    ) -> Float[Array, "*s 3"]:
        """See ``RadianceField.colour``."""
        return self.fine.colour(features, d, look)

    def proposals(
        self, x: Float[Array, "*s 3"], cov: Float[Array, "*s 3 3"] | None, k: int
    ) -> Float[Array, "*s"]:
        """Density of the coarse network, which is trained on colour of its own."""
        del cov
        if k != 0:
            raise IndexError(f"proposal {k}, expected 0")
        return self.coarse.density(x)[0]
