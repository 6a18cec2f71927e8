"""Bits of latents and their gradients against the float64 twin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lumefield import native
from lumefield.fields.latent import _rate, latent_bits, latent_rate
from tests.fields import latent_pieces as pieces

CASES = {
    "photo": (21, 35, 3, 12),
    "pixel": (1, 1, 2, 16),
    "alone": (9, 7, 1, 5),
    "blocks": (19, 9, 2, 5),
    "wide": (5, 300, 4, 24),
    "tall": (67, 3, 7, 10),
}
"""Name -> rows, columns, levels, width of the context network."""


@pytest.fixture
def kernel():
    if not native.load():
        pytest.skip(f"native kernels are not available: {native.status().reason}")


def problem(name, seed=0):
    h, w, levels, width = CASES[name]
    rng = np.random.default_rng(seed)
    return pieces.context_model(rng, levels, width), pieces.pyramid(rng, h, w, levels)


def total(backend):
    return lambda net, latents: latent_rate(net, latents, backend=backend)[0]


def twin(net, latents):
    return latent_bits(net, latents).sum()


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name", ["photo", "pixel", "alone", *(pytest.param(n, marks=SLOW) for n in ("wide", "tall"))]
)
@pytest.mark.usefixtures("kernel")
def test_bits_and_gradients_of_the_kernel_are_the_float64_twins(name):
    net, latents = problem(name)
    one = np.float32(1)
    found = pieces.value_and_pull(total("native"))(*pieces.on_device((one, net, latents)))
    assert pieces.worst(found, pieces.exactly(twin, one, net, latents)) < 5e-6


@pytest.mark.parametrize("name", ["blocks", pytest.param("tall", marks=SLOW)])
def test_blocks_of_rows_in_xla_change_nothing(name, monkeypatch):
    monkeypatch.setattr(_rate, "BLOCK", 8)
    net, latents = problem(name)
    one = np.float32(1)
    found = pieces.exactly(total("xla"), one, net, latents)
    assert pieces.worst(found, pieces.exactly(twin, one, net, latents)) < 1e-12


@pytest.mark.usefixtures("kernel")
def test_gradients_are_finite_differences_of_the_float64_twin():
    net, latents = problem("photo", seed=1)
    slopes = jax.jit(jax.grad(total("native"), (0, 1)))(*pieces.on_device((net, latents)))
    rng = np.random.default_rng(2)
    with jax.enable_x64(True):
        given = pieces.on_device((net, latents), jnp.float64)
        away = jax.tree.map(lambda a: rng.normal(size=a.shape), given)
        value = jax.jit(lambda t: twin(*jax.tree.map(lambda a, d: a + t * d, given, away)))
        found = (value(jnp.float64(1e-7)) - value(jnp.float64(-1e-7))) / 2e-7
    wanted = sum(
        float((np.asarray(g, np.float64) * d).sum())
        for g, d in zip(jax.tree.leaves(slopes), jax.tree.leaves(away), strict=True)
    )
    assert float(found) == pytest.approx(wanted, rel=2e-4)


@pytest.mark.usefixtures("kernel")
def test_levels_add_up_and_the_value_alone_is_the_same():
    net, latents = pieces.on_device(problem("photo"))
    bits, levels = jax.jit(latent_rate)(net, latents)
    assert levels.shape == (3,)
    np.testing.assert_allclose(levels.sum(), bits, rtol=1e-6)
    (with_slopes, same), _ = jax.value_and_grad(latent_rate, has_aux=True)(net, latents)
    assert float(with_slopes) == float(bits)
    np.testing.assert_array_equal(same, levels)


@pytest.mark.usefixtures("kernel")
def test_an_improbable_latent_costs_sixteen_bits_and_has_no_slope():
    net, latents = problem("alone")
    net = jax.tree.map(np.zeros_like, net).replace(b3=np.asarray([0, -6], np.float32))
    y = np.zeros_like(latents[0])
    y[-1, -1] = 3
    (bits, _), (_, (g,)) = jax.value_and_grad(latent_rate, (0, 1), has_aux=True)(
        *pieces.on_device((net, (y,))), backend="native"
    )
    assert float(bits) == pytest.approx(16, abs=1e-5)
    assert not np.asarray(g).any()


@pytest.mark.parametrize("log_scale", [-6.0, 0.5, 5.0])
@pytest.mark.usefixtures("kernel")
def test_a_latent_that_no_file_can_say_costs_a_bit_more_for_each_unit(log_scale: float):
    net, latents = problem("alone")
    net = jax.tree.map(np.zeros_like, net).replace(b3=np.asarray([-100, log_scale], np.float32))
    y = np.full_like(latents[0], -100)
    reach = min(max(11 * 2**log_scale, 9), 126)
    y[-1, -1] = -100 + reach + 40
    one, given = np.float32(1), (net, (y,))
    found = pieces.value_and_pull(total("native"))(*pieces.on_device((one, *given)))
    assert pieces.worst(found, pieces.exactly(twin, one, *given)) < 5e-6
    y[-1, -1] += 1
    farther = total("native")(*pieces.on_device(given))
    assert float(farther - found[0]) == pytest.approx(1, abs=0.05)
    assert found[1][1][0][-1, -1] == pytest.approx(1, abs=0.05)


@pytest.mark.usefixtures("kernel")
def test_vmap_is_a_loop():
    problems = [pieces.on_device(problem("photo", seed)) for seed in (3, 4)]
    both = jax.tree.map(lambda *a: jnp.stack(a), *problems)
    run = jax.grad(total("native"), (0, 1))
    found = jax.jit(jax.vmap(run))(*both)
    wanted = jax.tree.map(lambda *a: np.stack(a), *(jax.jit(run)(*p) for p in problems))
    assert pieces.worst(found, wanted) == 0


NET, LATENTS = problem("photo")


@pytest.mark.parametrize(
    ("net", "latents", "message"),
    [
        (NET, (), "no latents, expected one array per level"),
        (
            NET,
            LATENTS[::-1],
            r"latents\[1\] has shape \(11, 18\), expected \(3, 5\): half of \(6, 9\)",
        ),
        (NET, (LATENTS[0][0],), r"latents\[0\] has shape \(35,\), expected \(rows, columns\)"),
        (NET, LATENTS[:2], "b1 has 3 rows for 2 levels of latents"),
        (NET.replace(w1=NET.w1[:, :16]), LATENTS, r"w1 has shape \(12, 16\), expected \(a, 17\)"),
        (
            NET.replace(w1=np.zeros((25, 17), np.float32)),
            LATENTS,
            "a context model of 25 features and 3 levels, expected at most 24 and 16; use 'auto'",
        ),
        (
            NET,
            (LATENTS[0].astype(np.float16), *LATENTS[1:]),
            "backend='native' with float16 arrays, expected float32; use 'auto'",
        ),
    ],
)
def test_a_wrong_call_says_what_was_given_and_expected(net, latents, message):
    with pytest.raises(ValueError, match=message):
        latent_rate(
            jax.tree.map(jnp.asarray, net), jax.tree.map(jnp.asarray, latents), backend="native"
        )
