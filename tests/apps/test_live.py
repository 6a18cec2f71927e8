"""``train --view``: what is shown, who may steer, and that the training does not notice."""

import dataclasses
import json
import re
import signal
import socket
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from websockets.exceptions import InvalidStatus

from lumefield.apps import _splat_job
from lumefield.apps._capture_type import Capture
from lumefield.apps._live import SHARE, Live, Pace, board_words, page_words, steps_per_second
from lumefield.apps._live_dashboard import Dashboard, Wishes
from lumefield.apps._loop_keeper import LoopKeeper
from lumefield.apps._progress import Say, StepBar
from lumefield.apps._run import Run
from lumefield.codecs.formats import Splats
from lumefield.fit import Stage, TrainState
from tests.apps.live_client import Client, joined
from tests.apps.test_export_html import splats
from tests.apps.train_cases import SHORT, SMALL, Capsys, only_line, saved_steps, train_here

STEPS = 150
WORDS = (*SMALL, "--steps", STEPS)


@pytest.fixture(scope="module")
def whole(room: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 150 steps that nobody looks at."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert train_here(room, "--out", out, *WORDS) == 0
    return out


def told(folder: Path) -> list[dict[str, Any]]:
    """The log without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def same(one: Path, other: Path) -> None:
    """Scene, log and settings are those of the other run."""
    for name in ("scene.ply", "config.json"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    assert told(one) == told(other)


Act = Callable[[Client], None]


def trained_and_watched(
    monkeypatch: pytest.MonkeyPatch, act: Act, *words: object, seconds: float = 0.0
) -> Client:
    """Train with ``--view`` while ``act`` is done at the dashboard; the browser as it was left."""
    clients: list[Client] = []
    failures: list[BaseException] = []
    threads: list[threading.Thread] = []
    begin = Live.begin

    def begun(self: Live, job: Any, photos: Capture, keeper: Any) -> None:
        self.wishes.seconds = seconds
        begin(self, job, photos, keeper)
        clients.append(Client(f"http://127.0.0.1:{self.board.port}/"))

        def acting() -> None:
            try:
                act(clients[0])
            except BaseException as error:
                failures.append(error)
                self.wishes.paused, self.wishes.ended = False, True

        threads.append(threading.Thread(target=acting, daemon=True))
        threads[0].start()

    with monkeypatch.context() as patch:
        patch.setattr(Live, "begin", begun)
        assert train_here(*words, "--view") == 0
    threads[0].join(30)
    clients[0].close()
    for failure in failures:
        raise failure
    return clients[0]


def held_until_seen(monkeypatch: pytest.MonkeyPatch, step: int) -> threading.Event:
    """The training waits after ``step`` until the event is set, so that nothing is a race."""
    ready, original = threading.Event(), Live.look

    def look(self: Live, keeper: Any, line: Any) -> bool:
        assert line["step"] != step or ready.wait(60)
        return original(self, keeper, line)

    monkeypatch.setattr(Live, "look", look)
    return ready


# -- the training does not notice ------------------------------------------------------------


def test_a_training_that_is_watched_and_paused_ends_in_the_same_bytes(
    whole: Path, room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pressed = held_until_seen(monkeypatch, 50)

    def act(client: Client) -> None:
        client.press("Pause")
        client.wait("Pausing after this chunk")
        pressed.set()
        client.wait("**Paused**, step 50 of 150")
        time.sleep(0.5)
        client.wait("**Paused**, step 50 of 150")
        client.press("Resume")

    client = trained_and_watched(monkeypatch, act, room, "--out", tmp_path / "out", *WORDS)
    same(tmp_path / "out", whole)
    assert client.frusta == 9
    assert client.splats[0] == 200  # the sparse points
    assert len(client.splats) > 1


def test_stop_ends_as_if_the_steps_had_ended_and_resume_goes_on(
    whole: Path, room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
):
    out, pressed = tmp_path / "out", held_until_seen(monkeypatch, 50)

    def act(client: Client) -> None:
        client.press("Stop and finish")
        client.wait("Ending after this chunk")
        pressed.set()

    trained_and_watched(monkeypatch, act, room, "--out", out, *WORDS)
    said = capsys.readouterr().out
    assert "ended after 50 of 150 steps, as asked for in the live view" in said
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["steps"], len(metrics["views"])) == (50, 2)
    assert (out / "report.html").is_file()
    assert saved_steps(out) == [50]
    assert train_here(room, "--out", out, "--resume") == 0
    same(out, whole)


def test_ctrl_c_while_paused_is_ctrl_c(
    whole: Path, room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
):
    out, pressed = tmp_path / "out", held_until_seen(monkeypatch, 50)
    main = threading.main_thread().ident
    assert main is not None

    def act(client: Client) -> None:
        client.press("Pause")
        client.wait("Pausing")
        pressed.set()
        client.wait("**Paused**")
        signal.pthread_kill(main, signal.SIGINT)

    trained_and_watched(monkeypatch, act, room, "--out", out, *WORDS)
    assert "stopped after 50 of 150 steps" in capsys.readouterr().out
    assert not (out / "metrics.json").exists()
    assert train_here(room, "--out", out, "--resume") == 0
    same(out, whole)


def test_a_view_that_fails_leaves_the_training_alone(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
):
    def broken(board: Dashboard, log: list[Any]) -> None:
        del board
        if log:
            raise OSError("no colours left")

    monkeypatch.setattr(Dashboard, "plot", broken)
    assert train_here(room, "--out", tmp_path / "out", *SHORT, "--view") == 0
    said = capsys.readouterr().out
    assert "the live view stopped (OSError('no colours left')); the training goes on" in said
    assert (tmp_path / "out" / "report.html").is_file()


def test_nobody_looking_costs_no_scene(room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made: list[int] = []

    def glimpse(state: TrainState, *_: Any, **__: Any) -> Splats:
        made.append(int(state.step))
        return splats(10)

    monkeypatch.setattr(_splat_job, "splats_of", glimpse)
    begin = Live.begin

    def at_once(self: Live, job: Any, photos: Capture, keeper: Any) -> None:
        self.wishes.seconds = 0.0
        begin(self, job, photos, keeper)

    monkeypatch.setattr(Live, "begin", at_once)
    assert train_here(room, "--out", tmp_path / "out", *WORDS, "--view") == 0
    assert made == [STEPS]  # the result


def test_the_onlooker_s_time_is_no_time_of_training(tmp_path: Path):
    def loss(scene: jax.Array, aux: Any, batch: jax.Array, key: Any, step: Any) -> Any:
        del batch, key, step
        return jnp.sum(scene**2), (aux, {})

    tx = optax.sgd(0.1)
    state = TrainState.start(jnp.ones(3), tx, jax.random.key(0))
    keeper = LoopKeeper(Run(tmp_path, {}, fresh=True), Say(), state, steps=10)
    seen: list[int] = []

    def onlooker(keeper: LoopKeeper, line: Any) -> bool:
        seen.append(line["step"])
        time.sleep(0.7)
        return len(seen) < 4

    stage = Stage(10, loss, lambda first, count: jnp.zeros(count))
    bar = StepBar("fit", 10, 0)
    keeper.fit((stage,), tx, lambda *_: ({}, ""), bar=bar, chunk=2, onlooker=onlooker)
    assert (seen, keeper.step, keeper.stopped) == ([2, 4, 6, 8], 8, False)
    assert keeper.seconds < 0.7 * 4
    assert saved_steps(tmp_path)[-1] == 8


def test_a_bar_that_learns_its_total_late_counts_against_it(capsys: pytest.CaptureFixture[str]):
    bar = StepBar("compress", 100, 0)
    bar.update(90, "30 dB", 120)
    bar.update(120, "31 dB", 120)
    told = [line.split("  ")[:2] for line in capsys.readouterr().out.splitlines()]
    assert told == [["step 90/120", "30 dB"], ["step 120/120", "31 dB"]]


# -- who may come in -------------------------------------------------------------------------


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def wishes() -> Wishes:
    """What is asked for at the dashboard."""
    return Wishes()


@pytest.fixture
def board(wishes: Wishes) -> Iterator[Dashboard]:
    """A dashboard for this machine only."""
    found = Dashboard("127.0.0.1", free_port(), wishes, ("127.0.0.1", "localhost"))
    yield found
    found.close()


def test_pages_of_other_sites_cannot_steer_a_training(board: Dashboard):
    url = f"http://127.0.0.1:{board.port}/"
    for mine in (url.rstrip("/"), "http://localhost:9000"):  # the latter through a tunnel
        joined(url, mine).close()
    for other in ("http://example.org", f"http://127.0.0.1.example.org:{board.port}", "null"):
        with pytest.raises(InvalidStatus, match="403"):
            joined(url, other)


def test_sliders_change_what_is_shown_and_nonsense_is_bounded(board: Dashboard, wishes: Wishes):
    client = Client(f"http://127.0.0.1:{board.port}/")

    def moved(label: str, value: float) -> None:
        before = dataclasses.astuple(wishes)
        client.press(label, value)
        until = time.monotonic() + 30
        while dataclasses.astuple(wishes) == before:
            assert time.monotonic() < until
            time.sleep(0.02)

    moved("most splats", 20_000)
    moved("hide opacity under", 0.5)
    moved("splat size", 0.25)
    moved("seconds between scenes", 30)
    assert wishes == Wishes(seconds=30, most=20_000, floor=0.5, size=0.25, changes=3)
    moved("most splats", -5)
    moved("splat size", -1)
    moved("seconds between scenes", -1)
    assert wishes == Wishes(seconds=0.2, most=1, floor=0.5, size=1e-3, changes=5)
    client.close()


def test_the_terminal_hears_nothing_from_viser(capsys: Capsys):
    Dashboard("127.0.0.1", free_port(), Wishes(), ()).close()
    assert capsys.readouterr() == ("", "")


def refused(capsys: Capsys, room: Path, out: Path, *words: object) -> str:
    """The one line of an error of ``train``, which wrote nothing."""
    assert train_here(room, "--out", out, *SHORT, *words) == 2
    assert not out.exists()
    return only_line(capsys)


def test_wrong_places_are_refused_before_anything_is_written(
    room: Path, tmp_path: Path, capsys: Capsys
):
    out = tmp_path / "out"
    line = refused(capsys, room, out, "--view", "--port", 70000)
    assert line == "--port 70000, expected 0 to 65535"
    assert "--port does nothing without --view" in refused(capsys, room, out, "--port", 8400)
    assert "--host does nothing without --view" in refused(capsys, room, out, "--host", "::")
    assert "no such address; use" in refused(capsys, room, out, "--view", "--host", "no host")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refused(capsys, room, out, "--view", "--port", port)
        assert "in use; give another port" in line


@pytest.mark.parametrize("module", [None, types.SimpleNamespace(__version__="0.2.7")])
def test_without_a_new_viser_one_line_says_how_to_get_it(
    room: Path, tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch, module: Any
):
    monkeypatch.setitem(sys.modules, "viser", module)
    line = refused(capsys, room, tmp_path / "out", "--view")
    assert line.startswith("--view needs the package viser, 1.1 or newer; install it by `pip inst")


# -- when ------------------------------------------------------------------------------------


def test_scenes_take_a_small_share_of_the_time():
    clock = [0.0]
    pace = Pace(lambda: clock[0])
    assert pace.due(5)
    with pace.making():
        clock[0] += 60  # compiling: does not count
    assert not pace.due(5)
    clock[0] += 5
    assert pace.due(5)
    with pace.making():
        clock[0] += 1
    clock[0] += 1 / SHARE - 1
    assert not pace.due(5)
    clock[0] += 1
    assert pace.due(5)


def test_words_say_where_the_training_is():
    log = [
        {"step": 50 * k, "seconds": 2.0 * k, "loss": 0.1, "psnr": 20.0, "gaussians": 1000}
        for k in range(1, 4)
    ]
    assert steps_per_second(log) == 25
    assert steps_per_second(log[:1]) == 0
    text = board_words("training", log, 3150)
    assert text.split("  \n") == [
        "**Training**, step 150 of 3,150",
        "25 it/s, 2 min 0 s left",
        "20.00 dB",
        "1,000 Gaussians",
    ]
    log[1]["held_out_psnr"] = 19.5
    assert "20.00 dB, held out 19.50 dB" in board_words("paused", log, 3150)
    assert board_words("compiling", [], 100) == "**Compiling ...**"
    assert page_words("training", log[-1], 3150) == "training: step 150 of 3,150, 20.0 dB"
    assert page_words("compiling", {}, 100) == "compiling"


def test_both_addresses_are_said_and_free_again_at_the_end(
    room: Path, tmp_path: Path, capsys: Capsys
):
    assert train_here(room, "--out", tmp_path / "out", *SHORT, "--view", "--port", 0) == 0
    said = capsys.readouterr().out
    ports = [int(port) for port in re.findall(r"http://127\.0\.0\.1:(\d+)/", said)]
    assert len(set(ports)) == 2
    for port in ports:
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port), 5)
