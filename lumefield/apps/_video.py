"""Video files: pick sharp frames that show the scene from new places, and write them as photos.

Every frame is looked at once, small: how sharp it is (Tenengrad: mean squared gradient, the best
quarter of local windows, so that a plain wall does not count against a frame) and how far the
picture has moved since the frame before. The film is cut into stretches of equal movement and the
sharpest frame of each is kept, unless it shows what the one before shows.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._sfm import fingerprint
from lumefield.errors import InputError, RunError

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".3gp", ".ogv"}
)
LEAST, MOST = 60, 150
"""How many frames are wanted, where the film has that many different ones."""
_STEP = 0.08
"""Movement between kept frames, as a share of the picture's side."""
_SAME = 0.12
"""Two thumbnails that differ by less than this share of their contrast show the same."""
_VERSION = 1


@dataclass(frozen=True)
class Seen:
    """What is known of ``n`` frames after one pass."""

    number: NDArray[np.int64]
    """(n,) frame numbers in decoding order."""
    sharpness: NDArray[np.float64]
    """(n,) Tenengrad; only ratios mean something."""
    moved: NDArray[np.float64]
    """(n,) movement since the frame before, share of the picture's side; 0 for the first."""
    thumbnails: NDArray[np.float32]
    """(n, 32, 32) grey, 0 to 255."""


