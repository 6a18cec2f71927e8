"""Tile lists of the `warp` backend as kernels: which tiles a Gaussian meets, and in which order.

A Gaussian meets the tiles in which its ellipse e = 1/255 may reach a pixel centre: row of tiles by
row of tiles, the ellipse's exact extent in x over the pixel rows in it (an opacity-aware, tight
test). Each meeting is a **slot**; the slots of a Gaussian are neighbours, in depth order. A stable
sort by tile (done by XLA, on CUDA a radix sort) then yields every tile's list front to back.

Letters: n Gaussians, r depth rank, x, y, u, v, w as in ``composite_gaussians``, cut = ln(255 o):
the ellipse is sigma = cut. (``no_type_check`` keeps the type checks of the tests off the kernels.)
"""

from typing import no_type_check

import warp as wp

from lumefield.render import _spec

wp.set_module_options({"enable_backward": False, "fast_math": False})

TILE = 16
"""Edge of a tile in pixels."""

_ALPHA_MIN = wp.constant(wp.float32(_spec.ALPHA_MIN))
_TILE = wp.constant(wp.int32(TILE))
_EDGE = wp.constant(wp.float32(TILE))

Row = wp.types.vector(length=8, dtype=wp.float32)
"""x, y, u, v, w, opacity, cut, half height in pixels."""


@no_type_check
@wp.func
def row_of(xy: wp.vec2, factor: wp.vec3, opacity: wp.float32) -> Row:
    """What lists and tiles read of a Gaussian; half height -1 where nothing can be seen."""
    cut = wp.log(wp.max(opacity, 1.0e-30) / _ALPHA_MIN)
    height = wp.sqrt(2.0 * wp.max(cut, 0.0)) * 1.0001 / factor[2] + 1.0e-3
    known = wp.isfinite(xy[0]) and wp.isfinite(xy[1]) and wp.isfinite(factor[0])
    known = known and wp.isfinite(factor[1]) and wp.isfinite(factor[2]) and wp.isfinite(height)
    if not (known and opacity >= _ALPHA_MIN):
        height = -1.0
    return Row(xy[0], xy[1], factor[0], factor[1], factor[2], opacity, cut, height)


@no_type_check
@wp.func
def tile_rows(g: Row, count: wp.int32) -> wp.vec2i:
    """First row of tiles that a Gaussian may meet and the one after its last."""
    if g[7] < 0.0:
        return wp.vec2i(0, 0)
    most = wp.float32(count) * _EDGE
    low = wp.clamp(g[1] - g[7] - 0.5, 0.0, most)
    high = wp.clamp(g[1] + g[7] - 0.5, -1.0, most - 1.0)
    return wp.vec2i(wp.int32(wp.floor(low / _EDGE)), wp.int32(wp.floor(high / _EDGE)) + 1)


@no_type_check
@wp.func
def tile_span(g: Row, ty: wp.int32, columns: wp.int32) -> wp.vec2i:
    """First tile of row ``ty`` whose pixel centres the ellipse may reach, and how many."""
    u, v, w = g[2], g[3], g[4]
    reach = wp.sqrt(2.0 * g[6]) * 1.0001
    tall = reach / w
    top = wp.float32(ty) * _EDGE + 0.5 - g[1]
    low = wp.max(top - 1.0e-3, -tall)
    high = wp.min(top + _EDGE - 1.0 + 1.0e-3, tall)
    if low > high:
        return wp.vec2i(0, 0)
    # x of the ellipse at dy is (-v dy +- sqrt(reach^2 - (w dy)^2)) / u, its right end furthest at:
    furthest = -v * reach / (w * wp.sqrt(w * w + v * v))
    right_dy = wp.clamp(furthest, low, high)
    left_dy = wp.clamp(-furthest, low, high)
    right_q = wp.sqrt(wp.max(reach * reach - w * w * right_dy * right_dy, 0.0))
    left_q = wp.sqrt(wp.max(reach * reach - w * w * left_dy * left_dy, 0.0))
    right = (right_q - v * right_dy) / u
    left = -(left_q + v * left_dy) / u
    spare = 1.0e-3 + 1.0e-6 * (wp.abs(g[0]) + wp.abs(right) + wp.abs(left))
    most = wp.float32(columns) * _EDGE
    # numbers of the first and the last pixel column whose centre lies inside
    first = wp.ceil(wp.clamp(g[0] + left - spare - 0.5, 0.0, most))
    last = wp.floor(wp.clamp(g[0] + right + spare - 0.5, -1.0, most - 1.0))
    x0 = wp.int32(wp.floor(first / _EDGE))
    x1 = wp.int32(wp.floor(last / _EDGE))
    return wp.vec2i(x0, wp.max(x1 - x0 + 1, 0))


@no_type_check
@wp.kernel
def measure(
    xy: wp.array[wp.vec2],
    factor: wp.array[wp.vec3],
    opacities: wp.array[wp.float32],
    columns: wp.int32,
    rows: wp.int32,
    touched: wp.array[wp.int32],
) -> None:
    """How many tiles each Gaussian meets; one thread a Gaussian."""
    i = wp.tid()
    g = row_of(xy[i], factor[i], opacities[i])
    span = tile_rows(g, rows)
    count = wp.int32(0)
    for ty in range(span[0], span[1]):
        count += tile_span(g, ty, columns)[1]
    touched[i] = count


@no_type_check
@wp.kernel
def gather(
    order: wp.array[wp.int32],
    xy: wp.array[wp.vec2],
    factor: wp.array[wp.vec3],
    opacities: wp.array[wp.float32],
    records: wp.array[Row],
) -> None:
    """Rows in depth order; one thread a rank."""
    r = wp.tid()
    i = order[r]
    records[r] = row_of(xy[i], factor[i], opacities[i])


@no_type_check
@wp.kernel
def emit(
    records: wp.array[Row],
    start: wp.array[wp.int32],
    total: wp.array[wp.int32],
    columns: wp.int32,
    rows: wp.int32,
    tile: wp.array[wp.uint32],
    owner: wp.array[wp.int32],
) -> None:
    """Tile and rank of each slot; one thread a slot, so that huge Gaussians do not hold up others.

    ``start`` (n,) is the first slot of each rank, ``total`` (1,) the slots in use. Slots beyond it
    get the tile after the last one.
    """
    s = wp.tid()
    n = start.shape[0]
    if s >= total[0]:
        tile[s] = wp.uint32(columns * rows)
        owner[s] = n
        return
    low = wp.int32(0)  # the last rank whose first slot is not after s
    high = n
    while high - low > 1:
        middle = (low + high) / 2
        if start[middle] <= s:
            low = middle
        else:
            high = middle
    g = records[low]
    left = s - start[low]
    found = columns * rows
    span = tile_rows(g, rows)
    for ty in range(span[0], span[1]):
        x = tile_span(g, ty, columns)
        if left >= 0 and left < x[1]:
            found = ty * columns + x[0] + left
        left -= x[1]
    tile[s] = wp.uint32(found)
    owner[s] = low


@no_type_check
@wp.kernel
def list_edges(tile: wp.array[wp.uint32], edges: wp.array[wp.int32]) -> None:
    """First place of each tile in the sorted slots; one thread a tile, one more for the end."""
    t = wp.tid()
    low = wp.int32(0)
    high = tile.shape[0]
    while low < high:
        middle = (low + high) / 2
        if tile[middle] < wp.uint32(t):
            low = middle + 1
        else:
            high = middle
    edges[t] = low
