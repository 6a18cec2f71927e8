"""Weights of samples along rays, and the losses that act on them, in layout [samples, rays].

Barron et al., "Mip-NeRF 360", 2022. Letters: S samples, R rays; T transmittance, w weight, m middle
and d width of an interval.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from lumefield.render._ray_backends import on_rays
from lumefield.render.volume import _native
from lumefield.render.volume._sampling import check_edges


@jax.custom_vjp
def _weights(tau: Array) -> Array:
    def step(t: Array, depth: Array) -> tuple[Array, Array]:
        return t * jnp.exp(-depth), -t * jnp.expm1(-depth)

    return lax.scan(step, jnp.ones(tau.shape[1:], tau.dtype), tau, unroll=4)[1]


def _weights_fwd(tau: Array) -> tuple[Array, tuple[Array, Array]]:
    weights = _weights(tau)
    return weights, (tau, weights)


def _weights_bwd(saved: tuple[Array, Array], g: Array) -> tuple[Array]:
    tau, weights = saved

    def step(
        carry: tuple[Array, Array], item: tuple[Array, ...]
    ) -> tuple[tuple[Array, Array], Array]:
        t, rest = carry
        depth, weight, slope = item
        after, rest = t * jnp.exp(-depth), rest - weight * slope
        return (after, rest), after * slope - rest

    init = (jnp.ones(tau.shape[1:], tau.dtype), jnp.sum(weights * g, 0))
    return (lax.scan(step, init, (tau, weights, g), unroll=4)[1],)


_weights.defvjp(_weights_fwd, _weights_bwd)


def ray_weights(tau: Array) -> Float[Array, "s r"]:
    r"""Weights w_i = T_i (1 - exp(-tau_i)) of the samples of rays, front to back.

    The weights of ``composite_samples``, without its stop at T <= 1e-4: for proposals and losses.
    Differentiable (reverse mode), with one scan each way.

    Args:
        tau: (S, R) optical depth, density times step, >= 0.

    Returns:
        Weights >= 0 whose sum over the first axis is at most 1.

    Raises:
        ValueError: If ``tau`` has not two axes.
    """
    if tau.ndim != 2:
        raise ValueError(f"tau has shape {tau.shape}, expected (S, R); samples first, rays second")
    return _weights(tau)


def distortion_loss(t_edges: Array, weights: Array) -> Float[Array, "r"]:
    r"""How far the weight of a ray is spread out, Eq. 15:

        sum_ij w_i w_j |m_i - m_j| + 1/3 sum_i w_i^2 d_i

    in O(S): the mean distance to what came before grows by (weight so far) x (step of m), a sum of
    non-negative terms, so that nothing cancels far away. Differentiable in both.

    Args:
        t_edges: (S+1, R), non-decreasing. The paper takes the normalised distance s in [0, 1].
        weights: (S, R), >= 0.

    Returns:
        (R,) loss per ray, in units of ``t_edges``.

    Raises:
        ValueError: If the shapes do not fit.
    """  # noqa: D415
    check_edges(t_edges, weights)
    middle, width = (t_edges[1:] + t_edges[:-1]) / 2, t_edges[1:] - t_edges[:-1]
    apart = jnp.concatenate([jnp.zeros_like(middle[:1]), middle[1:] - middle[:-1]])

    def step(carry: tuple[Array, ...], item: tuple[Array, Array]) -> tuple[tuple[Array, ...], None]:
        total, before, spread = carry
        w, gap = item
        spread = spread + before * gap  # sum_j<i w_j (m_i - m_j)
        return (total + w * spread, before + w, spread), None

    zero = jnp.zeros(weights.shape[1:], weights.dtype)
    (pairs, _, _), _ = lax.scan(step, (zero, zero, zero), (weights, apart), unroll=4)
    return 2 * pairs + jnp.sum(weights * weights * width, 0) / 3


def proposal_loss(
    t_edges: Array,
    weights: Array,
    proposal_edges: Array,
    proposal_weights: Array,
    *,
    backend: str = "auto",
) -> Float[Array, "r"]:
    """What the weights exceed of the bound that proposals put on them, Eq. 13.

    sum_i max(0, w_i - bound_i)^2 / (w_i + eps), bound_i the sum of the proposal weights whose
    intervals overlap interval i. Differentiable in ``proposal_weights`` only: the finer
    histogram is the teacher, as in the paper.

    Args:
        t_edges: (S+1, R) edges of the final samples.
        weights: (S, R).
        proposal_edges: (P+1, R) edges of the proposal's samples, in the same distance.
        proposal_weights: (P, R).
        backend: "native" (CPU, float32), "xla" or "auto".

    Raises:
        ValueError: If the shapes do not fit or the backend cannot do it.
    """
    check_edges(t_edges, weights)
    check_edges(proposal_edges, proposal_weights, "proposal_")
    if proposal_weights.shape[1] != weights.shape[1]:
        raise ValueError(
            f"proposal_weights has {proposal_weights.shape[1]} rays, weights {weights.shape[1]}, "
            "expected the same rays"
        )
    t_edges, weights, edges = lax.stop_gradient((t_edges, weights, proposal_edges))
    bounds: Array = _bounds(backend, t_edges, edges, proposal_weights)
    excess = jnp.maximum(weights - bounds, 0)
    return jnp.sum(excess * excess / (weights + jnp.finfo(weights.dtype).eps), 0)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _bounds(backend: str, edges: Array, others: Array, values: Array) -> Any:  # noqa: ANN401
    """(S, R) sums of the values of those of the other intervals that overlap each; linear."""
    kernels = {"native": _native.overlaps, "xla": _overlaps}
    return on_rays(backend, values.dtype, edges, others, values, **kernels)


def _bounds_fwd(
    backend: str, edges: Array, others: Array, values: Array
) -> tuple[Array, tuple[Array, Array]]:
    return _bounds(backend, edges, others, values), (edges, others)


def _bounds_bwd(backend: str, saved: tuple[Array, Array], g: Array) -> tuple[None, None, Array]:
    edges, others = saved
    return None, None, _bounds(backend, others, edges, g)  # to overlap is mutual


_bounds.defvjp(_bounds_fwd, _bounds_bwd)


def _overlaps(edges: Array, others: Array, values: Array) -> Array:
    def add(total: Array, item: tuple[Array, ...]) -> tuple[Array, None]:
        first, last, value = (x[None] for x in item)
        return total + jnp.where((last > edges[:-1]) & (first < edges[1:]), value, 0.0), None

    return lax.scan(add, jnp.zeros_like(edges[1:]), (others[:-1], others[1:], values), unroll=4)[0]
