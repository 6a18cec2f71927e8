"""Laws of the Gaussians noun."""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lumefield.fields import DEAD_LOGIT, SH_C0, Gaussians

N = 7


def arrays(n: int = N, k: int = 4, *lead: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "means": rng.normal(size=(*lead, n, 3)),
        "quats_wxyz": rng.normal(size=(*lead, n, 4)),
        "log_scales": rng.normal(size=(*lead, n, 3)),
        "logit_opacities": rng.normal(size=(*lead, n)),
        "sh": rng.normal(size=(*lead, n, k, 3)),
    }


def points(n: int, key: jax.Array, **options: Any) -> Gaussians:
    rng = np.random.default_rng(1)
    return Gaussians.from_points(
        rng.normal(size=(n, 3)), rng.uniform(size=(n, 3)), **options, key=key
    )


# from_arrays


@pytest.mark.parametrize("k", [1, 4, 9, 16, 25])
def test_from_arrays_keeps_the_values_in_float32(k: int):
    given = arrays(k=k)
    got = Gaussians.from_arrays(**given)
    for name, value in given.items():
        leaf = getattr(got, name)
        assert leaf.dtype == jnp.float32
        assert np.array_equal(leaf, value.astype(np.float32))
    assert (got.count, got.degree) == (N, round(k**0.5) - 1)


def test_from_arrays_takes_leading_axes():
    got = Gaussians.from_arrays(**arrays(N, 4, 2, 3))
    assert got.means.shape == (2, 3, N, 3)
    assert (got.count, got.degree) == (N, 1)


@pytest.mark.parametrize("k", [0, 2, 3, 8, 36])
def test_a_number_of_coefficients_that_is_no_degree_is_refused(k: int):
    with pytest.raises(
        ValueError, match=r"sh has shape .* expected \(\*b, N, K, 3\) with K in 1 4"
    ):
        Gaussians.from_arrays(**arrays(k=k))


def test_coefficients_without_a_basis_axis_are_refused():
    with pytest.raises(ValueError, match=r"sh has shape \(3,\), expected"):
        Gaussians.from_arrays(**(arrays() | {"sh": np.zeros(3)}))


@pytest.mark.parametrize(
    ("name", "shape", "wanted"),
    [
        ("means", (N, 2), (N, 3)),
        ("quats_wxyz", (N, 3), (N, 4)),
        ("quats_wxyz", (N + 1, 4), (N, 4)),
        ("log_scales", (N,), (N, 3)),
        ("logit_opacities", (N, 1), (N,)),
        ("sh", (N, 4, 4), (N, 4, 3)),
        ("sh", (4, 3), (N, 4, 3)),
    ],
)
def test_a_leaf_of_another_shape_is_refused(
    name: str, shape: tuple[int, ...], wanted: tuple[int, ...]
):
    message = f"{name} has shape {shape}, expected {wanted}; all leaves share their leading axes"
    with pytest.raises(ValueError, match=re.escape(message)):
        Gaussians.from_arrays(**(arrays() | {name: np.zeros(shape)}))


# activate


def test_activated_values_are_constrained_and_named_as_the_renderer_wants():
    g = Gaussians.from_arrays(**arrays())
    out = g.activate()
    assert list(out) == ["means", "quats_wxyz", "scales", "opacities", "sh"]
    assert out["means"] is g.means
    assert out["quats_wxyz"] is g.quats_wxyz
    assert out["sh"] is g.sh
    np.testing.assert_allclose(np.log(out["scales"]), g.log_scales, atol=1e-6)
    logit = np.log(out["opacities"] / (1 - out["opacities"]))
    np.testing.assert_allclose(logit, g.logit_opacities, atol=1e-5)


@pytest.mark.parametrize("logit", [-80.0, DEAD_LOGIT, 0.0, 30.0, 80.0])
def test_opacity_and_its_gradient_are_finite_for_any_logit(logit: float):
    g = Gaussians.from_arrays(**(arrays() | {"logit_opacities": np.full(N, logit)}))
    value, grad = jax.value_and_grad(lambda x: x.activate()["opacities"].sum())(g)
    assert 0 <= value <= N
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grad))


def test_activate_is_the_same_under_jit_and_vmap():
    g = Gaussians.from_arrays(**arrays(N, 4, 2))
    plain = g.activate()
    for way in (jax.jit(Gaussians.activate), jax.vmap(Gaussians.activate)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), way(g), plain)


# alive


def test_alive_is_the_cut_on_the_activated_opacity():
    logits = np.linspace(-12, 4, 200)
    g = Gaussians.from_arrays(**(arrays(200) | {"logit_opacities": logits}))
    opacity = np.asarray(g.activate()["opacities"], np.float64)
    for threshold in (1 / 255, 0.05, 0.5, 0.9):
        clear = np.abs(opacity / threshold - 1) > 1e-5
        assert np.array_equal(g.alive(threshold)[clear], (opacity >= threshold)[clear])
    assert np.array_equal(g.alive(), g.alive(1 / 255))


