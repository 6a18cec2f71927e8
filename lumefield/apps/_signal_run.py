"""One fit of a signal at work: preparing, fitting with checkpoints and Ctrl-C, scoring, report."""

import dataclasses
import hashlib
import signal as signals
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np

from lumefield import native
from lumefield.apps._checkpoint import load_checkpoint, save_checkpoint
from lumefield.apps._fit_settings import COMMAND, Fit, kind_of
from lumefield.apps._progress import Say
from lumefield.apps._run import Run
from lumefield.apps._signal import Problem, optimizer, parameters, save_field
from lumefield.apps._signal_bar import FitBar
from lumefield.apps._train_run import peak_rss_mb, versions
from lumefield.errors import RunError
from lumefield.fit import Chunk, Stage, TrainState, fit, restore, state_arrays

CHUNK_NUMBERS = 1 << 24
"""Numbers in the batches of one chunk, at most."""
_SAVE_SECONDS = 30.0
_OURS = ("field.safetensors", "image.png", "image.exr", "mesh.glb", "sound.wav", "solver.png")
"""What runs of this command write beside what every run has."""


@dataclass
class Session:
    """What the callbacks of one fit share."""

    settings: Fit
    run: Run
    problem: Problem
    state: TrainState
    seconds: float
    """Seconds of fitting so far."""
    timings: dict[str, float]
    say: Say
    inputs: dict[str, str]
    """SHA-256 of every input file by its role."""
    stopped: bool = False
    saved_at: tuple[int, float] = (0, 0.0)
    """Step of the last checkpoint and when it was written."""

    @classmethod
    def prepare(cls, settings: Fit, run: Run) -> "Session":
        """Everything up to the first step; an earlier run is not touched before all is sure."""
        say, start = Say(), time.perf_counter()
        inputs = _fingerprints(settings)
        if settings.resume:
            _check_inputs(settings, run, inputs)
        problem = make_problem(settings)
        if settings.resume:
            problem = _as_started(problem, run)
        timings = {"preparation": round(time.perf_counter() - start, 2)}
        say.line(problem.summary)
        for note in problem.notes:
            say.note(note)
        field = problem.start(settings.seed)
        say.note(
            f"{problem.size.field}: {parameters(field):,} parameters, {problem.size.steps} steps "
            f"of {problem.size.batch:,} points"
        )
        state = TrainState.start(field, optimizer(problem.size), jax.random.key(settings.seed))
        session = cls(settings, run, problem, state, 0.0, timings, say, inputs)
        if settings.resume:
            session._load()
        run.begin(session._config())
        if settings.resume:
            run.cut_log(int(session.state.step))
        else:
            for name in _OURS:
                (run.folder / name).unlink(missing_ok=True)
        return session

    def fit(self) -> None:
        """Fit until the last step, or until Ctrl-C."""
        size = self.problem.size
        first = jax.tree.leaves(self.problem.batches(0, 1))
        numbers = sum(int(np.size(leaf)) for leaf in first)
        chunk = int(np.clip(min(CHUNK_NUMBERS // max(numbers, 1), size.steps // 20), 1, 50))
        stages = (Stage(size.steps, self.problem.loss, self.problem.batches),)
        previous = signals.signal(signals.SIGINT, self._on_interrupt)
        try:
            with FitBar(size.steps, int(self.state.step), self.problem.unit) as bar:
                self._bar, self._tick = bar, time.perf_counter()
                self.saved_at = (self.saved_at[0], self._tick)
                fit(self.state, stages, optimizer(size), chunk=chunk, on_chunk=self._on_chunk)
        finally:
            signals.signal(signals.SIGINT, previous)
            if int(self.state.step) != self.saved_at[0]:
                self._save()

    def finish(self) -> None:
        """Write the field and what it draws, score it, write metrics and report."""
        from lumefield.apps._scene_io import write_json
        from lumefield.apps._signal_report import write_report

        folder, step = self.run.folder, int(self.state.step)
        save_field(self.state.scene, folder / "field.safetensors")
        if self.stopped:
            self.say.line(
                f"stopped after {step} of {self.problem.size.steps} steps; "
                f"{folder / 'field.safetensors'} is the field so far, --resume continues it"
            )
            return
        start = time.perf_counter()
        scores, exhibits = self.problem.finish(self.state.scene, folder)
        self.timings["evaluation"] = round(time.perf_counter() - start, 2)
        self.timings["fitting"] = round(self.seconds, 2)
        metrics: dict[str, Any] = {
            "method": self.problem.size.field,
            "signal": self.problem.kind,
            "steps": step,
            **scores,
            "parameters": parameters(self.state.scene),
            "seconds": round(self.seconds, 2),
            "peak_rss_mb": peak_rss_mb(),
            "backend": f"{jax.default_backend()}/{native.backend_on(jax.default_backend())}",
            "versions": versions(),
            "timings": self.timings,
        }
        write_json(folder / "metrics.json", metrics)
        report = write_report(folder, exhibits, self.problem.summary)
        told = ", ".join(f"{name} {value:g}" for name, value in scores.items())
        self.say.line(
            f"{told}\n{metrics['parameters']:,} parameters, {self.seconds:.0f} s, "
            f"{metrics['peak_rss_mb']:.0f} MB\nreport {report}\nresult "
            f"{folder / self.problem.result}"
        )

    # -- callbacks ---------------------------------------------------------------------------

    def _on_chunk(self, state: TrainState, chunk: Chunk) -> bool:
        self.state = state
        now = time.perf_counter()
        self.seconds += now - self._tick
        shown = self.problem.shown(float(np.mean(chunk.metrics["shown"])))
        self.run.log(
            {
                "step": chunk.step,
                "loss": float(np.mean(chunk.metrics["loss"])),
                "shown": round(shown, 6),
                "seconds": round(self.seconds, 2),
            }
        )
        self._bar.update(chunk.step, shown)
        if now - self.saved_at[1] >= _SAVE_SECONDS or chunk.step == self.problem.size.steps:
            self._save()
        self._tick = time.perf_counter()
        return not self.stopped

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True
        sys.stderr.write("\nstopping after this chunk; press Ctrl-C again to stop at once\n")

    def _save(self) -> None:
        step = int(self.state.step)
        facts = {"seconds": self.seconds}
        save_checkpoint(self.run.checkpoints, step, state_arrays(self.state), facts)
        self.saved_at = (step, time.perf_counter())

    def _load(self) -> None:
        found = load_checkpoint(self.run.checkpoints)
        if found is None:
            self.say.note("the run has no checkpoint yet: starting from the beginning")
            return
        for bad in found.skipped:
            self.say.note(f"damaged checkpoint left out: {bad}")
        steps = self.problem.size.steps
        if found.step > steps:
            raise RunError(
                f"{self.run.folder}: has {found.step} steps, more than --steps {steps}; "
                "ask for more steps or leave --steps out"
            )
        self.state = restore(self.state, found.arrays)
        self.seconds = float(found.facts.get("seconds", 0.0))
        self.saved_at = (found.step, time.perf_counter())
        self.say.line(f"resuming at step {found.step} of {steps}")

    def _config(self) -> dict[str, Any]:
        settings = {
            k: str(v.resolve()) if isinstance(v, Path) else v
            for k, v in dataclasses.asdict(self.settings).items()
            if k not in ("out", "resume", "overwrite", "threads")
        }
        return {
            "command": COMMAND,
            "settings": settings,
            "signal": self.problem.kind,
            "shape": [self.problem.d_in, self.problem.d_out],
            "size": dataclasses.asdict(self.problem.size),
            "facts": self.problem.facts,
            "inputs": self.inputs,
            "versions": versions(),
        }


def make_problem(settings: Fit) -> Problem:
    """The signal of the settings, made ready.

    Raises:
        InputError: If a file or the field cannot be used.
        FormatError: If a file is damaged.
    """
    kind = kind_of(settings)
    if kind == "image":
        from lumefield.apps._signal_image import prepare
    elif kind == "sdf":
        from lumefield.apps._signal_sdf import prepare
    elif kind == "gradient":
        from lumefield.apps._signal_gradient import prepare
    else:
        from lumefield.apps._signal_audio import prepare
    return prepare(settings)


def _as_started(problem: Problem, run: Run) -> Problem:
    """The problem with the field of the run, whatever the dial says by now; steps may be new."""
    old = run.config.get("size")
    if not isinstance(old, dict):
        raise RunError(f"{run.folder / 'config.json'}: has no size; fit again with --overwrite")
    kept = {k: old[k] for k in ("field", "options", "batch", "rate") if k in old}
    return dataclasses.replace(problem, size=dataclasses.replace(problem.size, **kept))


def _fingerprints(settings: Fit) -> dict[str, str]:
    files = {"input": settings.input, "source": settings.source, "mask": settings.mask}
    return {
        role: hashlib.sha256(path.read_bytes()).hexdigest()
        for role, path in files.items()
        if path is not None
    }


def _check_inputs(settings: Fit, run: Run, now: dict[str, str]) -> None:
    then = run.config.get("inputs")
    then = then if isinstance(then, dict) else {}
    for role in ("input", "source", "mask"):
        if then.get(role) != now.get(role):
            raise RunError(
                f"{getattr(settings, role)}: is not the {role} that the run in {settings.out} was "
                "started with; bring that back, or choose another --out"
            )
