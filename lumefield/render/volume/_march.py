"""Marching rays through an occupancy grid into packed samples of static shape.

Müller et al., "Instant Neural Graphics Primitives", 2022, App. E. We differ in the schedule: all
rays share one table of step edges e_k, so that the samples are those of plain stepping,
t_k = e_k + jitter (e_{k+1} - e_k), of which only those in occupied cells are kept. What is skipped
never changes what is sampled. Letters: K steps, M capacity, R rays, L levels of n^3 cells; level l
covers [-2^l, 2^l]^3.
"""

import math
import typing
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array, lax
from jaxtyping import Float, Int32, PRNGKeyArray

from lumefield.render._ray_backends import on_rays
from lumefield.render.volume import _native
from lumefield.render.volume._packed import rays_of

SMALL = 1e-12
"""A direction component below this is taken as this."""


@typing.no_type_check
@struct.dataclass
class Packed:
    """Samples of rays, one ray after another; what does not fit is dropped ray by ray."""

    t: Float[Array, "m"]
    """Distance along the ray; 0 beyond the last sample."""
    dt: Float[Array, "m"]
    """Length of the step; 0 beyond the last sample, so that its optical depth is 0."""
    ray: Int32[Array, "m"]
    """Which ray; 0 beyond the last sample."""
    start: Int32[Array, "r+1"]
    """Ray r owns samples start[r] .. start[r+1] - 1; start[r] of a dropped ray is the end."""
    reached: Float[Array, "r"]
    """From where to march on: far when the ray is done, near when it was dropped."""
    total: Int32[Array, ""]
    """Samples that all rays together asked for; more than the capacity means dropped rays."""
    rays_used: Int32[Array, ""]
    """Rays 0 .. rays_used - 1 are complete, the others were dropped whole."""

    def points(self, origin: Array, direction: Array) -> Float[Array, "m 3"]:
        """Where the samples are, from the (R, 3) rays; differentiable in both."""
        return origin[self.ray] + self.t[:, None] * direction[self.ray]

    def used(self) -> Array:
        """(R,) bool: rays that were not dropped."""
        return jnp.arange(self.start.shape[0] - 1, dtype=jnp.int32) < self.rays_used


def step_edges(
    step: float, reach: float, *, cone: float = 0.0, longest: float = math.inf
) -> np.ndarray:
    """Edges of marching steps from 0 on: each max(step, min(cone t, longest)) long.

    Args:
        step: Shortest step in world units; 2 sqrt(3) / 1024 for a scene in [-1, 1]^3.
        reach: The last edge is at or behind this distance: the largest ``far`` of any ray.
        cone: Steps grow as ``cone`` times the distance; 0 keeps them equal, 1/256 is Instant-NGP's.
        longest: No step is longer, except for ``step``.

    Returns:
        (K+1,) float32 array.

    Raises:
        ValueError: If ``step`` is not positive, or there would be more than a million steps.
    """
    if not (step > 0 and math.isfinite(reach) and cone >= 0):
        raise ValueError(f"step={step}, reach={reach}, cone={cone}, expected step > 0, cone >= 0")
    edges = [0.0]
    while edges[-1] < reach:
        if len(edges) > 1_000_000:
            raise ValueError(f"step={step} to reach={reach} is over a million steps; take a longer")
        edges.append(edges[-1] + max(step, min(cone * edges[-1], longest)))
    return np.asarray(edges if len(edges) > 1 else [0.0, step], np.float32)


