"""What the live view shows: Gaussians, photos, fields; and the page that follows a training."""

import http.client
import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lumefield.apps import _live_splats
from lumefield.apps._bake_views import Seen
from lumefield.apps._capture_type import Capture
from lumefield.apps._frame import WorldFrame
from lumefield.apps._live_page import LivePage
from lumefield.apps._live_splats import UNITS, field_splats, frusta, shown
from lumefield.apps._paths import look_at
from lumefield.apps._views import capture_views
from tests.apps.test_export_html import record_of, splats

FRAME = WorldFrame(scale=2.0, offset=(1.0, -2.0, 0.5))


def test_gaussians_keep_place_shape_and_colour():
    some = splats(50)
    found = shown(some, FRAME, most=100, floor=0.0, size=0.5)
    quats = some.quats_wxyz.astype(np.float64)
    for k, (w, x, y, z) in enumerate(quats / np.linalg.norm(quats, axis=1, keepdims=True)):
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        turn = np.eye(3) + 2 * w * cross + 2 * cross @ cross
        spread = np.exp(some.log_scales[k].astype(np.float64)) * 0.5 * UNITS / FRAME.scale
        want = turn @ np.diag(spread**2) @ turn.T
        np.testing.assert_allclose(found.covariances[k], want, rtol=1e-4, atol=1e-4 * want.max())
    want = (some.means - np.array(FRAME.offset)) / FRAME.scale * UNITS
    np.testing.assert_allclose(found.centers, want, rtol=1e-5, atol=1e-5)
    flat = np.clip(0.5 + 0.28209479 * some.sh[:, 0], 0, 1)
    np.testing.assert_allclose(found.rgbs, flat, atol=1e-6)


def test_faint_gaussians_are_left_out_and_those_that_hide_most_stay():
    some = splats(60)
    some.logit_opacities[:] = np.linspace(-3, 3, 60)
    some.log_scales[:] = -3.0
    some.log_scales[10] = 5.0
    found = shown(some, FRAME, most=100, floor=0.5, size=1.0)
    assert (len(found.centers), found.opacities.min() >= 0.5) == (30, True)
    few = shown(some, FRAME, most=5, floor=0.0, size=1.0)
    whole = shown(some, FRAME, most=100, floor=0.0, size=1.0)
    np.testing.assert_array_equal(few.centers, whole.centers[[10, 56, 57, 58, 59]])
    assert np.isfinite(whole.covariances.astype(np.float16)).all()


@pytest.fixture
def photos() -> Capture:
    """Ten cameras on a ring that look at its middle; photos of different sizes, one colour each."""
    eyes = [(3 * np.cos(a), 3 * np.sin(a), 1.0) for a in np.arange(10) * 0.2 * np.pi]
    up = np.array([0.0, 0.0, 1.0])
    sizes = np.array([(40, 30)] * 9 + [(20, 30)])
    colours = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.uint8(20)
    rng = np.random.default_rng(0)
    return Capture(
        names=tuple(f"{k}.png" for k in range(10)),
        images=np.broadcast_to(colours, (10, 30, 40, 3)).copy(),
        weights=np.full((10, 1, 1), 255, np.uint8),
        alphas=np.full((10, 1, 1), 255, np.uint8),
        world_from_cam=np.array([look_at(np.array(eye), np.zeros(3), up) for eye in eyes]),
        focal=np.full((10, 2), 50.0),
        centre=sizes / 2,
        sizes=sizes,
        points=rng.normal(size=(30, 3)),
        colours=rng.integers(0, 255, (30, 3)).astype(np.uint8),
        held_out=(0, 8),
    )


def test_photos_stand_where_their_cameras_were(photos: Capture, monkeypatch: pytest.MonkeyPatch):
    found = frusta(photos, FRAME)
    assert [f.name for f in found if f.held_out] == ["0.png", "8.png"]
    assert found[9].photo.shape == (30, 20, 3)
    assert (found[3].photo == 60).all()
    corner = np.array([-20, -15, 50.0])  # of the picture, camera axes
    for frustum, pose in zip(found[:2], photos.world_from_cam, strict=False):
        seen = np.array([-frustum.aspect, -1.0, 1 / np.tan(frustum.fov / 2)])
        assert np.cross(seen, corner) == pytest.approx(0, abs=1e-9)
        np.testing.assert_allclose(frustum.turn, pose[:, :3])
        np.testing.assert_allclose(
            frustum.position, (pose[:, 3] - FRAME.offset) / FRAME.scale * UNITS
        )
    monkeypatch.setattr(_live_splats, "MAX_FRUSTA", 4)
    assert [f.name for f in frusta(photos, FRAME)] == ["0.png", "3.png", "6.png", "9.png"]


