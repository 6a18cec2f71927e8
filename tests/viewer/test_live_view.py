"""``train --view`` in a real browser: what is seen, what its buttons do, what it costs."""

import contextlib
import io
import json
import os
import re
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lumefield.apps._live import Live
from tests.apps.live_client import Client
from tests.apps.train_cases import ROOT, command, environment, posed_room, train_here
from tests.viewer.browser import Browser

pytestmark = pytest.mark.slow

TEXT = "document.body.innerText"
FOREVER = 1_000_000
"""Steps."""


class Training:
    """The command in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.out = folder / "run"
        words = ("--max-gaussians", 2000, "--steps", FOREVER, "--view")
        room = posed_room(folder / "room", sizes=((120, 84),) * 9)
        self.process = subprocess.Popen(
            command("train", room, "--out", self.out, *words),
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(),
        )
        self.said = io.StringIO()
        self.board, self.page = (self._address() for _ in range(2))
        threading.Thread(target=self._listen, daemon=True).start()

    def _address(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"http://\S+", line):
                return found[0]
        raise AssertionError("no address was said")

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.write(line)

    def begun(self) -> str:
        """Address of the page, once it has a scene."""
        until = time.monotonic() + 60
        while b"live.json" not in urllib.request.urlopen(self.page).read():
            assert time.monotonic() < until
            time.sleep(0.1)
        return self.page

    def step(self) -> int:
        """Of the last line of the log."""
        lines = (self.out / "log.jsonl").read_text().splitlines()
        return json.loads(lines[-1])["step"]


@pytest.fixture
def training(tmp_path: Path, browser: Browser) -> Iterator[Training]:
    """One that goes on until it is stopped."""
    del browser  # skips where there is none
    found = Training(tmp_path)
    yield found
    found.process.kill()
    found.process.communicate()


def coloured(browser: Browser, scratch: Path) -> float:
    """Share of the middle of the dashboard where something is drawn on its dark ground."""
    browser.order("shot", path=str(scratch / "shot.png"))
    with Image.open(scratch / "shot.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    height, width = pixels.shape[:2]
    middle = pixels[height // 4 : -height // 4, width // 4 : width // 2]
    return float((np.abs(middle - 16).max(-1) > 24).mean())


def test_the_dashboard_shows_splats_soon_and_its_buttons_pause_and_stop(
    training: Training, browser: Browser, tmp_path: Path
):
    browser.order("open", url=training.board, width=1000, height=700)
    browser.order("wait", code=f"{TEXT}.includes('Compiling') || {TEXT}.includes(', step')")
    start = time.monotonic()
    browser.order("eval", code="document.querySelector('input[type=checkbox]').click()")  # photos
    while coloured(browser, tmp_path) < 0.2:
        assert time.monotonic() - start < 10
    for words in ("it/s", "PSNR of training photos", "2,000 Gaussians"):
        browser.order("wait", code=f"{TEXT}.includes('{words}')")
    browser.order("click", at="button:has-text('Pause')")
    browser.order("wait", code=f"{TEXT}.includes('Paused, step')")
    held = training.step()
    time.sleep(2)
    assert training.step() == held
    browser.order("click", at="button:has-text('Resume')")
    browser.order("wait", code=f"{TEXT}.includes('Training, step')")
    until = time.monotonic() + 30
    while training.step() == held:
        assert time.monotonic() < until
        time.sleep(0.05)
    browser.order("click", at="button:has-text('Stop and finish')")
    assert training.process.wait(60) == 0
    metrics = json.loads((training.out / "metrics.json").read_text())
    assert held < metrics["steps"] < FOREVER
    assert "as asked for in the live view" in training.said.getvalue()
    asked = {url.split("/")[2] for url in browser.order("requests") if url.startswith("http")}
    assert asked == {training.board.split("/")[2]}


def test_the_page_follows_the_training_and_its_camera_stays(training: Training, browser: Browser):
    browser.order("open", url=training.begun())
    browser.order("wait", code="globalThis.lumefield?.live")
    browser.order("mouse", x=240, y=180, to=[[330, 200]])
    before = browser.pose()
    browser.order("wait", code="lumefield.live.swaps >= 2")
    for was, now in zip(before, browser.pose(), strict=True):
        np.testing.assert_array_equal(was, now)
    assert (browser.picture().max(-1) > 40).mean() > 0.2
    browser.order(
        "wait",
        code=r"/training: step [\d,]+ of/.test(document.getElementById('stats').textContent)",
    )
    asked = {url.split("/")[2] for url in browser.order("requests") if url.startswith("http")}
    assert asked == {training.page.split("/")[2]}
    assert browser.order("log") == []
    training.process.terminate()
    browser.order("wait", code=f"{TEXT}.includes('the training has ended')")


def test_a_headset_stays_on_while_scenes_are_exchanged(training: Training, browser: Browser):
    browser.order("open", url=training.begun(), headset=True)
    browser.order("wait", code="globalThis.lumefield?.live")
    browser.order("click", at="#vr")
    browser.order("wait", code="lumefield.vr.session && lumefield.vr.placed")
    place = browser.order("eval", code="lumefield.vr.offset.toArray()")
    swaps = browser.order("eval", code="lumefield.live.swaps")
    browser.order("wait", code=f"lumefield.live.swaps > {swaps}")
    assert browser.order("eval", code="lumefield.stage.renderer.xr.isPresenting") is True
    assert browser.order("eval", code="lumefield.vr.offset.toArray()") == place
    browser.order("eval", code="lumefield.vr.leave()")


def cpu_seconds(threads: set[int]) -> float:
    """Processor time of some threads of this process."""
    total = 0
    for thread in threads:
        with contextlib.suppress(OSError):  # one that has just ended
            fields = Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux' /proc")
def test_one_client_takes_at_most_a_twentieth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    room = posed_room(tmp_path / "room", sizes=((240, 168),) * 9)
    marks: list[tuple[float, float]] = []
    clients: list[Client] = []
    original = Live.look

    def look(self: Live, keeper: Any, line: Any) -> bool:
        self.wishes.seconds = 1.0
        if not clients:
            clients.append(Client(f"http://127.0.0.1:{self.board.port}/"))
        news = f"http://127.0.0.1:{self.page.port}/live.json"
        urllib.request.urlopen(news).read()  # as an open page does
        ours = {
            t.native_id
            for t in threading.enumerate()
            if t.native_id and t is not threading.main_thread() and "_listen" not in t.name
        }
        marks.append((cpu_seconds(ours), time.process_time()))
        return original(self, keeper, line)

    monkeypatch.setattr(Live, "look", look)
    words = ("--steps", 500, "--max-gaussians", 10_000)
    assert train_here(room, "--out", tmp_path / "out", *words, "--view") == 0
    clients[0].close()
    assert len(clients[0].splats) > 2
    spent = np.diff(np.array(marks[2:]), axis=0).sum(0)
    print(f"{spent[0]:.2f} of {spent[1]:.2f} CPU-s, {len(clients[0].splats)} scenes")
    assert spent[0] / spent[1] < 0.05
