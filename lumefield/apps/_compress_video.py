"""``lumefield compress`` of a video: frames to groups of predicted pictures, sound copied."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from lumefield.errors import InputError

if TYPE_CHECKING:
    from lumefield.apps._compress import Compress
    from lumefield.apps._video_files import Planes
    from lumefield.codecs.neural import Picture
    from lumefield.codecs.overfit import VideoPlan

LAMBDA = 5e-4
"""Exchange rate when nothing is asked for: about 32 to 37 dB."""
_MAX_GOP = 1024


def check_video(settings: "Compress") -> None:
    """Complain about what does not fit a video before minutes of fitting.

    Raises:
        InputError: If an option cannot be used.
    """
    if settings.roi is not None:
        raise InputError("--roi is for pictures; leave it out for a video")
    if not 1 <= settings.gop <= _MAX_GOP:
        raise InputError(f"--gop {settings.gop}, expected 1 to {_MAX_GOP} frames")
    if settings.jobs < 1:
        raise InputError(f"--jobs {settings.jobs}, expected at least 1 process")
    frame_range(settings.frames)
    frame_size(settings.size)


def read_source(settings: "Compress") -> "tuple[list[Planes], Picture, bytes]":
    """Frames and header of the wanted part of a video, and its sound.

    Raises:
        InputError: If the video cannot be read, or has none of these frames.
    """
    from lumefield.apps._video_files import read_film, sound_of
    from lumefield.codecs.neural import video_picture

    first, last = frame_range(settings.frames)
    film = read_film(settings.input, frame_size(settings.size), first, last)
    sound = sound_of(settings.input, film.start, film.seconds) if settings.audio else b""
    rows, columns = film.frames[0][0].shape
    colour, full_range = film.colour, film.full_range
    count, rate = len(film.frames), film.rate
    picture = video_picture(rows, columns, count, rate, colour=colour, full_range=full_range)
    return film.frames, picture, sound


def compress_film(settings: "Compress") -> Path:
    """Fit, code, verify and write a video.

    Raises:
        InputError: If the input or an option cannot be used.
    """
    from lumefield.apps._progress import Say, StepBar
    from lumefield.codecs.formats import replacing
    from lumefield.codecs.overfit import compress_video

    frames, picture, sound = read_source(settings)
    plan, begun = _plan(settings), time.monotonic()
    groups = [min(plan.gop, len(frames) - i) for i in range(0, len(frames), plan.gop)]
    total = sum(plan.steps(count) for count in groups)
    with StepBar("compress", total, 0) as bar:
        found = compress_video(
            frames,
            picture,
            plan,
            name=settings.input.name,
            audio=sound,
            progress=lambda done, _, psnr: bar.update(done, f"{psnr:.2f} dB"),
        )
    with replacing(settings.out) as file:
        file.write(found.data)
    Say().line(
        f"{settings.out}: {len(frames)} frames of {picture.columns} x {picture.rows}, "
        f"{len(found.data):,} bytes ({len(sound):,} of them sound), {found.bits_per_pixel:.4f} "
        f"bpp, {found.psnr:.2f} dB, {time.monotonic() - begun:.0f} s; decoded and compared"
    )
    return settings.out


def _plan(settings: "Compress") -> "VideoPlan":
    from lumefield.codecs.overfit import VIDEO_EFFORTS, Goal, VideoPlan

    if settings.psnr is not None:
        goal = Goal("psnr", settings.psnr)
    elif settings.bytes is not None:
        goal = Goal("bits", 8 * settings.bytes)
    else:
        goal = Goal("lambda", settings.lambda_ or LAMBDA)
    return VideoPlan(
        goal=goal,
        effort=VIDEO_EFFORTS[settings.effort],
        gop=settings.gop,
        low_delay=settings.low_delay,
        jobs=settings.jobs,
        seed=settings.seed,
    )


def frame_range(words: str | None) -> tuple[int, int | None]:
    """First frame and one past the last of "a:b"; either may be left out.

    Raises:
        InputError: If it is not such a range.
    """
    if words is None:
        return 0, None
    first, colon, last = words.partition(":")
    try:
        found = (int(first or 0), int(last) if last else None)
    except ValueError:
        found = (-1, None)
    if not colon or found[0] < 0 or (found[1] is not None and found[1] <= found[0]):
        raise InputError(f"--frames {words}: expected FIRST:LAST as in 40:48, the last left out")
    return found


def frame_size(words: str | None) -> tuple[int, int] | None:
    """Columns and rows of "WxH".

    Raises:
        InputError: If it is not such a size.
    """
    if words is None:
        return None
    columns, _, rows = words.lower().partition("x")
    if not (columns.isdigit() and rows.isdigit() and 0 < int(columns) and 0 < int(rows)):
        raise InputError(f"--size {words}: expected COLUMNSxROWS as in 480x272")
    return int(columns), int(rows)
