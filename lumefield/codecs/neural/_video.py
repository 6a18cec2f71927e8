"""A video to ``.lume`` bytes and back, group by group."""

from collections.abc import Iterator
from fractions import Fraction

from lumefield.codecs.neural._container import (
    AUDIO_CHUNK,
    METADATA_CHUNK,
    NAME_CHUNK,
    NETWORK_CHUNK,
    PICTURE_CHUNK,
    VIDEO,
    Chunk,
    Container,
    Picture,
    pack,
    unpack,
)
from lumefield.codecs.neural._decoders import Backend, Planes
from lumefield.codecs.neural._group import decode_group
from lumefield.codecs.neural._order import MAX_FRAMES
from lumefield.errors import FormatError, format_errors_of

MAX_PIXELS = 1 << 24
"""Of a frame."""
MAX_GROUP = 1 << 28
"""Pixels of all frames of a group: what a decoder must hold."""


def video_picture(
    rows: int,
    columns: int,
    frames: int,
    rate: Fraction,
    *,
    colour: tuple[int, int, int] = (2, 2, 2),
    full_range: bool = False,
) -> Picture:
    """The header of a video as it is coded: 8 bits, Y'CbCr, 4:2:0.

    Args:
        rows: Rows.
        columns: Columns.
        frames: Frames.
        rate: Frames per second.
        colour: ITU-T H.273 code points: primaries, transfer, matrix; 2: not said.
        full_range: Whether luma goes from 0 to 255, not from 16 to 235.
    """
    return Picture(
        rows=rows,
        columns=columns,
        channels=3,
        bits=8,
        subsampled=True,
        colour=colour,
        full_range=full_range,
        frames=frames,
        rate=rate,
    )


def group_fault(rows: int, columns: int, frames: int) -> str:
    """Why a group of that size cannot be held, or ""."""
    if not 1 <= frames <= MAX_FRAMES:
        return f"groups of {frames} frames, expected 1 to {MAX_FRAMES}"
    if rows * columns > MAX_PIXELS:
        return f"frames of {columns} x {rows}, expected at most 2^24 pixels; make them smaller"
    if rows * columns * frames > MAX_GROUP:
        return f"groups of {frames} frames of {columns} x {rows}, expected at most 2^28 pixels"
    return ""


def video_file(
    picture: Picture,
    groups: list[tuple[int, bytes]],
    *,
    name: str = "",
    metadata: bytes = b"",
    audio: bytes = b"",
) -> bytes:
    """The ``.lume`` file of a video.

    Args:
        picture: Its header.
        groups: Frames and chunk data of every group, in order.
        name: Name of the original file.
        metadata: A JSON object, UTF-8.
        audio: A Matroska file with the sound alone.
    """
    chunks = [Chunk(NAME_CHUNK, name.encode())] if name else []
    chunks += [Chunk(METADATA_CHUNK, metadata)] if metadata else []
    chunks += [Chunk(PICTURE_CHUNK, data) for _, data in groups]
    chunks += [Chunk(AUDIO_CHUNK, audio)] if audio else []
    return pack(VIDEO, picture, chunks, tuple(frames for frames, _ in groups))


def open_video(data: bytes, source: str = "the data") -> tuple[Container, Picture]:
    """The header and the places of all chunks of a video.

    Raises:
        FormatError: If the data is not a video of this format.
    """
    with format_errors_of(source):
        container = unpack(data, VIDEO)
        picture = container.picture
        assert picture is not None, "a video has a picture"
        for frames in _group_sizes(container):
            fault = group_fault(picture.rows, picture.columns, frames)
            if fault:
                raise FormatError(fault)
    return container, picture


def decode_video(
    data: bytes,
    first: int = 0,
    last: int | None = None,
    backend: Backend = "auto",
    *,
    source: str = "the data",
) -> Iterator[Planes]:
    """Frames ``first`` ... ``last`` - 1 in order, as planes Y', Cb, Cr of uint8.

    Only the groups that hold any of them are decoded, and in them what those frames need.

    Args:
        data: The whole file.
        first: First frame.
        last: One past the last; None: to the end.
        backend: As in ``decode_image``; all give the same.
        source: What to call the data in errors.

    Raises:
        FormatError: If the data is not an intact video of this format.
    """
    container, picture = open_video(data, source)
    stop = picture.frames if last is None else last
    if _is_network(container):
        wanted = range(first, min(stop, picture.frames))
        with format_errors_of(source):
            yield from _of_network(container, picture, wanted, backend)
        return
    start = 0
    for frames, place in container.groups():
        wanted = range(max(first, start) - start, min(stop, start + frames) - start)
        start += frames
        if not wanted:
            continue
        with format_errors_of(source):
            chunk = container.data(place)
            found = decode_group(chunk, picture, frames, backend, set(wanted))
        for i in wanted:
            yield found.pop(i)


def _is_network(container: Container) -> bool:
    return any(kind == NETWORK_CHUNK for kind, _, _ in container.places)


def _group_sizes(container: Container) -> list[int]:
    """Frames of each part that is decoded alone; those of a network are decoded one by one."""
    return [1] if _is_network(container) else [frames for frames, _ in container.groups()]


def _of_network(
    container: Container, picture: Picture, wanted: range, backend: Backend
) -> Iterator[Planes]:
    """Frames of a file that holds a network instead of groups of pictures."""
    from lumefield.codecs.families import decode_planes  # which imports this room

    yield from decode_planes(next(container.all(NETWORK_CHUNK)), picture, backend, wanted)


def sound_of_video(container: Container) -> bytes:
    """The sound of a video: a Matroska file, or b"" where there is none."""
    return next(container.all(AUDIO_CHUNK), b"")
