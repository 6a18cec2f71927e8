"""Instant-NGP: a hash grid and two tiny networks.

Mueller et al., "Instant Neural Graphics Primitives with a Multiresolution Hash Encoding", 2022,
Sec. 3 and 5.4: 16 density features, the first of which is the logarithm of the density; directions
as spherical harmonics. We differ in the space (contracted to [-1, 1]^3 by who renders, instead of
a cascade of one grid); no network has biases, as in their code.
"""

import jax
from flax import nnx
from jaxtyping import Array, Float

from lumefield.fields.networks._hash_encode import Levels, encode
from lumefield.fields.radiance._head import colour_head, colour_of, density_and_features
from lumefield.fields.radiance._stack import Stack

_FEATURES = 16


class Ngp(nnx.Module):
    """Hash encoding -> density and features -> colour."""

    def __init__(
        self,
        *,
        levels: int = 16,
        coarsest: int = 16,
        finest: int = 2048,
        log2_entries: int = 17,
        width: int = 64,
        look: int = 0,
        rngs: nnx.Rngs,
    ) -> None:
        self.look = look
        self.levels = Levels.geometric(
            3, levels=levels, coarsest=coarsest, finest=finest, log2_entries=log2_entries
        )
        start = jax.random.uniform(
            rngs.params(), (self.levels.rows, self.levels.features), minval=-1e-4, maxval=1e-4
        )
        self.table = nnx.Param(start)
        self.trunk = Stack([self.levels.width, width, _FEATURES], bias=False, rngs=rngs)
        self.head = colour_head(_FEATURES, [width, width], look=look, bias=False, rngs=rngs)

    def density(
        self, x: Float[Array, "*s 3"], cov: Float[Array, "*s 3 3"] | None = None
    ) -> tuple[Float[Array, "*s"], Float[Array, "*s f"]]:
        """See ``RadianceField.density``; only points count."""
        del cov
        return density_and_features(self.trunk(encode(self.table[...], x, self.levels)))

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
        """There are none: rays are marched through an occupancy grid."""
        raise IndexError(f"proposal {k}, expected none: an Ngp is marched")
