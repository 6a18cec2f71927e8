"""``view``: what is served, what is not, and what is refused."""

import contextlib
import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from lumefield.apps import _view_https
from lumefield.apps._cli import main
from lumefield.apps._view import View, readable, scene_table
from lumefield.apps._view_server import Server, addresses, announcement, open_server
from lumefield.codecs.formats import load_splats, save_splats
from lumefield.errors import InputError
from tests.apps.test_export_html import record_of, splats


@pytest.fixture
def server(run: Path) -> Iterator[Server]:
    """The run, served."""
    table, _ = scene_table((run,))
    with open_server(table, "127.0.0.1", 0) as found:
        Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield found
        found.shutdown()


def asked(server: Server, path: str, method: str = "GET", host: str | None = None):
    """Status, headers and body of one request, its path sent as it is."""
    link = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    try:
        link.putrequest(method, path, skip_host=True)
        link.putheader("Host", host or f"localhost:{server.server_address[1]}")
        link.endheaders()
        answer = link.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        link.close()


def test_the_page_its_script_and_the_scene_are_served_and_nothing_else(server: Server, run: Path):
    assert set(server.table) == {"/", "/bundle.js", "/scene-0.ply"}
    status, headers, body = asked(server, "/?from=test")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["X-Content-Type-Options"] == "nosniff"
    record = record_of(body.decode())
    assert record["scenes"][0]["url"] == "scene-0.ply"
    assert "script-src 'self'" in body.decode()
    assert asked(server, "/scene-0.ply")[2] == (run / "scene.ply").read_bytes()


