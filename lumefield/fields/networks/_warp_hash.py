"""The hash grid on an NVIDIA GPU: the three functions of ``_hash_encode`` as Warp kernels, float32.

All three are sums over the corners m of the cells around a sample, of an entry (two features) times
a weight: w = prod_k a_k, with a_k the place f in the cell along axis k, or 1 - f; or the derivative
of w along a direction v, or by x_j, or both. One function computes any of them.

Gather and scatter: a thread is one sample in one level, levels outermost, so that threads that run
together read one level. Slope: a thread is one sample. The scatter adds atomically: sums depend, in
their last bits, on the order in which a GPU comes to them.

Letters: n samples, d coordinates, L levels. This file imports warp: import it where a kernel is
called. (``no_type_check`` keeps the type checks of the tests off the kernels.)
"""

import functools
from typing import Any, NamedTuple, no_type_check

import jax.numpy as jnp
import numpy as np
import warp as wp
from jax import Array

from lumefield import native
from lumefield.fields.networks._hash_encode import PRIMES, Levels

_COLUMNS = 3
"""Columns of a row of the levels' table before the steps: last cell, dense, first entry."""


class Functions(NamedTuple):
    """What the kernels for a number of coordinates are made of."""

    axes: Any
    corners: Any
    Place: Any
    """Type of a place: as many floats as coordinates."""
    cell_of: Any
    place_in: Any
    entry: Any
    weight: Any


class Kernels(NamedTuple):
    """Kernels for a number of coordinates, without a direction or with one."""

    gather: Any
    scatter: Any
    slope: Any


@no_type_check
@functools.cache
def functions(d: int, along: bool) -> Functions:
    """The Warp functions of the kernels; arguments as for ``kernels``."""
    axes, corners = wp.constant(d), wp.constant(1 << d)
    differs = wp.constant(along)
    Place = wp.types.vector(length=d, dtype=wp.float32)
    Cell = wp.types.vector(length=d, dtype=wp.int32)

    @wp.func
    def cell_of(spec: wp.array2d[wp.uint32], l: wp.int32, x: Place) -> Cell:
        """The cell around x, at the border for what lies outside."""
        last = wp.int32(spec[l, 0])
        half = 0.5 * wp.float32(last + 1)
        cell = Cell()
        for k in range(axes):
            cell[k] = wp.clamp(wp.int32((x[k] + 1.0) * half), 0, last)
        return cell

    @wp.func
    def place_in(spec: wp.array2d[wp.uint32], l: wp.int32, x: Place, cell: Cell) -> Place:
        """The place in the cell, in [0, 1] inside the grid."""
        half = 0.5 * wp.float32(wp.int32(spec[l, 0]) + 1)
        place = Place()
        for k in range(axes):
            place[k] = (x[k] + 1.0) * half - wp.float32(cell[k])
        return place

    @wp.func
    def entry(
        spec: wp.array2d[wp.uint32], l: wp.int32, mask: wp.uint32, cell: Cell, m: wp.int32
    ) -> wp.int32:
        """Row of the table of corner m: bit k of m is the step along axis k."""
        total = wp.uint32(0)
        mixed = wp.uint32(0)
        for k in range(axes):
            part = wp.uint32(cell[k] + ((m >> k) & 1)) * spec[l, wp.static(_COLUMNS) + k]
            total += part
            mixed = mixed ^ part
        if spec[l, 1] == wp.uint32(0):
            total = mixed & mask
        return wp.int32(spec[l, 2] + total)

    @wp.func
    def weight(place: Place, v: Place, half: wp.float32, m: wp.int32, j: wp.int32) -> wp.float32:
        """Weight of corner m, differentiated by x_j (j < 0: not) and, if so made, along v."""
        w = wp.float32(1.0)
        t = wp.float32(0.0)
        for k in range(axes):
            up = ((m >> k) & 1) == 1
            a = wp.where(up, place[k], 1.0 - place[k])
            s = wp.where(up, half, -half)
            if k == j:
                t = t * s
                w = w * s
            else:
                t = t * a + w * s * v[k]
                w = w * a
        if differs:
            return t
        return w

    return Functions(axes, corners, Place, cell_of, place_in, entry, weight)


