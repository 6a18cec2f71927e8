"""Compositing of samples along rays: the volume-rendering half of the shared kernel.

Max, "Optical Models for Direct Volume Rendering", 1995. Letters: T transmittance, S samples,
R rays, C channels; w_i = T_i (1 - exp(-tau_i)), T_{i+1} = T_i exp(-tau_i). A ray stops once
T <= 1e-4; the sample that takes it there counts in full.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from lumefield.render._ray_backends import on_rays
from lumefield.render._spec import T_MIN

_Pair = tuple[Array, Array]


def composite_samples(
    tau: Array, values: Array, *, backend: str = "auto"
) -> tuple[Float[Array, "r c"], Float[Array, "r"]]:
    """Composite samples front to back along rays.

    One scan over samples each way; the backward keeps a residual instead of the weights, so that
    nothing is stored per sample. Sums are per ray, never running over rays. Differentiable in both.

    Args:
        tau: (S, R) optical depth, density times step, >= 0; 0 pads short rays.
        values: (S, R, C) channels of the samples, near to far.
        backend: "warp" (NVIDIA GPU, and slowly the CPU; float32), "xla" or "auto".

    Returns:
        (R, C) sum of w value, no background; (R,) transmittance in [0, 1].

    Raises:
        ValueError: If the shapes or dtypes do not fit or the backend cannot do it.

    Example:
        >>> out, t = composite_samples(jnp.ones((4, 2)), jnp.ones((4, 2, 3)))
        >>> out.shape, t.shape
        ((2, 3), (2,))
    """
    if tau.ndim != 2 or values.ndim != 3 or values.shape[:2] != tau.shape:
        raise ValueError(
            f"tau has shape {tau.shape}, values {values.shape}, expected (S, R) and (S, R, C); "
            "samples first, rays second"
        )
    if tau.dtype != values.dtype:
        raise ValueError(f"tau is {tau.dtype}, values {values.dtype}, expected one float type")
    warp = _by_warp if tau.size else _composite
    return on_rays(backend, tau.dtype, tau, values, warp=warp, xla=_composite)


def _by_warp(tau: Array, values: Array) -> _Pair:
    from lumefield.render import _warp_samples  # loads warp

    return _warp_samples.composite_samples(tau, values)


@jax.custom_vjp
def _composite(tau: Array, values: Array) -> _Pair:
    def step(carry: _Pair, item: _Pair) -> tuple[_Pair, None]:
        t, out = carry
        depth, value = item
        depth = jnp.where(t > T_MIN, depth, 0.0)
        weight = -t * jnp.expm1(-depth)
        return (t * jnp.exp(-depth), out + weight[:, None] * value), None

    init = (jnp.ones(tau.shape[1:], tau.dtype), jnp.zeros(values.shape[1:], tau.dtype))
    (t, out), _ = lax.scan(step, init, (tau, values), unroll=4)
    return out, t


def _composite_fwd(tau: Array, values: Array) -> tuple[_Pair, tuple[Array, ...]]:
    out, t = _composite(tau, values)
    return (out, t), (tau, values, out, t)


def _composite_bwd(saved: tuple[Array, ...], grads: _Pair) -> _Pair:
    tau, values, out, t_final = saved
    g, g_t = grads

    def step(carry: _Pair, item: _Pair) -> tuple[_Pair, _Pair]:
        t, rest = carry
        depth, value = item
        live = t > T_MIN
        depth = jnp.where(live, depth, 0.0)
        weight = -t * jnp.expm1(-depth)
        after = t * jnp.exp(-depth)
        toward = jnp.sum(g * value, -1)
        rest = rest - weight * toward
        g_tau = jnp.where(live, after * toward - rest, 0.0)
        return (after, rest), (g_tau, weight[:, None] * g)

    init = (jnp.ones_like(t_final), jnp.sum(g * out, -1) + g_t * t_final)
    _, (g_tau, g_values) = lax.scan(step, init, (tau, values), unroll=4)
    return g_tau, g_values


_composite.defvjp(_composite_fwd, _composite_bwd)
