"""The laws of the encodings of coordinates."""

import jax
import jax.numpy as jnp
import numpy as np

from lumefield.fields.networks._encoding import (
    fourier_features,
    integrated_encoding,
    off_axis_basis,
    positional_encoding,
)

RNG = np.random.default_rng(0)


def covariance(scale: float) -> np.ndarray:
    root = RNG.normal(size=(3, 3))
    return scale * (root @ root.T)


def test_positional_encoding_is_that_of_nerf():
    x = RNG.uniform(-1, 1, (5, 2))
    found = positional_encoding(jnp.asarray(x, jnp.float32), 3)
    angles = np.concatenate([np.pi * 2**l * x for l in range(3)], -1)
    wanted = np.concatenate([np.sin(angles), np.cos(angles)], -1)
    np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_fourier_features_are_those_of_tancik():
    x, b = RNG.uniform(-1, 1, (4, 3)), RNG.normal(0, 5, (3, 7))
    found = fourier_features(jnp.asarray(x, jnp.float32), jnp.asarray(b, jnp.float32))
    angle = 2 * np.pi * x @ b
    np.testing.assert_allclose(found, np.concatenate([np.sin(angle), np.cos(angle)], -1), atol=2e-5)


def test_the_off_axis_basis_is_half_of_a_tessellated_icosahedron():
    basis = off_axis_basis()
    assert basis.shape == (21, 3)
    np.testing.assert_allclose(np.linalg.norm(basis, axis=1), 1, atol=1e-12)
    cosines = np.abs(basis @ basis.T) - np.eye(21)
    assert cosines.max() < np.cos(np.radians(31))  # next neighbours are 31.7 degrees apart
    np.testing.assert_allclose(basis.T @ basis, 7 * np.eye(3), atol=1e-12)  # isotropic
    assert not basis.flags.writeable


def test_integrated_encoding_is_the_mean_over_the_gaussian():
    mean, cov = RNG.normal(size=3), covariance(0.02)
    basis, degrees = off_axis_basis(), 3
    draws = RNG.multivariate_normal(mean, cov, 200_000)
    angles = np.concatenate([2**l * draws @ basis.T for l in range(degrees)], -1)
    wanted = np.concatenate([np.sin(angles).mean(0), np.cos(angles).mean(0)])
    found = integrated_encoding(jnp.float32(mean), jnp.float32(cov), basis, degrees)
    np.testing.assert_allclose(found, wanted, atol=8e-3)


def test_integrated_encoding_of_a_point_is_the_plain_one():
    mean = jnp.asarray(RNG.normal(size=(2, 4, 3)), jnp.float32)
    found = integrated_encoding(mean, jnp.zeros((2, 4, 3, 3)), np.eye(3), 4)
    np.testing.assert_allclose(found, positional_encoding(mean / np.pi, 4), atol=2e-5)


def test_integrated_encoding_is_finite_and_so_are_its_gradients_from_1e_10_to_1e10():
    sizes = 10.0 ** np.arange(-10, 11, 2)
    mean = jnp.asarray(sizes[:, None] * [1.0, -1.0, 0.5], jnp.float32)
    cov = jnp.asarray(sizes[:, None, None] * np.eye(3) * 1e8, jnp.float32)

    @jax.jit
    def value_and_gradients(mean: jax.Array, cov: jax.Array) -> tuple[jax.Array, ...]:
        def total(mean: jax.Array, cov: jax.Array) -> jax.Array:
            return jnp.sum(integrated_encoding(mean, cov, off_axis_basis(), 12))

        return total(mean, cov), *jax.grad(total, (0, 1))(mean, cov)

    for both in ((mean, cov), (mean, jnp.zeros_like(cov)), (mean, cov * 1e-20)):
        assert all(np.isfinite(v).all() for v in value_and_gradients(*both))
