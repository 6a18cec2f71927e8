"""Noisy stand-ins of rounded latents: their noise, limits and slopes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lumefield import native
from lumefield.fields.latent import _quantise, noisy, straight_through
from tests.fields import latent_pieces as pieces

SHAPES = [(0.3, 2.0), (0.1, 1.0)]


@pytest.fixture(params=["native", "xla"])
def backend(request):
    if request.param == "native" and not native.load():
        pytest.skip(f"native kernels are not available: {native.status().reason}")
    return request.param


@pytest.mark.parametrize(("temperature", "a"), SHAPES)
def test_stand_ins_and_slopes_are_the_float64_twins_with_the_same_noise(temperature, a, backend):
    x = np.asarray(np.random.default_rng(0).normal(size=(37, 53)) * 3, np.float32)
    key, one = jax.random.key(3), np.ones_like(x)
    t, k = jnp.float32(temperature), jnp.float32(a)
    y, (slope,) = pieces.value_and_pull(lambda x: noisy(key, x, t, k, backend=backend))(one, x)
    u = np.asarray(_quantise.uniform(jax.random.bits(key, (2,), jnp.uint32), x.shape), np.float64)

    def twin(x):
        t = jnp.float64(temperature)
        noise = _quantise.kumaraswamy(jnp.asarray(u), jnp.float64(a))
        return _quantise.soft_round_mean(_quantise.soft_round(x, t) + noise, t)

    wanted, (steep,) = pieces.exactly(twin, one, x)
    np.testing.assert_allclose(y, wanted, atol=5e-5)
    np.testing.assert_allclose(slope, steep, rtol=2e-3, atol=1e-4)


def test_noise_is_uniform_uncorrelated_and_of_its_seed(backend):
    x = jnp.zeros((400, 500))
    wide, a = jnp.float32(30.0), jnp.float32(1.0)  # soft rounding is almost the identity
    draw = jax.jit(lambda key: noisy(key, x, wide, a, backend=backend))
    u, other = (np.asarray(draw(jax.random.key(s))) for s in (0, 1))
    assert np.abs(u).max() < 0.5 + 1e-4
    counts = np.histogram(np.clip(u, -0.5, 0.5), 50, (-0.5, 0.5))[0]
    assert ((counts - u.size / 50) ** 2).sum() / (u.size / 50) < 49 + 5 * np.sqrt(2 * 49)
    for b in (np.roll(u, 1), np.roll(u, 1, 0), other):
        assert abs((u * b).mean() * 12) < 5 / np.sqrt(u.size)
    np.testing.assert_array_equal(u, draw(jax.random.key(0)))


def test_kumaraswamy_noise_of_a_large_a_is_narrower_with_its_mode_at_zero(backend):
    x = jnp.zeros(100_000)
    u = noisy(jax.random.key(0), x, jnp.float32(30.0), jnp.float32(2.0), backend=backend)
    counts = np.histogram(np.asarray(u), 21, (-0.5, 0.5))[0]
    assert abs(int(counts.argmax()) - 10) <= 2
    assert np.std(np.asarray(u)) < 0.9 / 12**0.5


def test_at_a_low_temperature_a_stand_in_is_within_a_cell_of_the_rounded_latent(backend):
    x = jnp.asarray(np.random.default_rng(1).normal(size=1001) * 5, jnp.float32)
    y = noisy(jax.random.key(0), x, jnp.float32(0.05), jnp.float32(1.0), backend=backend)
    assert np.abs(np.asarray(y) - np.round(np.asarray(x))).max() < 1
    assert np.isfinite(jax.grad(lambda x: noisy(jax.random.key(0), x, 0.05, 1.0).sum())(x)).all()


def unmixed(y):
    """What the hash makes ``y`` of."""
    y ^= y >> 16
    y = y * pow(0x846CA68B, -1, 1 << 32) % (1 << 32)
    y ^= (y >> 15) ^ (y >> 30)
    y = y * pow(0x7FEB352D, -1, 1 << 32) % (1 << 32)
    return y ^ (y >> 16)


@pytest.mark.parametrize("bits", [0, (1 << 32) - 1])
@pytest.mark.skipif(not native.load(), reason="native kernels are not available")
def test_the_least_and_the_largest_random_number_are_inside_the_interval(bits):
    # mix(mix(place ^ seed[0]) + seed[1]) with place 0 and mix(0) = 0
    seed = jnp.asarray([0, unmixed(bits)], jnp.uint32)
    (u,) = np.asarray(_quantise.uniform(seed, (1,)))
    assert u == (bits > 0) * (1 - 2.0**-23) + 2.0**-24
    x, shape = jnp.zeros(1), jnp.asarray([0.3, 2.0], jnp.float32)
    y, slope = _quantise._native_fwd(x, seed, shape)  # pyright: ignore[reportPrivateUsage]
    assert np.isfinite(y).all()
    assert np.isfinite(slope).all()


def test_straight_through_rounds_with_slope_one():
    x = jnp.asarray([-1.6, 0.2, 2.5, 3.5])
    np.testing.assert_array_equal(straight_through(x), [-2, 0, 2, 4])
    np.testing.assert_array_equal(jax.grad(lambda x: straight_through(x).sum())(x), 1)
