"""SOAP of all networks at once against a loop over their arrays."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

from lumefield.codecs.overfit._soap import EVERY, RAMP, scaled_soap


@struct.dataclass
class Scene:
    latents: Any
    networks: Any


def scene(rng):
    shapes = {"a": (5, 5), "b": (4,), "c": (4, 1, 2, 2), "d": (7, 7), "e": (2,), "f": (0, 4)}
    draw = {name: jnp.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}
    return Scene((jnp.asarray(rng.normal(size=(6, 4))),), draw)


def looped(grads: list[np.ndarray], every: int, ramp: int) -> list[np.ndarray]:
    """Moves of one array after each of its gradients: Algorithm 3 as it stands."""
    shape = grads[0].shape
    size = (shape[0], grads[0].size // shape[0])
    mean, square, moves = np.zeros(size), np.zeros(size), []
    sides, bases = [np.zeros((n, n)) for n in size], [np.eye(n) for n in size]
    for t, grad in enumerate(grads):
        g = grad.reshape(size)
        mean = 0.95 * mean + 0.05 * g
        square = 0.95 * square + 0.05 * (bases[0].T @ g @ bases[1]) ** 2
        mean_turned = bases[0].T @ mean @ bases[1] / (1 - 0.95 ** (t + 1))
        move = mean_turned / (np.sqrt(square / (1 - 0.95 ** (t + 1))) + 1e-8)
        move = np.clip(move, -1, 1)
        moves.append((min(t / ramp, 1) * bases[0] @ move @ bases[1].T).reshape(shape))
        sides = [0.95 * a + 0.05 * b for a, b in zip(sides, (g @ g.T, g.T @ g), strict=True)]
        if t % every == 0:
            bases = [np.linalg.eigh(side)[1][:, ::-1] for side in sides]
    return moves


@pytest.fixture
def exact():
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.usefixtures("exact")
def test_all_arrays_at_once_move_as_each_by_itself():
    rng = np.random.default_rng(0)
    start: Any = scene(rng)
    steps = 45
    tx = scaled_soap(lambda _: Scene(0.5, 0.25), b2=0.9)
    adam: Any = optax.scale_by_adam(b2=0.9, eps=1e-15)
    state, beside = tx.init(start), adam.init(start.latents)
    update = jax.jit(tx.update)
    grads = [scene(rng) for _ in range(steps)]
    moves = []
    for g in grads:
        moved, state = update(g, state)
        wanted, beside = adam.update(g.latents, beside)
        np.testing.assert_allclose(moved.latents[0], -0.5 * wanted[0], rtol=1e-9)
        moves.append(moved.networks)
    for name in ("a", "c", "d"):
        mine = [np.asarray(g.networks[name]) for g in grads]
        wanted = looped(mine, EVERY, RAMP)
        # Square matrices: else some eigenvectors are free at first, and any would do.
        for t in (0, 5, 20, 44):
            np.testing.assert_allclose(moves[t][name], -0.25 * wanted[t], rtol=1e-5, atol=1e-8)
    for name in ("b", "e"):
        plain: Any = optax.scale_by_adam(b1=0.95, b2=0.95, eps=1e-8)
        one = plain.init(start.networks[name])
        for t, g in enumerate(grads):
            wanted, one = plain.update(g.networks[name], one)
            share = min(t / RAMP, 1)
            np.testing.assert_allclose(moves[t][name], -0.25 * share * wanted, atol=1e-9)


@pytest.mark.usefixtures("exact")
def test_a_direction_that_changes_rank_moves_by_one_rate_at_most():
    tx = scaled_soap(lambda _: Scene(0.0, 1.0), b2=0.9)
    at: Any = Scene((jnp.zeros(1),), {"a": jnp.zeros((2, 2)), "b": jnp.zeros(1)})
    state = tx.init(at)
    update = jax.jit(tx.update)
    largest = []
    for step in range(2 * EVERY + RAMP):
        burst = 10.0 if 2 * EVERY < step <= 3 * EVERY else 1e-3  # at its end the ranks change
        grad = jnp.diag(jnp.array([1e-2, burst]))
        grads = Scene((jnp.zeros(1),), {"a": grad, "b": jnp.ones(1)})
        moves, state = update(grads, state)
        largest.append(float(jnp.abs(moves.networks["a"]).max()))
    assert max(largest) == pytest.approx(1.0)  # hundreds without the bound
