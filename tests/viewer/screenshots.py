"""Pictures of viewer, report and dashboard for the documentation: ``make screenshots [RUN=...]``.

The scene is the demo's, which is trained first where it is not there.
"""

import json
import sys
import tempfile
import threading
from pathlib import Path

from PIL import Image

from lumefield.apps._capture import capture
from lumefield.apps._export_html import write_html
from lumefield.apps._export_prune import contributions, strongest
from lumefield.apps._frame import WorldFrame
from lumefield.apps._live import board_words
from lumefield.apps._live_dashboard import Dashboard, Wishes
from lumefield.apps._live_splats import frusta, shown
from lumefield.apps._paths import world_up
from lumefield.apps._scene_io import Scene, load_scene
from lumefield.apps._view import scene_table
from lumefield.apps._view_server import open_server
from lumefield.apps._views import capture_views
from lumefield.codecs.formats import save_splats
from tests.viewer.browser import ROOT, Browser

IMAGES = ROOT / "docs" / "images"
MAX_BYTES = 200_000
VIEW = 3
"""Camera of the capture that is shown."""


def main() -> None:
    """Make every picture."""
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "lumefield-demo/run")
    if not (run / "scene.ply").is_file():
        from lumefield.apps._demo import Demo, demo

        run = demo(Demo(out=run.parent))
    scene, browser = load_scene(run), Browser()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        try:
            _flat(browser, scene, scratch)
            _headset(browser, scratch)
            _compared(browser, scene, scratch)
            _report(browser, run, scratch)
            _dashboard(browser, run, scene, scratch)
        finally:
            browser.close()


def _flat(browser: Browser, scene: Scene, scratch: Path) -> None:
    page = scratch / "demo.html"
    write_html(scene.splats, scene.views, page, title="lumefield demo", background=scene.background)
    browser.show(page.as_uri(), width=960, height=600)
    browser.order("eval", code=f"lumefield.look({VIEW}, {{ at: true }})")
    browser.rest()
    browser.order("eval", code="document.getElementById('list-button').click()")
    _kept(browser, scratch, "viewer.jpg")
    browser.show(page.as_uri(), width=360, height=640, touch=True)
    browser.order("eval", code=f"lumefield.look({VIEW}, {{ at: true }})")
    _kept(browser, scratch, "viewer-phone.jpg")


def _headset(browser: Browser, scratch: Path) -> None:
    """Both eyes, a hand aiming at where to go."""
    browser.show((scratch / "demo.html").as_uri(), width=960, height=560, headset=True)
    browser.order("eval", code=f"lumefield.look({VIEW}, {{ at: true }})")
    browser.rest()
    browser.order("click", at="#vr")
    browser.order("wait", code="lumefield.vr.session && lumefield.vr.placed")
    hand = "headset.controllers.right"
    turn = "Math.sin(-0.12), 0, 0, Math.cos(-0.12)"
    for code in (
        f"{hand}.position.set(0.12, 1.35, -0.3)",
        f"{hand}.quaternion.set({turn})",
        f"headset.quaternion.set({turn})",
        f"{hand}.updateButtonValue('trigger', 1)",
    ):
        browser.order("eval", code=code)
    until = browser.order("eval", code="lumefield.frames") + 8
    browser.order("wait", code=f"lumefield.frames > {until}")
    _kept(browser, scratch, "viewer-vr.jpg", rest=False)


def _compared(browser: Browser, scene: Scene, scratch: Path) -> None:
    """The scene beside what a fifth of its Gaussians shows."""
    assert scene.run is not None, "the demo is a run"
    assert scene.views is not None, "the demo is a run"
    few = scratch / "the strongest fifth.spz"
    views = scene.views.pick(list(range(0, len(scene.views), 4)))
    weight = contributions(scene.splats, views, lambda what, part: None)
    save_splats(scene.splats.taken(strongest(weight, len(weight) // 5)[0]), few)
    with open_server(scene_table((scene.run, few))[0], "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        browser.show(url, width=960, height=560)
        browser.order("eval", code=f"lumefield.look({VIEW}, {{ at: true }})")
        _kept(browser, scratch, "viewer-compare.jpg")
        server.shutdown()


def _report(browser: Browser, run: Path, scratch: Path) -> None:
    browser.order("open", url=(run.resolve() / "report.html").as_uri(), width=960, height=900)
    browser.order("wait", code="[...document.images].every((image) => image.complete)")
    _kept(browser, scratch, "report.jpg", rest=False)


def _dashboard(browser: Browser, run: Path, scene: Scene, scratch: Path) -> None:
    """The demo's training as it was at its end: its scene, its photos, its log."""
    photos = capture(run.parent / "photos", cache=run / "capture", downscale=2)
    frame = WorldFrame.of_cameras(photos.world_from_cam)
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    with open_server({}, "127.0.0.1", None) as probe:
        port = int(probe.server_address[1])
    board = Dashboard("127.0.0.1", port, Wishes(), ("127.0.0.1",))
    try:
        up = world_up(capture_views(photos))
        board.begin(frusta(photos, frame), up, "http://127.0.0.1:8401/")
        board.show(shown(scene.splats, frame, most=200_000, floor=0.02, size=1.0))
        last = log[-1]["step"]
        board.tell(board_words("training", log[:-1], last), log[-2]["step"] / last)
        browser.order("open", url=f"http://127.0.0.1:{port}/", width=1100, height=720)
        browser.order("wait", code="document.body.innerText.includes('it/s')")
        board.plot(log[:-1])
        browser.order("wait", code="document.body.innerText.includes('PSNR of held-out')")
        close = "document.querySelectorAll('.mantine-Notification-closeButton')"
        browser.order("wait", code=f"{close}.length", timeout=10_000)
        browser.order("eval", code=f"{close}.forEach((b) => b.click())")
        settled = "globalThis.until ??= Date.now() + 15_000, Date.now() > globalThis.until"
        browser.order("wait", code=settled)
        _kept(browser, scratch, "viewer-training.jpg", rest=False)
    finally:
        board.close()


def _kept(browser: Browser, scratch: Path, name: str, *, rest: bool = True) -> None:
    if rest:
        browser.rest()
        browser.order("wait", code="!document.getElementById('poster')")
    shot = scratch / "shot.png"
    browser.order("shot", path=str(shot))
    with Image.open(shot) as image:
        for quality in (88, 80, 70, 60):
            image.convert("RGB").save(IMAGES / name, quality=quality, optimize=True)
            if (IMAGES / name).stat().st_size < MAX_BYTES:
                break
    print(f"{name}: {(IMAGES / name).stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
