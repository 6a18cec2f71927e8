"""Where to sample a ray: intervals between edges, in layout [samples, rays].

Letters: S samples, R rays; t distance along a ray in lengths of its direction.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, PRNGKeyArray

from lumefield.render._ray_backends import on_rays
from lumefield.render.volume import _native


def ray_box(
    origin: Array, direction: Array, half: float = 1.0, *, near: float = 0.0
) -> tuple[Float[Array, "*r"], Float[Array, "*r"]]:
    """Where rays enter and leave the box [-half, half]^3.

    Args:
        origin: (*r, 3).
        direction: (*r, 3), not zero.
        half: Half the edge of the box.
        near: Nothing before this distance counts.

    Returns:
        near and far distances, (*r,) each, in lengths of the direction; both ``near`` where the ray
        misses the box.

    Raises:
        ValueError: If the shapes do not fit.
    """
    if origin.shape != direction.shape or origin.shape[-1:] != (3,):
        raise ValueError(
            f"origin has shape {origin.shape}, direction {direction.shape}, expected (*r, 3) both"
        )
    small = jnp.finfo(direction.dtype).tiny ** 0.5
    safe = jnp.where(jnp.abs(direction) > small, direction, small)
    a, b = (-half - origin) / safe, (half - origin) / safe
    enter = jnp.maximum(jnp.max(jnp.minimum(a, b), -1), near)
    leave = jnp.min(jnp.maximum(a, b), -1)
    hit = leave > enter
    return jnp.where(hit, enter, near), jnp.where(hit, leave, near)


def stratified(
    near: Array,
    far: Array,
    n: int,
    key: PRNGKeyArray | None = None,
    *,
    spacing: str = "linear",
) -> Float[Array, "_ r"]:
    """Edges of ``n`` intervals that tile each ray from near to far.

    With a key every inner edge moves at random by up to half an interval to either side. To stay in
    the normalised distance s of mip-NeRF 360 take near = 0 and far = 1 here and in ``importance``,
    and map edges by t = 1 / (s / far + (1 - s) / near).

    Args:
        near: (R,) first edge; > 0 for "disparity".
        far: (R,) last edge.
        n: Number of intervals.
        key: Random key; None gives equal intervals.
        spacing: "linear" in t, or "disparity": linear in 1/t.

    Returns:
        (n+1, R) edges, non-decreasing along the first axis.

    Raises:
        ValueError: If ``n`` < 1, the shapes differ or the spacing is unknown.

    Example:
        >>> stratified(jnp.zeros(1), jnp.ones(1), 2)[:, 0]
        Array([0. , 0.5, 1. ], dtype=float32)
    """
    if n < 1:
        raise ValueError(f"n={n}, expected at least one interval")
    if near.ndim != 1 or near.shape != far.shape:
        raise ValueError(f"near has shape {near.shape}, far {far.shape}, expected (R,) both")
    if spacing not in ("linear", "disparity"):
        raise ValueError(f"spacing={spacing!r}, expected linear or disparity")
    s = _fractions(n, near.shape[0], near.dtype, key)
    if spacing == "linear":
        inner = near[None] * (1 - s) + far[None] * s
    else:
        inner = 1 / ((1 - s) / near[None] + s / far[None])
    return jnp.concatenate([near[None], inner[1:-1], far[None]])


def _fractions(n: int, rays: int, dtype: jnp.dtype, key: PRNGKeyArray | None) -> Array:
    """(n+1, R) increasing from exactly 0 to exactly 1; inner ones jittered with a key."""
    i = jnp.arange(n + 1, dtype=dtype)[:, None]
    if key is None:
        return jnp.broadcast_to(i / n, (n + 1, rays))
    jitter = jax.random.uniform(key, (n + 1, rays), dtype, -0.5, 0.5)
    inner = (i > 0) & (i < n)
    return (i + jnp.where(inner, jitter, 0.0)) / n


def importance(
    t_edges: Array,
    weights: Array,
    n: int,
    key: PRNGKeyArray | None = None,
    *,
    padding: float = 0.01,
    backend: str = "auto",
) -> Float[Array, "_ r"]:
    """Edges at equal shares of the weight of a ray: the inverse of its cumulative distribution.

    Mildenhall et al., "NeRF", 2020, Sec. 5.2; padding as in mip-NeRF, Eq. 18. The first and last
    edge stay, so that the new intervals tile the same ray. No gradient flows through.

    Args:
        t_edges: (S+1, R), non-decreasing.
        weights: (S, R), >= 0, of any total.
        n: Number of new intervals.
        key: Random key that jitters the shares; None takes i / n.
        padding: Added to every weight, so that no part of the ray is lost.
        backend: "native" (CPU, float32), "xla" or "auto".

    Returns:
        (n+1, R) edges, non-decreasing up to rounding.

    Raises:
        ValueError: If the shapes do not fit, ``n`` < 1 or the backend cannot do it.
    """
    check_edges(t_edges, weights)
    if n < 1:
        raise ValueError(f"n={n}, expected at least one interval")
    t_edges, weights = lax.stop_gradient((t_edges, weights))
    tiny = float(jnp.finfo(weights.dtype).tiny)
    share = weights + jnp.maximum(padding, tiny)
    share = jnp.maximum(share / jnp.sum(share, 0)[None], tiny)
    u = _fractions(n, weights.shape[1], weights.dtype, key)
    kernels = {"native": _native.quantiles, "xla": _quantiles}
    t = on_rays(backend, weights.dtype, t_edges, share, u, **kernels)
    inner = jnp.clip(t[1:-1], t_edges[:1], t_edges[-1:])
    return jnp.concatenate([t_edges[:1], inner, t_edges[-1:]])


def _quantiles(t_edges: Array, share: Array, u: Array) -> Array:
    """The inverse of a piecewise linear function as a sum over its pieces, without a search.

    t_0 + sum_s width_s clip((u - below_s) / share_s, 0, 1).
    """

    def piece(
        carry: tuple[Array, Array], item: tuple[Array, Array]
    ) -> tuple[tuple[Array, Array], None]:
        below, t = carry
        p, width = item
        part = jnp.clip((u - below[None]) * (1 / p)[None], 0, 1)
        return (below + p, t + width[None] * part), None

    start = (jnp.zeros_like(share[0]), jnp.broadcast_to(t_edges[:1], u.shape))
    return lax.scan(piece, start, (share, t_edges[1:] - t_edges[:-1]), unroll=4)[0][1]


def check_edges(t_edges: Array, weights: Array, what: str = "") -> None:
    """Raise unless there is one more edge than weights along the first axis."""
    if weights.ndim != 2 or t_edges.shape != (weights.shape[0] + 1, weights.shape[1]):
        raise ValueError(
            f"{what}t_edges has shape {t_edges.shape}, {what}weights {weights.shape}, expected "
            "(S+1, R) and (S, R); samples first, rays second"
        )
