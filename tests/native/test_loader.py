"""Finding, building and loading the kernels: what works, and what happens where it does not."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from lumefield import native
from lumefield.errors import InputError
from lumefield.native import _loader
from lumefield.native._build import build_library

ROOT = Path(__file__).parents[2]


def python(code: str, **env: str) -> Any:
    """What ``code`` prints as JSON in a fresh process, and its stderr."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("LUMEFIELD_")}
    clean |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    clean |= {
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.values["jax_compilation_cache_dir"])
    } | env
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=clean, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


STATUS = """
import dataclasses, json, sys
from lumefield import native
status = dataclasses.asdict(native.status())
print(json.dumps(status | {"jax": "jax" in sys.modules}))
"""


def test_the_status_needs_no_jax():
    found, _ = python(STATUS)
    assert not found["jax"]
    assert found["backend"] in ("native", "xla")
    assert found["reason"]


def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LUMEFIELD_NATIVE", "0")
    found = native.status()
    assert found.backend == "xla"
    assert "LUMEFIELD_NATIVE=0" in found.reason


@pytest.fixture
def nothing_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache without a library, and a process that has not tried to load one."""
    monkeypatch.setattr(_loader, "_process", type(getattr(_loader, "_process"))())  # noqa: B009
    monkeypatch.delenv("LUMEFIELD_NATIVE", raising=False)
    monkeypatch.setenv("LUMEFIELD_CACHE", str(tmp_path))
    monkeypatch.setenv("LUMEFIELD_ISA", "avx2")
    if native.status().isa == "none":
        pytest.skip("there are no kernels for this processor")
    if native.status().library:
        pytest.skip("a library is shipped with this package")
    return tmp_path


@pytest.mark.usefixtures("nothing_built")
def test_without_a_compiler_it_is_xla_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "")
    found = native.status()
    assert (found.backend, found.compiler) == ("xla", "")
    assert "install g++" in found.reason
    assert not native.load()
    with pytest.raises(RuntimeError, match=r"no C\+\+ compiler found; install g\+\+ or set CXX"):
        native.build("avx2")


@pytest.mark.usefixtures("nothing_built")
def test_an_instruction_set_it_does_not_know_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LUMEFIELD_ISA", "sse9")
    assert native.status().backend == "xla"
    assert "LUMEFIELD_ISA=sse9, expected avx512 or avx2" in native.status().reason
    with pytest.raises(RuntimeError, match="no native kernels for instruction set 'none'"):
        native.build()


def compiler_that(folder: Path, script: str) -> str:
    path = folder / "cxx"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


FAILING = "echo run >> {log}; echo broken toolchain >&2; exit 1"
NOT_A_LIBRARY = """echo run >> {log}
for word; do [ "$before" = -o ] && echo not an object > "$word"; before=$word; done; exit 0"""


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (FAILING, "failed on composite.cc: broken toolchain"),
        (NOT_A_LIBRARY, "file too short|invalid ELF"),
    ],
)
def test_a_build_that_fails_is_one_warning_and_not_tried_again(
    script: str, reason: str, nothing_built: Path, monkeypatch: pytest.MonkeyPatch
):
    log = nothing_built / "log"
    monkeypatch.setenv("CXX", compiler_that(nothing_built, script.format(log=log)))
    assert native.status().backend == "native"
    with pytest.warns(RuntimeWarning, match=rf"using the xla backend: .*({reason})"):
        assert not native.load()
    runs = len(log.read_text().split())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not native.load()
    assert len(log.read_text().split()) == runs
    found = native.status()
    assert (found.backend, found.library) == ("xla", "")
    assert found.reason.startswith("not available: ")
    built = nothing_built / "native"
    rest = [*built.iterdir(), *(built / "objects").iterdir()]
    assert {p.name for p in rest if p.is_dir()} == {"objects"}  # nothing half-built


COPYING = """echo $* >> {log}
for word; do [ "$before" = -o ] && echo made > "$word"; before=$word; done; exit 0"""


def test_only_what_changed_is_compiled_again_and_only_once(tmp_path: Path):
    log = tmp_path / "log"
    cxx = compiler_that(tmp_path, COPYING.format(log=log))
    sources, header = [tmp_path / "a.cc", tmp_path / "b.cc"], tmp_path / "h.h"
    for path in (*sources, header):
        path.write_text("1")

    def compiled(version: int) -> list[str]:
        log.write_text("")
        target = tmp_path / "cache" / f"{version}.so"
        with ThreadPoolExecutor(3) as pool:  # as three processes that start together
            list(pool.map(lambda _: build_library(target, [cxx], sources, [header]), range(3)))
        assert target.exists()
        lines = log.read_text().splitlines()
        assert sum("-shared" in line for line in lines) == 1
        return sorted(line.split("-c ")[1].split()[0][-4:] for line in lines if "-c " in line)

    assert compiled(1) == ["a.cc", "b.cc"]
    sources[1].write_text("2")
    assert compiled(2) == ["b.cc"]
    header.write_text("2")
    assert compiled(3) == ["a.cc", "b.cc"]


def test_a_source_that_does_not_compile_leaves_no_library(tmp_path: Path):
    cxx = compiler_that(tmp_path, FAILING.format(log=tmp_path / "log"))
    source = tmp_path / "a.cc"
    source.write_text("1")
    target = tmp_path / "cache" / "lib.so"
    with pytest.raises(RuntimeError, match=r"failed on a\.cc: broken toolchain"):
        build_library(target, [cxx], [source], [])
    assert not target.exists()


@pytest.mark.usefixtures("nothing_built")
def test_a_failure_is_remembered_even_where_warnings_are_errors(monkeypatch: pytest.MonkeyPatch):
    tries: list[int] = []

    def register(path: Path, prefix: str) -> None:
        tries.append(1)
        raise RuntimeError("half registered")

    monkeypatch.setattr(_loader, "_register", register)
    monkeypatch.setattr(_loader, "build", lambda: Path("lib.so"))
    monkeypatch.setenv("CXX", sys.executable)
    with pytest.raises(RuntimeWarning, match="half registered"):
        native.load()
    assert not native.load()
    assert tries == [1]
    assert "half registered" in native.status().reason


PICTURE = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from lumefield import native, render
rng = np.random.default_rng(0)
n = 5000  # more than one block of the projection
g = {
    "means": rng.uniform(-1, 1, (n, 3)) + [0, 0, 3], "quats_wxyz": rng.normal(size=(n, 4)),
    "scales": np.exp(rng.normal(size=(n, 3)) * 0.4 - 3.5), "opacities": rng.uniform(0.1, 0.9, n),
    "sh": rng.normal(size=(n, 4, 3)) * 0.3,
}
g = {k: jnp.asarray(v, jnp.float32) for k, v in g.items()}
camera = render.Cameras.from_pinhole(
    jnp.eye(3, 4), jnp.array([60.0, 60.0]), jnp.array([32.0, 24.0]), height=48, width=64)
truth = jnp.asarray(rng.integers(0, 256, (48, 64, 3)), jnp.uint8)

def loss(g):
    rgb, _ = render.rasterize_rgb(**g, camera=camera)
    return render.photometric_loss(rgb, truth, jnp.full((1, 1), 255, jnp.uint8)), rgb

(value, rgb), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(g)
np.savez(OUT, value=value, rgb=rgb, **grads)
print(json.dumps([native.load(), native.status().backend, native.status().isa]))
"""


