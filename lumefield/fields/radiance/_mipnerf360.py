"""Mip-NeRF 360: Gaussians of a contracted cone instead of points, and a proposal network.

Barron et al., "Mip-NeRF 360: Unbounded Anti-Aliased Neural Radiance Fields", 2022. Sec. 2
(contraction, by who renders), Sec. 3 (proposal network), Sec. 4 (losses, by who trains). We differ
in the size (4 layers of 192 to 384 instead of 8 of 1024), in 6 instead of 21 directions of the
encoding (the icosahedron without tessellation, so that the first layer stays small), in one
proposal network that serves both of its rounds, as in the paper, and in products of bfloat16 where
the CPU has them.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lumefield.fields.networks._encoding import integrated_encoding, off_axis_basis
from lumefield.fields.radiance._directions import joined
from lumefield.fields.radiance._head import colour_head, colour_of
from lumefield.fields.radiance._stack import Stack

_DIRECTIONS = 6


class MipNerf360(nnx.Module):
    """Network over integrated encodings, with a small proposal network."""

    def __init__(
        self,
        *,
        width: int = 192,
        depth: int = 4,
        degrees: int = 10,
        proposal_width: int = 64,
        proposal_degrees: int = 7,
        look: int = 0,
        rngs: nnx.Rngs,
    ) -> None:
        if depth < 1 or width < 2:
            raise ValueError(f"depth={depth}, width={width}, expected at least 1 and 2")
        self.look, self.degrees, self.proposal_degrees = look, degrees, proposal_degrees

        def inputs(octaves: int) -> int:
            return 3 + 2 * _DIRECTIONS * octaves

        layers = [inputs(degrees), *[width] * depth, 1 + width // 2]
        self.trunk = Stack(layers, precision="bfloat16", rngs=rngs)
        self.head = colour_head(
            width // 2, [width // 2], look=look, precision="bfloat16", rngs=rngs
        )
        layers = [inputs(proposal_degrees), proposal_width, proposal_width, 1]
        self.proposal = Stack(layers, precision="bfloat16", rngs=rngs)

    def density(
        self, x: Float[Array, "*s 3"], cov: Float[Array, "*s 3 3"] | None = None
    ) -> tuple[Float[Array, "*s"], Float[Array, "*s f"]]:
        """See ``RadianceField.density``; without ``cov`` the Gaussians are points."""
        y = self.trunk(_encoded(x, cov, self.degrees))
        return jax.nn.softplus(y[..., 0] - 1), jax.nn.relu(y[..., 1:])

    def colour(
        self,
        features: Float[Array, "*s f"],
        d: Float[Array, "*d 3"],
        look: Float[Array, "*e a"] | None = None,
    ) -> Float[Array, "*s 3"]:
        """See ``RadianceField.colour``; 0.001 padding as in mip-NeRF."""
        return colour_of(self.head, features, d, look) * 1.002 - 0.001

    def proposals(
        self, x: Float[Array, "*s 3"], cov: Float[Array, "*s 3 3"] | None, k: int
    ) -> Float[Array, "*s"]:
        """The proposal network, the same in every round."""
        del k
        return jax.nn.softplus(self.proposal(_encoded(x, cov, self.proposal_degrees))[..., 0] - 1)


def _encoded(x: Array, cov: Array | None, degrees: int) -> Array:
    """Point and integrated encoding: octaves from 2 radians per unit of the contracted ball of 2.

    ``x`` is in [-1, 1]^3, so the ball of radius 2 is twice as large, and its octaves start at 2.
    """
    cov = jnp.zeros((*x.shape, 3), x.dtype) if cov is None else cov
    basis = off_axis_basis()[:_DIRECTIONS]
    return joined([x, integrated_encoding(4 * x, 16 * cov, basis, degrees)])
