"""Runs of symbols with known frequencies, through all lanes of the coder in turn.

A *run* is symbols that are decoded together, none of whose frequencies depends on another of them:
a channel of some Gaussians, the weights of a layer. Its i-th symbol is on lane i modulo lanes.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.neural._bits import BitWriter
from lumefield.codecs.neural._rans import Decoder, encode, loaded_states
from lumefield.errors import FormatError

Ints = NDArray[np.int64]
_START = 3 << 23
"""First state of a trial run: the middle of an octave."""


class Symbols:
    """Symbols in the order of decoding, with their frequencies: what the coder encodes."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self._starts, self._sizes = list[Ints](), list[Ints]()

    def put(self, starts: Ints, sizes: Ints) -> None:
        """One run of symbols that are decoded together."""
        self._starts.append(starts)
        self._sizes.append(sizes)

    def coded(self, payload: NDArray[np.uint8]) -> tuple[Any, NDArray[np.uint8], int]:
        """States, bytes, and how many bits of the payload the states carry."""
        lanes = self.lanes
        lane, borders, at = list[Ints](), [np.zeros(1, np.int64)], 0
        for run in self._starts:
            lane.append(np.arange(len(run)) % lanes)
            borders.append(np.minimum(np.arange(lanes, len(run) + lanes, lanes), len(run)) + at)
            at += len(run)
        starts, sizes = (
            np.concatenate([np.zeros(0, np.int64), *part]).astype(np.uint64)
            for part in (self._starts, self._sizes)
        )
        lane = np.concatenate([np.zeros(0, np.int64), *lane])
        groups = np.unique(np.concatenate(borders))
        ends, _ = encode(starts, sizes, lane, groups, np.full(lanes, _START, np.uint64))
        first, carried = loaded_states(payload, ends, _START)
        states, code = encode(starts, sizes, lane, groups, first)
        return states, code, carried


def decode_run(decoder: Decoder, tables: NDArray[np.int32], rows: Ints) -> Ints:
    """Decode one symbol per row of a table, lane after lane."""
    lanes, found = len(decoder.states), np.zeros(len(rows), np.int64)
    for first in range(0, len(rows), lanes):
        part = rows[first : first + lanes]
        found[first : first + lanes] = decoder.choose(tables[part], np.arange(len(part)))
    return found


def decode_alike(decoder: Decoder, table: NDArray[np.int32], count: int) -> Ints:
    """Decode symbols that all have one row of a table, lane after lane."""
    lanes, found = len(decoder.states), np.zeros(count, np.int64)
    for first in range(0, count, lanes):
        size = min(lanes, count - first)
        found[first : first + size] = decoder.choose(table, np.arange(size))
    return found


def unfolded(excess: Ints) -> Ints:
    """Numbers >= 0 as the signed numbers of Exp-Golomb: 0 -1 1 -2 ..."""
    return np.where(excess & 1, -(excess + 1) // 2, excess // 2)


def folded(signed: Ints) -> Ints:
    """The inverse of :func:`unfolded`."""
    return np.where(signed < 0, -2 * signed - 1, 2 * signed)


def packed(values: Ints, widths: Ints) -> NDArray[np.uint8]:
    """Numbers >= 0 as bits, so many of each."""
    writer = BitWriter()
    writer.put(values, widths)
    return writer.bits()


def unpacked(bits: NDArray[np.uint8], widths: Ints) -> Ints:
    """The inverse of :func:`packed`.

    Raises:
        FormatError: If the bits end before.
    """
    ends = np.cumsum(widths)
    if len(ends) and ends[-1] > len(bits):
        raise FormatError("ends inside the plain bits; the file is cut off or damaged")
    first, found = ends - widths, np.zeros(len(widths), np.int64)
    for k in range(int(widths.max(initial=0))):
        more = widths > k
        found[more] = 2 * found[more] + bits[(first + k)[more]]
    return found
