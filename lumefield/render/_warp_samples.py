"""Compositing of ray samples on an NVIDIA GPU: both layouts by one pair of Warp kernels, float32.

The rule of ``_samples``: w = T (1 - exp(-tau)), T <- T exp(-tau), a ray stops once T <= 1e-4 and
the sample that takes it there counts in full. Forward, a thread is one channel of one ray (the last
one, of no channel, is T): neighbours read neighbouring numbers. Backward, a thread is one ray and
goes front to back again with the residual R, what is still to come; nothing is stored per sample.

Letters: M samples, R rays, C channels; ``rays`` is R in layout [samples, rays] and 0 for packed
samples. This file imports warp: import it where a kernel is called. (``no_type_check`` keeps the
type checks of the tests off the kernels.)
"""

from functools import partial
from typing import no_type_check

import jax
import jax.numpy as jnp
import warp as wp
from jax import Array

from lumefield import native
from lumefield.render import _spec

wp.set_module_options({"enable_backward": False, "fast_math": False})

_Pair = tuple[Array, Array]
_STOP = wp.constant(wp.float32(_spec.T_MIN))


@no_type_check
@wp.func
def goes(tau: wp.float32) -> wp.float32:
    """1 - exp(-tau), to float precision of its own size."""
    if tau > 20.0:
        return wp.float32(1.0)
    return 2.0 * wp.exp(-0.5 * tau) * wp.sinh(0.5 * tau)


@no_type_check
@wp.func
def span(start: wp.array[wp.int32], rays: wp.int32, size: wp.int32, ray: wp.int32) -> wp.vec3i:
    """Where a ray's samples begin, how far they are apart, and how many there are."""
    if rays > 0:
        return wp.vec3i(ray, rays, size / rays)
    first = wp.clamp(start[ray], 0, size)
    return wp.vec3i(first, 1, wp.clamp(start[ray + 1], 0, size) - first)


@no_type_check
@wp.kernel
def forward(
    tau: wp.array[wp.float32],
    values: wp.array2d[wp.float32],
    start: wp.array[wp.int32],
    rays: wp.int32,
    image: wp.array2d[wp.float32],
    trans: wp.array[wp.float32],
) -> None:
    """One channel of one ray; channel C is the transmittance."""
    ray, channel = wp.tid()
    own = span(start, rays, tau.shape[0], ray)
    coloured = channel < values.shape[1]
    t = wp.float32(1.0)
    total = wp.float32(0.0)
    at = own[0]
    left = own[2]
    while left > 0 and t > _STOP:
        depth = tau[at]
        if coloured:
            total += t * goes(depth) * values[at, channel]
        t = t * wp.exp(-depth)
        at += own[1]
        left -= 1
    if coloured:
        image[ray, channel] = total
    else:
        trans[ray] = t


@no_type_check
@wp.kernel
def backward(
    tau: wp.array[wp.float32],
    values: wp.array2d[wp.float32],
    start: wp.array[wp.int32],
    image: wp.array2d[wp.float32],
    trans: wp.array[wp.float32],
    g_image: wp.array2d[wp.float32],
    g_trans: wp.array[wp.float32],
    rays: wp.int32,
    g_tau: wp.array[wp.float32],
    g_values: wp.array2d[wp.float32],
) -> None:
    """One ray; what lies behind its stop keeps the zeros that are there."""
    ray = wp.tid()
    own = span(start, rays, tau.shape[0], ray)
    channels = values.shape[1]
    rest = g_trans[ray] * trans[ray]
    for c in range(channels):
        rest += g_image[ray, c] * image[ray, c]
    t = wp.float32(1.0)
    at = own[0]
    left = own[2]
    while left > 0 and t > _STOP:
        depth = tau[at]
        weight = t * goes(depth)
        t = t * wp.exp(-depth)
        toward = wp.float32(0.0)
        for c in range(channels):
            g = g_image[ray, c]
            toward += g * values[at, c]
            g_values[at, c] = weight * g
        rest -= weight * toward
        g_tau[at] = t * toward - rest
        at += own[1]
        left -= 1


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _composite(tau: Array, values: Array, start: Array, rays: int) -> _Pair:
    count = rays or start.shape[0] - 1
    channels = values.shape[1]
    shapes = {"image": (count, channels), "trans": (count,)}
    dims = (count, channels + 1)
    image, trans = native.warp_call(forward, shapes, tau, values, start, rays, dims=dims)
    return image, trans


def _composite_fwd(
    tau: Array, values: Array, start: Array, rays: int
) -> tuple[_Pair, tuple[Array, ...]]:
    image, trans = _composite(tau, values, start, rays)
    return (image, trans), (tau, values, start, image, trans)


def _composite_bwd(rays: int, saved: tuple[Array, ...], grads: _Pair) -> tuple[Array, Array, None]:
    tau, values = saved[:2]
    zeros = (jnp.zeros_like(tau), jnp.zeros_like(values))
    dims = rays or saved[2].shape[0] - 1
    g_tau, g_values = native.warp_call(
        backward, {}, *saved, *grads, rays, *zeros, dims=dims, in_out=("g_tau", "g_values")
    )
    return g_tau, g_values, None


_composite.defvjp(_composite_fwd, _composite_bwd)


def composite_samples(tau: Array, values: Array) -> _Pair:
    """See ``_samples.composite_samples``; float32, at least one sample and one ray."""
    start = jnp.zeros((1,), jnp.int32)
    return _composite(tau.reshape(-1), values.reshape(-1, values.shape[2]), start, tau.shape[1])


def composite_packed(tau: Array, values: Array, start: Array) -> _Pair:
    """See ``volume.composite_packed``; float32, at least one sample and one ray."""
    return _composite(tau, values, start, 0)
