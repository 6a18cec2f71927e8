"""Where a scene goes in its file: cut out, held upright, in metres, at the height of eyes."""

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._export_presets import Up
from lumefield.apps._paths import world_up
from lumefield.apps._views import Views
from lumefield.errors import InputError

if TYPE_CHECKING:
    from lumefield.codecs.formats import Splats

Doubles = NDArray[np.float64]
_Y_UP = (".spz", ".splats.glb", ".usdz", ".usdc", ".usda")
"""Formats whose numbers are half a turn about x from a PLY's."""
_AXES = {"y": (0.0, 1.0, 0.0), "y-down": (0.0, -1.0, 0.0), "z": (0.0, 0.0, 1.0)}


@dataclasses.dataclass(frozen=True)
class Place:
    """Frame and extent of the written scene."""

    up: Up | None = None
    """Axis of the file that points up (y-down: y points down): auto is what the viewers of the
    format expect; as-is, the default, turns nothing."""
    scale_to_metres: float | None = None
    """Metres per unit of the scene; the file is in metres then."""
    eye_height: float | None = None
    """Put the floor this far below the middle camera, and the origin on it."""
    crop: tuple[float, float, float, float, float, float] | None = None
    """Keep what is in a box: least x y z, then greatest, in units of the scene."""


def check_place(place: Place) -> None:
    """Refuse what cannot be.

    Raises:
        InputError: If a number is out of range, or the box is empty.
    """
    for flag, value, low, high in (
        ("--scale-to-metres", place.scale_to_metres, 1e-6, 1e6),
        ("--eye-height", place.eye_height, 0.0, 100.0),
    ):
        if value is not None and not low <= value <= high:
            raise InputError(f"{flag} {value:g}, expected {low:g} to {high:g} metres")
    box = place.crop
    if box and not all(a < b for a, b in zip(box[:3], box[3:], strict=True)):
        raise InputError(
            f"--crop {' '.join(f'{v:g}' for v in box)}: expected the least x y z, then the greatest"
        )
    if place.eye_height is not None and place.up == "as-is":
        raise InputError("--eye-height: needs an up, and --up is as-is; expected --up auto, y or z")


class Similarity(NamedTuple):
    """file = scale * rotation scene + offset."""

    rotation: Doubles
    offset: Doubles
    scale: float

    @property
    def is_identity(self) -> bool:
        """Whether nothing moves."""
        fixed = np.array_equal(self.rotation, np.eye(3)) and not self.offset.any()
        return fixed and self.scale == 1

    def views(self, views: Views) -> Views:
        """The cameras in the file's frame: they see there what they saw in the scene."""
        pose = np.array(views.world_from_cam)
        pose[:, :, :3] = self.rotation @ pose[:, :, :3]
        pose[:, :, 3] = self.scale * views.world_from_cam[:, :, 3] @ self.rotation.T + self.offset
        return dataclasses.replace(views, world_from_cam=pose)


def similarity(place: Place, splats: "Splats", views: Views | None, suffix: str) -> Similarity:
    """What moves the scene to where it is asked for.

    Args:
        place: The wishes.
        splats: The scene.
        views: Its cameras, or None for a bare file.
        suffix: Format of the file, which decides what "up" means.

    Raises:
        InputError: If up or the height of eyes is asked for and nothing tells them.
    """
    scale = 1.0 if place.scale_to_metres is None else place.scale_to_metres
    wish = place.up or ("auto" if place.eye_height is not None else "as-is")
    rotation = np.eye(3)
    target = _target(wish, suffix)
    if target is not None:
        rotation = shortest_turn(scene_up(splats, views), target)
    offset = np.zeros(3)
    if place.eye_height is not None:
        if views is None:
            raise InputError(
                "--eye-height: a bare splat file has no cameras, expected the folder of a run; "
                "leave it out"
            )
        assert target is not None, "an eye height needs an up"
        eye = scale * rotation @ np.median(views.world_from_cam[:, :, 3], axis=0)
        offset = place.eye_height * target - eye
    return Similarity(rotation, offset, scale)


def cropped(splats: "Splats", place: Place) -> "Splats":
    """The Gaussians whose centres lie in the box.

    Raises:
        InputError: If none does.
    """
    if place.crop is None:
        return splats
    low, high = np.array(place.crop[:3]), np.array(place.crop[3:])
    inside = np.asarray(((splats.means >= low) & (splats.means <= high)).all(1))
    if not inside.any():
        middle = np.quantile(splats.means, [0.01, 0.99], axis=0).round(3).tolist()
        raise InputError(
            f"--crop {' '.join(f'{v:g}' for v in place.crop)}: holds no Gaussian; most of the "
            f"scene lies from {middle[0]} to {middle[1]}"
        )
    return splats.taken(inside)


def shortest_turn(a: Doubles, b: Doubles) -> Doubles:
    """The rotation (3, 3) by the smallest angle that takes direction ``a`` to ``b``, both unit."""
    axis, cosine = np.cross(a, b), float(a @ b)
    if cosine < -1 + 1e-9:  # opposite: half a turn about anything across
        across = np.eye(3)[int(np.abs(a).argmin())]
        across = across - a * (a @ across)
        across /= np.linalg.norm(across)
        return 2 * np.outer(across, across) - np.eye(3)
    x, y, z = axis
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + skew + skew @ skew / (1 + cosine)


def _target(wish: Up, suffix: str) -> Doubles | None:
    """Where up points in the PLY's frame, or None where it is left alone."""
    if wish == "as-is":
        return None
    turned = suffix in _Y_UP
    if wish == "auto":
        return np.array([0.0, -1.0, 0.0])
    axis = np.array(_AXES[wish])
    return axis * (1, -1, -1) if turned else axis


def scene_up(splats: "Splats", views: Views | None) -> Doubles:
    """Unit vector upwards: what the file says, else how the cameras were held.

    Raises:
        InputError: If nothing tells it.
    """
    if splats.up is not None:
        up = np.array(splats.up, np.float64)
        return up / np.linalg.norm(up)
    if views is None:
        raise InputError(
            "--up: neither the file nor a camera says which way is up, expected the folder of a "
            "run or a PLY with `Vertical axis`; use --up as-is"
        )
    return world_up(views)