def march(
    occupied: Array,
    origin: Array,
    direction: Array,
    near: Array,
    far: Array,
    edges: Array | np.ndarray,
    *,
    capacity: int,
    key: PRNGKeyArray | None = None,
    limit: int | None = None,
    backend: str = "auto",
) -> Packed:
    """Samples of rays in the occupied cells of a cascade of grids; empty cells are skipped.

    The cell of a sample is in the finest level that contains it and has cells no narrower than the
    step. No gradient flows through; ``Packed.points`` carries that of poses. The same for
    any number of threads. A sample within rounding of a cell's face may turn over between backends.

    Args:
        occupied: (L, n, n, n) uint8, axes x, y, z; 0 is empty. n a multiple of 4, a coarser cell
            occupied where one of its finer cells is, as ``Occupancy`` makes it.
        origin: (R, 3) in the units of the cascade: level 0 is [-1, 1]^3.
        direction: (R, 3) unit vectors.
        near: (R,) first distance; ``ray_box(origin, direction, 2 ** (L - 1))`` gives both.
        far: (R,) end; far <= near gives no sample. Nothing lies behind ``edges[-1]``.
        edges: (K+1,) edges of the steps from ``step_edges``; no step shorter than the one before.
        capacity: M, static: the size of the result. Rays are kept in order while they fit.
        key: Jitters the samples of each ray within their steps; None takes the middles.
        limit: At most this many samples of a ray in this call; go on from ``Packed.reached``.
        backend: "native" (CPU), "warp" (NVIDIA GPU, and slowly the CPU), both float32, "xla" or
            "auto".

    Raises:
        ValueError: If the shapes do not fit or the backend cannot do it.
    """
    _check(occupied, origin, direction, near, far)
    edges = jnp.asarray(edges, origin.dtype)
    if edges.ndim != 1 or edges.shape[0] < 2:
        raise ValueError(f"edges has shape {edges.shape}, expected (K+1,) with K >= 1 steps")
    steps = edges.shape[0] - 1
    limit = steps if limit is None else limit
    if capacity < 1 or limit < 1:
        raise ValueError(f"capacity={capacity}, limit={limit}, expected at least one sample")
    rays, dtype = near.shape[0], origin.dtype
    jitter = (
        jnp.full((rays,), 0.5, dtype) if key is None else jax.random.uniform(key, (rays,), dtype)
    )
    levels, n = occupied.shape[:2]
    length = edges[1:] - edges[:-1]
    widths = jnp.asarray([2.0 ** (i + 1) / n for i in range(levels - 1)], dtype)
    level = jnp.sum(length[:, None] > widths[None] * 1.00001, -1, dtype=jnp.int32)
    args = lax.stop_gradient((occupied, origin, direction, near, far, jitter, edges, level))

    def fast(*a: Array) -> tuple[Array, ...]:
        return _native.march(a[0], a[1:6], a[6], a[7], capacity, limit)

    def plain(*a: Array) -> tuple[Array, ...]:
        return _march(a[0], _Rays(*a[1:6]), a[6], a[7], capacity, limit, _walk)

    def warp(*a: Array) -> tuple[Array, ...]:
        return _march(a[0], _Rays(*a[1:6]), a[6], a[7], capacity, limit, _walk_by_warp)

    warp = warp if rays else plain
    done = on_rays(backend, dtype, *args, native=fast, warp=warp, xla=plain)
    t, dt, ray, start, reached, counts = lax.stop_gradient(done)
    return Packed(
        t=t, dt=dt, ray=ray, start=start, reached=reached, total=counts[0], rays_used=counts[1]
    )


def _check(occupied: Array, origin: Array, direction: Array, near: Array, far: Array) -> None:
    if occupied.ndim != 4 or len(set(occupied.shape[1:])) != 1 or occupied.shape[1] % 4:
        raise ValueError(
            f"occupied has shape {occupied.shape}, expected (L, n, n, n), n a multiple of 4"
        )
    if occupied.dtype != jnp.uint8:
        raise ValueError(f"occupied is {occupied.dtype}, expected uint8; use .astype('uint8')")
    rays = near.shape
    if len(rays) != 1 or far.shape != rays or origin.shape != (*rays, 3):
        raise ValueError(
            f"origin has shape {origin.shape}, near {near.shape}, far {far.shape}, expected "
            "(R, 3), (R,) and (R,)"
        )
    if direction.shape != origin.shape:
        raise ValueError(f"direction has shape {direction.shape}, expected {origin.shape}")


class _Rays(NamedTuple):
    origin: Array
    direction: Array
    near: Array
    far: Array
    jitter: Array


class _State(NamedTuple):
    step: Array
    found: Array
    kept: Array


class _Job(NamedTuple):
    """What walking along rays takes besides where to put the kept steps."""

    occupied: Array
    rays: _Rays
    edges: Array
    level: Array
    first: Array
    """(R,) step to begin with."""
    last: Array
    """(K,) one after the last step of the same level."""


def _march(
    occupied: Array,
    rays: _Rays,
    edges: Array,
    level: Array,
    capacity: int,
    limit: int,
    walk: Callable[[_Job, Array | None, int, int], _State],
) -> tuple[Array, ...]:
    """All rays twice: to count, and to write the numbers of the kept steps."""
    steps = level.shape[0]
    last = jnp.searchsorted(level, level, side="right").astype(jnp.int32)
    first = jnp.searchsorted(edges, rays.near, side="right").astype(jnp.int32) - 1
    job = _Job(occupied, rays, edges, level, jnp.maximum(first, 0), last)
    done = walk(job, None, 0, limit)
    ends = jnp.cumsum(done.found)
    fits = ends <= capacity
    used = jnp.sum(jnp.cumprod(fits.astype(jnp.int32)), dtype=jnp.int32)
    end = jnp.where(used > 0, ends[jnp.maximum(used - 1, 0)], 0)
    start = jnp.concatenate([jnp.zeros((1,), jnp.int32), jnp.where(fits, ends, end)])
    kept = walk(job, jnp.where(fits, start[:-1], capacity), capacity, limit).kept
    ray = rays_of(start, capacity)
    real = jnp.arange(capacity, dtype=jnp.int32) < start[-1]
    t = jnp.where(real, _distance(edges, rays.jitter[ray], kept), 0.0)
    dt = jnp.where(real, edges[kept + 1] - edges[kept], 0.0)
    stopped = (done.found >= limit) & fits
    on = jnp.where(stopped, edges[jnp.minimum(done.step, steps)], rays.far)
    reached = jnp.where(fits, jnp.minimum(on, rays.far), rays.near)
    return t, dt, ray, start, reached, jnp.stack([ends[-1], used])


