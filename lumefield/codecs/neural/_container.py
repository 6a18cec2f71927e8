"""The ``.lume`` container: a checked header, then chunks. Bytes in, bytes out.

Numbers are little-endian; ``varint`` is LEB128 (7 bits a byte, low first, at most 5 bytes). ::

    header
     0  4       b"LUME"
     4  1       format version, 2 (1 had other tables of frequencies and was never released)
     5  1       content: 1 image, 2 video, 3 splats, 4 field
     6  ...     image and video only:
        1       bits per sample, 8 ... 16
        1       bits 0-1: channels - 1; bit 2: 4:2:0 (channels 1, 2 are chroma of half the size);
                bit 3: full range (video range where 0); bits 4-7: zero
        3       ITU-T H.273 code points: colour primaries, transfer characteristics, matrix
        varint  columns
        varint  rows
        video only:
        varint  frames
        varint  frame rate, numerator
        varint  frame rate, denominator
        4       CRC-32 of all bytes before
    chunk, as many as follow
        1       type: 1 picture, 2 index, 3 name, 4 metadata, 5 audio, 6 splats, 7 network,
                8 field, 9 exact arrays of a field; others are skipped
        varint  length of the data
        ...     data
        4       CRC-32 of type, length and data

An image has one picture chunk. A video has one per group of pictures, in order, and right before
the first of them an index: varint count, then for each varint frames and varint bytes of the
whole chunk; so any frame is found from the start of the file alone. In place of these an image or
a video may have one network chunk (``codecs.families``) that gives every frame. Name and metadata
are UTF-8, the latter a JSON object. A picture of 512 x 768 has a header of 19 bytes and 8 around
its data.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from lumefield.codecs.neural._levels import MAX_SAMPLES, MAX_SIDE
from lumefield.errors import FormatError

MAGIC = b"LUME"
VERSION = 2
IMAGE, VIDEO, SPLATS, FIELD = 1, 2, 3, 4
PICTURE_CHUNK, INDEX_CHUNK, NAME_CHUNK, METADATA_CHUNK, AUDIO_CHUNK = 1, 2, 3, 4, 5
SPLATS_CHUNK, NETWORK_CHUNK, FIELD_CHUNK, EXACT_CHUNK = 6, 7, 8, 9
SRGB = (1, 13, 0)
"""H.273 code points of RGB with sRGB primaries and transfer (IEC 61966-2-1)."""
_CONTENTS = (IMAGE, VIDEO, SPLATS, FIELD)
_EXPECTED = {IMAGE: "an image", VIDEO: "a video", SPLATS: "splats", FIELD: "a field"}
_NAMES = {IMAGE: "image", VIDEO: "video", SPLATS: "splats", FIELD: "field"}
_MAX_TEXT = 1 << 20
_DAMAGED = "the file is cut off or damaged"


@dataclass(frozen=True)
class Picture:
    """What a header says of an image or a video."""

    rows: int
    columns: int
    channels: int = 3
    """1 grey, 2 grey and alpha, 3 colour, 4 colour and alpha."""
    bits: int = 8
    """Used bits per sample, 8 to 16."""
    subsampled: bool = False
    """4:2:0: channels 1 and 2 are chroma of half the size, rounded up."""
    colour: tuple[int, int, int] = SRGB
    """ITU-T H.273 code points: primaries, transfer characteristics, matrix coefficients."""
    full_range: bool = True
    """Whether 0 is black and 2^bits - 1 white (else the narrow range of video)."""
    frames: int = 1
    rate: Fraction = Fraction(0)
    """Frames per second; 0 for an image."""

    def check(self) -> "Picture":
        """The picture itself, after checking that the format can hold it.

        Raises:
            ValueError: If a value is out of range.
        """
        fault = _fault(self)
        if fault:
            raise ValueError(fault)
        return self


@dataclass(frozen=True)
class Chunk:
    """One chunk: its type and its data."""

    kind: int
    data: bytes


@dataclass(frozen=True)
class Container:
    """A parsed file; the checksum of a chunk is tested when its data is taken."""

    content: int
    picture: Picture | None
    """None for splats and fields."""
    places: tuple[tuple[int, int, int], ...]
    """(type, first byte, one past the last byte) of every chunk, in order."""
    file: bytes

    @staticmethod
    def holds(head: bytes) -> str:
        """What a file says it holds, by its first 6 bytes; "" where it is no .lume file.

        Of any version, so that what reads it can say what is wrong with it.
        """
        return _NAMES.get(head[5], "") if len(head) > 5 and head[:4] == MAGIC else ""

    def data(self, place: tuple[int, int, int]) -> bytes:
        """Data of a chunk.

        Raises:
            FormatError: If its checksum is wrong.
        """
        _, first, stop = place
        body = self.file[first : stop - 4]
        if _crc(body) != self.file[stop - 4 : stop]:
            raise FormatError(f"chunk at byte {first} has a wrong checksum; copy the file again")
        return body[_varint(body, 1)[1] :]

    def all(self, kind: int) -> Iterator[bytes]:
        """Data of all chunks of a type."""
        return (self.data(place) for place in self.places if place[0] == kind)

    def groups(self) -> list[tuple[int, tuple[int, int, int]]]:
        """Frames and place of every group of a video, in order.

        Raises:
            FormatError: If the index does not fit the header and the chunks.
        """
        index = next(self.all(INDEX_CHUNK), b"\0")
        count, at = _varint(index, 0)
        places = [place for place in self.places if place[0] == PICTURE_CHUNK]
        total = self.picture.frames if self.picture else 0
        frames = list[int]()
        for _ in range(min(count, len(places))):
            number, at = _varint(index, at)
            frames.append(number)
            _, at = _varint(index, at)
        if count != len(places) or sum(frames) != total or min(frames, default=0) < 1:
            raise FormatError(
                f"an index of {count} groups with {sum(frames)} frames for {len(places)} groups "
                f"and {total} frames; {_DAMAGED}"
            )
        return list(zip(frames, places, strict=True))

    def name(self) -> str:
        """Name of the original file, or ""."""
        return next((_text(data, "name") for data in self.all(NAME_CHUNK)), "")

    def metadata(self) -> dict[str, Any]:
        """Metadata of the original, or nothing.

        Raises:
            FormatError: If it is not a JSON object.
        """
        for data in self.all(METADATA_CHUNK):
            try:
                found = json.loads(_text(data, "metadata"))
            except (ValueError, RecursionError):
                found = None
            if not isinstance(found, dict):
                raise FormatError(f"metadata is not a JSON object; {_DAMAGED}")
            return found
        return {}


def pack(
    content: int, picture: Picture | None, chunks: list[Chunk], frames: tuple[int, ...] = ()
) -> bytes:
    """The bytes of a file.

    Args:
        content: What it holds.
        picture: For image and video.
        chunks: In order; the index of a video is added here.
        frames: Frames of each picture chunk of a video.

    Raises:
        ValueError: If the picture cannot be held, or frames and picture chunks do not match.
    """
    if (picture is not None) != (content in (IMAGE, VIDEO)):
        raise ValueError(f"content {content} with picture={picture}; images and video have one")
    header = MAGIC + bytes((VERSION, content))
    if picture is not None:
        header += _picture_bytes(picture.check(), content)
    out, pictures = [header + _crc(header)], 0
    parts = [(chunk.kind, _chunk_bytes(chunk)) for chunk in chunks]
    sizes = [len(part) for kind, part in parts if kind == PICTURE_CHUNK]
    network = any(chunk.kind == NETWORK_CHUNK for chunk in chunks)
    if content == VIDEO and (len(sizes) != len(frames) or picture is None):
        raise ValueError(f"{len(frames)} counts of frames for {len(sizes)} picture chunks")
    if content == VIDEO and not network and picture and sum(frames) != picture.frames:
        raise ValueError(f"{sum(frames)} frames in chunks, {picture.frames} in the header")
    for kind, part in parts:
        if kind == PICTURE_CHUNK and not pictures and content == VIDEO:
            pairs = (varint(v) for pair in zip(frames, sizes, strict=True) for v in pair)
            out.append(_chunk_bytes(Chunk(INDEX_CHUNK, varint(len(sizes)) + b"".join(pairs))))
        pictures += kind == PICTURE_CHUNK
        out.append(part)
    return b"".join(out)


def unpack(file: bytes, wanted: int | None = None) -> Container:
    """Parse header and chunk borders; nothing is copied and no data read.

    Args:
        file: The whole file.
        wanted: Content that it has to be of.

    Raises:
        FormatError: If it is not such a file, is of another version, cut off or damaged, or holds
            something else than what is wanted.
    """
    content, picture, at = _header(file)
    if wanted not in (None, content):
        raise FormatError(f"holds content {content}, expected {_EXPECTED[wanted]} ({wanted})")
    found = list[tuple[int, int, int]]()
    while at < len(file):
        first = at
        length, at = _varint(file, at + 1)
        stop = at + length + 4
        if stop > len(file):
            raise FormatError(
                f"chunk at byte {first} needs {stop - len(file)} bytes more; {_DAMAGED}"
            )
        found.append((file[first], first, stop))
        at = stop
    return Container(content, picture, tuple(found), file)


def locate(file: bytes, frame: int) -> tuple[int, int, int]:
    """Where the group of a frame of a video is: (its first frame, first byte, one past the last).

    Only the start of the file is read, up to the index.

    Raises:
        FormatError: If there is no index, or the frame is not in it.
    """
    at = _header(file)[2]
    while at + 1 < len(file):
        first, kind = at, file[at]
        length, at = _varint(file, at + 1)
        if kind == INDEX_CHUNK:
            body = file[first : at + length]
            if _crc(body) != file[at + length : at + length + 4]:
                raise FormatError(f"index at byte {first} is damaged; copy the file again")
            return _search(body[at - first :], at + length + 4, frame)
        at += length + 4
    raise FormatError("no index of frames, expected one in a video; copy the file again")


def _search(index: bytes, at: int, frame: int) -> tuple[int, int, int]:
    count, place = _varint(index, 0)
    start = 0
    for _ in range(count):
        frames, place = _varint(index, place)
        size, place = _varint(index, place)
        if start <= frame < start + frames:
            return start, at, at + size
        start, at = start + frames, at + size
    raise FormatError(f"frame {frame} is not in the video of {start} frames")


def varint(value: int) -> bytes:
    """LEB128."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i, byte in enumerate(data[at : at + 5]):
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value, at + i + 1
    raise FormatError(f"number at byte {at} does not end; {_DAMAGED}")


