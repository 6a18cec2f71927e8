"""Panoramas for headsets: where things are for each eye, and that nothing shows how it is drawn."""

import numpy as np
import pytest

from lumefield.apps._paths import look_at
from lumefield.apps._scene_io import Scene, make_draw
from lumefield.apps._sphere import Sphere, level, merged, metres_per_unit, rows_of
from lumefield.apps._sphere_draw import faces, sphere_draw
from lumefield.apps._views import Views
from tests.apps.bake_cases import around_painted, painted
from tests.apps.sphere_cases import EYE, POSE, UP, around, blobs, expected, found, head

CASES = [
    (180, "side-by-side", 0.0, 0.6),
    (180, "top-bottom", 30.0, 0.4),
    (360, "top-bottom", 0.0, 0.4),
    (360, "side-by-side", -40.0, 0.5),
    (360, "top-bottom", 55.0, 0.8),
]


@pytest.mark.parametrize(("degrees", "stereo", "elevation", "distance"), CASES)
def test_each_eye_sees_a_point_where_it_is(degrees, stereo, elevation, distance):
    azimuths = [-75, -32, 0, 28, 61] if degrees == 180 else [-178, -135, -90, -31, 0, 29, 88, 151]
    places = around(azimuths, elevation, distance)
    scene = Scene(blobs(places, np.ones((len(places), 3))), None, None, (0, 0, 0))
    sphere = Sphere(degrees, stereo, 256, 0.0315)
    left, right = sphere.apart(sphere_draw(scene, sphere)(head()).rgb)
    for place in places:
        at = [expected(sphere, place, eye) for eye in (-1, 1)]
        seen = [found(p[..., 0], near) for p, near in zip((left, right), at, strict=True)]
        np.testing.assert_allclose(seen, at, atol=0.12)
        if degrees == 360:
            disparity = (at[0][0] - at[1][0]) * np.pi / sphere.rows
            over = np.hypot(place[0], place[2])
            assert disparity == pytest.approx(2 * np.arcsin(0.0315 / over), rel=1e-6)


def test_without_stereo_there_is_one_eye_in_the_middle():
    places = around([-120, 10], 20, 0.3)
    scene = Scene(blobs(places, np.ones((2, 3))), None, None, (0, 0, 0))
    sphere = Sphere(360, "off", 256, 0.0)
    picture = sphere_draw(scene, sphere)(head())
    assert picture.rgb.shape == (256, 512, 3)
    for place in places:
        at = expected(sphere, place, 0)
        np.testing.assert_allclose(found(picture.rgb[..., 0], at), at, atol=0.12)
        assert picture.depth[int(at[1]), int(at[0])] == pytest.approx(0.3, rel=0.01)


def strips(scene: Scene, sphere: Sphere, eye: float) -> np.ndarray:
    """The slow twin of stereo over the whole sphere: every column with a camera of its own."""
    draw = make_draw(scene.splats)
    rows, columns = sphere.rows, sphere.columns
    step, reach = np.pi / rows, np.radians(40)
    focal = 4 / np.tan(step / 2)  # a column is 8 pixels wide
    high = 2 * int(np.ceil(focal * np.tan(reach)))
    out = np.zeros((rows, columns, 3))
    azimuth, elevation = sphere.angles()
    row = (high / 2 - focal * np.tan(elevation)).round().astype(int)
    for k, a in enumerate(azimuth):
        c, s = np.cos(a), np.sin(a)
        local = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        start = EYE + POSE[:, :3] @ (eye * sphere.radius * np.array([c, 0, -s]))
        view = Views(
            names=("",),
            world_from_cam=np.concatenate([POSE[:, :3] @ local, start[:, None]], 1)[None],
            focal=np.full((1, 2), focal),
            centre=np.array([[4.0, high / 2]]),
            size=np.array([[8, high]]),
            held_out=(False,),
        )
        rgb = draw(view).rgb
        for i in np.flatnonzero(np.abs(elevation) < reach - step):
            out[i, k] = rgb[row[i] - 3 : row[i] + 4].mean((0, 1))
    return out


