"""The fused perceptron against its float64 twin, in value, gradient and second derivative."""

import itertools
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lumefield import native
from lumefield.fields.networks import _blocked
from lumefield.fields.networks._blocked import blocked_mlp, plain_mlp
from lumefield.fields.networks._fused_mlp import check, choose_backend, mlp

ROOT = Path(__file__).parents[2]
NETS: dict[str, Any] = {
    "density": ([32, 64, 16], "relu", False),
    "colour": ([32, 64, 64, 3], "relu", False),
    "odd": ([5, 30, 77, 9, 2], "relu", True),
    "widest": ([128, 128, 112, 64], "relu", True),
    "linear": ([7, 3], "relu", True),
    "siren": ([2, 64, 64, 64, 1], "sine", True),
    "flat": ([1, 16, 1], "sine", False),
}
"""Name -> layer sizes, activation, biases."""


@pytest.fixture(params=["native", "xla"])
def backend(request):
    if request.param == "native" and not native.load():
        pytest.skip(f"native kernels are not available: {native.status().reason}")
    return request.param


@pytest.fixture
def kernel():
    if not native.load():
        pytest.skip(f"native kernels are not available: {native.status().reason}")


def network(name, n, seed=0) -> tuple[Any, ...]:
    """x, weights, biases and a cotangent, NumPy float32."""
    sizes, activation, biased = NETS[name]
    rng = np.random.default_rng(seed)
    scale = 2.0 if activation == "sine" else 1.5
    weights = [rng.normal(size=s) * scale / s[0] ** 0.5 for s in itertools.pairwise(sizes)]
    biases = [rng.normal(size=s) for s in sizes[1:]] if biased else []
    g = rng.normal(size=(n, sizes[-1])) + 1  # sums of it do not cancel
    arrays = (rng.normal(size=(n, sizes[0])), weights, biases, g)
    return jax.tree.map(lambda a: np.asarray(a, np.float32), arrays)


def gradients(function, x, weights, biases, g):
    y, pull = jax.vjp(function, x, weights, biases)
    return y, *pull(g)


def twin(name, arrays):
    """Value and gradients of x, weights and biases by the chain rule in float64."""
    _, activation, biased = NETS[name]
    x, weights, biases, g = jax.tree.map(lambda a: np.asarray(a, np.float64), arrays)
    inputs, slopes, z = [x], [], x
    for layer, w in enumerate(weights):
        z = inputs[-1] @ w + (biases[layer] if biased else 0.0)
        slopes.append(np.cos(z) if activation == "sine" else (z > 0) * 1.0)
        inputs.append(np.sin(z) if activation == "sine" else np.maximum(z, 0))
    g_weights, g_biases = [], []
    for layer in reversed(range(len(weights))):
        g = g if layer == len(weights) - 1 else g * slopes[layer]
        g_weights.insert(0, inputs[layer].T @ g)
        g_biases.insert(0, g.sum(0))
        g = g @ weights[layer].T
    return z, g, g_weights, g_biases if biased else []


def worst(found, wanted):
    """Largest error of any array relative to that array's largest entry."""
    errors = [
        np.abs(np.asarray(a) - b).max() / max(np.abs(b).max(), 1e-30)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
        if b.size
    ]
    return max(errors, default=0.0)


@pytest.mark.parametrize("name", NETS)
def test_values_and_gradients_are_the_float64_twins(name, backend):
    arrays = network(name, 1000)
    given = jax.tree.map(jnp.asarray, arrays)

    def run(x, weights, biases):
        return mlp(x, weights, biases, activation=NETS[name][1], backend=backend)

    found = jax.jit(lambda *a: gradients(run, *a))(*given)
    assert worst(found, twin(name, arrays)) < 2e-6


@pytest.mark.parametrize("n", [0, 1, 17, 97, 4097])
@pytest.mark.usefixtures("kernel")
def test_any_number_of_samples_will_do(n):
    arrays = network("odd", n)
    given = jax.tree.map(jnp.asarray, arrays)
    found = jax.jit(lambda *a: gradients(partial(mlp, backend="native"), *a))(*given)
    wanted = twin("odd", arrays)
    assert [a.shape for a in jax.tree.leaves(found)] == [a.shape for a in jax.tree.leaves(wanted)]
    assert worst(found, wanted) < 2e-6


