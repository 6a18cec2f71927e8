"""``train --view``: the training in a browser while it goes on.

Two servers, one thread of ours. The training thread only hands over a reference to its state, now
and then and when somebody looks; arrays are taken from it, thinned and sent by our thread. Scenes
follow one another so slowly that making them takes a small share of the time.
"""

import dataclasses
import json
import math
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lumefield.apps._live_dashboard import Dashboard, Wishes
from lumefield.apps._train_settings import LOCAL, Train
from lumefield.apps._view_server import address, addresses, open_server

if TYPE_CHECKING:
    from lumefield.apps._capture_type import Capture
    from lumefield.apps._live_page import LivePage
    from lumefield.apps._loop_keeper import LoopKeeper
    from lumefield.apps._method import Job
    from lumefield.apps._progress import Say
    from lumefield.codecs.formats import Splats
    from lumefield.fit import TrainState

SHARE = 0.02
"""Of the time, that making scenes may take."""
_TICK = 0.1
"""Seconds between looks at what is wished."""


class Pace:
    """When the next scene is due: so late that making them takes ``SHARE`` of the time."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._made, self._cost = now, -math.inf, 0.0

    def due(self, seconds: float) -> bool:
        """Whether enough time has passed, ``seconds`` at least."""
        return self._now() - self._made >= max(seconds, self._cost / SHARE)

    @contextmanager
    def making(self) -> Generator[None]:
        """Time what is done within; the first time does not count: it may have to compile."""
        start, first = self._now(), self._made < 0
        try:
            yield
        finally:
            self._made = self._now()
            self._cost = 0.0 if first else self._made - start


class Live:
    """A training as it is seen from outside."""

    def __init__(self, board: Dashboard, page: "LivePage", wishes: Wishes, say: "Say") -> None:
        self.board, self.page, self.wishes, self._say = board, page, wishes, say
        self._pace = Pace()
        self._job: Job | None = None
        self._steps = 0
        self._log: list[dict[str, Any]] = []
        self._asked = threading.Event()
        """Set by our thread when it wants the state after the next chunk."""
        self._given: TrainState | None = None
        self._seen: Splats | None = None
        self._step = self._paged = 0
        """Steps behind what is seen, and behind what the page has."""
        self._stage = ""
        self._news = self._closed = False
        self._thread = threading.Thread(target=self._work, name="live view", daemon=True)

    @classmethod
    @contextmanager
    def open(cls, settings: Train, say: "Say") -> "Generator[Live]":
        """Listen, from before the photos are read until the report is written.

        Raises:
            InputError: If the address or the port cannot be used, or viser is not installed.
            RunError: If the viewer was not built into the package.
        """
        from lumefield.apps._live_page import LivePage

        with open_server({}, settings.host, settings.port) as probe:  # viser would try on and on
            host, port = (probe.server_address[k] for k in (0, 1))
        near = host in (LOCAL, "::1")
        wishes = Wishes()
        origins = (*addresses(str(host)), "localhost") if near else ()
        board = Dashboard(str(host), int(port), wishes, origins)
        try:
            page = LivePage(str(host), settings.out.resolve().name, compact=not near)
            try:
                live = cls(board, page, wishes, say)
                for name in addresses(str(host)):
                    say.line(f"live view  {address(name, board.port)}")
                    say.line(f"  as a page, with VR  {address(name, page.port)}")
                try:
                    yield live
                finally:
                    live.stop()
            finally:
                page.close()
        finally:
            board.close()

    def begin(self, job: "Job", photos: "Capture", keeper: "LoopKeeper") -> None:
        """Show the photos and the start; from here on there is something to steer."""
        from lumefield.apps._live_splats import frusta, point_splats
        from lumefield.apps._paths import world_up
        from lumefield.apps._views import capture_views

        self._job, self._steps = job, keeper.steps
        self._log = _logged(keeper.run.folder)
        views = capture_views(photos)
        first = point_splats(photos) if not keeper.step else job.glimpse(keeper.state)
        if not len(first.means):
            first = job.glimpse(keeper.state)
        self._seen = first
        where = address(addresses(self.page.host)[-1], self.page.port)
        self.board.begin(frusta(photos, job.frame), world_up(views), where)
        self.page.begin(first, views, tuple(job.record["background"]))
        self._stage = "compiling"
        self._send()
        self._tell()
        self._thread.start()

    # -- in the training's thread ------------------------------------------------------------

    def look(self, keeper: "LoopKeeper", line: Mapping[str, Any]) -> bool:
        """Note a chunk; wait while it is wished, and say whether to go on.

        This is the ``onlooker`` of the loop's keeper.
        """
        self._log.append(dict(line))
        self._stage, self._news = "training", True
        self._give(keeper.state)
        while self.wishes.paused and not (keeper.stopped or self.wishes.ended):
            self._stage = "paused"
            self._give(keeper.state)
            time.sleep(_TICK)
        self._stage = "training"
        return not self.wishes.ended

    def finishing(self, state: "TrainState") -> None:
        """The steps are over: show the last scene while it is scored."""
        self._stage, self._news = "scoring the held-out views", True
        self.board.finish()
        if self.watched:
            self._asked.set()
            self._give(state)

    def _give(self, state: "TrainState") -> None:
        """A reference, no copy: the arrays of a state never change."""
        if self._asked.is_set():
            self._asked.clear()
            self._given = dataclasses.replace(state, opt=())

    @property
    def stage(self) -> str:
        """What the training does, in words."""
        wishes = self.wishes
        if self._stage in ("compiling", "training") and (wishes.ended or wishes.paused):
            return f"{'ending' if wishes.ended else 'pausing'} after this chunk"
        return self._stage

    @property
    def watched(self) -> bool:
        """Whether anybody looks."""
        return self.board.watched() or self.page.watched()

    # -- in our thread -----------------------------------------------------------------------

    def _work(self) -> None:
        try:
            changes, told, stage = self.wishes.changes, 0.0, ""
            while not self._closed:
                time.sleep(_TICK)
                if self.watched:
                    if self._pace.due(self.wishes.seconds):
                        self._asked.set()
                else:
                    self._asked.clear()
                self._take()
                self._to_page()
                if self.wishes.changes != changes:
                    changes = self.wishes.changes
                    self._send()
                now = time.monotonic()
                waited = self._news and now - told > (0.5 if self.watched else 5.0)
                if self.stage != stage or waited:
                    self._news, told, stage = False, now, self.stage
                    self._tell()
        except Exception as error:  # a view that fails must not take the training with it
            self._say.note(f"the live view stopped ({error!r}); the training goes on")

    def _take(self) -> None:
        """Make a scene of a state that was given."""
        state, self._given = self._given, None
        if state is None or self._job is None:
            return
        with self._pace.making():
            splats = self._job.glimpse(state)
            if len(splats.means):
                self._seen, self._step = splats, int(state.step)
                self._send()
                self._to_page()

    def _to_page(self) -> None:
        """Have the page show what the dashboard shows, if one is open."""
        if self._seen is not None and self._paged != self._step and self.page.watched():
            self._paged = self._step
            self.page.show(self._seen, self._step)

    def _send(self) -> None:
        from lumefield.apps._live_splats import shown

        assert self._job is not None, "begin() comes first"
        assert self._seen is not None, "begin() comes first"
        wishes = self.wishes
        self.board.show(
            shown(
                self._seen,
                self._job.frame,
                most=wishes.most,
                floor=wishes.floor,
                size=wishes.size,
            )
        )

    def _tell(self) -> None:
        last = self._log[-1] if self._log else {}
        self.page.tell(page_words(self.stage, last, self._steps))
        self.board.tell(
            board_words(self.stage, self._log, self._steps), last.get("step", 0) / self._steps
        )
        self.board.plot(self._log)

    def stop(self) -> None:
        """End our thread; what it is at is finished first."""
        self._closed = True
        if self._thread.is_alive():
            self._thread.join(5)


def _logged(run: Path) -> list[dict[str, Any]]:
    """What the log of a run holds already, when it is resumed."""
    file = run / "log.jsonl"
    lines = file.read_text("utf-8").splitlines() if file.is_file() else []
    return [json.loads(line) for line in lines]


def page_words(stage: str, last: Mapping[str, Any], steps: int) -> str:
    """What the page says beside the size of the scene."""
    if "step" not in last:
        return stage
    psnr = f", {last['psnr']:.1f} dB" if "psnr" in last else ""
    return f"{stage}: step {last['step']:,} of {steps:,}{psnr}"


def board_words(stage: str, log: list[dict[str, Any]], steps: int) -> str:
    """The same for the dashboard, in Markdown, with rate and the time that is left."""
    if not log:
        return f"**{stage.capitalize()} ...**"
    last = log[-1]
    lines = [f"**{stage.capitalize()}**, step {last['step']:,} of {steps:,}"]
    rate = steps_per_second(log)
    if rate > 0:
        left = max(0, steps - last["step"]) / rate
        lines.append(f"{rate:.3g} it/s, {left // 60:.0f} min {left % 60:.0f} s left")
    if "psnr" in last:
        held = [row["held_out_psnr"] for row in log if "held_out_psnr" in row]
        lines.append(f"{last['psnr']:.2f} dB" + (f", held out {held[-1]:.2f} dB" if held else ""))
    if "gaussians" in last:
        lines.append(f"{last['gaussians']:,} Gaussians")
    return "  \n".join(lines)


def steps_per_second(log: list[dict[str, Any]]) -> float:
    """Of the last chunks, without the pauses; 0 where that is not known yet."""
    some = log[-11:]
    seconds = some[-1]["seconds"] - some[0]["seconds"] if len(some) > 1 else 0.0
    return (some[-1]["step"] - some[0]["step"]) / seconds if seconds > 0 else 0.0
