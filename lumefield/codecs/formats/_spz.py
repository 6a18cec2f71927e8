"""Niantic's SPZ: quantised Gaussians. Reads versions 2 and 3 (gzip or raw) and 4, writes 3 and 4.

Facts from the public description of the format (nianticlabs/spz, README and extensions/README).
Versions 2 and 3: one gzip stream of a header of 16 bytes and the attributes (``_spz_rows``).
Version 4: a plain header of 32 bytes, records of extensions, a table of contents, then one zstd
stream per attribute that is not empty.

The frame of an SPZ is right, up, back unless an extension names another; :class:`Splats` keeps the
PLY's right, down, forward. The two differ by half a turn about x, which also turns signs of
quaternions and harmonics. splat-transform 3.7 writes the PLY's numbers without a turn and without
the extension: such a file cannot be told from a right one and comes out upside down.
"""

import dataclasses
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.formats._files import read_bytes, replacing
from lumefield.codecs.formats._splat_rows import checked, cleaned
from lumefield.codecs.formats._spz_rows import COEFFICIENTS, fraction_bits, packed, sizes, unpacked
from lumefield.codecs.formats._types import Splats
from lumefield.errors import FormatError, InputError

_START = [
    *(("magic", "<u4"), ("version", "<u4"), ("n", "<u4")),
    *(("degree", "u1"), ("bits", "u1"), ("flags", "u1"), ("streams", "u1")),
]
_HEADER = np.dtype(_START)
_HEADER_4 = np.dtype([*_START, ("toc", "<u4"), ("zero", "u1", 12)])
_ENTRY = np.dtype([("packed", "<u8"), ("size", "<u8")])
_MAGIC = 0x5053474E
_ANTIALIASED, _EXTENDED = 1, 2
_COORDINATES = 0xADBE0003
"""SPZ_ADOBE_coordinate_system: one u32, of which 4 is right up back and 6 right down forward."""
_RATIO = 1032
"""Deflate cannot expand by more (258 bytes for 2 bits); zstd can, but no scene does."""
_FINE = {3: 5, 4: 4}
"""Bits of the harmonics above degree 1. The reference encoder has 4, and so has our version 4, byte
for byte; with 5, trained scenes come out 5 dB nearer to their own pictures in an eighth more."""
_LEVEL_4 = 12
"""The reference encoder's level: with it our streams are the same bytes."""


class _Spz(NamedTuple):
    version: int
    bits: int
    flags: int
    parts: list[NDArray[np.uint8]]
    rdf: bool = False


def load_spz(path: Path) -> Splats:
    """Read an SPZ file into the PLY's frame (x right, y down, z forward).

    Raises:
        InputError: If the file cannot be opened.
        FormatError: If it is not SPZ of version 2, 3 or 4, or is damaged or cut off.
    """
    data = read_bytes(path)
    plain = data[:4] == _MAGIC.to_bytes(4, "little") and data[4:8] == (4).to_bytes(4, "little")
    spz = _unpack_4(data, path) if plain else _unpack(data, path)
    splats = unpacked(spz.parts, spz.bits, turned=not spz.rdf)
    return cleaned(
        dataclasses.replace(
            splats,
            antialiased=bool(spz.flags & _ANTIALIASED),
            source=f"SPZ version {spz.version}, stored right "
            + ("down forward" if spz.rdf else "up back"),
        )
    )


def save_spz(splats: Splats, path: Path, version: int = 3) -> None:
    """Write SPZ; coefficients above degree 3 (version 3) or 4 do not fit the format and are lost.

    Args:
        splats: What to write, in the PLY's frame.
        path: Where to.
        version: 3, which every reader knows, or 4, which is smaller and faster.

    Raises:
        InputError: If a position is not finite or beyond 8 million units, or the file cannot be
            written.
        ValueError: If the arrays do not fit one another, or for another version.
    """
    if version not in (3, 4):
        raise ValueError(f"version {version}, expected 3 or 4")
    splats = checked(splats)
    k = min(splats.sh.shape[1], COEFFICIENTS[version])
    bits = fraction_bits(splats.means, path)
    header = np.zeros((), _HEADER_4 if version == 4 else _HEADER)
    header["magic"], header["version"], header["n"] = _MAGIC, version, len(splats.means)
    header["degree"], header["bits"] = round(k**0.5) - 1, bits
    header["flags"] = _ANTIALIASED * splats.antialiased
    attributes = packed(splats, k, bits, _FINE[version])
    with replacing(path) as file:
        for piece in _gzipped(header, attributes) if version == 3 else _listed(header, attributes):
            file.write(piece)


def _gzipped(header: NDArray[Any], attributes: Iterator[Iterator[bytes]]) -> Iterator[bytes]:
    squeeze = zlib.compressobj(6, zlib.DEFLATED, 31)
    yield squeeze.compress(header.tobytes())
    for attribute in attributes:
        for block in attribute:
            yield squeeze.compress(block)
    yield squeeze.flush()


def _listed(header: NDArray[Any], attributes: Iterator[Iterator[bytes]]) -> Iterator[bytes]:
    import zstandard

    squeeze = zstandard.ZstdCompressor(level=_LEVEL_4)
    raw = [block for block in (b"".join(attribute) for attribute in attributes) if block]
    streams = [squeeze.compress(block) for block in raw]
    table = np.zeros(len(raw), _ENTRY)
    table["packed"], table["size"] = [len(s) for s in streams], [len(b) for b in raw]
    header["streams"], header["toc"] = len(raw), _HEADER_4.itemsize
    yield header.tobytes() + table.tobytes()
    yield from streams