def test_blocks_change_nothing(monkeypatch):
    monkeypatch.setattr(_blocked, "BLOCK", 8)
    arrays = network("colour", 21)
    given = jax.tree.map(jnp.asarray, arrays)
    found = jax.jit(lambda *a: gradients(partial(blocked_mlp, activation="relu"), *a))(*given)
    assert worst(found, twin("colour", arrays)) < 2e-6


@pytest.mark.parametrize("lead", [(), (3,), (2, 0), (2, 3)])
def test_leading_axes_are_batch_axes(lead, backend):
    x, weights, _, _ = jax.tree.map(jnp.asarray, network("density", int(np.prod(lead))))
    y = mlp(x.reshape(*lead, 32), weights, backend=backend)
    assert y.shape == (*lead, 16)
    flat = mlp(x, weights, backend=backend)
    np.testing.assert_array_equal(y.reshape(-1, 16), flat)


def test_a_wide_or_double_network_goes_to_xla():
    x, weights = jnp.ones((4, 3)), [jnp.ones((3, 130)), jnp.ones((130, 2))]
    assert mlp(x, weights).shape == (4, 2)
    with jax.enable_x64(True):
        assert mlp(jnp.ones((4, 3)), [jnp.ones((3, 2))]).dtype == jnp.float64


@pytest.mark.usefixtures("kernel")
def test_vmap_over_samples_networks_or_both_is_a_loop():
    x, weights, biases, _ = jax.tree.map(jnp.asarray, network("odd", 6))
    many = jax.tree.map(lambda a: jnp.stack([a, a * 0.5]), (weights, biases))

    def value(x, net):
        return mlp(x, *net, backend="native")

    def slopes(x, net):
        return jax.grad(lambda *a: (value(*a) ** 2).sum(), (0, 1))(x, net)

    def checked(function, axes, *data):
        found = jax.jit(jax.vmap(function, axes))(*data)
        n = 6 if axes[0] == 0 else 2
        once = jax.jit(function)

        def picked(k):
            return [
                d if ax is None else jax.tree.map(lambda a: a[k], d)
                for ax, d in zip(axes, data, strict=True)
            ]

        wanted = jax.tree.map(lambda *a: np.stack(a), *(once(*picked(k)) for k in range(n)))
        assert worst(found, wanted) < 1e-6

    checked(value, (0, None), x, (weights, biases))
    checked(lambda *a: slopes(*a)[0], (0, None), x, (weights, biases))
    checked(slopes, (0, None), x, (weights, biases))
    checked(slopes, (None, 0), x, many)
    both = jax.jit(jax.vmap(value))(jnp.stack([x, x]), many)
    np.testing.assert_allclose(both[1], value(x, jax.tree.map(lambda a: a[1], many)), rtol=1e-6)


@pytest.mark.parametrize("name", ["odd", "siren"])
@pytest.mark.usefixtures("kernel")
def test_the_second_derivative_is_the_float64_twins(name):
    arrays = network(name, 40)

    def eikonal(function, x, weights, biases):
        """A loss on the slope, as for signed distances: the slope per sample, under vmap."""
        slope = jax.vmap(jax.grad(lambda p: function(p, weights, biases).sum()))(x)
        return jnp.sum((jnp.sum(slope**2, -1) - 1) ** 2)

    def ours(*a):
        return mlp(*a, activation=NETS[name][1], backend="native")

    given = jax.tree.map(jnp.asarray, arrays[:3])
    found = jax.jit(jax.grad(lambda *a: eikonal(ours, *a), (0, 1, 2)))(*given)
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), arrays[:3])

        plain = partial(plain_mlp, activation=NETS[name][1])
        wanted = jax.device_get(jax.jit(jax.grad(partial(eikonal, plain), (0, 1, 2)))(*exact))
    assert worst(found, wanted) < 1e-5


@pytest.mark.usefixtures("kernel")
def test_forward_mode_is_refused_by_the_kernel_and_done_by_xla():
    x, weights, _, _ = jax.tree.map(jnp.asarray, network("density", 3))
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: mlp(x, weights, backend="native"), (x,), (x,))
    y, dy = jax.jvp(lambda x: mlp(x, weights, backend="xla"), (x,), (x,))
    np.testing.assert_allclose(y, dy, rtol=1e-5, atol=1e-5)  # without biases ReLU is homogeneous


