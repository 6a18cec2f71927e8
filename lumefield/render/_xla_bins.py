"""Tile lists of the `xla` backend: depth ranks, batches of them, and the layout of the tiles.

Gaussians are ranked by depth once. A **batch** is the longest run of ranks whose tile
intersections fit ``Plan.capacity``; its list holds each tile's ranks in depth order.

Letters: P pixels of a tile, G tiles of a group, C channels.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

from lumefield.render._spec import ALPHA_MIN

TILE = 16
"""Edge of a tile in pixels."""
GROUP = 32
"""Tiles composited together."""
MAX_CAPACITY = 2**21
"""Intersections of one batch, at most (unless there are more tiles than that)."""


class Plan(NamedTuple):
    """Static sizes of one composite; hashable."""

    height: int
    width: int
    capacity: int
    probed: bool = False
    """Whether the sums of |dL/dxy| are wanted."""

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return -(-self.width // TILE)

    @property
    def tiles(self) -> int:
        """Tiles of the image."""
        return self.columns * -(-self.height // TILE)

    @property
    def group(self) -> int:
        """Tiles of a group."""
        return min(GROUP, self.tiles)

    @property
    def groups(self) -> int:
        """Groups of the image; the last is filled with empty tiles."""
        return -(-self.tiles // self.group)


class Ranked(NamedTuple):
    """Gaussians in depth order, the visible ones first."""

    order: Array
    """(N,) rank -> index."""
    rows: Array
    """(N, 6 + C): x, y, u, v, w, opacity, values."""
    box: Array
    """(N, 4) int32 x0, y0, x1, y1 in tiles, half open."""
    touched: Array
    """(N,) int32 tiles of the box, 0 where not visible."""


def default_capacity(n: int, height: int, width: int) -> int:
    """Power of two: about 4 intersections for each Gaussian, never fewer than the tiles."""
    tiles = -(-width // TILE) * -(-height // TILE)
    wanted = min(max(4 * n, 4096), n * tiles, MAX_CAPACITY)
    return 2 ** math.ceil(math.log2(max(wanted, tiles, 2)))


def rank_by_depth(
    plan: Plan, xy: Array, factor: Array, opacities: Array, depth: Array, values: Array
) -> Ranked:
    """Cull, box the exact ellipse of e >= 1/255, and sort by depth (ties keep input order)."""
    u, v, w = factor[:, 0], factor[:, 1], factor[:, 2]
    cut = jnp.log(jnp.maximum(opacities, 1e-30) / ALPHA_MIN)
    reach = jnp.sqrt(2 * jnp.maximum(cut, 0.0)) * 1.0001
    slope = v / w
    half = jnp.stack([reach * jnp.sqrt(1 + slope * slope) / u, reach / w], -1) + 1e-3
    shape = (plan.columns, plan.tiles // plan.columns)
    low = [_tile_of(xy[:, i] - half[:, i] - 0.5, shape[i], 0) for i in range(2)]
    high = [_tile_of(xy[:, i] + half[:, i] - 0.5, shape[i], 1) for i in range(2)]
    tiles = jnp.maximum(high[0] - low[0], 0) * jnp.maximum(high[1] - low[1], 0)
    finite = jnp.isfinite(xy).all(-1) & jnp.isfinite(factor).all(-1) & jnp.isfinite(depth)
    count = jnp.where(finite & (opacities >= ALPHA_MIN), tiles, 0)

    order = jnp.argsort(jnp.where(count > 0, depth, jnp.inf), stable=True).astype(jnp.int32)
    rows = jnp.concatenate([xy, factor, opacities[:, None], values], -1)
    return Ranked(order, rows[order], jnp.stack([*low, *high], -1)[order], count[order])


def _tile_of(pixel: Array, tiles: int, add: int) -> Array:
    return jnp.clip(jnp.floor(pixel / TILE) + add, 0, tiles).astype(jnp.int32)


def tile_lists(plan: Plan, ranked: Ranked, first: Array) -> tuple[Array, Array, Array]:
    """Tile lists of the ranks from ``first`` on that fit.

    Returns:
        (capacity,) ranks grouped by tile in depth order, (tiles + 1,) edges of the tiles in it,
        and the rank after the last one taken.
    """
    n, cap = ranked.touched.shape[0], plan.capacity
    rank = jnp.arange(n, dtype=jnp.int32)
    bits = 32 - math.ceil(math.log2(plan.tiles + 1))  # key = tile | rank within the batch
    waiting = jnp.where(rank >= first, ranked.touched, 0)
    filled = lax.cumsum(waiting)  # may wrap around, but not before it has passed the capacity
    full = jnp.min(jnp.where(filled > cap, rank, n))
    last = jnp.minimum(full, first + min(2**bits, 2**30))
    waiting = jnp.where(rank < last, waiting, 0)
    start = filled - waiting
    total = jnp.sum(waiting, dtype=jnp.int32)

    # slot -> rank: write each rank at its first slot, then a running maximum
    slot = jnp.arange(cap, dtype=jnp.int32)
    heads = jnp.zeros(cap, jnp.int32).at[jnp.where(waiting > 0, start, cap)].max(rank, mode="drop")
    owner = lax.cummax(heads)
    box = ranked.box[owner]
    local, columns = slot - start[owner], jnp.maximum(box[:, 2] - box[:, 0], 1)
    tx, ty = box[:, 0] + local % columns, box[:, 1] + local // columns
    keep = (slot < total) & _touches(ranked.rows[owner, :6], tx, ty)
    tile = (ty * plan.columns + tx).astype(jnp.uint32)
    key = (tile << bits) | (owner - first).astype(jnp.uint32)
    key = jnp.sort(jnp.where(keep, key, jnp.uint32(0xFFFFFFFF)))
    edges = jnp.searchsorted(key, jnp.arange(plan.tiles + 1, dtype=jnp.uint32) << bits)
    ids = first + (key & jnp.uint32(2**bits - 1)).astype(jnp.int32)
    return jnp.minimum(ids, n - 1), edges.astype(jnp.int32), last


def _touches(rows: Array, tx: Array, ty: Array) -> Array:
    """Whether the ellipse e >= 1/255 reaches a pixel rectangle: exact minimum of sigma over it."""
    x, y, u, v, w, opacity = (rows[:, i] for i in range(6))
    x0 = (tx * TILE).astype(x.dtype) + 0.5 - x
    y0 = (ty * TILE).astype(x.dtype) + 0.5 - y
    x1, y1 = x0 + (TILE - 1), y0 + (TILE - 1)
    ex, ey = jnp.clip(0.0, x0, x1), jnp.clip(0.0, y0, y1)  # the edges that face the centre
    on_row = _sigma(u, v, w, jnp.clip(-v * ey / u, x0, x1), ey)
    on_column = _sigma(u, v, w, ex, jnp.clip(-u * v * ex / (v * v + w * w), y0, y1))
    cut = jnp.log(opacity / ALPHA_MIN)
    return jnp.minimum(on_row, on_column) <= cut * 1.001 + 1e-3


def _sigma(u: Array, v: Array, w: Array, dx: Array, dy: Array) -> Array:
    p, q = u * dx + v * dy, w * dy
    return 0.5 * (p * p + q * q)


def to_tiles(plan: Plan, image: Array) -> Array:
    """(H, W, C) -> (tiles of all groups, C, P), zero outside the image."""
    rows, columns = plan.tiles // plan.columns, plan.columns
    pad = ((0, rows * TILE - plan.height), (0, columns * TILE - plan.width), (0, 0))
    x = jnp.pad(image, pad).reshape(rows, TILE, columns, TILE, -1).transpose(0, 2, 4, 1, 3)
    x = x.reshape(plan.tiles, image.shape[-1], TILE * TILE)
    return jnp.pad(x, ((0, plan.groups * plan.group - plan.tiles), (0, 0), (0, 0)))


def to_image(plan: Plan, tiles: Array) -> Array:
    """The inverse of ``to_tiles``."""
    rows, columns = plan.tiles // plan.columns, plan.columns
    x = tiles[: plan.tiles].reshape(rows, columns, -1, TILE, TILE).transpose(0, 3, 1, 4, 2)
    return x.reshape(rows * TILE, columns * TILE, -1)[: plan.height, : plan.width]


def inside(plan: Plan, dtype: DTypeLike) -> Array:
    """(all tiles, P): 1 inside the image, 0 on the padding."""
    return to_tiles(plan, jnp.ones((plan.height, plan.width, 1), dtype))[:, 0]


class TileGroup(NamedTuple):
    """Lists and pixel centres of one group of tiles."""

    ids: Array
    """(capacity,) ranks of all tiles, grouped by tile."""
    start: Array
    """(G,) int32 first place of each tile in ``ids``."""
    end: Array
    """(G,) int32 place after its last; equal to ``start`` for the tiles that fill up a group."""
    px: Array
    """(G, P) pixel centres."""
    py: Array
    """(G, P) pixel centres."""


def tile_group(plan: Plan, ids: Array, edges: Array, tiles: Array, dtype: DTypeLike) -> TileGroup:
    """Lists and pixels, of type ``dtype``, of (G,) ``tiles``; the rest is from ``tile_lists``."""
    index = jnp.minimum(tiles, plan.tiles - 1)
    real = tiles < plan.tiles
    pixel = jnp.arange(TILE * TILE, dtype=jnp.int32)
    ox, oy = (index % plan.columns) * TILE, (index // plan.columns) * TILE
    return TileGroup(
        ids=ids,
        start=edges[index],
        end=jnp.where(real, edges[index + 1], edges[index]),
        px=(ox[:, None] + (pixel % TILE)[None]).astype(dtype) + 0.5,
        py=(oy[:, None] + (pixel // TILE)[None]).astype(dtype) + 0.5,
    )


def by_length(plan: Plan, edges: Array) -> Array:
    """(groups, G) tiles, the longest lists first, so that a group finishes together."""
    extra = plan.groups * plan.group - plan.tiles
    length = jnp.pad(edges[1:] - edges[:-1], (0, extra), constant_values=-1)
    return jnp.argsort(-length).astype(jnp.int32).reshape(plan.groups, plan.group)
