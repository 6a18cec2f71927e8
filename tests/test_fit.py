"""Laws of the training loop: convergence, exact resume, stages, and errors that stop it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lumefield.errors import RunError
from lumefield.fit import (
    Chunk,
    Stage,
    TrainState,
    fit,
    forget,
    restore,
    scaled_adam,
    state_arrays,
)

TARGET = np.array([1.0, -2.0, 3.0], np.float32)


def numbers(first: int, count: int) -> np.ndarray:
    """Batches: noise that depends on the step alone."""
    steps = range(first, first + count)
    return np.stack([np.random.default_rng(s).normal(size=3) for s in steps]).astype(np.float32)


def parabola(scene: Any, aux: Any, batch: Any, key: Any, step: Any) -> Any:
    """Squared distance to the target, a little disturbed by batch and key."""
    noise = batch * 0.01 + jax.random.normal(key, (3,)) * 0.01
    value = jnp.sum((scene["x"] - TARGET + noise) ** 2) + jnp.sum(scene["y"] ** 2)
    return value, ({"sum": aux["sum"] + value, "count": aux["count"] + 1}, {"at": step})


def started(tx: optax.GradientTransformation) -> TrainState:
    scene = {"x": jnp.zeros(3), "y": jnp.ones((2, 2))}
    aux = {"sum": jnp.zeros(()), "count": jnp.zeros((), jnp.int32)}
    return TrainState.start(scene, tx, jax.random.key(7), aux)


def jitter(scene: Any, aux: Any, grads: Any, key: Any, step: Any) -> Any:
    """After each step: noise from the key."""
    del grads, step
    return {**scene, "x": scene["x"] + 1e-3 * jax.random.normal(key, (3,))}, aux


TX = scaled_adam(lambda step: jnp.float32(0.1) * 0.99 ** step.astype(jnp.float32))


def run(state: TrainState, until: int, **options: Any) -> TrainState:
    return fit(state, (Stage(until, parabola, numbers),), TX, after_step=jitter, **options)


def same(a: Any, b: Any) -> bool:
    mine, yours = state_arrays(a), state_arrays(b)
    assert mine.keys() == yours.keys()
    return all(np.array_equal(mine[k], yours[k]) for k in mine)


# convergence


def test_a_dict_of_arrays_reaches_the_minimum():
    state = run(started(TX), 300)
    np.testing.assert_allclose(state.scene["x"], TARGET, atol=0.05)
    np.testing.assert_allclose(state.scene["y"], 0, atol=0.05)
    assert int(state.step) == 300 == int(state.aux["count"])


class Line(nnx.Module):
    """Two layers, so that the tree has inner nodes."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List([nnx.Linear(1, 8, rngs=rngs), nnx.Linear(8, 1, rngs=rngs)])

    def __call__(self, x: Any) -> Any:
        return self.layers[1](self.layers[0](x))


def test_a_network_learns_a_line():
    def loss(scene: Any, aux: Any, batch: Any, key: Any, step: Any) -> Any:
        del key, step
        return jnp.mean((scene(batch) - (3 * batch + 1)) ** 2), (aux, {})

    def batches(first: int, count: int) -> Any:
        return np.stack([numbers(s, 1)[0][:, None] for s in range(first, first + count)])

    state = TrainState.start(Line(rngs=nnx.Rngs(0)), TX, jax.random.key(0))
    with jax.numpy_rank_promotion("allow"):  # the layer adds its bias by broadcasting
        state = fit(state, (Stage(200, loss, batches),), TX)
        at = state.scene(jnp.array([[0.0], [1.0]]))
    np.testing.assert_allclose(at[:, 0], [1, 4], atol=0.05)


# exact resume


def test_forty_steps_are_twenty_saved_restored_and_twenty_more():
    whole = run(started(TX), 40, chunk=10)
    half = run(started(TX), 20, chunk=10)
    stored = {k: v.copy() for k, v in state_arrays(half).items()}
    resumed = restore(started(TX), stored)
    assert same(resumed, half)
    assert same(run(resumed, 40, chunk=10), whole)


def test_the_same_seed_repeats_and_another_one_differs():
    assert same(run(started(TX), 20), run(started(TX), 20))
    other = dataclasses.replace(started(TX), key=jax.random.key(8))
    assert not np.array_equal(run(other, 20).scene["x"], run(started(TX), 20).scene["x"])


