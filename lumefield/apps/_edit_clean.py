"""``lumefield edit SCENE clean``: floaters, needles and what nobody sees.

A floater is a Gaussian that the rest of the scene speaks against: it hovers in front of surfaces
that other views show, few views see it, its neighbours are far and of another colour. None of that
alone tells it from a thin or distant object, so a model adds it up (``_edit_model``). Taking out
the worst uncovers what they hid, so the scene is looked at again, less strictly. Where the photos
that the scene was trained on are known, they are asked as well (``_edit_photos``).
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._edit_evidence import around, sight_of
from lumefield.apps._edit_model import log_odds, numbers_of
from lumefield.apps._edit_photos import Guard, guard_of
from lumefield.apps._edit_scene import Floats, Outcome, Removed, Subject, Tell, without
from lumefield.apps._export_prune import chosen_views
from lumefield.apps._views import Views
from lumefield.errors import InputError

if TYPE_CHECKING:
    from lumefield.codecs.formats import Splats

_REASONS = (
    "floaters: in front of the scene, seen by few views, far from their neighbours",
    "needles: long, thin and seen by few",
    "unseen: less than a pixel in all views together",
)
_FLOATER, _NEEDLE, _UNSEEN = range(3)
_CUTS = (0.0, -1.0, -2.0)
"""Log-odds from which a Gaussian goes, at the first, second and third look, at strength 0.5."""
_GUARDED = (3.0, 0.0, -2.0)
"""The same with photos: what they are sure of goes first, so that the rest can be told apart."""
_SURE = 3.0
"""Log-odds, without photos, from which what went is only tried again if they spoke for it."""
_STEP = 4.0
"""Log-odds between strength 0.5 and either end."""
_GENTLE = 0.4
"""Strength without photos: the model alone takes useful Gaussians, too."""
_JUDGED = 0.3
"""Pixels of weight below which a Gaussian is too little seen to be called a floater."""
_LENGTH, _THIN, _FEW = 0.1, 30.0, 3.0
"""A needle is longer than this part of its distance to the nearest camera, this many times longer
than wide, and seen by fewer views."""


@dataclasses.dataclass(frozen=True)
class Clean:
    """Take out floaters, needles and what no view sees; --out PAGE.html shows it only."""

    strength: float | None = None
    """0 takes what is certain, 1 also what is likely; 0.5 with photos, 0.4 without."""
    only: tuple[str, ...] = ()
    """Which of floaters, needles and unseen to take out; all when not given."""
    photos: Path | None = None
    """What the scene was trained from, or its run: what these photos need stays. Held-out ones are
    not looked at. A run knows its own."""


def clean(subject: Subject, wish: Clean, tell: Tell) -> Outcome:
    """The scene without what does not belong to it.

    Raises:
        InputError: If the strength is out of range, a kind is unknown, the photos cannot be used,
            or nothing would be left.
    """
    kinds = tuple(text.split(":")[0] for text in _REASONS)
    if wish.strength is not None and not 0 <= wish.strength <= 1:
        raise InputError(f"--strength {wish.strength:g}, expected 0 to 1")
    odd = [name for name in wish.only if name not in kinds]
    if odd:
        raise InputError(f"--only {odd[0]}: expected some of {', '.join(kinds)}")
    chosen = [k for k, name in enumerate(kinds) if not wish.only or name in wish.only]
    guard, judged = None, "what no view sees is told without photos"
    if chosen != [_UNSEEN]:
        guard, judged = guard_of(subject, wish.photos, tell)
    strength = wish.strength
    if strength is None:
        strength = 0.5 if guard else _GENTLE
    views = guard.pictures.views if guard and subject.views is None else subject.looks()
    looks = _Looks(subject.splats, chosen_views(views), guard, tell)
    why = np.full(len(subject.splats.means), -1, np.int64)
    odds, told = np.zeros(len(why)), np.zeros(len(why))
    cuts = [cut + _STEP * (1 - 2 * strength) for cut in (_GUARDED if guard else _CUTS)]
    for k, cut in enumerate(cuts):
        left = np.flatnonzero(why < 0)
        if len(left) < 2:
            break
        taken = [kind for kind in chosen if k == len(cuts) - 1 or kind != _UNSEEN]
        stage = f"look {k + 1} of {len(cuts)}"
        why[left], odds[left], told[left] = looks.found(left, cut, taken, stage)
    if guard:
        asked = ((why == _FLOATER) | (why == _NEEDLE)) & ((odds < _SURE) | (told < 0))
        why[looks.missed(why < 0, asked, odds, cuts[-1])] = -1
    made = without(subject, Removed(why, _REASONS), (judged,))
    return dataclasses.replace(made, facts={**made.facts, "strength": strength, "judged": judged})


@dataclasses.dataclass(frozen=True)
class _Looks:
    """A scene and what it is judged by."""

    splats: "Splats"
    views: Views
    guard: Guard | None
    tell: Tell

    def found(
        self, left: NDArray[np.int64], cut: float, kinds: list[int], stage: str
    ) -> tuple[NDArray[np.int64], Floats, Floats]:
        """What one look at the Gaussians ``left`` finds.

        Args:
            left: (n,) which Gaussians there are.
            cut: Log-odds from which one is a floater.
            kinds: Reasons that count.
            stage: What to call the look.

        Returns:
            For each the index of a reason, or -1; the log-odds without photos; what those add.
        """
        splats, views = self.splats.taken(left), self.views
        sight = sight_of(splats, views, self.tell, stage)
        pixels = int(views.size[0].prod())
        odds = log_odds(numbers_of(sight, around(splats, views), len(views), pixels))
        told = np.zeros(len(left))
        if self.guard:
            told = self.guard.evidence(splats, self.tell, f"{stage}, photos")
        sizes = np.sort(np.exp(np.clip(splats.log_scales.astype(np.float64), -80, 80)), axis=1)
        long = sizes[:, 2] > _LENGTH * _nearest(splats.means, views)
        needle = long & (sizes[:, 2] > _THIN * sizes[:, 1]) & (sight.support < _FEW)
        found = np.full(len(left), -1, np.int64)
        found[sight.weight < _JUDGED] = _UNSEEN
        found[needle & (told >= 0)] = _NEEDLE
        found[(sight.weight >= _JUDGED) & (odds + told > cut)] = _FLOATER
        found[~np.isin(found, kinds)] = -1
        return found, odds, told

    def missed(
        self, stays: NDArray[np.bool_], asked: NDArray[np.bool_], odds: Floats, cut: float
    ) -> NDArray[np.bool_]:
        """(N,) which of ``asked`` the photos, now that all of it is gone, would rather have back.

        Args:
            stays: (N,) what was left.
            asked: (N,) what went and is tried again. Put back together, many hide one another.
            odds: (N,) for going, without photos.
            cut: Log-odds from which one stays away.
        """
        assert self.guard is not None, "only photos miss anything"
        if not asked.any():
            return asked
        there = np.flatnonzero(stays | asked)
        told = np.zeros(len(asked))
        told[there] = self.guard.regret(
            self.splats.taken(there), asked[there], self.tell, "second opinion"
        )
        return asked & (told < 0) & (odds + told < cut)


def _nearest(points: NDArray[np.floating], views: Views) -> Floats:
    """Distance (N,) to the nearest camera."""
    from scipy.spatial import KDTree

    eyes = KDTree(views.world_from_cam[:, :, 3])
    return np.asarray(eyes.query(points.astype(np.float64))[0])
