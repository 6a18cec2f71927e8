"""The hash encoding: the kernels against the jnp twin, and derivatives of every order."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lumefield import native
from lumefield.fields.networks import HashGrid
from lumefield.fields.networks._hash_encode import gather_p, scatter_p, slope_p
from lumefield.fields.networks._hashgrid import Levels, encode

LEVELS = {
    2: Levels(2, (4, 40), 256),
    3: Levels(3, (3, 30), 512),
    4: Levels(4, (2, 12), 1024),
}
needs_native = pytest.mark.skipif(
    native.status().backend != "native", reason=f"no native kernels: {native.status().reason}"
)
every_d = pytest.mark.parametrize("d", [2, 3, 4])


@pytest.fixture(params=["native", "warp"])
def kernels(request: pytest.FixtureRequest) -> str:
    """Backends that have kernels of their own, where they can run."""
    if request.param == "native" and native.status().backend != "native":
        pytest.skip(f"no native kernels: {native.status().reason}")
    if request.param == "warp" and not native.warp_available():
        pytest.skip(native.warp_missing())
    return request.param


def arrays(levels: Levels, n: int, dtype: Any = jnp.float32, seed: int = 0) -> tuple[Any, ...]:
    """A table, points inside and a little outside, cotangents, and two directions."""
    draw = np.random.default_rng(seed)
    table = draw.normal(size=(levels.rows, levels.features))
    x = draw.uniform(-1.1, 1.1, (n, levels.d))
    x[: n // 2] = x[:1] + np.linspace(0, 0.3, n // 2)[:, None]  # along a ray: cells shared
    g = draw.normal(size=(n, levels.width))
    u, v = draw.normal(size=(2, n, levels.d))
    return tuple(jnp.asarray(a, dtype) for a in (table, x, g, u, v))


def all_six(levels: Levels, backend: str) -> Callable[..., list[jax.Array]]:
    params = {"levels": levels, "backend": backend}

    @jax.jit
    def run(table: Any, x: Any, g: Any, v: Any) -> list[jax.Array]:
        return [
            gather_p.bind(table, x, **params),
            gather_p.bind(table, x, v, **params),
            scatter_p.bind(x, g, **params),
            scatter_p.bind(x, g, v, **params),
            slope_p.bind(table, x, g, **params),
            slope_p.bind(table, x, g, v, **params),
        ]

    return run


@every_d
def test_kernels_are_the_twin(d: int, kernels: str):
    levels = LEVELS[d]
    assert levels.dense(0)
    assert not levels.dense(len(levels.cells) - 1)
    table, x, g, _, v = arrays(levels, 333)
    fast = all_six(levels, kernels)(table, x, g, v)
    slow = all_six(levels, "xla")(table, x, g, v)
    for a, b in zip(fast, slow, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6 * float(jnp.abs(b).max()))
    alone = all_six(levels, kernels)(table, x[-1:], g[-1:], v[-1:])
    for k in (0, 1, 4, 5):
        np.testing.assert_array_equal(alone[k], fast[k][-1:])


def test_kernels_agree_with_the_twin_in_float64(kernels: str):
    levels = LEVELS[3]
    given = arrays(levels, 200)
    fast = all_six(levels, kernels)(*given[:3], given[4])
    with jax.enable_x64(True):
        exact = [jnp.asarray(a, jnp.float64) for a in given]
        slow = all_six(levels, "xla")(*exact[:3], exact[4])
        assert all(a.dtype == jnp.float64 for a in slow)
        for a, b in zip(fast, slow, strict=True):
            # The place in a cell is known to about 1e-6 cells; slopes are in cells a unit.
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(jnp.abs(b).max()))


def test_code_for_an_nvidia_gpu_calls_the_warp_kernels(monkeypatch: pytest.MonkeyPatch):
    if not native.warp_available():
        pytest.skip(native.warp_missing())
    levels = LEVELS[3]
    table, x, *_ = arrays(levels, 5)

    def energy(table: Any, x: Any) -> jax.Array:
        return jnp.sum(encode(table, x, levels) ** 2)

    def calls(there: bool) -> list[bool]:
        monkeypatch.setattr("lumefield.native._warp.warp_on_gpu", lambda: there)
        traced = jax.jit(jax.grad(energy, (0, 1))).trace(table, x)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
        return [
            f"custom_call @kernels__locals__{k}" in text for k in ("gather", "scatter", "slope")
        ]

    assert calls(there=True) == [True] * 3
    assert calls(there=False) == [False] * 3


@needs_native
def test_threads_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch):
    levels = LEVELS[3]
    table, x, g, _, v = arrays(levels, 20_000)
    results = []
    for threads in ("1", "2"):
        monkeypatch.setenv("LUMEFIELD_THREADS", threads)
        results.append(all_six(levels, "native")(table, x, g, v))
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))


@needs_native
def test_prefetched_levels_are_the_twin():
    levels = Levels.geometric(3, levels=2, coarsest=40, finest=300, log2_entries=18)
    table, x, g, _, v = arrays(levels, 150)
    fast, slow = (all_six(levels, b)(table, x, g, v) for b in ("native", "xla"))
    for a, b in zip(fast, slow, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * float(jnp.abs(b).max()))


@pytest.mark.parametrize("backend", ["auto", "xla"])
def test_gradients_are_finite_differences(backend: str):
    levels = LEVELS[3]
    with jax.enable_x64(True):
        table, x, g, u, _ = arrays(levels, 6, jnp.float64)
        step = 1e-6

        def value(table: Any, x: Any) -> jax.Array:
            return jnp.sum(encode(table, x, levels, backend=backend) * g)

        of_table, of_x = jax.jit(jax.grad(value, argnums=(0, 1)))(table, x)
        along = (value(table, x + step * u) - value(table, x - step * u)) / (2 * step)
        np.testing.assert_allclose(jnp.sum(of_x * u), along, rtol=1e-6)
        other = jnp.asarray(np.random.default_rng(1).normal(size=table.shape))
        np.testing.assert_allclose(jnp.sum(of_table * other), value(other, x), rtol=1e-9)


def test_the_gradient_of_an_eikonal_loss_is_that_of_the_twin(kernels: str):
    levels = LEVELS[3]
    table, x, *_ = arrays(levels, 100)

    def loss(table: Any, x: Any, backend: str) -> jax.Array:
        def distance(x: Any) -> jax.Array:
            return jnp.sum(jnp.sin(encode(table, x, levels, backend=backend)))

        return jnp.mean((jnp.linalg.norm(jax.grad(distance)(x), axis=-1) - 1) ** 2)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)), static_argnums=2)
    for a, b in zip(gradient(table, x, kernels), gradient(table, x, "xla"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * float(jnp.abs(b).max()))


def test_forward_over_reverse_and_third_derivatives_are_those_of_the_twin(kernels: str):
    levels = LEVELS[2]
    table, x, _, u, v = arrays(levels, 8)

    def third(table: Any, x: Any, backend: str) -> jax.Array:
        def energy(x: Any) -> jax.Array:
            return jnp.sum(encode(table, x, levels, backend=backend) ** 3)

        def turned(x: Any) -> jax.Array:  # a Hessian times u, forward over reverse
            return jax.jvp(jax.grad(energy), (x,), (u,))[1]

        return jax.vjp(turned, x)[1](v)[0]

    run = jax.jit(third, static_argnums=2)
    a, b = run(table, x, kernels), run(table, x, "xla")
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * float(jnp.abs(b).max()))


@every_d
def test_a_linear_function_of_place_is_reproduced(d: int):
    """Vertices that hold their place interpolate to the place, outside of the box too."""
    levels = Levels(d, (4,), 1024)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 5)] * d, indexing="ij"), -1)
    places = grid.reshape(-1, d)[:, ::-1][:, :2]  # axis 0 is the fastest
    x = np.random.default_rng(0).uniform(-1.3, 1.3, (50, d)).astype(np.float32)
    got = encode(jnp.asarray(places, jnp.float32), jnp.asarray(x), levels)
    np.testing.assert_allclose(got, x[:, :2], atol=2e-6)


@pytest.mark.parametrize("backend", ["auto", "xla"])
def test_not_a_number_stays_in_its_row(backend: str):
    levels = LEVELS[3]
    table, x, *_ = arrays(levels, 5)
    bad = x.at[2, 1].set(jnp.nan).at[3, 0].set(jnp.inf)
    got, clean = (encode(table, p, levels, backend=backend) for p in (bad, x))
    assert not bool(jnp.isfinite(got[2:4]).any(-1).all())
    np.testing.assert_array_equal(got[jnp.array([0, 1, 4])], clean[jnp.array([0, 1, 4])])


def test_vmap_is_a_loop_over_points_and_over_tables(kernels: str):
    levels = LEVELS[2]
    table, x, *_ = arrays(levels, 12)
    tables, points = jnp.stack([table, 2 * table]), x.reshape(2, 6, 2)

    def energy(table: Any, x: Any) -> jax.Array:
        return jnp.sum(encode(table, x, levels, backend=kernels) ** 2)

    for axes in ((None, 0), (0, 0), (0, None)):
        given = (tables if axes[0] == 0 else table, points if axes[1] == 0 else x)
        got = jax.jit(jax.vmap(jax.grad(energy, argnums=(0, 1)), axes))(*given)
        for k in range(2):
            one = [a if i is None else a[k] for a, i in zip(given, axes, strict=True)]
            for a, b in zip(got, jax.grad(energy, argnums=(0, 1))(*one), strict=True):
                np.testing.assert_allclose(a[k], b, rtol=1e-5, atol=1e-5)


def test_levels_grow_geometrically_to_the_finest():
    levels = Levels.geometric(3, levels=16, coarsest=16, finest=2048, log2_entries=19)
    assert levels.cells[0] == 16
    assert levels.cells[-1] == 2048
    growth = np.diff(np.log(levels.cells))
    np.testing.assert_allclose(growth, growth.mean(), rtol=0.2)
    assert levels.sizes()[0] == 17**3
    assert levels.sizes()[-1] == 1 << 19
    assert levels.rows == sum(levels.sizes())


def test_other_numbers_of_features_work_without_kernels():
    levels = Levels.geometric(1, levels=3, coarsest=4, finest=16, features=3)
    table, x, *_ = arrays(levels, 9)
    assert encode(table, x, levels).shape == (9, 9)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"d": 5}, "d=5, expected 1 to 4"),
        ({"levels": 0}, "levels=0, expected at least 1"),
        ({"features": 0}, "features=0, expected at least 1 of each"),
        ({"coarsest": 9, "finest": 8}, "expected 1 <= coarsest <= finest"),
        ({"log2_entries": 29}, "log2_entries=29, expected 1 to 28"),
    ],
)
def test_levels_out_of_range_are_refused(wrong: dict[str, int], message: str):
    with pytest.raises(ValueError, match=message):
        Levels.geometric(**{"d": 3, **wrong})


def test_entries_that_are_no_power_of_two_are_refused():
    with pytest.raises(ValueError, match="entries=100, expected a power of two"):
        Levels(2, (4,), 100)


def test_shapes_that_do_not_fit_are_refused():
    levels = LEVELS[3]
    table, x, *_ = arrays(levels, 4)
    with pytest.raises(ValueError, match="table has shape"):
        encode(table[1:], x, levels)
    with pytest.raises(ValueError, match=r"x has shape \(4, 2\), expected \(\*s, 3\)"):
        encode(table, x[:, :2], levels)
    with pytest.raises(ValueError, match="backend='gpu', expected auto, native, warp or xla"):
        encode(table, x, levels, backend="gpu")
    with pytest.raises(ValueError, match="backend='native' with float16"):
        encode(table.astype(jnp.float16), x, levels, backend="native")
    with pytest.raises(ValueError, match="backend='warp' with float16"):
        encode(table.astype(jnp.float16), x, levels, backend="warp")
    with pytest.raises(ValueError, match="shape is for 3 coordinates, expected 2"):
        HashGrid(2, 3, shape=levels, rngs=nnx.Rngs(0))
