"""The similarity between the user's world and the frame that training runs in."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class WorldFrame:
    """world = scale * training + offset: no rotation, so spherical harmonics stay as they are."""

    scale: float
    """World units per training unit."""
    offset: tuple[float, float, float]
    """World position of the training origin."""

    @classmethod
    def of_cameras(cls, world_from_cam: NDArray[np.float64]) -> "WorldFrame":
        """Cameras around the origin, the farthest at distance 1 (3DGS' scene extent)."""
        centres = world_from_cam[:, :, 3]
        x, y, z = map(float, centres.mean(0))
        radius = float(np.linalg.norm(centres - [x, y, z], axis=1).max())
        return cls(scale=radius if radius > 0 else 1.0, offset=(x, y, z))

    def inward(self, world_from_cam: NDArray[np.float64]) -> NDArray[np.float64]:
        """Poses (n, 3, 4) in the training frame."""
        out = np.array(world_from_cam, np.float64)
        out[..., 3] = self.inward_points(out[..., 3])
        return out

    def inward_points(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """World points (..., 3) in the training frame."""
        return (points - np.asarray(self.offset)) / self.scale

    def outward_points(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Training points (..., 3) in the world."""
        return points * self.scale + np.asarray(self.offset)
