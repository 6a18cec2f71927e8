"""The similarity between the user's world and the frame that training runs in."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FEW = 100
"""With fewer sparse points than this, only the cameras count."""


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

    @classmethod
    def of_focus(
        cls, world_from_cam: NDArray[np.float64], points: NDArray[np.float64]
    ) -> "WorldFrame":
        """The unit ball holds what the photos are about; the rest of the world lies outside.

        Its centre is nearest to all viewing axes. Its radius reaches 80 % of the sparse points, but
        stays between 0.3 and 1 times the median distance of the cameras. Where cameras look apart
        or in parallel, the ball holds the cameras, at least.

        Args:
            world_from_cam: (n, 3, 4) poses.
            points: (p, 3) sparse points; p may be 0.
        """
        eye, axis = world_from_cam[:, :, 3], world_from_cam[:, :, 2]
        across = np.eye(3) - axis[:, :, None] * axis[:, None, :]
        centre = np.linalg.lstsq(across.sum(0), (across @ eye[..., None]).sum(0)[:, 0], rcond=None)[
            0
        ]
        away = float(np.median(np.linalg.norm(eye - centre, axis=1)))
        spread = float(np.linalg.norm(eye - eye.mean(0), axis=1).max())
        ahead = float(np.median(np.sum((centre - eye) * axis, 1)))
        if ahead <= 0.1 * spread or ahead > 20 * spread:
            centre = eye.mean(0)
            away = spread
        if len(points) >= _FEW:
            reach = float(np.percentile(np.linalg.norm(points - centre, axis=1), 80))
            radius = min(max(reach, 0.3 * away), away) if away else reach
        else:
            radius = 0.6 * away
        x, y, z = map(float, centre)
        return cls(scale=radius if radius > 0 else 1.0, offset=(x, y, z))
