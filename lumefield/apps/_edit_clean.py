"""``lumefield edit SCENE clean``: floaters, needles and what nobody sees, without any photo.

A floater is a Gaussian that the rest of the scene speaks against: it hovers in front of surfaces
that other views show, few views see it, its neighbours are far and of another colour. None of that
alone tells it from a thin or distant object, so a model adds it up (``_edit_model``). Taking out
the worst uncovers what they hid, so the scene is looked at again, less strictly.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._edit_evidence import around, sight_of
from lumefield.apps._edit_model import log_odds, numbers_of
from lumefield.apps._edit_scene import Floats, Outcome, Removed, Subject, Tell, without
from lumefield.apps._export_prune import chosen_views
from lumefield.apps._views import Views
from lumefield.errors import InputError

_REASONS = (
    "floaters: in front of the scene, seen by few views, far from their neighbours",
    "needles: long, thin and seen by few",
    "unseen: less than a pixel in all views together",
)
_FLOATER, _NEEDLE, _UNSEEN = range(3)
_CUTS = (0.0, -1.0, -2.0)
"""Log-odds from which a Gaussian goes, at the first, second and third look, at strength 0.5."""
_STEP = 4.0
"""Log-odds between strength 0.5 and either end."""
_JUDGED = 0.3
"""Pixels of weight below which a Gaussian is too little seen to be called a floater."""
_LENGTH, _THIN, _FEW = 0.1, 30.0, 3.0
"""A needle is longer than this part of its distance to the nearest camera, this many times longer
than wide, and seen by fewer views."""


@dataclasses.dataclass(frozen=True)
class Clean:
    """Take out floaters, needles and what no view sees; --out PAGE.html shows it only."""

    strength: float = 0.5
    """0 takes what is certain, 1 also what is likely."""
    only: tuple[str, ...] = ()
    """Which of floaters, needles and unseen to take out; all when not given."""


def clean(subject: Subject, wish: Clean, tell: Tell) -> Outcome:
    """The scene without what does not belong to it.

    Raises:
        InputError: If the strength is out of range, a kind is unknown, or nothing would be left.
    """
    kinds = tuple(text.split(":")[0] for text in _REASONS)
    if not 0 <= wish.strength <= 1:
        raise InputError(f"--strength {wish.strength:g}, expected 0 to 1")
    odd = [name for name in wish.only if name not in kinds]
    if odd:
        raise InputError(f"--only {odd[0]}: expected some of {', '.join(kinds)}")
    chosen = [k for k, name in enumerate(kinds) if not wish.only or name in wish.only]
    views = chosen_views(subject.looks())
    why = np.full(len(subject.splats.means), -1, np.int64)
    for look, cut in enumerate(_CUTS):
        left = np.flatnonzero(why < 0)
        if len(left) < 2:
            break
        found = _found(subject, views, left, cut + _STEP * (1 - 2 * wish.strength), tell, look)
        last = look == len(_CUTS) - 1
        found[~np.isin(found, [k for k in chosen if last or k != _UNSEEN])] = -1
        why[left] = found
    return without(subject, Removed(why, _REASONS))


def _found(
    subject: Subject, views: Views, left: NDArray[np.int64], cut: float, tell: Tell, look: int
) -> NDArray[np.int64]:
    """What one look at the Gaussians ``left`` finds: an index of a reason, or -1, for each."""
    splats = subject.splats.taken(left)
    sight = sight_of(splats, views, tell, f"look {look + 1} of {len(_CUTS)}")
    pixels = int(views.size[0].prod())
    odds = log_odds(numbers_of(sight, around(splats, views), len(views), pixels))
    sizes = np.sort(np.exp(np.clip(splats.log_scales.astype(np.float64), -80, 80)), axis=1)
    long = sizes[:, 2] > _LENGTH * _nearest(splats.means, views)
    needle = long & (sizes[:, 2] > _THIN * sizes[:, 1]) & (sight.support < _FEW)
    found = np.full(len(left), -1, np.int64)
    found[sight.weight < _JUDGED] = _UNSEEN
    found[needle] = _NEEDLE
    found[(sight.weight >= _JUDGED) & (odds > cut)] = _FLOATER
    return found


def _nearest(points: NDArray[np.floating], views: Views) -> Floats:
    """Distance (N,) to the nearest camera."""
    from scipy.spatial import KDTree

    eyes = KDTree(views.world_from_cam[:, :, 3])
    return np.asarray(eyes.query(points.astype(np.float64))[0])
