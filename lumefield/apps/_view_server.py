"""A web server for a fixed table of names: nothing outside the table can be asked for."""

import http.server
import ipaddress
import math
import socket
import sys
import threading
import time
import webbrowser
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from lumefield.errors import InputError

if TYPE_CHECKING:
    from lumefield.apps._view import View

Served = dict[str, tuple[str, bytes]]
"""Path in the address -> media type and bytes; all there is to be had."""

FIRST_PORT, TRIES = 8400, 50
_CHUNK = 1 << 20


class Server(http.server.ThreadingHTTPServer):
    """Serves ``table``; a port in use is an error rather than shared."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, host: str, port: int, table: Served) -> None:
        self.table, self.address = table, host
        self.asked_at = -math.inf
        """When something was last asked for, by the monotonic clock."""
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """A browser that goes away, or does not trust our certificate, is no news."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "lumefield", ""
    timeout = 60

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        """The whole path must be in the table, letter by letter; only a query is cut off."""
        if not self._own_host():
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return
        self._served().asked_at = time.monotonic()
        found = self._served().table.get(self.path.partition("?")[0])
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        kind, data = found
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        for start in range(0, len(data) if body else 0, _CHUNK):
            self.wfile.write(memoryview(data)[start : start + _CHUNK])  # each within the timeout

    def _own_host(self) -> bool:
        """On a loopback address, whether it was asked for by a name of this machine.

        Else a page of another site could point its own name at us and read the scene.
        """
        ours = self._served().address
        if not ipaddress.ip_address(ours).is_loopback:
            return True
        name = self.headers.get("Host", "").strip().rpartition(":")[0] or self.headers.get(
            "Host", ""
        )
        return name.strip("[]") in ("localhost", "127.0.0.1", "::1", ours)

    def _served(self) -> Server:
        assert isinstance(self.server, Server), "handles the requests of our server only"
        return self.server

    def end_headers(self) -> None:
        """Send what every answer carries."""
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Referrer-Policy", "no-referrer")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not news."""


def open_server(table: Served, host: str, port: int | None) -> Server:
    """A server that listens.

    Args:
        table: What it gives out.
        host: Address to listen on, numeric or a name.
        port: Port, 0 for any; the first free one from 8400 on when None.

    Raises:
        InputError: If the address is not of this machine, or the port is taken.
    """
    try:
        address = str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except (OSError, UnicodeError):
        raise InputError(
            f"--host {host}: no such address; use 127.0.0.1 for this machine, 0.0.0.0 for all"
        ) from None
    reason = ""
    ports = [port] if port is not None else [*range(FIRST_PORT, FIRST_PORT + TRIES), 0]
    for tried in ports:
        try:
            return Server(address, tried, table)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
    raise InputError(
        f"--host {host} --port {ports[0]}: {reason.lower()}; give another port or address"
    )


def serve(table: Served, told: str, settings: "View") -> None:
    """Serve until interrupted, and say where.

    Raises:
        InputError: If the address, the port or https cannot be had.
    """
    server = open_server(table, settings.host, settings.port)
    with server:
        host, port = server.server_address[:2]
        names = addresses(str(host))
        if settings.https:
            from lumefield.apps._view_https import certified

            context = certified(names)
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        scheme = "https" if settings.https else "http"
        urls = [address(n, port, scheme) for n in names]
        for line in announcement(told, urls, settings):
            print(line, flush=True)
        if not settings.no_browser:
            threading.Thread(target=webbrowser.open, args=(urls[0],), daemon=True).start()
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            print("\nstopped", flush=True)


def announcement(told: str, urls: list[str], settings: "View") -> list[str]:
    """What a person is told when the server runs."""
    lines = [told, *(f"  {url}" for url in urls)]
    if settings.https:
        lines.append("the certificate is our own: the browser warns once, choose to go on")
    elif len(urls) > 1 or not _local(urls[0]):
        lines.append("VR in a headset needs --https (or `adb reverse` over USB)")
    return [*lines, "Ctrl-C stops"]


def addresses(host: str) -> list[str]:
    """Names to reach a server by that listens on ``host``, nearest first; never empty."""
    if not ipaddress.ip_address(host).is_unspecified:
        return [host]
    found = ["localhost"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a datagram socket sends nothing when it connects
            found.append(str(probe.getsockname()[0]))
        except OSError:
            pass  # in no network
    return found


def address(name: str, port: int, scheme: str = "http") -> str:
    """Where a browser finds a server."""
    return f"{scheme}://{f'[{name}]' if ':' in name else name}:{port}/"


def _local(url: str) -> bool:
    return any(name in url for name in ("//localhost:", "//127.0.0.1:", "//[::1]:"))
