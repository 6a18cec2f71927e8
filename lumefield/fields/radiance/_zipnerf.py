"""Zip-NeRF: a hash grid that knows how wide the cone is, and small grids as proposals.

Barron et al., "Zip-NeRF: Anti-Aliased Grid-Based Neural Radiance Fields", 2023. Features of a level
are weighted down where the Gaussian of a sample is wide against the level's cells (Sec. 3.2), grids
are kept small per level (normalised weight decay, Sec. 3.2), and coarse grids propose where samples
go (Sec. 4). We differ in what two CPU cores can train in minutes: one isotropic Gaussian per sample
instead of a spiral of six in it (who draws splits the cone instead), widths, and no features of
the weights themselves; in the proposal loss (mip-NeRF 360's, by who trains); and in one proposal
grid instead of two.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from lumefield.fields.networks._hash_encode import Levels, encode
from lumefield.fields.radiance._directions import exp_density
from lumefield.fields.radiance._head import colour_head, colour_of, density_and_features
from lumefield.fields.radiance._stack import Stack

_FEATURES = 16


class ConeGrid(nnx.Module):
    """A hash grid of Gaussians: what is finer than they are fades."""

    def __init__(self, levels: Levels, *, rngs: nnx.Rngs) -> None:
        self.levels = levels
        shape = (levels.rows, levels.features)
        self.table = nnx.Param(jax.random.uniform(rngs.params(), shape, minval=-1e-4, maxval=1e-4))

    def __call__(
        self, x: Float[Array, "*s 3"], cov: Float[Array, "*s 3 3"] | None
    ) -> Float[Array, "*s f"]:
        """Features, coarse to fine; without ``cov`` the Gaussians are points."""
        features = encode(self.table[...], x, self.levels)
        if cov is None:
            return features
        fade = level_weights(spread(cov), self.levels)
        parts = features.reshape(*x.shape[:-1], len(self.levels.cells), self.levels.features)
        return (parts * fade[..., None]).reshape(features.shape)

    def decay(self) -> Float[Array, ""]:
        """Sum over the levels of the mean square of their entries (Sec. 3.2)."""
        ends = np.cumsum((0, *self.levels.sizes()))
        table = self.table[...]
        means = [jnp.mean(table[a:b] ** 2) for a, b in itertools.pairwise(ends)]
        return jnp.sum(jnp.stack(means))


class ZipNerf(nnx.Module):
    """Hash grid of Gaussians -> density and features -> colour, with a small grid as proposal."""

    def __init__(
        self,
        *,
        levels: int = 10,
        coarsest: int = 16,
        finest: int = 2048,
        log2_entries: int = 17,
        width: int = 64,
        proposal_levels: int = 6,
        proposal_finest: int = 256,
        proposal_log2_entries: int = 14,
        proposal_width: int = 16,
        look: int = 0,
        rngs: nnx.Rngs,
    ) -> None:
        self.look = look
        fine = Levels.geometric(
            3, levels=levels, coarsest=coarsest, finest=finest, log2_entries=log2_entries
        )
        rough = Levels.geometric(
            3,
            levels=proposal_levels,
            coarsest=min(coarsest, proposal_finest),
            finest=proposal_finest,
            log2_entries=proposal_log2_entries,
        )
        self.grid = ConeGrid(fine, rngs=rngs)
        self.trunk = Stack([fine.width, width, _FEATURES], bias=False, rngs=rngs)
        self.head = colour_head(_FEATURES, [width, width], look=look, bias=False, rngs=rngs)
        self.proposal_grid = ConeGrid(rough, rngs=rngs)
        self.proposal = Stack([rough.width, proposal_width, 1], bias=False, rngs=rngs)

    def density(
        self, x: Float[Array, "*s 3"], cov: Float[Array, "*s 3 3"] | None = None
    ) -> tuple[Float[Array, "*s"], Float[Array, "*s f"]]:
        """See ``RadianceField.density``; without ``cov`` the Gaussians are points."""
        return density_and_features(self.trunk(self.grid(x, cov)))

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
        """The small grid, the same in every round."""
        del k
        return exp_density(self.proposal(self.proposal_grid(x, cov))[..., 0] - 1)

    def prior(self) -> Float[Array, ""]:
        """Weight decay of both grids."""
        return self.grid.decay() + self.proposal_grid.decay()


def spread(cov: Float[Array, "*s 3 3"]) -> Float[Array, "*s"]:
    """Variance of the isotropic Gaussian that stands for one: e2 / e1 of its eigenvalues.

    e1 is their sum and e2 that of their products in pairs, so an isotropic Gaussian keeps its
    variance, and the length of a needle (a cone's long interval) does not count: between once and
    twice the variance across. The paper needs no such rule, its isotropic Gaussians tile the cone;
    unlike the cube root of the determinant this one survives float32. At least 0, and 0 for no
    covariance, with finite derivatives.
    """
    a, b, c = cov[..., 0, 0], cov[..., 1, 1], cov[..., 2, 2]
    e, f, g = cov[..., 0, 1], cov[..., 0, 2], cov[..., 1, 2]
    pairs = (a * b - e * e) + (a * c - f * f) + (b * c - g * g)
    return jnp.maximum(pairs, 0) / jnp.maximum(a + b + c, jnp.finfo(cov.dtype).tiny ** 0.5)


def level_weights(variance: Float[Array, "*s"], levels: Levels) -> Float[Array, "*s l"]:
    """Share of an isotropic Gaussian within a cell's width of a level: erf(1 / sqrt(8 v n^2)).

    Sec. 3.2, n the cells per unit of length. 1 for points, to 0 for Gaussians wider than the cells.

    Args:
        variance: v >= 0, in the units of the grid's [-1, 1]^3, per axis.
        levels: The shape of the grid.
    """
    squares = np.asarray([8 * (cells / 2) ** 2 for cells in levels.cells])
    by_level = jnp.asarray(squares, variance.dtype).reshape((1,) * variance.ndim + (-1,))
    # erf(6) is 1 in any float type, so points need no division by nothing.
    return jax.lax.erf(jax.lax.rsqrt(jnp.maximum(variance[..., None] * by_level, 1 / 36)))
