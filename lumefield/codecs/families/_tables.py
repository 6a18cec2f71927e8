"""Tables of integers for the functions that a decoder must not leave to the machine.

Made with IEEE double + - * / and floor alone, so that every machine makes the same ones; a test
pins their checksums. All have 16 fractional bits but the inverse roots, which have 22.
"""

import functools

import numpy as np
from numpy.typing import NDArray

ONE = float(1 << 16)
REACH = 8
"""Sigmoid and GELU are tabulated within +-8."""
CELLS = 1 << 12
"""Cells of those tables in a unit."""
ROOTS = 1 << 10
"""Cells of the table of inverse roots in a unit."""
_TWO_PI = 6.283185307179586
_LN2 = 0.6931471805599453
_SQRT_HALF = 0.7071067811865476


@functools.cache
def sine() -> NDArray[np.float64]:
    """(2^16,) sin(2 pi k / 2^16)."""
    quarter = 1 << 14
    x = np.arange(quarter + 1) * (_TWO_PI / ONE)
    square, total = x * x, np.ones(quarter + 1)
    for k in range(13, 0, -1):  # Taylor series up to x^27
        total = 1.0 - square * total / ((2 * k) * (2 * k + 1))
    rise = np.floor(x * total * ONE + 0.5)
    half = np.concatenate([rise, rise[-2:0:-1]])
    return np.concatenate([half, -half])


@functools.cache
def sigmoid() -> NDArray[np.float64]:
    """(2^16 + 1,) 1 / (1 + exp(-x)) at x = -8 ... 8."""
    x = np.arange(-REACH * CELLS, REACH * CELLS + 1) / CELLS
    small = _exp_negative(np.abs(x))
    value = np.where(x < 0, small, 1.0) / (1.0 + small)
    return np.floor(value * ONE + 0.5)


@functools.cache
def gelu() -> NDArray[np.float64]:
    """(2^16 + 1,) x Phi(x) at x = -8 ... 8."""
    x = np.arange(-REACH * CELLS, REACH * CELLS + 1) / CELLS
    return np.floor(x * (0.5 + 0.5 * _erf(x * _SQRT_HALF)) * ONE + 0.5)


@functools.cache
def inverse_roots() -> NDArray[np.float64]:
    """(3 2^10 + 2,) 1 / sqrt(1 + k / 2^10), 22 fractional bits."""
    m = 1.0 + np.arange(3 * ROOTS + 2) / ROOTS
    y = 1.2 - 0.18 * m  # Newton's iteration for m y^2 = 1
    for _ in range(8):
        y = y * (1.5 - 0.5 * m * y * y)
    return np.floor(y * float(1 << 22) + 0.5)


def _erf(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Error function within 1e-11: Taylor series below 3, continued fraction beyond."""
    z = np.abs(x)
    low, square = np.minimum(z, 3.0), np.minimum(z, 3.0) * np.minimum(z, 3.0)
    # erf z = 2 / sqrt(pi) exp(-z^2) sum of 2^n z^(2 n + 1) / (1 3 5 ... (2 n + 1))
    term, total = low.copy(), low.copy()
    for n in range(1, 60):
        term = term * (2.0 * square) / (2 * n + 1)
        total = total + term
    series = 1.1283791670955126 * _exp_negative(square) * total
    high = np.maximum(z, 3.0)
    tail = high.copy()
    for n in range(60, 0, -1):  # erfc z = exp(-z^2) / sqrt(pi) / (z + 1/2 / (z + 1 / (z + 3/2 ...
        tail = high + 0.5 * n / tail
    beyond = 1.0 - 0.5641895835477563 * _exp_negative(high * high) / tail
    return np.where(x < 0, -1.0, 1.0) * np.where(z < 3.0, series, beyond)


def _exp_negative(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Exponential of -z, z >= 0; 0 beyond 40. Taylor series after reduction to |r| <= ln 2 / 2."""
    z = np.minimum(z, 64.0)
    n = np.floor(z / _LN2 + 0.5)
    r = n * _LN2 - z
    total = np.ones_like(z)
    for k in range(16, 0, -1):
        total = 1.0 + r * total / k
    power = 2.0 ** -np.arange(128)
    return np.where(z > 40, 0.0, total * power[n.astype(np.int64)])
