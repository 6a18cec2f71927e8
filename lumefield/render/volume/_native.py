"""The C++ backend of marching and of compositing packed samples, float32 on a CPU."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lumefield import native

_Pair = tuple[Array, Array]


def _f32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _i32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def _threads() -> np.int64:
    return np.int64(native.threads())


@jax.custom_vjp
def composite(tau: Array, values: Array, start: Array) -> _Pair:
    """See ``composite_packed``; all float32, ``start`` int32."""
    rays = start.shape[0] - 1
    out = (_f32(rays, values.shape[1]), _f32(rays))
    image, trans = native.call("PackedForward", out, tau, values, start, n_threads=_threads())
    return image, trans


def _composite_fwd(tau: Array, values: Array, start: Array) -> tuple[_Pair, tuple[Array, ...]]:
    out, trans = composite(tau, values, start)
    return (out, trans), (tau, values, start, out, trans)


def _composite_bwd(saved: tuple[Array, ...], grads: _Pair) -> tuple[Array, Array, None]:
    tau, values = saved[:2]
    out = (_f32(*tau.shape), _f32(*values.shape))
    g_tau, g_values = native.call("PackedBackward", out, *saved, *grads, n_threads=_threads())
    return g_tau, g_values, None


composite.defvjp(_composite_fwd, _composite_bwd)


def quantiles(t_edges: Array, share: Array, u: Array) -> Array:
    """(n+1, R) where the cumulative ``share`` (S, R) > 0 of the intervals reaches ``u``."""
    return native.call("Quantiles", _f32(*u.shape), t_edges, share, u, n_threads=_threads())


def overlaps(edges: Array, others: Array, values: Array) -> Array:
    """(S, R) sums of the ``values`` (P, R) of those of the other intervals that overlap each."""
    out = _f32(edges.shape[0] - 1, edges.shape[1])
    return native.call("Overlaps", out, edges, others, values, n_threads=_threads())


def march(
    occupied: Array,
    rays: tuple[Array, ...],
    edges: Array,
    level: Array,
    capacity: int,
    limit: int,
) -> tuple[Array, ...]:
    """See ``march``; rays are origin, direction, near, far and jitter.

    Returns:
        t, dt, ray, start, reached and counts = (samples wanted, rays used).
    """
    n = rays[0].shape[0]
    out = (_f32(capacity), _f32(capacity), _i32(capacity), _i32(n + 1), _f32(n), _i32(2))
    static = {"n_threads": _threads(), "limit": np.int64(limit)}
    return tuple(native.call("March", out, occupied, *rays, edges, level, **static))
