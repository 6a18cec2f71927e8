"""Float arrays as blocks of integers, each number at the integer that costs least.

An array is one row of numbers, channels first where it has four axes (feature planes: neighbours in
the row are neighbours in space), cut into blocks of 4096. Each block has its own step 2^-s and
distribution, because levels of a grid, channels and empty regions differ, and maybe holds
differences. What an error in a number costs is known, so a number goes to the integer q of least
cost (value - q 2^-s)^2 + price bits(q): rate-distortion optimised quantisation. What no ray meets
costs nothing and becomes zero.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.families._ops import MAX_BITS, MAX_WEIGHT, Whole
from lumefield.codecs.families._tensors import bits_of, code_of

BLOCK = 4096
_ROUNDS = 2
"""Choices of all integers under the distribution of those before."""
_NEAR = (-1, 0, 1)
"""Steps to try: octaves from the one that is best where integers are many."""
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


class Block(NamedTuple):
    """Numbers with one step."""

    whole: Whole
    """As they are coded."""
    differs: bool
    """Whether each is the difference to the one before."""

    def floats(self) -> Floats:
        """The numbers that it stands for."""
        values = np.cumsum(self.whole.values) if self.differs else self.whole.values
        return (values * 2.0**-self.whole.bits).astype(np.float32)


class _Trial(NamedTuple):
    cost: float
    """Squared error, and bits at their price."""
    block: Block


def to_rows(array: Floats) -> Floats:
    """All numbers in the order that they are coded in."""
    return (np.moveaxis(array, -1, 1) if array.ndim == 4 else array).reshape(-1)


def from_rows(parts: list[Floats], shape: tuple[int, ...]) -> Floats:
    """The inverse of :func:`to_rows`, of an array in parts."""
    flat = np.concatenate([np.zeros(0, np.float32), *parts])
    if len(shape) != 4:
        return flat.reshape(shape)
    first = np.moveaxis(np.empty(shape, np.bool_), -1, 1).shape
    return np.ascontiguousarray(np.moveaxis(flat.reshape(first), 1, -1))


def sizes_of(count: int) -> list[int]:
    """Numbers in each block of an array."""
    return [min(BLOCK, count - first) for first in range(0, count, BLOCK)]


def quantised(values: Floats, costs: Floats, price: float) -> list[Block]:
    """Blocks of least cost and bits.

    Args:
        values: Numbers.
        costs: Squared error that a squared error of each makes, >= 0.
        price: Squared error that one bit is worth.

    Raises:
        ValueError: If a number is too large for any step.
    """
    found, first = list[Block](), 0
    for size in sizes_of(len(values)):
        part = slice(first, first + size)
        found.append(_block(values[part].astype(np.float64), costs[part].astype(np.float64), price))
        first += size
    return found


def _block(value: Doubles, cost: Doubles, price: float) -> Block:
    most = float(np.abs(value).max())
    if most > MAX_WEIGHT:
        raise ValueError(f"a number of {most:g}, expected at most {MAX_WEIGHT}")
    mean = float(cost.mean())
    trials = [_Trial(float((cost * value**2).sum()) + price, _zeros(len(value)))]
    if mean <= 0 or not most:
        return trials[0].block
    # Where integers are many, cost 2^-2s / 12 falls by 2 ln 2 of itself per bit.
    ideal = 0.5 * math.log2(mean * math.log(2) / (6 * price))
    finest = min(MAX_BITS, math.floor(math.log2(MAX_WEIGHT / most)))
    for fraction in sorted({min(max(round(ideal) + k, 0), finest) for k in _NEAR}):
        trials += [
            _chosen(value, cost, price, fraction),
            _differences(value, cost, price, fraction),
        ]
    return min(trials, key=lambda trial: trial.cost).block


def _zeros(count: int) -> Block:
    return Block(Whole(np.zeros(count), 0), False)


def _chosen(value: Doubles, cost: Doubles, price: float, fraction: int) -> _Trial:
    """Every number at its best integer: the nearest, the one before it, or zero."""
    scaled = value * 2.0**fraction
    near = np.rint(scaled)
    options = np.stack([near, near - np.sign(near), np.zeros_like(near)])
    errors = cost * ((scaled - options) * 2.0**-fraction) ** 2
    q = near
    for _ in range(_ROUNDS):
        code = code_of(q.astype(np.int64))
        if code.plain:
            break
        total = errors + price * bits_of(options.astype(np.int64), code)
        q = np.take_along_axis(options, total.argmin(0)[None], 0)[0]
    return _trial(scaled, q, cost, price, fraction, differs=False)


def _differences(value: Doubles, cost: Doubles, price: float, fraction: int) -> _Trial:
    scaled = value * 2.0**fraction
    return _trial(scaled, np.rint(scaled), cost, price, fraction, differs=True)


def _trial(
    scaled: Doubles, q: Doubles, cost: Doubles, price: float, fraction: int, *, differs: bool
) -> _Trial:
    coded = np.diff(q, prepend=0.0) if differs else q
    if np.abs(coded).max(initial=0) > MAX_WEIGHT:
        return _Trial(math.inf, _zeros(len(q)))
    bits = code_of(coded.astype(np.int64)).bits
    error = float((cost * ((scaled - q) * 2.0**-fraction) ** 2).sum())
    return _Trial(error + price * bits, Block(Whole(coded, fraction), differs))