def _walk(job: _Job, start: Array | None, capacity: int, limit: int) -> _State:
    """All rays in step: how many steps each keeps and, given where, which."""
    rays, edges, steps = job.rays, job.edges, job.level.shape[0]

    def step(state: _State) -> _State:
        t = _distance(edges, rays.jitter, state.step)
        alive = _alive(state, rays, t, steps, limit)
        at = job.level[jnp.minimum(state.step, steps - 1)]
        found, leave = _look(job.occupied, rays, t, at)
        emit = alive & found & (t >= rays.near)
        ahead = jnp.where(found, state.step + 1, _ahead(edges, job.last, state.step, t, leave))
        kept = state.kept
        if start is not None:
            to = jnp.where(emit, start + state.found, capacity)
            kept = kept.at[to].set(state.step, mode="drop")
        step = jnp.where(alive, ahead, state.step)
        return _State(step, state.found + emit.astype(jnp.int32), kept)

    def more(state: _State) -> Array:
        t = _distance(edges, rays.jitter, state.step)
        return jnp.any(_alive(state, rays, t, steps, limit))

    kept = jnp.zeros((capacity,), jnp.int32)
    zero = jnp.zeros(rays.near.shape, jnp.int32)
    return lax.while_loop(more, step, _State(job.first, zero, kept))


def _walk_by_warp(job: _Job, start: Array | None, capacity: int, limit: int) -> _State:
    """The same on an NVIDIA GPU: every ray by a thread of its own."""
    from lumefield.render.volume import _warp_march  # loads warp

    given = (job.occupied, *job.rays, job.edges, job.level, job.first)
    if start is None:
        step, found = _warp_march.count(*given, limit=limit)
        return _State(step, found, jnp.zeros((0,), jnp.int32))
    kept = _warp_march.fill(*given, start, limit=limit, capacity=capacity)
    return _State(job.first, job.first, kept)


def _distance(edges: Array, jitter: Array, step: Array) -> Array:
    at = jnp.minimum(step, edges.shape[0] - 2)
    return edges[at] + jitter * (edges[at + 1] - edges[at])


def _alive(state: _State, rays: _Rays, t: Array, steps: int, limit: int) -> Array:
    return (state.step < steps) & (t < rays.far) & (state.found < limit)


def _look(occupied: Array, rays: _Rays, t: Array, level: Array) -> tuple[Array, Array]:
    """Whether the cell at t is occupied, and the distance at which the ray leaves that cell."""
    levels, n = occupied.shape[:2]
    x = rays.origin + t[:, None] * rays.direction
    size = jnp.max(jnp.abs(x), -1)
    halves = jnp.asarray([2.0**i for i in range(levels - 1)], x.dtype)
    level = jnp.maximum(level, jnp.sum(size[:, None] >= halves[None], -1, dtype=jnp.int32))
    half = jnp.exp2(level.astype(x.dtype))
    cell = jnp.floor((x / half[:, None] + 1) * (n / 2))
    inside = jnp.all((cell >= 0) & (cell < n), -1)
    i = jnp.clip(cell, 0, n - 1).astype(jnp.int32)
    found = (occupied[level, i[:, 0], i[:, 1], i[:, 2]] != 0) & inside
    d = jnp.where(jnp.abs(rays.direction) > SMALL, rays.direction, SMALL)
    face = ((cell + (d > 0).astype(d.dtype)) * (2 / n) - 1) * half[:, None]
    leave = jnp.min((face - rays.origin) / d, -1)
    return found, leave


def _ahead(edges: Array, last: Array, step: Array, t: Array, leave: Array) -> Array:
    """A later step whose predecessors all lie before ``leave``; never beyond a change of level.

    Steps only grow, so (leave - t) / (length at a step known to be too far) is never too many.
    """
    steps = last.shape[0]
    at = jnp.minimum(step, steps - 1)
    ratio = (leave - t) / (edges[at + 1] - edges[at])
    far = at + jnp.clip(jnp.ceil(ratio), 0, steps).astype(jnp.int32)
    far = jnp.minimum(far, steps - 1)
    ratio = (leave - t) / (edges[far + 1] - edges[far])
    jump = jnp.clip(jnp.floor(ratio), 1, steps).astype(jnp.int32)
    return jnp.minimum(at + jump, jnp.maximum(last[at], at + 1))
