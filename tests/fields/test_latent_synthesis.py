"""Upsampling and synthesis of latents against their float64 twins."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lumefield import native
from lumefield.fields.latent import (
    _model,
    _synthesis,
    _upsample,
    latent_rate,
    synthesise,
    upsample,
)
from tests.fields import latent_pieces as pieces

ROOT = Path(__file__).parents[2]
PICTURES = {
    "photo": (70, 41, 3, 16, 3),
    "wide": (3, 300, 2, 32, 4),
    "pixel": (1, 1, 3, 5, 1),
    "two rows": (2, 9, 2, 7, 3),
    "deep": (131, 97, 7, 16, 3),
}
"""Name -> rows, columns, levels, hidden features, channels."""


FAST = [*(n for n in PICTURES if n != "deep"), pytest.param("deep", marks=pytest.mark.slow)]


@pytest.fixture(params=["native", "xla"])
def backend(request) -> Any:
    if request.param == "native" and not native.load():
        pytest.skip(f"native kernels are not available: {native.status().reason}")
    return request.param


@pytest.fixture
def kernel():
    if not native.load():
        pytest.skip(f"native kernels are not available: {native.status().reason}")


def picture(name, seed=0):
    """Cotangent, network, stack."""
    h, w, levels, hidden, channels = PICTURES[name]
    rng = np.random.default_rng(seed)
    g = np.asarray(rng.normal(size=(channels, h, w)) + 0.5, np.float32)
    stack = np.asarray(rng.normal(size=(levels, h, w)) * 4, np.float32)
    return g, pieces.synthesis_net(rng, levels, hidden, channels), stack


def pyramid(name, seed=0):
    """Cotangent, latents, filters."""
    h, w, levels, _, _ = PICTURES[name]
    rng = np.random.default_rng(seed)
    g = np.asarray(rng.normal(size=(levels, h, w)) + 0.5, np.float32)
    return g, pieces.pyramid(rng, h, w, levels), np.asarray(rng.normal(size=(levels - 1, 4)), "f4")


@pytest.mark.parametrize("name", FAST)
@pytest.mark.usefixtures("kernel")
def test_pixels_and_gradients_of_the_kernel_are_the_float64_twins(name):
    given = picture(name)
    found = pieces.value_and_pull(lambda *a: synthesise(*a, backend="native"))(
        *pieces.on_device(given)
    )
    assert pieces.worst(found, pieces.exactly(_model.synthesise, *given)) < 2e-6


@pytest.mark.usefixtures("kernel")
def test_clips_stop_gradients_as_in_the_twin():
    g, net, stack = picture("photo")
    given = g, net.replace(x1=net.x1 * 30, x2=net.x2 * 3), stack * 20
    found = pieces.value_and_pull(lambda *a: synthesise(*a, backend="native"))(
        *pieces.on_device(given)
    )
    wanted = pieces.exactly(_model.synthesise, *given)
    assert pieces.worst(found, wanted) < 2e-5
    slope = wanted[1][1]
    assert 0 < (slope == 0).mean() < 0.9


def test_blocks_of_rows_in_xla_change_nothing(monkeypatch):
    monkeypatch.setattr(_synthesis, "BLOCK", 16)
    given = picture("photo")
    found = pieces.exactly(lambda *a: synthesise(*a, backend="xla"), *given)
    assert pieces.worst(found, pieces.exactly(_model.synthesise, *given)) < 1e-12


@pytest.mark.parametrize("name", FAST)
@pytest.mark.usefixtures("kernel")
def test_the_stack_and_gradients_of_the_kernel_are_the_float64_twins(name):
    given = pyramid(name)
    found = pieces.value_and_pull(lambda *a: upsample(*a, backend="native"))(
        *pieces.on_device(given)
    )
    assert pieces.worst(found, pieces.exactly(_model.upsample, *given)) < 2e-5


@pytest.mark.parametrize("dense", [1024, 8])
def test_matrices_and_shifts_of_xla_are_the_twin(dense, monkeypatch):
    monkeypatch.setattr(_upsample, "DENSE", dense)
    given = pyramid("two rows")
    found = pieces.exactly(lambda *a: upsample(*a, backend="xla"), *given)
    assert pieces.worst(found, pieces.exactly(_model.upsample, *given)) < 1e-12


def test_bilinear_taps_keep_constants_and_ramps(backend):
    flat = tuple(jnp.full(s, 3.0) for s in _model.level_sizes(13, 22, 3))
    taps = jnp.tile(jnp.asarray([0, 0.25, 0.75, 0], jnp.float32), (2, 1))
    np.testing.assert_allclose(upsample(flat, taps, backend=backend), 3, rtol=1e-6)
    ramp = (jnp.zeros((1, 40)), jnp.arange(20.0)[None] * 2 + 0.5)
    stack = upsample(ramp, taps[:1], backend=backend)
    np.testing.assert_allclose(stack[1, 0, 1:-1], jnp.arange(1.0, 39.0), rtol=1e-6)


@pytest.mark.usefixtures("kernel")
def test_gradients_are_finite_differences_of_the_float64_twins():
    g, net, stack = picture("photo", seed=1)
    g_stack, latents, taps = pyramid("photo", seed=1)
    rng = np.random.default_rng(2)
    for fast, twin, cotangent, inputs in (
        (synthesise, _model.synthesise, g, (net, stack)),
        (upsample, _model.upsample, g_stack, (latents, taps)),
    ):
        _, slopes = pieces.value_and_pull(fast)(*pieces.on_device((cotangent, *inputs)))
        with jax.enable_x64(True):
            at, weight = pieces.on_device((inputs, cotangent), jnp.float64)
            away = jax.tree.map(lambda a: rng.normal(size=a.shape), at)

            @jax.jit
            def value(t, at=at, away=away, weight=weight, twin=twin):
                moved = jax.tree.map(lambda a: t * a, away)
                return (twin(*jax.tree.map(jnp.add, at, moved)) * weight).sum()

            found = (value(jnp.float64(1e-6)) - value(jnp.float64(-1e-6))) / 2e-6
        wanted = sum(
            float((np.asarray(s, np.float64) * d).sum())
            for s, d in zip(jax.tree.leaves(slopes), jax.tree.leaves(away), strict=True)
        )
        assert float(found) == pytest.approx(wanted, rel=2e-4)


@pytest.mark.usefixtures("kernel")
def test_vmap_is_a_loop():
    for make, function in ((picture, synthesise), (pyramid, upsample)):
        many = [pieces.on_device(make("two rows", seed)) for seed in (3, 4)]
        both = jax.tree.map(lambda *a: jnp.stack(a), *many)
        run = pieces.value_and_pull(function)
        wanted = jax.tree.map(lambda *a: np.stack(a), *(run(*a) for a in many))
        assert pieces.worst(jax.jit(jax.vmap(run))(*both), wanted) == 0


THREADS = """
import os, sys
import jax, jax.numpy as jnp, numpy as np
from lumefield import native
from lumefield.fields import latent
h, w, levels = 131, 97, 3
rng = np.random.default_rng(0)
net = latent.start_networks(jax.random.key(0), levels=levels)
net = jax.tree.map(lambda a: a + 0.1 * jnp.asarray(rng.normal(size=a.shape), jnp.float32), net)
y = tuple(
    jnp.asarray(rng.laplace(size=s), jnp.float32) for s in latent.level_sizes(h, w, levels)
)
def loss(net, y):
    y = tuple(latent.noisy(jax.random.key(1), v, jnp.float32(0.3), jnp.float32(1.5)) for v in y)
    z = latent.synthesise(net.synthesis, latent.upsample(y, net.filters))
    return latent.latent_rate(net.context, y)[0] + (z**2).sum()
