"""Compositing of packed samples: a loop over the rays in float64 is the twin of every backend."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jax.test_util import check_grads

from lumefield import native, render
from lumefield.render import volume

BACKENDS = ("xla", "native", "warp")
COUNTS = (0, 1, 5, 16, 17, 40, 0, 130, 3)


def needs(backend: str) -> None:
    if backend == "native" and not native.load():
        pytest.skip(f"no native kernels here: {native.status().reason}")
    if backend == "warp" and not native.warp_available():
        pytest.skip(native.warp_missing())


def samples(seed: int, channels: int, *, spare: int = 11) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    start = np.r_[0, np.cumsum(COUNTS)]
    m = start[-1] + spare
    tau, values = rng.exponential(0.15, m), rng.normal(size=(m, channels))
    tau[start[5] : start[5] + 4] = (0, 1e-7, 30, 2)
    return (
        jnp.asarray(tau, jnp.float32),
        jnp.asarray(values, jnp.float32),
        jnp.asarray(start, jnp.int32),
    )


class Twin:
    """Image, transmittance and, for the cotangents g and g_t, the gradients: all in float64."""

    def __init__(self, tau: Array, values: Array, start: Array, g: Array, g_t: Array) -> None:
        a, v, s = np.asarray(tau, float), np.asarray(values, float), np.asarray(start)
        rays = s.size - 1
        self.out, self.trans = np.zeros((rays, v.shape[1])), np.ones(rays)
        self.g_tau, self.g_values = np.zeros_like(a), np.zeros_like(v)
        gd, gt = np.asarray(g, float), np.asarray(g_t, float)
        for r in range(rays):
            t, weights = 1.0, np.zeros(s[r + 1] - s[r])
            after = np.zeros_like(weights)
            used = 0
            for j, i in enumerate(range(s[r], s[r + 1])):
                if t <= 1e-4:
                    break
                weights[j] = -t * np.expm1(-a[i])
                t *= np.exp(-a[i])
                after[j], used = t, j + 1
            own = slice(s[r], s[r + 1])
            self.out[r], self.trans[r] = weights @ v[own], t
            d = weights * (v[own] @ gd[r])
            later = np.cumsum(d[::-1])[::-1] - d + gt[r] * t
            self.g_values[own] = weights[:, None] * gd[r]
            self.g_tau[own] = after * (v[own] @ gd[r]) - later
            self.g_tau[s[r] + used : s[r + 1]] = 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("channels", [1, 3, 4, 5])
def test_values_and_gradients_are_those_of_a_loop_over_the_rays(backend: str, channels: int):
    needs(backend)
    tau, values, start = samples(channels, channels)
    rng = np.random.default_rng(9)
    g = jnp.asarray(rng.normal(size=(len(COUNTS), channels)), jnp.float32)
    g_t = jnp.asarray(rng.normal(size=len(COUNTS)), jnp.float32)

    def both(tau: Array, values: Array) -> tuple[Array, Array]:
        return volume.composite_packed(tau, values, start, backend=backend)

    (out, trans), pull = jax.vjp(both, tau, values)
    g_tau, g_values = pull((g, g_t))
    twin = Twin(tau, values, start, g, g_t)
    np.testing.assert_allclose(out, twin.out, atol=2e-6)
    np.testing.assert_allclose(trans, twin.trans, atol=1e-6)
    np.testing.assert_allclose(g_values, twin.g_values, atol=2e-6)
    np.testing.assert_allclose(g_tau, twin.g_tau, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_thin_samples_keep_their_relative_weight(backend: str):
    needs(backend)
    for depth in (1e-10, 1e-6, 1e-3, 0.3, 0.4, 2.0, 8.0):
        tau, start = jnp.full((1,), depth, jnp.float32), jnp.array([0, 1], jnp.int32)
        out, trans = volume.composite_packed(tau, jnp.ones((1, 1)), start, backend=backend)
        np.testing.assert_allclose(out[0, 0], -np.expm1(-np.float64(tau[0])), rtol=5e-7)
        np.testing.assert_allclose(trans[0], np.exp(-np.float64(tau[0])), rtol=5e-7)


@pytest.mark.parametrize("backend", BACKENDS)
def test_packed_rays_of_equal_length_are_composite_samples(backend: str):
    needs(backend)
    rng = np.random.default_rng(10)
    tau = jnp.asarray(rng.exponential(0.3, (24, 7)), jnp.float32)
    values = jnp.asarray(rng.normal(size=(24, 7, 3)), jnp.float32)
    start = jnp.arange(8, dtype=jnp.int32) * 24
    got = volume.composite_packed(
        tau.T.reshape(-1), jnp.swapaxes(values, 0, 1).reshape(-1, 3), start, backend=backend
    )
    for a, b in zip(got, render.composite_samples(tau, values), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_samples_behind_the_stop_and_beyond_the_last_ray_do_nothing(backend: str):
    needs(backend)
    start = jnp.array([1, 5, 5], jnp.int32)
    tau = jnp.array([9.0, 1.0, 20.0, 1.0, 1.0, 7.0])
    values = jnp.full((6, 2), jnp.nan).at[1:3].set(1.0)

    def total(tau: Array, values: Array) -> Array:
        out, trans = volume.composite_packed(tau, values, start, backend=backend)
        return jnp.sum(out) + jnp.sum(trans)

    value, (g_tau, g_values) = jax.value_and_grad(total, (0, 1))(tau, values)
    np.testing.assert_allclose(value, 2 + 1, rtol=1e-6)
    assert jnp.all(jnp.isfinite(g_tau))
    for slope in (g_tau, g_values):
        assert not jnp.any(slope[jnp.array([0, 3, 4, 5])])


@pytest.mark.parametrize("backend", BACKENDS)
def test_slopes_are_finite_for_any_depth(backend: str):
    needs(backend)
    start = jnp.array([0, 4], jnp.int32)
    for depth in (0.0, 1e-10, 1.0, 1e10, 1e30):
        slope = jax.grad(
            lambda t: jnp.sum(
                volume.composite_packed(t, jnp.ones((4, 2)), start, backend=backend)[0]
            )
        )(jnp.full((4,), depth))
        assert jnp.all(jnp.isfinite(slope))


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_samples_are_as_exact_as_few(backend: str):
    """The trap: one running sum over all samples is off by 5e-3 at this size."""
    needs(backend)
    rays, each = 2048, 64
    tau = jnp.asarray(np.random.default_rng(11).exponential(0.05, rays * each), jnp.float32)
    start = jnp.arange(rays + 1, dtype=jnp.int32) * each
    want = -np.expm1(-np.asarray(tau, float).reshape(rays, each).sum(1))
    out, _ = volume.composite_packed(tau, jnp.ones((tau.size, 1)), start, backend=backend)
    np.testing.assert_allclose(out[:, 0], want, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_under_vmap_are_those_of_a_loop(backend: str):
    needs(backend)
    tau, values, start = samples(16, 3)

    def energy(tau: Array, values: Array) -> Array:
        out, trans = volume.composite_packed(tau, values, start, backend=backend)
        return jnp.sum(out**2) + jnp.sum(trans)

    slope = jax.jit(jax.grad(energy, (0, 1)))
    depths = jnp.stack([tau, 2 * tau])
    both = jax.jit(jax.vmap(jax.grad(energy, (0, 1)), (0, None)))(depths, values)
    for i in range(2):
        for a, b in zip(both, slope(depths[i], values), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-6)


def test_code_for_an_nvidia_gpu_calls_the_warp_kernels(monkeypatch: pytest.MonkeyPatch):
    needs("warp")
    tau, values, start = samples(17, 3)
    dense = (tau[:16].reshape(4, 4), values[:16].reshape(4, 4, 3))

    def both(tau: Array, values: Array, dense: tuple[Array, Array]) -> Array:
        packed = volume.composite_packed(tau, values, start)[0]
        return jnp.sum(packed**2) + jnp.sum(render.composite_samples(*dense)[0] ** 2)

    def calls(there: bool) -> list[int]:
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        monkeypatch.setattr(native, "warp_on_gpu", lambda: there)
        traced = jax.jit(jax.grad(both, (0, 1, 2))).trace(tau, values, dense)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
        return [text.count(f"custom_call @{name}_") for name in ("forward", "backward")]

    assert calls(there=True) == [2, 2]
    assert calls(there=False) == [0, 0]


def test_warp_refuses_what_it_cannot_do(monkeypatch: pytest.MonkeyPatch):
    tau, values, start = samples(18, 3)
    with jax.enable_x64(True):
        wide = (tau.astype(jnp.float64), values.astype(jnp.float64))
        with pytest.raises(ValueError, match="backend='warp' with float64"):
            volume.composite_packed(*wide, start, backend="warp")
    monkeypatch.setattr(native, "warp_missing", lambda: "warp-lang is not installed")
    with pytest.raises(ValueError, match="backend='warp', but warp-lang is not installed, or use"):
        volume.composite_packed(tau, values, start, backend="warp")


def test_float64_gradients_are_those_of_differences():
    with jax.enable_x64(True):
        tau, values, start = samples(12, 2)
        tau = tau.astype(jnp.float64).at[start[5] : start[5] + 4].set(0.1)
        check_grads(
            jax.jit(lambda t, v: volume.composite_packed(t, v, start)),
            (jnp.minimum(tau, 0.05), values.astype(jnp.float64)), 1, ["rev"], rtol=1e-5,
        )  # fmt: skip


def test_gradients_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch):
    needs("native")
    rng = np.random.default_rng(13)
    start = jnp.asarray(np.r_[0, np.cumsum(rng.integers(0, 40, 500))], jnp.int32)
    tau = jnp.asarray(rng.exponential(0.1, int(start[-1])), jnp.float32)
    values = jnp.asarray(rng.normal(size=(tau.size, 4)), jnp.float32)
    results: list[tuple[Array, Array]] = []
    for threads in ("1", "2"):
        monkeypatch.setenv("LUMEFIELD_THREADS", threads)
        results.append(
            jax.grad(
                lambda t, v: jnp.sum(volume.composite_packed(t, v, start, backend="native")[0]),
                (0, 1),
            )(tau, values)
        )
    assert all(jnp.array_equal(a, b) for a, b in zip(*results, strict=True))


def test_backward_keeps_nothing_per_sample_but_its_inputs():
    tau, values, start = samples(14, 4)
    _, pull = jax.vjp(lambda t, v: volume.composite_packed(t, v, start), tau, values)
    kept = sum(x.size for x in jax.tree.leaves(pull))
    assert kept <= tau.size + values.size + start.size + 8 * len(COUNTS)


def test_shapes_that_do_not_fit_are_refused():
    tau, values, start = samples(15, 3)
    with pytest.raises(ValueError, match=r"expected \(M,\) and \(M, C\)"):
        volume.composite_packed(tau[:5], values, start)
    with pytest.raises(ValueError, match="tau is float16, values float32"):
        volume.composite_packed(tau.astype(jnp.float16), values, start)
    with pytest.raises(ValueError, match=r"start is float32\(10,\), expected int32"):
        volume.composite_packed(tau, values, start.astype(jnp.float32))
    with pytest.raises(ValueError, match="backend='c', expected auto, native, warp or xla"):
        volume.composite_packed(tau, values, start, backend="c")
