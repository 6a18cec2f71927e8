"""Capture: photos, a video or a camera file -> images at training resolution with cameras.

The world frame is the input's own (structure from motion makes its own where there is none).
"""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lumefield.apps import _photos, _sfm, _video
from lumefield.apps._capture_load import MaskMode, choose_factor, load_views
from lumefield.apps._capture_type import Capture
from lumefield.apps._photos import PhotoInfo
from lumefield.apps._runtime import cores
from lumefield.apps._sfm import Progress
from lumefield.codecs import formats
from lumefield.codecs.formats import PosedImages
from lumefield.errors import InputError

MIN_REGISTERED = 0.6
"""Below this share of photos with a camera, ``capture`` stops before training."""
MIN_POINTS = 100
"""Camera files with fewer points get some by triangulation."""
_ACCEPTED = (
    "a folder of photos (JPEG, PNG, WebP, HEIC), a video file, a COLMAP model, "
    "a transforms.json or an LLFF folder"
)


def capture(
    source: Path,
    *,
    cache: Path,
    downscale: float | None = None,
    max_side: int = 1000,
    mask_mode: MaskMode | None = None,
    progress: Progress | None = None,
    threads: int | None = None,
    points: bool = True,
) -> Capture:
    """Turn what the user has into photos with cameras, ready to train on.

    Args:
        source: A folder of photos, a video file, or a folder or file with known cameras.
        cache: Folder where structure from motion and video frames are kept and looked for.
        downscale: Divides the photos' sides; None chooses the smallest whole factor that brings
            the longest side down to ``max_side``, and says so in the notes.
        max_side: Pixels.
        mask_mode: ``ignore`` (masked-out pixels have weight 0), ``carve`` (they are to be empty),
            or None: carve for photos with transparency, ignore for mask files.
        progress: Called with a stage and the share of it that is done.
        threads: Threads to use; None means all cores.
        points: Whether sparse points are needed; where not, known cameras get none by
            triangulation.

    Returns:
        The capture. ``source`` in it has ``kind``, ``path``, ``given``, ``registered``, ``points``,
        ``error`` (pixels), ``summary`` (one line), ``downscale`` and ``notes``.

    Raises:
        InputError: If the input cannot be used; the message says what to do.
        FormatError: If a camera file is damaged.
        RunError: If ``cache`` cannot be written.
    """
    say = progress or _silent
    workers = threads or cores()
    kind = _kind(source)
    if kind in ("photos", "video"):
        paths = (
            _photo_paths(source)
            if kind == "photos"
            else _video.pick_frames(source, folder=cache / "frames", progress=say)
        )
        posed, infos, facts = _from_photos(
            paths, source, cache=cache, threads=workers, progress=say
        )
    else:
        least = MIN_POINTS if points else 0
        posed, infos, facts = _from_cameras(
            source, cache=cache, threads=workers, progress=say, least=least
        )
    longest = max(max(info.size) for info in infos)
    factor, said = choose_factor(longest, downscale, max_side)
    views = load_views(
        posed, infos, factor=factor, mask_mode=mask_mode, threads=workers, progress=say
    )
    notes = [*facts.pop("notes"), *filter(None, [said]), *views.notes]
    kept = list(views.kept)
    return Capture(
        names=tuple(_names(posed.paths)[i] for i in kept),
        images=views.images,
        weights=views.weights,
        alphas=views.alphas,
        world_from_cam=posed.world_from_cam[kept],
        focal=views.focal,
        centre=views.centre,
        sizes=views.sizes,
        points=posed.points,
        colours=posed.colours,
        held_out=_held_out(posed.held_out, kept, notes),
        times=posed.times[kept] if len(posed.times) else posed.times,
        source={"kind": kind, "path": str(source), **facts, "downscale": factor, "notes": notes},
    )


def check_input(source: Path) -> None:
    """Refuse what cannot be an input by its names alone: at once, and without jax.

    Raises:
        InputError: If it does not exist, or is of no kind that can be trained on.
    """
    if _kind(source) == "photos":
        _photo_paths(source)


def _silent(stage: str, fraction: float) -> None:
    del stage, fraction


def _kind(source: Path) -> str:
    """``photos``, ``video``, ``colmap``, ``transforms`` or ``llff``."""
    if not source.exists():
        raise InputError(f"{source} does not exist; expected {_ACCEPTED}")
    posed = formats.detect_posed(source)
    if posed is not None:
        return posed
    if source.is_dir():
        return "photos"
    suffix = source.suffix.lower()
    if suffix in _video.VIDEO_SUFFIXES:
        return "video"
    if suffix in formats.PHOTO_SUFFIXES:
        raise InputError(
            f"{source} is one photo; a scene needs a folder of at least two that overlap"
        )
    raise InputError(f"{source} is not an input that can be trained on; expected {_ACCEPTED}")


def _photo_paths(source: Path) -> list[Path]:
    """The photos in a folder or in its ``images``; mask files are left out."""
    for folder in (source / "images", source / "input", source):
        if folder.is_dir():
            found = _photos.without_masks(formats.photos_in(folder))
            if found:
                return found
    raise InputError(f"{source} holds no photos; expected {_ACCEPTED}")