def _check(header: Any, versions: tuple[int, ...], path: Path) -> tuple[int, int]:  # noqa: ANN401
    """Number of Gaussians and of coefficients that a header promises."""
    version, degree = int(header["version"]), int(header["degree"])
    if int(header["magic"]) != _MAGIC:
        raise FormatError(f"{path}: does not begin with NGSP; expected an SPZ file")
    if version not in versions:
        raise FormatError(
            f"{path}: is SPZ version {version}, expected 2, 3 or 4; export it again as version 3"
        )
    if degree not in COEFFICIENTS or int(header["bits"]) > 24:
        raise FormatError(
            f"{path}: SPZ header has SH degree {degree} and {int(header['bits'])} fraction bits, "
            "expected at most 4 and 24; the file is damaged"
        )
    return int(header["n"]), COEFFICIENTS[degree]


def _short(path: Path, n: int, need: int) -> FormatError:
    return FormatError(
        f"{path}: SPZ header promises {n} Gaussians ({need} bytes), the file holds fewer; "
        "it is cut off or damaged"
    )


def _unpack(data: bytes, path: Path) -> _Spz:
    """Check the header against the length before anything large is allocated."""
    inflate = zlib.decompressobj(31) if data[:2] == b"\x1f\x8b" else None
    try:
        head = inflate.decompress(data, 16) if inflate else data[:16]
    except zlib.error as error:
        raise FormatError(f"{path}: SPZ cannot be decompressed ({error}); copy it again") from error
    if len(head) < 16:
        raise FormatError(f"{path}: ends inside the SPZ header; the file is cut off")
    header = np.frombuffer(head, _HEADER)[0]
    n, k = _check(header, (2, 3), path)
    widths = sizes(k, int(header["version"]))
    need = n * sum(widths)
    if need > (_RATIO * len(data) if inflate else len(data) - 16):
        raise _short(path, n, need)
    if inflate:
        try:
            body = inflate.decompress(inflate.unconsumed_tail, need) if need else b""
            inflate.decompress(inflate.unconsumed_tail, 1)  # reaches the checksum, if it is next
        except zlib.error as error:
            raise FormatError(f"{path}: SPZ is damaged ({error}); copy it again") from error
    else:
        body = data[16 : 16 + need]
    if len(body) < need:
        raise _short(path, n, need)
    raw, at, parts = np.frombuffer(body, np.uint8), 0, list[NDArray[np.uint8]]()
    for width in widths:
        parts.append(raw[at : at + n * width].reshape(n, width))
        at += n * width
    return _Spz(int(header["version"]), int(header["bits"]), int(header["flags"]), parts)


def _unpack_4(data: bytes, path: Path) -> _Spz:
    """Version 4: every size is known from the header before a stream is opened."""
    if len(data) < _HEADER_4.itemsize:
        raise FormatError(f"{path}: ends inside the SPZ header; the file is cut off")
    header = np.frombuffer(data[: _HEADER_4.itemsize], _HEADER_4)[0]
    n, k = _check(header, (4,), path)
    widths = sizes(k, 4)
    if n * sum(widths) > _RATIO * len(data):
        raise _short(path, n, n * sum(widths))
    full = [width for width in widths if n * width]
    toc, count = int(header["toc"]), int(header["streams"])
    at = toc + count * _ENTRY.itemsize
    if toc < _HEADER_4.itemsize or at > len(data) or count < len(full):
        raise FormatError(
            f"{path}: SPZ table of contents at byte {toc} of {count} streams, expected "
            f"{len(full)} inside {len(data)} bytes; the file is cut off or damaged"
        )
    rdf = bool(header["flags"] & _EXTENDED) and _is_rdf(data[_HEADER_4.itemsize : toc], path)
    parts: list[NDArray[np.uint8]] = []
    table = iter(np.frombuffer(data[toc:at], _ENTRY))
    for width in widths:
        if not n * width:
            parts.append(np.zeros((n, width), np.uint8))
            continue
        entry = next(table)
        stop = at + int(entry["packed"])
        if int(entry["size"]) != n * width or stop > len(data):
            raise _short(path, n, n * sum(widths))
        raw = _expand(data[at:stop], n * width, path)
        parts.append(np.frombuffer(raw, np.uint8).reshape(n, width))
        at = stop
    return _Spz(4, int(header["bits"]), int(header["flags"]), parts, rdf)


def _expand(stream: bytes, size: int, path: Path) -> bytes:
    import zstandard

    try:
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(stream) as reader:
            raw = reader.read(size)
    except zstandard.ZstdError as error:
        raise FormatError(f"{path}: SPZ is damaged ({error}); copy it again") from error
    if len(raw) != size:
        raise FormatError(f"{path}: SPZ stream has {len(raw)} of {size} bytes; copy it again")
    return raw


def _is_rdf(records: bytes, path: Path) -> bool:
    """Whether an extension says that the numbers are right, down, forward already."""
    at = 0
    while at + 8 <= len(records):
        kind, length = (int(v) for v in np.frombuffer(records[at : at + 8], "<u4"))
        value = int.from_bytes(records[at + 8 : at + 12], "little")
        if kind == _COORDINATES and length >= 4 and value not in (0, 4):
            if value != 6:
                raise InputError(
                    f"{path}: SPZ is stored in coordinate system {value}, expected 4 (right up "
                    "back) or 6 (right down forward); convert it first"
                )
            return True
        at += 8 + length
    return False
