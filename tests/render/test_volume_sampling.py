"""Intervals along rays and their losses: laws, and loops in NumPy as twins."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.test_util import check_grads

from lumefield import native, render
from lumefield.render import volume

BACKENDS = ("xla", "native")


def needs(backend: str) -> None:
    if backend == "native" and not native.load():
        pytest.skip(f"no native kernels here: {native.status().reason}")


def histogram(seed: int, s: int = 12, r: int = 37) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    edges = np.sort(rng.uniform(0.5, 6.0, (s + 1, r)), 0)
    weights = rng.exponential(size=(s, r)) * (rng.uniform(size=(s, r)) > 0.3)
    return jnp.asarray(edges, jnp.float32), jnp.asarray(weights / s, jnp.float32)


@pytest.mark.parametrize("spacing", ["linear", "disparity"])
def test_stratified_edges_tile_the_ray_and_move_by_half_an_interval_at_most(
    spacing: Any, key: Array
):
    near, far = jnp.array([0.5, 1.0]), jnp.array([4.0, 10.0])
    even = volume.stratified(near, far, 16, spacing=spacing)
    shaken = volume.stratified(near, far, 16, key, spacing=spacing)
    for edges in (even, shaken):
        assert jnp.array_equal(edges[0], near)
        assert jnp.array_equal(edges[-1], far)
        assert jnp.all(jnp.diff(edges, axis=0) >= 0)
    x, y = (even, shaken) if spacing == "linear" else (1 / even, 1 / shaken)
    step = jnp.abs(x[1] - x[0])
    np.testing.assert_allclose(jnp.diff(x, axis=0), jnp.stack([x[1] - x[0]] * 16), 1e-4)
    assert jnp.all(jnp.abs(x - y) <= 0.5001 * step[None])


def quantiles(edges: np.ndarray, weights: np.ndarray, n: int, padding: float) -> np.ndarray:
    """The twin: one ray at a time, by interpolating the inverse of the cumulative distribution."""
    out: list[np.ndarray] = []
    for e, w in zip(edges.T.astype(float), weights.T.astype(float), strict=True):
        share = (w + padding) / np.sum(w + padding)
        out.append(np.interp(np.arange(n + 1) / n, np.r_[0, np.cumsum(share)], e))
    return np.stack(out, 1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_importance_inverts_the_cumulative_distribution(backend: str):
    needs(backend)
    edges, weights = histogram(0)
    got = volume.importance(edges, weights, 20, backend=backend)
    twin = quantiles(np.asarray(edges), np.asarray(weights), 20, 0.01)
    np.testing.assert_allclose(got, twin, atol=2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("padding", [0.0, 0.01])
def test_importance_edges_are_sorted_and_finite_for_any_weights(
    backend: str, padding: float, key: Array
):
    needs(backend)
    edges, _ = histogram(1, s=8, r=4)
    spike = jnp.zeros((8, 4)).at[3].set(1.0)
    for weights in (jnp.zeros((8, 4)), spike, 1e-30 * spike, 1e10 * spike):
        got = volume.importance(edges, weights, 16, key, padding=padding, backend=backend)
        assert jnp.all(jnp.isfinite(got))
        assert jnp.all(jnp.diff(got, axis=0) >= -1e-6)
        assert jnp.array_equal(got[0], edges[0])
        assert jnp.array_equal(got[-1], edges[-1])
    if not padding:
        found = volume.importance(edges, spike, 16, backend=backend)[1:-1]
        assert jnp.all((found >= edges[3:4] - 1e-5) & (found <= edges[4:5] + 1e-5))


def test_jittered_importance_is_centred_on_the_plain_one():
    edges, weights = histogram(2, r=1)
    edges, weights = jnp.repeat(edges, 4000, 1), jnp.repeat(weights, 4000, 1) + 0.05
    shaken = volume.importance(edges, weights, 8, jax.random.key(3))
    shares = jnp.stack([_share(edges[:, 0], weights[:, 0] + 0.01, e) for e in shaken[1:-1]])
    np.testing.assert_allclose(jnp.mean(shares, 1), jnp.arange(1, 8) / 8, atol=0.004)
    assert jnp.all(jnp.abs(shares - jnp.arange(1, 8)[:, None] / 8) <= 0.5 / 8 + 1e-4)


def _share(edges: Array, weights: Array, t: Array) -> Array:
    total = jnp.concatenate([jnp.zeros(1), jnp.cumsum(weights)])
    return jnp.interp(t, edges, total / total[-1])


def test_importance_carries_no_gradient():
    edges, weights = histogram(4, s=4, r=2)
    slope = jax.grad(lambda w: jnp.sum(volume.importance(edges, w, 5)))(weights)
    assert not jnp.any(slope)


def test_ray_weights_are_those_of_compositing():
    with jax.enable_x64(True):
        tau = jnp.asarray(np.random.default_rng(5).exponential(0.1, (16, 9)))
        weights = volume.ray_weights(tau)
        one, trans = render.composite_samples(tau, jnp.ones((16, 9, 1)))
        np.testing.assert_allclose(jnp.sum(weights, 0), one[:, 0], rtol=1e-12)
        np.testing.assert_allclose(1 - jnp.sum(weights, 0), trans, rtol=1e-9)
        check_grads(jax.jit(volume.ray_weights), (tau,), 1, ["rev"], rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_ray_weights_and_their_slopes_are_finite(scale: float):
    tau = jnp.full((8, 2), scale)
    slope = jax.grad(lambda t: jnp.sum(volume.ray_weights(t) ** 2))(tau)
    assert jnp.all(jnp.isfinite(slope))
    assert float(jnp.max(jnp.sum(volume.ray_weights(tau), 0))) <= 1 + 1e-6


def test_distortion_is_the_double_sum_and_has_its_gradient():
    def twin(t: Array, w: Array) -> Array:
        m = (t[1:] + t[:-1]) / 2
        pairs = jnp.einsum("ir,jr,ijr->r", w, w, jnp.abs(m[:, None] - m[None]))
        return pairs + jnp.sum(w * w * (t[1:] - t[:-1]), 0) / 3

    with jax.enable_x64(True):
        edges, weights = (x.astype(jnp.float64) for x in histogram(6, r=5))
        np.testing.assert_allclose(
            volume.distortion_loss(edges, weights), twin(edges, weights), rtol=1e-10
        )

        def slopes(f: Callable[..., Array]) -> Any:
            return jax.grad(lambda t, w: jnp.sum(f(t, w) ** 2), (0, 1))(edges, weights)

        for a, b in zip(slopes(volume.distortion_loss), slopes(twin), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_distortion_does_not_feel_a_shift_far_away():
    edges, weights = histogram(7, r=5)
    near = volume.distortion_loss(jnp.round(edges * 64) / 64, weights)
    far = volume.distortion_loss(jnp.round(edges * 64) / 64 + 8192.0, weights)
    np.testing.assert_allclose(near, far, rtol=1e-5)


def bounds(t: np.ndarray, other: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The twin of the outer measure: every pair of intervals."""
    out = np.zeros((t.shape[0] - 1, t.shape[1]))
    for r in range(t.shape[1]):
        for i in range(t.shape[0] - 1):
            for p in range(w.shape[0]):
                if other[p + 1, r] > t[i, r] and other[p, r] < t[i + 1, r]:
                    out[i, r] += w[p, r]
    return out