out = []
for threads in "1", "2":
    os.environ["LUMEFIELD_THREADS"] = threads
    jax.clear_caches()
    found = jax.jit(jax.value_and_grad(loss, (0, 1)))(net, y)
    out.append([np.asarray(a).tobytes() for a in jax.tree.leaves(found)])
assert out[0] == out[1]
if sys.argv[1] == "fast":
    print("same")
    sys.exit()
native.load = lambda: False
jax.clear_caches()
plain = jax.jit(jax.value_and_grad(loss, (0, 1)))(net, y)
for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(plain), strict=True):
    assert np.abs(a - b).max() <= 2e-4 * np.abs(b).max(), (a.shape, np.abs(a - b).max())
print("same")
"""


def whole_step(isa, how):
    if isa == "avx512" and native.status().isa != "avx512":
        pytest.skip("this CPU has no AVX-512")
    env = os.environ | {"PYTHONPATH": str(ROOT), "LUMEFIELD_ISA": isa}
    command = [sys.executable, "-c", THREADS, how]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "same", done.stderr[-2000:]


@pytest.mark.parametrize("isa", ["avx512", "avx2"])
@pytest.mark.usefixtures("kernel")
def test_no_bit_of_a_step_depends_on_the_number_of_threads(isa):
    whole_step(isa, "fast")


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["avx512", "avx2"])
@pytest.mark.usefixtures("kernel")
def test_a_whole_step_is_xlas(isa):
    whole_step(isa, "slow")


def test_a_wrong_call_says_what_was_given_and_expected(monkeypatch):
    _, net, stack = pieces.on_device(picture("photo"))
    with pytest.raises(ValueError, match=r"stack has shape \(2, 70, 41\), expected \(3, rows"):
        synthesise(net, stack[:2])
    wide = pieces.on_device(pieces.synthesis_net(np.random.default_rng(0), 3, 33, 3))
    with pytest.raises(ValueError, match="with 3 levels, 33 hidden features and 3 channels, expec"):
        synthesise(wide, stack, backend="native")
    _, latents, taps = pieces.on_device(pyramid("two rows"))
    with pytest.raises(ValueError, match=r"filters has shape \(0, 4\), expected \(1, 4\)"):
        upsample(latents, taps[:0])
    deep = (jnp.zeros((1, 1)),) * 17
    with pytest.raises(ValueError, match="17 levels, expected at most 16"):
        upsample(deep, jnp.zeros((16, 4)), backend="native")
    monkeypatch.setattr(native, "load", lambda: False)
    with pytest.raises(ValueError, match="no native library could be loaded"):
        upsample(latents, taps, backend="native")
    assert upsample(latents, taps).shape == (2, 2, 9)


def test_only_a_cpu_is_given_blocks_of_rows(monkeypatch):
    rng = np.random.default_rng(0)
    y = pieces.on_device(pieces.pyramid(rng, 80, 9, 2))
    net = pieces.on_device(pieces.synthesis_net(rng, 2, 4, 3))
    context = pieces.on_device(pieces.context_model(rng, 2, 4))
    taps = jnp.zeros((1, 4))

    def program():
        def step(y):  # a new one, or jax remembers the program of the other device
            z = synthesise(net, upsample(y, taps, backend="xla"), backend="xla")
            return latent_rate(context, y, backend="xla")[0] + z.sum()

        return str(jax.make_jaxpr(step)(y))

    assert "scan" in program()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "scan" not in program()


def test_an_unknown_backend_is_refused():
    from lumefield.fields.latent import _backend

    with pytest.raises(ValueError, match="backend='cuda', expected one of"):
        _backend.choose_backend("cuda", ())