def test_a_field_is_shown_where_its_views_see_something(
    photos: Capture, monkeypatch: pytest.MonkeyPatch
):
    opaque = [1.0]

    def looks(field: Any, views: Any) -> list[Seen]:
        del field

        def ball(views: Any) -> Seen:
            """A red ball of radius 1 in the middle."""
            width, height = (int(v) for v in views.size[0])
            x = (np.arange(width) + 0.5 - views.centre[0, 0]) / views.focal[0, 0]
            y = (np.arange(height) + 0.5 - views.centre[0, 1]) / views.focal[0, 1]
            way = np.stack([*np.meshgrid(x, y), np.ones((height, width))], -1)
            pose = views.world_from_cam[0]
            way = way @ pose[:, :3].T
            a, b = (way**2).sum(-1), way @ pose[:, 3]
            root = b**2 - a * (pose[:, 3] @ pose[:, 3] - 1)
            hit: NDArray[np.float32] = np.where(root > 0, opaque[0], 0).astype(np.float32)
            depth = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, 0)
            return Seen(
                hit[..., None] * np.array([1, 0, 0], np.float32), depth.astype(np.float32), hit
            )

        return [ball(views.pick([k])) for k in range(len(views))]

    monkeypatch.setattr(_live_splats, "field_seen", looks)
    field: Any = None
    found = field_splats(field, photos)
    assert 500 < len(found.means) <= 4096
    np.testing.assert_allclose(np.linalg.norm(found.means, axis=1), 1, atol=0.05)
    np.testing.assert_allclose(
        0.5 + 0.28209479 * found.sh[:, 0], [[1, 0, 0]] * len(found.sh), atol=0.01
    )
    opaque[0] = 0.0
    assert len(field_splats(field, photos).means) == 0


# -- the page --------------------------------------------------------------------------------


def test_the_page_tells_of_new_scenes_and_does_not_move(photos: Capture):
    page = LivePage("127.0.0.1", "<run>", compact=False)

    def asked(path: str) -> tuple[int, bytes]:
        link = http.client.HTTPConnection("127.0.0.1", page.port, timeout=10)
        link.request("GET", path)
        answer = link.getresponse()
        body = answer.read()
        link.close()
        return answer.status, body

    try:
        assert not page.watched()
        assert b'http-equiv="refresh"' in asked("/")[1]
        assert page.watched()
        page.begin(splats(30), capture_views(photos), (0.0, 0.0, 0.0))
        page.tell("step 1")
        record = record_of(asked("/")[1].decode())
        assert record["live"] == {"url": "live.json", "every": 2.0}
        assert record["scenes"][0]["url"] == "scene-0.ply"
        for step in (50, 100, 150):
            page.show(splats(step), step)
        news = json.loads(asked("/live.json")[1])
        assert news["words"] == "step 1"
        assert (news["scene"]["url"], news["scene"]["count"]) == ("scene-150.ply", 150)
        status, body = asked("/scene-150.ply")
        assert (status, len(body)) == (200, news["scene"]["bytes"])
        assert asked("/scene-50.ply")[0] == 200  # for a page that was told of it
        assert asked("/scene-0.ply")[0] == 404
        after = record_of(asked("/")[1].decode())
        for key in ("pageFromScene", "centre", "radius", "floor", "metres", "cameras"):
            assert after[key] == record[key]
    finally:
        page.close()


def test_other_machines_get_small_scenes(photos: Capture):
    page = LivePage("127.0.0.1", "run", compact=True)
    try:
        page.begin(splats(30), capture_views(photos), (0.0, 0.0, 0.0))
        link = http.client.HTTPConnection("127.0.0.1", page.port, timeout=10)
        link.request("GET", "/scene-0.spz")
        assert link.getresponse().read()[:2] == b"\x1f\x8b"
        link.close()
    finally:
        page.close()
