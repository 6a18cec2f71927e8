"""Upsampling and synthesis of a picture in tiles of one shape (XLA, any device).

A tile reads from every level the window that its pixels depend on; what lies outside a level is a
copy of its edge, at every stage as in the twin. Tiles have one shape, so one compiled function
serves pictures of all sizes, and memory does not grow with the picture.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from lumefield.codecs.neural._levels import level_sizes
from lumefield.codecs.neural._model import (
    FULL_BITS,
    MAX_HIDDEN,
    MAX_LEVELS,
    MAX_RESIDUAL,
    MAX_UPSAMPLED,
    MAX_VALUE,
    ImageModel,
    Widths,
)

_ROWS, _COLUMNS = 128, 256
"""Pixels of a tile; multiples of 2^6, so that its windows lie alike in all tiles."""
_HALO = 2
"""Pixels around a tile that its residual convolutions see."""
_REACH = 2
"""Cells around a window that its upsampling sees."""


class _Parameters(NamedTuple):
    u: Any
    X1: Any
    c1: Any
    X2: Any
    Y: Any
    c2: Any
    G: Any
    g: Any


class _Span(NamedTuple):
    """Windows of the levels along one axis, relative to the first cell of a tile on each level."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


def _span(pixels: int) -> _Span:
    offset, size = -_HALO, pixels + 2 * _HALO
    offsets, sizes = [offset], [size]
    for _ in range(MAX_LEVELS - 1):
        first, last = offset // 2, (offset + size - 1) // 2
        offset, size = first - _REACH, last - first + 1 + 2 * _REACH
        offsets.append(offset)
        sizes.append(size)
    return _Span(tuple(offsets), tuple(sizes))


_DOWN, _ACROSS = _span(_ROWS), _span(_COLUMNS)