def pick_frames(
    source: Path, *, folder: Path, progress: Callable[[str, float], None]
) -> list[Path]:
    """Write the chosen frames of a video into ``folder`` and return them in time order.

    Frames chosen before from the same file are used again.

    Args:
        source: The video.
        folder: Where the frames are kept and looked for.
        progress: Called with a stage and the share of it that is done.

    Raises:
        InputError: If the file is no video, or has fewer than two different frames.
        RunError: If ``folder`` cannot be written.
    """
    key = {"version": _VERSION, "video": fingerprint([source])}
    found = _kept(folder, key)
    if found:
        return found
    seen = _look(source, progress)
    chosen = choose(seen)
    if len(chosen) < 2:
        raise InputError(
            f"{source}: {len(seen.number)} frames, {len(chosen)} of them different; a scene needs "
            "a video in which the camera moves around it"
        )
    work = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        names = _write(source, set(seen.number[chosen].tolist()), work, progress)
        (work / "key.json").write_text(json.dumps({**key, "frames": names}, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(work, folder)
    except OSError as error:
        raise RunError(
            f"{folder}: cannot write the video's frames ({error}); free some space or choose "
            "another --out"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return _kept(folder, key)


def choose(seen: Seen) -> list[int]:
    """Rows of ``seen`` to keep: the sharpest of each stretch of movement, no near duplicates.

    Stretches are made finer until enough frames are kept or all different ones are.
    """
    if len(seen.number) == 0:
        return []
    path = np.cumsum(seen.moved)
    stretches = int(np.clip(path[-1] / _STEP, LEAST, MOST))
    kept = _sharpest(seen, path, stretches)
    while len(kept) < LEAST and stretches < 16 * LEAST:
        stretches *= 2
        kept = _sharpest(seen, path, stretches)
    return kept[: 2 * MOST]


def _sharpest(seen: Seen, path: NDArray[np.float64], stretches: int) -> list[int]:
    part = np.minimum((path / max(path[-1], 1e-9) * stretches).astype(int), stretches - 1)
    picked: list[int] = []
    for k in np.unique(part):
        rows = np.flatnonzero(part == k)
        picked.append(int(rows[np.argmax(seen.sharpness[rows])]))
    floor = 0.25 * float(np.median(seen.sharpness[picked]))
    kept: list[int] = []
    for row in picked:
        if kept and _difference(seen.thumbnails[row], seen.thumbnails[kept[-1]]) < _SAME:
            if seen.sharpness[row] > seen.sharpness[kept[-1]]:
                kept[-1] = row
        elif seen.sharpness[row] >= floor:
            kept.append(row)
    return kept


def _difference(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Mean absolute difference of two thumbnails as a share of their contrast."""
    contrast = float(a.std() + b.std()) / 2
    return float(np.abs((a - a.mean()) - (b - b.mean())).mean()) / max(contrast, 1.0)


def sharpness(grey: NDArray[np.float32]) -> float:
    """Tenengrad of a grey picture: mean squared gradient of the best quarter of 8 x 8 windows."""
    energy = np.square(np.diff(grey, axis=0))[:, :-1] + np.square(np.diff(grey, axis=1))[:-1]
    rows, columns = energy.shape
    h, w = max(1, rows // 8), max(1, columns // 8)
    whole = energy[: h * (rows // h), : w * (columns // w)]
    windows = whole.reshape(h, rows // h, w, columns // w).mean(axis=(1, 3))
    ordered = np.sort(windows, axis=None)
    return float(ordered[-max(1, ordered.size // 4) :].mean())


def movement(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """How far picture ``b`` is shifted against ``a``, as a share of the side; at most 0.25.

    Phase correlation (Kuglin and Hines 1975). Where the peak is weak (turning, another scene) the
    difference of the pictures stands in for the shift.
    """
    window = np.outer(np.hanning(a.shape[0]), np.hanning(a.shape[1]))
    fa, fb = (np.fft.rfft2((x - x.mean()) * window) for x in (a, b))
    cross = fa * np.conj(fb)
    peak = np.fft.irfft2(cross / np.maximum(np.abs(cross), 1e-6), s=a.shape)
    y, x = np.unravel_index(int(np.argmax(peak)), peak.shape)
    shift = [min(int(k), n - int(k)) / n for k, n in zip((y, x), peak.shape, strict=True)]
    if peak.max() > 0.15:
        # Below one pixel of the thumbnail the difference tells more than the peak.
        return min(max(float(np.hypot(*shift)), 0.02 * min(1.0, _difference(a, b))), 0.25)
    return min(0.1 * _difference(a, b), 0.25)


def _frames(source: Path) -> Iterator[tuple[int, Any, int]]:
    """Decoded frames: number, frame, how many the file claims (0 if it does not)."""
    import av
    from av.error import FFmpegError

    count = 0
    try:
        with av.open(str(source)) as container:
            if not container.streams.video:
                raise InputError(f"{source} has no picture in it; expected a video file")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                yield count, frame, stream.frames
                count += 1
    except FFmpegError as error:
        if count == 0:  # else the film is cut short: what there is will do
            raise InputError(
                f"{source} cannot be decoded as a video ({error.strerror}); "
                "export it again as MP4 (H.264)"
            ) from error


def _look(source: Path, progress: Callable[[str, float], None]) -> Seen:
    from PIL import Image

    number: list[int] = []
    sharp: list[float] = []
    moved: list[float] = []
    small: list[NDArray[np.float32]] = []
    before: NDArray[np.float32] | None = None
    for i, frame, total in _frames(source):
        scale = min(1.0, 480 / max(frame.width, frame.height))
        size = (max(16, round(frame.width * scale)), max(16, round(frame.height * scale)))
        grey = frame.reformat(*size, format="gray").to_ndarray()
        picture = Image.fromarray(np.ascontiguousarray(grey))
        now = np.asarray(picture.resize((64, 64), Image.Resampling.BOX), np.float32)
        number.append(i)
        sharp.append(sharpness(grey.astype(np.float32)))
        moved.append(0.0 if before is None else movement(before, now))
        small.append(now.reshape(32, 2, 32, 2).mean(axis=(1, 3)))
        before = now
        if i % 16 == 0:
            progress("look at frames", min(1.0, i / total) if total else 0.0)
    progress("look at frames", 1.0)
    if not number:
        raise InputError(f"{source} has no frames; expected a video file with a picture in it")
    return Seen(np.array(number), np.array(sharp), np.array(moved), np.stack(small))


def _write(
    source: Path, numbers: set[int], folder: Path, progress: Callable[[str, float], None]
) -> list[str]:
    names: list[str] = []
    last = max(numbers)
    for i, frame, _ in _frames(source):
        if i in numbers:
            image = frame.to_image()
            turn = int(getattr(frame, "rotation", 0)) % 360
            if turn:
                image = image.rotate(turn, expand=True)
            names.append(f"frame_{i:06d}.jpg")
            image.save(folder / names[-1], quality=97, subsampling=0)
            progress("write frames", len(names) / len(numbers))
        if i >= last:
            break
    return names


def _kept(folder: Path, key: dict[str, Any]) -> list[Path]:
    """The frames written before for the same key, or nothing."""
    try:
        found = json.loads((folder / "key.json").read_text())
        names = found.pop("frames")
    except (OSError, ValueError, KeyError):
        return []
    paths = [folder / str(name) for name in names]
    return paths if found == key and all(p.is_file() for p in paths) else []