def test_the_size_of_a_chunk_changes_nothing():
    assert same(run(started(TX), 20, chunk=5), run(started(TX), 20, chunk=10))
    assert same(run(started(TX), 20, chunk=7), run(started(TX), 20, chunk=10))


def test_between_runs_after_each_chunk_and_decides_by_the_step():
    seen: list[int] = []

    def between(state: TrainState) -> TrainState:
        seen.append(int(state.step))
        if int(state.step) % 10:
            return state
        return dataclasses.replace(state, scene={**state.scene, "y": state.scene["y"] + 1})

    five = run(started(TX), 20, chunk=5, between=between)
    assert seen == [5, 10, 15, 20]
    assert same(five, run(started(TX), 20, chunk=10, between=between))
    assert not same(five, run(started(TX), 20, chunk=10))


def test_another_kind_of_random_key_survives():
    key = jax.random.key(3, impl="rbg")
    state = TrainState.start({"x": jnp.zeros(2)}, TX, key)
    back = restore(state, state_arrays(state))
    assert jax.random.key_impl(back.key) == jax.random.key_impl(key)
    assert same(back, state)


# stages, chunks


def test_stages_switch_at_their_steps_and_finished_ones_are_skipped():
    def towards(goal: float) -> Any:
        def loss(scene: Any, aux: Any, batch: Any, key: Any, step: Any) -> Any:
            del batch, key
            return jnp.sum((scene["x"] - goal) ** 2), (aux, {"goal": jnp.float32(goal), "at": step})

        return loss

    told: list[Chunk] = []

    def on_chunk(state: TrainState, chunk: Chunk) -> bool:
        assert int(state.step) == chunk.step
        told.append(chunk)
        return True

    stages = (Stage(12, towards(1.0), numbers), Stage(20, towards(-1.0), numbers))
    state = TrainState.start({"x": jnp.zeros(())}, TX, jax.random.key(0))
    done = fit(state, stages, TX, chunk=5, on_chunk=on_chunk)
    assert [c.step for c in told] == [5, 10, 12, 17, 20]
    goals = np.concatenate([c.metrics["goal"] for c in told])
    assert goals.tolist() == [1.0] * 12 + [-1.0] * 8
    assert np.concatenate([c.metrics["at"] for c in told]).tolist() == list(range(20))
    assert all(c.metrics["loss"].shape == c.metrics["at"].shape for c in told)

    told.clear()
    late = dataclasses.replace(state, step=jnp.asarray(15, jnp.int32))
    fit(late, stages, TX, chunk=5, on_chunk=on_chunk)
    assert [c.step for c in told] == [20]
    assert fit(done, stages, TX) is done


def test_on_chunk_can_stop():
    state = run(started(TX), 50, chunk=10, on_chunk=lambda state, chunk: chunk.step < 20)
    assert int(state.step) == 20


# errors


def breaking(at: int) -> Any:
    """A loss that is not a number from step ``at`` on (counted from 1)."""

    def loss(scene: Any, aux: Any, batch: Any, key: Any, step: Any) -> Any:
        del batch, key
        value = jnp.sum(scene["x"] ** 2)
        return jnp.where(step + 1 >= at, jnp.nan, value), (aux, {})

    return loss


def failing(loss: Any) -> tuple[list[int], str]:
    """Steps that ``on_chunk`` saw, all of them finite, and the message."""
    good: list[int] = []

    def on_chunk(state: TrainState, chunk: Chunk) -> bool:
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.scene))
        good.append(chunk.step)
        return True

    state = TrainState.start({"x": jnp.ones(2)}, TX, jax.random.key(0))
    with pytest.raises(RunError) as caught:
        fit(state, (Stage(30, loss, numbers),), TX, chunk=5, on_chunk=on_chunk)
    return good, str(caught.value)


@pytest.mark.parametrize("at", [1, 13, 15])
def test_a_loss_that_is_not_finite_stops_and_names_the_step(at: int):
    good, message = failing(breaking(at))
    last = (at - 1) // 5 * 5
    assert good == list(range(5, last + 1, 5))
    assert f"loss is not a finite number at step {at};" in message
    assert f"last good state is at step {last}: resume" in message