@pytest.mark.usefixtures("kernel")
def test_the_slope_at_zero_is_zero_and_nan_stays_nan():
    w = [jnp.ones((1, 16)), jnp.ones((16, 1))]
    x = jnp.array([[0.0], [-1.0], [2.0], [jnp.nan]])
    y = mlp(x, w, backend="native")[:, 0]
    np.testing.assert_array_equal(y, [0, 0, 32, np.nan])
    slope = jax.grad(lambda x: mlp(x, w, backend="native").sum())(x[:3])
    np.testing.assert_array_equal(slope[:, 0], [0, 0, 16])


THREADS = """
import os, sys
import jax, jax.numpy as jnp, numpy as np
from lumefield.fields.networks._fused_mlp import check, choose_backend, mlp
rng = np.random.default_rng(0)
w = [jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((5, 30), (30, 3))]
x = jnp.asarray(rng.normal(size=(7001, 5)), jnp.float32)
loss = lambda x, w: (mlp(x, w, backend="native") ** 2).sum()
out = []
for threads in "1", "2", "0":
    os.environ["LUMEFIELD_THREADS"] = threads
    jax.clear_caches()
    out.append([np.asarray(a).tobytes() for a in jax.tree.leaves(jax.grad(loss, (0, 1))(x, w))])
assert out[0] == out[1] == out[2]
x64 = [np.asarray(a, np.float64) for a in (x, *w)]
h = np.maximum(x64[0] @ x64[1], 0)
g = h.T @ (2 * (h @ x64[2]))
found = jax.grad(loss, 1)(x, w)[1]
assert np.abs(np.asarray(found) - g).max() < 2e-6 * np.abs(g).max()
print("same")
"""


@pytest.mark.parametrize("isa", ["avx512", "avx2"])
@pytest.mark.usefixtures("kernel")
def test_no_gradient_depends_on_the_number_of_threads(isa):
    if isa == "avx512" and native.status().isa != "avx512":
        pytest.skip("this CPU has no AVX-512")
    env = os.environ | {"PYTHONPATH": str(ROOT), "LUMEFIELD_ISA": isa}
    done = subprocess.run(
        [sys.executable, "-c", THREADS], env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "same", done.stderr[-2000:]


X, W = np.zeros((4, 3), np.float32), np.zeros((3, 2), np.float32)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((X, []), {}, "no weights, expected one matrix per layer"),
        ((X, [W, W]), {}, r"weights\[1\] has shape \(3, 2\), expected \(2, out\)"),
        ((X, [W.T]), {}, r"weights\[0\] has shape \(2, 3\), expected \(3, out\).*transpose"),
        ((X, [W], [X[0]]), {}, r"biases\[0\] has shape \(3,\), expected \(2,\)"),
        ((X, [W], [W[0], W[0]]), {}, "2 biases for 1 weights, expected as many"),
        ((X, [W.astype(np.float16)]), {}, "weights are float16 and x float32, expected one float"),
        (
            (X.astype(np.float16), [W.astype(np.float16)]),
            {"backend": "native"},
            "backend='native' with float16 arrays, expected float32",
        ),
        (
            (X, [np.zeros((3, 129), np.float32)]),
            {"backend": "native"},
            r"layers \(3, 129\), expected at most 8 layers of 1 to 128 features",
        ),
    ],
)
def test_a_wrong_call_says_what_was_given_and_expected(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        mlp(*jax.tree.map(jnp.asarray, arguments), **options)


def test_what_the_types_of_a_call_already_exclude_is_refused_too():
    x, w = jnp.asarray(X), (jnp.asarray(W),)
    with pytest.raises(ValueError, match="activation='tanh', expected one of"):
        check(x, w, (), "tanh")
    with pytest.raises(ValueError, match=r"x has shape \(\), expected \(\*s, 3\)"):
        check(x[0, 0], w, (), "relu")
    with pytest.raises(ValueError, match="backend='cuda', expected one of"):
        choose_backend("cuda", x, w)


def test_without_a_library_native_says_so_and_auto_takes_xla(monkeypatch):
    monkeypatch.setattr(native, "load", lambda: False)
    with pytest.raises(ValueError, match="no native library could be loaded"):
        mlp(jnp.asarray(X), [jnp.asarray(W)], backend="native")
    assert mlp(jnp.asarray(X), [jnp.asarray(W)]).shape == (4, 2)
