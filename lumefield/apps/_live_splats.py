"""What a live view shows of a training: Gaussians as the dashboard takes them, and the photos."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._bake_start import Start, Surfels, gaussians, positions
from lumefield.apps._bake_views import directions, field_seen
from lumefield.apps._capture_type import Capture
from lumefield.apps._frame import WorldFrame
from lumefield.apps._views import capture_views
from lumefield.codecs.formats import Splats

if TYPE_CHECKING:
    from lumefield.apps._radiance_io import Radiance

UNITS = 10.0
"""Units of the dashboard per unit of the training frame.

The dashboard sends covariances as half floats, which know nothing under 6e-8 and above 65504: this
keeps standard deviations from 1/4000 to 25 of the cameras' spread."""
FIELD_VIEWS, FIELD_RAYS = 8, 4096
"""Of a field: views drawn for a glimpse, and their pixels; so many rays are one block."""
PHOTO_SIDE = 96
"""Longest side of the photo in a frustum, pixels."""
MAX_FRUSTA = 80
_C0 = 0.28209479177387814
_HALF = (5e-7, 6e4)
"""Least and most variance that a half float holds with some digits."""


class Shown(NamedTuple):
    """Gaussians as the dashboard takes them, in its units."""

    centers: NDArray[np.float32]
    """(N, 3)."""
    covariances: NDArray[np.float32]
    """(N, 3, 3)."""
    rgbs: NDArray[np.float32]
    """(N, 3) display sRGB in [0, 1], without what depends on the direction."""
    opacities: NDArray[np.float32]
    """(N, 1)."""


class Frustum(NamedTuple):
    """A photo where its camera was, in the dashboard's units; OpenCV axes."""

    name: str
    turn: NDArray[np.float64]
    """(3, 3) from camera to world axes."""
    position: NDArray[np.float64]
    """(3,)."""
    fov: float
    """From top to bottom, radians."""
    aspect: float
    """Width over height."""
    photo: NDArray[np.uint8]
    """(h, w, 3), small."""
    held_out: bool


def shown(splats: Splats, frame: WorldFrame, *, most: int, floor: float, size: float) -> Shown:
    """What the dashboard draws of Gaussians.

    Args:
        splats: In the user's world.
        frame: Of the training.
        most: Of more Gaussians than this, those that hide most are shown.
        floor: Opacity under which a Gaussian is left out.
        size: Factor of all standard deviations.
    """
    opacity = 1 / (1 + np.exp(-np.clip(splats.logit_opacities, -50, 50)))
    rows = np.flatnonzero(opacity >= floor)
    if len(rows) > most:
        # Half the area of the largest cross-section, times opacity: of equal ones the first.
        spread = splats.log_scales[rows]
        hides = np.log(opacity[rows]) + spread.sum(1) - spread.min(1)
        rows = np.sort(rows[np.argpartition(-hides, most - 1)[:most]])
    some = splats.taken(rows)
    unit = UNITS / frame.scale
    means = (frame.inward_points(some.means.astype(np.float64)) * UNITS).astype(np.float32)
    scales = np.exp(np.clip(some.log_scales + np.log(unit * size), -30, 30))
    axes = _turns(some.quats_wxyz) * np.clip(scales, *np.sqrt(_HALF))[:, None, :]
    return Shown(
        centers=means,
        covariances=np.einsum("nik,njk->nij", axes, axes).clip(-_HALF[1], _HALF[1]),
        rgbs=np.clip(some.sh[:, 0] * np.float32(_C0) + np.float32(0.5), 0, 1),
        opacities=opacity[rows, None].astype(np.float32),
    )


def _turns(quats_wxyz: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rotation matrices (N, 3, 3) of quaternions of any length."""
    length = np.linalg.norm(quats_wxyz, axis=1, keepdims=True)
    w, x, y, z = (quats_wxyz / np.maximum(length, 1e-12)).T
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, -1) for row in rows], -2)


def point_splats(photos: Capture) -> Splats:
    """The sparse points, shown until there is something better; maybe none."""
    eye = photos.world_from_cam[:, :, 3].mean(0)
    back = eye - photos.points
    length = np.linalg.norm(back, axis=1, keepdims=True)
    back = np.where(length > 0, back / np.maximum(length, 1e-12), [0.0, 0.0, 1.0])
    pixel = length[:, 0] / float(photos.focal.mean())
    return _flat(Surfels(photos.points, back, photos.colours / 255, pixel))


def field_splats(field: "Radiance", photos: Capture) -> Splats:
    """Flat Gaussians where a few small views of a radiance field see something; maybe none."""
    train = capture_views(photos).pick(list(photos.train))
    some = np.unique(np.linspace(0, len(train) - 1, FIELD_VIEWS).round().astype(np.intp))
    width, height = (int(side) for side in train.size[0])
    shrunk = (FIELD_RAYS / max(len(some), 1) / (width * height)) ** 0.5
    views = train.pick(some).resized(max(2, int(width * shrunk)), max(2, int(height * shrunk)))
    parts: list[Surfels] = []
    for k, seen in enumerate(field_seen(field, views)):
        view = views.pick([k])
        depth = seen.depth.astype(np.float64)
        points, normals = positions(view.world_from_cam[0], directions(view), depth)
        good = (seen.opacity > 0.5) & (depth > 0)
        rgb = np.clip(seen.rgb[good] / seen.opacity[good, None], 0, 1).astype(np.float64)
        pixel = depth[good] / float(view.focal[0].mean())
        parts.append(Surfels(points[good], normals[good], rgb, pixel))
    return _flat(Surfels(*(np.concatenate(column) for column in zip(*parts, strict=True))))


def _flat(found: Surfels) -> Splats:
    none = np.zeros((0, 3))
    empty = Start(none, np.zeros((0, 4)), none, np.zeros(0), np.zeros((0, 1, 3)))
    start = gaussians(found, 0) if len(found.points) else empty
    return Splats(**{name: value.astype(np.float32) for name, value in start._asdict().items()})


def frusta(photos: Capture, frame: WorldFrame) -> list[Frustum]:
    """The cameras and their photos; of many, every so many."""
    from PIL import Image

    held, poses = set(photos.held_out), frame.inward(photos.world_from_cam)
    step = max(1, -(-len(photos.names) // MAX_FRUSTA))
    found: list[Frustum] = []
    for i in range(0, len(photos.names), step):
        width, height = (int(side) for side in photos.sizes[i])
        small = Image.fromarray(photos.images[i, :height, :width])
        small.thumbnail((PHOTO_SIDE, PHOTO_SIDE), Image.Resampling.BOX)
        found.append(
            Frustum(
                name=photos.names[i],
                turn=poses[i, :, :3],
                position=poses[i, :, 3] * UNITS,
                fov=2 * float(np.arctan(height / 2 / photos.focal[i, 1])),
                aspect=width / height,
                photo=np.asarray(small),
                held_out=i in held,
            )
        )
    return found
