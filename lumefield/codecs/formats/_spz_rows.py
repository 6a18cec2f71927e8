"""The attributes of an SPZ file, one after the other: what its versions have in common.

Positions are 24-bit fixed point; opacity u8; colour u8 = 0.15 * 255 * dc + 127.5; scale u8 =
16 (ln s + 10); rotation, version 2: xyz u8 each with w >= 0, later: "smallest three" in 32 bits;
spherical harmonics u8, coefficient-major with rgb inside, of which a writer leaves some bits 0.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.formats._splat_rows import (
    logits_from_bytes,
    opacities,
    to_bytes,
    turn_signs,
    unit_quaternions,
)
from lumefield.codecs.formats._types import Splats
from lumefield.errors import InputError

COEFFICIENTS = {0: 1, 1: 4, 2: 9, 3: 16, 4: 25}
"""Degree -> number of coefficients."""
_BITS = 12
_BLOCK = 1 << 16
_TURN = np.array([1.0, -1.0, -1.0], np.float32)
_MASK = 511
_HALF_ROOT = float(np.sqrt(0.5))


def sizes(k: int, version: int) -> tuple[int, ...]:
    """Bytes per Gaussian of each attribute: position, opacity, colour, scale, rotation, SH."""
    return (9, 1, 3, 3, 3 if version == 2 else 4, 3 * (k - 1))


def unpacked(parts: Sequence[NDArray[np.uint8]], bits: int, *, turned: bool = True) -> Splats:
    """Splats out of the six attributes, each (n, bytes).

    Args:
        parts: Attributes in the order of :func:`sizes`.
        bits: Fraction bits of the positions.
        turned: From right, up, back to the PLY's right, down, forward; else as they are.
    """
    position, alpha, colour, scale, rotation, rest = parts
    n, k = len(position), 1 + rest.shape[1] // 3
    sh = np.empty((n, k, 3), np.float32)
    sh[:, 0] = (colour / np.float32(255) - np.float32(0.5)) / np.float32(0.15)
    sh[:, 1:] = (rest.reshape(n, k - 1, 3).astype(np.float32) - 128) / 128
    quats = _quats_v3(rotation) if rotation.shape[1] == 4 else _quats_v2(rotation)
    means = _positions(position, bits)
    if turned:
        means *= _TURN
        quats[:, 2:] *= -1
        sh *= turn_signs(k)[:, None]
    return Splats(
        means=means,
        quats_wxyz=quats,
        log_scales=(scale / 16.0 - 10).astype(np.float32),
        logit_opacities=logits_from_bytes(alpha[:, 0]),
        sh=sh,
    )


def packed(splats: Splats, k: int, bits: int, fine: int) -> Iterator[Iterator[bytes]]:
    """The six attributes, turned to right, up, back; each in blocks to keep the memory small.

    Args:
        splats: What to pack, in the PLY's frame.
        k: Coefficients kept.
        bits: Fraction bits of the positions.
        fine: Bits of the harmonics of degree 2 and more, 4 or 5 of 8; degree 1 has 5.
    """
    signs = turn_signs(k)[1:, None]
    step = np.where(np.arange(1, k) < 4, 8, 1 << (8 - fine))[:, None]

    def position(rows: slice) -> NDArray[np.uint8]:
        exact = splats.means[rows].astype(np.float64) * _TURN * 2.0**bits
        fixed = np.copysign(np.floor(np.abs(exact) + 0.5), exact)  # halves away from 0, as C does
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

    def blocks(attribute: Callable[[slice], NDArray[Any]]) -> Iterator[bytes]:
        for start in range(0, len(splats.means), _BLOCK):
            yield attribute(slice(start, start + _BLOCK)).tobytes()

    for attribute in attributes:
        yield blocks(attribute)


def _smallest_three(quats: NDArray[np.float64]) -> NDArray[np.uint32]:
    xyzw = np.roll(quats, -1, axis=1).astype(np.float32)  # the reference encoder's precision
    largest = np.abs(xyzw).argmax(1)
    negate = xyzw[np.arange(len(xyzw)), largest] < 0
    code = largest.astype(np.uint32)
    for i in range(4):
        mag = np.floor(_MASK * (np.abs(xyzw[:, i]) / np.float32(_HALF_ROOT)) + np.float32(0.5))
        sign = ((xyzw[:, i] < 0) ^ negate).astype(np.uint32)
        word = (sign << 9) | np.minimum(mag, _MASK).astype(np.uint32)
        code = np.where(largest != i, (code << 10) | word, code)
    return code.astype("<u4")


def fraction_bits(means: NDArray[np.float32], path: Path) -> int:
    """Most fraction bits (at most 12) that all positions fit in 24 bits with.

    Raises:
        InputError: If a position is not finite, or fits with none.
    """
    reach = float(np.abs(means).max(initial=0))
    if not reach < 2**23 - 1:
        raise InputError(
            f"cannot write {path}: a position of {reach:.3g} units, expected finite ones below "
            "8.4 million in SPZ; scale or centre the scene, or write .ply"
        )
    return next(bits for bits in range(_BITS, -1, -1) if round(reach * 2**bits) < 2**23)


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
