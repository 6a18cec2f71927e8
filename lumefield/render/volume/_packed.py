"""Compositing of packed samples: rays of unequal length, one after another in flat arrays.

The same rule as ``composite_samples`` (docs/render.md): w = T (1 - exp(-tau)), a ray stops once
T <= 1e-4, the sample that takes it there counts in full. Letters: M capacity, R rays, C channels.
Every sum runs within its ray: one running sum over all samples would lose 5e-3 of the image in
float32.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from lumefield.render._ray_backends import on_rays
from lumefield.render._spec import T_MIN
from lumefield.render.volume import _native

_Pair = tuple[Array, Array]


def composite_packed(
    tau: Array, values: Array, start: Array, *, backend: str = "auto"
) -> tuple[Float[Array, "r c"], Float[Array, "r"]]:
    """Composite packed samples front to back along their rays.

    One walk over the samples each way; the backward keeps a residual instead of the weights.
    Differentiable in ``tau`` and ``values``; samples behind the stop and beyond ``start[-1]`` get
    zero gradient.

    Args:
        tau: (M,) optical depth, density times step, >= 0.
        values: (M, C) channels of the samples, near to far.
        start: (R+1,) int32, non-decreasing; ray r owns samples start[r] .. start[r+1] - 1.
        backend: "native" (CPU), "warp" (NVIDIA GPU, and slowly the CPU), both float32, "xla" or
            "auto".

    Returns:
        (R, C) sum of w value, no background; (R,) transmittance in [0, 1], 1 for empty rays.

    Raises:
        ValueError: If the shapes or dtypes do not fit or the backend cannot do it.

    Example:
        >>> start = jnp.array([0, 2, 3], jnp.int32)
        >>> out, t = composite_packed(jnp.ones(3), jnp.ones((3, 4)), start)
        >>> out.shape, t.shape
        ((2, 4), (2,))
    """
    if tau.ndim != 1 or values.ndim != 2 or values.shape[:1] != tau.shape:
        raise ValueError(
            f"tau has shape {tau.shape}, values {values.shape}, expected (M,) and (M, C)"
        )
    if tau.dtype != values.dtype:
        raise ValueError(f"tau is {tau.dtype}, values {values.dtype}, expected one float type")
    if start.ndim != 1 or start.shape[0] < 1 or start.dtype != jnp.int32:
        raise ValueError(
            f"start is {start.dtype}{start.shape}, expected int32 (R+1,): where each ray begins, "
            "and the end of the last"
        )
    warp = _by_warp if tau.size and start.size > 1 else _composite
    kernels = {"native": _native.composite, "warp": warp, "xla": _composite}
    return on_rays(backend, tau.dtype, tau, values, start, **kernels)


def _by_warp(tau: Array, values: Array, start: Array) -> _Pair:
    from lumefield.render import _warp_samples  # loads warp

    return _warp_samples.composite_packed(tau, values, start)


def _counts(start: Array) -> tuple[Array, Array]:
    """(R,) samples of each ray and the largest number."""
    count = start[1:] - start[:-1]
    return count, jnp.max(count, initial=0)


@jax.custom_vjp
def _composite(tau: Array, values: Array, start: Array) -> _Pair:
    count, most = _counts(start)

    def step(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        i, t, out = carry
        at = start[:-1] + i
        depth = jnp.where((i < count) & (t > T_MIN), tau.at[at].get(mode="clip"), 0.0)
        weight = -t * jnp.expm1(-depth)
        value = values.at[at].get(mode="clip")
        return (
            i + 1,
            t * jnp.exp(-depth),
            out + jnp.where(weight[:, None] > 0, weight[:, None] * value, 0.0),
        )

    init = (
        jnp.zeros((), jnp.int32),
        jnp.ones(count.shape, tau.dtype),
        jnp.zeros((*count.shape, values.shape[1]), tau.dtype),
    )
    _, t, out = lax.while_loop(lambda c: c[0] < most, step, init)
    return out, t


def _composite_fwd(tau: Array, values: Array, start: Array) -> tuple[_Pair, tuple[Array, ...]]:
    out, t = _composite(tau, values, start)
    return (out, t), (tau, values, start, out, t)


def _composite_bwd(saved: tuple[Array, ...], grads: _Pair) -> tuple[Array, Array, None]:
    tau, values, start, out, t_final = saved
    g, g_t = grads
    count, most = _counts(start)

    def step(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        i, t, rest, g_tau, weights = carry
        at = start[:-1] + i
        live = (i < count) & (t > T_MIN)
        depth = jnp.where(live, tau.at[at].get(mode="clip"), 0.0)
        weight = -t * jnp.expm1(-depth)
        after = t * jnp.exp(-depth)
        value = jnp.where(live[:, None], values.at[at].get(mode="clip"), 0.0)
        toward = jnp.sum(g * value, -1)
        rest = rest - weight * toward
        to = jnp.where(live, at, tau.shape[0])
        put = partial(_put, to)
        return i + 1, after, rest, put(g_tau, after * toward - rest), put(weights, weight)

    init = (
        jnp.zeros((), jnp.int32),
        jnp.ones_like(t_final),
        jnp.sum(g * out, -1) + g_t * t_final,
        jnp.zeros_like(tau),
        jnp.zeros_like(tau),
    )
    _, _, _, g_tau, weights = lax.while_loop(lambda c: c[0] < most, step, init)
    return g_tau, weights[:, None] * g[rays_of(start, tau.shape[0])], None


def _put(at: Array, into: Array, x: Array) -> Array:
    return into.at[at].set(x, mode="drop")


def rays_of(start: Array, capacity: int) -> Array:
    """(M,) the ray of each packed sample; 0 beyond the last."""
    rays = start.shape[0] - 1
    owner = jnp.repeat(
        jnp.arange(rays, dtype=jnp.int32), start[1:] - start[:-1], total_repeat_length=capacity
    )
    return jnp.where(jnp.arange(capacity, dtype=jnp.int32) < start[-1], owner, 0)


def _defvjp(f: Any) -> None:  # noqa: ANN401
    f.defvjp(_composite_fwd, _composite_bwd)


_defvjp(_composite)
