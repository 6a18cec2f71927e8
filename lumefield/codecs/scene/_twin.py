"""The decoder again, one number at a time in Python's own integers: slow, and easy to read.

It shares with the fast decoder what is not arithmetic: the layout of the chunk and the tables.
"""

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.neural._laplace import MEANS, cumulative
from lumefield.codecs.neural._rans import LOW
from lumefield.codecs.scene._model import (
    BINS,
    FRACTION,
    LIMIT,
    MOST_CLASS,
    MOST_SHIFT,
    SLOPES,
    SPREAD_FRACTION,
    GroupModel,
    SceneModel,
    groups_of,
)

_LOG2E = 1.4426950408889634


class OneByOne:
    """Coder lanes as a list of integers; what ``_rans.Decoder`` is, symbol by symbol."""

    def __init__(self, states: NDArray[np.uint32], code: NDArray[np.uint8]) -> None:
        self.states, self.taken = [int(s) for s in states], 0
        self._code = code.tobytes()

    def symbol(self, lane: int, sums: list[int]) -> int:
        """The symbol of one lane, by the sums of frequencies before each symbol."""
        state = self.states[lane]
        low = state & 0xFFFF
        index = max(k for k, start in enumerate(sums) if start <= low)
        state = (sums[index + 1] - sums[index]) * (state >> 16) + low - sums[index]
        while state < 1 << LOW:
            byte = self._code[self.taken] if self.taken < len(self._code) else 0
            state, self.taken = state << 8 | byte, self.taken + 1
        self.states[lane] = state
        return index


def values_of(
    model: SceneModel, cells: list[tuple[int, int, int]], symbols: OneByOne, excess: list[int]
) -> list[list[int]]:
    """All values of a scene, Gaussian by Gaussian within each channel of a stride.

    Args:
        model: Its parameters.
        cells: Of all Gaussians, in Morton order.
        symbols: The coder after the tree of cells.
        excess: Of symbols at the end of a table's row, in coding order, as numbers >= 0.
    """
    groups, count, left = groups_of(model.degree), len(cells), list(excess)
    values = [[0] * groups[-1].stop for _ in cells]
    rows = cumulative()[:, MEANS // 2]
    lanes = len(symbols.states)
    targets_of = [(0, [0])] if count else []
    for m in reversed(range(max(count - 1, 0).bit_length())):
        targets_of.append((1 << m, list(range(1 << m, count, 2 << m))))
    for stride, targets in targets_of:
        near = {i: _near(i, stride, cells) for i in targets}

        def known(j: int, channel: int, first: bool = not stride) -> int:
            return 0 if first else values[j][channel]  # the first is its own neighbour

        for group, part in zip(groups, model.groups, strict=True):
            shifts = {i: _shift(part, values[i], model) for i in targets}
            for channel in range(group.first, group.stop):
                for k, i in enumerate(targets):
                    about = [known(j, channel) for j in near[i]]
                    apart = [
                        values[i][c] - (sum(known(j, c) for j in near[i]) >> 2)
                        if c < channel
                        else 0
                        for c in group.inner[channel - group.first]
                    ]
                    scale = part.scales[_bin(part, about, apart, shifts[i])]
                    sums = rows[scale].tolist()
                    q = symbols.symbol(k % lanes, sums) - 127
                    if abs(q) == sum(a != b for a, b in itertools.pairwise(sums)) // 2:
                        q += int(math.copysign(left.pop(0), q))
                    value = _guess(part, about, apart) + (q << shifts[i])
                    low, high = (-LIMIT, LIMIT) if channel else (0, MOST_CLASS)
                    values[i][channel] = min(max(value, low), high)
    return values


def _near(i: int, stride: int, cells: list[tuple[int, int, int]]) -> list[int]:
    """The four neighbours, nearest first; of equally near ones the earlier candidate."""
    tried = [i + step * stride for step in (-1, 1, -3, 3, -5, 5)]
    tried = [j if 0 <= j < len(cells) else i - stride for j in tried]
    far = [sum((a - b) ** 2 for a, b in zip(cells[j], cells[i], strict=True)) for j in tried]
    return [tried[k] for k in sorted(range(6), key=lambda k: far[k])[:4]]


def _guess(part: GroupModel, about: list[int], apart: list[int]) -> int:
    weighed = zip((*part.near, *part.inner), (*about, *apart), strict=True)
    total = sum(w * v for w, v in weighed) + (part.offset << FRACTION)
    return min(max(total + (1 << FRACTION - 1) >> FRACTION, -LIMIT), LIMIT)


def _bin(part: GroupModel, about: list[int], apart: list[int], shift: int) -> int:
    mean = sum(about) >> 2
    spread = sum(abs(v - mean) for v in about) >> 2
    size = sum(abs(v) for v in apart) >> 1
    a, b, c, d = part.spread
    total = (a << shift) + b + c * spread + d * size
    return sum(edge <= total >> (SPREAD_FRACTION - 4 + shift) for edge in BINS)


def _shift(part: GroupModel, value: list[int], model: SceneModel) -> int:
    units = [group.size() for group in model.groups]
    facts = [float(value[0]), value[1] * units[1]]
    facts += [value[k] * units[k] * _LOG2E for k in (2, 3, 4)]
    total = part.slopes[SLOPES] / 32.0
    for slope, fact in zip(part.slopes[:SLOPES], facts, strict=True):
        total = total + (slope / 32.0) * fact
    return min(max(math.floor(min(max(total, -99.0), 99.0) + 0.5), 0), MOST_SHIFT)
