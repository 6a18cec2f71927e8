"""Laws of relocation (MCMC) and of clone, split and prune (ADC)."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lumefield import render
from lumefield.fields import (
    DEAD_LOGIT,
    Gaussians,
    Stats,
    clone_split_prune,
    explore,
    relocate,
    reset_opacity,
    rotate,
    shared_shape,
)

MIN_OPACITY = 0.005


def logit(p: Any) -> np.ndarray:
    p = np.asarray(p, np.float64)
    return np.log(p / (1 - p))


def scene(opacities: Any, seed: int = 0, capacity: int | None = None) -> Gaussians:
    """Gaussians of the given opacities in front of a camera, padded with dead slots."""
    opacities = np.asarray(opacities, np.float64)
    rng, n = np.random.default_rng(seed), len(opacities)
    g = Gaussians.from_arrays(
        means=rng.uniform(-1, 1, (n, 3)) * [1, 0.8, 0.3] + [0, 0, 3],
        quats_wxyz=rng.normal(size=(n, 4)),
        log_scales=rng.normal(size=(n, 3)) * 0.3 - 1.8,
        logit_opacities=logit(opacities),
        sh=rng.normal(size=(n, 1, 3)) * 0.5,
    )
    return g.padded(capacity or n)


def opacity_of(g: Gaussians) -> np.ndarray:
    return np.asarray(jax.nn.sigmoid(g.logit_opacities))


def same(a: Any, b: Any) -> bool:
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in leaves)


def changed(before: Gaussians, after: Gaussians) -> np.ndarray:
    """Slots in which any leaf differs."""
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    flat = [np.asarray(a != b).reshape(before.count, -1).any(1) for a, b in pairs]
    return np.any(flat, 0)


@functools.partial(jax.jit, static_argnames=("limit", "growth"))
def relocated(g: Gaussians, stats: Stats, key: jax.Array, limit: int, growth: float = 1.05) -> Any:
    return relocate(g, stats, key, limit=limit, growth=growth)


@functools.partial(jax.jit, static_argnames=("limit", "extent"))
def densified(g: Gaussians, stats: Stats, key: jax.Array, limit: int, extent: float = 1.0) -> Any:
    return clone_split_prune(g, stats, key, limit=limit, extent=extent)


# shared_shape


def published(opacity: float, n: int) -> tuple[float, float]:
    """Kheradmand et al. 2024, Eq. 9, term by term."""
    each = 1 - (1 - opacity) ** (1 / n)
    total = sum(
        math.comb(i - 1, k) * (-1) ** k * each ** (k + 1) / math.sqrt(k + 1)
        for i in range(1, n + 1)
        for k in range(i)
    )
    return each, opacity / total


@pytest.mark.parametrize("opacity", [0.005, 0.1, 0.5, 0.9, 0.999])
def test_shared_shape_is_the_published_sum(opacity: float):
    copies = np.arange(1, 21)
    each, factor = shared_shape(
        jnp.full(20, opacity, jnp.float32), jnp.asarray(copies, dtype=jnp.int32)
    )
    expected = np.array([published(opacity, int(n)) for n in copies])
    np.testing.assert_allclose(each, expected[:, 0], rtol=3e-5)
    np.testing.assert_allclose(factor, expected[:, 1], rtol=3e-5)


def test_one_copy_keeps_its_shape():
    opacity = jnp.asarray([0.005, 0.3, 0.99, 1 - 1e-6])
    each, factor = shared_shape(opacity, jnp.ones(4, jnp.int32))
    np.testing.assert_allclose(each, opacity, rtol=1e-6)
    np.testing.assert_allclose(factor, 1, rtol=1e-6)


@pytest.mark.parametrize("n", [2, 5, 51])
@pytest.mark.parametrize("opacity", [0.01, 0.5, 0.95, 1 - 1e-6])
def test_the_copies_together_look_like_the_original(opacity: float, n: int):
    each, factor = shared_shape(jnp.asarray([opacity]), jnp.asarray([n], jnp.int32))
    o, s = float(each[0]), float(factor[0])
    x = np.linspace(-12, 12, 4001)
    together = 1 - (1 - o * np.exp(-0.5 * (x / s) ** 2)) ** n
    original = opacity * np.exp(-0.5 * x**2)
    # Eq. 9 keeps the peak, and the area under the profile.
    assert together.max() == pytest.approx(original.max(), rel=1e-4)
    assert np.trapezoid(together, x) == pytest.approx(np.trapezoid(original, x), rel=1e-3)


def test_more_than_51_copies_count_as_51():
    opacity = jnp.asarray([0.5, 0.5, 0.5])
    each, factor = shared_shape(opacity, jnp.asarray([51, 52, 10_000], jnp.int32))
    assert np.ptp(each) == 0
    assert np.ptp(factor) == 0


# relocate


def mixed(n: int = 60, dead: int = 12, capacity: int = 100) -> tuple[Gaussians, Stats]:
    """``n`` slots in use, every few of them dead, and room above."""
    opacities = np.random.default_rng(3).uniform(0.05, 0.95, n)
    opacities[:: n // dead] = 0.001
    return scene(opacities, capacity=capacity), Stats.start(n, capacity)


def test_relocation_fills_every_dead_slot_in_use_and_kills_none(key: jax.Array):
    g, stats = mixed()
    moved, after, touched = relocated(g, stats, key, 100)
    alive = opacity_of(moved) > MIN_OPACITY * (1 - 1e-5)
    used = int(after.used)
    assert alive[:used].all()
    assert not alive[used:].any()
    assert moved.count == g.count
    assert np.array_equal(np.asarray(touched), changed(g, moved))


def test_new_slots_are_copies_of_a_live_one(key: jax.Array):
    g, stats = mixed()
    moved, after, _ = relocated(g, stats, key, 100)
    was_alive = (opacity_of(g) > MIN_OPACITY) & (np.arange(100) < int(stats.used))
    filled = ~was_alive & (np.arange(100) < int(after.used))
    sources = {tuple(m) for m in np.asarray(g.means)[was_alive]}
    assert {tuple(m) for m in np.asarray(moved.means)[filled]} <= sources
    assert np.array_equal(moved.means[was_alive], g.means[was_alive])  # the living stay in place


@pytest.mark.parametrize(
    ("used", "limit", "growth", "expected"),
    [
        (60, 100, 1.05, 63),
        (60, 62, 1.05, 62),
        (60, 60, 1.05, 60),
        (60, 1000, 10.0, 100),  # the capacity
        (60, 40, 1.05, 60),  # above the limit already: nothing is thrown away
        (61, 100, 1.05, 65),  # rounded up
    ],
)
def test_the_slots_in_use_grow_by_the_factor_up_to_the_limit(
    used: int, limit: int, growth: float, expected: int, key: jax.Array
):
    g = scene(np.full(used, 0.5), capacity=100)
    _, after, _ = relocated(g, Stats.start(used, 100), key, limit, growth)
    assert int(after.used) == expected


def test_relocation_reaches_the_limit_and_stays_there(key: jax.Array):
    g, stats = mixed()
    for i in range(20):
        g, stats, _ = relocated(g, stats, jax.random.fold_in(key, i), 80)
    assert int(stats.used) == 80
    assert int((opacity_of(g) > 1e-6).sum()) == 80


def test_the_same_key_relocates_the_same_way(key: jax.Array):
    g, stats = mixed()
    assert same(relocated(g, stats, key, 100), relocated(g, stats, key, 100))
    other = jax.random.key(1)
    assert not same(relocated(g, stats, key, 100)[0], relocated(g, stats, other, 100)[0])


def test_relocation_does_nothing_when_all_are_dead_or_all_is_full(key: jax.Array):
    dead = scene(np.full(10, 0.001), capacity=20)
    moved, _, touched = relocated(dead, Stats.start(10, 20), key, 20)
    assert same(moved, dead)
    assert not touched.any()
    full = scene(np.full(20, 0.5))
    moved, _, touched = relocated(full, Stats.start(20, 20), key, 20)
    assert same(moved, full)
    assert not touched.any()


def test_opaque_gaussians_are_copied_more_often():
    opacities = np.r_[np.full(50, 0.05), np.full(50, 0.9)]
    g, stats = scene(opacities, capacity=1000), Stats.start(100, 1000)
    _, _, touched = relocated(g, stats, jax.random.key(4), 1000, 10.0)
    faint, opaque = np.asarray(touched[:50]).mean(), np.asarray(touched[50:100]).mean()
    assert opaque == 1
    assert faint < 0.7


def test_relocation_hardly_changes_the_picture(key: jax.Array):
    g, stats = mixed(capacity=70)
    draw = jax.jit(picture_of)
    before = np.asarray(draw(g))
    after = np.asarray(draw(relocated(g, stats, key, 70)[0]))
    assert before.max() > 0.5
    assert np.abs(after - before).mean() < 0.01
    # Doubling Gaussians without sharing their shape is another picture.
    order = np.arange(70) % 48
    doubled = jax.tree.map(lambda x: x[np.r_[:60, order[60:]]], g)
    assert np.abs(np.asarray(draw(doubled)) - before).mean() > np.abs(after - before).mean()


def picture_of(g: Gaussians) -> jax.Array:
    camera = render.Cameras.from_pinhole(
        jnp.eye(3, 4), jnp.array([30.0, 30.0]), jnp.array([16.0, 12.0]), height=24, width=32
    )
    options = render.SplatOptions(backend="xla")
    return render.rasterize_rgb(**g.activate(), camera=camera, options=options)[0]


# explore


def test_opaque_gaussians_stay_where_they_are(key: jax.Array):
    g = scene([0.5, 0.9, 0.999])
    assert np.abs(np.asarray(explore(g, key, jnp.float32(1.0)))).max() < 1e-12


def test_the_noise_of_a_faint_gaussian_has_the_covariance_squared():
    n, strength = 20_000, 3.0
    one = scene([1e-6], seed=5)
    many = jax.tree.map(lambda x: jnp.repeat(x, n, axis=0), one)
    noise = np.asarray(explore(many, jax.random.key(6), jnp.float32(strength)), np.float64)
    axes = np.asarray(rotate(one.quats_wxyz.repeat(3, 0), jnp.eye(3)), np.float64).T
    sigma = axes @ np.diag(np.exp(2.0 * np.asarray(one.log_scales[0], np.float64))) @ axes.T
    gate = 1 / (1 + np.exp(100 * (1e-6 - MIN_OPACITY)))
    expected = (gate * strength) ** 2 * sigma @ sigma
    assert np.abs(noise.mean(0)).max() < 0.05 * np.sqrt(expected.max())
    np.testing.assert_allclose(np.cov(noise.T), expected, atol=0.05 * expected.max())


def test_the_gate_opens_at_the_opacity_of_death(key: jax.Array):
    g = scene([MIN_OPACITY, 0.001, 0.1])
    same_shape = dataclasses.replace(
        g,
        log_scales=jnp.full((3, 3), -1.0),
        quats_wxyz=jnp.tile(jnp.array([[1.0, 0, 0, 0]]), (3, 1)),
    )
    noise = np.asarray(explore(same_shape, key, jnp.float32(1.0)))
    raw = np.asarray(jax.random.normal(key, (3, 3))) * np.exp(-2.0)
    np.testing.assert_allclose(
        noise / raw, np.array([[0.5], [0.5987], [7.5e-5]]).repeat(3, 1), rtol=1e-2
    )


def test_rotation_keeps_lengths_and_has_an_inverse():
    rng = np.random.default_rng(7)
    q = jnp.asarray(rng.normal(size=(50, 4)) * 3, jnp.float32)  # any length
    v = jnp.asarray(rng.normal(size=(50, 3)), jnp.float32)
    turned = rotate(q, v)
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(v, axis=1), rtol=1e-5)
    np.testing.assert_allclose(rotate(q, turned, inverse=True), v, atol=1e-5)
    quarter = jnp.array([[2**-0.5, 0, 0, 2**-0.5]])  # about z
    np.testing.assert_allclose(rotate(quarter, jnp.array([[1.0, 0, 0]])), [[0, 1, 0]], atol=1e-6)


# clone_split_prune


def scored(g: Gaussians, scores: Any, seen: Any = 1.0) -> Stats:
    fresh = Stats.start(g.count, g.count)
    count = np.broadcast_to(np.asarray(seen, np.float32), (g.count,))
    return dataclasses.replace(
        fresh,
        gradient=jnp.asarray(np.asarray(scores, np.float32) * count),
        seen=jnp.asarray(count),
    )


def test_faint_and_oversized_gaussians_are_pruned(key: jax.Array):
    g = scene([0.5, 0.001, 0.004, 0.006])
    g = dataclasses.replace(g, log_scales=g.log_scales.at[0, 1].set(0.1))
    after, stats, touched = densified(g, scored(g, np.zeros(4)), key, 4)
    assert np.asarray(after.logit_opacities[:3]).tolist() == [DEAD_LOGIT] * 3
    assert int(stats.used) == 1
    assert np.asarray(touched).tolist() == [True, True, True, False]


def test_a_small_gaussian_is_copied_into_a_dead_slot(key: jax.Array):
    g = scene([0.5, 0.4], capacity=5)
    g = dataclasses.replace(g, log_scales=jnp.full((5, 3), -6.0))
    after, stats, touched = densified(g, scored(g, [1e-2, 0, 0, 0, 0]), key, 5)
    for before, now in zip(jax.tree.leaves(g), jax.tree.leaves(after), strict=True):
        assert np.array_equal(now[2], before[0])
    assert np.asarray(touched).tolist() == [False, False, True, False, False]
    assert int(stats.used) == 3


def test_a_large_gaussian_is_split_into_two_smaller_ones_near_it(key: jax.Array):
    g = scene([0.5, 0.4], capacity=5)
    after, _, touched = densified(g, scored(g, [1e-2, 0, 0, 0, 0]), key, 5)
    assert np.asarray(touched).tolist() == [True, False, True, False, False]
    sizes = np.exp(np.asarray(after.log_scales))
    for slot in (0, 2):
        np.testing.assert_allclose(
            sizes[slot], np.exp(np.asarray(g.log_scales[0])) / 1.6, rtol=1e-5
        )
        away = np.linalg.norm(np.asarray(after.means[slot] - g.means[0]))
        assert 0 < away < 5 * np.exp(np.asarray(g.log_scales[0])).max()
    assert not np.array_equal(after.means[0], after.means[2])
    assert np.array_equal(after.logit_opacities[2], g.logit_opacities[0])


def test_the_highest_mean_gradients_come_first(key: jax.Array):
    g = scene(np.full(6, 0.5), capacity=8)
    g = dataclasses.replace(g, log_scales=jnp.full((8, 3), -6.0))
    scores = [1e-3, 5e-3, 2e-3, 9e-3, 7e-4, 3e-3, 0, 0]
    after, stats, _ = densified(g, scored(g, scores, seen=[1, 2, 3, 4, 5, 6, 0, 0]), key, 8)
    assert np.array_equal(after.means[6], g.means[3])
    assert np.array_equal(after.means[7], g.means[1])
    assert int(stats.used) == 8


@pytest.mark.parametrize(("limit", "alive"), [(10, 8), (7, 7), (5, 6), (100, 8)])
def test_the_limit_holds(limit: int, alive: int, key: jax.Array):
    g = scene(np.full(6, 0.5), capacity=8)
    stats = scored(g, np.full(8, 1.0))
    after, stats, _ = densified(g, stats, key, limit)
    assert int((opacity_of(after) > MIN_OPACITY).sum()) == alive == int(stats.used)


def test_touched_marks_exactly_the_slots_that_changed(key: jax.Array):
    rng = np.random.default_rng(8)
    opacities = np.where(rng.uniform(size=60) < 0.3, 0.001, 0.5)
    g = scene(opacities, capacity=80)
    g = dataclasses.replace(
        g, log_scales=jnp.where(rng.uniform(size=(80, 1)) < 0.5, -6.0, g.log_scales)
    )
    after, stats, touched = densified(g, scored(g, rng.uniform(0, 2e-3, 80)), key, 75)
    assert np.array_equal(np.asarray(touched), changed(g, after))
    assert 0 < touched.sum() < 80
    assert not stats.gradient.any()
    assert not stats.seen.any()
    # The living below the threshold stay as they are.
    again, _, untouched = densified(after, stats, key, 75)
    assert same(again, after)
    assert not untouched.any()


def test_what_was_never_seen_is_not_densified(key: jax.Array):
    g = scene([0.5, 0.5], capacity=4)
    after, _, touched = densified(g, scored(g, np.ones(4), seen=0.0), key, 4)
    assert same(after, g)
    assert not touched.any()


def test_the_statistic_is_summed_in_half_image_widths():
    stats = Stats.start(2, 3)
    probe = jnp.asarray([[0.003, 0.004], [0, 0], [0.01, 0]])
    for _ in range(2):
        stats = stats.watched(probe, 200, 400)
    expected = 2 * np.hypot([0.003 * 200, 0, 0.01 * 200], [0.004 * 100, 0, 0])
    np.testing.assert_allclose(stats.gradient, expected, rtol=1e-6)
    assert stats.seen.tolist() == [2, 0, 2]
    assert int(stats.used) == 2


def test_a_reset_lowers_opacities_to_the_ceiling_and_nothing_else():
    g = scene([0.5, 0.005, 0.9], capacity=4)
    low = reset_opacity(g, 0.01)
    np.testing.assert_allclose(opacity_of(low)[:3], [0.01, 0.005, 0.01], rtol=1e-5)
    assert low.logit_opacities[3] == DEAD_LOGIT
    assert same(dataclasses.replace(low, logit_opacities=g.logit_opacities), g)
