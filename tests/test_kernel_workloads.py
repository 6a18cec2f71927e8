"""The kernel workloads: their scene, their timing, what they do without data, the results page."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from benchmarks import prototype_leg, results
from benchmarks.suite import garden, kernel_runs
from benchmarks.suite import workloads_kernels as workloads
from benchmarks.suite.metrics import Metric
from benchmarks.suite.timing import free_cores, interleaved
from benchmarks.suite.workloads import WORKLOADS
from lumefield import native

KERNELS = [name for name in WORKLOADS if name != "cli"]


@pytest.fixture
def small(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> garden.Garden:
    """A small scene; the runs make the same one."""
    monkeypatch.setenv("LUMEFIELD_DATA", str(data_dir))
    if not garden.path().exists():
        pytest.skip(f"no {garden.path()}")
    if not native.load():
        pytest.skip(native.status().reason)
    for name, value in (("N", 2000), ("SIZE", "270p"), ("ROUNDS", 1)):
        monkeypatch.setattr(kernel_runs, name, value)
    return garden.make(2000, "270p")


def test_the_scene_is_the_same_every_time_and_half_of_it_is_in_view(small: garden.Garden):
    again = garden.make(2000, "270p")
    assert all(np.array_equal(getattr(small, k), getattr(again, k)) for k in vars(small))
    _, seen = kernel_runs.projected(small)
    assert 0.45 < seen / 2000 < 0.65


def test_more_gaussians_than_points_are_clones_moved_apart(
    small: garden.Garden, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    del small
    with np.load(garden.path()) as file:
        arrays = {k: file[k] for k in file.files}
    monkeypatch.setenv("LUMEFIELD_DATA", str(tmp_path))
    garden.path().parent.mkdir(parents=True)
    few = arrays | {"means3d": arrays["means3d"][:50], "colors": arrays["colors"][:50]}
    np.savez(garden.path(), allow_pickle=False, **few)
    assert len(np.unique(garden.make(120, "270p").means, axis=0)) == 120


def test_visible_counts_what_the_kernel_keeps(small: garden.Garden):
    inputs, seen = kernel_runs.projected(small)
    out = (
        jax.ShapeDtypeStruct((small.height, small.width, 3), np.float32),
        jax.ShapeDtypeStruct((small.height, small.width), np.float32),
        jax.ShapeDtypeStruct((2001,), np.int32),
    )
    kept = native.call("CompositeForward", out, *inputs, n_threads=np.int64(1))[2]
    assert int(kept[-1]) == seen


def test_the_kept_bytes_are_counted_once_and_without_the_inputs(small: garden.Garden):
    numbers = kernel_runs.memory()
    pixels = small.height * small.width
    # Projected features and the depth order, the image and its transmittance; nothing else of size.
    expected = 2000 * 4 * (2 + 3 + 1 + 1 + 3 + 1) + pixels * 4 * (3 + 1)
    assert numbers["kept_bytes"] == pytest.approx(expected, rel=0.01)


@pytest.mark.slow
def test_the_counting_build_counts_and_the_timed_build_times(small: garden.Garden):
    del small
    numbers = kernel_runs.tiles()
    assert numbers["pixel_evaluations"] >= 8 * numbers["items"] / 2 > 0
    assert 0 < numbers["tiles_ms"] < 100


def test_native_and_xla_steps_are_timed_side_by_side(small: garden.Garden):
    del small
    times = kernel_runs.projection()
    assert set(times) == {"native_fwd", "native_step", "xla_fwd", "xla_step"}
    assert all(t > 0 for t in times.values())


def test_steps_in_either_order_and_the_sorting_are_timed(small: garden.Garden):
    del small
    times = kernel_runs.order()
    assert set(times) == {"random", "curve", "resort"}
    assert all(t > 0 for t in times.values())


def test_interleaved_takes_turns_and_the_median():
    ticks: Iterator[float] = iter([0, 1, 1, 3, 3, 13, 13, 15, 15, 18, 18, 20])
    order: list[str] = []
    runs = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    times = interleaved(runs, 3, clock=lambda: next(ticks), warm=1)
    assert order == list("abababab")
    assert times == {"a": 3000.0, "b": 2000.0}


@pytest.mark.parametrize("name", [n for n in KERNELS if n != "photometric"])
def test_without_the_data_a_workload_is_skipped_with_the_reason(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("LUMEFIELD_DATA", str(tmp_path))
    monkeypatch.setattr(native, "status", lambda: native.Status("native", "", "", "", ""))
    monkeypatch.setattr(workloads, "cores", lambda: 2)
    assert WORKLOADS[name]() == []
    assert f"skipped, no {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize("name", KERNELS)
def test_without_native_kernels_a_workload_is_skipped_with_the_reason(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(native, "status", lambda: native.Status("xla", "no compiler", "", "", ""))
    monkeypatch.setattr(workloads, "cores", lambda: 2)
    assert WORKLOADS[name]() == []
    assert "skipped, no native kernels: no compiler" in capsys.readouterr().err


def test_with_one_core_two_threads_are_skipped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(workloads, "cores", lambda: 1)
    assert workloads.splat_threads() == []
    assert "skipped, this process has one core" in capsys.readouterr().err


def test_the_scene_says_which_file_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LUMEFIELD_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"test_garden\.npz; set LUMEFIELD_DATA"):
        garden.make(10)


def test_without_its_folder_the_prototype_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("LUMEFIELD_PROTOTYPE", str(tmp_path))
    nothing: Any = None
    assert prototype_leg.full_step(nothing, nothing) is None
    assert f"no prototype at {tmp_path}" in capsys.readouterr().err


def test_ratios_are_those_of_the_times(monkeypatch: pytest.MonkeyPatch):
    times = {"native": 10.0, "xla": 50.0, "prototype": 20.0}
    monkeypatch.setattr(workloads, "_measure", lambda name, **_: times)
    found = {m.key.rsplit(".", 1)[1]: m.value for m in workloads.splat_step()}
    assert found["step_speedup"] == 5
    assert found["step_of_prototype"] == 0.5
    del times["prototype"]
    assert len(workloads.splat_step()) == 3


def test_a_rate_is_gated_on_the_same_processor_only():
    assert not Metric("a", 1.0, "G/s", "higher", 0.1).portable


def test_a_busy_machine_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    times = {"wall": 10.0, "free_cores": 1.1}
    monkeypatch.setattr(workloads, "cores", lambda: 2)
    monkeypatch.setattr(workloads, "_measure", lambda name, **_: times)
    metrics = workloads.splat_threads()
    assert "1.10 of 2 cores were free" in capsys.readouterr().err
    rows = {m.key: {"value": m.value, "unit": m.unit} for m in metrics}
    machine = {"cpu": "some", "cores": 2, "python": "3", "date": "today", "versions": {"jax": "1"}}
    assert "Only 1.10 of 2 cores were free" in results.page({"machine": machine, "metrics": rows})


def test_free_cores_are_positive():
    assert free_cores() > 0.3


@pytest.mark.parametrize(("gain", "verdict"), [(1.9, "yes"), (1.7, "**no**")])
def test_the_results_page_says_which_targets_are_met(gain: float, verdict: str):
    rows = {
        "render.gauss100k.540p.two_threads_gain": {"value": gain, "unit": "x"},
        "render.gauss100k.540p.kept_bytes_per_visible": {"value": 43.2, "unit": "B"},
        "render.table.20k.270p.fwd_ms": {"value": 9.4, "unit": "ms"},
    }
    machine = {"cpu": "some", "cores": 2, "python": "3", "date": "today", "versions": {"jax": "1"}}
    text = results.page({"machine": machine, "metrics": rows})
    assert f"| {gain:.2f}x | ≥ 1.80x | {verdict} |" in text
    assert "| 43 B | ≤ 100 B | yes |" in text
    assert "| 20k | 9 / - | - / - | - / - |" in text
