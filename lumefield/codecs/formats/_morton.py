"""Order along a space-filling curve: neighbours in space become neighbours in the file."""

import numpy as np
from numpy.typing import NDArray

_BITS = 16


def morton_order(means: NDArray[np.float32]) -> NDArray[np.int64]:
    """Indices (N,) that sort points (N, 3) by their Morton code in their own bounding box."""
    if not len(means):
        return np.zeros(0, np.int64)
    low, high = means.min(0).astype(np.float64), means.max(0).astype(np.float64)
    cells = (means - low) / np.maximum(high - low, 1e-300) * (2**_BITS - 1)
    code = np.zeros(len(means), np.uint64)
    for axis in range(3):
        code |= _spread(cells[:, axis].astype(np.uint64)) << np.uint64(axis)
    return np.argsort(code, kind="stable")


def _spread(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Two zero bits after each of 16 bits."""
    steps = ((16, 0x0000_00FF_0000_FFFF), (8, 0x00F0_0F00_F00F), (4, 0x0C30_C30C_30C3))
    for shift, mask in (*steps, (2, 0x2492_4924_9249)):
        x = (x | (x << np.uint64(shift))) & np.uint64(mask)
    return x
