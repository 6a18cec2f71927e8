"""Laws of the optimizer that leaves rows alone, of rows in another order, of chunks run again."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lumefield import native
from lumefield.fit import (
    Stage,
    TrainState,
    fit,
    permuted,
    reordered,
    row_adam,
    scaled_adam,
    state_arrays,
)

ROWS = np.array([True, False, True, True, False])
SCENE = {"a": (5, 2, 3), "b": (5,), "c": {"d": (4, 2), "none": (0, 3)}}
Numbers = dict[str, Any]


@pytest.fixture(params=["xla", "warp"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "warp" and not native.warp_available():
        pytest.skip(native.warp_missing())
    return request.param


def draw(seed: int) -> Numbers:
    """A scene, or its gradient."""
    rng = np.random.default_rng(seed)
    is_shape: Callable[[Any], bool] = lambda x: isinstance(x, tuple)  # noqa: E731
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32), SCENE, is_leaf=is_shape
    )


def rates(step: Any) -> Any:
    """By leaf, by column, for all below."""
    return {"a": 0.1 * jnp.ones((1, 1, 3)) * 0.9**step, "b": 0.01, "c": 0.02}


def chosen(grads: Numbers, rows: Any = ROWS) -> Any:
    """The same rows in every step; all of c."""
    del grads
    return {"a": jnp.asarray(rows), "b": jnp.asarray(rows), "c": None}


def moved(tx: Any, steps: int = 4) -> tuple[Numbers, Any]:
    """Scene and moments after some steps, compiled."""

    @jax.jit
    def step(scene: Any, opt: Any, grads: Any) -> Any:
        with jax.numpy_dtype_promotion("standard"):
            if not hasattr(tx, "move"):
                updates, opt = tx.update(grads, opt, scene)
                return jax.tree.map(jnp.add, scene, updates), opt
            return tx.move(grads, opt, scene)

    scene = draw(0)
    opt = tx.init(scene)
    for i in range(steps):
        scene, opt = step(scene, opt, draw(1 + i))
    return scene, opt


def close(mine: Any, other: Any, rows: Any = slice(None)) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x[rows], y[rows], atol=3e-6), mine, other)


def test_rows_that_are_chosen_move_as_with_adam_and_the_others_stay(backend: str):
    start, (dense, dense_opt) = draw(0), moved(scaled_adam(rates))
    scene, opt = moved(row_adam(rates, chosen, backend=backend))
    assert int(opt.count) == 4
    for mine, other in ((scene, dense), (opt.mu, dense_opt.mu), (opt.nu, dense_opt.nu)):
        close(mine["a"], other["a"], ROWS)
        close(mine["b"], other["b"], ROWS)
        close(mine["c"], other["c"])
    for name in ("a", "b"):
        np.testing.assert_array_equal(scene[name][~ROWS], start[name][~ROWS])
        assert not np.asarray(opt.mu[name])[~ROWS].any()
        assert not np.asarray(opt.nu[name])[~ROWS].any()
        assert (np.asarray(scene[name])[ROWS] != np.asarray(start[name])[ROWS]).all()


def test_a_row_that_comes_and_goes_is_adam_in_float64_step_by_step(backend: str):
    turns = np.random.default_rng(3).uniform(size=(6, 5)) < 0.5

    def now(grads: Numbers) -> Any:  # a mark in the gradient says which step it is
        which = grads["b"][0].astype(jnp.int32)
        return {"a": jnp.asarray(turns)[which], "b": None, "c": None}

    tx = row_adam(lambda step: 0.1, now, backend=backend)
    scene = draw(0)
    opt, value = tx.init(scene), np.asarray(scene["a"], np.float64)
    mu, nu = np.zeros_like(value), np.zeros_like(value)
    step = jax.jit(tx.move)
    for i, turn in enumerate(turns):
        grads = draw(10 + i)
        grads["b"] = jnp.full(5, i, jnp.float32)
        scene, opt = step(grads, opt, scene)
        g, row = np.asarray(grads["a"], np.float64), turn[:, None, None]
        mu, nu = np.where(row, 0.9 * mu + 0.1 * g, mu), np.where(row, 0.999 * nu + 1e-3 * g * g, nu)
        by = (mu / (1 - 0.9 ** (i + 1))) / (np.sqrt(nu / (1 - 0.999 ** (i + 1))) + 1e-15)
        value = np.where(row, value - 0.1 * by, value)
    np.testing.assert_allclose(scene["a"], value, atol=1e-6)
    np.testing.assert_allclose(opt.mu["a"], mu, atol=1e-6)
    np.testing.assert_allclose(opt.nu["a"], nu, atol=1e-6)


def test_the_kernel_leaves_to_xla_what_it_cannot_do():
    if not native.warp_available():
        pytest.skip(native.warp_missing())
    rows, grow = jnp.asarray(ROWS), jnp.ones(2)
    by_row = jnp.linspace(0.1, 0.5, 5)[:, None]
    step: Any = partial(native.adam_rows, grow=grow, b1=0.9, b2=0.999, eps=1e-8)
    with jax.enable_x64(True):
        for dtype, rate in ((jnp.float32, by_row), (jnp.float64, 0.1)):
            arrays = [jnp.asarray(draw(i)["a"][:, 0], dtype) for i in range(4)]
            arrays[2] = jnp.abs(arrays[2])
            a, b = (
                step(rows, jnp.asarray(rate, dtype), *arrays, backend=x) for x in ("warp", "xla")
            )
            for x, y in zip(a, b, strict=True):
                assert x.dtype == dtype
                np.testing.assert_array_equal(x, y)


def test_a_backend_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch):
    x, decay = jnp.ones((2, 1)), {"b1": 0.9, "b2": 0.999, "eps": 1e-8}
    call = partial(native.adam_rows, None, 0.1, x, x, x, x, jnp.ones(2), **decay)
    with pytest.raises(ValueError, match="backend='cuda', expected auto, warp or xla"):
        call(backend="cuda")
    monkeypatch.setattr("lumefield.native._adam.warp_missing", lambda: "no such thing")
    with pytest.raises(ValueError, match="backend='warp', but no such thing, or use 'auto'"):
        call(backend="warp")


# rows in another order


def test_moments_go_with_their_rows():
    order = np.array([3, 0, 4, 1, 2])
    rows = {"a": jnp.asarray(order), "b": jnp.asarray(order), "c": None}
    tx = scaled_adam(rates)
    scene, opt = moved(tx)
    turned = permuted(rows, scene)
    np.testing.assert_array_equal(turned["a"], np.asarray(scene["a"])[order])
    assert turned["c"] is not scene["c"]
    np.testing.assert_array_equal(turned["c"]["d"], scene["c"]["d"])
    other = reordered(opt, scene, rows)
    with jax.numpy_dtype_promotion("standard"):
        after, _ = tx.update(draw(9), opt, scene)
        new: Any
        mine, new = tx.update(permuted(rows, draw(9)), other, turned)
    close(mine, permuted(rows, after))
    assert int(new.count) == 5


# chunks run again


def test_a_chunk_that_a_stage_wants_again_leaves_no_trace():
    started: list[int] = []

    def batches(first: int, count: int) -> Any:
        started.append(first)
        return np.arange(first, first + count)

    def stage(room: int) -> Stage:
        def loss(scene: Any, aux: Any, batch: Any, key: Any, step: Any) -> Any:
            del key, step
            short = batch >= room
            value = jnp.where(short, jnp.nan, jnp.sum((scene["x"] - 1) ** 2))
            return value, (aux + batch, {"short": short})

        def redo(metrics: Any) -> Stage | None:
            return stage(2 * room) if metrics["short"].any() else None

        return Stage(20, loss, batches, redo)

    def run(room: int) -> tuple[TrainState, list[int], list[int]]:
        started.clear()
        told: list[int] = []
        state = TrainState.start(
            {"x": jnp.zeros(2)},
            scaled_adam(lambda step: 0.1),
            jax.random.key(0),
            jnp.zeros((), int),
        )

        def on_chunk(state: TrainState, chunk: Any) -> bool:
            assert np.isfinite(chunk.metrics["loss"]).all()
            told.append(chunk.step)
            return True

        state = fit(
            state, (stage(room),), scaled_adam(lambda step: 0.1), chunk=5, on_chunk=on_chunk
        )
        return state, told, started.copy()

    ample, told, first = run(99)
    assert (told, first) == ([5, 10, 15, 20], [0, 5, 10, 15])
    tight, told, first = run(3)
    assert (told, first) == ([5, 10, 15, 20], [0, 0, 5, 5, 10, 10, 15])
    mine, yours = state_arrays(tight), state_arrays(ample)
    assert all(np.array_equal(mine[k], yours[k]) for k in yours)


def test_a_stage_without_redo_is_the_default():
    assert {f.name: f.default for f in dataclasses.fields(Stage)}["redo"] is None
