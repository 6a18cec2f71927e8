"""The benchmark for GPUs: scenes, roofline and table; and the whole of it, tiny, on the CPU."""

import json
from pathlib import Path

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
