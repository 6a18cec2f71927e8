"""The viewer in an emulated headset (IWER's Quest 3): what both eyes see, what hands do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lumefield.apps._page import scene_stand
from lumefield.codecs.formats import save_splats
from tests.codecs.golden import LETTER, golden
from tests.viewer.browser import Browser
from tests.viewer.golden_page import Serve, cameras, psnr, served

pytestmark = pytest.mark.slow

WIDTH, HEIGHT = 640, 480
IPD = 0.063
EYES = """lumefield.stage.renderer.xr.getCamera().cameras.map((c) => ({
  view: c.viewport.toArray(), lens: c.projectionMatrix.elements }))"""
HAND = "headset.controllers.right"
Eyes = tuple[NDArray[np.int64], NDArray[np.int64]]


class Headset:
    """The page in an immersive session."""

    def __init__(self, browser: Browser, scratch: Path) -> None:
        self.browser, self.scratch = browser, scratch
        browser.order("click", at="#vr")
        browser.order("wait", code="lumefield.vr.session && lumefield.vr.placed")
        self.settled()

    def run(self, code: str) -> Any:
        return self.browser.order("eval", code=code)

    def settled(self) -> None:
        """Wait for some pictures more, so that order and colours are those of the pose."""
        until = self.run("lumefield.frames") + 6
        quiet = "lumefield.stage.layers.every((l) => !l.spark.sorting && !l.spark.sortDirty)"
        self.browser.order("wait", code=f"lumefield.frames > {until} && {quiet}")

    def eyes(self) -> Eyes:
        """What the left and the right eye see, [480, 320, 3] each."""
        self.settled()
        file = self.scratch / "eyes.png"
        self.browser.order("shot", path=str(file))
        with Image.open(file) as image:
            both = np.asarray(image.convert("RGB")).astype(int)
        assert both.shape == (HEIGHT, WIDTH, 3)
        return both[:, : WIDTH // 2], both[:, WIDTH // 2 :]

    def world(self) -> tuple[NDArray[np.float64], float, float]:
        """Offset, scale and turn about the vertical of the scene in the room."""
        found = self.run("[lumefield.vr.offset.toArray(), lumefield.vr.scale, lumefield.vr.yaw]")
        return np.array(found[0]), found[1], found[2]


def centre(eye: NDArray[np.int64]) -> NDArray[np.float64]:
    """Row and column of the middle of the yellow letter."""
    near = np.argwhere(np.abs(eye - LETTER).max(-1) < 60)
    assert len(near) > 100
    return near.mean(0)


def in_room(headset: Headset, point: NDArray[np.float64]) -> NDArray[np.float64]:
    """Where a point of the scene is in the room, metres."""
    at, _ = scene_stand(golden(), cameras())
    offset, scale, yaw = headset.world()
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    return offset + scale * turn @ at.turn @ point


def letter() -> NDArray[np.float64]:
    """The middle of the letter, scene frame."""
    means = golden().means
    return means[np.isclose(means[:, 2], -0.2) & (means[:, 0] < -0.6)].mean(0)


@pytest.fixture(params=["html", "view"])
def headset(
    request: pytest.FixtureRequest, browser: Browser, page: Path, serve: Serve, tmp_path: Path
) -> Callable[[], Headset]:
    """A function that opens the page, exported or served, and enters VR by its button."""
    if request.param == "html":
        url = page.as_uri()
    else:
        file = tmp_path / "golden.ply"
        save_splats(golden(), file)
        url = serve(served((file,)))
    browser.show(url, width=WIDTH, height=HEIGHT, headset=True)
    return lambda: Headset(browser, tmp_path)


def test_a_session_starts_shows_depth_follows_the_head_and_ends(
    headset: Callable[[], Headset], browser: Browser
):
    before = browser.picture()
    assert browser.order("eval", code="document.getElementById('vr').textContent") == "Enter VR"
    inside = headset()
    assert inside.run("lumefield.stage.renderer.xr.isPresenting") is True
    eyes = inside.run(EYES)
    assert [eye["view"] for eye in eyes] == [[0, 0, 320, 480], [320, 0, 320, 480]]
    focal = eyes[0]["lens"][0] * 320 / 2

    # From the front the sphere is orange; blue would be harmonics of a wrong eye.
    inside.run("headset.position.set(0, 1.6, 0)")
    place = in_room(inside, np.array([0, 0.15, -1.3])) - [0, 1.6, 0]
    column, row = (round(v) for v in focal * place[:2] / -place[2] * [1, -1] + [160, 240])
    for eye in inside.eyes():
        red, _, blue = eye[row - 8 : row + 8, column - 8 : column + 8].mean((0, 1))
        assert red > blue + 60

    # A point at depth Z is shifted by focal length x distance of the eyes / Z.
    inside.run("headset.position.set(-0.6, 1.6, -1.5)")
    left, right = inside.eyes()
    depth = -1.5 - in_room(inside, letter())[2]
    found = centre(left) - centre(right)
    assert found[1] == pytest.approx(focal * IPD / depth, rel=0.1)
    assert abs(found[0]) < 0.5
    assert focal * IPD / depth > 4

    inside.run("headset.quaternion.set(0, Math.sin(0.1), 0, Math.cos(0.1))")
    turned = inside.eyes()[0]
    assert centre(turned)[1] > centre(left)[1] + 0.8 * focal * np.tan(0.2)
    inside.run("headset.quaternion.set(0, 0, 0, 1); headset.position.set(-0.6, 1.9, -1.5)")
    risen = inside.eyes()[0]
    assert centre(risen)[0] - centre(left)[0] == pytest.approx(focal * 0.3 / depth, rel=0.15)

    inside.run("lumefield.stage.renderer.xr.getSession().end()")
    browser.order("wait", code="!lumefield.vr.session && !lumefield.stage.renderer.xr.isPresenting")
    browser.rest()
    assert psnr(browser.picture(), before) > 45
    assert browser.order("eval", code="document.getElementById('vr').textContent") == "Enter VR"
    assert browser.order("log") == []


def test_hands_teleport_turn_scale_and_drag_the_scene(headset: Callable[[], Headset]):
    inside = headset()
    inside.run(f"{HAND}.position.set(0.2, 1.3, -0.3); {HAND}.quaternion.set(0, 0, 0, 1)")
    inside.settled()
    offset, scale, yaw = inside.world()

    inside.run(f"{HAND}.updateButtonValue('trigger', 1)")
    inside.settled()
    assert inside.run("lumefield.vr.hands.some((hand) => hand.arc.object.visible)")
    inside.run(f"{HAND}.updateButtonValue('trigger', 0)")
    inside.settled()
    moved = inside.world()[0] - offset
    # Thrown level at 6 m/s from 1.3 m: it lands 6 sqrt(2 x 1.3 / 9.8) m in front of the hand.
    assert moved[2] == pytest.approx(6 * np.sqrt(2 * 1.3 / 9.8) + 0.3, abs=0.02)
    assert moved[0] == pytest.approx(-0.2, abs=0.02)
    assert moved[1] == 0

    inside.run(f"{HAND}.updateAxes('thumbstick', 1, 0)")
    inside.settled()
    inside.run(f"{HAND}.updateAxes('thumbstick', 0, 0)")
    inside.settled()
    assert inside.world()[2] - yaw == pytest.approx(np.pi / 6)

    inside.run("headset.controllers.left.position.set(-0.2, 1.3, -0.3)")
    inside.settled()
    for side in ("left", "right"):
        inside.run(f"headset.controllers.{side}.updateButtonValue('squeeze', 1)")
    inside.settled()
    inside.run("headset.controllers.left.position.set(-0.4, 1.3, -0.3)")
    inside.run(f"{HAND}.position.set(0.4, 1.3, -0.3)")
    inside.settled()
    assert inside.world()[1] / scale == pytest.approx(2, rel=1e-3)
    inside.run("headset.controllers.left.updateButtonValue('squeeze', 0)")
    inside.settled()
    before = inside.world()[0]
    inside.run(f"{HAND}.position.set(0.4, 1.5, -0.3)")
    inside.settled()
    np.testing.assert_allclose(inside.world()[0] - before, [0, 0.2, 0], atol=1e-3)
    inside.run(f"{HAND}.updateButtonValue('squeeze', 0)")
    inside.run("lumefield.vr.leave()")
