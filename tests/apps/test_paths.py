"""Laws of the camera paths."""

import json
from pathlib import Path

import numpy as np
import pytest

from lumefield.apps._keyframes import interpolate, keyframes
from lumefield.apps._paths import around_points, look_at, look_centre, orbit, spiral, world_up
from lumefield.apps._views import Views, load_views
from lumefield.errors import InputError, RunError

UP = np.array([0.0, 0, 1])
NO_POINTS = np.zeros((0, 3))


def ring(angles: np.ndarray, target: np.ndarray | None = None) -> Views:
    """Cameras at radius 3, height 1, looking at ``target`` (the origin when None)."""
    target = np.zeros(3) if target is None else target
    eyes = np.stack([3 * np.cos(angles), 3 * np.sin(angles), 0 * angles + 1], -1)
    n = len(angles)
    return Views(
        names=tuple(f"{k}" for k in range(n)),
        world_from_cam=np.array([look_at(e, target, UP) for e in eyes]),
        focal=np.full((n, 2), 50.0),
        centre=np.tile([32.0, 24.0], (n, 1)),
        size=np.tile([64, 48], (n, 1)),
        held_out=(False,) * n,
    )


FULL = ring(np.arange(12) / 12 * 2 * np.pi)
ARC = ring(np.linspace(0.3, 1.5, 8))


@pytest.mark.parametrize("views", [FULL, ARC], ids=["full", "arc"])
@pytest.mark.parametrize("path", [orbit, spiral])
def test_paths_are_rotations_that_move_smoothly_and_close(path, views):
    made = path(views, NO_POINTS, 90)
    r, eyes = made.world_from_cam[:, :, :3], made.world_from_cam[:, :, 3]
    assert len(made) == 90
    np.testing.assert_allclose(
        np.einsum("nij,nik->njk", r, r), np.tile(np.eye(3), (90, 1, 1)), atol=1e-12
    )
    np.testing.assert_allclose(np.linalg.det(r), 1)
    steps = np.linalg.norm(np.roll(eyes, -1, 0) - eyes, axis=1)
    assert steps.max() < 0.3
    assert np.linalg.norm(np.roll(r, -1, 0) - r, axis=(1, 2)).max() < 0.2
    assert (made.size == views.size[0]).all()


def test_orbit_goes_all_around_where_cameras_do_and_stays_on_the_arc_where_not():
    for views, full in ((FULL, True), (ARC, False)):
        eyes = orbit(views, NO_POINTS, 100).world_from_cam[:, :, 3]
        np.testing.assert_allclose(np.hypot(eyes[:, 0], eyes[:, 1]), 3, atol=1e-9)
        np.testing.assert_allclose(eyes[:, 2], 1, atol=1e-9)
        angle = np.arctan2(eyes[:, 1], eyes[:, 0])
        assert full or (angle.min() > 0.29 and angle.max() < 1.51)
        assert not full or np.diff(np.sort(angle)).max() < 0.1


def test_orbit_looks_at_what_the_cameras_look_at():
    target = np.array([0.2, -0.1, 0.3])
    views = ring(np.arange(9) / 9 * 2 * np.pi, target)
    np.testing.assert_allclose(look_centre(views, NO_POINTS), target, atol=1e-9)
    made = orbit(views, NO_POINTS, 7).world_from_cam
    away = target - made[:, :, 3]
    cosine = (away * made[:, :, 2]).sum(1) / np.linalg.norm(away, axis=1)
    np.testing.assert_allclose(cosine, 1)


def test_up_is_that_of_the_cameras():
    np.testing.assert_allclose(world_up(FULL), UP, atol=1e-12)


def test_parallel_cameras_look_at_the_points():
    poses = np.tile(np.eye(3, 4), (3, 1, 1))
    poses[:, 0, 3] = [-0.1, 0, 0.1]
    views = FULL.pick([0, 1, 2])
    views = Views(views.names, poses, views.focal, views.centre, views.size, views.held_out)
    points = np.array([[0.0, 0, 4], [1, 0, 5], [0, 1, 6]])
    np.testing.assert_allclose(look_centre(views, points), [0, 0, 5], atol=1e-9)
    np.testing.assert_allclose(look_centre(views, NO_POINTS), [0, 0, 1], atol=1e-9)


def test_one_camera_is_enough_for_every_path():
    for path in (orbit, spiral):
        assert np.isfinite(path(FULL.pick([0]), NO_POINTS, 5).world_from_cam).all()


def test_bare_points_get_views_that_see_them():
    points = np.random.default_rng(0).normal(size=(500, 3))
    views = around_points(points, np.ones(500), 96, 54)
    for pose in views.world_from_cam:
        x, y, z = pose[:, :3].T @ (points - pose[:, 3]).T
        inside = (np.abs(x / z * views.focal[0, 0]) < 48) & (np.abs(y / z * views.focal[0, 1]) < 27)
        assert (inside & (z > 0)).mean() > 0.6
    assert np.isfinite(around_points(points[:1], np.zeros(1), 8, 8).world_from_cam).all()


