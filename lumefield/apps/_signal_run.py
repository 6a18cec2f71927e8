"""One fit of a signal at work: preparing, fitting with checkpoints and Ctrl-C, scoring, report."""

import dataclasses
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lumefield.apps._fit_settings import COMMAND, Fit, kind_of
from lumefield.apps._loop_keeper import LoopKeeper, versions
from lumefield.apps._progress import Say, StepBar
from lumefield.apps._run import Run
from lumefield.apps._signal import Problem, optimizer, parameters, save_field
from lumefield.errors import RunError
from lumefield.fit import Chunk, Stage, TrainState

CHUNK_NUMBERS = 1 << 24
"""Numbers in the batches of one chunk, at most."""
_SAVE_SECONDS = 30.0
_OURS = ("field.safetensors", "image.png", "image.exr", "mesh.glb", "sound.wav", "solver.png")
"""What runs of this command write beside what every run has."""


@dataclass(frozen=True)
class Session:
    """One fit: what it is made of, step by step."""

    settings: Fit
    run: Run
    problem: Problem
    keeper: LoopKeeper
    timings: dict[str, float]
    """Seconds by stage."""
    say: Say
    inputs: dict[str, str]
    """SHA-256 of every input file by its role."""

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
        steps = problem.size.steps
        keeper = LoopKeeper(run, say, state, steps=steps, save_seconds=_SAVE_SECONDS)
        session = cls(settings, run, problem, keeper, timings, say, inputs)
        if settings.resume:
            keeper.load()
        run.begin(session._config())
        if settings.resume:
            run.cut_log(keeper.step)
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
        bar = StepBar("fit", size.steps, self.keeper.step)
        self.keeper.fit(stages, optimizer(size), self._note, bar=bar, chunk=chunk)

    def finish(self) -> None:
        """Write the field and what it draws, score it, write metrics and report."""
        from lumefield.apps._scene_io import write_json
        from lumefield.apps._signal_report import write_report

        folder, keeper = self.run.folder, self.keeper
        field = keeper.state.scene
        save_field(field, folder / "field.safetensors")
        if keeper.stopped:
            keeper.tell_stopped(folder / "field.safetensors", "field")
            return
        start = time.perf_counter()
        scores, exhibits = self.problem.finish(field, folder)
        self.timings["evaluation"] = round(time.perf_counter() - start, 2)
        self.timings["fitting"] = round(keeper.seconds, 2)
        metrics: dict[str, Any] = {
            "method": self.problem.size.field,
            "signal": self.problem.kind,
            "steps": keeper.step,
            **scores,
            "parameters": parameters(field),
            **keeper.account(),
            "timings": self.timings,
        }
        write_json(folder / "metrics.json", metrics)
        report = write_report(folder, exhibits, self.problem.summary)
        told = ", ".join(f"{name} {value:g}" for name, value in scores.items())
        self.say.line(
            f"{told}\n{metrics['parameters']:,} parameters, {keeper.seconds:.0f} s, "
            f"{metrics['peak_rss_mb']:.0f} MB\nreport {report}\nresult "
            f"{folder / self.problem.result}"
        )

    def _note(self, state: TrainState, chunk: Chunk) -> tuple[dict[str, Any], str]:
        del state
        shown = self.problem.shown(float(np.mean(chunk.metrics["shown"])))
        text = f"{shown:.2f}" if abs(shown) >= 1 else f"{shown:.3g}"
        return {"shown": round(shown, 6)}, f"{text} {self.problem.unit}"

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
