"""A browser of the live view that draws nothing: it connects, receives, and presses buttons."""

import threading
import time
from typing import Any

import msgspec
import viser
import zstandard
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

CAMERA = {
    "type": "ViewerCameraMessage",
    "wxyz": [1.0, 0.0, 0.0, 0.0],
    "position": [0.0, 0.0, 0.0],
    "fov": 1.0,
    "near": 0.01,
    "far": 100.0,
    "image_height": 100,
    "image_width": 100,
    "look_at": [0.0, 0.0, 1.0],
    "up_direction": [0.0, 0.0, 1.0],
}
"""What makes viser count a browser as connected."""


def joined(url: str, origin: str | None = None) -> ClientConnection:
    """A web socket to the dashboard at ``url``, as a page of ``origin`` would open it."""
    return connect(
        url.replace("http", "ws"),
        subprotocols=[Subprotocol(f"viser-v{viser.__version__}")],
        origin=Origin(url.rstrip("/") if origin is None else origin),
        max_size=None,
    )


class Client:
    """One that is connected until it is closed or the server goes."""

    def __init__(self, url: str) -> None:
        self.bytes = 0
        self.splats: list[int] = []
        """Number of Gaussians of each scene, as received."""
        self.text: dict[str, str] = {}
        """Words by the name of their element."""
        self.buttons: dict[str, str] = {}
        """Label -> name of the element; of sliders and boxes, too."""
        self.frusta = 0
        self._socket = joined(url)
        self._send(CAMERA)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def wait(self, what: str, seconds: float = 60.0) -> None:
        """Until the words of some element hold ``what``."""
        until = time.monotonic() + seconds
        while not any(what in text for text in list(self.text.values())):
            assert time.monotonic() < until, (what, self.text)
            time.sleep(0.02)

    def press(self, label: str, value: float = True, seconds: float = 30.0) -> None:
        """Click a button, or move a slider."""
        until = time.monotonic() + seconds
        while label not in self.buttons:
            assert time.monotonic() < until, (label, self.buttons)
            time.sleep(0.02)
        updates = {"uuid": self.buttons[label], "updates": {"value": value}}
        self._send({"type": "GuiUpdateMessage", **updates})

    def close(self) -> None:
        """Leave."""
        self._socket.close()
        self._thread.join(5)

    def _send(self, message: dict[str, Any]) -> None:
        self._socket.send(msgspec.msgpack.encode(message))

    def _listen(self) -> None:
        try:
            for packet in self._socket:
                assert isinstance(packet, bytes)
                self.bytes += len(packet)
                size = int.from_bytes(packet[8:16], "little")
                inner = zstandard.ZstdDecompressor().decompress(packet[16 : 16 + size])
                content = msgspec.msgpack.decode(inner)
                for message in content["messages"]:
                    self._read(message, content["binaryBufferLengths"])
        except ConnectionClosed:
            pass

    def _read(self, message: dict[str, Any], lengths: list[int]) -> None:
        kind, uuid = message["type"], str(message.get("uuid"))
        changed: dict[str, Any] = message.get("props") or message.get("updates") or {}
        if kind == "CameraFrustumMessage":
            self.frusta += 1
        if "buffer" in changed:
            self.splats.append(lengths[changed["buffer"]["__binary_index"]] // 32)
        if "_markdown" in changed:
            self.text[uuid] = changed["_markdown"]
        if "label" in changed and "uuid" in message:
            self.buttons = {k: v for k, v in self.buttons.items() if v != uuid}
            self.buttons[changed["label"]] = uuid
