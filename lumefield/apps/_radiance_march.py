"""Rays that are marched through the occupied cells of a grid (Mueller et al. 2022, Sec. 5.4).

Letters: R rays, M packed samples; t distance along a ray.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import PRNGKeyArray
from numpy.typing import NDArray

from lumefield.apps._radiance_rays import Rays, Sampling, Seen
from lumefield.render import volume


def _span(sampling: Sampling, rays: Rays) -> tuple[Array, Array, NDArray[np.float32]]:
    """Where rays enter and leave the cascade, and the edges of their steps."""
    half = 2.0 ** (sampling.levels - 1)
    near, far = volume.ray_box(rays.origin, rays.direction, half, near=sampling.near)
    return near, far, volume.step_edges(sampling.step, 4 * half, cone=sampling.cone)


def march_on(
    sampling: Sampling,
    field: Any,  # noqa: ANN401
    occupied: Array,
    rays: Rays,
    start: Array,
    limit: int,
) -> tuple[Array, Array, Array]:
    """The next samples of rays, for drawing in rounds: whoever is opaque needs no further one.

    Args:
        sampling: How to sample.
        field: A ``RadianceField``.
        occupied: (L, n, n, n) bits.
        rays: R rays.
        start: (R,) distances to go on from.
        limit: Most samples of a ray in this round.

    Returns:
        (R, 4) colour and distance of the round's samples, (R,) what they let through, and (R,)
        distances to go on from; infinite at the end.
    """
    near, far, edges = _span(sampling, rays)
    packed = volume.march(
        occupied,
        rays.origin,
        rays.direction,
        jnp.maximum(near, start),
        far,
        edges,
        capacity=limit * rays.radius.shape[0],
        limit=limit,
    )
    out, left = _shaded(field, packed, rays)
    return out, left, jnp.where(packed.reached < far, packed.reached, jnp.inf)


def _shaded(field: Any, packed: volume.Packed, rays: Rays) -> tuple[Array, Array]:  # noqa: ANN401
    """Composited colour and distance (R, 4) of packed samples, and transmittance (R,)."""
    x = volume.contract(packed.points(rays.origin, rays.direction)) / 2
    sigma, features = field.density(x)
    look = None if rays.look is None else rays.look[packed.ray]
    rgb = field.colour(features, rays.direction[packed.ray], look)
    values = jnp.concatenate([rgb, packed.t[:, None]], -1)
    return volume.composite_packed(sigma * packed.dt, values, packed.start)


def marched(
    sampling: Sampling,
    field: Any,  # noqa: ANN401
    occupied: Array,
    rays: Rays,
    key: PRNGKeyArray | None,
) -> Seen:
    near, far, edges = _span(sampling, rays)
    packed = volume.march(
        occupied,
        rays.origin,
        rays.direction,
        near,
        far,
        edges,
        capacity=sampling.capacity,
        key=key,
    )
    packed, used = _unhidden(sampling, field, packed, rays)
    out, left = _shaded(field, packed, rays)
    return Seen(
        rgb=out[:, :3],
        depth=out[:, 3],
        opacity=1 - left,
        used=used,
        samples=packed.start[-1],
        coarse=None,
        cost=jnp.zeros((), out.dtype),
    )


def _unhidden(
    sampling: Sampling,
    field: Any,  # noqa: ANN401
    packed: volume.Packed,
    rays: Rays,
) -> tuple[volume.Packed, Array]:
    """Leave out what lies behind the stop of compositing, and rays that then find no room.

    A density without gradient tells (Instant-NGP compacts its samples so, too): in a trained scene
    most samples in occupied cells are hidden.
    """
    still, o, d = jax.lax.stop_gradient((field, rays.origin, rays.direction))
    tau = still.density(volume.contract(packed.points(o, d)) / 2)[0] * packed.dt

    def summed(values: Array) -> Array:
        return volume.composite_packed(tau, values, packed.start)[0]

    # The derivative of a composite by its values is the weights: 0 behind the stop.
    weights = jax.vjp(summed, jnp.zeros_like(tau)[:, None])[1](
        jnp.ones((rays.radius.shape[0], 1), tau.dtype)
    )[0][:, 0]
    seen = jax.lax.stop_gradient(weights) > 0
    before = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(seen, dtype=jnp.int32)])
    start = before[packed.start]
    fits = start <= sampling.kept
    used = packed.used() & fits[1:]
    end = jnp.max(jnp.where(fits, start, 0))
    at = jnp.nonzero(seen, size=sampling.kept, fill_value=0)[0]
    filled = jnp.arange(sampling.kept) < end
    return dataclasses.replace(
        packed,
        t=jnp.where(filled, packed.t[at], 0.0),
        dt=jnp.where(filled, packed.dt[at], 0.0),
        ray=jnp.where(filled, packed.ray[at], 0),
        start=jnp.minimum(start, end),
    ), used
