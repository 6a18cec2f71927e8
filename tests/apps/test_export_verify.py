"""The second decoder of --verify: it agrees with the readers, and shares nothing with them."""

import ast
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from lumefield.apps import _export_reread, _export_verify
from lumefield.apps._cli import main
from lumefield.apps._export_place import Similarity
from lumefield.apps._export_reread import reread
from lumefield.apps._export_verify import verify
from lumefield.apps._scene_io import load_scene
from lumefield.codecs.formats import load_splats, save_splats
from lumefield.errors import FormatError
from tests.codecs.golden import golden

STILL = Similarity(np.eye(3), np.zeros(3), 1.0)
CASES = [
    *((".ply", 3), (".compressed.ply", 3), (".splat", 3), (".spz", 3), (".spz", 4), (".sog", 3)),
    (".splats.glb", 3),
]


@pytest.mark.parametrize(("suffix", "version"), CASES)
@pytest.mark.parametrize("degree", [0, 2, 3])
def test_two_decoders_read_the_same(tmp_path: Path, suffix, version, degree):
    scene = dataclasses.replace(golden(degree=degree, sphere=40), antialiased=True)
    path = tmp_path / f"a{suffix}"
    kind = ".glb" if suffix == ".splats.glb" else suffix
    save_splats(scene, path, suffix=kind, spz_version=version)
    one, other = load_splats(path), reread(path, suffix)
    assert other is not None
    for name in ("means", "log_scales", "logit_opacities", "sh"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), atol=1e-5)
    units = [s.quats_wxyz / np.linalg.norm(s.quats_wxyz, axis=1)[:, None] for s in (one, other)]
    assert np.abs((units[0] * units[1]).sum(1)).min() > 1 - 1e-5
    assert other.antialiased == one.antialiased


def test_the_second_decoder_imports_nothing_of_the_first():
    """But the record that both fill in."""
    tree = ast.parse(Path(_export_reread.__file__).read_text())
    found = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom | ast.Import)]
    ours = [ast.unparse(n) for n in found if "lumefield" in ast.unparse(n)]
    assert set(ours) == {"from lumefield.codecs.formats import Splats"}


def test_a_reader_and_a_writer_with_the_same_mistake_are_found_out(
    run: Path, tmp_path: Path, monkeypatch
):
    """As if both took y upside down: the file's own reader turns it back, --verify does not."""
    scene = load_scene(run)
    good = verify(
        _saved(scene.splats, tmp_path), ".ply", scene.splats, scene.views, STILL, (0, 0, 0)
    )
    assert good.reader == "a second decoder"
    assert good.worst == 99
    wrong = dataclasses.replace(
        scene.splats, means=scene.splats.means * np.array([1, -1, 1], np.float32)
    )
    monkeypatch.setattr("lumefield.codecs.formats.load_splats", lambda path: scene.splats)
    bad = verify(_saved(wrong, tmp_path), ".ply", scene.splats, scene.views, STILL, (0, 0, 0))
    assert bad.mean < 25


def test_what_cannot_be_read_back_is_said(run: Path, tmp_path: Path):
    scene = load_scene(run)
    path = _saved(scene.splats, tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FormatError, match="the second decoder cannot read it back"):
        verify(path, ".ply", scene.splats, scene.views, STILL, (0, 0, 0))


def test_the_line_names_what_decoded_the_file(run: Path, tmp_path: Path, capsys):
    assert main(["export", str(run), "--out", str(tmp_path / "a.spz"), "--verify"]) == 0
    assert "verified a.spz by a second decoder: " in capsys.readouterr().out
    assert _export_verify.reread_by(".usdz") == "OpenUSD"


def test_400_000_gaussians_of_noise_fit_a_quest_file(tmp_path: Path):
    """29 bytes each before gzip, which noise does not get smaller by: 11.6 MB at most."""
    rng, n = np.random.default_rng(0), 400_000
    noise = dataclasses.replace(
        golden(degree=1, sphere=5),
        means=rng.normal(size=(n, 3)).astype(np.float32),
        quats_wxyz=rng.normal(size=(n, 4)).astype(np.float32),
        log_scales=rng.normal(size=(n, 3)).astype(np.float32),
        logit_opacities=rng.normal(size=n).astype(np.float32),
        sh=rng.normal(size=(n, 4, 3)).astype(np.float32),
    )
    save_splats(noise, tmp_path / "a.spz")
    assert 9e6 < (tmp_path / "a.spz").stat().st_size < 12e6


def _saved(splats, folder: Path) -> Path:
    save_splats(splats, folder / "a.ply")
    return folder / "a.ply"
