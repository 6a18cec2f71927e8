"""The decoder of latents as one jitted loop over wavefront steps (XLA, any device).

All slots of a step are done at once, on dense arrays: a ring of the last 8 steps, rotated by one
or two slots, holds every causal neighbour, because row r lives in slot ``r mod slots`` and its
neighbour (r - i, c + j) was decoded 3 i - j steps ago. What belongs to another row of the picture
is masked by the column. Contexts from coarser levels are looked up on the host. Shapes depend on
the number of slots and lanes only, so a compiled decoder serves pictures of many sizes.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from lumefield.codecs.neural._context import coarse_inputs, coarser_levels
from lumefield.codecs.neural._laplace import (
    BUCKET_SYMBOLS,
    BUCKETS,
    CENTRE,
    MEANS,
    SCALES,
    WIDTH,
    symbol_tables,
)
from lumefield.codecs.neural._levels import STEPS_PER_ROW, Level, places
from lumefield.codecs.neural._model import MAX_HIDDEN, MAX_LATENT, NEIGHBOURS, ImageModel
from lumefield.codecs.neural._rans import LOW

_CHUNK = 512
"""Steps of one call."""
_AGE = max(-STEPS_PER_ROW * dr - dc for dr, dc in NEIGHBOURS)
"""Steps back to the oldest neighbour."""
_STRIDE = WIDTH + BUCKET_SYMBOLS


class Network(NamedTuple):
    """The context network of one level; matrices as float32 integers, biases int32."""

    inputs: Any
    """(A + 2, K) W1 and V."""
    b1: Any
    W2: Any
    b2: Any
    W3: Any
    b3: Any


class _Carry(NamedTuple):
    ring: Array
    """(8, slots) latents of the last steps, newest first."""
    states: Array
    """(lanes,) uint32."""
    taken: Array
    """Bytes read in this call."""
    found: Array
    """(512, slots) int8, latents of the steps of this call."""


def _rshift(value: Array, n: int) -> Array:
    return (value + (1 << (n - 1))) >> n


def _product(weights: Array, values: Array) -> Array:
    """A product whose sums stay below 2^24 in size, through float32, which is exact there."""
    product = jnp.matmul(weights, values.astype(jnp.float32), precision=jax.lax.Precision.HIGHEST)
    return product.astype(jnp.int32)


def _wide_product(weights: Array, hidden: Array) -> Array:
    """A product with values in [0, 2^14), as two whose sums stay below 2^24."""
    both = _product(weights, jnp.concatenate([hidden >> 7, hidden & 127], axis=1))
    high, low = jnp.split(both, 2, axis=1)
    return (high << 7) + low


def _predict(net: Network, x: Array) -> tuple[Array, Array]:
    first, linear = jnp.split(_product(net.inputs, x), [len(net.b1)])
    h1 = jnp.clip(_rshift(first + net.b1[:, None], 2), 0, MAX_HIDDEN)
    a2 = _wide_product(net.W2, h1) + (net.b2 << 8)[:, None]
    h2 = jnp.clip(h1 + jnp.clip(_rshift(a2, 10), 0, MAX_HIDDEN), 0, MAX_HIDDEN)
    o = _rshift(_wide_product(net.W3, h2), 8) + linear + net.b3[:, None]
    place = jnp.clip(_rshift(o[0], 6), -MAX_LATENT * MEANS, MAX_LATENT * MEANS)
    log_scale = jnp.clip(o[1], -(1 << 17), 1 << 17)
    scale = jnp.clip(_rshift(5 * log_scale, 10) + CENTRE, 0, SCALES - 1)
    centre = _rshift(place, 4)
    return scale * MEANS + place - MEANS * centre + MEANS // 2, centre


def _inputs(ring: Array, coarse: Array, row: Array, column: Array, columns: Array) -> Array:
    rotated = [ring, jnp.roll(ring, 1, 1), jnp.roll(ring, 2, 1)]
    rows: list[Array] = []
    for dr, dc in NEIGHBOURS:
        value = rotated[-dr][-STEPS_PER_ROW * dr - dc - 1]
        inside = (row + dr >= 0) & (column + dc >= 0) & (column + dc < columns)
        rows.append(jnp.where(inside, value, 0))
    return jnp.concatenate([jnp.stack(rows), coarse.astype(jnp.int32)])


def _symbols(
    tables: tuple[Array, ...], rows: Array, active: Array, states: Array, code: Array, taken: Array
) -> tuple[Array, Array, Array]:
    """Decode one group: index of each symbol, new states, bytes taken."""
    sums, starts = tables
    low = (states & 0xFFFF).astype(jnp.int32)
    near = jnp.minimum(low, 0xFFFF - low) + 1
    cut = jax.lax.bitcast_convert_type(near.astype(jnp.float32), jnp.int32) >> 19
    bucket = cut - (127 << 4) + (low >> 15) * (BUCKETS // 2)
    base = rows * _STRIDE
    index = base + _look_up(starts, rows * BUCKETS + bucket).astype(jnp.int32)
    for bit in (4, 2, 1):
        index = jnp.where(_look_up(sums, index + bit) <= low, index + bit, index)
    index = jax.lax.optimization_barrier(index)  # else every use searches again: half the speed
    start = _look_up(sums, index)
    size = _look_up(sums, index + 1) - start
    after = size.astype(jnp.uint32) * (states >> 16) + (low - start).astype(jnp.uint32)
    after = jax.lax.optimization_barrier(after)
    once, twice = active & (after < 1 << LOW), active & (after < 1 << (LOW - 8))
    count = once.astype(jnp.int32) + twice.astype(jnp.int32)
    ends = jnp.cumsum(count)
    at = taken + ends - count
    first, second = (_look_up(code, at + i).astype(jnp.uint32) for i in (0, 1))
    after = jnp.where(once, after << 8 | first, after)
    after = jnp.where(twice, after << 8 | second, after)
    return index - base, jnp.where(active, after, states), taken + ends[-1]


def _look_up(table: Array, index: Array) -> Array:
    """``table[index]`` for indices known to be inside: no test for negative or large ones."""
    return table.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)


@functools.partial(jax.jit, static_argnames=("lanes",))
def _steps(
    net: Network,
    tables: tuple[Array, ...],
    geometry: Array,
    coarse: Array,
    code: Array,
    ring: Array,
    states: Array,
    *,
    lanes: int,
) -> tuple[Array, Array, Array, Array]:
    slots = ring.shape[1]
    slot = jnp.arange(slots, dtype=jnp.int32)
    first, count, rows, columns = geometry

    def step(i: Array, carry: _Carry) -> _Carry:
        t = first + i
        row = slot + slots * ((jnp.minimum(t // STEPS_PER_ROW, rows - 1) - slot) // slots)
        column = t - STEPS_PER_ROW * row
        active = (row >= 0) & (column < columns)
        x = _inputs(
            carry.ring, jax.lax.dynamic_index_in_dim(coarse, i, 0, False), row, column, columns
        )
        line, centre = _predict(net, x)
        states, taken, parts = carry.states, carry.taken, list[Array]()
        for part in range(0, slots, lanes):
            at = slice(part, part + lanes)
            index, states, taken = _symbols(tables, line[at], active[at], states, code, taken)
            parts.append(index)
        value = jnp.clip(centre + jnp.concatenate(parts) - MAX_LATENT, -MAX_LATENT, MAX_LATENT)
        value = jnp.where(active, value, 0)
        ring = jnp.concatenate([value[None], carry.ring[:-1]])
        new = value.astype(jnp.int8)
        found = jax.lax.dynamic_update_index_in_dim(carry.found, new, i, 0)
        return _Carry(ring, states, taken, found)

    found = jnp.zeros((_CHUNK, slots), jnp.int8)
    start = _Carry(ring, states, jnp.zeros((), jnp.int32), found)
    end = jax.lax.fori_loop(0, count, step, start)
    return end.found, end.ring, end.states, end.taken


def decode_latents(
    model: ImageModel,
    levels: tuple[Level, ...],
    coded: tuple[bool, ...],
    states: NDArray[np.uint32],
    code: NDArray[np.uint8],
) -> tuple[list[NDArray[np.int8]], NDArray[np.uint32], int]:
    """Latents of all levels, finest first, the last states, and the number of bytes read.

    Args:
        model: Parameters; only those of the context network are used.
        levels: Sizes, finest first.
        coded: Which levels are in the stream; the others are zero.
        states: First state of every lane.
        code: The stream, and perhaps more behind it.
    """
    found = [np.zeros((level.rows, level.columns), np.int8) for level in levels]
    coder: tuple[Any, int] = (states, 0)
    for i in reversed(range(len(levels))):
        if coded[i]:
            coder = _decode_level(model, levels[i], found, i, coder, code)
    return found, np.asarray(coder[0]), coder[1]


def _decode_level(
    model: ImageModel,
    level: Level,
    found: list[NDArray[np.int8]],
    i: int,
    coder: tuple[Any, int],
    code: NDArray[np.uint8],
) -> tuple[Any, int]:
    net = _network(model, i)
    coarse, coarser = coarser_levels(found, i)
    ring: Any = np.zeros((_AGE, level.slots), np.int32)
    states, taken = coder
    for first in range(0, level.steps, _CHUNK):
        if taken > len(code):
            break
        count = min(_CHUNK, level.steps - first)
        where = places(level, first, _CHUNK)
        row, column = where.row.clip(0, level.rows - 1), where.column.clip(0, level.columns - 1)
        x = coarse_inputs(coarse, coarser, row, column).transpose(1, 0, 2)
        window = np.zeros(2 * _CHUNK * level.slots + 2, np.uint8)
        mine = code[taken : taken + len(window)]
        window[: len(mine)] = mine
        geometry = np.array([first, count, level.rows, level.columns], np.int32)
        latents, ring, states, read = _steps(
            net, _tables(), geometry, x, window, ring, states, lanes=len(states)
        )
        taken += int(read)
        new = np.asarray(latents)[:count]
        on = where.active[:count]
        found[i][row[:count][on], column[:count][on]] = new[on]
    return states, taken


def _network(model: ImageModel, level: int) -> Network:
    inputs = np.concatenate([model.W1, model.V]).astype(np.float32)
    middle, last = model.W2.astype(np.float32), model.W3.astype(np.float32)
    return Network(inputs, model.b1[level], middle, model.b2, last, model.b3)


@functools.cache
def _tables() -> tuple[Array, ...]:
    return tuple(jnp.asarray(table) for table in symbol_tables())
