"""Niantic's SPZ: quantised Gaussians, gzip. Reads versions 2 and 3 (gzip or raw), writes 3.

Facts from the public description of the format (nianticlabs/spz, README). Layout after a header of
16 bytes, attribute by attribute: positions 24-bit fixed point; opacity u8; colour u8 = 0.15 * 255 *
dc + 127.5; scale u8 = 16 (ln s + 10); rotation, version 2: xyz u8 each with w >= 0, version 3:
"smallest three" in 32 bits; spherical harmonics u8, coefficient-major with rgb inside.

The frame of an SPZ is right, up, back; :class:`Splats` keeps the PLY's right, down, forward. The
two differ by half a turn about x, which also turns signs of quaternions and harmonics.
"""

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.formats._files import read_bytes, replacing
from lumefield.codecs.formats._splat_rows import (
    checked,
    cleaned,
    logits_from_bytes,
    opacities,
    to_bytes,
    turn_signs,
    unit_quaternions,
)
from lumefield.codecs.formats._types import Splats
from lumefield.errors import FormatError, InputError

_HEADER = np.dtype(
    [
        *(("magic", "<u4"), ("version", "<u4"), ("n", "<u4")),
        *(("degree", "u1"), ("bits", "u1"), ("flags", "u1"), ("zero", "u1")),
    ]
)
_MAGIC = 0x5053474E
_COEFFICIENTS = {0: 1, 1: 4, 2: 9, 3: 16, 4: 25}
_DEFLATE_RATIO = 1032
"""Deflate cannot expand by more: 258 bytes for 2 bits."""
_MAX_DEGREE = 3
_BITS = 12
_BLOCK = 1 << 16
_TURN = np.array([1.0, -1.0, -1.0], np.float32)
_MASK = 511
_HALF_ROOT = float(np.sqrt(0.5))


class _Spz(NamedTuple):
    version: int
    n: int
    k: int
    bits: int
    antialiased: bool
    body: bytes


def load_spz(path: Path) -> Splats:
    """Read an SPZ file into the PLY's frame (x right, y down, z forward).

    Raises:
        InputError: If the file cannot be opened.
        FormatError: If it is not SPZ of version 2 or 3, or is damaged or cut off.
    """
    spz = _unpack(read_bytes(path), path)
    n, k, data, at = spz.n, spz.k, np.frombuffer(spz.body, np.uint8), 0
    width = 4 if spz.version == 3 else 3
    parts: list[NDArray[np.uint8]] = []
    for size in (9, 1, 3, 3, width, 3 * (k - 1)):
        parts.append(data[at : at + n * size].reshape(n, size))
        at += n * size
    position, alpha, colour, scale, rotation, rest = parts
    sh = np.empty((n, k, 3), np.float32)
    sh[:, 0] = (colour / np.float32(255) - np.float32(0.5)) / np.float32(0.15)
    sh[:, 1:] = (rest.reshape(n, k - 1, 3).astype(np.float32) - 128) / 128
    sh *= turn_signs(k)[:, None]
    quats = _quats_v3(rotation) if spz.version == 3 else _quats_v2(rotation)
    quats[:, 2:] *= -1
    return cleaned(
        Splats(
            means=_positions(position, spz.bits) * _TURN,
            quats_wxyz=quats,
            log_scales=(scale / 16.0 - 10).astype(np.float32),
            logit_opacities=logits_from_bytes(alpha[:, 0]),
            sh=sh,
            antialiased=spz.antialiased,
        )
    )


def save_spz(splats: Splats, path: Path) -> None:
    """Write SPZ version 3; coefficients above degree 3 do not fit the format and are lost.

    Raises:
        InputError: If a position is not finite or beyond 8 million units, or the file cannot be
            written.
        ValueError: If the arrays do not fit one another.
    """
    splats = checked(splats)
    k = min(splats.sh.shape[1], _COEFFICIENTS[_MAX_DEGREE])
    bits = _fraction_bits(splats.means, path)
    header = np.zeros((), _HEADER)
    header["magic"], header["version"], header["n"] = _MAGIC, 3, len(splats.means)
    header["degree"], header["bits"], header["flags"] = round(k**0.5) - 1, bits, splats.antialiased
    squeeze = zlib.compressobj(6, zlib.DEFLATED, 31)
    with replacing(path) as file:
        file.write(squeeze.compress(header.tobytes()))
        for part in _packed(splats, k, bits):
            file.write(squeeze.compress(part))
        file.write(squeeze.flush())


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
    version, n, degree = int(header["version"]), int(header["n"]), int(header["degree"])
    if int(header["magic"]) != _MAGIC:
        raise FormatError(f"{path}: does not begin with NGSP; expected an SPZ file")
    if version not in (2, 3):
        raise FormatError(
            f"{path}: is SPZ version {version}, expected 2 or 3; export it again as version 3"
        )
    if degree not in _COEFFICIENTS or int(header["bits"]) > 24:
        raise FormatError(
            f"{path}: SPZ header has SH degree {degree} and {int(header['bits'])} fraction bits, "
            "expected at most 4 and 24; the file is damaged"
        )
    k = _COEFFICIENTS[degree]
    need = n * (16 + (4 if version == 3 else 3) + 3 * (k - 1))
    most = _DEFLATE_RATIO * len(data) if inflate else len(data) - 16
    short = FormatError(
        f"{path}: SPZ header promises {n} Gaussians ({need} bytes), the file holds fewer; "
        "it is cut off or damaged"
    )
    if need > most:
        raise short
    if inflate:
        try:
            body = inflate.decompress(inflate.unconsumed_tail, need) if need else b""
            inflate.decompress(inflate.unconsumed_tail, 1)  # reaches the checksum, if it is next
        except zlib.error as error:
            raise FormatError(f"{path}: SPZ is damaged ({error}); copy it again") from error
    else:
        body = data[16 : 16 + need]
    if len(body) < need:
        raise short
    return _Spz(version, n, k, int(header["bits"]), bool(header["flags"] & 1), body)


