"""The guard of ``edit clean``: what training photos say for and against each Gaussian."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lumefield.apps._edit_clean import Clean, clean
from lumefield.apps._edit_photos import Guard, guard_of
from lumefield.apps._edit_scene import Subject, joined
from lumefield.apps._mesh_photos import Pictures, photos_of
from lumefield.apps._scene_io import make_draw, to_bytes
from lumefield.apps._views import Views, load_views
from lumefield.codecs.formats import PosedImages, Splats, save_colmap
from lumefield.errors import InputError
from tests.apps.test_edit_clean import cameras, gaussians, silent

BALL, USEFUL, PLANTED = 1200, 12, 60


@pytest.fixture(scope="module")
def true() -> Splats:
    """A ball, and a few Gaussians before it that look like floaters and are not."""
    rng = np.random.default_rng(0)
    out = rng.normal(size=(BALL, 3))
    out /= np.linalg.norm(out, axis=1)[:, None]
    ball = gaussians(out, 0.1, 0.95, 0.5 + 0.3 * out)
    return joined([ball, gaussians(away(USEFUL, 3), 0.05, 0.5, np.full((USEFUL, 3), 0.9))])


@pytest.fixture(scope="module")
def planted(true: Splats) -> Splats:
    rng = np.random.default_rng(1)
    return joined([true, gaussians(away(PLANTED, 4), 0.05, 0.5, rng.uniform(0, 1, (PLANTED, 3)))])


def away(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    at = rng.normal(size=(n, 3)) * (1, 1, 0.4)
    return at * (rng.uniform(1.3, 2.4, n) / np.linalg.norm(at, axis=1))[:, None]


def pictures(splats: Splats) -> Pictures:
    views = cameras()
    draw = make_draw(splats)
    rgb = np.array([to_bytes(draw(views.pick([k])).rgb) for k in range(len(views))])
    return Pictures(views, rgb, np.ones(rgb.shape[:3], bool), "photos")


@pytest.fixture(scope="module")
def guard(true: Splats) -> Guard:
    return Guard(pictures(true), (0, 0, 0))


def parted(splats: Splats, k: int, share: float) -> Splats:
    opacity = share / (1 + np.exp(-float(splats.logit_opacities[k])))
    logits = splats.logit_opacities.copy()
    logits[k] = np.log(opacity / (1 - opacity))
    return dataclasses.replace(splats, logit_opacities=logits)


def test_the_error_is_a_parabola_of_one_opacity(planted: Splats, guard: Guard):
    """Slope and curvature of the passes against errors of pictures with half of it, and a tenth."""
    found = guard.passes(planted, silent, "")
    at = [*range(BALL, BALL + 6), *range(BALL + USEFUL, BALL + USEFUL + 6)]
    curves = []
    for k in at:
        errors = [
            guard.passes(parted(planted, k, s), silent, "").error - found.error for s in (0.5, 0.1)
        ]
        slope, curve = np.linalg.solve([[-0.5, 0.25], [-0.9, 0.81]], errors)
        assert found.linear[k] == pytest.approx(slope, rel=0.05, abs=0.05 * curve)
        curves.append(curve)
    assert found.square[at].sum() == pytest.approx(np.sum(curves), rel=0.5)


def test_photos_speak_for_what_they_show_and_against_what_they_do_not(
    planted: Splats, guard: Guard
):
    told = guard.evidence(planted, silent, "")
    useful, harmful = told[BALL : BALL + USEFUL], told[BALL + USEFUL :]
    assert (useful < 0).mean() > 0.8
    assert (harmful > 0).mean() > 0.8
    assert np.abs(told).max() <= 4


def test_what_no_photo_shows_is_neither_for_nor_against(planted: Splats, guard: Guard):
    means = planted.means.copy()
    means[7] = (0, 0, 900)
    assert guard.evidence(dataclasses.replace(planted, means=means), silent, "")[7] == 0


def test_regret_is_for_what_was_needed(planted: Splats, guard: Guard):
    gone = np.arange(len(planted.means)) >= BALL
    told = guard.regret(planted, gone, silent, "")
    assert (told[:BALL] == 0).all()
    assert (told[BALL : BALL + USEFUL] < 0).mean() > 0.9
    assert (told[BALL + USEFUL :] > 0).mean() > 0.9


def test_clean_with_photos_keeps_what_they_need_and_takes_the_rest(
    true: Splats, planted: Splats, guard: Guard, monkeypatch: pytest.MonkeyPatch
):
    """Where floaters hide what is needed some of it goes with them; where there are none, nothing
    that photos would miss.
    """

    def kept(splats: Splats, strength: float | None) -> np.ndarray:
        subject = Subject(splats, cameras(), (0, 0, 0), Path("ball"), None)
        made = clean(subject, Clean(strength=strength, only=("floaters",)), silent)
        assert made.removed is not None
        assert made.told[0] == made.facts["judged"]
        return made.removed.kept

    useful, harmful = slice(BALL, BALL + USEFUL), slice(BALL + USEFUL, None)
    alone = kept(true, 0.5)
    monkeypatch.setattr("lumefield.apps._edit_clean.guard_of", lambda *_: (guard, "judged by 14"))
    found, as_is = kept(planted, None), kept(true, None)
    assert alone[useful].mean() < 0.2
    assert found[useful].mean() > 0.5
    assert found[harmful].mean() < 0.1
    assert found[:BALL].mean() > 0.99
    needed, worse = (
        guard.decibels(guard.passes(true.taken(np.flatnonzero(left)), silent, "").error)
        for left in (as_is, alone)
    )
    assert needed > 42 > 36 > worse


# Where photos come from -------------------------------------------------------------------------


def posed(folder: Path, splats: Splats) -> Path:
    """A COLMAP model with photos of ``splats``; its first and ninth photo will be held out."""
    seen = pictures(splats)
    (folder / "images").mkdir(parents=True)
    paths = []
    for name, rgb in zip(seen.views.names, seen.rgb, strict=True):
        paths.append(folder / "images" / f"{int(name[:-4]):02}.png")
        Image.fromarray(rgb).save(paths[-1])
    views = seen.views
    model = PosedImages(
        paths=tuple(paths),
        world_from_cam=views.world_from_cam,
        focal=views.focal,
        centre=views.centre,
        size=views.size,
        model=("pinhole",) * len(views),
        distortion=np.zeros((len(views), 8)),
        points=np.zeros((0, 3)),
        colours=np.zeros((0, 3), np.uint8),
    )
    save_colmap(model, folder / "sparse" / "0")
    return folder


def trained(folder: Path, source: Path) -> tuple[Path, Views]:
    """What a run knows of its photos."""
    views = dataclasses.replace(
        cameras(),
        names=tuple(f"{k:02}.png" for k in range(14)),
        held_out=tuple(k % 8 == 0 for k in range(14)),
    )
    rows = zip(views.names, views.world_from_cam, views.held_out, strict=True)
    same = {"focal": [70.0, 70.0], "centre": [32.0, 32.0], "width": 64, "height": 64}
    listed = [
        {"name": n, "world_from_cam": pose.tolist(), "held_out": h, **same} for n, pose, h in rows
    ]
    (folder / "capture").mkdir(parents=True)
    record = {"cameras": listed, "source": {"downscale": 1.0}}
    (folder / "capture" / "cameras.json").write_text(json.dumps(record))
    config = {"settings": {"input": str(source), "mask_mode": None}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder, load_views(folder / "capture" / "cameras.json")


def test_a_run_and_its_edits_know_their_photos(true: Splats, tmp_path: Path):
    """Those held out are no part of them; a scene whose colours were changed has none."""
    run, views = trained(tmp_path / "run", posed(tmp_path / "photos", true))
    guard, told = guard_of(Subject(true, views, (0, 0, 0), run, run), None, silent)
    assert guard is not None
    assert told == "judged by 12 training photos too: what they need stays"
    assert not {"00.png", "08.png"} & set(guard.pictures.views.names)
    assert guard.decibels(guard.passes(true, silent, "").error) > 40
    edited = tmp_path / "edited"
    shutil.copytree(run, edited)
    record = {"recipe": "clean", "source": str(run)}
    (edited / "config.json").write_text(json.dumps({"settings": {}, "edits": [record]}))
    found = photos_of(edited, views, silent)
    assert found is not None
    assert len(found.rgb) == 12
    record["recipe"] = "recolour"
    (edited / "config.json").write_text(json.dumps({"edits": [record]}))
    assert photos_of(edited, views, silent) is None
    shutil.rmtree(tmp_path / "photos")
    guard, told = guard_of(Subject(true, views, (0, 0, 0), run, run), None, silent)
    assert guard is None
    assert told.startswith("judged without photos (")


def test_a_bare_file_is_given_its_photos(true: Splats, tmp_path: Path):
    source = posed(tmp_path / "photos", true)
    file = Subject(true, None, (0, 0, 0), tmp_path / "a.ply", None)
    guard, told = guard_of(file, None, silent)
    assert guard is None
    assert told == "judged without photos: none are known (--photos CAPTURE names them)"
    run, _ = trained(tmp_path / "run", source)
    for given in (source, run):
        guard, told = guard_of(file, given, silent)
        assert guard is not None
        assert len(guard.pictures.rgb) == 12


def test_photos_that_do_not_fit_are_refused(true: Splats, tmp_path: Path):
    source = posed(tmp_path / "photos", true)
    file = Subject(true, None, (0, 0, 0), tmp_path / "a.ply", None)
    with pytest.raises(InputError, match=r"photos/images: has no cameras, and neither has"):
        guard_of(file, source / "images", silent)
    with pytest.raises(InputError, match=r"nowhere.* does not exist"):
        guard_of(file, tmp_path / "nowhere", silent)
    run, views = trained(tmp_path / "run", source)
    other = dataclasses.replace(views, names=tuple(f"x{k}.png" for k in range(14)))
    with pytest.raises(InputError, match="no photo of it is a training view of"):
        guard_of(Subject(true, other, (0, 0, 0), run, run), source, silent)
    white = gaussians(np.zeros((1, 3)), 5.0, 0.99, np.ones((1, 3)))
    with pytest.raises(InputError, match="not of this scene, whose pictures are within"):
        guard_of(dataclasses.replace(file, splats=white), source, silent)
