"""``compress`` and ``decompress`` of scenes: wanted quality or size, and clear refusals."""

from pathlib import Path

import numpy as np
import pytest

from lumefield.apps._cli import main
from lumefield.apps._compress import Compress, compress
from lumefield.apps._compress_scene import holds_scene, is_scene
from lumefield.apps._compress_views import sensitivities
from lumefield.apps._decompress import Decompress, decompress
from lumefield.apps._inspect import describe, facts
from lumefield.apps._scene_io import load_scene, make_draw
from lumefield.apps._view import scene_table
from lumefield.codecs.formats import load_splats
from lumefield.codecs.scene import canonical, decode_scene


def test_a_run_comes_back_as_a_ply_that_looks_the_same(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "a.lume"
    compress(Compress(run, out, psnr=40.0))
    said = capsys.readouterr().out
    assert "dB against the scene's own pictures" in said
    assert "held-out views" in said
    decompress(Decompress(out, tmp_path / "b.ply"))
    assert holds_scene(out)
    assert not holds_scene(run / "scene.ply")
    assert not holds_scene(tmp_path / "none.lume")
    assert "Gaussians" in scene_table((out,))[1]
    told = facts(out)
    assert told["bytes"] == out.stat().st_size
    assert f"gaussians    {len(decode_scene(out.read_bytes())[0].means)}," in describe(told)
    back, scene = load_splats(tmp_path / "b.ply"), load_scene(run)
    np.testing.assert_array_equal(back.means, decode_scene(out.read_bytes())[0].means)
    assert out.stat().st_size < (run / "scene.ply").stat().st_size / 2
    view = scene.views.pick([1])  # pyright: ignore[reportOptionalMemberAccess]
    one, two = (make_draw(s)(view).rgb for s in (scene.splats, back))
    assert -10 * np.log10(np.mean((np.clip(one, 0, 1) - np.clip(two, 0, 1)) ** 2)) > 34


def test_a_bare_file_is_coded_in_the_bytes_that_were_asked_for(run: Path, tmp_path: Path):
    out = tmp_path / "a.lume"
    compress(Compress(run / "scene.ply", out, bytes=1500))
    assert 0.9 <= out.stat().st_size / 1500 <= 1.02
    decompress(Decompress(out, tmp_path / "b.spz"))
    assert len(load_splats(tmp_path / "b.spz").means) <= 60


def test_costs_are_the_squared_derivatives_of_pictures(run: Path):
    scene = load_scene(run)
    form = canonical(scene.splats)
    views = scene.views
    assert views is not None
    many = views.pick([1] * 60)  # the same view with other signs
    costs = sensitivities(form, many, antialiased=False, tell=lambda *_: None)
    row = int(np.argmax(costs.logits))
    step, drawn = 1e-2, list[np.ndarray]()
    for sign in (-1, 1):
        logits = scene.splats.logit_opacities.copy()
        logits[row] += np.float32(sign * step)
        shown = type(scene.splats)(
            scene.splats.means,
            scene.splats.quats_wxyz,
            scene.splats.log_scales,
            logits,
            scene.splats.sh,
        )
        drawn.append(make_draw(shown)(views.pick([1])).rgb.astype(np.float64))
    wanted = float(np.mean(((drawn[1] - drawn[0]) / (2 * step)) ** 2))
    assert float(costs.logits[row]) == pytest.approx(wanted, rel=0.6)  # 60 draws of signs


def test_what_does_not_fit_is_refused_with_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "x.lume"
    (tmp_path / "text.ply").write_text("no scene")
    cases = [
        ([run, "--lambda", "0.1"], "--lambda is for pictures"),
        ([run, "--roi", "mask.png"], "--roi is for pictures"),
        ([run, "--psnr-loss", "50"], "expected 0.01 to 10"),
        ([run, "--psnr-loss", "1", "--bytes", "900"], "exclude each other"),
        ([run, "--bytes", "900000"], "this scene takes from"),
        ([tmp_path / "none.ply"], "no such file"),
        ([tmp_path / "text.ply"], "text.ply"),
        ([tmp_path], "holds no scene.ply"),
    ]
    for words, text in cases:
        assert main(["compress", *map(str, words), "--out", str(out)]) == 2
        said = capsys.readouterr().err
        assert text in said
        assert said.count("\n") == 1
        assert not out.exists()
    out.write_bytes(b"LUME\1\3 damaged")
    assert main(["decompress", str(out), "--out", str(tmp_path / "y.ply")]) == 2
    assert "x.lume: " in capsys.readouterr().err


def test_scenes_are_told_by_their_names(tmp_path: Path):
    assert is_scene(tmp_path)
    assert is_scene(Path("a.ply"))
    assert not is_scene(Path("a.png"))
