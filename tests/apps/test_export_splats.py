"""Export of Gaussians: pruned by contribution, put in their place, presets, and verified."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from lumefield.apps._cli import main
from lumefield.apps._export_place import (
    Place,
    check_place,
    cropped,
    shortest_turn,
    similarity,
)
from lumefield.apps._export_presets import PRESETS, expected, with_preset
from lumefield.apps._export_prune import contributions, strongest
from lumefield.apps._export_settings import Export, check, suffix_of
from lumefield.apps._scene_io import load_scene, make_draw
from lumefield.codecs.formats import load_splats, save_splats
from lumefield.errors import InputError


def refused(settings: Export, match: str) -> None:
    with pytest.raises(InputError, match=match):
        check(settings)


def test_contributions_are_the_blending_weights(run: Path):
    """They add up to the opacity of the pictures, and what is hidden adds nothing."""
    scene = load_scene(run)
    assert scene.views is not None
    hidden = dataclasses.replace(scene.splats, means=scene.splats.means.copy())
    hidden.means[7] = (0, 0, 900)  # behind or outside every camera
    weight = contributions(hidden, scene.views, lambda stage, share: None)
    assert weight[7] == 0
    white = dataclasses.replace(hidden, sh=np.full_like(hidden.sh, 0.5 / 0.28209479177387814))
    draw = make_draw(white)
    total = sum(
        float(draw(scene.views.pick([k])).rgb[..., 0].sum()) for k in range(len(scene.views))
    )
    assert weight.sum() == pytest.approx(total, rel=1e-4)


def test_what_is_not_seen_goes_before_anything_melts(run: Path, tmp_path: Path, capsys):
    """Opaque Gaussians that no camera sees go first; the pictures stay as they are."""
    scene = load_scene(run)
    splats = scene.splats
    means = splats.means.copy()
    means[:100:2] = (0, 0, 900)
    logits = splats.logit_opacities.copy()
    logits[:100:2] = 9
    unseen = dataclasses.replace(splats, means=means, logit_opacities=logits)
    # At least 100 are kept, so there have to be more.
    many = dataclasses.replace(
        unseen,
        **{
            name: np.concatenate([getattr(unseen, name)] * 5)
            for name in ("means", "quats_wxyz", "log_scales", "logit_opacities", "sh")
        },
    )
    save_splats(many, run / "scene.ply")
    out = tmp_path / "a.ply"
    assert main(["export", str(run), "--out", str(out), "--max-splats", "150", "--verify"]) == 0
    told = capsys.readouterr().out
    assert "melted 300 Gaussians into 150" in told
    assert "no pixel differs" in told
    assert np.abs(load_splats(out).means).max() < 100


def test_the_strongest_stay_in_order():
    kept, share = strongest(np.array([1.0, 5, 0, 3, 1]), 3)
    assert kept.tolist() == [0, 1, 3]
    assert share == pytest.approx(0.9)


@pytest.mark.parametrize("name", ["a.spz", "a.splats.glb", "a.sog", "a.ply"])
def test_a_moved_file_shows_the_same_pictures(run: Path, tmp_path: Path, name, capsys):
    """Turned upright, in other units and at the height of eyes: --verify moves the cameras too."""
    scene = load_scene(run).splats
    rng = np.random.default_rng(0)
    coloured = rng.normal(size=(len(scene.means), 9, 3), scale=0.2).astype(np.float32)
    save_splats(dataclasses.replace(scene, sh=coloured), run / "scene.ply")
    words = ["--up", "auto", "--scale-to-metres", "2.5", "--eye-height", "1.6", "--verify"]
    assert main(["export", str(run), "--out", str(tmp_path / name), *words]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    if "no pixel differs" not in line:
        assert float(line.split(": ")[1].split(" dB")[0]) > 32, line


@pytest.mark.parametrize(
    ("up", "suffix", "axis"),
    [
        ("auto", ".ply", (0, -1, 0)),
        ("auto", ".spz", (0, -1, 0)),
        ("y", ".ply", (0, 1, 0)),
        ("y", ".spz", (0, -1, 0)),
        ("z", ".ply", (0, 0, 1)),
        ("y-down", ".sog", (0, -1, 0)),
    ],
)
def test_up_is_an_axis_of_the_file(run: Path, up, suffix, axis):
    """In the PLY's frame, which .spz stores turned about x."""
    scene = load_scene(run)
    moved = similarity(Place(up=up), scene.splats, scene.views, suffix)
    np.testing.assert_allclose(moved.rotation @ (0, 0, 1), axis, atol=1e-3)  # z is up in the run
    said = dataclasses.replace(scene.splats, up=(1.0, 0.0, 0.0))
    moved = similarity(Place(up=up), said, None, suffix)
    np.testing.assert_allclose(moved.rotation @ (1, 0, 0), axis, atol=1e-9)


