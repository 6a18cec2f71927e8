"""``lumefield inspect``: what is in a splat file or a run."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from lumefield.apps._inspect import Inspect, describe, facts, inspect
from lumefield.codecs.formats import Splats, save_splats
from lumefield.errors import FormatError, InputError, RunError


def splats(n: int = 50, degree: int = 1) -> Splats:
    rng = np.random.default_rng(0)
    return Splats(
        means=rng.uniform(-2, 3, (n, 3)).astype(np.float32),
        quats_wxyz=rng.normal(size=(n, 4)).astype(np.float32),
        log_scales=np.full((n, 3), -3, np.float32),
        logit_opacities=np.where(np.arange(n) < n // 5, -30, 0).astype(np.float32),
        sh=np.zeros((n, (degree + 1) ** 2, 3), np.float32),
    )


def test_the_facts_of_a_file_are_those_of_its_splats(tmp_path: Path):
    scene = splats()
    save_splats(scene, tmp_path / "a.ply")
    found = facts(tmp_path / "a.ply")
    assert (found["gaussians"], found["visible"], found["degree"]) == (50, 40, 1)
    np.testing.assert_allclose(found["bounds"], [scene.means.min(0), scene.means.max(0)], rtol=1e-6)
    assert found["size_median"] == pytest.approx(np.exp(-3))
    assert "50, 40 of them visible" in describe(found)


def test_a_file_without_gaussians_is_described(tmp_path: Path):
    save_splats(splats(0), tmp_path / "a.ply")
    assert "0, 0 of them visible" in describe(facts(tmp_path / "a.ply"))


def test_json_output_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    save_splats(splats(), tmp_path / "a.ply")
    inspect(Inspect(tmp_path / "a.ply", json=True))
    assert json.loads(capsys.readouterr().out) == facts(tmp_path / "a.ply")


def test_a_run_shows_its_scores_and_its_scene(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    save_splats(splats(), tmp_path / "scene.ply")
    (tmp_path / "metrics.json").write_text('{"psnr": 28.5, "steps": 30, "views": []}')
    assert facts(tmp_path)["run"] == {"steps": 30, "psnr": 28.5}
    inspect(Inspect(tmp_path))
    assert "psnr         28.5" in capsys.readouterr().out


def test_a_path_that_does_not_exist_is_an_input_error(tmp_path: Path):
    with pytest.raises(InputError, match="no such file or folder; give a splat file or a run"):
        facts(tmp_path / "nothing.ply")


def test_another_kind_of_file_is_an_input_error(tmp_path: Path):
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(InputError, match=r"not a splat file; expected one of \.ply"):
        facts(tmp_path / "a.txt")


def test_a_damaged_file_is_a_format_error(tmp_path: Path):
    (tmp_path / "a.ply").write_bytes(b"ply\nformat binary")
    with pytest.raises(FormatError, match=r"a\.ply"):
        facts(tmp_path / "a.ply")


def test_a_folder_without_a_scene_is_a_run_error(tmp_path: Path):
    with pytest.raises(RunError, match=r"holds no scene\.ply; expected the folder of a finished"):
        facts(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "null"])
def test_damaged_metrics_are_a_run_error(text: str, tmp_path: Path):
    save_splats(splats(), tmp_path / "scene.ply")
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(RunError, match="not valid JSON"):
        facts(tmp_path)


@pytest.mark.parametrize("name", ["a.spz", "a.sog", "a.glb", "a.compressed.ply"])
def test_every_format_says_what_it_is(name: str, tmp_path: Path):
    seen = splats().taken(np.arange(10, 50))
    save_splats(seen, tmp_path / name)
    found = facts(tmp_path / name)
    assert (found["gaussians"], found["degree"], found["problems"]) == (40, 1, [])
    assert f"format       {found['source']}" in describe(found)
    assert "up back" in found["source"] or "PLY" in found["source"]


def test_what_is_wrong_with_a_file_is_a_warning(tmp_path: Path):
    bad = splats()
    bad.means[3] = np.nan
    bad.quats_wxyz[10] = 0
    bad.log_scales[:20, 0] = 6
    save_splats(dataclasses.replace(bad, up=(0.0, 0.0, 1.0)), tmp_path / "a.ply")
    text = describe(facts(tmp_path / "a.ply"))
    assert "warning      left out 1 of 50 Gaussians" in text
    assert "1 Gaussians have no rotation" in text
    assert "Gaussians are needles or sheets" in text
    assert "Gaussians are practically invisible" in text
    assert "up           0 0 1" in text
