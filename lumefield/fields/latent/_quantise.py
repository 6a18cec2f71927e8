"""Stand-ins for rounding while latents are fitted: soft rounding with noise, and straight through.

Agustsson and Theis, "Universally Quantized Neural Compression", 2020 (soft rounding, its inverse);
Kim et al., "C3", 2024, Sec. 3.1 (Kumaraswamy noise whose width is annealed). We differ in the
random numbers: a hash of the seed and the element's place, ten times cheaper than jax's own, and
the same in every backend.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, PRNGKeyArray, UInt32

from lumefield import native
from lumefield.fields.latent._backend import Backend, choose_backend

_MOST = 1 - 1e-6  # largest argument of artanh


def soft_round(x: Array, temperature: Array) -> Array:
    """Rounding that becomes exact as ``temperature`` goes to 0 and the identity as it grows."""
    middle = jnp.floor(x) + 0.5
    return middle + 0.5 * jnp.tanh((x - middle) / temperature) / jnp.tanh(0.5 / temperature)


def soft_round_mean(y: Array, temperature: Array) -> Array:
    """Mean of x given ``soft_round(x) + noise``, for noise uniform in one cell."""
    z = y - 0.5
    middle = jnp.floor(z) + 0.5
    inside = jnp.clip((z - middle) * 2.0 * jnp.tanh(0.5 / temperature), -_MOST, _MOST)
    return middle + jnp.arctanh(inside) * temperature + 0.5


def uniform(seed: UInt32[Array, "2"], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Float32 numbers in (0, 1), each a hash of the seed and its place."""
    at = jax.lax.iota(jnp.uint32, int(np.prod(shape)))
    bits = _mix(_mix(at ^ seed[0]) + seed[1])
    # With one bit more the largest would round to 1.
    return ((bits >> 9).astype(jnp.float32) * 2.0**-23 + 2.0**-24).reshape(shape)


def _mix(x: Array) -> Array:
    """The hash lowbias32 of Wellons, "Prospecting for Hash Functions", 2018."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def kumaraswamy(u: Array, a: Array) -> Array:
    """Noise in [-1/2, 1/2] from uniform numbers; ``a`` = 1 is uniform, larger is narrower."""
    b = (2.0**a * (a - 1.0) + 1.0) / a
    return (1.0 - (1.0 - u) ** (1.0 / b)) ** (1.0 / a) - 0.5


def noisy(
    key: PRNGKeyArray,
    x: Array,
    temperature: Array | float,
    a: Array | float,
    *,
    backend: Backend = "auto",
) -> Array:
    """What fitting sees instead of round(x): soft rounding, noise, and the mean of x given both.

    Differentiable in ``x`` alone. Both backends draw the same noise.

    Args:
        key: Random key.
        x: Latents, any shape, fewer than 2^32.
        temperature: Of the soft rounding, > 0: at 1 close to none, at 0.1 close to rounding.
        a: Shape of the noise, >= 1.
        backend: ``auto``, ``native`` (C++, CPU, float32) or ``xla``.

    Raises:
        ValueError: If the backend does not fit.
    """
    seed = jax.random.bits(key, (2,), jnp.uint32)
    shape = jnp.stack([jnp.asarray(temperature, x.dtype), jnp.asarray(a, x.dtype)])
    if choose_backend(backend, (x,)) == "native":
        return _native(x, seed, shape)
    noise = kumaraswamy(uniform(seed, x.shape).astype(x.dtype), shape[1])
    return soft_round_mean(soft_round(x, shape[0]) + noise, shape[0])


@jax.custom_vjp
def _native(x: Array, seed: Array, shape: Array) -> Array:
    return _native_fwd(x, seed, shape)[0]


def _native_fwd(x: Array, seed: Array, shape: Array) -> tuple[Array, Array]:
    out = (jax.ShapeDtypeStruct(x.shape, x.dtype),) * 2
    threads = np.int64(native.threads())
    y, slope = native.call("LatentNoise", out, x, seed, shape, n_threads=threads)
    return y, slope


def _native_bwd(slope: Array, g: Array) -> tuple[Any, ...]:
    return g * slope, None, None


_native.defvjp(_native_fwd, _native_bwd)


def straight_through(x: Array) -> Array:
    """round(x) whose gradient is that of the identity."""
    return x + jax.lax.stop_gradient(jnp.round(x) - x)
