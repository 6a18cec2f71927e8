"""Rays through a radiance field: how they are sampled, and what they see.

Letters: R rays, M packed samples; t distance along a ray; s in [0, 1] the normalised distance of
mip-NeRF 360 (Sec. 2): linear in 1/t from near to far, or in a root of that.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeVar

from jax import Array
from jaxtyping import Float
from numpy.typing import NDArray

Way = Literal["hierarchical", "proposed", "marched"]
Number = TypeVar("Number", float, Array, NDArray[Any])


@dataclass(frozen=True)
class Sampling:
    """How rays are sampled; static and hashable."""

    way: Way
    near: float
    """Nothing is nearer to a camera, training units."""
    counts: tuple[int, ...] = (64, 32)
    """Samples per ray of each round of proposals, and of the field (not marched)."""
    far: float = 1e3
    """End of rays that are not marched, in radii of the focus."""
    root: int = 1
    """s is linear in this root of 1/t: the higher, the more samples are far away (not marched)."""
    padding: float = 0.01
    """Weight that every interval has at least when new samples are placed (not marched)."""
    cones: bool = False
    """Gaussians of a cone instead of points."""
    quarters: bool = False
    """Draw with densities of a cone's four quarters instead of the whole cone's (cones only)."""
    quarters_from: float = 0.0
    """Cones narrower than this, in radii of a photo's pixel, are drawn whole all the same: a fourth
    of the time."""
    pixel: float = 0.0
    """Radius at t = 1 of the cone of a photo's pixel."""
    calm: bool = False
    """Scale the gradients of samples nearer than 1 by t^2. Samples are dense near cameras, and
    things that a single camera sees would grow there (Philip and Deschaintre, "Floaters No More",
    2023; not marched)."""
    capacity: int = 1 << 17
    """Samples of all rays together in occupied cells, whose density is looked at (marched)."""
    kept: int = 3 << 14
    """Room for those of them that are not hidden behind others, of which all is known (marched)."""
    levels: int = 4
    """Cascade of the occupancy: rays end at the box [-2^(levels-1), 2^(levels-1)]^3 (marched)."""
    step: float = 1 / 256
    """Shortest step (marched)."""
    cone: float = 1 / 256
    """Growth of the steps with distance (marched)."""

    def drawn(self, radius: float) -> "Sampling":
        """How cones of this radius at t = 1 are drawn: quarters where that is worth it."""
        wide = radius >= self.quarters_from * self.pixel
        return replace(self, quarters=self.quarters and wide)


def cone_radius(distance: Number) -> Number:
    """Radius at t = 1 of the cone through a pixel: its variance is a square's (mip-NeRF, Sec. 3.1).

    Args:
        distance: Of the eye from the pixel, in sides of it: the focal length in pixels for one in
            the middle of a picture.
    """
    return 2 / 12**0.5 / distance


class Rays(NamedTuple):
    """R rays in the training frame."""

    origin: Array
    """(R, 3)."""
    direction: Array
    """(R, 3) unit vectors."""
    radius: Array
    """(R,) radius of the cone at t = 1."""
    look: Array | None
    """(R, A) code of the photo; None for none."""


class Seen(NamedTuple):
    """What rays see; without background."""

    rgb: Float[Array, "r 3"]
    depth: Float[Array, "r"]
    """sum w t; divide by the opacity for an expected distance."""
    opacity: Float[Array, "r"]
    used: Array
    """(R,) bool: rays whose samples found room."""
    samples: Array
    """Samples of the field, in all rays together."""
    coarse: Array | None
    """(R, 4) rgb and opacity of a coarse pass that is trained on colour too."""
    cost: Array
    """Losses of the samplers: proposals and distortion, per ray on average."""
