"""Noisy stand-ins of rounded latents: their noise, limits and slopes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lumefield import native
from lumefield.fields.latent import _quantise, noisy, straight_through
from tests.fields import latent_pieces as pieces

SHAPES = [(0.35, 0.25), (0.08, 0.15)]


@pytest.fixture(params=["native", "xla"])
def backend(request):
    if request.param == "native" and not native.load():
        pytest.skip(f"native kernels are not available: {native.status().reason}")
    return request.param


@pytest.mark.parametrize(("temperature", "deviation"), SHAPES)
def test_stand_ins_and_slopes_are_the_float64_twins_with_the_same_noise(
    temperature, deviation, backend
):
    x = np.asarray(np.random.default_rng(0).normal(size=(37, 53)) * 3, np.float32)
    key, one = jax.random.key(3), np.ones_like(x)
    t, k = jnp.float32(temperature), jnp.float32(deviation)
    y, (slope,) = pieces.value_and_pull(lambda x: noisy(key, x, t, k, backend=backend))(one, x)
    u = np.asarray(_quantise.bell(jax.random.bits(key, (2,), jnp.uint32), x.shape), np.float64)

    def twin(x):
        t = jnp.float64(temperature)
        return _quantise.soft_round(_quantise.soft_round(x, t) + deviation * jnp.asarray(u), t)

    wanted, (steep,) = pieces.exactly(twin, one, x)
    np.testing.assert_allclose(y, wanted, atol=5e-5)
    np.testing.assert_allclose(slope, steep, rtol=2e-3, atol=1e-4)


def test_noise_is_nearly_normal_uncorrelated_and_of_its_seed(backend):
    x = jnp.zeros((400, 500))
    wide, deviation = jnp.float32(30.0), jnp.float32(0.2)  # soft rounding is almost the identity
    draw = jax.jit(lambda key: noisy(key, x, wide, deviation, backend=backend))
    u, other = (np.asarray(draw(jax.random.key(s)), np.float64) / 0.2 for s in (0, 1))
    assert abs(u.mean()) < 5 / np.sqrt(u.size)
    assert abs(u.std() - 1) < 0.01
    # Kurtosis of a sum of four uniform numbers: 3 - 1.2 / 4.
    assert abs((u**4).mean() - 2.7) < 0.05
    assert abs(np.mean(np.abs(u) < 1) - 0.675) < 0.01
    for b in (np.roll(u, 1), np.roll(u, 1, 0), other):
        assert abs((u * b).mean()) < 5 / np.sqrt(u.size)
    np.testing.assert_array_equal(u, np.asarray(draw(jax.random.key(0)), np.float64) / 0.2)


def test_at_a_low_temperature_a_stand_in_is_within_a_cell_of_the_rounded_latent(backend):
    x = jnp.asarray(np.random.default_rng(1).normal(size=1001) * 5, jnp.float32)
    y = noisy(jax.random.key(0), x, jnp.float32(0.05), jnp.float32(0.1), backend=backend)
    assert np.abs(np.asarray(y) - np.round(np.asarray(x))).max() < 1
    assert np.isfinite(jax.grad(lambda x: noisy(jax.random.key(0), x, 0.05, 0.1).sum())(x)).all()


def unmixed(y):
    """What the hash makes ``y`` of."""
    y ^= y >> 16
    y = y * pow(0x846CA68B, -1, 1 << 32) % (1 << 32)
    y ^= (y >> 15) ^ (y >> 30)
    y = y * pow(0x7FEB352D, -1, 1 << 32) % (1 << 32)
    return y ^ (y >> 16)


@pytest.mark.parametrize("bits", [0, (1 << 32) - 1])
@pytest.mark.skipif(not native.load(), reason="native kernels are not available")
def test_the_least_and_the_largest_random_number_are_those_of_four_equal_bytes(bits):
    # mix(mix(place ^ seed[0]) + seed[1]) with place 0 and mix(0) = 0
    seed = jnp.asarray([0, unmixed(bits)], jnp.uint32)
    (u,) = np.asarray(_quantise.bell(seed, (1,)))
    np.testing.assert_allclose(u, (1 if bits else -1) * 510 / np.sqrt((256**2 - 1) / 3), rtol=1e-6)
    x, shape = jnp.zeros(1), jnp.asarray([30.0, 0.2], jnp.float32)
    y, slope = _quantise._native_fwd(x, seed, shape)  # pyright: ignore[reportPrivateUsage]
    np.testing.assert_allclose(y, 0.2 * u, atol=2e-3)
    np.testing.assert_allclose(slope, 1, atol=1e-2)


def test_straight_through_rounds_with_slope_one():
    x = jnp.asarray([-1.6, 0.2, 2.5, 3.5])
    np.testing.assert_array_equal(straight_through(x), [-2, 0, 2, 4])
    np.testing.assert_array_equal(jax.grad(lambda x: straight_through(x).sum())(x), 1)
