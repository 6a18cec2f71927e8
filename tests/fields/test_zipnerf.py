"""Laws of Zip-NeRF's grid: Gaussians, fading levels, weight decay."""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lumefield.fields.networks import Levels
from lumefield.fields.networks._hash_encode import encode_reference
from lumefield.fields.radiance import ZipNerf
from lumefield.fields.radiance._zipnerf import ConeGrid, level_weights, spread

LEVELS = Levels.geometric(3, levels=4, coarsest=4, finest=64, log2_entries=9)
Array = np.ndarray[Any, Any]


def grid(scale: float = 1.0) -> ConeGrid:
    """A grid whose entries are of the size ``scale``."""
    made = ConeGrid(LEVELS, rngs=nnx.Rngs(0))
    made.table[...] = scale * jax.random.normal(jax.random.key(1), made.table[...].shape)
    return made


def gaussians(n: int, most: float, dtype: Any = np.float32) -> tuple[Array, Array]:
    """Points of [-0.9, 0.9]^3 and covariances with axes of up to ``most``."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(n, 3, 3)) * most / 3
    return rng.uniform(-0.9, 0.9, (n, 3)).astype(dtype), (root @ root.swapaxes(1, 2)).astype(dtype)


def twin(table: Any, x: Any, cov: Any) -> Any:
    """The grid as the paper writes it, level by level, with eigenvalues for the spread."""
    a, b, c = jnp.moveaxis(jnp.linalg.eigvalsh(cov), -1, 0)
    variance = (a * b + a * c + b * c) / (a + b + c)
    features = encode_reference(LEVELS, table, x)
    parts = [
        features[:, 2 * l : 2 * l + 2]
        * jax.scipy.special.erf(1 / jnp.sqrt(8 * variance * (cells / 2) ** 2))[:, None]
        for l, cells in enumerate(LEVELS.cells)
    ]
    return jnp.concatenate(parts, -1)


def test_values_and_gradients_are_those_of_a_float64_twin() -> None:
    x, cov = gaussians(200, 0.1)
    made, ct = grid(), np.random.default_rng(2).normal(size=(200, LEVELS.width))
    weights = jnp.asarray(ct, jnp.float32)

    def loss(made: ConeGrid, cov: jax.Array) -> jax.Array:
        return jnp.sum(made(jnp.asarray(x), cov) * weights)

    value = made(jnp.asarray(x), jnp.asarray(cov))
    by_grid, by_cov = jax.grad(loss, (0, 1))(made, jnp.asarray(cov))
    with jax.enable_x64(True):
        table = jnp.asarray(np.asarray(made.table[...]), jnp.float64)
        args = table, jnp.asarray(x, jnp.float64), jnp.asarray(cov, jnp.float64)
        want = np.asarray(twin(*args))
        slopes = jax.grad(lambda t, x, c: jnp.sum(twin(t, x, c) * ct), (0, 2))(*args)
        table_slope, cov_slope = (np.asarray(s) for s in slopes)
    np.testing.assert_allclose(value, want, atol=2e-5)
    np.testing.assert_allclose(by_grid.table[...], table_slope, atol=2e-4)
    symmetric = np.asarray(by_cov + by_cov.swapaxes(1, 2)) / 2
    symmetric_twin = (cov_slope + cov_slope.swapaxes(1, 2)) / 2
    np.testing.assert_allclose(symmetric, symmetric_twin, rtol=2e-3, atol=1e-2)


def test_no_covariance_is_the_plain_encoding() -> None:
    x, _ = gaussians(50, 0.1)
    plain = grid()(jnp.asarray(x), None)
    np.testing.assert_array_equal(grid()(jnp.asarray(x), jnp.zeros((50, 3, 3))), plain)
    assert float(jnp.abs(plain).max()) > 0.5


def test_wider_gaussians_fade_fine_levels_first_and_all_at_last() -> None:
    variance = jnp.asarray(10.0 ** np.arange(-8.0, 7.0))
    fade = np.asarray(level_weights(variance, LEVELS))
    assert fade.min() >= 0
    np.testing.assert_array_equal(fade[0], 1)
    assert (np.diff(fade, axis=0) <= 0).all()
    assert (np.diff(fade, axis=1) <= 0).all()
    assert fade[-1].max() < 2e-3
    one_cell = level_weights(jnp.asarray([(2 / cells) ** 2 for cells in LEVELS.cells]), LEVELS)
    np.testing.assert_allclose(np.diag(one_cell), math.erf(8**-0.5), rtol=1e-5)


def test_a_wider_cone_makes_a_smoother_field() -> None:
    line = jnp.linspace(-0.5, 0.5, 400)
    x = jnp.stack([line, jnp.full(400, 0.1), jnp.full(400, -0.2)], -1)
    rough: list[float] = []
    for side in (0.0, 0.01, 0.04, 0.16):
        cov = jnp.broadcast_to(jnp.eye(3) * side**2, (400, 3, 3))
        rough.append(float(jnp.mean(jnp.diff(grid()(x, cov), axis=0) ** 2)))
    assert all(b < 0.9 * a for a, b in itertools.pairwise(rough))


@pytest.mark.parametrize("turn", [0.0, 0.7])
def test_the_spread_keeps_round_gaussians_and_does_not_see_the_length_of_needles(
    turn: float,
) -> None:
    c, s = math.cos(turn), math.sin(turn)
    axes = np.array([[c, -s, 0], [s * c, c * c, -s], [s * s, s * c, c]])
    for length in (1.0, 3.0, 30.0, 300.0):
        cov = 1e-6 * axes @ np.diag([length**2, 1, 1]) @ axes.T
        at = float(spread(jnp.asarray(cov, jnp.float32))) / 1e-6
        want = (2 * length**2 + 1) / (length**2 + 2)
        assert at == pytest.approx(want, rel=2e-2)
        assert 0.98 < at < 2.04


def test_gradients_at_no_and_at_huge_covariances_are_finite() -> None:
    for size in (0.0, 1e-30, 1e-10, 1.0, 1e10):
        cov = jnp.eye(3)[None] * size
        slope = jax.grad(lambda c: jnp.sum(level_weights(spread(c), LEVELS)))(cov)
        assert bool(jnp.isfinite(slope).all()), size


def test_weight_decay_is_the_mean_square_of_every_level() -> None:
    field = ZipNerf(
        levels=2, coarsest=4, finest=8, log2_entries=7, proposal_levels=1, rngs=nnx.Rngs(0)
    )
    field.proposal_grid.table[...] = jnp.zeros_like(field.proposal_grid.table[...])
    table = jnp.concatenate([jnp.full((125, 2), 2.0), jnp.full((128, 2), 3.0)])
    field.grid.table[...] = table
    assert float(field.prior()) == pytest.approx(4 + 9)


def test_the_footprint_reaches_densities_and_proposals() -> None:
    field = ZipNerf(levels=3, coarsest=4, finest=16, log2_entries=8, rngs=nnx.Rngs(0))
    for part in (field.grid, field.proposal_grid):
        part.table[...] = jax.random.normal(jax.random.key(1), part.table[...].shape)
    x = jnp.asarray(gaussians(50, 0.1)[0])
    wide = jnp.broadcast_to(jnp.eye(3) * 0.3, (50, 3, 3))
    assert float(jnp.std(field.density(x, wide)[1])) < float(jnp.std(field.density(x)[1]))
    fine, coarse = field.proposals(x, None, 0), field.proposals(x, wide, 0)
    assert float(jnp.std(jnp.log(coarse))) < float(jnp.std(jnp.log(fine)))
