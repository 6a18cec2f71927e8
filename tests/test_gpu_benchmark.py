"""The benchmark for GPUs: scenes, roofline and table; and the whole of it, tiny, on the CPU."""

import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import legs, peaks, scene


def test_scenes_are_the_same_again_and_partly_in_view():
    made, again = scene.make(500, 48, 64), scene.make(500, 48, 64)
    for a, b in zip(made.inputs, again.inputs, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a, b)
    seen = np.c_[made.means, np.ones(500)] @ made.cam_from_world.T
    ahead = seen[:, 2] > 0.1
    xy = seen[:, :2] / seen[:, 2:3] * made.focal + made.centre
    inside = ahead & np.all((xy > 0) & (xy < [64, 48]), -1)
    assert 0.25 < inside.mean() < 0.75
    np.testing.assert_allclose(made.world_from_cam[:, :3] @ made.world_from_cam[:, :3].T,
                               np.eye(3), atol=1e-6)  # fmt: skip


def test_the_roofline_is_the_slower_of_memory_and_arithmetic():
    numbers = {"copy_gb_s": 10.0, "evaluations_g_s": 2.0, "forward_bytes": 1e9, "step_bytes": 2e9}
    assert peaks.floor_ms(numbers | {"evaluations": 1e6}, "forward") == pytest.approx(100)
    assert peaks.floor_ms(numbers | {"evaluations": 1e9}, "forward") == pytest.approx(500)
    assert peaks.floor_ms(numbers | {"evaluations": 1e9}, "step") == pytest.approx(1500)


def test_evaluations_are_those_of_a_loop_over_the_gaussians():
    found = peaks.work(scene.make(200, 24, 32), tiny=True)
    assert 0 < found["evaluations"] / (24 * 32) <= found["meetings_per_pixel"] < 200
    assert 0 < found["visible"] <= 200
    assert found["forward_bytes"] < found["step_bytes"]


def test_contenders_that_are_not_installed_say_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert legs.absent("gsplat") == "not installed; pip install 'lumefield[gsplat]'"
    assert legs.absent("splax") == "not installed; pip install 'splax'"
    assert legs.absent("xla") == ""


def test_the_table_has_a_line_for_each_contender():
    scene_of = {"gaussians": 10, "size": "4x3"}
    times = {"forward_ms": 2.0, "forward_floor_ms": 0.5, "step_ms": 3.0, "step_floor_ms": 1.0}
    parity = {"peak_mb": 7.0, "picture_max": 1e-6, "gradient_relative": 1e-5}
    row = {"leg": "warp", **scene_of, **times, **parity}
    report = {
        "device": {"name": "A card", "driver": "1.2"},
        "date": "2026-01-01",
        "rows": [row, {"leg": "splax", **scene_of, "note": "not installed"}],
        "training": [{"scene": "fox", "steps": 7000, "wall_s": 50.0}],
    }
    lines = gpu.table(report).splitlines()
    assert lines[0] == "A card (1.2), 2026-01-01"
    assert lines[2].split() == [
        "warp",
        "10",
        "4x3",
        "2.00",
        "4.0",
        "3.00",
        "3.0",
        "7",
        "1e-06",
        "1e-05",
    ]
    assert lines[3].endswith("not installed")
    assert lines[4].split(", ")[-1] == "wall_s 50.0"


def test_a_contender_that_fails_is_a_row_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    module = tmp_path / "benchmarks" / "gpu"
    module.mkdir(parents=True)
    for folder in (module, module.parent):  # else an installed `benchmarks` would be taken first
        (folder / "__init__.py").touch()
    monkeypatch.setattr(gpu, "ROOT", tmp_path)

    def said(code: str) -> dict[str, object]:
        (module / "odd.py").write_text(code)
        return gpu.child("odd", environment={**os.environ, "PYTHONPATH": str(tmp_path)})

    assert said(f"print('{legs.OPENING}{{\"a\": 1}}'); print('goodbye'); exit(3)") == {"a": 1}
    assert said("print('nothing of use')") == {"note": "failed: exit code 0: nothing of use"}
    assert said("import os; os.abort()")["note"] == "failed: exit code -6: no output"
    assert said("raise SystemExit('no nvcc')") == {"note": "failed: exit code 1: no nvcc"}
    monkeypatch.setattr(gpu, "PATIENCE_S", 0.2)
    assert said("import time; time.sleep(60)") == {"note": "failed: not done after 0.2 s"}


def test_a_contender_of_another_shape_does_not_agree(tmp_path: Path):
    gradients: dict[str, Any] = {f"g{i}": np.ones((5, 3)) for i in range(4)}
    np.savez(tmp_path / "a.npz", picture=np.zeros((4, 5, 3)), **gradients)
    np.savez(tmp_path / "b.npz", picture=np.zeros((1, 4, 5, 3)), **gradients)
    told = gpu.parity(tmp_path / "a.npz", tmp_path / "b.npz")
    assert told == {"agrees": False, "note": "failed: pictures or gradients of another shape"}
    assert gpu.parity(tmp_path / "a.npz", tmp_path / "a.npz")["agrees"]
    assert gpu.parity(tmp_path / "none.npz", tmp_path / "a.npz") == {}


def test_what_stops_a_leg_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    words = ["legs", "splax", "10", "8", "8", "1", str(tmp_path / "out.npz")]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(legs, "absent", lambda name: "")
    old = types.ModuleType("splax")
    for library, said in (
        (None, "failed: ModuleNotFoundError"),
        (old, "a version without spherical harmonics; pip install -U splax"),
    ):
        monkeypatch.setitem(sys.modules, "splax", library)
        legs.main()
        line = capsys.readouterr().out.strip()
        assert json.loads(line.removeprefix(legs.OPENING))["note"].startswith(said)


@pytest.mark.slow
def test_the_benchmark_runs_from_end_to_end_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("LUMEFIELD_DATA", str(tmp_path))  # no fox: its row says so
    monkeypatch.setattr("benchmarks.gpu.train.DATA", tmp_path)
    out = tmp_path / "gpu.json"
    assert gpu.main(["--size", "tiny", "--device", "cpu", "--train", "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    rows = {row["leg"]: row for row in report["rows"]}
    assert list(rows) == ["xla", "warp", "native", "gsplat", "splax"]
    for leg in ("xla", "warp", "native"):
        assert rows[leg].get("note", "").startswith(("no ", "warp-lang")) or rows[leg]["agrees"]
    assert report["versions"]["jax"]
    assert "first_chunk_s" in report["training"][0]
    assert report["training"][1]["note"].startswith("no ")
    assert "fwd+bwd" in capsys.readouterr().out