def test_eyes_are_at_their_height_above_the_origin(run: Path):
    scene = load_scene(run)
    moved = similarity(
        Place(eye_height=1.6, scale_to_metres=3.0), scene.splats, scene.views, ".ply"
    )
    assert scene.views is not None
    eye = np.median(moved.views(scene.views).world_from_cam[:, :, 3], axis=0)
    np.testing.assert_allclose(eye, (0, -1.6, 0), atol=0.02)


@pytest.mark.parametrize("b", [(0, 1, 0), (1, 0, 0), (-1, 0, 0), (0.6, 0, 0.8)])
def test_the_shortest_turn_is_a_rotation_to_its_target(b):
    a = np.array([1.0, 0, 0])
    turn = shortest_turn(a, np.array(b, np.float64))
    np.testing.assert_allclose(turn @ a, b, atol=1e-12)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(turn) == pytest.approx(1)


def test_a_crop_keeps_what_is_in_the_box(run: Path):
    splats = load_scene(run).splats
    box = (-0.3, -9.0, -9.0, 0.4, 9.0, 9.0)
    kept = cropped(splats, Place(crop=box))
    x = splats.means[:, 0]
    assert len(kept.means) == ((x >= -0.3) & (x <= 0.4)).sum() < len(splats.means)
    with pytest.raises(InputError, match=r"--crop .* holds no Gaussian; most of the scene lies"):
        cropped(splats, Place(crop=(50, 50, 50, 51, 51, 51)))


def test_places_that_cannot_be_are_refused(run: Path):
    for place, match in (
        (Place(scale_to_metres=0.0), "--scale-to-metres 0, expected"),
        (Place(eye_height=-1.0), "--eye-height -1, expected"),
        (Place(crop=(0, 0, 0, 0, 1, 1)), "expected the least x y z, then the greatest"),
        (Place(eye_height=1.0, up="as-is"), "--eye-height: needs an up"),
    ):
        with pytest.raises(InputError, match=match):
            check_place(place)
    splats = load_scene(run).splats
    with pytest.raises(InputError, match="--up: neither the file nor a camera says"):
        similarity(Place(up="auto"), splats, None, ".ply")
    with pytest.raises(InputError, match="--eye-height: a bare splat file has no cameras"):
        similarity(
            Place(eye_height=1.0), dataclasses.replace(splats, up=(0.0, 0.0, 1.0)), None, ".ply"
        )


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_names_a_format_and_writes_it(name, run: Path, tmp_path: Path, capsys):
    out = tmp_path / "scene"
    assert main(["export", str(run), "--out", str(out), "--preset", name]) == 0
    assert len(load_splats(out.with_name("scene" + PRESETS[name].suffix)).means) == 60
    assert PRESETS[name].text in capsys.readouterr().out


def test_the_command_line_comes_before_the_preset(run: Path, tmp_path: Path):
    given = Export(run, tmp_path / "a.ply", preset="quest", max_splats=9_000, sh_degree=0)
    found = with_preset(given)
    assert (found.max_splats, found.sh_degree, found.out.suffix) == (9_000, 0, ".ply")
    assert found.place.up == "auto"


def test_format_names_what_the_suffix_does_not(run: Path, tmp_path: Path):
    assert suffix_of(Export(run, tmp_path / "a.ply", format="compressed.ply")) == ".compressed.ply"
    assert suffix_of(Export(run, tmp_path / "a.glb", format="splats.glb")) == ".splats.glb"
    assert with_preset(Export(run, tmp_path / "a", format="sog")).out.name == "a.sog"
    refused(Export(run, tmp_path / "a.ply", format="spz"), "--format spz: --out .* has another")
    refused(Export(run, tmp_path / "a", format="doc"), "--format doc: expected one of .ply")
    assert (
        main(["export", str(run), "--out", str(tmp_path / "b.glb"), "--format", "splats.glb"]) == 0
    )
    assert len(load_splats(tmp_path / "b.glb").means) == 60


def test_flags_that_do_nothing_are_refused(run: Path, tmp_path: Path):
    refused(Export(run, tmp_path / "a.ply", spz_version=4), "--spz-version: does nothing")
    refused(Export(run, tmp_path / "a.html", verify=True), "--verify: a page cannot be read back")
    refused(Export(run, tmp_path / "a.glb", verify=True), "--verify: does nothing for a.glb")
    words = ["export", str(run), "--out", str(tmp_path / "a.html"), "--scale-to-metres", "2"]
    assert main(words) == 2


def test_the_size_is_known_before_writing(run: Path, tmp_path: Path):
    scene = load_scene(run).splats
    for suffix in (".ply", ".splats.glb"):
        save_splats(scene, tmp_path / f"a{suffix}")
        size = (tmp_path / f"a{suffix}").stat().st_size / 1e6
        assert expected(suffix, 60, 0).megabytes == pytest.approx(size, abs=0.002)


def test_spz_4_is_written_when_asked_for(run: Path, tmp_path: Path):
    out = tmp_path / "a.spz"
    assert main(["export", str(run), "--out", str(out), "--spz-version", "4"]) == 0
    assert "version 4" in load_splats(out).source