def test_moving_gaussians_is_what_a_camera_for_every_column_sees():
    rng = np.random.default_rng(3)
    places = rng.normal(size=(400, 3))
    places *= rng.uniform(0.5, 3, (400, 1)) / np.linalg.norm(places, axis=1, keepdims=True)
    scene = Scene(blobs(places, rng.random((400, 3)), 0.08), None, None, (0, 0, 0))
    sphere = Sphere(360, "top-bottom", 64, 0.04)
    left = sphere.apart(sphere_draw(scene, sphere)(head()).rgb)[0]
    twin, shifted = strips(scene, sphere, -1), strips(scene, sphere, 1)
    inner = slice(20, 44)
    error = np.sqrt(np.mean((left - twin)[inner] ** 2))
    other = np.sqrt(np.mean((left - shifted)[inner] ** 2))
    assert error < 0.03
    assert other > 4 * error


def test_flat_pictures_meet_without_a_seam():
    """A fog of large Gaussians around the head: neighbouring pixels differ little everywhere."""
    rng = np.random.default_rng(0)
    places = rng.normal(size=(500, 3))
    places *= 2 / np.linalg.norm(places, axis=1, keepdims=True)
    scene = Scene(blobs(places, 0.3 + 0.4 * rng.random((500, 3)), 0.12), None, None, (0, 0, 0))
    sphere = Sphere(360, "off", 180, 0.0)
    rgb = sphere_draw(scene, sphere)(head()).rgb
    assert np.isfinite(rgb).all()
    down = np.abs(np.diff(rgb, axis=0)).mean((1, 2))
    for border in (45, 135):  # of the caps; the cross-fade is 8 pixels wide
        inside, about = down[border - 4 : border + 4], down[border - 20 : border + 20]
        assert inside.max() < 1.6 * np.median(about)
    across = np.abs(np.diff(rgb[60:120], axis=1)).mean((0, 2))
    for border in range(60, 360, 60):
        assert across[border - 4 : border + 4].max() < 1.6 * np.median(across)
    wrap = np.abs(rgb[60:120, 0] - rgb[60:120, -1]).mean()
    assert wrap < 1.6 * np.median(across)


def test_flat_pictures_cover_the_sphere_as_finely_as_the_panorama():
    for degrees in (180, 360):
        sphere = Sphere(degrees, "off", 128, 0.0)
        parts, focal = faces(sphere)
        assert focal > 128 / np.pi
        covered = np.zeros((sphere.rows, sphere.columns), int)
        for part in parts:
            columns = np.arange(part.columns.start, part.columns.stop) % sphere.columns
            covered[part.rows.start : part.rows.stop, columns] += 1
        assert (covered > 0).all()


def test_a_field_is_traced_from_each_eye():
    from lumefield.apps._scene_io import scene_draw

    scene = Scene(painted(), around_painted(), None, (0, 0, 0))
    target, eye = np.array([1.0, 2, 3]), np.array([1.0, -4, 3])
    pose = look_at(eye, target, UP)
    for degrees in (180, 360):
        sphere = Sphere(degrees, "side-by-side", 60, 0.6)
        both = sphere_draw(scene, sphere)(
            Views(
                ("",), pose[None], np.ones((1, 2)), np.ones((1, 2)), np.ones((1, 2), int), (False,)
            )
        )
        middle = sphere.columns // 2
        for side, part, depth in zip(
            (-1, 1), sphere.apart(both.rgb), sphere.apart(both.depth), strict=True
        ):
            flat = pose.copy()
            flat[:, 3] += side * 0.6 * pose[:, 0]
            view = Views(
                names=("",),
                world_from_cam=flat[None],
                focal=np.full((1, 2), 60 / np.pi),
                centre=np.full((1, 2), 6.0),
                size=np.full((1, 2), 12),
                held_out=(False,),
            )
            near = scene_draw(scene)(view)
            np.testing.assert_allclose(
                part[29:31, middle - 1 : middle + 1], near.rgb[5:7, 5:7], atol=0.02
            )
            assert depth[30, middle] == pytest.approx(near.depth[6, 6], rel=0.01)
        assert np.abs(sphere.apart(both.rgb)[0] - sphere.apart(both.rgb)[1]).max() > 0.2


