"""Sizes of the latent pyramid and the order in which its latents are coded.

Latent (r, c) of a level is decoded in step t = c + 3 r: all that its context needs (two rows above,
two columns to the right) belongs to earlier steps, so the latents of a step are independent of each
other (wavefront). At most min(rows, ceil(columns / 3)) rows are active in a step, so row r can
live in slot ``r mod slots``; inside a step the latents are coded in the order of their slots, and
slot m belongs to coder lane ``m mod lanes``. The number of slots is rounded up to lanes times 1, 2,
3, 4, 6, 8, 12 ...: few values, so that compiled decoders are reused.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.neural._model import MAX_LEVELS

STEPS_PER_ROW = 3
MAX_SIDE = (1 << 16) - 1
MAX_SAMPLES = 1 << 28
MAX_LANES = 1 << 10


class Level(NamedTuple):
    """One level of the pyramid."""

    rows: int
    columns: int
    slots: int

    @property
    def steps(self) -> int:
        """Number of wavefront steps."""
        return self.columns + STEPS_PER_ROW * (self.rows - 1)


class Places(NamedTuple):
    """Where the slots of some steps are in the picture. Arrays are (steps, slots)."""

    row: NDArray[np.int32]
    column: NDArray[np.int32]
    active: NDArray[np.bool_]
    """Whether there is a latent; row and column are out of range where not."""


def level_sizes(rows: int, columns: int, levels: int) -> tuple[tuple[int, int], ...]:
    """(rows, columns) of each level of a picture, finest first."""
    return tuple((-(-rows // 2**i), -(-columns // 2**i)) for i in range(levels))


def levels_for(rows: int, columns: int) -> int:
    """Levels worth having: until one cell covers the picture, at most 7."""
    return min(MAX_LEVELS, 1 + int(max(rows, columns) - 1).bit_length())


def pyramid(rows: int, columns: int, levels: int, lanes: int) -> tuple[Level, ...]:
    """The levels of a picture, finest first."""
    return tuple(Level(h, w, _slots(h, w, lanes)) for h, w in level_sizes(rows, columns, levels))


def _slots(rows: int, columns: int, lanes: int) -> int:
    need = min(rows, -(-columns // STEPS_PER_ROW))
    times = 1
    while times * lanes < need:  # 1 2 3 4 6 8 12 16 24 ...
        times += 1 << max(0, times.bit_length() - 2)
    return times * lanes


def places(level: Level, first: int, count: int) -> Places:
    """Row, column and presence of the latents of steps ``first`` ... ``first + count - 1``."""
    step = np.arange(first, first + count, dtype=np.int32)[:, None]
    slot = np.arange(level.slots, dtype=np.int32)
    newest = np.minimum(step // STEPS_PER_ROW, level.rows - 1)
    row = slot + level.slots * ((newest - slot) // level.slots)
    column = step - STEPS_PER_ROW * row
    active = (row >= 0) & (column < level.columns)
    return Places(row, column, active)