def test_dead_slots_are_far_below_the_cut_of_a_renderer():
    g = Gaussians.from_arrays(**(arrays() | {"logit_opacities": np.full(N, DEAD_LOGIT)}))
    assert not g.alive().any()
    assert not g.alive(1e-12).any()
    assert g.activate()["opacities"].max() < 1e-12


# padded


def test_padding_keeps_the_old_slots_and_adds_dead_ones():
    g = Gaussians.from_arrays(**(arrays() | {"logit_opacities": np.zeros(N)}))
    big = g.padded(N + 5)
    assert (big.count, big.degree) == (N + 5, g.degree)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[:N], b), big, g)
    assert np.array_equal(big.alive(), [True] * N + [False] * 5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(big))
    np.testing.assert_array_equal(np.linalg.norm(big.quats_wxyz[N:], axis=-1), 1)


def test_padding_to_the_present_count_changes_nothing():
    g = Gaussians.from_arrays(**arrays())
    jax.tree.map(np.testing.assert_array_equal, g.padded(N), g)


def test_padding_keeps_the_dtype():
    g = jax.tree.map(lambda x: x.astype(jnp.bfloat16), Gaussians.from_arrays(**arrays()))
    assert {leaf.dtype for leaf in jax.tree.leaves(g.padded(N + 1))} == {jnp.dtype(jnp.bfloat16)}


def test_padding_below_the_count_is_refused():
    with pytest.raises(ValueError, match=f"capacity=3, expected at least {N}; prune first"):
        Gaussians.from_arrays(**arrays()).padded(3)


# from_points


def test_points_become_isotropic_gaussians_of_their_colour(key: jax.Array):
    rng = np.random.default_rng(1)
    xyz, colours = rng.normal(size=(N, 3)), rng.uniform(size=(N, 3))
    g = Gaussians.from_points(xyz, colours, degree=2, opacity=0.3, key=key)
    out = g.activate()
    np.testing.assert_allclose(out["means"], xyz, rtol=1e-6)
    np.testing.assert_allclose(0.5 + SH_C0 * out["sh"][:, 0], colours, atol=1e-6)
    assert out["sh"].shape == (N, 9, 3)
    assert not out["sh"][:, 1:].any()
    np.testing.assert_allclose(out["opacities"], 0.3, rtol=1e-5)
    np.testing.assert_array_equal(out["scales"], out["scales"][:, :1].repeat(3, 1))
    assert (np.linalg.norm(out["quats_wxyz"], axis=-1) > 0).all()


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_size_is_the_mean_distance_to_the_three_nearest_points(scale: float, key: jax.Array):
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    g = Gaussians.from_points(corners, np.zeros((4, 3)), scale=scale, key=key)
    other = (1 + 2 * 2**0.5) / 3
    np.testing.assert_allclose(g.activate()["scales"][0], scale, rtol=1e-5)
    top = np.quantile([1, other, other, other], 0.99)  # the largest per cent is cut
    np.testing.assert_allclose(g.activate()["scales"][1:], scale * min(other, top), rtol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 3, 50])
def test_any_number_of_points_gives_finite_gaussians(n: int, key: jax.Array):
    g = points(n, key)
    assert (g.count, g.degree) == (n, 3)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(g))
    assert g.alive().all()


def test_coinciding_points_keep_a_positive_size(key: jax.Array):
    g = Gaussians.from_points(np.zeros((6, 3)), np.zeros((6, 3)), key=key)
    scales = g.activate()["scales"]
    assert np.isfinite(scales).all()
    assert (scales > 0).all()


def test_one_far_point_does_not_become_a_giant(key: jax.Array):
    xyz = np.random.default_rng(2).normal(size=(300, 3))
    xyz[0] = 1e4
    scales = Gaussians.from_points(xyz, np.zeros((300, 3)), key=key).activate()["scales"]
    assert scales.max() < 10


def test_the_same_key_draws_the_same_rotations(key: jax.Array):
    jax.tree.map(np.testing.assert_array_equal, points(20, key), points(20, key))
    other = points(20, jax.random.key(1))
    assert not np.array_equal(points(20, key).quats_wxyz, other.quats_wxyz)


# the noun as a pytree


def test_every_leaf_is_a_floating_point_array():
    leaves = jax.tree.leaves(Gaussians.from_arrays(**arrays()))
    assert len(leaves) == 5
    assert all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves)


def test_it_passes_through_the_transforms_of_jax():
    g = Gaussians.from_arrays(**arrays(N, 4, 2))
    jax.tree.map(np.testing.assert_array_equal, jax.jit(lambda x: x)(g), g)
    jax.tree.map(np.testing.assert_array_equal, jax.vmap(lambda x: x)(g), g)
    assert jax.eval_shape(lambda x: x, g).means.shape == (2, N, 3)
    assert jax.tree.map(lambda _: None, g).means is None
    mask = jax.tree.map(lambda _: True, g)
    optax.masked(optax.sgd(0.1), mask).init(g)  # pyright: ignore[reportArgumentType]


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Gaussians.from_arrays(**arrays()).means = jnp.zeros((N, 3))
