"""Frames and sound of video files, in and out: planes as they are coded, sound as it was."""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.errors import FormatError, InputError

Planes = tuple[NDArray[np.uint8], ...]
FILE_SUFFIXES = (".mp4", ".mkv", ".y4m")
"""Videos that can be written: H.264 of high quality, FFV1 and raw frames without any loss."""
_UNSPECIFIED = 2


@dataclass(frozen=True)
class Film:
    """Frames of a video file."""

    frames: list[Planes]
    """Y', Cb, Cr, 4:2:0, uint8; upright."""
    rate: Fraction
    """Frames per second."""
    colour: tuple[int, int, int]
    """ITU-T H.273 code points: primaries, transfer, matrix."""
    full_range: bool
    start: Fraction
    """Seconds from the start of the film to the first frame kept."""

    @property
    def seconds(self) -> Fraction:
        """How long the frames last."""
        return len(self.frames) / self.rate


def read_film(source: Path, size: tuple[int, int] | None, first: int, last: int | None) -> Film:
    """Frames ``first`` ... ``last`` - 1 of a video.

    Args:
        source: The file.
        size: Columns and rows to resize to, or None.
        first: First frame.
        last: One past the last; None: to the end.

    Raises:
        InputError: If it is no video, or has no such frames.
    """
    import av
    from av.error import FFmpegError

    frames, colour, full, rate = list[Planes](), (2, 2, 2), False, Fraction(25)
    count = 0
    try:
        with av.open(str(source)) as container:
            if not container.streams.video:
                raise InputError(f"{source} has no picture in it; expected a video file")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
            for frame in container.decode(stream):
                if count >= first and (last is None or count < last):
                    if not frames:
                        colour, full = _colour(frame)
                    frames.append(_planes(frame, size))
                count += 1
                if last is not None and count >= last:
                    break
    except FFmpegError as error:
        if not frames:  # else the film is cut short: what there is will do
            raise InputError(
                f"{source} cannot be decoded as a video ({error.strerror}); "
                "export it again as MP4 (H.264)"
            ) from error
    if not frames:
        raise InputError(f"{source} has {count} frames, none of those asked for; see --frames")
    return Film(frames, rate, colour, full, first / rate)


def _colour(frame: Any) -> tuple[tuple[int, int, int], bool]:  # noqa: ANN401
    codes = (getattr(frame, name, None) for name in ("color_primaries", "color_trc", "colorspace"))
    known = [int(c) if c is not None and 0 < int(c) < 256 else _UNSPECIFIED for c in codes]
    is_full = frame.format.name == "yuvj420p" or int(getattr(frame, "color_range", 0) or 0) == 2
    return (known[0], known[1], known[2]), is_full


