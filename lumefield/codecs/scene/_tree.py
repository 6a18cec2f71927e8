"""Where Gaussians are: the number of them in every box of a tree of halved boxes.

A cube is halved along x, y, z in turn, ``3 depth`` times, down to cells; of the n Gaussians in a
box, k lie in its lower half. A box of one costs a bit (k = 1 - bit). For 2 <= n <= 15 the table of
n holds how often each k comes; for more, one of 18 symbols says "none", "all" or which sixteenth,
and plain bits which k within it. Tables are symmetric, and there are two for each n: whether the
box is one half of a box whose other half is empty, or not, because empty halves come in rows.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.neural._bits import BitReader, BitWriter
from lumefield.codecs.neural._laplace import PRECISION

Ints = NDArray[np.int64]
MAX_DEPTH = 20
PARTS = 16
_LARGE = PARTS
"""Boxes of so many or more share a table."""
TABLES = 2 * (_LARGE - 1)
"""Table 2 (min(n, 16) - 2) + alone."""
_WEIGHTS = (1.0, 1.189207115002721, 1.4142135623730951, 1.681792830507429)
"""2^(k / 4)."""
_CODES = 64


class Split(NamedTuple):
    """One halving of all boxes of a level."""

    counts: Ints
    """(boxes,) Gaussians in each."""
    alone: NDArray[np.bool_]
    """Whether its sibling is empty."""
    lower: Ints
    """(boxes,) Gaussians in the lower half."""


Fill = Callable[[Ints, NDArray[np.bool_]], Ints]
"""(counts, alone) of all boxes of a level -> Gaussians in the lower halves."""


def grow(count: int, depth: int, fill: Fill) -> Ints:
    """(N, 3) cells in Morton order, from what ``fill`` says of every level.

    Args:
        count: N.
        depth: Levels per axis.
        fill: Decodes one level.
    """
    counts, alone = np.full(min(count, 1), count, np.int64), np.zeros(min(count, 1), np.bool_)
    code = np.zeros(min(count, 1), np.int64)
    for _ in range(3 * depth):
        lower = fill(counts, alone)
        both = np.stack([lower, counts - lower], 1)
        empty = np.repeat((both == 0).any(1), 2)
        counts, code = both.ravel(), np.stack([2 * code, 2 * code + 1], 1).ravel()
        kept = counts > 0
        counts, alone, code = counts[kept], empty[kept], code[kept]
    return _unwoven(np.repeat(code, counts), depth)


def splits(cells: Ints, depth: int) -> list[Split]:
    """All levels of the tree of cells (N, 3), which lie in Morton order."""
    code = woven(cells, depth)
    found = list[Split]()

    def fill(counts: Ints, alone: NDArray[np.bool_]) -> Ints:
        bit = code >> (3 * depth - 1 - len(found)) & 1
        first = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
        lower = counts - np.add.reduceat(bit, first) if len(counts) else counts
        found.append(Split(counts, alone, lower))
        return lower

    grow(len(cells), depth, fill)
    return found


def woven(cells: Ints, depth: int) -> Ints:
    """Morton codes (N,), x in the highest bit of three."""
    code = np.zeros(len(cells), np.int64)
    for level in range(depth):
        for axis in range(3):
            bit = cells[:, axis] >> (depth - 1 - level) & 1
            code = 2 * code + bit
    return code


def _unwoven(code: Ints, depth: int) -> Ints:
    cells = np.zeros((len(code), 3), np.int64)
    for level in range(depth):
        for axis in range(3):
            cells[:, axis] |= (code >> (3 * level + 2 - axis) & 1) << level
    return cells


def table_of(counts: Ints, alone: NDArray[np.bool_]) -> Ints:
    """Which table codes a box of at least two."""
    return 2 * (np.minimum(counts, _LARGE) - 2) + alone


def symbols_of(counts: Ints, lower: Ints) -> Ints:
    """Symbols of k for boxes of at least two."""
    part = 1 + lower * PARTS // (counts + 1)
    large = np.where(lower == 0, 0, np.where(lower == counts, PARTS + 1, part))
    return np.where(counts < _LARGE, lower, large)


def ranges(counts: Ints, symbols: Ints) -> tuple[Ints, Ints]:
    """Smallest and largest k that a symbol of a large box stands for."""
    low = -(-(symbols - 1) * (counts + 1) // PARTS)
    high = -(-symbols * (counts + 1) // PARTS) - 1
    low = np.where(symbols == 0, 0, np.where(symbols == PARTS + 1, counts, np.maximum(low, 1)))
    high = np.where(symbols == 0, 0, np.where(symbols == PARTS + 1, counts, high))
    return low, np.maximum(np.minimum(high, counts), low)


def spare_bits(low: Ints, high: Ints) -> Ints:
    """Plain bits that tell k in [low, high]."""
    gap = high - low
    return np.where(gap > 0, np.frexp(np.maximum(gap, 1).astype(np.float64))[1], 0).astype(np.int64)


def write_tables(writer: BitWriter, levels: list[Split]) -> NDArray[np.int32]:
    """Append the tables of a tree; returns what the decoder reads.

    A weight is 2^(code / 4), 6 bits of code each, only the first half of every table.
    """
    seen = np.full((TABLES, PARTS + 2), 0.25)
    for split in levels:
        many = split.counts > 1
        table = table_of(split.counts[many], split.alone[many])
        symbol = symbols_of(split.counts[many], split.lower[many])
        np.add.at(seen, (table, symbol), 1)
    codes = list[int]()
    for table in range(TABLES):
        size = _symbols(table)
        both = seen[table, :size] + seen[table, size - 1 :: -1][:size]
        code = np.rint(4 * np.log2(both / both.min())).astype(int)
        half = np.clip(code, 0, _CODES - 1)[: (size + 1) // 2]
        codes += half.tolist()
    writer.put(np.array(codes), 6)
    return _expanded(np.array(codes))


def read_tables(reader: BitReader) -> NDArray[np.int32]:
    """Sums of the frequencies before every symbol, (tables, 20); 2^16 from the end on."""
    sizes = sum((_symbols(table) + 1) // 2 for table in range(TABLES))
    return _expanded(np.array([reader.take(6) for _ in range(sizes)]))


def _symbols(table: int) -> int:
    n = table // 2 + 2
    return n + 1 if n < _LARGE else PARTS + 2


def _expanded(codes: Ints) -> NDArray[np.int32]:
    found, at = np.full((TABLES, PARTS + 4), 1 << PRECISION, np.int32), 0
    for table in range(TABLES):
        size = _symbols(table)
        half = codes[at : at + (size + 1) // 2]
        at += len(half)
        weights = np.array([_WEIGHTS[c % 4] * 2.0 ** (c // 4) for c in half.tolist()])
        weights = np.concatenate([weights, weights[: size // 2][::-1]])
        below, total = 0.0, float(sum(weights.tolist()))
        for symbol in range(size):
            share = below / total * ((1 << PRECISION) - size)
            found[table, symbol] = symbol + int(np.floor(share + 0.5))
            below += float(weights[symbol])
    return found
