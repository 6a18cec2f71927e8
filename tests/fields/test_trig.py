"""The laws of the engine's own sine and cosine."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lumefield.fields.networks import cos, sin

PAIRS = pytest.mark.parametrize(("ours", "exact"), [(sin, np.sin), (cos, np.cos)], ids="sc")
WIDE = np.concatenate(
    [np.random.default_rng(0).uniform(-2000, 2000, 200_000), np.linspace(-7, 7, 50_001)]
).astype(np.float32)


@PAIRS
def test_the_error_is_at_most_2e_7_up_to_2000(ours: Any, exact: Any):
    assert np.abs(jax.jit(ours)(WIDE) - exact(WIDE.astype(np.float64))).max() <= 2e-7


@PAIRS
def test_the_error_is_at_most_2e_6_up_to_the_end_of_the_domain(ours: Any, exact: Any):
    far = (WIDE * 50).astype(np.float32)
    assert np.abs(jax.jit(ours)(far) - exact(far.astype(np.float64))).max() <= 2e-6


def test_the_relative_error_of_the_sine_is_small_near_its_zero():
    tiny = np.geomspace(1e-37, 1e-2, 10_001).astype(np.float32)
    exact = np.sin(tiny.astype(np.float64))
    assert np.abs((np.asarray(jax.jit(sin)(tiny)) - exact) / exact).max() <= 1.2e-7


@PAIRS
def test_parity_and_zero(ours: Any, exact: Any):
    sign = -1 if ours is sin else 1
    x = jnp.asarray(WIDE[:1000])
    np.testing.assert_allclose(ours(-x), sign * ours(x), atol=2.4e-7)
    assert abs(float(ours(jnp.float32(0))) - exact(0)) <= 6e-8


@PAIRS
def test_any_finite_angle_gives_a_number_within_one(ours: Any, exact: Any):
    del exact
    x = np.geomspace(1e5, 3e38, 500).astype(np.float32)
    assert np.abs(jax.jit(ours)(np.concatenate([x, -x]))).max() <= 1.001


@PAIRS
def test_infinities_and_nan_give_nan(ours: Any, exact: Any):
    del exact
    assert np.isnan(ours(jnp.array([np.inf, -np.inf, np.nan], jnp.float32))).all()


def test_derivatives_of_every_order_are_one_another():
    x = jnp.asarray(WIDE[:2000])
    chain: list[Any] = [sin]
    for _ in range(4):
        chain.append(jax.grad(chain[-1]))
    exact = [np.sin, np.cos, lambda v: -np.sin(v), lambda v: -np.cos(v), np.sin]
    for ours, wanted in zip(chain, exact, strict=True):
        found = jax.jit(jax.vmap(ours))(x)
        assert np.abs(found - wanted(np.asarray(x, np.float64))).max() <= 2e-7


def test_forward_and_reverse_mode_agree():
    x = jnp.asarray(WIDE[:50])
    forward = jax.jit(jax.vmap(jax.jacfwd(lambda v: sin(v) * cos(2 * v))))(x)
    backward = jax.jit(jax.vmap(jax.jacrev(lambda v: sin(v) * cos(2 * v))))(x)
    np.testing.assert_allclose(forward, backward, atol=1e-6)


@PAIRS
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_the_dtype_is_kept(ours: Any, exact: Any, dtype: str):
    with jax.enable_x64(True):
        x = jnp.asarray(np.linspace(-9, 9, 33), dtype)
        y = ours(x)
        assert y.dtype == x.dtype
        error = np.abs(np.asarray(y, np.float64) - exact(np.asarray(x, np.float64))).max()
        assert error <= 2 * float(jnp.finfo(dtype).eps)


def test_float64_is_exactly_that_of_jax():
    with jax.enable_x64(True):
        x = jnp.asarray(WIDE[:100], jnp.float64)
        assert np.array_equal(sin(x), jnp.sin(x))