def _planes(frame: Any, size: tuple[int, int] | None) -> Planes:  # noqa: ANN401
    from av.video.reformatter import Interpolation, VideoReformatter

    turn = int(getattr(frame, "rotation", 0)) % 360
    if size or frame.format.name not in ("yuv420p", "yuvj420p"):
        w, h = size or (frame.width, frame.height)
        w, h = (h, w) if size and turn in (90, 270) else (w, h)
        pixels = "yuvj420p" if frame.format.name.startswith("yuvj") else "yuv420p"
        frame = VideoReformatter().reformat(
            frame, width=w, height=h, format=pixels, interpolation=Interpolation.LANCZOS
        )
    out = list[NDArray[np.uint8]]()
    for i, plane in enumerate(frame.planes):
        h, w = (frame.height, frame.width) if i == 0 else (plane.height, plane.width)
        cells = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:h, :w]
        out.append(np.ascontiguousarray(np.rot90(cells, turn // 90)))
    return tuple(out)


def sound_of(source: Path, start: Fraction, seconds: Fraction) -> bytes:
    """The sound of a video, packets copied, as a Matroska file; b"" where there is none.

    Args:
        source: The video.
        start: Second to begin at.
        seconds: How long.
    """
    import av
    from av.error import FFmpegError

    out = io.BytesIO()
    try:
        with av.open(str(source)) as container:
            if not container.streams.audio:
                return b""
            stream = container.streams.audio[0]
            with av.open(out, "w", format="matroska") as target:
                copy = target.add_stream_from_template(stream)
                for packet in _between(container.demux(stream), start, seconds):
                    packet.stream = copy
                    target.mux(packet)
    except (FFmpegError, ValueError) as error:
        raise InputError(
            f"{source}: its sound cannot be copied ({error}); give --no-audio"
        ) from error
    return out.getvalue()


def _between(packets: Iterable[Any], start: Fraction, seconds: Fraction) -> Iterator[Any]:
    """Packets of a stretch of time, moved to begin at zero."""
    for packet in packets:
        if packet.pts is None or packet.time_base is None:
            continue
        at = packet.pts * packet.time_base
        if start <= at < start + seconds:
            shift = int(start / packet.time_base)
            packet.pts -= shift
            if packet.dts is not None:
                packet.dts -= shift
            yield packet


def write_film(
    file: Any,  # noqa: ANN401
    suffix: str,
    frames: Iterable[Planes],
    like: Any,  # noqa: ANN401
    sound: bytes,
    start: Fraction = Fraction(0),
    seconds: Fraction | None = None,
) -> int:
    """Write a video file; returns its number of frames.

    Args:
        file: Binary file to write to.
        suffix: One of ``FILE_SUFFIXES``.
        frames: Planes of every frame.
        like: Header (``neural.Picture``): rate, size, colour.
        sound: Matroska file with the sound, or b"".
        start: Second of the sound to begin at.
        seconds: How much of the sound; None: all.

    Raises:
        FormatError: If the sound is damaged.
    """
    import av
    from av.error import FFmpegError

    container_format = {".mp4": "mp4", ".mkv": "matroska", ".y4m": "yuv4mpegpipe"}[suffix]
    codec, options = {
        ".mp4": ("libx264", {"crf": "10", "preset": "fast"}),
        ".mkv": ("ffv1", {}),
        ".y4m": ("wrapped_avframe", {}),
    }[suffix]
    count = 0
    with av.open(file, "w", format=container_format) as target:
        stream: Any = target.add_stream(codec, rate=like.rate, options=options)
        even = suffix == ".mp4"  # H.264 of 4:2:0 has even sides: odd ones get their edge repeated
        w, h = (n + n % 2 if even else n for n in (like.columns, like.rows))
        stream.width, stream.height, stream.pix_fmt = w, h, "yuv420p"
        _say_colour(stream.codec_context, like)
        source: Any = None
        copy: Any = None
        if sound and suffix != ".y4m":
            try:
                source = av.open(io.BytesIO(sound))
                copy = target.add_stream_from_template(source.streams.audio[0])
            except (FFmpegError, IndexError, ValueError) as error:
                raise FormatError(f"its sound is damaged ({error})") from error
        for planes in frames:
            grown = ((0, h - planes[0].shape[0]), (0, w - planes[0].shape[1]))
            whole = (np.pad(planes[0], grown, "edge"), *planes[1:])
            target.mux(stream.encode(as_frame(whole, count)))
            count += 1
        target.mux(stream.encode(None))
        if source is not None:
            length = count / like.rate if seconds is None else seconds
            for packet in _between(source.demux(source.streams.audio[0]), start, length):
                packet.stream = copy
                target.mux(packet)
            source.close()
    return count


def _say_colour(context: Any, like: Any) -> None:  # noqa: ANN401
    primaries, transfer, matrix = like.colour
    context.color_range = 2 if like.full_range else 1
    context.color_primaries, context.color_trc, context.colorspace = primaries, transfer, matrix


def as_frame(planes: Planes, number: int = 0) -> Any:  # noqa: ANN401
    """An ``av.VideoFrame`` of planes."""
    import av

    h, w = planes[0].shape
    frame = av.VideoFrame(w, h, "yuv420p")
    for plane, cells in zip(frame.planes, planes, strict=True):
        room = np.zeros((plane.buffer_size // plane.line_size, plane.line_size), np.uint8)
        room[: cells.shape[0], : cells.shape[1]] = cells
        plane.update(room.tobytes().ljust(plane.buffer_size, b"\0"))
    frame.pts = number
    return frame
