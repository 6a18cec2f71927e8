"""The viewer in a real browser: what it asks for, shows, and does when it is touched."""

import hashlib
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lumefield.apps import _page
from lumefield.apps._scene_io import make_draw, to_bytes
from lumefield.codecs.formats import SPLAT_SUFFIXES, save_splats
from tests.codecs.golden import LETTER, RIGHT, SLAB, UP, golden
from tests.viewer.browser import ROOT, Browser
from tests.viewer.golden_page import BACKGROUND, NASTY, SIZE, Image, Serve, cameras, psnr, served

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ours() -> list[Image]:
    """Our own pictures of the three views."""
    draw = make_draw(golden(), background=BACKGROUND)
    return [to_bytes(draw(cameras().pick([k])).rgb) for k in range(3)]


def pictures(browser: Browser) -> list[Image]:
    found: list[Image] = []
    for k in range(3):
        browser.order("eval", code=f"lumefield.look({k}, {{ at: true }})")
        browser.rest()
        found.append(browser.picture())
    return found


def shown(browser: Browser, page: Path, **how: bool) -> None:
    browser.show(page.as_uri(), width=SIZE[0], height=SIZE[1], **how)


def test_the_page_from_disk_asks_for_nothing_but_itself(browser: Browser, page: Path):
    shown(browser, page)
    asked = [url for url in browser.order("requests") if not url.startswith(("blob:", "data:"))]
    assert asked == [page.as_uri()]
    assert browser.order("log") == []


def test_our_picture_and_the_browser_s_agree(browser: Browser, page: Path, ours: list[Image]):
    shown(browser, page)
    for mine, theirs in zip(ours, pictures(browser), strict=True):
        assert psnr(mine, theirs) > 36


@pytest.mark.parametrize("suffix", [s for s in SPLAT_SUFFIXES if s in (".ply", ".spz", ".sog")])
def test_every_format_that_is_served_looks_as_we_draw_it(
    browser: Browser, serve: Serve, tmp_path: Path, ours: list[Image], suffix: str
):
    file = tmp_path / f"golden{suffix}"
    save_splats(golden(), file)
    browser.show(serve(served((file,))), width=SIZE[0], height=SIZE[1])
    for mine, theirs in zip(ours, pictures(browser), strict=True):
        assert psnr(mine, theirs) > 36


def test_up_is_up_f_reads_right_and_colours_are_what_they_were(browser: Browser, page: Path):
    shown(browser, page)
    picture = pictures(browser)[0].astype(int)

    def found(rgb: tuple[int, int, int]) -> NDArray[np.intp]:
        at = np.argwhere(np.abs(picture - rgb).max(-1) < 16)
        assert len(at) > 60, rgb
        return at

    letter, up, right = found(LETTER), found(UP), found(RIGHT)
    assert found(SLAB)[:, 1].mean() > up[:, 1].mean() > letter[:, 1].mean()
    assert up[:, 0].mean() < right[:, 0].mean()
    columns = letter[:, 1]
    middle = (columns.min() + columns.max()) / 2
    assert (columns < middle).sum() > 1.2 * (columns > middle).sum()  # its stem is on the left


def test_the_mouse_wheel_keys_and_fingers_each_move_the_camera(browser: Browser, page: Path):
    shown(browser, page, touch=True)
    at = browser.order("eval", code="lumefield.controls.goal.target.toArray()")
    about = np.array(at)
    ahead = np.array([0, 0, -1.0])

    def after(order: str, **rest: object) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        browser.order("eval", code="lumefield.look(0, { at: true })")
        before = browser.pose()
        browser.order(order, **rest)
        now = browser.pose()
        assert np.abs(now[0] - before[0]).max() > 0.05
        return before[0], now[0]

    was, now = after("mouse", x=240, y=180, to=[[330, 200]])
    assert np.linalg.norm(now - about) == pytest.approx(np.linalg.norm(was - about), rel=1e-4)
    was, now = after("mouse", x=240, y=180, to=[[300, 180]], button="right")
    assert now[0] < was[0]
    was, now = after("wheel", x=240, y=180, by=-300)
    assert np.linalg.norm(now - about) < 0.9 * np.linalg.norm(was - about)
    was, now = after("key", code="KeyW", ms=400)
    assert (now - was) @ ahead > 0
    assert (now - about) @ ahead > (was - about) @ ahead
    for code, side in (("KeyS", -ahead), ("KeyA", [-1, 0, 0]), ("KeyD", [1, 0, 0])):
        was, now = after("key", code=code, ms=400)
        assert (now - was) @ np.array(side) > 0, code
    was, now = after("key", code="ArrowLeft", ms=400)
    was, now = after("touch", **{"from": [[200, 180]], "to": [[300, 190]]})
    assert np.linalg.norm(now - about) == pytest.approx(np.linalg.norm(was - about), rel=1e-4)
    fingers = {"from": [[200, 180], [280, 180]], "to": [[140, 180], [340, 180]]}
    was, now = after("touch", **fingers)
    assert np.linalg.norm(now - about) < 0.7 * np.linalg.norm(was - about)


