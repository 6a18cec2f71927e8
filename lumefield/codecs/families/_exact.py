"""The layers of the families in integers that float64 holds: one result everywhere."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.families import _tables
from lumefield.codecs.families._ops import (
    EPSILON,
    FRACTION,
    LIMIT,
    MAX_TERMS,
    ONE,
    Module,
    Ops,
    Tensor,
    Whole,
    enlarged_by,
    lifted,
    shifted,
    times_lifted,
)


class ExactOps(Ops):
    """Integers in float64: one result everywhere."""

    def __init__(self, xp: Module = np) -> None:
        """Take numpy, or jax.numpy where x64 is on."""
        self.xp = xp

    def input(self, x: Tensor) -> Tensor:
        return self._clip(self.xp.floor(self._whole(x) * ONE + 0.5))

    def value(self, w: Whole) -> Tensor:
        return self._clip(self._round(self._whole(w.values), w.bits - FRACTION))

    def linear(self, x: Tensor, w: Whole, b: Whole | None = None) -> Tensor:
        self._check(w.values.shape[0])
        rows = x.reshape(-1, x.shape[-1])
        total = self._scaled(rows @ self._whole(w.values), w, b)
        return total.reshape(*x.shape[:-1], w.values.shape[-1])

    def siren(self, x: Tensor, weights: Sequence[Whole], biases: Sequence[Tensor]) -> Tensor:
        for w, b in zip(weights[:-1], biases[:-1], strict=True):
            x = self.sin(self.linear(x, w, b))
        return self.linear(x, weights[-1], biases[-1])

    def conv(self, x: Tensor, w: Whole, b: Whole | None = None) -> Tensor:
        k, _, i, o = w.values.shape
        self._check(k * k * i)
        taps = self._whole(w.values).reshape(k * k, i, o)
        total: Tensor = 0.0
        for part, tap in zip(shifted(self.xp, x, k), taps, strict=True):
            total = total + part.reshape(-1, i) @ tap
        return self._scaled(total, w, b).reshape(*x.shape[:-1], o)

    def depthwise(self, x: Tensor, w: Whole, b: Whole | None = None) -> Tensor:
        k = w.values.shape[0]
        taps = self._whole(w.values).reshape(k * k, -1)
        total: Tensor = 0.0
        for part, tap in zip(shifted(self.xp, x, k), taps, strict=True):
            total = total + times_lifted(part, tap)
        return self._scaled(total, w, b)

    def resize(self, x: Tensor, times: int) -> Tensor:
        # Sums reach 4 times^2 2^24; the reciprocal has what bits are left of 52.
        bits = 52 - FRACTION - 8 - math.ceil(math.log2(4 * times * times))
        inverse = float(round((1 << bits) / (4 * times * times)))
        return self._round(enlarged_by(self.xp, x, times) * inverse, bits)

    def sin(self, x: Tensor) -> Tensor:
        index = x.astype(np.int32) & ((1 << FRACTION) - 1)
        return self._at(_tables.sine(), index)

    def relu(self, x: Tensor) -> Tensor:
        return self.xp.maximum(x, 0.0)

    def gelu(self, x: Tensor) -> Tensor:
        end = _tables.REACH * ONE
        inner = self._interpolated(x, _tables.gelu())
        return self.xp.where(x >= end, x, self.xp.where(x < -end, 0.0, inner))

    def sigmoid(self, x: Tensor) -> Tensor:
        return self._interpolated(x, _tables.sigmoid())

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return self._clip(x + lifted(y, x))

    def mul(self, x: Tensor, y: Tensor) -> Tensor:
        return self._clip(self._round(times_lifted(x, y), FRACTION))

    def scale(self, x: Tensor, factor: Tensor) -> Tensor:
        return self.mul(x, self.input(np.asarray(factor, np.float64)))

    def normalise(self, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        xp, count = self.xp, math.prod(x.shape[axis] for axis in axes)
        if count > MAX_TERMS * 4:
            raise ValueError(f"normalises {count} numbers, expected at most {4 * MAX_TERMS}")
        inverse = float(round((1 << 28) / count))
        mean = self._round(x.sum(axes, keepdims=True) * inverse, 28)
        # Sums of squares stay below 2^53.
        most = float(1 << (53 - math.ceil(math.log2(count))) // 2) - 1
        d = xp.clip(x - mean, -most, most)
        total = (d * d).sum(axes, keepdims=True) + count * (EPSILON * ONE * ONE)
        # total = m 4^e, 1 <= m < 4; r 2^-22 is 1 / sqrt(m).
        powers = self._whole(np.ldexp(1.0, 2 * np.arange(27)))
        e = xp.searchsorted(powers, total, side="right") - 1
        halves = self._at(np.ldexp(1.0, -np.arange(27)), e)
        place = total * (halves * halves) * float(_tables.ROOTS)
        cell = xp.floor(place)
        index = cell.astype(np.int32) - _tables.ROOTS
        roots = _tables.inverse_roots()
        low, high = self._at(roots, index), self._at(roots, index + 1)
        fraction = xp.floor((place - cell) * 4096.0)
        r = low + self._round((high - low) * fraction, 12)
        unit = xp.floor(d * r * (halves * 4.0) + 0.5)  # 24 fractional bits, at most 1 in size
        root = float(math.floor(math.sqrt(count) * ONE + 0.5))
        return self._clip(self._round(unit * root, 24))

    def layer_norm(self, x: Tensor, g: Whole, b: Whole) -> Tensor:
        y = self.normalise(x, (-1,))
        return self._scaled(times_lifted(y, self._whole(g.values)), g, b)

    def pixels(self, x: Tensor, bits: int) -> Tensor:
        """Activations in [0, 1] as whole numbers of that many bits, as float64."""
        full = float((1 << bits) - 1)
        return self._round(self.xp.clip(x, 0.0, ONE) * full, FRACTION)

    def _whole(self, x: Tensor) -> Tensor:
        return self.xp.asarray(x, dtype=np.float64)

    def _at(self, table: NDArray[np.float64], index: Tensor) -> Tensor:
        return self.xp.take(self.xp.asarray(table), index, mode="clip")

    def _clip(self, x: Tensor) -> Tensor:
        return self.xp.clip(x, -LIMIT, LIMIT)

    def _round(self, x: Tensor, bits: int) -> Tensor:
        """Quotient x / 2^bits to the nearest integer, halves up."""
        return self.xp.floor(x * 2.0**-bits + 0.5)

    def _scaled(self, total: Tensor, w: Whole, b: Whole | Tensor | None) -> Tensor:
        """Product sums, and what is added to them, as activations."""
        if b is not None:
            # A bias is a tensor of the file, or activations (a modulation).
            plus = self.value(b) if isinstance(b, Whole) else b
            total = total + lifted(plus, total) * 2.0**w.bits
        return self._clip(self._round(total, w.bits))

    def _interpolated(self, x: Tensor, table: NDArray[np.float64]) -> Tensor:
        """Linear interpolation in 2^12 cells a unit, within +-8."""
        xp, end = self.xp, _tables.REACH * ONE
        at = xp.clip(x, -end, end - 1) + end
        cell = xp.floor(at * (1 / 16))
        index = cell.astype(np.int32)
        low = self._at(table, index)
        return self._round(low * 16.0 + (self._at(table, index + 1) - low) * (at - cell * 16.0), 4)

    def _check(self, terms: int) -> None:
        if terms > MAX_TERMS:
            raise ValueError(f"a sum of {terms} products, expected at most {MAX_TERMS}")
