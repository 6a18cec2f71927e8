"""From rays to colours through a radiance field: the samplers of the methods.

Letters: S samples, R rays; t distance along a ray, s in [0, 1] the normalised
distance of mip-NeRF 360 (Sec. 2): linear in 1/t from near to far, or in a root of that. Space is
contracted into the ball of radius 2 (Eq. 10) and halved, so that fields live in [-1, 1]^3; what
lies in the unit ball of the training frame is not contracted.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from lumefield import render
from lumefield.apps._radiance_march import marched
from lumefield.apps._radiance_rays import Rays, Sampling, Seen
from lumefield.render import volume


def density_at(field: Any, x: Float[Array, "*s 3"]) -> Float[Array, "*s"]:  # noqa: ANN401
    """Density of the field at points of the training frame, per training unit."""
    return field.density(volume.contract(x) / 2)[0]


def colour_at(field: Any, x: Array, d: Array, look: Array | None = None) -> tuple[Array, Array]:  # noqa: ANN401
    """Density (*s,) and display sRGB (*s, 3) at points of the training frame, seen along ``d``."""
    sigma, features = field.density(volume.contract(x) / 2)
    return sigma, field.colour(features, d, look)


def trace(
    sampling: Sampling,
    field: Any,  # noqa: ANN401
    occupied: Array | None,
    rays: Rays,
    key: PRNGKeyArray | None,
    anneal: Array | float = 1.0,
    distortion: Array | float | None = None,
) -> Seen:
    """Colours, depths and opacities of rays; differentiable in the field and the rays.

    Args:
        sampling: How to sample.
        field: A ``RadianceField``.
        occupied: (L, n, n, n) bits; None where rays are not marched.
        rays: R rays.
        key: Jitters the samples; None draws without chance.
        anneal: Exponent of the proposal's weights (mip-NeRF 360, Eq. 18), 1 at last.
        distortion: Weight of the distortion loss in ``Seen.cost``; None leaves it out.
    """
    if sampling.way == "marched":
        assert occupied is not None, "marching needs an occupancy"
        return marched(sampling, field, occupied, rays, key)
    return _resampled(sampling, field, rays, key, anneal, distortion)


# -- proposals and hierarchical sampling -----------------------------------------------------


def _resampled(
    sampling: Sampling,
    field: Any,  # noqa: ANN401
    rays: Rays,
    key: PRNGKeyArray | None,
    anneal: Array | float,
    distortion: Array | float | None,
) -> Seen:
    edges, rounds, coarse = _rounds(sampling, field, rays, key, anneal)
    if key is None and sampling.quarters:
        return _quartered(sampling, field, rays, edges)
    x, cov, dt, t = _samples(sampling, rays, edges)
    sigma, features = field.density(x, cov)
    rgb = field.colour(features, rays.direction[None], _rows(rays.look))
    if sampling.calm:
        part = jnp.minimum(t * t, 1)
        sigma, rgb = _calmed(sigma, part), _calmed(rgb, part[..., None])
    tau = sigma * dt
    out, left = render.composite_samples(tau, jnp.concatenate([rgb, t[..., None]], -1))
    cost = jnp.zeros((), out.dtype)
    if key is not None and sampling.way == "proposed":
        weights = volume.ray_weights(tau)
        for before, proposed in rounds:
            cost = cost + jnp.mean(volume.proposal_loss(edges, weights, before, proposed))
        if distortion is not None:
            cost = cost + distortion * jnp.mean(volume.distortion_loss(edges, weights))
    return Seen(
        rgb=out[:, :3],
        depth=out[:, 3],
        opacity=1 - left,
        used=jnp.ones(left.shape, bool),
        samples=jnp.asarray(tau.size, jnp.int32),
        coarse=coarse,
        cost=cost,
    )


def _rounds(
    sampling: Sampling,
    field: Any,  # noqa: ANN401
    rays: Rays,
    key: PRNGKeyArray | None,
    anneal: Array | float,
) -> tuple[Array, list[tuple[Array, Array]], Array | None]:
    """Edges of the last intervals, edges and weights of the rounds before, a coarse picture."""
    zero = jnp.zeros(rays.radius.shape, rays.radius.dtype)
    keys = [None] * len(sampling.counts) if key is None else jax.random.split(key, 8)
    edges = volume.stratified(zero, zero + 1, sampling.counts[0], keys[0])
    rounds: list[tuple[Array, Array]] = []
    coarse = None
    for k, count in enumerate(sampling.counts[1:]):
        x, cov, dt, _ = _samples(sampling, rays, edges)
        if sampling.way == "hierarchical":
            sigma, features = field.coarse.density(x)
            rgb = field.coarse.colour(features, rays.direction[None], _rows(rays.look))
            out, left = render.composite_samples(sigma * dt, rgb)
            coarse = jnp.concatenate([out, 1 - left[:, None]], -1)
        else:
            sigma = field.proposals(x, cov, k)
        weights = volume.ray_weights(sigma * dt)
        rounds.append((edges, weights))
        sure = jax.lax.stop_gradient(weights)
        edges = volume.importance(
            edges, (sure + 1e-8) ** anneal, count, keys[k + 1], padding=sampling.padding
        )
    return edges, rounds, coarse


def proposed_weights(
    sampling: Sampling,
    field: Any,  # noqa: ANN401
    rays: Rays,
) -> list[Array]:
    """Weights (S, R) of the rounds that place samples; differentiable in the field."""
    if sampling.way == "marched":
        return []
    return [weights for _, weights in _rounds(sampling, field, rays, None, 1.0)[1]]


def _quartered(
    sampling: Sampling,
    field: Any,  # noqa: ANN401
    rays: Rays,
    edges: Array,
) -> Seen:
    """What cones see whose four quarters have densities of their own, and one colour per interval.

    The edge of a thing covers a part of a pixel. One density per interval cannot say that: it
    either hides what lies behind or does not, and silhouettes alias however wide the Gaussian is.
    So each quarter is composited for itself (as multisampling does on graphics hardware), and the
    means of their weights and of their features, by weight, are what the pixel sees.
    """
    samples, count = edges.shape[0] - 1, rays.radius.shape[0]
    x, cov, dt, t = _samples(sampling, quarters(rays), jnp.tile(edges, (1, 4)))
    sigma, features = field.density(x, cov)
    each = volume.ray_weights(sigma * dt).reshape(samples, 4, count, 1)
    tiny = jnp.finfo(each.dtype).tiny
    share = each / jnp.maximum(jnp.sum(each, 1, keepdims=True), tiny)
    mixed = jnp.sum(share * features.reshape(samples, 4, count, -1), 1)
    weight = jnp.mean(each, 1)
    rgb = field.colour(mixed, rays.direction[None], _rows(rays.look))
    along = jnp.mean(t.reshape(samples, 4, count), 1)
    return Seen(
        rgb=jnp.sum(weight * rgb, 0),
        depth=jnp.sum(weight[..., 0] * along, 0),
        opacity=jnp.sum(weight[..., 0], 0),
        used=jnp.ones((count,), bool),
        samples=jnp.asarray(sigma.size, jnp.int32),
        coarse=None,
        cost=jnp.zeros((), rgb.dtype),
    )


def quarters(rays: Rays) -> Rays:
    """Cones of the quarters of the square pixels that have the variance of the cones, (4 R) rays.

    The square is turned about the ray in a fixed way, not as the camera's pixels are.
    """
    d = rays.direction
    # What is least along the ray makes the best second axis.
    least = jax.nn.one_hot(jnp.argmin(jnp.abs(d), -1), 3, dtype=d.dtype)
    u = jnp.cross(d, least)
    u = u / jnp.linalg.norm(u, axis=-1, keepdims=True)
    v = jnp.cross(d, u)
    side = (12**0.5 / 2) * rays.radius[:, None]
    parts = [d + side / 4 * (a * u + b * v) for a in (-1, 1) for b in (-1, 1)]
    return Rays(
        origin=jnp.tile(rays.origin, (4, 1)),
        direction=jnp.concatenate(parts),
        radius=jnp.tile(rays.radius / 2, 4),
        look=None,
    )


def _calmed(x: Array, part: Array) -> Array:
    """``x`` with this part of its gradient."""
    return x * part + jax.lax.stop_gradient(x * (1 - part))


def _rows(look: Array | None) -> Array | None:
    return None if look is None else look[None]


def _samples(
    sampling: Sampling, rays: Rays, edges: Array
) -> tuple[Array, Array | None, Array, Array]:
    """Points of [-1, 1]^3 with covariances, lengths and distances of the intervals of s edges."""
    first, last = (d ** (-1 / sampling.root) for d in (sampling.near, sampling.far))
    t = 1 / (edges * last + (1 - edges) * first) ** sampling.root
    dt = t[1:] - t[:-1]
    if not sampling.cones:
        middle = (t[1:] + t[:-1]) / 2
        x = rays.origin[None] + middle[..., None] * rays.direction[None]
        return volume.contract(x) / 2, None, dt, middle
    mean, cov = volume.cone_gaussians(rays.origin, rays.direction, t, rays.radius)
    along = jnp.sum((mean - rays.origin[None]) * rays.direction[None], -1)
    mean, cov = volume.contract_gaussians(mean, cov)
    return mean / 2, cov / 4, dt, along
