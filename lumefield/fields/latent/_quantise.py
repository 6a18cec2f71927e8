"""Stand-ins for rounding while latents are fitted: soft rounding with noise, and straight through.

Agustsson and Theis, "Universally Quantized Neural Compression", 2020 (soft rounding); Kim et al.,
"C3", 2024, Sec. 3.1 (soft rounding, noise, and soft rounding again, both annealed). As Cool-chic
5.0 (Orange, 2026) we take nearly normal noise much narrower than a cell instead of C3's, which is
as wide as one at the end. We differ in the random numbers: a hash of the seed and the element's
place, ten times cheaper than jax's own, and the same in every backend.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, PRNGKeyArray, UInt32

from lumefield import native
from lumefield.fields.latent._backend import Backend, choose_backend

_BYTES = ((256.0**2 - 1) / 3) ** 0.5  # deviation of the sum of four bytes


def soft_round(x: Array, temperature: Array) -> Array:
    """Rounding that becomes exact as ``temperature`` goes to 0 and the identity as it grows."""
    middle = jnp.floor(x) + 0.5
    return middle + 0.5 * jnp.tanh((x - middle) / temperature) / jnp.tanh(0.5 / temperature)


def bell(seed: UInt32[Array, "2"], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Float32 numbers of mean 0 and deviation 1, nearly normal, each a hash of seed and place.

    Sums of four uniform bytes: within 3.5 deviations, and a kurtosis of 2.7 instead of 3.
    """
    at = jax.lax.iota(jnp.uint32, int(np.prod(shape)))
    bits = _mix(_mix(at ^ seed[0]) + seed[1])
    pairs = (bits & 0x00FF00FF) + ((bits >> 8) & 0x00FF00FF)
    sums = ((pairs & 0xFFFF) + (pairs >> 16)).astype(jnp.float32)
    return ((sums - 510.0) / _BYTES).reshape(shape)


def _mix(x: Array) -> Array:
    """The hash lowbias32 of Wellons, "Prospecting for Hash Functions", 2018."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def noisy(
    key: PRNGKeyArray,
    x: Array,
    temperature: Array | float,
    deviation: Array | float,
    *,
    backend: Backend = "auto",
) -> Array:
    """What fitting sees instead of round(x): soft rounding, noise, and soft rounding once more.

    Differentiable in ``x`` alone. Both backends draw the same noise.

    Args:
        key: Random key.
        x: Latents, any shape, fewer than 2^32.
        temperature: Of the soft rounding, > 0: at 1 close to none, at 0.1 close to rounding.
        deviation: Of the noise, in cells.
        backend: ``auto``, ``native`` (C++, CPU, float32) or ``xla``.

    Raises:
        ValueError: If the backend does not fit.
    """
    seed = jax.random.bits(key, (2,), jnp.uint32)
    shape = jnp.stack([jnp.asarray(temperature, x.dtype), jnp.asarray(deviation, x.dtype)])
    if choose_backend(backend, (x,)) == "native":
        return _native(x, seed, shape)
    noise = shape[1] * bell(seed, x.shape).astype(x.dtype)
    return soft_round(soft_round(x, shape[0]) + noise, shape[0])


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