def _crc(data: bytes) -> bytes:
    return struct.pack("<I", zlib.crc32(data))


def _chunk_bytes(chunk: Chunk) -> bytes:
    body = bytes((chunk.kind,)) + varint(len(chunk.data)) + chunk.data
    return body + _crc(body)


def _picture_bytes(picture: Picture, content: int) -> bytes:
    layout = picture.channels - 1 | picture.subsampled << 2 | picture.full_range << 3
    fixed = bytes((picture.bits, layout, *picture.colour))
    numbers = [picture.columns, picture.rows]
    if content == VIDEO:
        numbers += [picture.frames, *picture.rate.as_integer_ratio()]
    return fixed + b"".join(map(varint, numbers))


def _header(file: bytes) -> tuple[int, Picture | None, int]:
    """Content, picture and the first byte after the header."""
    if file[:4] != MAGIC:
        raise FormatError("does not begin with LUME; expected a .lume file")
    if len(file) < 10:
        raise FormatError(f"ends inside the header; {_DAMAGED}")
    version, content = file[4], file[5]
    if version != VERSION:
        remedy = "compress it again" if version < VERSION else "update lumefield to read it"
        raise FormatError(f"is .lume version {version}, expected {VERSION}; {remedy}")
    fields, at = list[int](), 6
    if content in (IMAGE, VIDEO):
        at = 11
        for _ in range(2 if content == IMAGE else 5):
            value, at = _varint(file, at)
            fields.append(value)
    if _crc(file[:at]) != file[at : at + 4]:
        raise FormatError("the header has a wrong checksum; copy the file again")
    if content not in _CONTENTS:
        raise FormatError(f"content {content} is not known; update lumefield to read it")
    picture = _parsed(file[6:11], fields) if fields else None
    fault = _fault(picture) if picture else ""
    if fault:
        raise FormatError(f"header: {fault}; the file is damaged")
    return content, picture, at + 4


