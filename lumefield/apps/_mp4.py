"""MP4 files for players: the index in front, and for headsets what kind of sphere they show.

ISO/IEC 14496-12 (boxes) and Google's "Spherical Video V2" RFC: a box ``st3d`` says how the two
eyes lie in a frame, ``sv3d`` that the picture is equirectangular and how much of the sphere it
covers. Both go to the end of the sample entry of the video track. What lies behind an index that
moves or grows is found by absolute offsets (``stco``, ``co64``), which are corrected.
"""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from lumefield.errors import FormatError

Stereo = Literal["off", "top-bottom", "side-by-side"]

STEREO_MODES: dict[Stereo, int] = {"off": 0, "top-bottom": 1, "side-by-side": 2}
"""What ``st3d`` holds; the left eye is on top, or on the left."""
_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
"""Boxes on the way to the tables that change."""
_ENTRY_FIELDS = 78
"""Bytes of a visual sample entry before the boxes in it."""
_MOST_INDEX = 1 << 30
"""Bytes; a film of 10 hours has an index below 50 MB."""
_COPY = 1 << 20


@runtime_checkable
class Source(Protocol):
    """A file that can be read anywhere."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go somewhere; returns where."""
        ...

    def read(self, size: int = -1, /) -> bytes:
        """At most so many bytes."""
        ...


@runtime_checkable
class Target(Protocol):
    """A file that is written from its start."""

    def write(self, data: bytes, /) -> int:
        """Write some bytes."""
        ...


class Box(NamedTuple):
    """Where a box lies."""

    kind: bytes
    at: int
    """First byte of its header."""
    body: int
    """First byte behind its header."""
    end: int


def sphere_boxes(stereo: Stereo, degrees: int) -> bytes:
    """``st3d`` and ``sv3d`` of an equirectangular picture.

    Args:
        stereo: How the eyes lie in a frame.
        degrees: Azimuth that an eye's picture covers: 360, or 180 about the front.
    """
    side = round((1 - degrees / 360) / 2 * 2**32)  # cut off left and right, 0.32 fixed point
    head = _box(b"svhd", bytes(4) + b"lumefield\0")
    pose = _box(b"prhd", bytes(4 + 12))  # no yaw, pitch or roll
    bounds = _box(b"equi", bytes(4) + struct.pack(">4I", 0, 0, side, side))
    eyes = _box(b"st3d", bytes(4) + struct.pack(">B", STEREO_MODES[stereo]))
    return eyes + _box(b"sv3d", head + _box(b"proj", pose + bounds))


def finish(source: Source, target: Target, path: Path, extra: bytes = b"") -> None:
    """Copy an MP4 file with its index in front and ``extra`` boxes in its video's sample entry.

    Args:
        source: The file, seekable.
        target: Where the bytes go.
        path: Its name, for messages.
        extra: Boxes such as those of ``sphere_boxes``.

    Raises:
        FormatError: If it is not an MP4 file with one index and one sort of video.
    """
    size = source.seek(0, 2)
    boxes = list(_file_boxes(source, size, path))
    indices = [box for box in boxes if box.kind == b"moov"]
    if len(indices) != 1 or indices[0].end - indices[0].at > _MOST_INDEX:
        raise FormatError(f"{path}: {len(indices)} moov boxes, expected one; not a whole MP4 file")
    index = indices[0]
    source.seek(index.at)
    data = source.read(index.end - index.at)
    rest = [box for box in boxes if box.kind not in (b"moov", b"free")]
    first = [box for box in rest if box.kind == b"ftyp"]
    order = first + [box for box in rest if box.kind != b"ftyp"]
    wide = False
    while True:
        length = len(_rebuilt(data, extra, {}, wide, path))
        moves: dict[int, int] = {}
        at = sum(box.end - box.at for box in first) + length
        for box in order[len(first) :]:
            moves.update({box.at: at - box.at})
            at += box.end - box.at
        if wide or at < 2**32:
            break
        wide = True
    moved = _rebuilt(data, extra, moves, wide, path)
    for box in first:
        _copy(source, target, box)
    target.write(moved)
    for box in order[len(first) :]:
        _copy(source, target, box)


