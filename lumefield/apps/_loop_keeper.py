"""What stays beside a running fit: its state, clock, log, progress, checkpoints and Ctrl-C."""

import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np

from lumefield import __version__, native
from lumefield.apps._checkpoint import load_checkpoint, save_checkpoint
from lumefield.apps._progress import Say, StepBar
from lumefield.apps._run import Run
from lumefield.errors import RunError
from lumefield.fit import (
    AfterStep,
    Chunk,
    Optimizer,
    Stage,
    TrainState,
    fit,
    restore,
    state_arrays,
)

Note = Callable[[TrainState, Chunk], tuple[dict[str, Any], str]]
"""State after a chunk -> entries of a line of the log, and words for the progress bar."""
Onlooker = Callable[["LoopKeeper", Mapping[str, Any]], bool]
"""The keeper after a chunk and its line of the log -> whether to go on.

It may take its time, which does not count as time of fitting, but returns once ``stopped`` is set.
It does not change the state."""
_SAVE_SHARE = 20
"""A checkpoint is written when at least this often the time that the last one took has passed."""


class LoopKeeper:
    """One fit in a run folder, from its first step or its last checkpoint to its end."""

    def __init__(
        self,
        run: Run,
        say: Say,
        state: TrainState,
        *,
        steps: int,
        save_steps: int = 1,
        save_seconds: float = 0.0,
    ) -> None:
        """Take over a state.

        Args:
            run: The folder.
            say: Where to tell what happens.
            state: Before the first step; ``load`` replaces it by a checkpoint.
            steps: The last one.
            save_steps: Fewest steps between two checkpoints.
            save_seconds: Fewest seconds between two checkpoints.
        """
        self.run, self.say, self.state, self.steps = run, say, state, steps
        self.seconds = 0.0
        """Of fitting so far, scoring and saving left out."""
        self.stopped = False
        """Whether Ctrl-C ended it before the last step."""
        self._save_steps, self._save_seconds = save_steps, save_seconds
        self._saved, self._saved_at, self._saving = 0, 0.0, 0.0

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.state.step)

    def load(self) -> None:
        """Go on from the newest whole checkpoint, if there is one; nothing is written.

        Raises:
            RunError: If it is of a later step than the last one, of another shape, or all are
                damaged.
        """
        found = load_checkpoint(self.run.checkpoints)
        if found is None:
            self.say.note("the run has no checkpoint yet: starting from the beginning")
            return
        for bad in found.skipped:
            self.say.note(f"damaged checkpoint left out: {bad}")
        if found.step > self.steps:
            raise RunError(
                f"{self.run.folder}: has {found.step} steps, more than --steps {self.steps}; "
                "ask for more steps or leave --steps out"
            )
        self.state = restore(self.state, found.arrays)
        self.seconds = float(found.facts.get("seconds", 0.0))
        self._saved = found.step
        self.say.line(f"resuming at step {found.step} of {self.steps}")

    def fit(
        self,
        stages: tuple[Stage, ...],
        tx: Optimizer,
        note: Note,
        *,
        bar: StepBar,
        chunk: int,
        state: TrainState | None = None,
        after_step: AfterStep | None = None,
        between: Callable[[TrainState], TrainState] | None = None,
        onlooker: Onlooker | None = None,
    ) -> None:
        """Fit until the last step, Ctrl-C or the onlooker's wish; the end is kept as a checkpoint.

        Args:
            stages: As for :func:`lumefield.fit.fit`, and ``tx``, ``chunk``, ``after_step`` and
                ``between`` too.
            tx: The optimizer.
            note: What to log and show after each chunk.
            bar: Shows it; not yet entered.
            chunk: Steps per jitted call.
            state: ``self.state`` where it shall be computed on; as it is when None.
            after_step: Applied to the scene after each update.
            between: Applied to the state after each chunk.
            onlooker: Shown every chunk; it may hold the fit, or end it.
        """
        previous = signal.signal(signal.SIGINT, self._on_interrupt)
        try:
            with bar:
                self._tick = self._saved_at = time.perf_counter()

                def on_chunk(state: TrainState, done: Chunk) -> bool:
                    line = self._on_chunk(state, done, note, bar)
                    wanted = onlooker(self, line) if onlooker and not self.stopped else True
                    self._tick = time.perf_counter()
                    return wanted and not self.stopped

                fit(
                    self.state if state is None else state,
                    stages,
                    tx,
                    chunk=chunk,
                    after_step=after_step,
                    between=between,
                    on_chunk=on_chunk,
                )
        finally:
            signal.signal(signal.SIGINT, previous)
            if self.step != self._saved:
                self._save()

    def tell_stopped(self, result: Path, what: str) -> None:
        """Say how far an interrupted fit came, and that ``result`` is ``what`` so far."""
        self.say.line(
            f"stopped after {self.step} of {self.steps} steps; {result} "
            f"is the {what} so far, --resume continues it"
        )

    def account(self) -> dict[str, Any]:
        """What the fit cost and ran on: entries of ``metrics.json``."""
        return {
            "seconds": round(self.seconds, 2),
            "peak_rss_mb": peak_rss_mb(),
            "backend": f"{jax.default_backend()}/{native.backend_on(jax.default_backend())}",
            "versions": versions(),
        }

    def _on_chunk(
        self, state: TrainState, chunk: Chunk, note: Note, bar: StepBar
    ) -> dict[str, Any]:
        self.state = state
        self.seconds += time.perf_counter() - self._tick
        entries, words = note(state, chunk)
        loss = float(f"{np.mean(chunk.metrics['loss']):.6g}")
        spent = {"seconds": round(self.seconds, 2)}
        line = {"step": chunk.step, "loss": loss, **entries, **spent}
        self.run.log(line)
        bar.update(chunk.step, words)
        steps, since = chunk.step - self._saved, time.perf_counter() - self._saved_at
        rested = since >= max(self._save_seconds, _SAVE_SHARE * self._saving)
        if (steps >= self._save_steps and rested) or chunk.step == self.steps:
            self._save()
        return line

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True
        sys.stderr.write("\nstopping after this chunk; press Ctrl-C again to stop at once\n")

    def _save(self) -> None:
        start = time.perf_counter()
        arrays, facts = state_arrays(self.state), {"seconds": self.seconds}
        save_checkpoint(self.run.checkpoints, self.step, arrays, facts)
        now = time.perf_counter()
        self._saved, self._saved_at, self._saving = self.step, now, now - start


def peak_rss_mb() -> float:
    """Peak resident memory of this process, MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)


def versions() -> dict[str, str]:
    """What produced the run."""
    from importlib import metadata
    from platform import python_version

    names = ("jax", "jaxlib", "flax", "optax", "numpy", "pycolmap")
    return {
        "lumefield": __version__,
        "python": python_version(),
        **{name: metadata.version(name) for name in names},
    }
