"""Every radiance field keeps the contract of ``RadianceField``."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lumefield.fields.radiance import RADIANCE_FIELDS, KPlanes, MipNerf360, Nerf, Ngp

TINY: dict[str, dict[str, Any]] = {
    "nerf": {"width": 16, "depth": 2, "degrees": 3},
    "mipnerf360": {"width": 16, "depth": 2, "degrees": 3, "proposal_width": 16},
    "ngp": {"levels": 3, "coarsest": 4, "finest": 16, "log2_entries": 8, "width": 16},
    "kplanes": {"sizes": (4, 8), "features": 4, "width": 16, "proposal_size": 6},
    "zipnerf": {
        "levels": 3,
        "coarsest": 4,
        "finest": 16,
        "log2_entries": 8,
        "width": 16,
        "proposal_levels": 2,
        "proposal_finest": 8,
        "proposal_log2_entries": 6,
        "proposal_width": 8,
    },
}
PROPOSALS = {"nerf": 1, "mipnerf360": 2, "ngp": 0, "kplanes": 2, "zipnerf": 2}


def make(name: str, look: int = 0) -> Any:
    return RADIANCE_FIELDS[name](rngs=nnx.Rngs(0), look=look, **TINY[name])


def points(*shape: int) -> tuple[jax.Array, jax.Array]:
    x = jax.random.uniform(jax.random.key(1), (*shape, 3), minval=-0.9, maxval=0.9)
    d = jax.random.normal(jax.random.key(2), (*shape, 3))
    return x, d / jnp.linalg.norm(d, axis=-1, keepdims=True)


def seen(field: Any, x: jax.Array, d: jax.Array, look: jax.Array | None = None) -> Any:
    sigma, features = field.density(x)
    return sigma, field.colour(features, d, look)


def test_the_table_is_whole() -> None:
    assert set(RADIANCE_FIELDS) == set(TINY) == set(PROPOSALS)


@pytest.mark.parametrize("name", TINY)
def test_leading_axes_are_batch_axes_and_values_are_in_range(name: str) -> None:
    field = make(name)
    x, d = points(2, 5)
    sigma, rgb = jax.jit(seen)(field, x, d)
    assert sigma.shape == (2, 5)
    assert rgb.shape == (2, 5, 3)
    assert float(sigma.min()) >= 0
    assert -0.002 < float(rgb.min()) <= float(rgb.max()) < 1.002
    one = seen(field, x[1, 3], d[1, 3])
    np.testing.assert_allclose(one[0], sigma[1, 3], rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(one[1], rgb[1, 3], rtol=2e-5, atol=1e-6)
    assert seen(field, x[:0], d[:0])[1].shape == (0, 5, 3)


@pytest.mark.parametrize("name", TINY)
def test_every_leaf_is_float_and_gets_a_finite_gradient(name: str) -> None:
    field = make(name, look=3)
    x, d = points(64)
    look = jnp.full((64, 3), 0.5)

    def loss(field: Any) -> jax.Array:
        sigma, rgb = seen(field, x, d, look)
        total = jnp.mean(sigma) + jnp.mean(rgb**2)
        for k in range(PROPOSALS[name]):
            total = total + jnp.mean(field.proposals(x, None, k))
        return total

    grads = jax.jit(jax.grad(loss))(field)
    for leaf in jax.tree.leaves(field):
        assert jnp.issubdtype(leaf.dtype, jnp.floating)
    for leaf in jax.tree.leaves(grads):
        assert bool(jnp.isfinite(leaf).all())
    assert sum(float(jnp.abs(leaf).sum()) > 0 for leaf in jax.tree.leaves(grads)) > 4


@pytest.mark.parametrize("name", TINY)
def test_the_code_of_a_photo_changes_colour_and_not_density(name: str) -> None:
    field = make(name, look=3)
    x, d = points(8)
    a, b = (seen(field, x, d, jnp.full((8, 3), v)) for v in (0.0, 2.0))
    np.testing.assert_array_equal(a[0], b[0])
    assert float(jnp.abs(a[1] - b[1]).max()) > 1e-4


@pytest.mark.parametrize("name", TINY)
def test_proposals_that_are_not_there_raise(name: str) -> None:
    x, _ = points(2)
    if name in ("nerf", "ngp"):
        with pytest.raises(IndexError, match="proposal 1, expected"):
            make(name).proposals(x, None, 1)


def test_a_wide_gaussian_blurs_mipnerf360_and_a_point_is_its_limit() -> None:
    field = make("mipnerf360")
    x, _ = points(50)
    at = field.density(x)[0]
    none = field.density(x, jnp.zeros((50, 3, 3)))[0]
    wide = field.density(x, jnp.broadcast_to(jnp.eye(3) * 0.3, (50, 3, 3)))[0]
    np.testing.assert_allclose(at, none, rtol=1e-6)
    assert float(jnp.std(wide)) < float(jnp.std(at))


def test_equal_planes_have_no_variation() -> None:
    field = make("kplanes")
    flat = jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.3), field)
    assert float(flat.prior()) == 0
    assert float(field.prior()) > 0


def test_planes_interpolate_between_their_vertices() -> None:
    field = make("kplanes")
    x = jnp.linspace(-0.3, -0.2, 5)
    line = jnp.stack([x, jnp.full(5, 0.1), jnp.full(5, 0.2)], -1)
    grid = field.grid(line)
    # Along one axis two of the three planes change linearly, so their product is a parabola.
    third = jnp.diff(grid, n=3, axis=0)
    np.testing.assert_allclose(third, 0, atol=1e-6)


WRONG: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    (Nerf, {"depth": 0}, "depth=0"),
    (MipNerf360, {"width": 1}, "width=1"),
    (KPlanes, {"sizes": (1,)}, "at least 2 vertices"),
    (Ngp, {"log2_entries": 0}, "log2_entries=0"),
]


@pytest.mark.parametrize(("make_field", "options", "message"), WRONG)
def test_sizes_that_make_no_sense_raise(
    make_field: Callable[..., Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_field(rngs=nnx.Rngs(0), **options)