def picture(out: Path, **env: str) -> tuple[dict[str, Any], list[Any], str]:
    """Loss, image and gradients of a scene in a fresh process; what it says of its backend."""
    said, stderr = python(f"OUT = {str(out)!r}\n{PICTURE}", **env)
    with np.load(out) as file:
        return dict(file), said, stderr


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """With every thread of this machine."""
    found, said, _ = picture(tmp_path_factory.mktemp("usual") / "all.npz")
    if not said[0]:
        pytest.skip(f"native kernels are not available: {native.status().reason}")
    return found


def test_one_thread_gives_the_bits_of_all_threads(usual: dict[str, Any], tmp_path: Path):
    one, said, _ = picture(tmp_path / "one.npz", LUMEFIELD_THREADS="1")
    assert said[0]
    for name, value in usual.items():
        assert np.array_equal(one[name], value), name


def test_a_machine_whose_compiler_is_broken_still_draws(usual: dict[str, Any], tmp_path: Path):
    broken = compiler_that(tmp_path, "exit 1")
    found, said, stderr = picture(tmp_path / "xla.npz", LUMEFIELD_CACHE=str(tmp_path), CXX=broken)
    if (Path(_loader.__file__).parent / f"lumefield-{said[2]}.so").exists():
        pytest.skip("a library is shipped with this package")
    assert said[:2] == [False, "xla"]
    assert stderr.count("native kernels not available, using the xla backend") == 1
    assert_close(found, usual)


def test_avx2_and_avx512_draw_the_same(usual: dict[str, Any], tmp_path: Path):
    if native.status().isa != "avx512":
        pytest.skip("this CPU has no AVX-512 to compare with")
    found, said, _ = picture(tmp_path / "avx2.npz", LUMEFIELD_ISA="avx2")
    if not said[0]:
        pytest.skip("the AVX2 build is not available here")
    assert said == [True, "native", "avx2"]
    assert_close(found, usual)


def assert_close(mine: dict[str, Any], other: dict[str, Any]) -> None:
    for name, value in other.items():
        top = 1.0 if name in ("rgb", "value") else np.abs(value).max()
        assert np.abs(mine[name] - value).max() <= 1e-5 * top, name


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ here")
def test_the_name_of_a_library_depends_on_compiler_and_flags(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    name = getattr(_loader, "_library")  # noqa: B009
    monkeypatch.delenv("CXX", raising=False)
    plain = name("avx2")
    assert plain == name("avx2")
    monkeypatch.setenv("CXX", compiler_that(tmp_path, "exit 1"))
    assert len({plain, name("avx2"), name("avx512"), name("avx2", ("-g",))}) == 4


@pytest.mark.parametrize(
    ("given", "expected"), [("", 0), ("0", 0), ("3", 3), (" 2 ", 2), ("-1", 0)]
)
def test_the_number_of_threads_is_read_from_the_environment(
    given: str, expected: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LUMEFIELD_THREADS", given)
    assert native.threads() == expected


@pytest.mark.parametrize("given", ["two", "1.5", "0x2"])
def test_a_number_of_threads_that_is_none_is_refused(given: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LUMEFIELD_THREADS", given)
    with pytest.raises(InputError, match=f"LUMEFIELD_THREADS={given}, expected a whole number"):
        native.threads()