def synthesise(
    model: ImageModel, latents: list[NDArray[np.int8]], bits: int, subsampled: bool
) -> tuple[NDArray[np.unsignedinteger[Any]], ...]:
    """Planes of the picture; see the twin's ``synthesise``."""
    rows, columns = latents[0].shape
    parameters, pyramid = _padded(model), _full(latents)
    sizes = np.array(level_sizes(rows, columns, MAX_LEVELS), np.int32)
    kind = np.uint8 if bits == 8 else np.uint16
    halves = [2 if subsampled and c in (1, 2) else 1 for c in range(model.widths.channels)]
    planes = tuple(np.empty((-(-rows // n), -(-columns // n)), kind) for n in halves)
    for top in range(0, rows, _ROWS):
        for left in range(0, columns, _COLUMNS):
            windows = tuple(_window(level, i, top, left) for i, level in enumerate(pyramid))
            corner = np.array([top, left], np.int32)
            white = np.int32((1 << bits) - 1)
            tiles = _tile(parameters, windows, sizes, corner, white, subsampled=subsampled)
            for plane, tile, n in zip(planes, tiles, halves, strict=True):
                part = plane[top // n : (top + _ROWS) // n, left // n : (left + _COLUMNS) // n]
                part[:] = np.asarray(tile)[: part.shape[0], : part.shape[1]]
    return planes


def _padded(model: ImageModel) -> _Parameters:
    """Parameters of a model with all 7 levels; those it lacks have no weight."""
    widths = model.widths
    missing = MAX_LEVELS - widths.levels
    more = Widths(MAX_LEVELS, widths.context, widths.synthesis, widths.channels).shapes()
    u = np.zeros(more["u"], np.int32)
    u[: len(model.u)] = model.u
    x1, y = (np.pad(a, ((0, 0), (0, missing))) for a in (model.X1, model.Y))
    return _Parameters(u, x1, model.c1, model.X2, y, model.c2, model.G, model.g)


def _full(latents: list[NDArray[np.int8]]) -> list[NDArray[np.int8]]:
    rows, columns = latents[0].shape
    sizes = level_sizes(rows, columns, MAX_LEVELS)
    return [*latents, *(np.zeros(size, np.int8) for size in sizes[len(latents) :])]


def _window(level: NDArray[np.int8], i: int, top: int, left: int) -> NDArray[np.int8]:
    rows = np.arange(_DOWN.sizes[i]) + (top >> i) + _DOWN.offsets[i]
    columns = np.arange(_ACROSS.sizes[i]) + (left >> i) + _ACROSS.offsets[i]
    h, w = level.shape
    return level[np.ix_(rows.clip(0, h - 1), columns.clip(0, w - 1))]


@functools.partial(jax.jit, static_argnames=("subsampled",))
def _tile(
    p: _Parameters,
    windows: tuple[Array, ...],
    sizes: Array,
    corner: Array,
    white: Array,
    *,
    subsampled: bool,
) -> tuple[Array, ...]:
    v = jnp.clip(_upsampled(p.u, windows, sizes, corner), -MAX_VALUE, MAX_VALUE)
    shape = v.shape[1:]
    v = v.reshape(MAX_LEVELS, -1)
    h = jnp.clip(_rshift(p.X1 @ v, 10) + _rshift(p.c1, 2)[:, None], 0, MAX_HIDDEN)
    z = _rshift(p.X2 @ h, 8) + _rshift(p.Y @ v, 8) + p.c2[:, None]
    z = jnp.clip(z, -MAX_VALUE, MAX_VALUE).reshape(-1, *shape)
    z = jnp.maximum(_residual(z, p.G[0], p.g[0], sizes[0], corner - _HALO), 0)
    z = _residual(z, p.G[1], p.g[1], sizes[0], corner - _HALO + 1)

    def rounded(plane: Array) -> Array:
        scaled = _rshift(jnp.clip(plane, 0, 1 << FULL_BITS) * white, FULL_BITS)
        return jnp.clip(scaled, 0, white).astype(jnp.uint16)

    halved = [subsampled and c in (1, 2) for c in range(len(z))]
    return tuple(
        rounded(_halved(plane, sizes[0], corner) if half else plane)
        for plane, half in zip(z, halved, strict=True)
    )


def _rshift(value: Array, n: int) -> Array:
    return (value + (1 << (n - 1))) >> n


def _upsampled(u: Array, windows: tuple[Array, ...], sizes: Array, corner: Array) -> Array:
    """(7, rows + 4, columns + 4) all levels at the size of the tile and its halo."""
    stack = windows[-1][None].astype(jnp.int32) << 8
    for i in range(MAX_LEVELS - 2, -1, -1):
        for axis, span in ((2, _ACROSS), (1, _DOWN)):
            first = (corner[axis - 1] >> i) + span.offsets[i]
            last = sizes[i, axis - 1] - 1
            stack = _doubled(stack, u[i], axis, span.offsets[i] % 2, span.sizes[i])
            # What lies outside the level is a copy of its edge.
            at = jnp.clip(first + jnp.arange(span.sizes[i], dtype=jnp.int32), 0, last) - first
            stack = stack.at[(slice(None),) * axis + (at,)].get(
                mode="promise_in_bounds", wrap_negative_indices=False
            )
        stack = jnp.concatenate([windows[i][None].astype(jnp.int32) << 8, stack])
    return stack


def _doubled(v: Array, taps: Array, axis: int, odd_first: int, size: int) -> Array:
    """The inner part of a window doubled, ``size`` cells from the first even or odd one."""
    n = v.shape[axis] - 2 * _REACH
    at = [jax.lax.slice_in_dim(v, k, k + n, axis=axis) for k in range(2 * _REACH + 1)]
    even = taps[0] * at[0] + taps[1] * at[1] + taps[2] * at[2] + taps[3] * at[3]
    odd = taps[3] * at[1] + taps[2] * at[2] + taps[1] * at[3] + taps[0] * at[4]
    shape = list(v.shape)
    shape[axis] = 2 * n
    both = jnp.stack([even, odd], axis + 1).reshape(shape)
    both = jnp.clip(_rshift(both, 10), -MAX_UPSAMPLED, MAX_UPSAMPLED)
    return jax.lax.slice_in_dim(both, odd_first, odd_first + size, axis=axis)


def _residual(z: Array, kernel: Array, bias: Array, size: Array, corner: Array) -> Array:
    """Add a 3x3 convolution, one pixel smaller on every side; edges of the picture repeat."""
    e = jnp.clip(_rshift(z, 2), -MAX_RESIDUAL, MAX_RESIDUAL)
    rows = _three(e, 1, corner[0], size[0])
    shifted = [_three(part, 2, corner[1], size[1]) for part in rows]
    total = jnp.zeros((len(bias), z.shape[1] - 2, z.shape[2] - 2), jnp.int32)
    for dr in range(3):
        for dc in range(3):
            for c in range(len(bias)):
                total += kernel[:, c, dr, dc][:, None, None] * shifted[dr][dc][c][None]
    changed = z[:, 1:-1, 1:-1] + _rshift(total, 8) + bias[:, None, None]
    return jnp.clip(changed, -MAX_VALUE, MAX_VALUE)


def _three(x: Array, axis: int, first: Array, size: Array) -> tuple[Array, Array, Array]:
    """The neighbours before, at and after all but the outermost cells, edges repeated."""
    n = x.shape[axis] - 2
    before, middle, after = (jax.lax.slice_in_dim(x, k, k + n, axis=axis) for k in range(3))
    shape = [1] * x.ndim
    shape[axis] = n
    place = (first + 1 + jnp.arange(n, dtype=jnp.int32)).reshape(shape)
    return (
        jnp.where(place <= 0, middle, before),
        middle,
        jnp.where(place >= size - 1, middle, after),
    )


def _halved(z: Array, size: Array, corner: Array) -> Array:
    """Means of 2x2, edges of the picture repeated."""

    def pair(x: Array, axis: int, first: Array, last: Array) -> tuple[Array, Array]:
        even = jax.lax.slice_in_dim(x, 0, x.shape[axis], 2, axis)
        odd = jax.lax.slice_in_dim(x, 1, x.shape[axis], 2, axis)
        shape = [1] * x.ndim
        shape[axis] = even.shape[axis]
        place = first + 2 * jnp.arange(even.shape[axis], dtype=jnp.int32)
        return even, jnp.where((place >= last).reshape(shape), even, odd)

    upper, lower = pair(z, 0, corner[0], size[0] - 1)
    four = [part for row in (upper, lower) for part in pair(row, 1, corner[1], size[1] - 1)]
    return _rshift(four[0] + four[1] + four[2] + four[3], 2)