def test_head_gives_the_length_without_the_bytes(server: Server):
    status, headers, body = asked(server, "/bundle.js", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 1_000_000


@pytest.mark.parametrize(
    "path",
    [
        "/config.json",
        "/scene.ply",
        "/../config.json",
        "/scene-0.ply/../../config.json",
        "/..%2fconfig.json",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/....//....//etc/passwd",
        "/\\..\\..\\etc\\passwd",
        "/scene-0.ply%00",
        "/bundle.js/",
        "/./bundle.js",
        "file:///etc/passwd",
        "http://127.0.0.1/etc/passwd",
        "/" + "a" * 60_000,
        "*",
    ],
)
def test_no_path_outside_the_table_isreadable(server: Server, path: str):
    status, _, body = asked(server, path)
    assert status in (400, 404)
    assert b"root:" not in body
    assert b"seed" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_only_get_and_head_are_answered(server: Server, method: str):
    assert asked(server, "/", method)[0] == 501


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example:1"])
def test_a_page_of_another_name_cannot_read_a_local_server(server: Server, host: str):
    assert asked(server, "/", host=host)[0] == 421


def test_a_server_for_the_network_answers_to_any_name(run: Path):
    with open_server({"/": ("text/html", b"x")}, "0.0.0.0", 0) as found:
        Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        assert asked(found, "/", host="box.local:80")[0] == 200
        found.shutdown()


def test_a_scene_is_served_without_jax(run: Path):
    code = (
        "import sys, pathlib; from lumefield.apps._view import scene_table;"
        "scene_table((pathlib.Path(sys.argv[1]),), compact=True); print('jax' in sys.modules)"
    )
    words = [sys.executable, "-c", code, str(run)]
    out = subprocess.run(words, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_two_scenes_are_compared_from_the_cameras_of_the_first(run: Path, tmp_path: Path):
    other = tmp_path / "b.spz"
    save_splats(load_splats(run / "scene.ply"), other)
    table, told = scene_table((run, other))
    record = record_of(table["/"][1].decode())
    assert [scene["url"] for scene in record["scenes"]] == ["scene-0.ply", "scene-1.spz"]
    assert len(record["cameras"]) == 10
    assert told.startswith("run <1>: 60 Gaussians")
    assert ", b.spz: 60 Gaussians" in told


def test_two_scenes_of_one_name_are_told_apart_by_their_folders(run: Path, tmp_path: Path):
    other = tmp_path / "older" / run.name
    other.mkdir(parents=True)
    save_splats(load_splats(run / "scene.ply"), other / "scene.ply")
    record = record_of(scene_table((run, other))[0]["/"][1].decode())
    found = [scene["name"] for scene in record["scenes"]]
    assert found == [f"{tmp_path.name}/run <1>", "older/run <1>"]


def test_scenes_for_the_network_travel_as_spz(run: Path):
    table, _ = scene_table((run,), compact=True)
    assert table["/scene-0.spz"][1][:2] == b"\x1f\x8b"


@pytest.mark.parametrize(
    ("suffix", "kind"), [(".splat", "splat"), (".sog", "sog"), (".glb", "spz"), (".spz", "spz")]
)
def test_files_are_sent_as_they_are_where_the_page_reads_them(tmp_path: Path, suffix, kind):
    file = tmp_path / f"scene{suffix}"
    save_splats(splats(), file)
    body = scene_table((file,))[0][f"/scene-0.{kind}"][1]
    assert (body == file.read_bytes()) is (kind == suffix[1:])


def test_a_scene_that_the_page_cannot_read_is_sent_as_spz(run: Path, tmp_path: Path):
    newer = tmp_path / "v4.spz"
    newer.write_bytes(b"NGSP\x04\0\0\0")
    assert not readable(newer)
    assert not readable(tmp_path / "a.glb")
    assert readable(run / "scene.ply")


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line of an error of ``view``."""
    assert main(["view", *words, "--no-browser"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_wrong_scenes_are_refused_in_one_line(run: Path, tmp_path: Path, capsys):
    page, empty = tmp_path / "a.html", tmp_path / "none.ply"
    page.write_text("x")
    save_splats(splats(0), empty)
    text = tmp_path / "a.txt"
    text.write_text("x")
    one = str(run)
    assert "no such file or folder; give a run" in refused(capsys, str(tmp_path / "no"))
    assert "3 scenes, expected one, or two to compare" in refused(capsys, one, one, one)
    assert "0 scenes, expected one" in refused(capsys)
    assert "an .html page cannot be compared" in refused(capsys, one, str(page))
    assert "not a scene; expected a run folder or one of" in refused(capsys, str(text))
    assert "holds no scene.ply" in refused(capsys, str(tmp_path))
    assert "holds no Gaussians" in refused(capsys, str(empty))


def test_wrong_ports_and_addresses_are_refused_in_one_line(run: Path, capsys):
    assert "--port 70000, expected 0 to 65535" in refused(capsys, str(run), "--port", "70000")
    assert "no such address; use 127.0.0.1" in refused(capsys, str(run), "--host", "no host")
    assert "give another port or address" in refused(capsys, str(run), "--host", "203.0.113.7")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert "in use; give another port" in refused(capsys, str(run), "--port", port)


def test_a_port_that_is_taken_is_passed_over_where_none_is_asked_for():
    with open_server({}, "127.0.0.1", None) as one, open_server({}, "127.0.0.1", None) as two:
        assert one.server_address[1] != two.server_address[1]


@pytest.mark.parametrize(
    ("urls", "https", "line"),
    [
        (["http://127.0.0.1:8400/"], False, None),
        (["http://localhost:1/", "http://192.0.2.2:1/"], False, "VR in a headset needs --https"),
        (["https://localhost:1/", "https://192.0.2.2:1/"], True, "the browser warns once"),
    ],
)
def test_what_a_headset_needs_is_said(urls: list[str], https: bool, line: str | None):
    told = announcement("a", urls, View((Path("a"),), https=https))
    assert [u for u in urls if f"  {u}" in told] == urls
    assert told[-1] == "Ctrl-C stops"
    assert (len(told) == len(urls) + 2) if line is None else any(line in t for t in told)


def test_a_server_for_every_network_is_reached_as_localhost_first():
    assert addresses("0.0.0.0")[0] == "localhost"
    assert addresses("127.0.0.1") == ["127.0.0.1"]


@contextlib.contextmanager
def command(run: Path, *words: str) -> "Generator[subprocess.Popen[str]]":
    """The command at work; it hears Ctrl-C where the tests run in the background, too."""
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from lumefield.apps._cli import main; sys.exit(main())"
    )
    words = ("view", str(run), "--no-browser", "--port", "0", *words)
    line = [sys.executable, "-c", code, *words]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_command_says_where_and_ends_cleanly_when_interrupted(run: Path):
    with command(run) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("run <1>: 60 Gaussians")
        url = process.stdout.readline().strip()
        link = http.client.HTTPConnection(url.removeprefix("http://").strip("/"), timeout=10)
        link.request("GET", "/")
        assert link.getresponse().status == 200
        link.close()
        process.send_signal(signal.SIGINT)
        assert process.stdout.read().endswith("stopped\n")
        assert process.wait(10) == 0


def test_a_finished_page_is_served_as_it_is(tmp_path: Path):
    page = tmp_path / "page.html"
    page.write_bytes(b"<p>page")
    with command(page) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "page.html"
        url = process.stdout.readline().strip()
        link = http.client.HTTPConnection(url.removeprefix("http://").strip("/"), timeout=10)
        link.request("GET", "/")
        assert link.getresponse().read() == b"<p>page"
        link.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


@pytest.fixture
def certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    if not _view_https.shutil.which("openssl"):
        pytest.skip("needs the openssl program")
    monkeypatch.setenv("LUMEFIELD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "https"


def test_https_is_served_under_a_certificate_for_our_names_only(certificates: Path):
    server_side = _view_https.certified(["localhost", "127.0.0.1"])
    (file,) = certificates.glob("*.pem")
    assert file.stat().st_mode & 0o077 == 0
    client = ssl.create_default_context(cafile=str(file))
    with open_server({"/": ("text/plain", b"safe")}, "127.0.0.1", 0) as found:
        found.socket = server_side.wrap_socket(
            found.socket, server_side=True, do_handshake_on_connect=False
        )
        Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        for name in ("localhost", "127.0.0.1"):
            link = http.client.HTTPSConnection(
                name, found.server_address[1], timeout=10, context=client
            )
            link.request("GET", "/")
            assert link.getresponse().read() == b"safe"
            link.close()
        found.shutdown()


def test_a_certificate_is_used_again_and_a_damaged_or_old_one_is_made_anew(certificates: Path):
    _view_https.certified(["localhost"])
    (file,) = certificates.glob("*.pem")
    first = file.read_bytes()
    _view_https.certified(["localhost"])
    assert file.read_bytes() == first
    file.write_bytes(b"damaged")
    _view_https.certified(["localhost"])
    second = file.read_bytes()
    assert second.startswith(b"-----BEGIN")
    old = file.stat().st_mtime - _view_https.DAYS * 86_400
    os.utime(file, (old, old))
    _view_https.certified(["localhost"])
    assert file.read_bytes() != second


def test_https_without_openssl_says_what_to_do(certificates: Path, monkeypatch):
    monkeypatch.setattr(_view_https.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="needs the program openssl, which is not on the path"):
        _view_https.certified(["localhost"])


def test_https_with_a_failing_openssl_says_what_it_said(certificates: Path, monkeypatch):
    monkeypatch.setattr(_view_https.shutil, "which", lambda name: sys.executable)
    with pytest.raises(InputError, match=r"--https: .* failed \(.*\); install a newer one"):
        _view_https.certified(["localhost"])


def test_a_radiance_field_says_how_to_make_gaussians_of_it(tmp_path: Path, run: Path, monkeypatch):
    from lumefield.apps import _radiance_io, _scene_io

    class Field:
        class recipe:
            method = "ngp"

        points = np.zeros((1, 3))
        background = (0.0, 0.0, 0.0)

    (run / "scene.ply").unlink()
    (run / "field.safetensors").write_bytes(b"x")
    monkeypatch.setattr(_radiance_io, "load_radiance", lambda path: Field())
    with pytest.raises(InputError, match=r"holds a radiance field \(ngp\), expected Gaussians"):
        scene_table((run,))
    assert _scene_io.load_scene(run).field is not None
