"""What the recipes of ``lumefield edit`` are given and what they give back."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._export_place import Similarity
from lumefield.apps._paths import around_points
from lumefield.apps._views import Views
from lumefield.errors import InputError

if TYPE_CHECKING:
    from lumefield.apps._scene_io import Rgb
    from lumefield.codecs.formats import Splats

Floats = NDArray[np.float64]
Tell = Callable[[str, float], None]
"""(what is done, share in [0, 1])."""
Tones = Callable[[Floats], Floats]
"""Display sRGB (..., 3) to display sRGB."""
STILL = Similarity(np.eye(3), np.zeros(3), 1.0)
_SIDE = (640, 480)
"""Width and height of the views around a bare splat file."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """The scene that is edited; it stays as it is."""

    splats: "Splats"
    views: Views | None
    """Cameras of the run; None for a bare splat file."""
    background: "Rgb"
    """Display sRGB."""
    path: Path
    """Where it lies, a run or a file."""
    run: Path | None

    def looks(self) -> Views:
        """From where the scene is judged: the training cameras, or eight around a bare file."""
        if self.views is None:
            points = self.splats.means.astype(np.float64)
            return around_points(points, opacity_of(self.splats), *_SIDE)
        training = [i for i, held in enumerate(self.views.held_out) if not held]
        return self.views.pick(training) if training else self.views


@dataclasses.dataclass(frozen=True)
class Removed:
    """Which Gaussians of the subject were taken out, and why."""

    why: NDArray[np.int64]
    """(N,) index into ``reasons``, or -1 where a Gaussian stays."""
    reasons: tuple[str, ...]

    @property
    def kept(self) -> NDArray[np.bool_]:
        """(N,) what stays."""
        return self.why < 0

    def counts(self) -> dict[str, int]:
        """How many went for each reason."""
        return {text: int((self.why == k).sum()) for k, text in enumerate(self.reasons)}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A new scene, and what there is to say about it."""

    splats: "Splats"
    told: tuple[str, ...] = ()
    """Lines for the person who asked."""
    moved: Similarity = STILL
    """How the scene moved; its cameras move along."""
    tones: Tones | None = None
    """What became of colours, for photos and the background; None where they stayed."""
    removed: Removed | None = None
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Numbers for the record, as JSON knows them."""


def without(subject: Subject, removed: Removed, told: tuple[str, ...] = ()) -> Outcome:
    """The scene without what is removed; the counts go on record.

    Raises:
        InputError: If nothing is left.
    """
    counts, total = removed.counts(), len(removed.why)
    if not removed.kept.any():
        raise InputError(
            f"{subject.path}: nothing of {total:,} Gaussians would be left; ask for less"
        )
    lines = tuple(f"removed {n:,} Gaussians: {text}" for text, n in counts.items() if n)
    lines = lines or ("nothing to remove",)
    return Outcome(
        splats=subject.splats.taken(removed.kept),
        told=(*told, *lines),
        removed=removed,
        facts={"removed": counts, "of": total},
    )


def opacity_of(splats: "Splats") -> Floats:
    """(N,) opacities in [0, 1]."""
    return 1 / (1 + np.exp(-np.clip(splats.logit_opacities.astype(np.float64), -50, 50)))


def joined(parts: list["Splats"]) -> "Splats":
    """Scenes of one frame as one: harmonics of the highest degree, the first one's header.

    Raises:
        ValueError: If there is none.
    """
    first, k = parts[0], max(part.sh.shape[1] for part in parts)
    names = ("means", "quats_wxyz", "log_scales", "logit_opacities")
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    sh = [np.pad(part.sh, ((0, 0), (0, k - part.sh.shape[1]), (0, 0))) for part in parts]
    return dataclasses.replace(first, sh=np.concatenate(sh), **arrays)
