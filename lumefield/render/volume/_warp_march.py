"""Marching on an NVIDIA GPU: every ray is walked through the occupancy grid by a thread of its own.

The walk of ``_march`` in two kernels: one counts the steps that a ray keeps, one writes them where
the running sum of the counts says, so that samples are packed in order without atomics. Empty cells
and, where bricks of 4^3 cells tile the levels, empty bricks are left in one go.

Letters: K steps, R rays, L levels of n^3 cells; o origin and d direction of a ray, k a step. This
file imports warp: import it where a kernel is called.
"""

from typing import no_type_check

import jax.numpy as jnp
import warp as wp
from jax import Array

from lumefield import native

wp.set_module_options({"enable_backward": False, "fast_math": False})

BRICK = 4
"""Cells along the edge of a brick."""

_BRICK = wp.constant(wp.int32(BRICK))
_SMALL = wp.constant(wp.float32(1e-12))


@no_type_check
@wp.func
def distance(edges: wp.array[wp.float32], k: wp.int32, jitter: wp.float32) -> wp.float32:
    """Where step k is sampled."""
    return edges[k] + jitter * (edges[k + 1] - edges[k])


@no_type_check
@wp.func
def leave(
    o: wp.vec3, d: wp.vec3, i: wp.vec3i, size: wp.int32, n: wp.int32, half: wp.float32
) -> wp.float32:
    """Distance at which a ray leaves the cube of ``size``^3 cells that holds cell i of a level."""
    first = wp.float32(wp.inf)
    for a in range(3):
        along = d[a]
        face = (i[a] / size) * size
        if along > 0.0:
            face += size
        if wp.abs(along) <= _SMALL:
            along = wp.float32(_SMALL)
        first = wp.min(
            first, (wp.float32(face) * (2.0 * half / wp.float32(n)) - half - o[a]) / along
        )
    return first


@no_type_check
@wp.func
def skip(
    edges: wp.array[wp.float32],
    level: wp.array[wp.int32],
    jitter: wp.float32,
    k: wp.int32,
    t: wp.float32,
    end: wp.float32,
) -> wp.int32:
    """The first step after k at or behind ``end``, or where the steps change their level.

    Steps only grow, so dividing by the length of one that lies too far gives no step too many.
    """
    steps = level.shape[0]
    same = level[k]
    to = wp.int32(k + 1)
    most = wp.float32(steps)
    jump = wp.int32(wp.clamp((end - t) / (edges[k + 1] - edges[k]), 0.0, most))
    far = wp.clamp(k + 1 + jump, 0, steps - 1)
    jump = wp.int32(wp.clamp((end - t) / (edges[far + 1] - edges[far]), 0.0, most))
    if jump > 1 and k + jump < steps:
        if level[k + jump] == same:
            to = k + jump
    while to < steps:
        if level[to] != same:
            break
        if not distance(edges, to, jitter) < end:
            break
        to += 1
    return to


@no_type_check
@wp.func
def advance(
    cells: wp.array4d[wp.uint8],
    bricks: wp.array4d[wp.uint8],
    edges: wp.array[wp.float32],
    level: wp.array[wp.int32],
    o: wp.vec3,
    d: wp.vec3,
    jitter: wp.float32,
    k: wp.int32,
    t: wp.float32,
) -> wp.vec2i:
    """(next step to look at, whether the cell of step k is occupied)."""
    n = cells.shape[1]
    x = o + t * d
    size = wp.max(wp.max(wp.abs(x[0]), wp.abs(x[1])), wp.abs(x[2]))
    l = wp.int32(level[k])
    half = wp.float32(1 << l)
    while l < cells.shape[0] - 1 and size >= half:
        l += 1
        half *= 2.0
    u = x * (0.5 * wp.float32(n) / half) + wp.vec3(0.5 * wp.float32(n))
    edge = wp.float32(n)
    if not (wp.min(u) >= 0.0 and wp.max(u) < edge):
        return wp.vec2i(k + 1, 0)
    i = wp.vec3i(wp.int32(u[0]), wp.int32(u[1]), wp.int32(u[2]))
    if cells[l, i[0], i[1], i[2]] != wp.uint8(0):
        return wp.vec2i(k + 1, 1)
    cube = wp.int32(1)
    if bricks.shape[1] > 0:
        if bricks[l, i[0] / _BRICK, i[1] / _BRICK, i[2] / _BRICK] == wp.uint8(0):
            cube = wp.int32(_BRICK)
    return wp.vec2i(skip(edges, level, jitter, k, t, leave(o, d, i, cube, n, half)), 0)


