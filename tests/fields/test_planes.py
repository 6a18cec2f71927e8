"""Planes and wavelet planes: interpolation, products, priors, transforms, thresholds."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lumefield.fields.networks import Planes, WavePlanes
from lumefield.fields.networks import _planes as p
from lumefield.fields.networks import _waveplanes as w


def points(n: int, d: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).uniform(-0.99, 0.99, (n, d)), jnp.float32)


def test_a_plane_of_a_bilinear_function_is_that_function():
    u, v = np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-1, 1, 7), indexing="ij")
    plane = jnp.asarray(np.stack([u, v, u * v], -1), jnp.float32)
    x = points(40, 2)
    wanted = jnp.stack([x[:, 0], x[:, 1], x[:, 0] * x[:, 1]], -1)
    np.testing.assert_allclose(p.sample_plane(plane, x), wanted, atol=0.1)  # u v: per cell only
    np.testing.assert_allclose(p.sample_plane(plane, x)[:, :2], wanted[:, :2], atol=1e-6)
    outside = p.sample_plane(plane, jnp.array([[3.0, -0.5]]))
    np.testing.assert_allclose(outside[0, :2], [1, -0.5], atol=1e-6)


@pytest.mark.parametrize("combine", ["product", "sum"])
@pytest.mark.parametrize("d", [2, 3, 4])
def test_planes_combine_over_all_pairs_of_axes(d: int, combine: str):
    field = Planes(d, 2, size=4, scales=(1, 2), features=3, combine=combine, rngs=nnx.Rngs(0))
    assert len(field.planes) == d * (d - 1)
    x = points(6, d)
    k = len(field.planes) // 2
    each = [
        p.sample_plane(plane[...], x[:, list(pair)])
        for plane, pair in zip(field.planes[k:], p.pairs(d), strict=True)
    ]
    fold = np.prod if combine == "product" else np.sum
    np.testing.assert_allclose(field.features(x)[:, 3:], fold(np.stack(each), 0), rtol=1e-5)


def test_time_keeps_its_size_and_starts_static():
    field = Planes(4, 1, size=(4, 5, 6, 7), scales=(1, 3), features=2, rngs=nnx.Rngs(0))
    assert field.shapes == ((4, 5, 6, 7), (12, 15, 18, 7))
    x = points(5, 4)
    later = x.at[:, 3].set(0.9)
    np.testing.assert_array_equal(field(x), field(later))
    assert float(p.time_sparsity(field)) == 0
    assert float(p.time_smoothness(field)) == 0
    assert float(p.total_variation(field)) > 0


def test_priors_are_the_loops_of_the_paper():
    field = Planes(3, 1, size=(4, 5, 6), scales=(1,), features=2, time_axis=2, rngs=nnx.Rngs(0))
    draw = np.random.default_rng(0)
    for plane in field.planes:
        plane[...] = jnp.asarray(draw.normal(size=plane.shape), jnp.float32)
    xy, xt, yt = (np.asarray(plane[...]) for plane in field.planes)
    tv = sum(np.mean(np.diff(xy, axis=a) ** 2) for a in (0, 1))
    tv += sum(np.mean(np.diff(q, axis=0) ** 2) for q in (xt, yt))
    np.testing.assert_allclose(p.total_variation(field), tv, rtol=1e-5)
    smooth = sum(np.mean((q[:, :-2] - 2 * q[:, 1:-1] + q[:, 2:]) ** 2) for q in (xt, yt))
    np.testing.assert_allclose(p.time_smoothness(field), smooth, rtol=1e-5)
    sparse = np.abs(1 - xt).mean() + np.abs(1 - yt).mean()
    np.testing.assert_allclose(p.time_sparsity(field), sparse, rtol=1e-5)


def test_planes_of_four_axes_are_a_thousandth_of_the_dense_grid():
    field = jax.eval_shape(
        lambda: Planes(4, 28, size=(64, 64, 64, 100), scales=(1, 2, 4), rngs=nnx.Rngs(0))
    )
    assert p.parameters(field) * 1000 <= p.dense_parameters(field)


@pytest.mark.parametrize("shape", [(2, 4), (8, 6), (16, 10)])
def test_the_wavelet_transform_is_undone(shape: tuple[int, int]):
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).normal(size=(*shape, 3)))
        np.testing.assert_allclose(w.join(*w.split(x)), x, atol=1e-14)
        low, others = w.split_plane(x)
        assert low.shape == (shape[0] // 2, shape[1] // 2, 3)
        np.testing.assert_allclose(w.join_plane(low, others), x, atol=1e-13)


def test_constants_and_slopes_live_in_the_low_band():
    """CDF 9/7 has four vanishing moments: away from the ends cubics leave no details."""
    with jax.enable_x64(True):
        t = jnp.linspace(-1.0, 1.0, 32)
        low, high = w.split(jnp.ones(8))
        np.testing.assert_allclose(low, 1, atol=1e-9)
        np.testing.assert_allclose(high, 0, atol=1e-9)
        _, high = w.split(t**3 - t)
        np.testing.assert_allclose(high[3:-3], 0, atol=1e-9)


def wavy(d: int = 4, **options: Any) -> WavePlanes:
    return WavePlanes(d, 2, size=16, levels=2, features=3, **options, rngs=nnx.Rngs(0))


def test_wavelet_planes_start_static_and_smooth():
    field = wavy()
    fine, finest = field.planes(4)[-2:]
    assert [q.shape for q in fine] == [(8, 8, 3)] * 6
    assert [q.shape for q in finest] == [(16, 16, 3)] * 6
    for pair, plane in zip(p.pairs(4), finest, strict=True):
        assert bool((plane == 1).all()) == (3 in pair)
    assert field(points(5, 4)).shape == (5, 2)


def test_planes_that_are_transformed_come_back_through_the_field():
    """Coefficients of a given plane make the field's finest plane that plane."""
    field = wavy(2)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(16, 16, 3)), jnp.float32)
    low, finest = w.split_plane(x)
    low, coarser = w.split_plane(low)
    field.coarse[0][...] = low
    field.details[0][...], field.details[1][...] = coarser, finest
    np.testing.assert_allclose(field.planes(2)[-1][0], x, atol=1e-5)


