"""``lumefield decompress`` of a video: frames to a film or to PNGs, sound copied."""

import dataclasses
import tempfile
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lumefield.errors import InputError, RunError

if TYPE_CHECKING:
    from lumefield.apps._decompress import Decompress
    from lumefield.apps._video_files import Planes


def decompress_film(settings: "Decompress", data: bytes) -> Path:
    """Decode and write a video.

    Raises:
        InputError: If a path or option cannot be used.
        FormatError: If the file is damaged.
    """
    from lumefield.apps._compress_video import frame_range
    from lumefield.apps._progress import Say
    from lumefield.apps._video_files import FILE_SUFFIXES
    from lumefield.codecs.neural import decode_video, open_video, sound_of_video

    container, picture = open_video(data, str(settings.input))
    first, last = frame_range(settings.frames)
    stop = picture.frames if last is None else min(last, picture.frames)
    if first >= stop:
        raise InputError(
            f"--frames {settings.frames}: {settings.input} has {picture.frames} frames"
        )
    suffix = settings.out.suffix.lower()
    if suffix not in (*FILE_SUFFIXES, ""):
        raise InputError(
            f"--out {settings.out}: expected a name ending in {', '.join(FILE_SUFFIXES)}, or a "
            "folder for PNGs"
        )
    backend: Any = settings.backend  # checked by the caller
    frames: Any = decode_video(data, first, stop, backend, source=str(settings.input))
    if suffix:
        start, seconds = first / picture.rate, Fraction(stop - first) / picture.rate
        _film(settings.out, frames, picture, sound_of_video(container), start, seconds)
    else:
        _pictures(settings.out, frames, picture, first)
    Say().line(
        f"{settings.out}: {stop - first} frames of {picture.columns} x {picture.rows}, from "
        f"{len(data):,} bytes"
    )
    return settings.out


def write_planes(settings: "Decompress", planes: "Planes", picture: Any) -> Path:  # noqa: ANN401
    """Write the planes of a 4:2:0 picture, as they are, as a film of one frame.

    Raises:
        InputError: If it is no such picture.
    """
    from lumefield.apps._progress import Say

    if not picture.subsampled or picture.bits != 8:
        raise InputError(
            f"--out {settings.out}: {settings.input} is no 4:2:0 picture of 8 bits; write .png"
        )
    like = dataclasses.replace(picture, rate=Fraction(1))
    _film(settings.out, [planes], like, b"", Fraction(0), Fraction(1))
    Say().line(f"{settings.out}: {picture.columns} x {picture.rows}, 4:2:0")
    return settings.out


def _film(
    out: Path,
    frames: "Iterable[Planes]",
    picture: Any,  # noqa: ANN401
    sound: bytes,
    start: Fraction,
    seconds: Fraction,
) -> None:
    from lumefield.apps._video_files import write_film
    from lumefield.codecs.formats import replacing

    with replacing(out) as file:
        write_film(file, out.suffix.lower(), frames, picture, sound, start, seconds)


def _pictures(out: Path, frames: "Iterable[Planes]", picture: Any, first: int) -> None:  # noqa: ANN401
    """PNGs named by frame number, in a folder that appears when all are written."""
    from lumefield.apps._video_files import as_frame

    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
            folder = Path(scratch) / "frames"
            folder.mkdir()
            for i, planes in enumerate(frames, first):
                frame = as_frame(planes)
                frame.colorspace, frame.color_range = picture.colour[2], 1 + picture.full_range
                frame.to_image().save(folder / f"frame_{i:06d}.png")
            folder.replace(out)
    except OSError as error:
        raise RunError(
            f"{out}: cannot be written ({error.strerror or error}); free some space or choose "
            "another --out"
        ) from error
