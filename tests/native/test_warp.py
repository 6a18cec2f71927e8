"""The call of Warp kernels: what it needs, that nothing is imported for it, and what it returns."""

import importlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata, util
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lumefield import native

ROOT = Path(__file__).parents[2]


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Any:
    if not native.warp_available():
        pytest.skip(native.warp_missing())
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return importlib.import_module("warp_kernels")


def test_what_is_missing_is_said_with_the_remedy(monkeypatch: pytest.MonkeyPatch):
    def not_installed(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(util, "find_spec", lambda name: object())
    for version, said in (
        ("1.18.2", r"warp-lang 1.18.2 is too old, expected 1.19"),
        ("0.9", "too old"),
    ):
        monkeypatch.setattr(metadata, "version", lambda name, v=version: v)
        assert said in native.warp_missing()
        assert "pip install -U warp-lang" in native.warp_missing()
    for version in ("1.19.0", "1.20.0.dev1", "2.0rc1"):
        monkeypatch.setattr(metadata, "version", lambda name, v=version: v)
        assert native.warp_missing() == ""
        assert native.warp_available()
    monkeypatch.setattr(metadata, "version", not_installed)
    assert native.warp_missing().startswith("the installed package `warp` is not NVIDIA Warp; pip")
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    assert native.warp_missing() == "warp-lang is not installed; pip install 'lumefield[cuda]'"
    assert not native.warp_available()


@pytest.mark.parametrize(
    ("platform", "warp", "built", "expected"),
    [
        ("gpu", True, True, "warp"),
        ("cuda", True, False, "warp"),
        ("gpu", False, True, "xla"),
        ("cpu", True, True, "native"),
        ("cpu", True, False, "xla"),
        ("tpu", True, True, "xla"),
    ],
)
def test_the_backend_of_a_platform_is_named(
    platform: str, warp: bool, built: bool, expected: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("lumefield.native._warp.warp_on_gpu", lambda: warp)
    monkeypatch.setattr("lumefield.native._warp.load", lambda: built)
    assert native.backend_on(platform) == expected


@pytest.fixture
def unasked():
    native.warp_on_gpu.cache_clear()
    yield
    native.warp_on_gpu.cache_clear()


@pytest.mark.usefixtures("unasked")
def test_a_gpu_that_only_jax_can_use_is_one_warning(monkeypatch: pytest.MonkeyPatch):
    class Warp:
        @staticmethod
        def is_cuda_available() -> bool:
            return False

    monkeypatch.setattr("lumefield.native._warp.warp_available", lambda: True)
    monkeypatch.setattr("lumefield.native._warp._configured", Warp)
    with pytest.warns(RuntimeWarning, match="warp-lang cannot use the GPU .* update the NVIDIA dr"):
        assert not native.warp_on_gpu()
    assert native.backend_on("gpu") == "xla"  # a second warning would be an error


@pytest.mark.usefixtures("unasked")
@pytest.mark.parametrize("installed", [True, False])
def test_warp_uses_the_gpu_where_it_is_installed_and_sees_it(
    installed: bool, monkeypatch: pytest.MonkeyPatch
):
    class Warp:
        @staticmethod
        def is_cuda_available() -> bool:
            return True

    monkeypatch.setattr("lumefield.native._warp.warp_available", lambda: installed)
    monkeypatch.setattr("lumefield.native._warp._configured", Warp)
    assert native.warp_on_gpu() == installed


def test_two_threads_may_call_at_once(kernels: Any):
    @jax.jit
    def run(x: jax.Array) -> jax.Array:
        return native.warp_call(kernels.add_index, {}, x, dims=x.shape[0], in_out=("x",))[0]

    def work(n: int) -> bool:
        x = jnp.arange(n, dtype=jnp.float32)
        return all((run(x) == 2 * x).all() for _ in range(5))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, [3, 30, 300, 3000] * 2))


IMPORTS = """
import json, sys
from lumefield import fields, native, render
native.warp_missing()
before = "warp" in sys.modules
import jax.numpy as jnp
stack = jnp.ones((2, 2)), jnp.ones((2, 3)), jnp.ones(2), jnp.ones(2), jnp.ones((2, 3))
render.composite_gaussians(*stack, height=2, width=2)
print(json.dumps([before, "warp" in sys.modules]))
"""


def test_on_a_cpu_warp_is_never_imported_unasked():
    env = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "LUMEFIELD_NATIVE": "0"}
    run = [sys.executable, "-c", IMPORTS]
    done = subprocess.run(run, env=env, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [False, False]


def test_blocks_share_tiles_on_the_cpu_as_on_a_gpu(kernels: Any):
    x = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)

    def run(x: jax.Array) -> list[jax.Array]:
        out = {"turned": (5, 64), "total": (5,)}
        return native.warp_call(kernels.turn_and_sum, out, x, 2.0, dims=(5, 64), block=64)

    for f in (run, jax.jit(run)):
        turned, total = f(jnp.asarray(x))
        np.testing.assert_array_equal(turned, 2 * x[:, ::-1])
        np.testing.assert_allclose(total, x.sum(1), atol=1e-5)


def test_vmap_runs_one_after_the_other(kernels: Any):
    x = jnp.asarray(np.random.default_rng(1).normal(size=(3, 2, 64)), jnp.float32)

    def run(x: jax.Array) -> jax.Array:
        out = {"turned": (2, 64), "total": (2,)}
        return native.warp_call(kernels.turn_and_sum, out, x, 1.0, dims=(2, 64), block=64)[0]

    np.testing.assert_array_equal(jax.jit(jax.vmap(run))(x), x[..., ::-1])


def test_an_array_that_is_read_and_written_comes_back_and_the_callers_stays(kernels: Any):
    x = jnp.arange(6, dtype=jnp.float32)
    (after,) = native.warp_call(kernels.add_index, {}, x, dims=6, in_out=("x",))
    np.testing.assert_array_equal(after, 2 * np.arange(6))
    np.testing.assert_array_equal(x, np.arange(6))


def test_compiled_kernels_are_kept_beside_ours_and_nothing_is_printed(kernels: Any, tmp_path: Path):
    code = (
        "import sys, jax.numpy as jnp; sys.path.insert(0, sys.argv[1])\n"
        "from lumefield import native; import warp_kernels\n"
        "native.warp_call(warp_kernels.add_index, {}, jnp.zeros(3), dims=3, in_out=('x',))"
    )
    env = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    env["LUMEFIELD_CACHE"] = str(tmp_path)
    run = [sys.executable, "-c", code, str(Path(__file__).parent)]
    done = subprocess.run(run, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert list((tmp_path / "warp").glob("*/wp_warp_kernels_*"))