def test_flying_looks_about_without_moving(browser: Browser, page: Path):
    shown(browser, page)
    place, turn = browser.pose()
    browser.order("click", at="#fly")
    browser.order("mouse", x=240, y=120, to=[[320, 150]])
    now, turned = browser.pose()
    np.testing.assert_allclose(now, place, atol=1e-6)
    assert abs(turned @ turn) < 0.99


def test_the_list_of_views_jumps_to_what_the_camera_saw(browser: Browser, page: Path):
    shown(browser, page)
    browser.order("click", at="#list-button")
    names = "[...document.querySelectorAll('#camera-list button')].map((b) => b.textContent)"
    assert browser.order("eval", code=names) == ["front.jpgheld out", NASTY, "above.jpg"]
    browser.order("click", at="#camera-list li:nth-child(3) button")
    want = browser.order("eval", code="lumefield.config.cameras[2]")
    place, turn = browser.pose()
    np.testing.assert_allclose(place, want["position"], atol=1e-4)
    assert abs(turn @ want["rotation"]) == pytest.approx(1, abs=1e-5)
    browser.order("key", code="Digit2")
    want = browser.order("eval", code="lumefield.config.cameras[1]")
    np.testing.assert_allclose(browser.pose()[0], want["position"], atol=1e-4)


def test_names_from_files_run_nothing(browser: Browser, page: Path):
    shown(browser, page)
    assert browser.order("eval", code="typeof globalThis.broken") == "undefined"
    assert browser.order("eval", code="document.title") == NASTY


def test_the_poster_goes_and_nothing_is_drawn_at_rest(browser: Browser, page: Path):
    shown(browser, page)
    browser.order("wait", code="!document.getElementById('poster')", timeout=3000)
    frames = browser.order("eval", code="lumefield.frames")
    browser.order("wait", code="/at rest$/.test(document.getElementById('stats').textContent)")
    assert browser.order("eval", code="lumefield.frames") == frames


def test_a_damaged_scene_says_so_in_the_page(browser: Browser, page: Path, tmp_path: Path):
    text = page.read_text("utf-8")
    start = text.index('id="scene-0">') + len('id="scene-0">')
    broken = tmp_path / "broken.html"
    broken.write_text(text[:start] + "AAAA" + text[text.index("<", start) :], "utf-8")
    browser.order("open", url=broken.as_uri())
    browser.order("wait", code="!document.getElementById('error').hidden")
    told = browser.order("eval", code="document.getElementById('error').textContent")
    assert told.startswith("The scene could not be loaded")


def test_a_browser_that_cannot_draw_is_told_what_to_do(browser: Browser, page: Path):
    browser.order(
        "open", url=page.as_uri(), init="HTMLCanvasElement.prototype.getContext = () => null"
    )
    told = browser.order("eval", code="document.getElementById('error').textContent")
    assert "it needs WebGL 2. Use a current browser" in told


def test_without_a_headset_the_button_says_so(browser: Browser, page: Path):
    shown(browser, page)
    browser.order("wait", code="document.getElementById('vr').getAttribute('aria-disabled')")
    browser.order("eval", code="document.getElementById('vr').click()")
    told = browser.order("eval", code="document.getElementById('error').textContent")
    assert told.startswith("No headset found; connect one")


def test_the_button_saves_the_picture_that_is_seen(browser: Browser, page: Path):
    shown(browser, page)
    code = "HTMLAnchorElement.prototype.click = function () { globalThis.saved = this }"
    browser.order("eval", code=code)
    browser.order("click", at="#shot")
    browser.order("wait", code="globalThis.saved")
    name = browser.order("eval", code="saved.download")
    assert name == "_title_script_globalThis.broken_1_script_F_.png"
    size = """(async () => {
      const image = await createImageBitmap(await lumefield.stage.picture());
      return [image.width, image.height]; })()"""
    assert browser.order("eval", code=size) == list(SIZE)


def test_two_scenes_share_a_camera_and_a_line(
    browser: Browser, serve: Serve, tmp_path: Path, ours: list[Image]
):
    one, two = tmp_path / "one.ply", tmp_path / "two.spz"
    save_splats(golden(), one)
    save_splats(golden().taken(np.arange(10)), two)
    browser.show(serve(served((one, two))), width=SIZE[0], height=SIZE[1])
    browser.order("eval", code="lumefield.look(0, { at: true })")
    browser.rest()
    picture, half = browser.picture(), SIZE[0] // 2
    assert psnr(picture[:, :half], ours[0][:, :half]) > 36
    assert psnr(picture[:, half:], ours[0][:, half:]) < 20
    browser.order("mouse", x=240, y=100, to=[[400, 100]])
    browser.rest()
    assert psnr(browser.picture()[:, :390], ours[0][:, :390]) > 36
    browser.order("click", at="#split")
    browser.rest()
    beside = browser.picture().astype(int)
    letter = np.abs(beside - LETTER).max(-1) < 20
    assert letter[:, :half].sum() > 60 > letter[:, half:].sum()


def test_the_committed_bundle_is_what_its_sources_build(browser: Browser, tmp_path: Path):
    subprocess.run(
        ["node", "build.mjs", str(tmp_path)], cwd=ROOT / "viewer", check=True, capture_output=True
    )
    for file in sorted(tmp_path.iterdir()):
        built = hashlib.sha256(file.read_bytes()).hexdigest()
        assert hashlib.sha256(_page.asset(file.name)).hexdigest() == built, file.name
