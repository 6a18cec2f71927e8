"""Derivatives of fields by their coordinates, against finite differences in float64."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lumefield.fields import hessian, laplacian, value_and_jacobian
from lumefield.fields.networks import FIELDS

Field = Callable[[jax.Array], jax.Array]


def polynomial(x: jax.Array) -> jax.Array:
    """Two values of three coordinates with known derivatives."""
    a, b, c = x[..., 0], x[..., 1], x[..., 2]
    return jnp.stack([a * a * b + c, jnp.sin(b) * c * c], -1)


def differences(f: Field, x: jax.Array, h: float) -> np.ndarray:
    """Central differences [*s, o, i]."""
    eye = np.eye(x.shape[-1]) * h
    ends = [(jnp.asarray(np.asarray(x) + e), jnp.asarray(np.asarray(x) - e)) for e in eye]
    return np.stack([np.asarray(f(a) - f(b)) / (2 * h) for a, b in ends], -1)


@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0,)])
def test_derivatives_of_a_polynomial_are_exact_at_any_batch_shape(shape: tuple[int, ...]):
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(1), (*shape, 3), jnp.float64)
        a, b, c = (np.asarray(x[..., k]) for k in range(3))
        value, jacobian = jax.jit(lambda p: value_and_jacobian(polynomial, p))(x)
        o = np.zeros_like(a)
        want = [[2 * a * b, a * a, o + 1], [o, np.cos(b) * c * c, 2 * np.sin(b) * c]]
        np.testing.assert_allclose(value, polynomial(x), atol=1e-12)
        np.testing.assert_allclose(
            jacobian, np.moveaxis(np.array(want), (0, 1), (-2, -1)), atol=1e-12
        )
        trace = np.stack([2 * b, -np.sin(b) * c * c + 2 * np.sin(b)], -1)
        found = jax.jit(lambda p: laplacian(polynomial, p))(x)
        np.testing.assert_allclose(found, trace, atol=1e-12)


@pytest.mark.parametrize("name", ["siren", "gaussian"])
def test_derivatives_of_a_network_agree_with_finite_differences(name: str):
    with jax.enable_x64(True):
        field = FIELDS[name](2, 3, width=8, depth=2, rngs=nnx.Rngs(0))
        field = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), field)
        x = jax.random.uniform(jax.random.key(2), (7, 2), jnp.float64, -0.9, 0.9)
        first = jax.jit(lambda p: value_and_jacobian(field, p)[1])
        wanted = differences(jax.jit(field), x, 1e-5)
        np.testing.assert_allclose(first(x), wanted, atol=1e-6 * np.abs(wanted).max())
        second = np.asarray(jax.jit(lambda p: hessian(field, p))(x))
        wanted = differences(first, x, 1e-5)
        most = np.abs(wanted).max()
        np.testing.assert_allclose(second, wanted, atol=1e-6 * most)
        np.testing.assert_allclose(second, np.swapaxes(second, -1, -2), atol=1e-9 * most)


def test_a_residual_is_differentiable_by_the_leaves_of_the_field():
    field = FIELDS["siren"](2, 1, width=8, depth=2, rngs=nnx.Rngs(0))
    x = jnp.linspace(-0.5, 0.5, 8).reshape(4, 2)

    def eikonal(f: Field) -> jax.Array:
        slope = value_and_jacobian(f, x)[1][..., 0, :]
        return jnp.mean((jnp.sqrt(jnp.sum(slope**2, -1)) - 1) ** 2)

    grads = jax.jit(jax.grad(eikonal))(field)
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(grads))
    assert any(bool((g != 0).any()) for g in jax.tree.leaves(grads))