def test_keyframes_are_met_exactly_at_their_times_and_speed_is_continuous():
    rng = np.random.default_rng(1)
    times = np.array([0.0, 0.7, 1.1, 3.0])
    poses = np.array([look_at(rng.normal(size=3) * 3, rng.normal(size=3), UP) for _ in times])
    np.testing.assert_allclose(interpolate(times, poses, times), poses, atol=1e-9)
    h = 1e-4
    for t in times[1:-1]:
        a, b, c = interpolate(times, poses, np.array([t - h, t, t + h]))
        np.testing.assert_allclose(b - a, c - b, atol=200 * h * h)
    made = interpolate(times, poses, np.linspace(0, 3, 50))[:, :, :3]
    np.testing.assert_allclose(
        np.einsum("nij,nik->njk", made, made), np.tile(np.eye(3), (50, 1, 1)), atol=1e-12
    )


def test_keyframe_file_gives_frames_focal_lengths_and_rate(tmp_path: Path):
    frames = [
        {"time": 0, "position": [2, 0, 1], "look_at": [0, 0, 0], "fov_y": 90},
        {"time": 2, "position": [0, 2, 1], "look_at": [0, 0, 0], "fov_y": 30},
    ]
    path = tmp_path / "path.json"
    path.write_text(json.dumps({"fps": 10, "frames": frames}))
    views, fps = keyframes(path, n=None, width=80, height=60)
    assert (len(views), fps) == (21, 10)
    np.testing.assert_allclose(views.focal[0], 30)
    np.testing.assert_allclose(views.focal[-1], 30 / np.tan(np.radians(15)))
    np.testing.assert_allclose(views.world_from_cam[0, :, 3], [2, 0, 1])
    assert len(keyframes(path, n=5, width=80, height=60)[0]) == 5
    path.write_text(json.dumps({"frames": frames[:1]}))
    assert len(keyframes(path, n=None, width=80, height=60)[0]) == 1


GOOD = {"time": 0, "position": [2, 0, 1], "look_at": [0, 0, 0]}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], "expected"),
        ({"frames": []}, "at least one keyframe"),
        ({"frames": [{"time": 0}]}, "position and look_at"),
        ({"frames": [GOOD, GOOD]}, "strictly increasing"),
        ({"frames": [{**GOOD, "fov_y": 200}]}, "fov_y"),
        ({"frames": [{**GOOD, "look_at": [2, 0, 1]}]}, "position equals look_at"),
        ({"frames": [{**GOOD, "position": [1, float("nan"), 1]}]}, "3 finite numbers"),
        ({"frames": [{"world_from_cam": [[1, 2], [3, 4]]}]}, "expected finite"),
        ({"frames": [{"world_from_cam": (2 * np.eye(3, 4)).tolist()}]}, "not a rotation"),
        ({"fps": 0, "frames": [GOOD]}, "fps=0"),
        ({"fps": 1000, "frames": [GOOD, {**GOOD, "time": 1e7}]}, "frames, expected 1 to"),
    ],
)
def test_bad_keyframe_files_say_what_is_wrong(tmp_path: Path, record, message):
    path = tmp_path / "path.json"
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match=message):
        keyframes(path, n=None, width=8, height=8)


def test_a_keyframe_file_that_is_not_json_says_so(tmp_path: Path):
    path = tmp_path / "path.json"
    path.write_text("hello")
    with pytest.raises(InputError, match="cannot be read as a keyframe file"):
        keyframes(path, n=None, width=8, height=8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("focal"), "a camera is damaged"),
        (lambda c: c.update(width=0), "not positive"),
        (lambda c: c.update(world_from_cam=[[1, 2, 3, float("nan")]] * 3), "expected finite"),
    ],
)
def test_damaged_cameras_of_a_run_are_refused(run: Path, change, message):
    path = run / "capture" / "cameras.json"
    record = json.loads(path.read_text())
    change(record["cameras"][1])
    path.write_text(json.dumps(record))
    with pytest.raises(RunError, match=message):
        load_views(path)


@pytest.mark.parametrize(("text", "message"), [("{", "as JSON"), ("{}", "no cameras")])
def test_unreadable_cameras_of_a_run_are_refused(tmp_path: Path, text: str, message: str):
    (tmp_path / "cameras.json").write_text(text)
    with pytest.raises(RunError, match=message):
        load_views(tmp_path / "cameras.json")
    with pytest.raises(RunError, match="not found"):
        load_views(tmp_path / "absent.json")