def _parsed(fixed: bytes, fields: list[int]) -> Picture:
    bits, layout, *colour = fixed
    columns, rows, *moving = fields
    if layout >> 4 or (moving and not moving[2]):
        raise FormatError("the header has reserved bits or a rate over zero; the file is damaged")
    return Picture(
        rows=rows,
        columns=columns,
        channels=(layout & 3) + 1,
        bits=bits,
        subsampled=bool(layout & 4),
        colour=(colour[0], colour[1], colour[2]),
        full_range=bool(layout & 8),
        frames=moving[0] if moving else 1,
        rate=Fraction(moving[1], moving[2]) if moving else Fraction(0),
    )


def _fault(picture: Picture) -> str:
    """What the format cannot hold, or ""."""
    h, w, c = picture.rows, picture.columns, picture.channels
    if not (1 <= h <= MAX_SIDE and 1 <= w <= MAX_SIDE):
        return f"a picture of {w} x {h}, expected sides from 1 to {MAX_SIDE}"
    if h * w * c > MAX_SAMPLES:
        return f"a picture of {w} x {h} x {c} samples, expected at most 2^28; cut it into parts"
    if not 1 <= c <= 4:
        return f"{c} channels, expected 1 to 4"
    if not 8 <= picture.bits <= 16:
        return f"{picture.bits} bits per sample, expected 8 to 16"
    if picture.subsampled and c != 3:
        return f"4:2:0 with {c} channels, expected 3"
    if not all(0 <= code <= 255 for code in picture.colour):
        return f"H.273 code points {picture.colour}, expected 0 to 255"
    rate = picture.rate.as_integer_ratio()
    if not 1 <= picture.frames < 1 << 31 or not all(0 <= v < 1 << 31 for v in rate):
        return f"{picture.frames} frames at {picture.rate} per second, expected at least one frame"
    return ""


def _text(data: bytes, what: str) -> str:
    if len(data) > _MAX_TEXT:
        raise FormatError(f"{what} of {len(data)} bytes, expected at most {_MAX_TEXT}; {_DAMAGED}")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError(f"{what} is not UTF-8; {_DAMAGED}") from None
