"""The perceptron of bfloat16 tiles against a float64 twin that rounds where it does."""

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from lumefield import native
from lumefield.fields.networks._fused_mlp import check, mlp

NETS: dict[str, tuple[list[int], bool]] = {
    "trunk": ([123, 192, 192, 192, 97], True),
    "odd": ([5, 30, 77, 9, 2], True),
    "bare": ([33, 64, 3], False),
    "widest": ([16, 512, 31], True),
    "linear": ([7, 3], True),
    "one": ([1, 1, 1], False),
}
"""Name -> layer sizes, biases."""
half = partial(mlp, precision="bfloat16")


@pytest.fixture
def tiles():
    if not native.has_tiles():
        pytest.skip("this CPU does not multiply bfloat16 (Intel AMX or AVX512-BF16)")


def network(name: str, n: int, seed: int = 0) -> tuple[Any, ...]:
    """x, weights, biases and a cotangent, float32."""
    sizes, biased = NETS[name]
    rng = np.random.default_rng(seed)
    weights = [rng.normal(size=s) * 1.5 / s[0] ** 0.5 for s in itertools.pairwise(sizes)]
    biases = [rng.normal(size=s) for s in sizes[1:]] if biased else []
    arrays = (rng.normal(size=(n, sizes[0])), weights, biases, rng.normal(size=(n, sizes[-1])))
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), arrays)


def gradients(function, x, weights, biases, g):
    y, pull = jax.vjp(function, x, weights, biases)
    return y, *pull(g)


def rounded(a):
    """To bfloat16 as the kernel rounds what it multiplies."""
    return np.asarray(a, np.float32).astype(ml_dtypes.bfloat16).astype(np.float64)


def twin(arrays):
    """Value and gradients by the chain rule in float64, factors rounded."""
    x, weights, biases, g = arrays
    weights = [rounded(w) for w in weights]
    inputs, last = [rounded(x)], len(weights) - 1
    for layer, w in enumerate(weights):
        z = inputs[-1] @ w + (np.asarray(biases[layer], np.float64) if biases else 0.0)
        inputs.append(z if layer == last else rounded(np.maximum(z, 0)))
    g_weights, g_biases, g = [], [], rounded(g)
    for layer in reversed(range(len(weights))):
        g_weights.insert(0, inputs[layer].T @ g)
        g_biases.insert(0, g.sum(0))
        g = g @ weights[layer].T
        if layer:
            g = rounded(g * (inputs[layer] > 0))
    return inputs[-1], g, g_weights, g_biases if biases else []


def apart(found, wanted):
    """Largest difference of any array, by root mean squares, relative to the array's own."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
    return max(
        float(np.linalg.norm(np.asarray(a) - b) / max(np.linalg.norm(b), 1e-30))
        for a, b in pairs
        if b.size
    )


@pytest.mark.parametrize("name", NETS)
@pytest.mark.usefixtures("tiles")
def test_values_and_gradients_are_those_of_a_twin_that_rounds(name):
    """But for sums in another order: now and then one of them rounds to the other neighbour."""
    arrays = network(name, 1000)
    found = jax.jit(lambda *a: gradients(half, *a))(*arrays)
    assert apart(found, twin(arrays)) < 3e-3


@pytest.mark.parametrize("n", [0, 1, 31, 33, 128, 129, 4097])
@pytest.mark.usefixtures("tiles")
def test_any_number_of_samples_will_do(n):
    arrays = network("odd", n)
    found, wanted = gradients(half, *arrays), twin(arrays)
    assert [a.shape for a in jax.tree.leaves(found)] == [a.shape for a in jax.tree.leaves(wanted)]
    if n:
        assert apart(found, wanted) < 3e-3
    else:
        assert all(np.all(np.asarray(a) == 0) for a in jax.tree.leaves(found))


@pytest.mark.usefixtures("tiles")
def test_threads_change_nothing(monkeypatch):
    arrays, found = network("trunk", 5000), []
    for threads in ("1", "2"):
        monkeypatch.setenv("LUMEFIELD_THREADS", threads)
        found.append(jax.tree.leaves(gradients(half, *arrays)))
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.usefixtures("tiles")
def test_only_what_is_asked_for_is_computed_and_vmap_is_a_loop():
    x, weights, biases, _ = network("odd", 60)

    def loss(x, weights):
        return jnp.sum(half(x, weights, biases) ** 2)

    both = jax.grad(loss, argnums=(0, 1))(x, weights)
    assert np.array_equal(jax.grad(loss)(x, weights), both[0])
    alone = jax.grad(loss, argnums=1)(x, weights)
    assert all(np.array_equal(a, b) for a, b in zip(alone, both[1], strict=True))
    many = jax.vmap(lambda x: half(x, weights, biases))(x.reshape(3, 20, -1))
    assert np.array_equal(many.reshape(60, -1), half(x, weights, biases))


@pytest.mark.usefixtures("tiles")
def test_a_nan_stays_one():
    x, weights, biases, _ = network("odd", 4)
    y = np.asarray(half(x.at[2, 0].set(jnp.nan), weights, biases))
    assert np.isnan(y[2]).all()
    assert np.isfinite(np.delete(y, 2, 0)).all()


def test_without_tiles_it_is_float32(monkeypatch):
    monkeypatch.setattr(native, "has_tiles", lambda: False)
    x, weights, biases, _ = network("odd", 50)
    assert np.array_equal(half(x, weights, biases), mlp(x, weights, biases))


def test_what_tiles_cannot_do_is_float32():
    x = jnp.ones((3, 4))
    wide = [jnp.ones((4, 600)) / 7, jnp.ones((600, 2)) / 7]
    assert np.array_equal(half(x, wide), mlp(x, wide))
    few = [jnp.full((4, 8), 0.3), jnp.full((8, 2), 0.3)]
    assert np.array_equal(half(x, few, activation="sine"), mlp(x, few, activation="sine"))
    assert np.array_equal(half(x, few, backend="xla"), mlp(x, few, backend="xla"))


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision='half', expected one of"):
        check(jnp.ones((3, 4)), (jnp.ones((4, 2)),), (), "relu", "half")
