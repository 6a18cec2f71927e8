"""The page of ``view`` for a training: its scene is replaced while somebody looks."""

import json
import threading
import time
from typing import Any

from lumefield.apps._export_html import file_bytes
from lumefield.apps._page import Part, asset, scene_stand, served_page, settings
from lumefield.apps._view_server import Served, Server, open_server
from lumefield.apps._views import Views
from lumefield.codecs.formats import Splats

NEWS = "live.json"
EVERY = 2.0
"""Seconds after which the page asks again."""
_AWAY = 8.0
"""Seconds of silence after which nobody looks any more; hidden pages do not ask."""
_KEPT = 3
"""Scenes that can still be had, for pages that were told of them a moment ago."""
_HTML = "text/html; charset=utf-8"
_WAITING = b"""<!doctype html><meta http-equiv="refresh" content="2"><title>lumefield</title>
<link rel="icon" href="data:,">
<body style="background:#101214; color:#ddd; font:16px system-ui; padding:2em">
The cameras of the photos are being found. The scene appears here when the training starts."""


class LivePage:
    """A server of one page, whose table of names is exchanged as a whole."""

    def __init__(self, host: str, title: str, *, compact: bool) -> None:
        """Listen; before there is a scene the page says so.

        Args:
            host: Address to listen on.
            title: What the page is called.
            compact: Whether to send scenes as SPZ, a tenth of a PLY's size and slower to make.

        Raises:
            InputError: If the address cannot be had.
            RunError: If the viewer was not built into the package.
        """
        self._title, self._kind = title, "spz" if compact else "ply"
        self._script = asset("bundle.js")
        self._record: dict[str, Any] = {}
        self._scenes: dict[str, bytes] = {}
        self._words = ""
        self._server: Server = open_server({"/": (_HTML, _WAITING)}, host, None)
        threading.Thread(target=self._server.serve_forever, args=(0.2,), daemon=True).start()

    @property
    def host(self) -> str:
        """Address that it listens on."""
        return self._server.address

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def watched(self) -> bool:
        """Whether a page is open and in sight."""
        return time.monotonic() - self._server.asked_at < _AWAY

    def begin(self, first: Splats, views: Views, background: tuple[float, ...]) -> None:
        """Decide how the scene stands, for good: later scenes do not move the camera.

        Args:
            first: What is seen at first, in the user's world; at least one Gaussian.
            views: Cameras of the capture.
            background: Display sRGB behind the scene.
        """
        at, views = scene_stand(first, views)
        part = Part(self._title, self._kind, 0, 0, first.antialiased, {})
        self._record = settings(self._title, [part], at, views, background)
        self._record["live"] = {"url": NEWS, "every": EVERY}
        self.show(first, 0)

    def show(self, splats: Splats, step: int) -> None:
        """Have another scene served; pages fetch it when they next ask."""
        body = file_bytes(splats, f".{self._kind}")
        url = f"scene-{step}.{self._kind}"
        self._scenes = dict([*self._scenes.items(), (url, body)][-_KEPT:])
        told = {"url": url, "count": len(splats.means), "bytes": len(body)}
        (scene,) = self._record["scenes"]
        self._record["scenes"] = [{**scene, **told}]
        data = "application/octet-stream"
        table: Served = {f"/{url}": (data, body) for url, body in self._scenes.items()}
        table["/"] = (_HTML, served_page(self._record))
        table["/bundle.js"] = ("text/javascript; charset=utf-8", self._script)
        self._publish(table)

    def tell(self, words: str) -> None:
        """Have the page say how far the training is."""
        self._words = words
        if self._record:
            self._publish(self._server.table)

    def _publish(self, table: Served) -> None:
        """The whole table at once: requests come in other threads."""
        news = {"words": self._words, "scene": self._record["scenes"][0]}
        entry = ("application/json", json.dumps(news).encode())
        self._server.table = {**table, f"/{NEWS}": entry}

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
