"""The laws of coordinate networks, every one for every row of the table in ``networks_table.py``.

A law compiles one function per row: with so many rows, compiling is what the tests spend.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, struct
from safetensors.numpy import load_file, save_file

from lumefield.fields.networks import FIELDS
from tests.fields.networks_table import D_OUT, ROWS, Row, by_path, fitted, toy

# Code that runs once is compiled without optimisation.
quickly: Any = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


def points(row: Row, *shape: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.95, 0.95, (*shape, row.d_in)).astype(np.float32)


def test_every_field_has_a_row():
    assert [row.name for row in ROWS] == list(FIELDS)


@every_row
def test_every_leading_axis_is_a_batch_axis_and_jit_is_eager(row: Row):
    field, x = row.lively(), points(row, 2, 3)

    @quickly
    def at_every_shape(field: Any, x: jax.Array) -> list[jax.Array]:
        nothing = [jnp.zeros((*shape, row.d_in)) for shape in ((0,), (2, 0))]
        return [field(x.reshape(6, -1)), field(x), field(x[1, 2]), *map(field, nothing)]

    flat, stacked, single, *nothing = at_every_shape(field, jnp.asarray(x))
    assert flat.shape == (6, D_OUT)
    assert {y.dtype for y in (flat, stacked, single, *nothing)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(stacked, flat.reshape(2, 3, -1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(single, flat[5], rtol=1e-5, atol=1e-5)
    assert [y.shape for y in nothing] == [(0, D_OUT), (2, 0, D_OUT)]
    np.testing.assert_allclose(field(jnp.asarray(x[0])), flat[:3], rtol=1e-5, atol=1e-5)


@every_row
def test_instances_batch(row: Row):
    x, alone = jnp.asarray(points(row, 5)), [row.lively(0), row.lively(1)]
    many = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)

    @quickly
    def both(many: Any, alone: list[Any]) -> tuple[jax.Array, list[jax.Array]]:
        return jax.vmap(lambda field: field(x))(many), [field(x) for field in alone]

    together, apart = both(many, alone)
    np.testing.assert_allclose(together, jnp.stack(apart), rtol=1e-4, atol=1e-5)
    made = jax.eval_shape(jax.vmap(row.make), jax.random.split(jax.random.key(3), 2))
    assert jax.tree.structure(made) == jax.tree.structure(alone[0])
    assert [a.shape for a in jax.tree.leaves(made)] == [a.shape for a in jax.tree.leaves(many)]


@every_row
def test_gradients_are_finite_and_reach_every_leaf(row: Row):
    edges = [np.full((1, row.d_in), v, np.float32) for v in (-1.0, 1.0, 0.0, -1.5, 1.5)]
    x = jnp.asarray(np.concatenate([points(row, 64), *edges]))

    @quickly
    def gradients(field: Any, x: jax.Array) -> tuple[Any, jax.Array]:
        return jax.grad(lambda f, x: jnp.sum(f(x) ** 2), argnums=(0, 1))(field, x)

    field = row.lively()
    of_field, of_x = gradients(field, x)
    assert type(of_field) is type(field)
    assert np.isfinite(of_x).all()
    assert (np.asarray(of_x)[:64] != 0).any()
    for name, leaf in by_path(of_field).items():
        assert np.isfinite(leaf).all(), name
        frozen = any(part in name.split(".") for part in row.frozen)
        assert (np.asarray(leaf) != 0).any() != frozen, name


@every_row
def test_derivatives_agree_with_finite_differences(row: Row):
    h = 1e-6
    with jax.enable_x64(True):
        field = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), row.lively())
        x = points(row, 7, seed=4).astype(np.float64)
        steps = h * np.eye(row.d_in)[:, None]

        @quickly
        def derivatives(field: Any, x: jax.Array, around: jax.Array) -> dict[str, jax.Array]:
            backward = jax.vmap(jax.jacrev(field))
            shape = (2 * row.d_in, *x.shape[:-1], D_OUT)
            found = {
                "forward": jax.vmap(jax.jacfwd(field))(x),
                "backward": backward(x),
                "around": field(around).reshape(shape),
            }
            if row.smooth >= 2:
                found["hessian"] = jax.vmap(jax.jacfwd(jax.jacrev(field)))(x)
                found["jacobians"] = backward(around).reshape(*shape, row.d_in)
            return found

        around = np.concatenate([x + steps, x - steps]).reshape(-1, row.d_in)
        at = derivatives(field, jnp.asarray(x), jnp.asarray(around))
        assert all(y.dtype == np.float64 for y in at.values())
        np.testing.assert_allclose(at["forward"], at["backward"], rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(at["backward"], central(at["around"], h), rtol=1e-4, atol=1e-5)
        if row.smooth >= 2:
            np.testing.assert_allclose(
                at["hessian"], central(at["jacobians"], h), rtol=1e-4, atol=1e-4
            )


def central(around: Any, h: float) -> np.ndarray:
    """Central differences of (2 d, ...): values one step ahead along every axis, then behind."""
    ahead, behind = np.split(np.asarray(around), 2)
    return np.moveaxis(ahead - behind, 0, -1) / (2 * h)


@every_row
def test_leaves_are_floating_and_survive_save_and_load(row: Row, tmp_path: Path):
    field = row.lively()
    leaves = {name: np.asarray(leaf) for name, leaf in by_path(field).items()}
    assert {leaf.dtype for leaf in leaves.values()} == {np.dtype(np.float32)}
    save_file(leaves, tmp_path / "f.safetensors")
    read = load_file(tmp_path / "f.safetensors")
    other = jax.eval_shape(row.make)
    found = [jnp.asarray(read[name]) for name in by_path(other)]
    loaded = jax.tree.unflatten(jax.tree.structure(other), found)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(loaded), jax.tree.leaves(field), strict=True)
    )


@every_row
def test_it_fits_the_toy_signal(row: Row):
    x, y = toy(row.d_in)
    _, psnr = fitted(row.make(), x, y, row.rate, row.steps)
    assert psnr >= row.psnr


# anything that can be called is a field


@struct.dataclass
class Wave:
    """A frozen dataclass of arrays."""

    amplitude: jax.Array
    phase: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.amplitude[None] * jnp.sin(x[..., :1] * 3 + self.phase[None])


def linear(w: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.sin(x @ w)


@pytest.mark.parametrize(
    "field",
    [
        Wave(amplitude=jnp.ones(D_OUT), phase=jnp.zeros(D_OUT)),
        jax.tree_util.Partial(linear, jnp.ones((2, D_OUT))),
        nnx.Linear(2, D_OUT, rngs=nnx.Rngs(0)),
    ],
    ids=["dataclass", "partial", "linear"],
)
def test_any_callable_pytree_is_a_field(field: Any):
    x, y = toy(2)
    before = float(jnp.mean((field(x) - y) ** 2))
    after, psnr = fitted(field, x, y, 1e-2, 100)
    assert type(after) is type(field)
    assert 10 ** (-psnr / 10) < before
    assert dataclasses.is_dataclass(after) == isinstance(field, Wave)