def test_a_scene_that_is_not_finite_stops_though_its_loss_was():
    def loss(scene: Any, aux: Any, batch: Any, key: Any, step: Any) -> Any:
        del batch, key
        # The square root of 0 has a gradient without bound; the value stays finite.
        x = scene["x"] * jnp.where(step == 9, 0.0, 1.0)
        return jnp.sum(jnp.sqrt(x * x)), (aux, {})

    good, message = failing(loss)
    assert good == [5]
    assert "scene is not a finite number at step 10;" in message


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda a: a.pop("scene.x"), "scene.x missing or left over"),
        (lambda a: a.update(odd=np.zeros(1)), "odd missing or left over"),
        (
            lambda a: a.update({"scene.x": np.zeros(4, np.float32)}),
            r"scene.x is float32\(4,\), expected float32\(3,\)",
        ),
        (
            lambda a: a.update({"scene.x": np.zeros(3, np.float64)}),
            r"scene.x is float64\(3,\), expected float32\(3,\)",
        ),
        (
            lambda a: a.update({"step": np.zeros(1, np.int32)}),
            r"step is int32\(1,\), expected int32\(\)",
        ),
    ],
)
def test_a_state_of_another_run_is_refused(change: Any, part: str):
    arrays = state_arrays(started(TX))
    change(arrays)
    with pytest.raises(RunError, match=f"does not fit this run: {part}; resume with the settings"):
        restore(started(TX), arrays)


# forget


def test_forget_clears_the_chosen_rows_of_both_moments_and_nothing_else():
    scene = {"a": jnp.ones((4, 2)), "b": jnp.ones(4), "c": jnp.ones((2, 3, 3))}
    opt = jax.tree.map(lambda x: x + 1, TX.init(scene))
    rows = {"a": jnp.array([True, False, False, True]), "b": jnp.array([False] * 4), "c": None}
    after: Any = forget(opt, scene, rows)
    for moment in (after.mu, after.nu):
        assert moment["a"].tolist() == [[0, 0], [1, 1], [1, 1], [0, 0]]
        assert moment["b"].tolist() == [1] * 4
        assert (np.asarray(moment["c"]) == 1).all()
    assert after.count == opt.count


def test_forget_works_inside_a_chain_and_on_a_single_array():
    scene = jnp.ones((3, 2))
    tx = optax.chain(optax.clip(1.0), TX)
    opt = jax.tree.map(lambda x: x + 1, tx.init(scene))
    after: Any = forget(opt, scene, jnp.array([False, True, False]))
    assert after[1].mu.tolist() == [[1, 1], [0, 0], [1, 1]]
    assert after[1].count == 1


# scaled_adam


def adam_steps(tx: optax.GradientTransformation, scene: Any, count: int = 5) -> Any:
    state, out = tx.init(scene), []
    for i in range(count):
        rng = np.random.default_rng(i)
        grads = jax.tree.map(lambda x, r=rng: jnp.asarray(r.normal(size=x.shape), x.dtype), scene)
        updates, state = tx.update(grads, state, scene)
        out.append(updates)
    return out


def test_with_equal_rates_it_is_adam():
    scene = {"a": jnp.ones((3, 2)), "b": {"c": jnp.ones(4)}}
    with jax.numpy_dtype_promotion("standard"):
        mine = adam_steps(scaled_adam(lambda step: 0.02), scene)
        each = adam_steps(scaled_adam(lambda step: {"a": 0.02, "b": {"c": 0.02}}), scene)
        adam = adam_steps(optax.adam(0.02, eps=1e-15), scene)
    for tree in (mine, each):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), tree, adam)


def test_rates_differ_by_leaf_row_and_step():
    scene = {"a": jnp.ones((3, 2)), "b": {"c": jnp.ones(4)}}

    def rates(step: Any) -> Any:
        rows = jnp.array([[1.0], [2.0], [0.0]])
        return {"a": rows * (1 + step), "b": 0.5}

    with jax.numpy_dtype_promotion("standard"):
        unit = adam_steps(scaled_adam(lambda step: 1.0), scene)
        mine = adam_steps(scaled_adam(rates), scene)
    for i, (x, y) in enumerate(zip(mine, unit, strict=True)):
        by_row = np.array([[1], [2], [0]], np.float32) * (1 + i)
        np.testing.assert_allclose(x["a"], np.asarray(y["a"]) * by_row, rtol=1e-6)
        np.testing.assert_allclose(x["b"]["c"], y["b"]["c"] * 0.5, rtol=1e-6)