def test_eyes_come_together_at_the_poles():
    share = merged(np.radians([0.0, 60, 70, 80, 90, -70]))
    np.testing.assert_allclose(share, [1, 1, 0.5, 0, 0, 0.5], atol=1e-12)
    sphere = Sphere(360, "top-bottom", 90, 0.03)
    start = np.linalg.norm(sphere.origins(1), axis=-1)
    assert start[:5].max() < 1e-9
    np.testing.assert_allclose(start[20:70], 0.03)


def test_rays_of_stereo_start_beside_their_azimuth():
    sphere = Sphere(360, "top-bottom", 8, 0.03)
    right, ways = sphere.origins(1), sphere.directions()
    np.testing.assert_allclose((right * ways).sum(-1), 0, atol=1e-15)
    np.testing.assert_allclose(np.linalg.norm(ways, axis=-1), 1)
    ahead = right[4, 7]  # just left of the front
    assert ahead[0] > 0.02
    np.testing.assert_allclose(sphere.origins(-1), -right)


def test_the_head_is_level_and_looks_where_the_camera_did():
    eye = np.array([1.0, 2, 3])
    poses = [look_at(eye, eye + d, UP) for d in ([1.0, 0, -2], [0.0, 3, 0.1])]
    straight = np.array([[1.0, 0, 0, 1], [0, -1, 0, 2], [0, 0, -1, 3]])  # down, its top is +y
    views = Views(
        names=("a", "b", "c"),
        world_from_cam=np.array([*poses, straight]),
        focal=np.ones((3, 2)),
        centre=np.ones((3, 2)),
        size=np.ones((3, 2), int),
        held_out=(False,) * 3,
    )
    flat = level(views, UP, (64, 32))
    assert flat.size.tolist() == [[64, 32]] * 3
    np.testing.assert_allclose(flat.world_from_cam[:, :, 3], np.tile(eye, (3, 1)))
    np.testing.assert_allclose(flat.world_from_cam[:, :, 1], np.tile(-UP, (3, 1)), atol=1e-12)
    ahead = [[1, 0, 0], [0, 1, 0], [0, 1, 0]]
    np.testing.assert_allclose(flat.world_from_cam[:, :, 2], ahead, atol=1e-12)


def test_what_is_looked_at_is_two_metres_away():
    views = around_painted()
    away = np.linalg.norm(views.world_from_cam[:, :, 3] - [1, 2, 3], axis=1)
    assert metres_per_unit(views, np.zeros((0, 3))) == pytest.approx(2 / np.median(away), rel=1e-3)


@pytest.mark.parametrize(
    ("layout", "stereo", "width", "height", "rows"),
    [
        ("vr180", "side-by-side", 128, None, 64),
        ("vr180", "top-bottom", None, 128, 64),
        ("vr360", "top-bottom", 128, 128, 64),
        ("vr360", "side-by-side", 256, None, 64),
        ("vr360", "off", None, 64, 64),
        ("vr180", "off", 64, 64, 64),
        ("vr180", "off", None, None, 256),
    ],
)
def test_sizes_follow_from_one_side(layout, stereo, width, height, rows):
    assert rows_of(layout, stereo, width, height, head()) == rows
    sphere = Sphere(180 if layout == "vr180" else 360, stereo, rows, 0.0)
    assert width in (None, sphere.size[0])
    assert height in (None, sphere.size[1])
