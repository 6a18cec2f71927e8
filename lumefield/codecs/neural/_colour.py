"""Planes to pixels: side by side, or Y'CbCr of 4:2:0 to RGB, in integers."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.neural._container import Picture
from lumefield.codecs.neural._decoders import Planes
from lumefield.errors import FormatError

_BITS = 16
_LUMA = {1: (0.2126, 0.0722), 2: (0.299, 0.114), 5: (0.299, 0.114), 6: (0.299, 0.114)}
"""Shares of red and blue in the luma by H.273 matrix coefficients; not said: as BT.601."""


def pixels_of(planes: Planes, picture: Picture) -> NDArray[np.unsignedinteger[Any]]:
    """(H, W, C) pixels of a picture's planes, display RGB where it is 4:2:0.

    Chroma is doubled bilinearly, its samples being in the middle of 2 x 2 pixels. Integers
    throughout, so pixels are the same on every machine.

    Args:
        planes: As decoded.
        picture: The header.

    Raises:
        FormatError: If the header has matrix coefficients of another kind.
    """
    if not picture.subsampled:
        return np.stack(planes, -1)
    if picture.colour[2] not in _LUMA:
        raise FormatError(
            f"has matrix coefficients {picture.colour[2]}, expected one of {sorted(_LUMA)}; "
            "decompress it to .y4m"
        )
    luma, *chroma = (np.asarray(p, np.int64) for p in planes)
    luma, white = luma << 4, (1 << picture.bits) - 1
    chroma = [_doubled(_doubled(c, 0)[: picture.rows], 1)[:, : picture.columns] for c in chroma]
    unit = 1 << (picture.bits - 8)
    grey, floor = 128 * unit, 0 if picture.full_range else 16 * unit
    steps = (white, white) if picture.full_range else (219 * unit, 224 * unit)
    values = (luma - (floor << 4), *(c - (grey << 4) for c in chroma))
    rows = [
        sum(round(factor * white / step * (1 << _BITS)) * v for factor, step, v in row)
        for row in _rows(picture.colour[2], steps, values)
    ]
    half = 1 << (_BITS + 3)
    rgb = np.clip((np.stack(rows, -1) + half) >> (_BITS + 4), 0, white)
    return rgb.astype(planes[0].dtype)


def _rows(matrix: int, steps: tuple[int, int], values: Any) -> Any:  # noqa: ANN401
    """For red, green and blue: (factor, full range of the plane, values) of each plane it takes."""
    red, blue = _LUMA[matrix]
    green = 1 - red - blue
    y, cb, cr = ((step, v) for step, v in zip((steps[0], steps[1], steps[1]), values, strict=True))
    to_blue, to_red = 2 * (1 - blue), 2 * (1 - red)
    return (
        ((1.0, *y), (to_red, *cr)),
        ((1.0, *y), (-to_blue * blue / green, *cb), (-to_red * red / green, *cr)),
        ((1.0, *y), (to_blue, *cb)),
    )


def _doubled(x: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
    """Twice as long, four times the value: three parts of the nearest and one of the next."""
    n = x.shape[axis]
    at = np.arange(2 * n)
    beside = np.clip(at // 2 + np.where(at % 2, 1, -1), 0, n - 1)
    return 3 * np.take(x, at // 2, axis) + np.take(x, beside, axis)