def test_threshold_cuts_small_details_and_counts_zeros():
    field = wavy(3)
    draw = np.random.default_rng(0)
    for detail in field.details:
        detail[...] = jnp.asarray(draw.uniform(-1, 1, detail.shape), jnp.float32)
    before = field(points(9, 3))
    same, none = w.threshold(field, 0.0)
    assert none == 0
    np.testing.assert_array_equal(same(points(9, 3)), before)
    half, zeros = w.threshold(field, 0.5)
    kept = np.concatenate([np.ravel(q[...]) for q in half.details])
    assert np.abs(kept[kept != 0]).min() > 0.5
    assert 0.4 < zeros < 0.5
    np.testing.assert_array_equal(field(points(9, 3)), before)  # the given field is not changed
    _, every = w.threshold(field, 2.0)
    assert every == pytest.approx(15 / 16)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Planes(1, 1, rngs=nnx.Rngs(0)), "d_in=1, expected 2 to 4"),
        (lambda: Planes(3, 1, size=(4, 4), rngs=nnx.Rngs(0)), "expected one number of at least 2"),
        (lambda: Planes(3, 1, size=1, rngs=nnx.Rngs(0)), "size=1, expected one number"),
        (lambda: Planes(3, 1, scales=(), rngs=nnx.Rngs(0)), r"scales=\(\), features=16"),
        (lambda: Planes(3, 1, combine="mean", rngs=nnx.Rngs(0)), "combine='mean'"),
        (lambda: Planes(3, 1, time_axis=3, rngs=nnx.Rngs(0)), "time_axis=3, expected 0 to 2"),
        (lambda: WavePlanes(5, 1, rngs=nnx.Rngs(0)), "d_in=5, expected 2 to 4"),
        (lambda: WavePlanes(2, 1, size=12, rngs=nnx.Rngs(0)), "multiples of 8, at least 16"),
        (lambda: WavePlanes(2, 1, levels=0, rngs=nnx.Rngs(0)), "levels=0, features=16"),
        (lambda: w.threshold(wavy(2), -1.0), "eps=-1.0, expected 0 or more"),
        (lambda: w.split(jnp.ones(3)), "x has 3 values along its first axis"),
        (lambda: Planes(3, 1, size=4, rngs=nnx.Rngs(0))(jnp.ones((2, 4))), "expected .*3"),
        (lambda: wavy(3)(jnp.ones((2, 2))), r"x has shape \(2, 2\), expected 3 pairs"),
    ],
)
def test_wrong_sizes_are_refused(make: Any, message: str):
    with pytest.raises(ValueError, match=message):
        make()
