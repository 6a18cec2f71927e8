"""Baking: Gaussians on the surface of what is drawn, refined until they look like it."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lumefield.apps import _bake_start as start
from lumefield.apps._bake import Wanted, bake, limit_for
from lumefield.apps._bake_views import (
    Seen,
    between,
    field_look,
    joined,
    look_all,
    one_size,
    splat_look,
)
from lumefield.apps._export_job import Scores, scores, write_baked
from lumefield.apps._export_settings import Export
from lumefield.apps._scene_io import Scene, make_draw, to_bytes
from lumefield.codecs.formats import load_splats
from lumefield.errors import RunError
from tests.apps.bake_cases import SIZE, around_painted, ball, cameras, colour, painted


def quiet(what: str, share: float) -> None:
    """Nothing to tell."""


def likeness(look, other, views) -> float:
    """Mean PSNR over the views, dB."""
    found = []
    for k in range(len(views)):
        a, b = (f(views.pick([k])).rgb for f in (look, other))
        found.append(-10 * np.log10(np.mean((a - b) ** 2)))
    return float(np.mean(found))


@pytest.fixture(scope="module")
def targets():
    return look_all(ball(), cameras(), quiet)


def test_targets_hold_what_is_seen(targets):
    assert targets.size == (SIZE[1], SIZE[0])
    seen = ball()(cameras().pick([3]))
    np.testing.assert_allclose(targets.rgb[3] / 255, seen.rgb, atol=0.51 / 255)
    np.testing.assert_array_equal(targets.depth[3], seen.depth)


def test_views_of_odd_sizes_get_the_size_of_most():
    views = cameras()
    views.size[0] = [20, 10]
    assert (one_size(views, 1000).size == SIZE).all()
    assert one_size(views, 24).size[0].tolist() == [24, 20]


def test_cameras_between_lie_between_neighbours():
    views = cameras(20)
    some = between(views, 6, 0)
    assert len(some) == 6
    assert len(joined(views, some)) == 26
    eyes = views.world_from_cam[:, :, 3]
    gaps = np.linalg.norm(some.world_from_cam[:, None, :, 3] - eyes, axis=-1)
    nearest = np.sort(gaps, 1)[:, :2].sum(1)
    assert (nearest < 2.5).all()
    assert (gaps.min(1) > 0.2).all()
    again = between(views, 6, 0)
    np.testing.assert_array_equal(some.world_from_cam, again.world_from_cam)


@pytest.mark.parametrize(("n", "count"), [(1, 5), (5, 0)])
def test_there_may_be_no_cameras_between(n, count):
    assert len(between(cameras(n), count, 0)) == 0


def test_surfels_lie_on_the_surface_and_face_outwards(targets):
    found = start.surfels(targets, 3000, 0)
    radius = np.linalg.norm(found.points, axis=1)
    assert abs(radius - 1).max() < 1e-3
    assert (found.normals * found.points).sum(1).mean() > 0.97
    np.testing.assert_allclose(found.colours, colour(found.points), atol=0.02)


def test_thinning_keeps_the_surface_evenly(targets):
    found = start.surfels(targets, 6000, 0)
    few = start.thinned(found, 500)
    assert 250 < len(few.points) <= 500
    assert abs(np.linalg.norm(few.points, axis=1) - 1).max() < 0.05
    np.testing.assert_allclose(np.linalg.norm(few.normals, axis=1), 1, atol=1e-6)
    assert start.thinned(few, 500) is few


def test_surfels_all_apart_are_thinned_too():
    n = 200
    points = np.random.default_rng(0).normal(size=(n, 3)) * 1e9
    up, grey = np.tile([0.0, 0, 1], (n, 1)), np.full((n, 3), 0.5)
    few = start.thinned(start.Surfels(points, up, grey, np.ones(n)), 50)
    assert len(few.points) == 50
    assert set(map(tuple, few.points)) <= set(map(tuple, points))


def test_gaussians_are_discs_that_lie_in_the_surface(targets):
    g = start.gaussians(start.thinned(start.surfels(targets, 6000, 0), 500), 2)
    w, x, y, z = g.quats_wxyz.T
    axis = np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], -1)
    assert (axis * g.means).sum(1).min() > 0.9
    np.testing.assert_allclose(g.log_scales[:, 2] - g.log_scales[:, 0], np.log(0.2), atol=1e-9)
    assert g.sh.shape[1:] == (9, 3)
    assert (g.sh[:, 1:] == 0).all()


@pytest.mark.parametrize("normal", [[0, 0, 1.0], [0, 0, -1.0], [1.0, 0, 0], [0.6, 0, -0.8]])
def test_discs_turn_to_any_normal(normal):
    near = np.array([[0.0, 0, 0], [1, 0, 0]])
    both = np.array([normal, normal])
    g = start.gaussians(start.Surfels(near, both, np.zeros((2, 3)), np.ones(2)), 0)
    w, x, y, z = g.quats_wxyz[0]
    axis = [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)]
    np.testing.assert_allclose(axis, normal, atol=1e-6)


def test_the_number_of_gaussians_follows_from_the_pictures():
    assert limit_for((480, 270)) == int(0.6 * 480 * 270)
    assert limit_for((10, 10)) == 20_000
    assert limit_for((10_000, 10_000)) == 3_000_000


def test_refined_gaussians_look_like_the_scene_from_elsewhere():
    look, views = ball(scale=50, offset=7), cameras(scale=50, offset=7)
    told = []
    wanted = Wanted(steps=150, limit=1200, degree=1, between=4)
    splats = bake(look, views, wanted, on_chunk=lambda s, c: told.append(c.step) or True)
    assert len(splats.means) <= 1200
    assert told[-1] == 150
    start_only = bake(look, views, Wanted(steps=0, limit=1200, degree=1, between=4))
    held = views.test()
    before, after = (likeness(look, splat_look(s), held) for s in (start_only, splats))
    assert after > before
    assert after > 15
    radius = np.linalg.norm(splats.means - 7, axis=1) / 50
    assert abs(np.median(radius) - 1) < 0.05  # in the world frame of the cameras


def test_an_empty_scene_cannot_be_baked():
    def nothing(views):
        zero = np.zeros((SIZE[1], SIZE[0]), np.float32)
        return Seen(np.zeros((*zero.shape, 3), np.float32), zero, zero)

    with pytest.raises(RunError, match="nothing opaque is seen"):
        bake(nothing, cameras(), Wanted(steps=5, limit=1000))


def test_a_field_looks_as_its_own_pictures():
    field, views = painted(), around_painted()
    seen = field_look(field)(views)
    rgb, depth = field.view(
        views.world_from_cam[0], views.focal[0], views.centre[0], (SIZE[1], SIZE[0])
    )
    np.testing.assert_allclose(seen.rgb, rgb, atol=2e-2)
    hit = seen.opacity > 0.9
    np.testing.assert_allclose(seen.depth[hit], depth[hit], rtol=1e-2)
    assert 3.5 < seen.depth[hit].min() < 4.5  # eyes 6 from the centre of a ball of radius 2
    assert seen.opacity[0, 0] < 1e-3


def test_export_bakes_a_field_and_says_what_was_lost(tmp_path: Path, capsys):
    field, views = painted(), around_painted()
    (tmp_path / "renders").mkdir()
    for k, name in enumerate(views.test().names):
        picture = field_look(field)(views.test().pick([k])).rgb
        Image.fromarray(to_bytes(picture)).save(tmp_path / "renders" / f"{name}.truth.png")
    scene = Scene(field, views, tmp_path, (0, 0, 0))
    out = tmp_path / "a.ply"
    write_baked(Export(tmp_path, out, max_splats=1000, steps=50, sh_degree=0), scene)
    told = capsys.readouterr().out
    assert "Gaussians of ngp" in told
    assert "splats against field" in told
    assert "against the photos: field" in told
    splats = load_splats(out)
    assert splats.sh.shape[1] == 1
    away = np.linalg.norm(splats.means - np.array([1, 2, 3]), axis=1)
    assert abs(np.median(away) - 2) < 0.2
    found = scores(scene, views.test(), make_draw(splats))
    assert found.field is not None
    assert found.splats is not None
    assert found.faithful is not None
    assert found.field > 40 > found.splats > 12
    assert json.dumps(dataclasses.asdict(found))


def test_without_held_out_views_nothing_is_scored(tmp_path: Path):
    scene = Scene(painted(), around_painted(), tmp_path, (0, 0, 0))
    nothing = scores(scene, around_painted().pick([]), make_draw(load_splats_of_one()))
    assert nothing.lines() == ["no held-out views, so nothing was scored"]
    assert len(Scores(2, None, None, 30.0).lines()) == 1


def load_splats_of_one():
    from lumefield.codecs.formats import Splats

    one = np.zeros((1, 3), np.float32)
    return Splats(one, np.eye(1, 4, dtype=np.float32), one, one[:, 0], one[:, None])
