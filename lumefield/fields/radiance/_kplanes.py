"""K-Planes: a radiance field factored into three families of feature planes.

Fridovich-Keil et al., "K-Planes: Explicit Radiance Fields in Space, Time, and Appearance", 2023.
Features of the three planes of a resolution are multiplied (Eq. 1), resolutions stand side by side
(Sec. 3.1.1), small networks decode (the hybrid model, Sec. 3.2), coarse planes of their own serve
as proposals (Sec. 3.4), planes are kept smooth by total variation (Eq. 5). We differ in the sizes.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lumefield.fields.networks._planes import product_or_sum
from lumefield.fields.radiance._directions import exp_density
from lumefield.fields.radiance._head import colour_head, colour_of, density_and_features
from lumefield.fields.radiance._stack import Stack

_FEATURES = 16


class PlaneGrid(nnx.Module):
    """Three planes per resolution, stacked."""

    def __init__(self, sizes: tuple[int, ...], features: int, *, rngs: nnx.Rngs) -> None:
        if min(sizes) < 2:
            raise ValueError(f"sizes={sizes}, expected at least 2 vertices per edge to interpolate")
        # Products of numbers around 0.3 start small, but not at 0.
        self.planes = nnx.List(
            nnx.Param(
                jax.random.uniform(rngs.params(), (3, n, n, features), minval=0.1, maxval=0.5)
            )
            for n in sizes
        )

    def __call__(self, x: Float[Array, "*s 3"]) -> Float[Array, "*s f"]:
        """Products of the planes' features, coarse to fine side by side."""
        return jnp.concatenate([product_or_sum([*p[...]], x, "product") for p in self.planes], -1)

    def variation(self) -> Float[Array, ""]:
        """Mean squared difference of neighbours, Eq. 5, summed over the resolutions."""
        return sum(
            (jnp.mean(jnp.diff(p[...], axis=axis) ** 2) for p in self.planes for axis in (1, 2)),
            start=jnp.zeros(()),
        )


class KPlanes(nnx.Module):
    """Static K-planes, hybrid decoding."""

    def __init__(
        self,
        *,
        sizes: tuple[int, ...] = (64, 128, 256, 512),
        features: int = 8,
        width: int = 64,
        proposal_size: int = 128,
        look: int = 0,
        rngs: nnx.Rngs,
    ) -> None:
        self.look = look
        self.grid = PlaneGrid(tuple(sizes), features, rngs=rngs)
        self.trunk = Stack([features * len(sizes), width, _FEATURES], rngs=rngs)
        self.head = colour_head(_FEATURES, [width, width], look=look, rngs=rngs)
        self.proposal_grid = PlaneGrid((proposal_size,), features, rngs=rngs)
        self.proposal = Stack([features, width // 2, 1], rngs=rngs)

    def density(
        self, x: Float[Array, "*s 3"], cov: Float[Array, "*s 3 3"] | None = None
    ) -> tuple[Float[Array, "*s"], Float[Array, "*s f"]]:
        """See ``RadianceField.density``; only points count."""
        del cov
        return density_and_features(self.trunk(self.grid(x)))

    def colour(
        self,
        features: Float[Array, "*s f"],
        d: Float[Array, "*d 3"],
        look: Float[Array, "*e a"] | None = None,
    ) -> Float[Array, "*s 3"]:
        """See ``RadianceField.colour``."""
        return colour_of(self.head, features, d, look)

    def proposals(
        self, x: Float[Array, "*s 3"], cov: Float[Array, "*s 3 3"] | None, k: int
    ) -> Float[Array, "*s"]:
        """Coarse planes, the same in every round."""
        del cov, k
        return exp_density(self.proposal(self.proposal_grid(x))[..., 0] - 1)

    def prior(self) -> Float[Array, ""]:
        """Total variation of all planes."""
        return self.grid.variation() + self.proposal_grid.variation()
