"""The Capture noun: photos at training resolution with their cameras, as trainers take them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Capture:
    """Photos, pinhole cameras and sparse points in one world frame (the user's own).

    ``n`` photos of one padded size ``H`` x ``W``. OpenCV camera axes, pixel corners at integers.
    """

    names: tuple[str, ...]
    """File names, sorted; held-out selection goes by this order."""
    images: NDArray[np.uint8]
    """(n, H, W, 3) sRGB; pixels beyond a photo's own size, or masked out, have weight 0."""
    weights: NDArray[np.uint8]
    """(n, H, W) 255 where a pixel counts in the loss, or (n, 1, 1) full of 255 when all do."""
    alphas: NDArray[np.uint8]
    """(n, H, W) target opacity of the ``carve`` mode, or (n, 1, 1) full of 255."""
    world_from_cam: NDArray[np.float64]
    """(n, 3, 4) poses."""
    focal: NDArray[np.float64]
    """(n, 2) fx, fy in pixels of the training size."""
    centre: NDArray[np.float64]
    """(n, 2) cx, cy in pixels of the training size."""
    sizes: NDArray[np.int64]
    """(n, 2) width and height of each photo inside the padding, pixels of the training size."""
    points: NDArray[np.float64]
    """(p, 3) sparse points; p may be 0."""
    colours: NDArray[np.uint8]
    """(p, 3) sRGB colours of the points."""
    held_out: tuple[int, ...]
    """Indices of the test views: the data's own split, else every 8th in name order (0, 8, ...)."""
    times: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """(n,) time stamps of a dynamic scene, or empty."""
    source: dict[str, Any] = field(default_factory=dict[str, Any])
    """JSON-able facts about the input: kind, photos given/registered, reprojection error, notes."""

    @property
    def height(self) -> int:
        """Rows of every (padded) photo."""
        return int(self.images.shape[1])

    @property
    def width(self) -> int:
        """Columns of every (padded) photo."""
        return int(self.images.shape[2])

    @property
    def train(self) -> tuple[int, ...]:
        """Indices of the training views."""
        held = set(self.held_out)
        return tuple(i for i in range(len(self.names)) if i not in held)
