"""One browser for all tests of the viewer, the golden scene and its cameras."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

import pytest

from lumefield.apps._export_html import write_html
from lumefield.apps._view_server import Served, open_server
from tests.codecs.golden import golden
from tests.viewer.browser import Browser
from tests.viewer.golden_page import BACKGROUND, NASTY, Serve, cameras


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium; skips where it, Node or playwright-core is absent."""
    found = Browser()
    yield found
    found.close()


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden scene as one file, with a name that is not harmless."""
    out = tmp_path_factory.mktemp("page") / "small.html"
    write_html(golden(), cameras(), out, title=NASTY, background=BACKGROUND)
    return out


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A function that serves a table and returns its address."""
    with ExitStack() as stack:

        def start(table: Served) -> str:
            server = stack.enter_context(open_server(table, "127.0.0.1", 0))
            stack.callback(server.shutdown)
            Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            return f"http://127.0.0.1:{server.server_address[1]}/"

        yield start
