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

from lumefield.fields.radiance._directions import SH_TERMS, direction_basis, exp_density, joined
from lumefield.fields.radiance._stack import Stack

_AXES = ([0, 1], [0, 2], [1, 2])
_FEATURES = 16


class PlaneGrid(nnx.Module):
    """Three planes per resolution, as flat rows of features."""

    def __init__(self, sizes: tuple[int, ...], features: int, *, rngs: nnx.Rngs) -> None:
        if min(sizes) < 2:
            raise ValueError(f"sizes={sizes}, expected at least 2 vertices per edge to interpolate")
        self.sizes = sizes
        # Products of numbers around 0.3 start small, but not at 0.
        self.planes = nnx.List(
            nnx.Param(
                jax.random.uniform(rngs.params(), (3, n * n, features), minval=0.1, maxval=0.5)
            )
            for n in sizes
        )

    def __call__(self, x: Float[Array, "*s 3"]) -> Float[Array, "*s f"]:
        """Products of the planes' features, coarse to fine side by side."""
        parts: list[Array] = []
        for n, plane in zip(self.sizes, self.planes, strict=True):
            rows = plane[...]
            picked = [_bilinear(rows[i], n, x[..., axes]) for i, axes in enumerate(_AXES)]
            parts.append(picked[0] * picked[1] * picked[2])
        return jnp.concatenate(parts, -1)

    def variation(self) -> Float[Array, ""]:
        """Mean squared difference of neighbours, Eq. 5, summed over the resolutions."""
        total = jnp.zeros(())
        for n, plane in zip(self.sizes, self.planes, strict=True):
            grid = plane[...].reshape(3, n, n, -1)
            down, right = grid[:, 1:] - grid[:, :-1], grid[:, :, 1:] - grid[:, :, :-1]
            total = total + jnp.mean(down**2) + jnp.mean(right**2)
        return total


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
        self.head = Stack([_FEATURES + SH_TERMS + look, width, width, 3], rngs=rngs)
        self.proposal_grid = PlaneGrid((proposal_size,), features, rngs=rngs)
        self.proposal = Stack([features, width // 2, 1], rngs=rngs)

    def density(
        self, x: Float[Array, "*s 3"], cov: Float[Array, "*s 3 3"] | None = None
    ) -> tuple[Float[Array, "*s"], Float[Array, "*s f"]]:
        """See ``RadianceField.density``; only points count."""
        del cov
        y = self.trunk(self.grid(x))
        return exp_density(y[..., 0] - 1), y

    def colour(
        self,
        features: Float[Array, "*s f"],
        d: Float[Array, "*d 3"],
        look: Float[Array, "*e a"] | None = None,
    ) -> Float[Array, "*s 3"]:
        """See ``RadianceField.colour``."""
        parts = [features, direction_basis(d)]
        return jax.nn.sigmoid(self.head(joined(parts if look is None else [*parts, look])))

    def proposals(
        self, x: Float[Array, "*s 3"], cov: Float[Array, "*s 3 3"] | None, k: int
    ) -> Float[Array, "*s"]:
        """Coarse planes, the same in every round."""
        del cov, k
        return exp_density(self.proposal(self.proposal_grid(x))[..., 0] - 1)

    def prior(self) -> Float[Array, ""]:
        """Total variation of all planes."""
        return self.grid.variation() + self.proposal_grid.variation()


def _bilinear(rows: Float[Array, "n f"], n: int, x: Float[Array, "*s 2"]) -> Float[Array, "*s f"]:
    """Interpolate the n x n vertices of a plane over [-1, 1]^2."""
    at = jnp.clip((x + 1) * ((n - 1) / 2), 0, n - 1)
    low = jnp.minimum(jax.lax.stop_gradient(at).astype(jnp.int32), n - 2)
    part = at - low.astype(at.dtype)
    first = low[..., 0] * n + low[..., 1]
    a, b = part[..., :1], part[..., 1:]
    corner = [rows.at[first + step].get(mode="promise_in_bounds") for step in (0, 1, n, n + 1)]
    top = corner[0] * (1 - b) + corner[1] * b
    bottom = corner[2] * (1 - b) + corner[3] * b
    return top * (1 - a) + bottom * a
