"""What the three camera formats share: one frame at a time in, checked :class:`PosedImages` out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.formats._files import shown
from lumefield.codecs.formats._types import PosedImages
from lumefield.errors import FormatError

FLIP_YZ = np.diag([1.0, -1.0, -1.0])
"""OpenGL/Blender camera axes (x right, y up, z back) to OpenCV (x right, y down, z forward)."""

_RIGID = 1e-3
_EXACT = 1e-6


@dataclass(frozen=True)
class Lens:
    """Intrinsics of one image, in pixels of ``size``."""

    model: str
    size: tuple[int, int]
    focal: tuple[float, float]
    centre: tuple[float, float]
    distortion: tuple[float, ...] = ()
    """Up to 8 numbers in the order of ``PosedImages.distortion``."""


@dataclass(frozen=True)
class Frame:
    """One image as a camera file describes it."""

    name: str
    """Name to sort by, as the file writes it."""
    path: Path
    lens: Lens
    world_from_cam: NDArray[np.float64]
    """(3, 4), OpenCV axes."""
    mask: Path | None = None
    time: float | None = None
    held: bool = False


def rigid(matrix: NDArray[np.float64], name: str, source: Path) -> NDArray[np.float64]:
    """A (3, 4) pose with an exact rotation.

    Raises:
        FormatError: If it is not finite, or its rotation is off by more than 1e-3.
    """
    if not np.isfinite(matrix).all():
        raise FormatError(
            f"{source}: pose of {name} holds NaN or infinity, expected finite numbers; "
            "remove that frame"
        )
    r = matrix[:, :3]
    with np.errstate(over="ignore", invalid="ignore"):
        off = float(np.abs(r.T @ r - np.eye(3)).max()) if np.abs(r).max() < 1e3 else np.inf
    if not off < _RIGID or np.linalg.det(r) < 0:
        raise FormatError(
            f"{source}: pose of {name} is not a rotation and a translation (off by {off:.2g}, "
            f"det {np.linalg.det(r):+.2g}), expected a right-handed orthonormal 3x3 part; "
            "remove scale and mirroring from it"
        )
    if off < _EXACT:
        return matrix
    u, _, vt = np.linalg.svd(r)
    return np.concatenate([u @ vt, matrix[:, 3:]], 1)


def check_lens(lens: Lens, name: str, source: Path) -> Lens:
    """The same lens.

    Raises:
        FormatError: If the size, focal length, centre or distortion cannot be true.
    """
    numbers = np.array([*lens.focal, *lens.centre, *lens.distortion])
    fine = bool(np.isfinite(numbers).all()) and min(lens.focal) > 0 and 0 < min(lens.size)
    if not fine or max(lens.size) > 1_000_000:
        raise FormatError(
            f"{source}: camera of {name} has size {lens.size}, focal length {lens.focal}, centre "
            f"{lens.centre}; expected positive finite numbers, correct the file"
        )
    return lens


def assemble(
    frames: Sequence[Frame],
    source: Path,
    *,
    missing: Sequence[str],
    points: NDArray[np.float64] | None = None,
    colours: NDArray[np.uint8] | None = None,
    has_split: bool = False,
    notes: Sequence[str] = (),
) -> PosedImages:
    """Sort by name, check every pose and lens, and stack.

    Args:
        frames: Frames whose image exists.
        source: The file they come from, for messages.
        missing: What the other frames name; they are counted and noted.
        points: (p, 3) sparse points.
        colours: (p, 3) their colours.
        has_split: Whether the file names a split, which the frames' ``held`` then follow.
        notes: What a person should know.

    Raises:
        FormatError: If no image exists, or a pose or lens is not possible.
    """
    total = len(frames) + len(missing)
    if not frames:
        if missing:
            raise FormatError(
                f"{source}: none of its {total} images exists, the first is {missing[0]}; "
                "put the photos there or correct the paths in the file"
            )
        raise FormatError(f"{source}: names no image, expected at least one frame")
    frames = sorted(frames, key=lambda f: f.name)
    lenses = [check_lens(f.lens, shown(f.name), source) for f in frames]
    distortion = np.zeros((len(frames), 8))
    for row, lens in zip(distortion, lenses, strict=True):
        row[: len(lens.distortion)] = lens.distortion
    notes = list(notes)
    if missing:
        notes.append(
            f"{len(missing)} of {total} frames name files that do not exist, e.g. {missing[0]}"
        )
    times = [f.time for f in frames if f.time is not None]
    if times and len(times) < len(frames):
        notes.append(f"{len(frames) - len(times)} frames have no time; times are not used")
        times = []
    masks = tuple(f.mask for f in frames)
    return PosedImages(
        paths=tuple(f.path for f in frames),
        world_from_cam=np.stack([rigid(f.world_from_cam, shown(f.name), source) for f in frames]),
        focal=np.array([lens.focal for lens in lenses], np.float64),
        centre=np.array([lens.centre for lens in lenses], np.float64),
        size=np.array([lens.size for lens in lenses], np.int64),
        model=tuple(lens.model for lens in lenses),
        distortion=distortion,
        points=np.zeros((0, 3)) if points is None else points,
        colours=np.zeros((0, 3), np.uint8) if colours is None else colours,
        masks=masks if any(masks) else (),
        times=np.array(times, np.float64),
        held_out=tuple(i for i, f in enumerate(frames) if f.held) if has_split else None,
        missing=len(missing),
        notes=tuple(notes),
    )
