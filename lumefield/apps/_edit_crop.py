"""``lumefield edit SCENE crop``: keep a box, a ball, or what is above the ground."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._edit_scene import Floats, Outcome, Removed, Subject, Tell, opacity_of, without
from lumefield.apps._export_place import scene_up
from lumefield.errors import InputError

_TRIES = 400
_LEVEL = float(np.cos(np.radians(20)))
"""The ground may lean this far from level."""


@dataclasses.dataclass(frozen=True)
class Crop:
    """Keep a box, a ball, what is above the ground; several together keep what is in all."""

    box: tuple[float, float, float, float, float, float] | None = None
    """Least x y z, then greatest, in units of the scene."""
    sphere: tuple[float, float, float, float] | None = None
    """Centre x y z and radius."""
    ground: float | None = None
    """Keep what is at least this high above the ground (below it where negative); the ground is
    the plane that holds most of the scene, level within 20 degrees."""
    outside: bool = False
    """Keep what is outside instead."""


def crop(subject: Subject, wish: Crop, tell: Tell) -> Outcome:
    """The Gaussians whose centres lie in what was asked for.

    Raises:
        InputError: If nothing was asked for, it is empty, or holds no Gaussian.
    """
    del tell
    points = subject.splats.means.astype(np.float64)
    inside = np.ones(len(points), bool)
    told: tuple[str, ...] = ()
    facts: dict[str, object] = {}
    if wish.box is None and wish.sphere is None and wish.ground is None:
        raise InputError("crop: nothing to keep was named, expected --box, --sphere or --ground")
    if wish.box is not None:
        low, high = np.array(wish.box[:3]), np.array(wish.box[3:])
        if not (low < high).all():
            raise InputError(f"--box {_words(wish.box)}: expected the least x y z, then the most")
        inside &= ((points >= low) & (points <= high)).all(1)
    if wish.sphere is not None:
        if not wish.sphere[3] > 0:
            raise InputError(f"--sphere {_words(wish.sphere)}: expected x y z and a radius above 0")
        inside &= np.linalg.norm(points - np.array(wish.sphere[:3]), axis=1) <= wish.sphere[3]
    if wish.ground is not None:
        if subject.splats.up is None and subject.views is None:
            raise InputError(
                f"--ground: neither a camera nor {subject.path} says which way is up, expected a "
                "run or a PLY with `Vertical axis`; use --box"
            )
        up = scene_up(subject.splats, subject.views)
        normal, height = ground_plane(points, opacity_of(subject.splats), up)
        inside &= points @ normal - height >= wish.ground
        facts["ground"] = [*normal.tolist(), height]
        told = (f"the ground is where ({_words(normal.tolist())}) . x = {height:.4g}",)
    kept = ~inside if wish.outside else inside
    if not kept.any():
        middle = np.quantile(points, [0.01, 0.99], axis=0).round(3).tolist()
        raise InputError(
            f"crop: no Gaussian is there; most of the scene lies from {middle[0]} to {middle[1]}"
        )
    made = without(subject, Removed(np.where(kept, -1, 0), ("outside of the crop",)), told)
    return dataclasses.replace(made, facts={**made.facts, **facts})


def ground_plane(points: Floats, weights: Floats, up: Floats) -> tuple[Floats, float]:
    """The plane n . x = h, n upwards, that most of the scene lies on and little below.

    Planes through three random points, the same ones every time (Fischler and Bolles 1981), that
    are level within 20 degrees; what lies near a plane counts for it, what lies below against it.

    Args:
        points: (N, 3) centres.
        weights: (N,) opacities.
        up: (3,) unit vector.

    Raises:
        InputError: If no such plane is found.
    """
    rng = np.random.default_rng(0)
    solid = np.flatnonzero(weights > 0.3)
    solid = solid if len(solid) >= 3 else np.arange(len(points))
    some = points[rng.choice(solid, min(len(solid), 20_000), replace=False)]
    low, high = np.quantile(some @ up, [0.02, 0.98])
    near = 0.01 * max(float(high - low), 1e-12)
    best, found = 0.0, None
    lower = some[some @ up < (low + high) / 2]
    for _ in range(_TRIES if len(lower) >= 3 else 0):
        a, b, c = lower[rng.choice(len(lower), 3, replace=False)]
        normal = np.cross(b - a, c - a)
        length = float(np.linalg.norm(normal))
        if length < 1e-12 or abs(normal @ up) < _LEVEL * length:
            continue
        normal = normal / length * np.sign(normal @ up)
        above = some @ normal - a @ normal
        score = float((np.abs(above) < near).sum() - 2 * (above < -3 * near).sum())
        if score > best:
            best, found = score, (normal, float(a @ normal))
    if found is None:
        raise InputError("--ground: no level plane was found in the scene; use --box")
    return _refined(some, *found, near)


def _refined(points: Floats, normal: Floats, height: float, near: float) -> tuple[Floats, float]:
    """Least squares over what lies on the plane."""
    on = points[np.abs(points @ normal - height) < near]
    middle = on.mean(0)
    axes = np.linalg.svd(on - middle, full_matrices=False)[2]
    better = axes[2] * np.sign(axes[2] @ normal)
    if better @ normal < 0.99:  # too few points to tell
        return normal, height
    return better, float(middle @ better)


def _words(values: NDArray[np.float64] | tuple[float, ...] | list[float]) -> str:
    return " ".join(f"{v:.4g}" for v in values)
