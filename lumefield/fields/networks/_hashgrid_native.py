"""The C++ hash grid: the three functions of ``_hash_encode`` on float32, two features an entry.

One call is one array of samples. The kernels exist for 2, 3 and 4 coordinates, with no direction or
with one.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lumefield import native


def _call(
    symbol: str, shape: tuple[int, ...], cells: tuple[int, ...], entries: int, *args: Array
) -> Array:
    return native.call(
        symbol,
        jax.ShapeDtypeStruct(shape, jnp.float32),
        *args,
        n_threads=np.int64(native.threads()),
        cells=np.asarray(cells, np.int64),
        capacity=np.int64(entries),
    )


def gather(cells: tuple[int, ...], entries: int, table: Array, x: Array, *along: Array) -> Array:
    """(n, 2 L) features, or their derivative along a direction (n, d)."""
    symbol = "HashGatherAlong" if along else "HashGather"
    return _call(symbol, (x.shape[0], 2 * len(cells)), cells, entries, table, x, *along)


def scatter(
    cells: tuple[int, ...], entries: int, rows: int, x: Array, g: Array, *along: Array
) -> Array:
    """(rows, 2): the transpose of ``gather`` in the table."""
    symbol = "HashScatterAlong" if along else "HashScatter"
    return _call(symbol, (rows, 2), cells, entries, x, g, *along)


def slope(
    cells: tuple[int, ...], entries: int, table: Array, x: Array, g: Array, *along: Array
) -> Array:
    """(n, d): the gradient of ``<gather, g>`` by x."""
    symbol = "HashSlopeAlong" if along else "HashSlope"
    return _call(symbol, x.shape, cells, entries, table, x, g, *along)
