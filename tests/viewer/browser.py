"""Headless Chromium for tests of the viewer, driven through ``viewer/drive.mjs``."""

import base64
import io
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).parents[2]
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")


class Browser:
    """One browser with one page; every order waits for its answer."""

    def __init__(self) -> None:
        node = shutil.which("node")
        if node is None:
            pytest.skip("needs Node (node is not on the path)")
        if not (ROOT / "viewer" / "node_modules" / "playwright-core").is_dir():
            pytest.skip("needs playwright-core; run `npm ci` in viewer/")
        if not Path(CHROMIUM).exists():
            pytest.skip(f"needs Chromium at {CHROMIUM}; set CHROMIUM to its path")
        self.process = subprocess.Popen(
            [node, str(ROOT / "viewer" / "drive.mjs")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "CHROMIUM": CHROMIUM},
        )

    def order(self, name: str, **rest: Any) -> Any:
        """Send one order and return its value."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"order": name, **rest}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert "error" not in answer, f"{name}: {answer['error']}\n{self.state()}"
        return answer["value"]

    def state(self) -> str:
        """What the page said, for the message of a failure."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write('{"order": "log"}\n')
        self.process.stdin.flush()
        return self.process.stdout.readline()[:2000]

    def show(self, url: str, **how: Any) -> None:
        """Open a viewer page and wait until its scene is drawn and nothing moves."""
        self.order("open", url=url, **how)
        self.order(
            "wait", code="globalThis.lumefield?.shown || !document.getElementById('error').hidden"
        )
        message = self.order("eval", code="document.getElementById('error').textContent")
        assert message == "", f"{message}\n{self.state()}"
        self.rest()

    def rest(self) -> None:
        """Wait until nothing moves, loads or sorts."""
        self.order("wait", code="lumefield.idle")

    def pose(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Position (3,) and rotation (4,) xyzw of the flat camera, once it rests."""
        self.rest()
        found = self.order("eval", code="lumefield.pose()")
        return np.array(found["position"]), np.array(found["rotation"])

    def picture(self) -> NDArray[np.uint8]:
        """The canvas [H, W, 3] without the page's buttons."""
        code = """(async () => {
          const blob = await lumefield.stage.picture();
          const bytes = new Uint8Array(await blob.arrayBuffer());
          return btoa(Array.from(bytes, (b) => String.fromCharCode(b)).join(""));
        })()"""
        with Image.open(io.BytesIO(base64.b64decode(self.order("eval", code=code)))) as image:
            return np.asarray(image.convert("RGB"))

    def close(self) -> None:
        """End the browser."""
        if self.process.stdin is not None and self.process.poll() is None:
            self.process.stdin.write('{"order": "close"}\n')
            self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
