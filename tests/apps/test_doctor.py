"""``lumefield doctor``: complete, honest about the backend, and never failing."""

import json
from pathlib import Path
from typing import Any

import pytest

from lumefield import native
from lumefield.apps import _doctor, _runtime


def with_kernels(
    backend: str, reason: str, monkeypatch: pytest.MonkeyPatch, compiler: str = ""
) -> dict[str, Any]:
    """What doctor finds when the native loader reports these."""
    status = native.Status(
        backend=backend, reason=reason, isa="avx2", compiler=compiler, library=""
    )
    monkeypatch.setattr(native, "status", lambda: status)
    return _doctor.examine()


def test_json_is_what_examine_found(capsys: pytest.CaptureFixture[str]):
    _doctor.doctor(_doctor.Doctor(json=True))
    found = json.loads(capsys.readouterr().out)
    assert set(found) == set(_doctor.examine())
    assert found["versions"]["jax"]
    assert found["kernels"]["backend"] in ("native", "xla")
    assert found["kernels"]["reason"]


def test_text_names_every_part(capsys: pytest.CaptureFixture[str]):
    _doctor.doctor(_doctor.Doctor())
    text = capsys.readouterr().out
    for name in ("lumefield", "python", "packages", "processor", "cores", "memory", "accelerator"):
        assert f"\n{name}" in f"\n{text}"
    for name in ("kernels", "gpu kernels", "caches", "advice"):
        assert f"\n{name}" in text


def test_a_native_backend_needs_no_advice(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        _doctor, "_accelerator", lambda: {"devices": [], "plugins": [], "reason": ""}
    )
    found = with_kernels("native", "built with g++", monkeypatch)
    assert found["advice"] == ["nothing to do: this is the fastest backend for this machine"]


@pytest.mark.parametrize(
    ("compiler", "advice"),
    [("", "install g++ or clang++"), ("g++", "see the reason above")],
)
def test_the_xla_backend_comes_with_the_way_to_the_native_one(
    compiler: str, advice: str, monkeypatch: pytest.MonkeyPatch
):
    found = with_kernels("xla", "no library", monkeypatch, compiler)
    assert any(advice in line for line in found["advice"])
    assert "xla - no library" in _doctor.describe(found)


def test_a_broken_native_loader_is_reported_not_raised(monkeypatch: pytest.MonkeyPatch):
    def broken() -> native.Status:
        raise ImportError("no such library")

    monkeypatch.setattr(native, "status", broken)
    assert _doctor.examine()["kernels"] == {
        "backend": "xla",
        "reason": "the native loader cannot be used: no such library",
    }


def test_an_unused_gpu_and_a_missing_package_are_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        _doctor,
        "_accelerator",
        lambda: {"devices": ["nvidia0"], "plugins": [], "reason": "1 NVIDIA GPU seen"},
    )
    monkeypatch.setattr(_doctor, "PACKAGES", ("jax", "no-such-package"))
    found = _doctor.examine()
    assert "for the GPU: pip install 'lumefield[cuda]'" in found["advice"]
    assert "missing packages: pip install no-such-package" in found["advice"]
    assert "no-such-package MISSING" in _doctor.describe(found)


@pytest.mark.parametrize(
    ("devices", "plugins", "missing", "reason", "advice"),
    [
        ([], [], "not there; get it", "warp - not available: not there; get it", ""),
        ([], [], "", "warp - installed; used on an NVIDIA GPU, and none is seen here", ""),
        (["nvidia0"], [], "", "installed, but jax has no plugin for the GPU", "for the GPU: pip"),
        (["nvidia0"], ["jax_cuda12_plugin"], "", "warp - installed, used on the GPU", ""),
        (
            ["nvidia0"],
            ["jax_cuda12_plugin"],
            "not there; get it",
            "warp - not available",
            "for fast kernels on the GPU: not there; get it",
        ),
    ],
)
def test_it_says_whether_the_gpu_kernels_are_used_and_what_they_still_need(
    devices: list[str],
    plugins: list[str],
    missing: str,
    reason: str,
    advice: str,
    monkeypatch: pytest.MonkeyPatch,
):
    seen = {"devices": devices, "plugins": plugins, "reason": ""}
    monkeypatch.setattr(_doctor, "_accelerator", lambda: seen)
    monkeypatch.setattr(native, "warp_missing", lambda: missing)
    found = _doctor.examine()
    assert found["warp"]["missing"] == missing
    assert reason in _doctor.describe(found)
    told = [line for line in found["advice"] if "GPU" in line]
    assert len(told) == bool(advice)
    assert all(line.startswith(advice) for line in told)


def test_a_loader_that_cannot_be_imported_leaves_the_gpu_kernels_out(
    monkeypatch: pytest.MonkeyPatch,
):
    def broken() -> str:
        raise ImportError("no such library")

    monkeypatch.setattr(native, "warp_missing", broken)
    found = _doctor.examine()["warp"]
    assert found["missing"] == "the native loader cannot be used: no such library"


@pytest.mark.parametrize(
    ("devices", "plugins", "reason"),
    [
        ([], {}, "none seen: the CPU is used"),
        (["nvidia0"], {}, "1 NVIDIA GPU seen, but jax has no plugin for it: the CPU is used"),
        (["nvidia0", "nvidia1"], {"jax_cuda12_plugin"}, "2 NVIDIA GPUs seen, jax will use them"),
        ([], {"jax_cuda12_plugin"}, "jax_cuda12_plugin is installed, but no device is visible"),
        ([], {"libtpu"}, "jax may use the plugin libtpu"),
    ],
)
def test_the_accelerator_line_says_what_jax_will_do(
    devices: list[str], plugins: set[str], reason: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(_doctor, "_found", lambda name: name in plugins)
    monkeypatch.setattr(_doctor, "_nvidia_devices", lambda: devices)
    assert _doctor.examine()["accelerator"]["reason"] == reason


def test_a_forced_platform_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert _doctor.examine()["accelerator"]["reason"] == "JAX_PLATFORMS=cpu decides"


def test_caches_are_measured_and_absent_ones_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    folder = _runtime.cache_dir()
    found = _doctor.examine()
    assert found["caches"] == {str(folder): None}
    assert f"{folder} (absent)" in _doctor.describe(found)
    folder.mkdir()
    (folder / "a").write_bytes(bytes(2500))
    assert f"{folder} (2.5 kB)" in _doctor.describe(_doctor.examine())
