"""Float parameters to the integers of the file: steps of least distortion for a number of bits.

Every tensor has one step, a power of two. The distortion that rounding a tensor adds is measured on
some pixels, tensor by tensor (errors of different tensors are taken to be independent, so theirs
add up); its bits are those of the entropy coder. Then each tensor takes the step of least
distortion + exchange rate times bits, and the exchange rate is that at which the bits fit (Shoham
and Gersho, "Efficient bit allocation for an arbitrary set of quantizers", 1988).

Letters: s fractional bits of a tensor.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.families._ops import MAX_BITS, MAX_WEIGHT, Whole
from lumefield.codecs.families._tensors import code_of

_FINEST = 10
"""Bits of a standard deviation, at most."""
_SMALL = 2e-3
"""Share of the whole distortion below which that of finer steps is extrapolated: a quarter each."""


class Choice(NamedTuple):
    """A step of a tensor."""

    fraction: int
    """s."""
    bits: float
    error: float
    """Squared error that it adds."""


Choices = dict[str, list[Choice]]
"""By tensor, coarsest first."""


def rounded(value: NDArray[np.float32], fraction: int) -> Whole:
    """A tensor in multiples of 2^-s."""
    q = np.clip(np.rint(value.astype(np.float64) * 2.0**fraction), -MAX_WEIGHT, MAX_WEIGHT)
    return Whole(q, fraction)


def choices_of(
    tensors: Mapping[str, NDArray[np.float32]], error_of: Callable[[dict[str, Any]], float]
) -> Choices:
    """What each tensor could cost and add."""
    start = error_of(dict(tensors))
    return {name: _choices(name, tensors, error_of, start) for name in tensors}


def _choices(
    name: str,
    tensors: Mapping[str, NDArray[np.float32]],
    error_of: Callable[[dict[str, Any]], float],
    start: float,
) -> list[Choice]:
    value = tensors[name]
    spread, most = float(np.sqrt(np.square(value).mean())), float(np.abs(value).max())
    if not most:
        return [Choice(0, 1.0, 0.0)]
    first = max(0, math.floor(-math.log2(spread)))
    last = max(0, min(first + _FINEST, MAX_BITS, math.floor(math.log2(MAX_WEIGHT / most))))
    found, error = list[Choice](), math.inf
    for fraction in range(min(first, last), last + 1):
        whole = rounded(value, fraction)
        if error < _SMALL * start:
            error /= 4
        else:
            added = error_of({**tensors, name: whole.floats()}) - start
            error = min(max(added, 0.05 * _SMALL * start), error)
        found.append(Choice(fraction, code_of(whole.values.ravel().astype(np.int64)).bits, error))
    return found


def allotted(choices: Choices, budget: float) -> dict[str, int]:
    """Fractional bits of each tensor: least distortion in so many bits; coarsest where none fit."""

    def at(exchange: float) -> dict[str, Choice]:
        return {
            name: min(each, key=lambda c: c.error + exchange * c.bits)
            for name, each in choices.items()
        }

    def total(chosen: Mapping[str, Choice]) -> float:
        return sum(c.bits for c in chosen.values())

    low, high = -70.0, 10.0  # log2 of the exchange rate
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if total(at(2.0**middle)) <= budget else (middle, high)
    chosen = at(2.0**high)
    _filled(choices, chosen, budget - total(chosen))
    return {name: choice.fraction for name, choice in chosen.items()}


def _filled(choices: Choices, chosen: dict[str, Choice], spare: float) -> None:
    """Spend what is left on the finer steps that gain most for each bit."""
    while True:
        better = [
            ((now.error - c.error) / max(c.bits - now.bits, 1e-9), name, c)
            for name, now in chosen.items()
            for c in choices[name]
            if c.error < now.error and c.bits - now.bits <= spare
        ]
        if not better:
            return
        _, name, choice = max(better)
        spare -= choice.bits - chosen[name].bits
        chosen[name] = choice