def _rebuilt(data: bytes, extra: bytes, moves: dict[int, int], wide: bool, path: Path) -> bytes:
    """The bytes of ``moov`` with ``extra`` put in and the offsets of its chunks moved."""
    starts = sorted(moves)
    entries: list[Box] = []

    def moved(offset: int) -> int:
        before = [at for at in starts if at <= offset]
        return offset + moves[before[-1]] if before else offset

    def one(box: Box, video: bool) -> bytes:
        body = data[box.body : box.end]
        if box.kind in _PARENTS:
            inner = list(_boxes(data, box.body, box.end, path))
            if box.kind == b"trak":
                video = b"vide" in _handlers(data, inner, path)
            return _box(box.kind, b"".join(one(child, video) for child in inner))
        if box.kind in (b"stco", b"co64"):
            offsets = _offsets(body, box, path)
            if wide or box.kind == b"co64":
                return _box(b"co64", _table(body, offsets, ">Q", moved))
            return _box(b"stco", _table(body, offsets, ">I", moved))
        if box.kind == b"stsd" and video and extra:
            entries.append(box)
            return _box(b"stsd", body[:8] + _with_extra(data, box, extra, path))
        return data[box.at : box.end]

    whole = next(_boxes(data, 0, len(data), path))
    made = one(whole, False)
    if extra and len(entries) != 1:
        raise FormatError(f"{path}: {len(entries)} video tracks, expected one")
    return made


def _with_extra(data: bytes, table: Box, extra: bytes, path: Path) -> bytes:
    entries = list(_boxes(data, table.body + 8, table.end, path))
    if len(entries) != 1 or entries[0].end - entries[0].body < _ENTRY_FIELDS:
        raise FormatError(f"{path}: {len(entries)} sorts of video, expected one")
    entry = entries[0]
    inner = _boxes(data, entry.body + _ENTRY_FIELDS, entry.end, path)
    kept = [data[box.at : box.end] for box in inner if box.kind not in (b"st3d", b"sv3d")]
    fields = data[entry.body : entry.body + _ENTRY_FIELDS]
    return _box(entry.kind, fields + b"".join(kept) + extra)


def _handlers(data: bytes, track: list[Box], path: Path) -> list[bytes]:
    """What sorts of media a track has."""
    media = [box for box in track if box.kind == b"mdia"]
    inner = [box for m in media for box in _boxes(data, m.body, m.end, path)]
    return [data[box.body + 8 : box.body + 12] for box in inner if box.kind == b"hdlr"]


def _offsets(body: bytes, box: Box, path: Path) -> tuple[int, ...]:
    form, width = (">I", 4) if box.kind == b"stco" else (">Q", 8)
    count = struct.unpack_from(">I", body, 4)[0] if len(body) >= 8 else -1
    if len(body) != 8 + width * count:
        raise FormatError(f"{path}: a table of {len(body)} bytes for {count} offsets")
    return tuple(v for (v,) in struct.iter_unpack(form, body[8:]))


def _table(body: bytes, offsets: tuple[int, ...], form: str, moved: Callable[[int], int]) -> bytes:
    return body[:8] + b"".join(struct.pack(form, moved(offset)) for offset in offsets)


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def _boxes(data: bytes, at: int, end: int, path: Path) -> Iterator[Box]:
    while at < end:
        box = _box_at(data[at : at + 16], at, end, path)
        yield box
        at = box.end


def _file_boxes(source: Source, size: int, path: Path) -> Iterator[Box]:
    at = 0
    while at < size:
        source.seek(at)
        box = _box_at(source.read(16), at, size, path)
        yield box
        at = box.end


def _box_at(head: bytes, at: int, end: int, path: Path) -> Box:
    """The box whose first bytes are ``head``; its length must fit."""
    length, kind, body = 0, b"", 8
    if len(head) >= 8:
        length, kind = struct.unpack_from(">I4s", head)
    if length == 1 and len(head) == 16:
        length, body = struct.unpack_from(">Q", head, 8)[0], 16
    elif length == 0 and kind:
        length = end - at
    if length < body or at + length > end:
        raise FormatError(
            f"{path}: box of {length} bytes at byte {at} of {end}; not a whole MP4 file"
        )
    return Box(kind, at, at + body, at + length)


def _copy(source: Source, target: Target, box: Box) -> None:
    source.seek(box.at)
    left = box.end - box.at
    while left:
        part = source.read(min(_COPY, left))
        if not part:
            raise FormatError(f"the film ends {left} bytes early; draw it again")
        target.write(part)
        left -= len(part)
