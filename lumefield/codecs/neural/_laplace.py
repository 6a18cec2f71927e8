"""The table of integer frequencies that every latent is coded with.

Row (s, f): a Laplace distribution of scale b = 2^((s - 30) / 5) and mean f / 16, f in [-8, 7],
integrated over the cells [q - 1/2, q + 1/2] of the integers |q| <= R_s; the outermost cells take
the tails. Frequencies are at least 1 and sum to 2^16. Only IEEE double + - * / and floor are used
(an exponential of our own), so that the table is the same bits on every machine.
"""

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.neural._model import MAX_LATENT

SCALES = 64
MEANS = 16
CENTRE = 30
"""Index of scale 1."""
PRECISION = 16
"""Frequencies sum to 2^16."""
WIDTH = 2 * MAX_LATENT + 2
"""Entries of a row of the table: q = -127 ... 128."""
BUCKETS = 512
"""Classes of 16-bit values, see :func:`bucket_starts`."""
BUCKET_SYMBOLS = 8
"""No bucket of any row holds more symbols."""
_LEAST_REACH = 10
_LN2 = 0.6931471805599453
_FIFTHS = (
    1.0,
    1.1486983549970350,
    1.3195079107728942,
    1.5157165665103981,
    1.7411011265922482,
)
"""2^(k / 5)."""


@functools.cache
def scales() -> NDArray[np.float64]:
    """(64,) Laplace scale b of each index."""
    steps = range(-CENTRE, SCALES - CENTRE)
    return np.array([_FIFTHS[k % 5] * 2.0 ** (k // 5) for k in steps])


@functools.cache
def reach() -> NDArray[np.int32]:
    """(64,) R_s: largest |q| that row s can code: 12 scales and one, within [10, 127].

    Rare large latents must be codable under sharp distributions too, at the 16 bits that fits count
    for them; that they are costs all others 0.0002 bits.
    """
    return np.clip(np.ceil(12 * scales()) + 1, _LEAST_REACH, MAX_LATENT).astype(np.int32)


@functools.cache
def cumulative() -> NDArray[np.int32]:
    """(64, 16, 256) sums of the frequencies of all q < j - 127, for j = 0 ... 255; [s, f + 8, j].

    0 up to the first symbol of a row, 2^16 after its last: the symbol of a value v in [0, 2^16)
    is the largest j with ``cumulative[j] <= v``.
    """
    q = np.arange(WIDTH) - MAX_LATENT
    mean = (np.arange(MEANS) - MEANS // 2) / MEANS
    radius = reach()[:, None, None].astype(np.int64)
    z = ((q - 0.5) - mean[:, None])[None] / scales()[:, None, None]
    half = 0.5 * _exp_negative(np.abs(z))
    below = np.where(z < 0, half, 1 - half)
    symbols = 2 * radius + 1
    index = np.clip(q + radius, 0, symbols)
    # Rounding the sums, not the frequencies, keeps the total; the index makes each at least 1.
    inner = index + np.floor(below * ((1 << PRECISION) - symbols) + 0.5).astype(np.int64)
    table = np.where(index == 0, 0, np.where(index == symbols, 1 << PRECISION, inner))
    return np.ascontiguousarray(table, np.int32)


@functools.cache
def symbol_tables() -> "SymbolTables":
    """The tables of the fast decoders."""
    rows = cumulative().reshape(-1, WIDTH)
    padded = np.pad(rows, ((0, 0), (0, BUCKET_SYMBOLS)), constant_values=1 << 30)
    return SymbolTables(np.ascontiguousarray(padded.ravel()), bucket_starts().ravel())


def bucket_starts() -> NDArray[np.uint8]:
    """(64, 16, 512) the smallest symbol among the values of a bucket: where a search begins.

    Value v belongs to a bucket by its side (v >= 2^15) and the float32 1 + min(v, 2^16 - 1 - v)
    cut to 4 bits of mantissa: such classes hold about equally many symbols of a Laplace.
    """
    v = np.arange(1 << PRECISION)
    m = np.minimum(v, (1 << PRECISION) - 1 - v)
    cut = ((m + 1).astype(np.float32).view(np.int32) >> 19) - (127 << 4)
    keys, first = np.unique(cut + (v >> (PRECISION - 1)) * (BUCKETS // 2), return_index=True)
    starts = np.zeros((SCALES, MEANS, BUCKETS), np.uint8)
    for row in np.ndindex(SCALES, MEANS):
        starts[row][keys] = np.searchsorted(cumulative()[row], first, side="right") - 1
    return starts


class SymbolTables(NamedTuple):
    """Flat tables in which a symbol is found in a few steps."""

    sums: NDArray[np.int32]
    """(1024 * 264,) rows of :func:`cumulative`, padded so that no search leaves its row."""
    starts: NDArray[np.uint8]
    """(1024 * 512,) rows of :func:`bucket_starts`."""


def _exp_negative(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """exp(-z) for z >= 0; 0 beyond 40. Taylor series after reduction to |r| <= ln 2 / 2."""
    z = np.minimum(z, 64.0)
    n = np.floor(z / _LN2 + 0.5)
    r = n * _LN2 - z
    total = np.ones_like(z)
    for k in range(14, 0, -1):
        total = 1.0 + r * total / k
    power = 2.0 ** -np.arange(128)  # exact
    return np.where(z > 40, 0.0, total * power[n.astype(np.int64)])