def _positions(raw: NDArray[np.uint8], bits: int) -> NDArray[np.float32]:
    b = raw.reshape(-1, 3, 3).astype(np.int32)
    fixed = b[..., 0] | (b[..., 1] << 8) | (b[..., 2] << 16)
    fixed -= (fixed & 0x800000) << 1
    return (fixed / 2.0**bits).astype(np.float32)


def _quats_v2(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    xyz = raw / 127.5 - 1
    w = np.sqrt(np.maximum(0, 1 - (xyz**2).sum(1, keepdims=True)))
    return np.concatenate([w, xyz], 1).astype(np.float32)


def _quats_v3(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Components in the order x y z w; the largest is left out and its index is in the top bits."""
    code = np.ascontiguousarray(raw).view("<u4")[:, 0]
    largest = (code >> 30).astype(np.int64)
    xyzw = np.zeros((len(code), 4))
    for i in range(3, -1, -1):
        here = largest != i
        value = _HALF_ROOT * (code & _MASK) / _MASK * np.where((code >> 9) & 1, -1.0, 1.0)
        xyzw[:, i] = np.where(here, value, 0)
        code = np.where(here, code >> 10, code)
    rest = np.sqrt(np.maximum(0, 1 - (xyzw**2).sum(1)))
    xyzw[np.arange(len(code)), largest] = rest
    return np.roll(xyzw, 1, axis=1).astype(np.float32)


def _packed(splats: Splats, k: int, bits: int) -> Iterator[bytes]:
    """The attributes one after the other, each in blocks of Gaussians to keep the memory small."""
    signs = turn_signs(k)[1:, None]
    step = np.where(np.arange(1, k) < 4, 8, 16)[:, None]

    def position(rows: slice) -> NDArray[np.uint8]:
        fixed = np.round(splats.means[rows].astype(np.float64) * _TURN * 2.0**bits)
        fixed = np.clip(fixed, -(1 << 23), (1 << 23) - 1).astype("<i4")
        return np.ascontiguousarray(fixed).view(np.uint8).reshape(-1, 4)[:, :3]

    def rest(rows: slice) -> NDArray[np.uint8]:
        level = np.round(np.clip(splats.sh[rows, 1:k] * signs, -2, 2) * 128) + 128
        return to_bytes(np.floor((level + step // 2) / step) * step)

    attributes: tuple[Callable[[slice], NDArray[Any]], ...] = (
        position,
        lambda rows: to_bytes(opacities(splats.logit_opacities[rows]) * 255),
        lambda rows: to_bytes(splats.sh[rows, 0].astype(np.float64) * (0.15 * 255) + 127.5),
        lambda rows: to_bytes((splats.log_scales[rows].astype(np.float64) + 10) * 16),
        lambda rows: _smallest_three(unit_quaternions(splats.quats_wxyz[rows]) * (1, 1, -1, -1)),
        rest,
    )
    for attribute in attributes:
        for start in range(0, len(splats.means), _BLOCK):
            yield attribute(slice(start, start + _BLOCK)).tobytes()


def _smallest_three(quats: NDArray[np.float64]) -> NDArray[np.uint32]:
    xyzw = np.roll(quats, -1, axis=1)
    largest = np.abs(xyzw).argmax(1)
    negate = xyzw[np.arange(len(xyzw)), largest] < 0
    code = largest.astype(np.uint32)
    for i in range(4):
        mag = np.floor(_MASK * np.abs(xyzw[:, i]) / _HALF_ROOT + 0.5)
        sign = ((xyzw[:, i] < 0) ^ negate).astype(np.uint32)
        word = (sign << 9) | np.minimum(mag, _MASK).astype(np.uint32)
        code = np.where(largest != i, (code << 10) | word, code)
    return code.astype("<u4")


def _fraction_bits(means: NDArray[np.float32], path: Path) -> int:
    reach = float(np.abs(means).max(initial=0))
    if not reach < 2**23 - 1:
        raise InputError(
            f"cannot write {path}: a position of {reach:.3g} units, expected finite ones below "
            "8.4 million in SPZ; scale or centre the scene, or write .ply"
        )
    return next(bits for bits in range(_BITS, -1, -1) if round(reach * 2**bits) < 2**23)