@no_type_check
@wp.kernel
def count_steps(
    cells: wp.array4d[wp.uint8],
    bricks: wp.array4d[wp.uint8],
    origin: wp.array[wp.vec3],
    direction: wp.array[wp.vec3],
    near: wp.array[wp.float32],
    far: wp.array[wp.float32],
    jitter: wp.array[wp.float32],
    edges: wp.array[wp.float32],
    level: wp.array[wp.int32],
    first: wp.array[wp.int32],
    limit: wp.int32,
    step: wp.array[wp.int32],
    found: wp.array[wp.int32],
) -> None:
    """How many steps a ray keeps, and the step to go on with."""
    ray = wp.tid()
    k = wp.int32(first[ray])
    kept = wp.int32(0)
    while k < level.shape[0] and kept < limit:
        t = distance(edges, k, jitter[ray])
        if not t < far[ray]:
            break
        ahead = advance(cells, bricks, edges, level, origin[ray], direction[ray], jitter[ray], k, t)
        if t >= near[ray]:
            kept += ahead[1]
        k = ahead[0]
    step[ray] = k
    found[ray] = kept


@no_type_check
@wp.kernel
def fill_steps(
    cells: wp.array4d[wp.uint8],
    bricks: wp.array4d[wp.uint8],
    origin: wp.array[wp.vec3],
    direction: wp.array[wp.vec3],
    near: wp.array[wp.float32],
    far: wp.array[wp.float32],
    jitter: wp.array[wp.float32],
    edges: wp.array[wp.float32],
    level: wp.array[wp.int32],
    first: wp.array[wp.int32],
    start: wp.array[wp.int32],
    limit: wp.int32,
    kept: wp.array[wp.int32],
) -> None:
    """The numbers of the steps a ray keeps, from its start on; dropped rays start at the end."""
    ray = wp.tid()
    k = wp.int32(first[ray])
    to = wp.int32(start[ray])
    last = wp.min(kept.shape[0], to + limit)
    while k < level.shape[0] and to < last:
        t = distance(edges, k, jitter[ray])
        if not t < far[ray]:
            break
        ahead = advance(cells, bricks, edges, level, origin[ray], direction[ray], jitter[ray], k, t)
        if ahead[1] == 1 and t >= near[ray]:
            kept[to] = k
            to += 1
        k = ahead[0]


def _bricks(occupied: Array) -> Array:
    """(L, b, b, b) whether any cell of a brick is occupied; b = 0 where bricks do not fit.

    The inner half of a level, which the next finer one covers, must be whole bricks.
    """
    levels, n = occupied.shape[:2]
    if n % (4 * BRICK):
        return jnp.zeros((levels, 0, 0, 0), jnp.uint8)
    b = n // BRICK
    return occupied.reshape(levels, b, BRICK, b, BRICK, b, BRICK).max((2, 4, 6))


def count(occupied: Array, *arrays: Array, limit: int) -> tuple[Array, Array]:
    """(R,) step to go on with and (R,) steps kept, at most ``limit``.

    Args:
        occupied: (L, n, n, n) uint8.
        *arrays: origin, direction, near, far, jitter of R >= 1 rays; edges (K+1,), level (K,) and
            the (R,) step to begin with.
        limit: At most this many of a ray.
    """
    rays = arrays[2].shape
    shapes = {"step": rays, "found": rays}
    given = (occupied, _bricks(occupied), *arrays, limit)
    step, found = native.warp_call(count_steps, shapes, *given, dims=rays[0])
    return step, found


def fill(occupied: Array, *arrays: Array, limit: int, capacity: int) -> Array:
    """(capacity,) numbers of the kept steps, 0 where there is none.

    Args:
        occupied: (L, n, n, n) uint8.
        *arrays: As in ``count``, and (R,) where to put the steps of each ray.
        limit: At most this many of a ray.
        capacity: Size of the result; a ray that starts there is not written.
    """
    given = (occupied, _bricks(occupied), *arrays, limit, jnp.zeros((capacity,), jnp.int32))
    rays = arrays[2].shape[0]
    return native.warp_call(fill_steps, {}, *given, dims=rays, in_out=("kept",))[0]
