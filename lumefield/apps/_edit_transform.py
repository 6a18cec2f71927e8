"""``lumefield edit SCENE transform``: turn, scale and shift; harmonics turn and cameras follow."""

import dataclasses
from typing import Literal

import numpy as np

from lumefield.apps._edit_scene import Floats, Outcome, Subject, Tell, opacity_of
from lumefield.apps._export_place import Similarity
from lumefield.apps._paths import look_centre
from lumefield.errors import InputError


@dataclasses.dataclass(frozen=True)
class Transform:
    """Turn, scale, then shift the scene; its cameras move along."""

    rotate: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Degrees about the axes x, then y, then z, which stay where they are."""
    scale: float = 1.0
    """Factor on all lengths."""
    translate: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Shift along x y z, in units of the new scene."""
    about: Literal["origin", "centre"] = "origin"
    """Fixed point of turn and scale: the origin, or what the cameras look at."""


def transform(subject: Subject, wish: Transform, tell: Tell) -> Outcome:
    """New x = scale R (x - c) + c + translate, for all that has a place or a direction.

    Raises:
        InputError: If the scale is not positive, a number is not finite, or nothing would change.
    """
    del tell
    numbers = (*wish.rotate, wish.scale, *wish.translate)
    if not np.isfinite(numbers).all() or not 1e-6 <= wish.scale <= 1e6:
        raise InputError(f"--scale {wish.scale:g}: expected 1e-06 to 1e+06, and finite numbers")
    if wish == Transform(about=wish.about):
        raise InputError("transform: changes nothing, expected --rotate, --scale or --translate")
    turn, centre = turn_of(wish.rotate), np.zeros(3)
    if wish.about == "centre":
        points = subject.splats.means.astype(np.float64)
        centre = look_centre(subject.looks(), points[opacity_of(subject.splats) > 0.1])
    offset = centre - wish.scale * turn @ centre + np.array(wish.translate)
    moved = Similarity(turn, offset, wish.scale)
    splats = subject.splats.moved(moved.rotation, moved.offset, moved.scale)
    matrix = np.concatenate([wish.scale * turn, offset[:, None]], 1)
    return Outcome(splats, moved=moved, facts={"new_from_old": matrix.tolist()})


def turn_of(degrees: tuple[float, float, float]) -> Floats:
    """The rotation (3, 3) about x, then y, then z."""
    made = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        step = np.eye(3)
        step[i, i] = step[j, j] = np.cos(angle)
        step[j, i] = np.sin(angle)
        step[i, j] = -step[j, i]
        made = step @ made
    return made
