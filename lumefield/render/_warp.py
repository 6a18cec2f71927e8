"""The `warp` backend: splats by kernels written in NVIDIA Warp, float32, one camera a call.

Gaussians are ranked by depth once. A **batch** is the longest run of ranks whose slots (meetings
of a Gaussian and a tile) fit the static capacity; its lists are made by ``_warp_lists`` and
composited by ``_warp_tiles``. Batch after batch carries T and the colours along inside the call,
so nothing is ever dropped: too small a capacity costs time only. In the usual case, where all fit
into the first batch, its lists are kept for the backward pass.

Whether there is a second batch XLA looks up on the host. A plan of a **single** batch spares that:
where its slots do not suffice, T is NaN everywhere, and the caller asks again with more.

This file imports warp only when a kernel is called.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import sequential_vmap

from lumefield import native
from lumefield.render._channels import in_groups

MAX_CAPACITY = 2**22
"""Slots of one batch, at most (unless there are more tiles than that)."""

_TILE = 16
_CULLED = 0xFFFFFFFF


def one_by_one(
    f: Callable[..., tuple[Array, ...]], static: tuple[Any, ...]
) -> Callable[..., tuple[Array, ...]]:
    """``f`` with ``static`` bound; ``vmap`` runs one after the other, as a loop would."""
    return sequential_vmap(functools.partial(f, static))


class Plan(NamedTuple):
    """Static sizes of one composite; hashable."""

    height: int
    width: int
    capacity: int
    probed: bool
    """Whether the sums of |dL/dxy| are wanted."""
    single: bool
    """Whether there is one batch only; T is NaN where that is not enough."""

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return -(-self.width // _TILE)

    @property
    def rows(self) -> int:
        """Rows of tiles."""
        return -(-self.height // _TILE)

    @property
    def tiles(self) -> int:
        """Tiles of the image."""
        return self.columns * self.rows


class Ranked(NamedTuple):
    """Gaussians in depth order, the visible ones first."""

    order: Array
    """(N,) int32 rank -> index."""
    touched: Array
    """(N,) int32 tiles met by each rank, 0 where not visible."""
    records: Array
    """(N, 8): what ``_warp_lists.Row`` says."""


class Lists(NamedTuple):
    """The tile lists of one batch of ranks."""

    edges: Array
    """(tiles + 1,) first place of each tile in ``slots``."""
    slots: Array
    """(capacity,) slots sorted by tile, each tile's in depth order."""
    owner: Array
    """(capacity,) rank of each slot."""
    start: Array
    """(N,) first slot of each rank."""
    taken: Array
    """(N,) slots of each rank, 0 outside the batch."""
    last: Array
    """() the rank after the last one of the batch."""