@pytest.mark.parametrize("backend", BACKENDS)
def test_proposal_loss_is_what_exceeds_the_outer_measure(backend: str):
    needs(backend)
    edges, weights = histogram(8, r=19)
    others, proposal = histogram(9, s=7, r=19)
    others = others.at[3].set(edges[4])  # edges that touch do not overlap
    others = jnp.sort(others, 0)
    weights, proposal = weights + 0.02, proposal + 0.02  # away from the kink at w = 0
    arrays = [np.asarray(x, float) for x in (edges, others, proposal)]
    w = np.asarray(weights, float)
    excess = np.maximum(w - bounds(*arrays), 0)
    want = np.sum(excess**2 / (w + np.finfo(np.float32).eps), 0)

    def loss(proposal: Array) -> Array:
        return volume.proposal_loss(edges, weights, others, proposal, backend=backend)

    np.testing.assert_allclose(loss(proposal), want, rtol=1e-4, atol=1e-6)
    slope = jax.grad(lambda p: jnp.sum(loss(p)))(proposal)
    h = 1e-3
    for p, r in ((0, 0), (2, 5), (3, 7), (6, 18)):
        bump = [loss(proposal.at[p, r].add(s)) for s in (h, -h)]
        np.testing.assert_allclose(slope[p, r], jnp.sum(bump[0] - bump[1]) / (2 * h), 0.02, 0.01)


def test_proposals_that_bound_the_weights_cost_nothing_and_teach_nothing_back():
    edges, weights = histogram(10)
    assert not jnp.any(volume.proposal_loss(edges, weights, edges, weights) > 1e-12)
    slope = jax.grad(lambda w: jnp.sum(volume.proposal_loss(edges, w, edges, 0.5 * weights)))
    assert not jnp.any(slope(weights))


def test_shapes_and_options_that_do_not_fit_are_refused():
    edges, weights = histogram(11, s=4, r=2)
    one = jnp.ones(2)
    with pytest.raises(ValueError, match="n=0, expected at least one interval"):
        volume.stratified(one, one, 0)
    with pytest.raises(ValueError, match=r"near has shape \(2,\), far \(3,\)"):
        volume.stratified(one, jnp.ones(3), 4)
    with pytest.raises(ValueError, match="spacing='log', expected linear or disparity"):
        volume.stratified(one, one, 4, spacing="log")
    with pytest.raises(ValueError, match=r"expected \(S\+1, R\) and \(S, R\)"):
        volume.importance(weights, weights, 4)
    with pytest.raises(ValueError, match="n=0, expected at least one interval"):
        volume.importance(edges, weights, 0)
    with pytest.raises(ValueError, match="backend='cuda', expected auto, native or xla"):
        volume.importance(edges, weights, 2, backend="cuda")
    with pytest.raises(ValueError, match=r"tau has shape \(2,\), expected \(S, R\)"):
        volume.ray_weights(one)
    with pytest.raises(ValueError, match="samples first, rays second"):
        volume.distortion_loss(weights, weights)
    with pytest.raises(ValueError, match="proposal_t_edges has shape"):
        volume.proposal_loss(edges, weights, weights, weights)
    with pytest.raises(ValueError, match="proposal_weights has 1 rays, weights 2"):
        volume.proposal_loss(edges, weights, edges[:, :1], weights[:, :1])