@no_type_check
@functools.cache
def kernels(d: int, along: bool) -> Kernels:
    """The three kernels, compiled at their first call.

    Args:
        d: Coordinates.
        along: Whether weights are differentiated along a direction.
    """
    axes, corners, Place, cell_of, place_in, entry, weight = functions(d, along)

    @wp.kernel(module="unique", enable_backward=False)
    def gather(
        table: wp.array[wp.vec2],
        x: wp.array[Place],
        v: wp.array[Place],
        spec: wp.array2d[wp.uint32],
        mask: wp.uint32,
        out: wp.array2d[wp.vec2],
    ) -> None:
        l, s = wp.tid()
        cell = cell_of(spec, l, x[s])
        place = place_in(spec, l, x[s], cell)
        half = 0.5 * wp.float32(wp.int32(spec[l, 0]) + 1)
        total = wp.vec2(0.0, 0.0)
        for m in range(corners):
            total += weight(place, v[s], half, m, -1) * table[entry(spec, l, mask, cell, m)]
        out[s, l] = total

    @wp.kernel(module="unique", enable_backward=False)
    def scatter(
        x: wp.array[Place],
        g: wp.array2d[wp.vec2],
        v: wp.array[Place],
        spec: wp.array2d[wp.uint32],
        mask: wp.uint32,
        table: wp.array[wp.vec2],
    ) -> None:
        l, s = wp.tid()
        cell = cell_of(spec, l, x[s])
        place = place_in(spec, l, x[s], cell)
        half = 0.5 * wp.float32(wp.int32(spec[l, 0]) + 1)
        for m in range(corners):
            part = weight(place, v[s], half, m, -1) * g[s, l]
            wp.atomic_add(table, entry(spec, l, mask, cell, m), part)

    @wp.kernel(module="unique", enable_backward=False)
    def slope(
        table: wp.array[wp.vec2],
        x: wp.array[Place],
        g: wp.array2d[wp.vec2],
        v: wp.array[Place],
        spec: wp.array2d[wp.uint32],
        mask: wp.uint32,
        out: wp.array[Place],
    ) -> None:
        s = wp.tid()
        total = Place()
        for l in range(spec.shape[0]):
            cell = cell_of(spec, l, x[s])
            place = place_in(spec, l, x[s], cell)
            half = 0.5 * wp.float32(wp.int32(spec[l, 0]) + 1)
            for m in range(corners):
                toward = wp.dot(table[entry(spec, l, mask, cell, m)], g[s, l])
                for j in range(axes):
                    total[j] = total[j] + toward * weight(place, v[s], half, m, j)
        out[s] = total

    return Kernels(gather, scatter, slope)


def _spec(levels: Levels) -> np.ndarray:
    """(L, 3 + d) uint32: last cell, dense or not, first entry, step of each axis or its prime."""
    rows: list[list[int]] = []
    first = 0
    for l, (n, size) in enumerate(zip(levels.cells, levels.sizes(), strict=True)):
        dense = levels.dense(l)
        steps = [(n + 1) ** k for k in range(levels.d)] if dense else PRIMES[: levels.d]
        rows.append([n - 1, int(dense), first, *steps])
        first += size
    return np.asarray(rows, np.uint32)


def _common(levels: Levels, x: Array, along: tuple[Array, ...]) -> tuple[Array, Array, int]:
    """What ends the inputs of every kernel: directions (x where there is none), levels, mask."""
    return (along or (x,))[0], jnp.asarray(_spec(levels)), levels.entries - 1


def gather(levels: Levels, table: Array, x: Array, *along: Array) -> Array:
    """(n, 2 L) features, or their derivative along a direction (n, d)."""
    n, count = x.shape[0], len(levels.cells)
    kernel = kernels(levels.d, bool(along)).gather
    given = (table, x, *_common(levels, x, along))
    out = native.warp_call(kernel, {"out": (n, count, 2)}, *given, dims=(count, n))[0]
    return out.reshape(n, 2 * count)


def scatter(levels: Levels, x: Array, g: Array, *along: Array) -> Array:
    """(rows, 2): the transpose of ``gather`` in the table."""
    n, count = x.shape[0], len(levels.cells)
    kernel = kernels(levels.d, bool(along)).scatter
    given = (x, g.reshape(n, count, 2), *_common(levels, x, along))
    zeros = jnp.zeros((levels.rows, 2), g.dtype)
    return native.warp_call(kernel, {}, *given, zeros, dims=(count, n), in_out=("table",))[0]


def slope(levels: Levels, table: Array, x: Array, g: Array, *along: Array) -> Array:
    """(n, d): the gradient of ``<gather, g>`` by x."""
    n, count = x.shape[0], len(levels.cells)
    kernel = kernels(levels.d, bool(along)).slope
    given = (table, x, g.reshape(n, count, 2), *_common(levels, x, along))
    return native.warp_call(kernel, {"out": x.shape}, *given, dims=n)[0]


FUNCTIONS = {"gather": gather, "scatter": scatter, "slope": slope}
