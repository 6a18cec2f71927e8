"""Motion of inter frames: latents to displacements, and the exact prediction from decoded pictures.

A frame has five planes of motion: displacement s (x, y) towards its first reference, what is added
to ``ratio`` times s for the second one (x, y), and the share of the first in the blend. Each is a
pyramid of latents whose finest level has a cell per 8 x 8 pixels; levels are doubled bilinearly and
added. Displacements are in sixteenths of a pixel. Values of pictures have full range 4096 here.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.neural._context import rshift
from lumefield.codecs.neural._model import MAX_UPSAMPLED

MOTION_LEVELS = 4
CELL_BITS = 3
"""log2 of the pixels that a cell of the finest level is wide."""
PLANES = 5
KINDS = (0, 0, 1, 1, 2)
"""Displacement, difference of the second, blend: what units and statistics a plane has."""
N_KINDS = 3
PHASES = 16
FRACTION = 4
"""Fractional bits of displacements (sixteenths) and blends (1/256) before they are rounded."""
RATIO_BITS = 8
MAX_RATIO = 2047
PAD = 16
REACH = 8
"""Cells beyond the edge of a picture that are told apart."""
PICTURE_BITS = 12
_HALF = (
    (0, 0, 0, 128, 0, 0, 0, 0),
    (-1, 3, -7, 127, 8, -3, 1, 0),
    (-2, 6, -13, 125, 17, -7, 3, -1),
    (-3, 8, -18, 121, 27, -10, 4, -1),
    (-4, 9, -21, 116, 38, -14, 6, -2),
    (-4, 10, -23, 109, 48, -17, 8, -3),
    (-4, 11, -25, 101, 59, -20, 9, -3),
    (-4, 11, -25, 91, 71, -22, 10, -4),
    (-4, 11, -24, 81, 81, -24, 11, -4),
)
TAPS = np.array([*_HALF, *(row[::-1] for row in _HALF[7:0:-1])], np.int32)
"""(16, 8) interpolation at each sixteenth between cell 3 and cell 4: sinc under a cosine, sums 128.

As HEVC's filters (Ugur et al. 2013), but for all sixteenths."""

Ints = NDArray[np.integer[Any]]


def motion_sizes(rows: int, columns: int) -> tuple[tuple[int, int], ...]:
    """(rows, columns) of the levels of motion, finest first."""
    shifts = range(CELL_BITS, CELL_BITS + MOTION_LEVELS)
    return tuple((-(-rows // 2**k), -(-columns // 2**k)) for k in shifts)


def motion_planes(
    motion: list[list[NDArray[np.int8]]], units: Ints, size: tuple[int, int]
) -> NDArray[np.int64]:
    """(5, h, w) sums of the levels at the size of the picture, with 4 fractional bits.

    Args:
        motion: Five pyramids of latents, finest first.
        units: (3, 4) value of a latent of 1 by kind and level, 4 fractional bits.
        size: Rows and columns.
    """
    planes = cell_planes(motion, units)
    for k in reversed(range(CELL_BITS)):
        planes = doubled(planes, (-(-size[0] // 2**k), -(-size[1] // 2**k)))
    return planes


def cell_planes(motion: list[list[NDArray[np.int8]]], units: Ints) -> NDArray[np.int64]:
    """(5, h / 8, w / 8) sums of the levels at the size of the finest."""
    total = np.zeros((PLANES, *motion[0][-1].shape), np.int64)
    for i in reversed(range(MOTION_LEVELS)):
        levels = np.stack([plane[i] for plane in motion]).astype(np.int64)
        if i < MOTION_LEVELS - 1:
            total = doubled(total, levels.shape[1:])
        total = total + levels * units[list(KINDS), i].astype(np.int64)[:, None, None]
        total = np.clip(total, -MAX_UPSAMPLED, MAX_UPSAMPLED)
    return total


def doubled(planes: NDArray[np.int64], size: tuple[int, ...]) -> NDArray[np.int64]:
    """(k, h, w) planes at twice the size, cut to ``size``: bilinear, edges repeated."""
    for axis in (2, 1):
        n = planes.shape[axis]
        at = np.arange(size[axis - 1])
        beside = np.clip(at // 2 + np.where(at % 2, 1, -1), 0, n - 1)
        near, far = np.take(planes, at // 2, axis), np.take(planes, beside, axis)
        planes = rshift(3 * near + far, 2)
    return planes


def flows(planes: NDArray[np.int64], ratio: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Displacements (4, h, w) in sixteenths, share (h, w) of the first reference in 1/256."""
    other = np.clip(
        rshift(planes[:2] * ratio, RATIO_BITS) + planes[2:4], -MAX_UPSAMPLED, MAX_UPSAMPLED
    )
    both = rshift(np.concatenate([planes[:2], other]), FRACTION)
    return both, np.clip(128 + rshift(planes[4], FRACTION), 0, 256)


def reference(planes: tuple[NDArray[Any], ...], bits: int) -> NDArray[np.int32]:
    """(c, h + 32, w + 32) a decoded picture as predictions read it, full range 4096.

    Args:
        planes: Its planes; chroma of 4:2:0 is repeated.
        bits: Bits per sample.
    """
    h, w = planes[0].shape
    white = (1 << bits) - 1
    whole = [p if p.shape == (h, w) else p.repeat(2, 0).repeat(2, 1)[:h, :w] for p in planes]
    scaled = (np.stack(whole).astype(np.int64) * (1 << PICTURE_BITS) + white // 2) // white
    return np.pad(scaled, ((0, 0), (PAD, PAD), (PAD, PAD)), "edge").astype(np.int32)


def predicted(
    first: Ints, second: Ints, moved: NDArray[np.int64], share: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(c, h, w) blend of two displaced references (:func:`reference`), given :func:`flows`."""
    a, b = warped(first, moved[:2]), warped(second, moved[2:])
    return rshift(share * a + (256 - share) * b, 8)


def warped(picture: Ints, moved: NDArray[np.int64]) -> NDArray[np.int64]:
    """(c, h, w) a reference read at displaced places, 8 x 8 taps; slow.

    Args:
        picture: (c, h + 32, w + 32).
        moved: (2, h, w) x, y in sixteenths.
    """
    h, w = moved.shape[1:]
    cells, phases = list[NDArray[np.int64]](), list[NDArray[np.int64]]()
    for axis, size in enumerate((w, h)):
        line = np.arange(size)[None, :] if axis == 0 else np.arange(size)[:, None]
        at = np.clip(line * PHASES + moved[axis], -REACH * PHASES, (size - 1 + REACH) * PHASES)
        cells.append((at >> 4) + PAD - 3)
        phases.append(at & 15)
    (column, row), (px, py) = cells, phases
    total = np.zeros((len(picture), h, w), np.int64)
    for i in range(TAPS.shape[1]):
        for j in range(TAPS.shape[1]):
            taps = TAPS[py, i].astype(np.int64) * TAPS[px, j]
            total += taps * picture[:, row + i, column + j]
    assert np.abs(total).max(initial=0) < 1 << 31, "bounds of the filters are broken"
    return rshift(total, 14)
