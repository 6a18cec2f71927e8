"""Panoramas for headsets: half or whole spheres, one for each eye. Geometry and sizes; NumPy only.

A frame is equirectangular: columns are equal steps of azimuth (right is positive, the middle is
ahead), rows equal steps of elevation from straight up to straight down. Directions are in the axes
of the head, those of an OpenCV camera (x right, y down, z forward), and the head is level: pitch
and roll of a camera path are taken out, because a tilted horizon makes people sick.

Where the eyes are (s = -1 left, +1 right, r half of their distance):

* ``vr180``: at s r along the head's x axis, as the two lenses of a VR180 camera.
* ``vr360``: omni-directional stereo (Ishiguro et al., "Omni-Directional Stereo", 1992; Peleg et
  al., 2001): for every azimuth, at s r to the right of that azimuth, so that the pair is right
  wherever the wearer looks. Above 60 degrees of elevation the circle shrinks and is a point from
  80 degrees on: at a pole every azimuth is one point, where two eyes could not agree.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lumefield.apps import _paths
from lumefield.apps._mp4 import Stereo
from lumefield.apps._views import Views
from lumefield.errors import InputError

Doubles = NDArray[np.float64]
Layout = Literal["mono", "vr180", "vr360"]

MERGE = (60.0, 80.0)
"""Degrees of elevation between which the circle of ``vr360`` shrinks to a point."""
AWAY = 2.0
"""Metres to what the cameras look at, where nobody says how long a unit is."""
_ROWS = (256, 2048)
"""Least and most rows of an eye that are chosen without being asked."""


@dataclass(frozen=True)
class Sphere:
    """What a frame holds."""

    degrees: Literal[180, 360]
    """Azimuth that an eye's picture covers."""
    stereo: Stereo
    rows: int
    """Rows of an eye's picture."""
    radius: float
    """Half of the distance of the eyes, world units."""

    @property
    def columns(self) -> int:
        """Columns of an eye's picture."""
        return self.rows * self.degrees // 180

    @property
    def eyes(self) -> tuple[float, ...]:
        """-1 for the left eye and 1 for the right, as in the frame; 0 for one in the middle."""
        return (0.0,) if self.stereo == "off" else (-1.0, 1.0)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a frame."""
        across, down = _parts(self.stereo)
        return self.columns * across, self.rows * down

    def together(self, eyes: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        """One frame of the pictures (H, W, ...) of the eyes."""
        return np.concatenate(eyes, axis=1 if self.stereo == "side-by-side" else 0)

    def apart(self, frame: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The pictures of the eyes in a frame."""
        return np.split(frame, len(self.eyes), axis=1 if self.stereo == "side-by-side" else 0)

    def angles(self) -> tuple[Doubles, Doubles]:
        """Azimuths (columns,) and elevations (rows,) of pixel centres, radians; up is positive."""
        step = np.pi / self.rows
        column = np.arange(self.columns, dtype=np.float64) + 0.5 - self.columns / 2
        row = np.arange(self.rows, dtype=np.float64) + 0.5 - self.rows / 2
        return column * step, -row * step

    def directions(self) -> Doubles:
        """(rows, columns, 3) unit directions through the pixels, axes of the head."""
        azimuth, elevation = self.angles()
        flat = np.cos(elevation)[:, None]
        down = np.broadcast_to(-np.sin(elevation)[:, None], (self.rows, self.columns))
        return np.stack([flat * np.sin(azimuth), down, flat * np.cos(azimuth)], -1)

    def origins(self, eye: float) -> Doubles:
        """(rows, columns, 3) where the rays of an eye start, axes of the head, world units."""
        start = np.zeros((self.rows, self.columns, 3))
        if self.degrees == 180:
            start[..., 0] = eye * self.radius
            return start
        azimuth, elevation = self.angles()
        reach = eye * self.radius * merged(elevation)[:, None]
        start[..., 0], start[..., 2] = reach * np.cos(azimuth), -reach * np.sin(azimuth)
        return start


def merged(elevation: Doubles) -> Doubles:
    """Share of the circle's radius that is left at an elevation (radians) of ``vr360``."""
    low, high = np.radians(MERGE)
    past = np.clip((np.abs(elevation) - low) / (high - low), 0, 1)
    return (1 + np.cos(np.pi * past)) / 2


def level(views: Views, up: Doubles, size: tuple[int, int]) -> Views:
    """The same eyes with a level head that looks where the camera looked, on frames of a size.

    Args:
        views: Cameras of a path.
        up: (3,) up of the world.
        size: Width and height of a frame.
    """
    poses: list[Doubles] = []
    for pose in views.world_from_cam:
        ahead = pose[:, 2] - (pose[:, 2] @ up) * up
        if np.linalg.norm(ahead) < 1e-3:  # straight up or down: the top of the picture says where
            ahead = -np.sign(pose[:, 2] @ up) * -pose[:, 1]
            ahead = ahead - (ahead @ up) * up
        poses.append(_paths.look_at(pose[:, 3], pose[:, 3] + ahead, up))
    return dataclasses.replace(
        views,
        world_from_cam=np.array(poses),
        size=np.tile(np.array(size, np.int64), (len(views), 1)),
    )


def metres_per_unit(views: Views, points: Doubles) -> float:
    """A length of a unit that puts what the cameras look at ``AWAY`` metres from them.

    Args:
        views: Cameras of the capture.
        points: (p, 3) points of the scene.
    """
    centre = _paths.look_centre(views, points)
    away = float(np.median(np.linalg.norm(views.world_from_cam[:, :, 3] - centre, axis=1)))
    return AWAY / away if away > 0 else 1.0


def rows_of(
    layout: Layout, stereo: Stereo, width: int | None, height: int | None, known: Views
) -> int:
    """Rows of an eye's picture from the flags; as fine as the photos where there are none.

    Args:
        layout: vr180 or vr360.
        stereo: How the eyes lie in a frame.
        width: Columns of a frame, or None.
        height: Rows of a frame, or None.
        known: Cameras of the capture; their focal length is their pixels per radian.

    Raises:
        InputError: If a side is odd, or does not go with the layout or the other side.
    """
    across, down = _parts(stereo)
    shape = across * (2 if layout == "vr360" else 1), down
    if width is None and height is None:
        low, high = _ROWS
        rows = float(np.median(known.focal)) * np.pi
        return int(np.clip(round(rows / 16) * 16, low, high))
    names = (("width", width, shape[0], across), ("height", height, shape[1], down))
    for name, side, parts, eyes in names:
        if side is not None and (side % parts or side // eyes % 2):
            raise InputError(
                f"--{name} {side}: expected a multiple of {max(parts, 2 * eyes)}, so that every "
                f"eye of {layout} {stereo} has an even number of pixels"
            )
    if width is not None and height is not None and width * shape[1] != height * shape[0]:
        raise InputError(
            f"--width {width} --height {height}: a frame of {layout} {stereo} is {shape[0]}:"
            f"{shape[1]}, expected {width}x{width * shape[1] // shape[0]}; leave one of them out"
        )
    rows = (width or 0) // shape[0] if height is None else height // shape[1]
    if rows % 2:
        raise InputError(
            f"--width {width}: leaves {rows} rows an eye, expected an even number; "
            f"the next is {(rows + 1) * shape[0]}"
        )
    return rows


def _parts(stereo: Stereo) -> tuple[int, int]:
    """Pictures across and down in a frame."""
    return (2, 1) if stereo == "side-by-side" else (1, 2 if stereo == "top-bottom" else 1)
