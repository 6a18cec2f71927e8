"""Splat training beside its command: Gaussians in another order, steps of the seen, full lists."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lumefield import native, render
from lumefield.apps import _splat
from lumefield.apps._batches import Batch
from lumefield.fields import Gaussians, Stats
from lumefield.fit import Stage, TrainState, fit, state_arrays

N, USED, H, W = 90, 70, 40, 56
BEHIND = USED - 1
"""The Gaussian that no camera sees."""


def started(recipe: _splat.Recipe, n: int = N, used: int = USED) -> TrainState:
    """Gaussians in a slab before the camera, the last one behind it, and moments that differ."""
    rng = np.random.default_rng(0)
    means = rng.uniform(-1, 1, (used, 3)) * [1.2, 0.9, 0.3] + [0, 0, 3]
    means[BEHIND] = [0.1, 0.2, -2.0]
    g = Gaussians.from_arrays(
        means=means,
        quats_wxyz=rng.normal(size=(used, 4)),
        log_scales=rng.normal(size=(used, 3)) * 0.4 - 2.2,
        logit_opacities=rng.normal(size=used),
        sh=rng.normal(size=(used, 4, 3)) * 0.4,
    ).padded(n)
    rows = n if recipe.densify == "adc" else 0
    scene = _splat.SplatScene(g, jnp.zeros((2, 3, 2)), jnp.zeros((0, 6)), jnp.zeros((rows, 2)))
    tx = _splat.optimizer(recipe, scene)
    state = TrainState.start(scene, tx, jax.random.key(3), Stats.start(used, n))
    stats = dataclasses.replace(
        state.aux, gradient=jnp.arange(n, dtype=jnp.float32), seen=jnp.ones(n)
    )
    opt: Any = state.opt
    marks = jax.tree.map(lambda x: x + jnp.asarray(rng.uniform(size=x.shape), x.dtype), opt.mu)
    return dataclasses.replace(state, aux=stats, opt=opt._replace(mu=marks, nu=marks))


def rows(scene: Any) -> list[np.ndarray]:
    """What has a row for each Gaussian, in a scene or in its moments."""
    return [np.asarray(leaf) for leaf in jax.tree.leaves(scene.gaussians)]


def views(first: int, count: int) -> Batch:
    """Two photos of noise, in turn."""
    rng = np.random.default_rng(5)
    photos = rng.integers(0, 256, (2, H, W, 3)).astype(np.uint8)
    which = np.arange(first, first + count) % 2
    full = np.full((count, 1, 1, 1), 255, np.uint8)
    pose = np.broadcast_to(np.eye(3, 4, dtype=np.float32), (count, 1, 3, 4))
    focal = np.full((count, 1, 2), 45.0, np.float32)
    centre = np.broadcast_to(np.array([W / 2, H / 2], np.float32), (count, 1, 2))
    index = which[:, None].astype(np.int32)
    return Batch(index, photos[which][:, None], full, full, pose, focal, centre)


def picture(g: Gaussians) -> jax.Array:
    camera = render.Cameras.from_pinhole(
        jnp.eye(3, 4), jnp.full(2, 45.0), jnp.array([W / 2, H / 2]), height=H, width=W
    )
    return render.rasterize_rgb(**g.activate(), camera=camera)[0]


def trained(recipe: _splat.Recipe, state: TrainState, steps: int, **how: Any) -> TrainState:
    loss = _splat.make_loss(recipe, height=H, width=W, degree=1, **how)
    after = _splat.make_after_step(recipe, height=H, width=W)
    tx = _splat.optimizer(recipe, state.scene)
    return fit(state, (Stage(steps, loss, views),), tx, chunk=4, after_step=after)


# another order


@pytest.mark.parametrize("densify", ["mcmc", "adc"])
def test_a_resorted_scene_is_the_same_scene_and_trains_the_same(densify: Any):
    recipe = _splat.Recipe(steps=50, limit=N, densify=densify, noise=0.0, opacity_cost=0.0)
    recipe = dataclasses.replace(recipe, scale_cost=0.0)
    state = started(recipe)
    turned = jax.jit(lambda state: _splat.resorted(state, recipe))(state)
    order = np.asarray(turned.aux.gradient).astype(int)
    assert sorted(order) == list(range(N))
    assert (order != np.arange(N)).sum() > USED / 2
    assert (np.sort(order[:USED]) == np.arange(USED)).all()
    for part in (lambda s: s.scene, lambda s: s.opt.mu, lambda s: s.opt.nu):
        for a, b in zip(rows(part(state)), rows(part(turned)), strict=True):
            np.testing.assert_array_equal(a[order], b)
    np.testing.assert_array_equal(turned.scene.exposure, state.scene.exposure)
    a, b = picture(state.scene.gaussians), picture(turned.scene.gaussians)
    np.testing.assert_allclose(a, b, atol=1e-6)
    one, two = (trained(recipe, s, 4) for s in (state, turned))
    for a, b in zip(rows(one.scene), rows(two.scene), strict=True):
        np.testing.assert_allclose(a[order], b, atol=2e-4)


def test_densification_leaves_neighbours_next_to_each_other():
    recipe = _splat.Recipe(steps=500, limit=N, refine_from=100, refine_every=100, refine_until=400)

    def gap(sort: bool) -> float:
        chosen = dataclasses.replace(recipe, resort=sort)
        state = dataclasses.replace(started(chosen), step=jnp.asarray(100, jnp.int32))
        done = _splat.make_between(chosen)(state)
        used = int(done.aux.used)
        assert used > USED
        means = np.asarray(done.scene.gaussians.means)[:used]
        return float(np.median(np.linalg.norm(np.diff(means, axis=0), axis=1)))

    assert gap(sort=True) < 0.5 * gap(sort=False)


# steps of the seen


@pytest.mark.parametrize("sparse", [True, False])
def test_gaussians_that_no_photo_shows_stay_where_steps_are_sparse(sparse: bool):
    recipe = _splat.Recipe(steps=50, limit=N, noise=0.0, sparse=sparse)
    state = started(recipe)
    done = trained(recipe, state, 4)
    moved = [old != new for old, new in zip(rows(state.scene), rows(done.scene), strict=True)]
    assert [bool(leaf[BEHIND].any()) for leaf in moved] == [not sparse] * len(moved)
    for leaf in moved:
        assert leaf[:BEHIND].reshape(BEHIND, -1).any(1).mean() > 0.9


# lists that are full


def test_steps_whose_lists_were_full_are_done_again_with_longer_ones(
    monkeypatch: pytest.MonkeyPatch,
):
    if not native.warp_available():
        pytest.skip(native.warp_missing())
    recipe = _splat.Recipe(steps=50, limit=N)
    asked: list[int | None] = []
    wider = render.SplatOptions.wider

    def counted(options: render.SplatOptions) -> render.SplatOptions:
        asked.append(options.slots)
        return wider(options)

    monkeypatch.setattr(render.SplatOptions, "wider", counted)

    def run(slots: int | None) -> TrainState:
        state = started(recipe)
        options = render.SplatOptions(backend="warp", slots=slots)
        size: Any = {"height": H, "width": W, "degree": 1}
        stage = _splat.make_stage(recipe, 2, views, options=options, **size)
        tx = _splat.optimizer(recipe, state.scene)
        after = _splat.make_after_step(recipe, height=H, width=W)
        return fit(state, (stage,), tx, chunk=2, after_step=after)

    mine, yours = (state_arrays(run(slots)) for slots in (128, None))
    assert asked == [128]
    assert all(np.array_equal(mine[k], yours[k]) for k in yours)
    assert all(np.isfinite(x).all() for k, x in mine.items() if k.startswith("scene"))


def test_an_accelerator_gets_slots_for_a_usual_picture(monkeypatch: pytest.MonkeyPatch):
    recipe = _splat.Recipe(steps=50, limit=N)
    size: Any = {"height": H, "width": W, "degree": 1}
    assert _splat.make_stage(recipe, 2, views, **size).redo is None
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    stage = _splat.make_stage(recipe, 2, views, **size)
    assert stage.redo is not None
    assert stage.redo({"crowded": np.zeros(2)}) is None
    wider = stage.redo({"crowded": np.array([0.0, 0.5])})
    assert wider is not None
    assert (wider.until, wider.batches) == (2, views)


def test_a_step_on_a_gpu_asks_the_host_nothing_and_takes_the_kernels(
    monkeypatch: pytest.MonkeyPatch,
):
    if not native.warp_available():
        pytest.skip(native.warp_missing())
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(native, "warp_on_gpu", native.warp_available)
    monkeypatch.setattr("lumefield.native._adam.backend_on", lambda platform: "warp")
    many = 1500  # so many that the usual lists might not hold them
    recipe = _splat.Recipe(steps=50, limit=many, sparse=True)
    state = started(recipe, many, many)
    tx: Any = _splat.optimizer(recipe, state.scene)
    batch = jax.tree.map(lambda x: jnp.asarray(x[0]), views(0, 1))

    def code(options: render.SplatOptions) -> str:
        loss = _splat.make_loss(recipe, height=H, width=W, degree=1, options=options)

        def step(state: TrainState, key: jax.Array) -> Any:
            grad = jax.grad(loss, has_aux=True)
            grads, metrics = grad(state.scene, state.aux, batch, key, state.step)
            return tx.move(grads, state.opt, state.scene), metrics

        keys = jax.eval_shape(jax.random.key, 0)
        traced = jax.jit(step).trace(state, keys)
        return traced.lower(lowering_platforms=("cuda",)).as_text()

    options = render.SplatOptions()
    once = code(options.listed(many, H, W))
    for kernel in ("emit", "composite_backward", "photometric_gradient", "adam_rows"):
        assert kernel in once
    assert "stablehlo.while" not in once
    assert "stablehlo.while" in code(options)
