"""Layers that a family's network is written over: once for fitting, once for exact decoding.

A network is one function ``forward(ops, parameters, layout, inputs)``. Under ``FloatOps``
(``_float``) it is a differentiable float32 function of the parameters; under ``ExactOps``
(``_exact``) the same function gives integers that are the same on every machine, in NumPy or in XLA
(float64, any device).

Fixed point: an *activation* v is the integer v 2^16, clipped to +-2^24 (+-256). A *weight* is an
integer of at most 2^15 times 2^-s, 0 <= s <= 20. Integers live in float64, where every product
and every partial sum below 2^53 is exact, so that neither the order of a sum nor a fused
multiply-add can change it: at most 2^13 terms of 2^15 2^24, and a bias of 2^15 2^36, stay below.
Rounding is floor(x + 1/2). No quotient, root or transcendental function is left to the machine:
they are tables of integers and multiplications by integers (XLA turns a / c into a (1/c), and
a / sqrt(b) into a rsqrt(b), which round otherwise).

Letters: F = 16 fractional bits of activations, s those of a tensor, n rows or frames, h, w, c.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.families import _tables

Tensor: TypeAlias = Any
"""An array of either side, or a parameter."""
Module: TypeAlias = Any
"""numpy or jax.numpy."""
Shapes = dict[str, tuple[int, ...]]
"""Of the tensors of a network by name, in the order of the file."""
FRACTION = 16
ONE = float(1 << FRACTION)
LIMIT = float(1 << 24)
"""Activations are clipped to this."""
MAX_WEIGHT = (1 << 15) - 1
MAX_BITS = 20
"""Fractional bits of a tensor, at most; what is added to products is rounded to 16."""
MAX_TERMS = 1 << 13
"""Terms of a product sum."""
EPSILON = 2.0**-20
"""Added to variances."""


class Whole(NamedTuple):
    """A tensor of the file: integers times a power of two."""

    values: NDArray[np.float64]
    """Whole numbers of at most 2^15 in size."""
    bits: int
    """Fractional bits, 0 to 20."""

    def floats(self) -> NDArray[np.float32]:
        """The numbers that it stands for."""
        return (self.values * 2.0**-self.bits).astype(np.float32)


Parameters = Mapping[str, Any]
"""Name -> float32 array (``FloatOps``) or :class:`Whole` (``ExactOps``)."""


@runtime_checkable
class Ops(Protocol):
    """What both sides can do. ``x``, ``y``: activations; ``w``, ``b``, ``g``: parameters."""

    xp: Module
    """numpy or jax.numpy. Moving numbers about is exact: use its reshape, concatenate, transpose,
    indexing and so on directly."""

    def input(self, x: Tensor) -> Tensor:
        """Activations of given numbers: multiples of 2^-16 in float32, see ``features``."""
        ...

    def value(self, w: Tensor) -> Tensor:
        """A parameter as an activation, such as the embedding of a frame or a grid."""
        ...

    def linear(self, x: Tensor, w: Tensor, b: Tensor = None) -> Tensor:
        """(..., i) by (i, o), plus (o,)."""
        ...

    def siren(self, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
        """Linear layers with a sine (in turns) after each but the last."""
        ...

    def conv(self, x: Tensor, w: Tensor, b: Tensor = None) -> Tensor:
        """(n, h, w, i) by (k, k, i, o), k odd, zeros around the picture; plus (o,)."""
        ...

    def depthwise(self, x: Tensor, w: Tensor, b: Tensor = None) -> Tensor:
        """(n, h, w, c) by (k, k, c), k odd, zeros around the picture; plus (c,)."""
        ...

    def resize(self, x: Tensor, times: int) -> Tensor:
        """(n, h, w, c) enlarged by a whole number, bilinear, as ``align_corners=False``."""
        ...

    def sin(self, x: Tensor) -> Tensor:
        """Sine of 2 pi x."""
        ...

    def relu(self, x: Tensor) -> Tensor:
        """The larger of x and 0."""
        ...

    def gelu(self, x: Tensor) -> Tensor:
        """GELU, x Phi(x) (Hendrycks and Gimpel, 2016, arXiv:1606.08415), exact form."""
        ...

    def sigmoid(self, x: Tensor) -> Tensor:
        """Logistic function, 1 / (1 + exp(-x))."""
        ...

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """Sum."""
        ...

    def mul(self, x: Tensor, y: Tensor) -> Tensor:
        """Product, element by element."""
        ...

    def scale(self, x: Tensor, factor: Tensor) -> Tensor:
        """Product with a constant (or an array of them): multiples of 2^-16 of at most 256."""
        ...

    def normalise(self, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        """(x - mean) / sqrt(variance + 2^-20) over axes of at most 2^15 numbers in all."""
        ...

    def layer_norm(self, x: Tensor, g: Tensor, b: Tensor) -> Tensor:
        """``normalise`` over the last axis, then times (c,), plus (c,)."""
        ...


def pixel_shuffle(x: Tensor, r: int) -> Tensor:
    """(n, h, w, r r c) to (n, h r, w r, c); channel (i r + j) c + k goes to row i, column j."""
    n, h, w, c = x.shape
    parts = x.reshape(n, h, w, r, r, c // (r * r))
    return parts.transpose(0, 1, 3, 2, 4, 5).reshape(n, h * r, w * r, c // (r * r))


def features(x: NDArray[np.float64]) -> NDArray[np.float32]:
    """Numbers of at most 128 in size rounded to multiples of 2^-16: what ``input`` takes."""
    return (np.floor(x * ONE + 0.5) / ONE).astype(np.float32)


def pixel_grid(rows: int, columns: int) -> NDArray[np.float32]:
    """(rows columns, 2) centres of pixels, (x, y) in [-1, 1], in reading order."""
    y, x = ((2.0 * np.arange(n) + 1.0) / n - 1.0 for n in (rows, columns))
    return features(np.stack(np.meshgrid(x, y), -1).reshape(-1, 2))


def encode_position(t: NDArray[np.float64], count: int, base: float) -> NDArray[np.float32]:
    """(n, 2 count) sin and cos of pi t base^i, i = 0 ... count - 1 (NeRV, Eq. 1).

    The same bits on every machine: products and remainders of IEEE doubles, and the table of sines.
    """
    turns, factor = [], 0.5
    for _ in range(count):
        turns.append(np.mod(t * factor, 1.0))
        factor *= base
    index = np.floor(np.stack(turns, -1) * ONE + 0.5).astype(np.int64)
    table = _tables.sine()
    both = [table[index % (1 << 16)], table[(index + (1 << 14)) % (1 << 16)]]
    return (np.concatenate(both, -1) / ONE).astype(np.float32)


def lifted(y: Tensor, x: Tensor) -> Tensor:
    """Leading axes of one, until ``y`` has as many as ``x``."""
    return y.reshape((1,) * (x.ndim - y.ndim) + y.shape)


def times_lifted(x: Tensor, y: Tensor) -> Tensor:
    """Product with ``y`` lifted."""
    return x * lifted(y, x)


def shifted(xp: Module, x: Tensor, k: int) -> list[Tensor]:
    """The k k pictures that (n, h, w, c) is seen as under a window, zeros around it."""
    h, w = x.shape[1:3]
    r = k // 2
    padded = xp.pad(x, ((0, 0), (r, r), (r, r), (0, 0)))
    return [padded[:, i : i + h, j : j + w] for i in range(k) for j in range(k)]


def enlarged_by(xp: Module, x: Tensor, times: int) -> Tensor:
    """Bilinear enlargement times 4 times^2: whole weights, nearest cells beyond the edges."""
    for axis in (1, 2):
        size = x.shape[axis]
        before = xp.concatenate([xp.take(x, np.array([0]), axis), x], axis)
        after = xp.concatenate([x, xp.take(x, np.array([size - 1]), axis)], axis)
        first = np.arange(size)
        parts = []
        for i in range(times):
            # Centre of part i, in units of 1 / (2 times) of a cell, from the centre of its cell.
            off = 2 * i + 1 - times
            near, far = float(2 * times - abs(off)), float(abs(off))
            other = xp.take(before, first, axis) if off < 0 else xp.take(after, first + 1, axis)
            parts.append(x * x.dtype.type(near) + other * x.dtype.type(far))
        x = xp.stack(parts, axis + 1)
        x = x.reshape(*x.shape[:axis], size * times, *x.shape[axis + 2 :])
    return x
