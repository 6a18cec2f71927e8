"""What every radiance field can do, whatever it is made of.

Letters: x are points of the bounded domain [-1, 1]^3 (who renders has contracted space into it),
d unit directions of sight, s any leading axes. Densities are per unit of the space that is rendered
in, colours are display sRGB. A field never sees a camera, a ray or a sampler.
"""

from typing import Protocol

from jaxtyping import Array, Float


class RadianceField(Protocol):
    """Density and colour of every point, as an ``nnx.Module`` whose leaves are all floats.

    ``density`` may be evaluated alone (occupancy, baking); ``colour`` takes the features it gives.
    """

    look: int
    """Length of the code per photo that ``colour`` takes; 0 for none."""

    def density(
        self, x: Float[Array, "*s 3"], cov: Float[Array, "*s 3 3"] | None = None
    ) -> tuple[Float[Array, "*s"], Float[Array, "*s f"]]:
        """Density (>= 0, per unit of length) and the features that colour is made of.

        Args:
            x: Points in [-1, 1]^3, or means of Gaussians there.
            cov: Covariances of those Gaussians; a field that only knows points ignores them.
        """
        ...

    def colour(
        self,
        features: Float[Array, "*s f"],
        d: Float[Array, "*d 3"],
        look: Float[Array, "*e a"] | None = None,
    ) -> Float[Array, "*s 3"]:
        """Display sRGB in [0, 1] of points with these features, seen along ``d`` (unit length).

        Args:
            features: What ``density`` gave.
            d: Directions from the camera to the point; axes of size 1 are repeated.
            look: Code of the photo (NeRF in the Wild, Sec. 4.1), ``look`` numbers; repeated as d.
        """
        ...

    def proposals(
        self, x: Float[Array, "*s 3"], cov: Float[Array, "*s 3 3"] | None, k: int
    ) -> Float[Array, "*s"]:
        """Density of the ``k``-th proposal: a cheap field that says where samples should go.

        Raises:
            IndexError: If the field has no such proposal.
        """
        ...
