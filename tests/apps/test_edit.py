"""``lumefield edit``: every recipe makes a new scene of the old one, which stays as it is."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lumefield.apps._cli import main, parse
from lumefield.apps._edit import edit
from lumefield.apps._edit_components import pieces
from lumefield.apps._edit_crop import ground_plane
from lumefield.apps._edit_decimate import melted
from lumefield.apps._edit_recipes import RECIPES
from lumefield.apps._edit_transform import turn_of
from lumefield.apps._evaluate import Evaluate, evaluate
from lumefield.apps._scene_io import load_scene, make_draw
from lumefield.codecs.formats import load_splats, save_splats
from lumefield.errors import InputError
from tests.codecs.golden import covariances

FLAGS = {
    "clean": (),
    "crop": ("--sphere", "0", "0", "0", "0.5"),
    "transform": ("--rotate", "20", "-35", "50", "--scale", "2.5", "--translate", "1", "2", "-3"),
    "merge": ("--with", "OTHER"),
    "decimate": ("--to", "40", "--by", "drop"),
    "recolour": ("--exposure", "0.5", "--temperature", "0.4", "--saturation", "0.6"),
    "components": ("--reach", "0.4"),
}


def words_of(recipe: str, scene: Path, out: Path) -> list[str]:
    flags = [str(scene / "scene.ply") if word == "OTHER" else word for word in FLAGS[recipe]]
    return [str(scene), recipe, *flags, "--out", str(out)]


def done(recipe: str, scene: Path, out: Path) -> Path:
    return edit(parse("edit", words_of(recipe, scene, out)))


def digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


def pictures(scene: Path, count: int = 4) -> np.ndarray:
    loaded = load_scene(scene)
    assert loaded.views is not None
    draw = make_draw(loaded.splats, background=loaded.background)
    return np.stack([draw(loaded.views.pick([k])).rgb for k in range(count)])


@pytest.fixture
def coloured(run: Path) -> Path:
    """A run whose colours change with the view."""
    scene = load_scene(run).splats
    sh = np.random.default_rng(3).normal(size=(len(scene.means), 9, 3), scale=0.15)
    save_splats(dataclasses.replace(scene, sh=sh.astype(np.float32)), run / "scene.ply")
    return run


def test_every_recipe_has_flags_here():
    assert {settings.__name__.lower() for settings in RECIPES} == set(FLAGS)


@pytest.mark.parametrize("recipe", FLAGS)
def test_a_recipe_makes_a_run_and_leaves_the_old_one(recipe, coloured: Path, tmp_path: Path):
    before, out = digest(coloured), tmp_path / "new"
    assert done(recipe, coloured, out) == out
    assert digest(coloured) == before
    new = load_scene(out)
    assert new.views is not None
    assert len(new.views) == 10
    (record,) = json.loads((out / "config.json").read_text())["edits"]
    assert record["recipe"] == recipe
    assert record["source"] == str(coloured)
    assert record["sha256"] == hashlib.sha256((coloured / "scene.ply").read_bytes()).hexdigest()
    assert record["gaussians"] == [60, len(new.splats.means)]
    page = (out / "report.html").read_text()
    assert "<script src" not in page
    assert "http" not in page
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["num_gaussians"] == len(new.splats.means)
    assert evaluate(Evaluate(out))["psnr"] == metrics["psnr"]
    assert not [p for p in tmp_path.iterdir() if p.name.endswith((".part", ".old"))]


def test_edits_add_up_on_the_record(run: Path, tmp_path: Path):
    done("crop", run, tmp_path / "a")
    done("transform", tmp_path / "a", tmp_path / "b")
    edits = json.loads((tmp_path / "b" / "config.json").read_text())["edits"]
    assert [e["recipe"] for e in edits] == ["crop", "transform"]
    assert edits[1]["source"] == str(tmp_path / "a")


def test_a_file_or_only_a_page_is_written_where_asked_for(run: Path, tmp_path: Path, capsys):
    assert main(["edit", *words_of("crop", run, tmp_path / "a.ply")]) == 0
    found = load_splats(tmp_path / "a.ply")
    assert "edited by lumefield: crop" in found.comments[-1]
    assert main(["edit", *words_of("decimate", tmp_path / "a.ply", tmp_path / "b.spz")]) == 2
    assert "--to 40: expected 1 to" in capsys.readouterr().err
    assert main(["edit", *words_of("clean", run, tmp_path / "look.html")]) == 0
    assert "nothing but the preview" in capsys.readouterr().out
    assert not (tmp_path / "look").exists()


# What the recipes do ----------------------------------------------------------------------------


def test_a_moved_scene_shows_its_moved_cameras_the_same(coloured: Path, tmp_path: Path):
    done("transform", coloured, tmp_path / "new")
    np.testing.assert_allclose(pictures(tmp_path / "new"), pictures(coloured), atol=2e-4)


def test_turns_go_about_x_then_y_then_z():
    np.testing.assert_allclose(turn_of((90, 0, 0)) @ (0, 1, 0), (0, 0, 1), atol=1e-12)
    np.testing.assert_allclose(turn_of((0, 90, 0)) @ (0, 0, 1), (1, 0, 0), atol=1e-12)
    np.testing.assert_allclose(turn_of((0, 0, 90)) @ (1, 0, 0), (0, 1, 0), atol=1e-12)
    both = turn_of((90, 0, 90))
    np.testing.assert_allclose(both, turn_of((0, 0, 90)) @ turn_of((90, 0, 0)), atol=1e-12)


def test_a_crop_keeps_what_is_inside_and_outside_adds_up(run: Path, tmp_path: Path):
    total = load_scene(run).splats
    kept = load_splats(done("crop", run, tmp_path / "in.ply"))
    away = [*words_of("crop", run, tmp_path / "out.ply"), "--outside"]
    rest = load_splats(edit(parse("edit", away)))
    near = np.linalg.norm(total.means, axis=1) <= 0.5
    np.testing.assert_array_equal(kept.means, total.means[near])
    np.testing.assert_array_equal(rest.means, total.means[~near])


def test_the_ground_is_found_under_a_scene():
    rng = np.random.default_rng(1)
    up = np.array([0.0, -1, 0])
    normal = turn_of((4, 0, 6)) @ up
    floor = rng.uniform(-3, 3, (4000, 3))
    floor -= np.outer(floor @ normal - 0.7, normal)
    things = rng.normal(size=(3000, 3), scale=0.5) + 1.4 * normal
    things = things[things @ normal > 0.75]
    points = np.concatenate([floor + rng.normal(size=floor.shape, scale=0.005), things])
    found, height = ground_plane(points, np.ones(len(points)), up)
    assert found @ normal > 0.9999
    assert height == pytest.approx(0.7, abs=0.01)
    with pytest.raises(InputError, match="--ground: no level plane"):
        ground_plane(np.zeros((50, 3)), np.ones(50), up)


def test_merging_adds_the_gaussians_of_all(coloured: Path, tmp_path: Path):
    """Harmonics of a lower degree are 0 above it."""
    flat = load_scene(coloured).splats
    save_splats(dataclasses.replace(flat, sh=flat.sh[:, :4]), tmp_path / "other.ply")
    words = [str(coloured), "merge", "--with", str(tmp_path / "other.ply"), str(coloured)]
    edit(parse("edit", [*words, "--out", str(tmp_path / "new.ply")]))
    found = load_splats(tmp_path / "new.ply")
    assert found.sh.shape == (180, 9, 3)
    np.testing.assert_array_equal(found.means, np.tile(flat.means, (3, 1)))
    assert not found.sh[60:120, 4:].any()
    np.testing.assert_array_equal(found.sh[120:], flat.sh)


def test_recoloured_gaussians_show_recoloured_pictures(coloured: Path, tmp_path: Path):
    """Gains and saturation are linear, so pictures follow exactly; held-out photos go along."""
    words = [str(coloured), "recolour", "--exposure", "1.1", "--out", str(tmp_path / "new")]
    edit(parse("edit", words))
    before, after = pictures(coloured), pictures(tmp_path / "new")
    np.testing.assert_allclose(after, before * 2 ** (1.1 / 2.2), rtol=1e-4, atol=1e-5)
    truth, new = (
        np.asarray(_image(folder / "renders" / "img_0.truth.png"), np.float64)
        for folder in (coloured, tmp_path / "new")
    )
    np.testing.assert_allclose(new, np.minimum(truth * 2 ** (1.1 / 2.2), 255), atol=0.51)


def test_grey_is_grey_and_gamma_lifts_the_dark(coloured: Path, tmp_path: Path):
    flat = [str(coloured), "recolour", "--saturation", "0", "--out", str(tmp_path / "grey")]
    edit(parse("edit", flat))
    shown = pictures(tmp_path / "grey")
    assert np.abs(shown - shown.mean(-1, keepdims=True)).max() < 1e-4
    lifted = [str(coloured), "recolour", "--gamma", "2", "--out", str(tmp_path / "lifted.ply")]
    edit(parse("edit", lifted))
    own, new = (
        0.5 + 0.28209479177387814 * load_splats(p).sh[:, 0].astype(np.float64)
        for p in (coloured / "scene.ply", tmp_path / "lifted.ply")
    )
    dark = (own > 0.01) & (own < 0.99)
    np.testing.assert_allclose(new[dark], np.sqrt(own[dark]), atol=1e-5)


def test_pieces_are_what_hangs_together():
    line = np.stack([np.arange(8.0), np.zeros(8), np.zeros(8)], 1)
    points = np.concatenate([line, line + np.array([100, 0, 0])])
    size = np.full(16, 0.4)
    label = pieces(points, size, np.ones(16, bool), 1.5)
    assert len(set(label[:8])) == len(set(label[8:])) == 1
    assert label[0] != label[8]
    assert len(set(pieces(points, size, np.ones(16, bool), 1.0))) == 16
    assert len(set(pieces(points, size, np.arange(16) < 0, 1.5))) == 16, "faint ones link nothing"


def test_components_lists_and_keeps_the_largest(run: Path, tmp_path: Path, capsys):
    scene = load_scene(run).splats
    far = dataclasses.replace(scene.taken(np.arange(20)), means=scene.means[:20] + 50)
    save_splats(
        dataclasses.replace(
            scene,
            **{
                name: np.concatenate([getattr(scene, name), getattr(far, name)])
                for name in ("means", "quats_wxyz", "log_scales", "logit_opacities", "sh")
            },
        ),
        run / "scene.ply",
    )
    words = ["edit", str(run), "components", "--reach", "8", "--out", str(tmp_path / "new.ply")]
    assert main(words) == 0
    assert "2 pieces" in capsys.readouterr().out
    assert len(load_splats(tmp_path / "new.ply").means) == 60


def test_melting_keeps_mass_mean_and_covariance_of_a_pair(run: Path):
    """Two equal Gaussians side by side: the middle, and the spread between them added."""
    pair = load_scene(run).splats.taken(np.array([0, 0, 5]))
    means = np.array([[0.0, 0, 0], [0.1, 0, 0], [9, 9, 9]], np.float32)
    pair = dataclasses.replace(pair, means=means)
    made = melted(pair, np.array([1.0, 1.0, 50.0]), 2, lambda stage, share: None)
    assert len(made.means) == 2
    np.testing.assert_allclose(made.means[0], (0.05, 0, 0), atol=1e-6)
    spread = np.zeros((3, 3))
    spread[0, 0] = 0.05**2
    np.testing.assert_allclose(covariances(made)[0], covariances(pair)[0] + spread, atol=1e-6)
    np.testing.assert_array_equal(made.means[1], means[2])


def test_decimating_by_melting_ends_at_the_number(run: Path, tmp_path: Path):
    words = [str(run), "decimate", "--to", "7", "--by", "merge", "--out", str(tmp_path / "a.ply")]
    edit(parse("edit", words))
    assert len(load_splats(tmp_path / "a.ply").means) == 7


# What is refused --------------------------------------------------------------------------------


def refused(words: list[str], match: str) -> None:
    with pytest.raises(InputError, match=match):
        edit(parse("edit", words))


def test_an_edit_never_writes_over_a_scene(run: Path, tmp_path: Path):
    def to(out: Path, *more: str) -> list[str]:
        return [str(run), "crop", "--sphere", "0", "0", "0", "1", "--out", str(out), *more]

    refused(to(run, "--overwrite"), "is the scene itself, which stays")
    refused(to(run / "scene.ply", "--overwrite"), "is the scene itself, which stays")
    other = Path(shutil.copytree(run, tmp_path / "other"))
    refused(to(other, "--overwrite"), "holds something that no edit wrote")
    merge = [str(run), "merge", "--with", str(other), "--out", str(other / "scene.ply")]
    refused(merge, "is the scene itself, which stays")
    edit(parse("edit", to(tmp_path / "new")))
    refused(to(tmp_path / "new"), "exists already; choose another name or give --overwrite")
    edit(parse("edit", to(tmp_path / "new", "--overwrite")))
    (tmp_path / "a.ply").write_bytes(b"x")
    refused(to(tmp_path / "a.ply"), "exists already")
    (tmp_path / "b.ply").mkdir()
    refused(to(tmp_path / "b.ply"), "is a folder, expected a file")
    (tmp_path / "c").write_bytes(b"x")
    refused(to(tmp_path / "c"), "is a file, expected a new folder")
    refused(to(Path("/proc/nothing/here")), "cannot be written")
    assert len(load_splats(run / "scene.ply").means) == 60


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("crop", "crop: nothing to keep was named"),
        ("crop --box 0 0 0 0 1 1", "--box 0 0 0 0 1 1: expected the least"),
        ("crop --sphere 0 0 0 0", "--sphere 0 0 0 0: expected x y z and a radius"),
        ("crop --sphere 9 9 9 1", "crop: no Gaussian is there; most of the scene lies"),
        ("transform", "transform: changes nothing"),
        ("transform --scale 0", "--scale 0: expected 1e-06"),
        ("recolour", "recolour: changes nothing"),
        ("recolour --gamma 0", "--gamma 0, expected 0.2 to 5"),
        ("components --keep 0", "--keep 0 --reach 3: expected at least 1"),
        ("decimate --to 0", "--to 0: expected 1 to 59"),
        ("clean --strength 2", "--strength 2, expected 0 to 1"),
        ("merge --with nowhere.ply", "nowhere.ply: no such file or folder"),
    ],
)
def test_what_cannot_be_is_refused(run: Path, tmp_path: Path, words: str, match: str):
    refused([str(run), *words.split(), "--out", str(tmp_path / "new")], match)
    assert not (tmp_path / "new").exists()


def test_scenes_of_different_filters_are_not_merged(run: Path, tmp_path: Path):
    other = dataclasses.replace(load_scene(run).splats, antialiased=True)
    save_splats(other, tmp_path / "soft.ply")
    words = [str(run), "merge", "--with", str(tmp_path / "soft.ply"), "--out", str(tmp_path / "a")]
    refused(words, "is antialiased and .* is not so; opacities mean different things")


def test_the_ground_of_a_bare_file_needs_an_up(run: Path, tmp_path: Path):
    words = [str(run / "scene.ply"), "crop", "--ground", "0", "--out", str(tmp_path / "a.ply")]
    refused(words, "--ground: neither a camera nor .* says which way is up")


def _image(path: Path):
    from PIL import Image

    return Image.open(path)