def default_capacity(n: int, height: int, width: int) -> int:
    """Power of two: about 4 slots for each Gaussian, never fewer than the tiles."""
    tiles = -(-width // _TILE) * -(-height // _TILE)
    wanted = min(max(4 * n, 4096), n * tiles, MAX_CAPACITY)
    return 2 ** math.ceil(math.log2(max(wanted, tiles, 2)))


def _rank(plan: Plan, xy: Array, factor: Array, opacities: Array, depth: Array) -> Ranked:
    from lumefield.render import _warp_lists as kernels

    n = xy.shape[0]
    geometry = (xy, factor, opacities)
    (touched,) = native.warp_call(
        kernels.measure, {"touched": (n,)}, *geometry, plan.columns, plan.rows, dims=n
    )
    touched = jnp.where(jnp.isfinite(depth), touched, 0)
    # float order as unsigned order: negative numbers mirrored; 0 and -0 are the same depth
    bits = lax.bitcast_convert_type(jnp.where(depth == 0, jnp.float32(0), depth), jnp.uint32)
    sign = jnp.uint32(0x80000000)
    key = jnp.where(touched > 0, jnp.where(bits < sign, bits | sign, ~bits), jnp.uint32(_CULLED))
    index = jnp.arange(n, dtype=jnp.int32)
    _, order = lax.sort((key, index), num_keys=1, is_stable=True)
    (records,) = native.warp_call(kernels.gather, {"records": (n, 8)}, order, *geometry, dims=n)
    return Ranked(order, touched[order], records)


def _lists(plan: Plan, ranked: Ranked, first: Array) -> Lists:
    """Tile lists of the ranks from ``first`` on that fit."""
    from lumefield.render import _warp_lists as kernels

    n, cap = ranked.touched.shape[0], plan.capacity
    rank = jnp.arange(n, dtype=jnp.int32)
    waiting = jnp.where(rank >= first, ranked.touched, 0)
    filled = lax.cumsum(waiting)  # may wrap around, but not before it has passed the capacity
    last = jnp.min(jnp.where(filled > cap, rank, n))
    taken = jnp.where(rank < last, waiting, 0)
    total = jnp.sum(taken, dtype=jnp.int32)[None]
    start = jnp.where(rank < last, filled - waiting, total)
    tile, owner = native.warp_call(
        kernels.emit,
        {"tile": (cap,), "owner": (cap,)},
        ranked.records,
        start,
        total,
        plan.columns,
        plan.rows,
        dims=cap,
    )
    slot = jnp.arange(cap, dtype=jnp.int32)
    tile, slots = lax.sort((tile, slot), num_keys=1, is_stable=True)
    (edges,) = native.warp_call(
        kernels.list_edges, {"edges": (plan.tiles + 1,)}, tile, dims=plan.tiles + 1
    )
    return Lists(edges, slots, owner, start, taken, last)


_Carry = tuple[Array, ...]


def _visible(ranked: Ranked) -> Array:
    """How many ranks meet a tile."""
    return jnp.sum(ranked.touched > 0, dtype=jnp.int32)


def _holds_all(plan: Plan, ranked: Ranked) -> bool:
    """Whether there cannot be a second batch."""
    return plan.capacity >= ranked.touched.shape[0] * plan.tiles


def _over_batches(
    plan: Plan,
    ranked: Ranked,
    first: Lists,
    carry: _Carry,
    step: Callable[[Lists, _Carry], _Carry],
) -> _Carry:
    """Run ``step`` over the first batch, whose lists are given, and all others."""
    if plan.single or _holds_all(plan, ranked):
        return step(first, carry)
    visible = _visible(ranked)

    def body(loop: tuple[Array, _Carry]) -> tuple[Array, _Carry]:
        lists = _lists(plan, ranked, loop[0])
        return lists.last, step(lists, loop[1])

    loop = (first.last, step(first, carry))
    return lax.while_loop(lambda loop: loop[0] < visible, body, loop)[1]


def _forward(
    plan: Plan, xy: Array, factor: Array, opacities: Array, depth: Array, values: Array
) -> tuple[Array, ...]:
    from lumefield.render import _warp_tiles as kernels

    ranked = _rank(plan, xy, factor, opacities, depth)
    lists = _lists(plan, ranked, jnp.zeros((), jnp.int32))
    kernel = kernels.forward(values.shape[1])

    def step(lists: Lists, carry: _Carry) -> _Carry:
        image, trans = native.warp_call(
            kernel,
            {},
            *lists[:3],
            ranked.order,
            ranked.records,
            values,
            *carry,
            dims=(plan.tiles, kernels.BLOCK),
            block=kernels.BLOCK,
            in_out=("image", "trans"),
        )
        return image, trans

    size = (plan.height, plan.width)
    clear = jnp.float32(1)
    if plan.single and not _holds_all(plan, ranked):
        clear = jnp.where(lists.last < _visible(ranked), jnp.float32(jnp.nan), clear)
    blank = (jnp.zeros((*size, values.shape[1]), jnp.float32), jnp.full(size, clear))
    return (*_over_batches(plan, ranked, lists, blank, step), *ranked, *lists)


def _backward(plan: Plan, *arrays: Array) -> tuple[Array, ...]:
    from lumefield.render import _warp_tiles as kernels

    values, image, trans, g_image, g_trans = arrays[:5]
    ranked, lists = Ranked(*arrays[5:8]), Lists(*arrays[8:])
    n, channels = values.shape
    kind = (channels, plan.probed)
    sums_shape = (plan.capacity, kernels.moments(*kind))

    def step(lists: Lists, carry: _Carry) -> _Carry:
        trans, rest, sums = native.warp_call(
            kernels.backward(*kind),
            {"sums": sums_shape},
            *lists[:3],
            ranked.order,
            ranked.records,
            values,
            g_image,
            *carry[:2],
            dims=(plan.tiles, kernels.BLOCK),
            block=kernels.BLOCK,
            in_out=("trans", "rest"),
        )
        grads = native.warp_call(
            kernels.reduce(*kind),
            {},
            ranked.order,
            ranked.records,
            lists.start,
            lists.taken,
            sums,
            *carry[2:],
            dims=(-(-n // kernels.BLOCK), kernels.BLOCK),
            block=kernels.BLOCK,
            in_out=("g_xy", "g_factor", "g_opacities", "g_values", "g_probe"),
        )
        return trans, rest, *grads

    rest = jnp.sum(g_image * image, -1) + g_trans * trans
    shapes = ((n, 2), (n, 3), (n,), (n, channels), (n, 2))
    zeros = tuple(jnp.zeros(shape, jnp.float32) for shape in shapes)
    return _over_batches(plan, ranked, lists, (jnp.ones_like(trans), rest, *zeros), step)[2:]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _composite(plan: Plan, *inputs: Array) -> tuple[Array, Array]:
    return _composite_fwd(plan, *inputs)[0]


def _composite_fwd(plan: Plan, *inputs: Array) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
    image, trans, *lists = one_by_one(_forward, plan)(*inputs[:5])
    return (image, trans), (inputs[4], image, trans, *lists)


def _composite_bwd(
    plan: Plan, saved: tuple[Array, ...], grads: tuple[Array, Array]
) -> tuple[Array, ...]:
    done = one_by_one(_backward, plan)(*saved[:3], *grads, *saved[3:])
    xy, factor, opacities, values, probe = done
    return xy, factor, opacities, jnp.zeros_like(opacities), values, probe


_composite.defvjp(_composite_fwd, _composite_bwd)


def composite(
    xy: Array,
    factor: Array,
    opacities: Array,
    depth: Array,
    values: Array,
    probe: Array | None = None,
    *,
    height: int,
    width: int,
    capacity: int | None = None,
    single: bool = False,
) -> tuple[Array, Array]:
    """Composite projected Gaussians; see ``composite_gaussians``. Any number of channels.

    Args:
        xy: (N, 2), N >= 1; this and the others up to ``width`` as in ``_native.composite``.
        factor: (N, 3).
        opacities: (N,).
        depth: (N,).
        values: (N, C).
        probe: (N, 2) or None.
        height: Rows.
        width: Columns.
        capacity: Slots of one batch; rounded up to a power of two and to the tile count.
        single: Whether there is one batch only.

    Returns:
        (H, W, C) image and (H, W) transmittance, NaN where a single batch is not enough.
    """
    wanted = default_capacity(xy.shape[0], height, width) if capacity is None else capacity
    least = default_capacity(1, height, width)
    size = max(2 ** math.ceil(math.log2(max(wanted, 2))), least)
    plan = Plan(height, width, size, probed=probe is not None, single=single)
    probe = jnp.zeros_like(xy) if probe is None else probe
    geometry = (xy, factor, opacities, depth)

    def part(values: Array) -> tuple[Array, Array]:
        return _composite(plan, *geometry, values, probe)

    return in_groups(part, values)