def _readable(paths: Sequence[Path], notes: list[str]) -> list[PhotoInfo]:
    """Headers of the photos; files without one are named in the notes."""
    good: list[PhotoInfo] = []
    bad: list[str] = []
    for path in paths:
        try:
            good.append(_photos.read_info(path))
        except _photos.READ_ERRORS:
            bad.append(path.name)
    if bad:
        notes.append(f"skipped {len(bad)} files that are not photos: {_listed(bad)}")
    return good


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _from_photos(
    paths: Sequence[Path],
    source: Path,
    *,
    cache: Path,
    threads: int,
    progress: Progress,
) -> tuple[PosedImages, list[PhotoInfo], dict[str, Any]]:
    notes: list[str] = []
    infos = _readable(paths, notes)
    if len(infos) < 2:
        what = "no photo" if not infos else "one photo"
        raise InputError(
            f"{source}: {what} of {len(paths)} can be used, expected at least two that overlap"
            + (f" ({notes[0]})" if notes else "")
        )
    found = _sfm.solve(infos, folder=cache / "sfm", threads=threads, progress=progress)
    unreadable = [infos[i].path.name for i in found.unreadable]
    if unreadable:
        notes.append(f"skipped {len(unreadable)} damaged photos: {_listed(unreadable)}")
    given, registered = len(infos) - len(unreadable), len(found.order)
    summary = (
        f"registered {registered} of {given} photos, {_spaced(len(found.points))} points, "
        f"{found.error:.2f} px"
    )
    if registered < MIN_REGISTERED * given:
        placed = {*found.order, *found.unreadable}
        left = [info.path.name for i, info in enumerate(infos) if i not in placed]
        raise InputError(
            f"{source}: {summary}; at least {MIN_REGISTERED:.0%} are needed. Take more photos "
            "between these and the rest, sharper ones, or remove those of another scene: "
            + _listed(left)
        )
    chosen = [infos[i] for i in found.order]
    root = source if source.is_dir() else cache
    posed = PosedImages(
        paths=tuple(info.path for info in chosen),
        world_from_cam=found.world_from_cam,
        focal=found.intrinsics[:, :2],
        centre=found.intrinsics[:, 2:4],
        size=np.array([info.upright for info in chosen], np.int64),
        model=tuple("fisheye" if f else "opencv" for f in found.fisheye),
        distortion=found.intrinsics[:, 4:],
        points=found.points,
        colours=found.colours,
        masks=tuple(_photos.find_masks([info.path for info in chosen], root)),
    )
    facts = {
        "given": given,
        "registered": registered,
        "points": len(found.points),
        "error": round(found.error, 3),
        "mapper": found.how,
        "summary": summary,
        "notes": notes,
    }
    return posed, chosen, facts


def _from_cameras(
    source: Path, *, cache: Path, threads: int, progress: Progress, least: int
) -> tuple[PosedImages, list[PhotoInfo], dict[str, Any]]:
    posed = formats.load_posed_images(source)
    notes = list(posed.notes)
    given = len(posed.paths) + posed.missing
    infos = _readable(posed.paths, notes)
    if not infos:
        raise InputError(f"{source}: none of its {given} photos can be read ({notes[-1]})")
    rows = [posed.paths.index(info.path) for info in infos]
    posed = _take(posed, rows)
    if not any(posed.masks):
        root = source if source.is_dir() else source.parent
        posed = dataclasses.replace(posed, masks=tuple(_photos.find_masks(posed.paths, root)))
    summary = f"{len(rows)} of {given} photos with known cameras"
    if len(posed.points) < least and len(rows) >= 2:
        found = _sfm.triangulate(
            posed, infos, folder=cache / "points", threads=threads, progress=progress
        )
        if found is not None and len(found.points) > len(posed.points):
            posed = dataclasses.replace(posed, points=found.points, colours=found.colours)
            summary += f", {_spaced(len(found.points))} points triangulated, {found.error:.2f} px"
            notes.append("points triangulated from matches with the given cameras")
        else:
            notes.append("no points could be triangulated with the given cameras")
    else:
        summary += f", {_spaced(len(posed.points))} points"
    facts = {
        "given": given,
        "registered": len(rows),
        "points": len(posed.points),
        "summary": summary,
        "notes": notes,
    }
    return posed, infos, facts


def _take(posed: PosedImages, rows: Sequence[int]) -> PosedImages:
    """Only these rows, in this order."""
    if list(rows) == list(range(len(posed.paths))):
        return posed
    index = list(rows)
    held = posed.held_out
    if held is not None:
        held = tuple(k for k, i in enumerate(index) if i in set(held))
    return dataclasses.replace(
        posed,
        paths=tuple(posed.paths[i] for i in index),
        world_from_cam=posed.world_from_cam[index],
        focal=posed.focal[index],
        centre=posed.centre[index],
        size=posed.size[index],
        model=tuple(posed.model[i] for i in index),
        distortion=posed.distortion[index],
        masks=tuple(posed.masks[i] for i in index) if posed.masks else (),
        times=posed.times[index] if len(posed.times) else posed.times,
        held_out=held,
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """Names below the folder that all photos share."""
    root = Path(os.path.commonpath([p.parent for p in paths]))
    return [p.relative_to(root).as_posix() for p in paths]


def _held_out(
    given: tuple[int, ...] | None, kept: Sequence[int], notes: list[str]
) -> tuple[int, ...]:
    """The data's own split, or every 8th view in name order."""
    if given is not None:
        held = set(given)
        own = tuple(k for k, i in enumerate(kept) if i in held)
        if 0 < len(own) < len(kept):
            return own
        notes.append(f"the data's own split holds out {len(own)} of {len(kept)}: every 8th instead")
    return tuple(range(0, len(kept), 8))


def _spaced(number: int) -> str:
    """7426 as ``7 426``."""
    return f"{number:,}".replace(",", " ")
