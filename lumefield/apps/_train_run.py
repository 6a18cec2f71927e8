"""One training session: the capture, the loop's callbacks, what comes out."""

import dataclasses
import json
import resource
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from lumefield import __version__, native
from lumefield.apps import _plan
from lumefield.apps._batches import Views
from lumefield.apps._capture import capture
from lumefield.apps._capture_type import Capture
from lumefield.apps._checkpoint import load_checkpoint, save_checkpoint
from lumefield.apps._method import Job, Prepare
from lumefield.apps._progress import CaptureBar, Say, TrainBar
from lumefield.apps._radiance_job import prepare_radiance
from lumefield.apps._run import Run
from lumefield.apps._splat_job import prepare_splats
from lumefield.apps._train_settings import Train
from lumefield.errors import RunError
from lumefield.fit import Chunk, TrainState, fit, restore, state_arrays

METHODS: dict[str, Prepare] = {
    "splat": prepare_splats,
    "nerf": prepare_radiance,
    "mipnerf360": prepare_radiance,
    "ngp": prepare_radiance,
    "zipnerf": prepare_radiance,
    "kplanes": prepare_radiance,
}
"""Word of ``--method`` -> what sets it to work."""
_SAVE_STEPS = 200
_WATCH_STEPS = 500


@dataclass
class Session:
    """What the callbacks of one training share."""

    settings: Train
    run: Run
    capture: Capture
    job: Job
    state: TrainState
    seconds: float
    """Seconds of training so far, scoring left out."""
    timings: dict[str, float]
    say: Say
    stopped: bool = False
    saved_at: tuple[int, float, float] = (0, 0.0, 0.0)
    """Step of the last checkpoint, when it was written, how long that took."""
    watch: list[float] = field(default_factory=list[float])

    @classmethod
    def prepare(cls, settings: Train, run: Run) -> "Session":
        """Everything up to the first step; an earlier run is not touched before all is sure."""
        say = Say()
        start = time.perf_counter()
        photos = _photos(settings, run)
        if settings.resume:
            run.check_photos(photos.names)
        spent = {"capture": round(time.perf_counter() - start, 2)}
        say.line(str(photos.source.get("summary", "")))
        for note in photos.source.get("notes", []):
            say.note(str(note))
        stored: Mapping[str, Any] = run.config if settings.resume else {}
        job = METHODS[settings.method](settings, photos, stored)
        say.line(job.memory)
        session = cls(settings, run, photos, job, job.start(), seconds=0.0, timings=spent, say=say)
        if settings.resume:
            session._load()
        run.begin(session._config())
        session._write_cameras()
        if settings.resume:
            run.cut_log(int(session.state.step))
        return session

    def fit(self) -> None:
        """Train until the last step, or until Ctrl-C."""
        job = self.job
        previous = signal.signal(signal.SIGINT, self._on_interrupt)
        try:
            with TrainBar(job.steps, int(self.state.step), job.noun) as bar:
                self._bar, self._tick = bar, time.perf_counter()
                fit(
                    job.placed(self.state),
                    job.stages(),
                    job.optimizer(self.state.scene),
                    chunk=job.chunk,
                    after_step=job.after_step,
                    between=job.between,
                    on_chunk=self._on_chunk,
                )
        finally:
            signal.signal(signal.SIGINT, previous)
            if int(self.state.step) != self.saved_at[0]:
                self._save()

    def finish(self) -> None:
        """Write the scene, score the held-out views, write metrics and report."""
        from lumefield.apps._evaluate import save_renders, score_table, score_views
        from lumefield.apps._report import write_report
        from lumefield.apps._scene_io import write_json

        step = int(self.state.step)
        result = self.run.folder / self.job.result
        made = self.job.save(self.state, self.run.folder)
        if self.stopped:
            self.say.line(
                f"stopped after {step} of {self.job.steps} steps; {result} "
                "is the scene so far, --resume continues it"
            )
            return
        start = time.perf_counter()
        names = [self.capture.names[i] for i in self.capture.held_out]
        metrics: dict[str, Any] = {"method": self.settings.method, "steps": step}
        if names:
            pictures, truths = self._held_out(tuple(self.capture.held_out))
            save_renders(self.run.folder, names, pictures, truths)
            scores = score_views(pictures, truths, names)
            metrics |= scores
            self.say.show(score_table(scores))
        self.timings["evaluation"] = round(time.perf_counter() - start, 2)
        metrics |= {
            "seconds": round(self.seconds, 2),
            **made,
            "peak_rss_mb": peak_rss_mb(),
            "backend": f"{jax.default_backend()}/{native.backend_on(jax.default_backend())}",
            "versions": versions(),
            "timings": {**self.timings, "training": round(self.seconds, 2)},
        }
        write_json(self.run.folder / "metrics.json", metrics)
        report = write_report(self.run.folder)
        score = f"PSNR {metrics['psnr']:.2f} dB, SSIM {metrics['ssim']:.3f}, " if names else ""
        self.say.line(
            f"{score}{self.job.count(self.state):,} {self.job.noun}, {self.seconds:.0f} s, "
            f"{metrics['peak_rss_mb']:.0f} MB\nreport {report}\nscene  {result}"
        )

    # -- callbacks ---------------------------------------------------------------------------

    def _on_chunk(self, state: TrainState, chunk: Chunk) -> bool:
        self.state = state
        self.seconds += time.perf_counter() - self._tick
        psnr = float(np.mean(chunk.metrics["psnr"]))
        line = {
            "step": chunk.step,
            "loss": round(float(np.mean(chunk.metrics["loss"])), 6),
            "psnr": round(psnr, 3),
            **self.job.facts(chunk.metrics, state),
            "seconds": round(self.seconds, 2),
        }
        last = chunk.step == self.job.steps
        if self.capture.held_out and (chunk.step % _WATCH_STEPS == 0 or last):
            line["held_out_psnr"] = round(self._watched_psnr(), 3)
        self.run.log(line)
        self._bar.update(chunk.step, psnr, self.job.count(state))
        step, at, took = self.saved_at
        due = chunk.step - step >= _SAVE_STEPS and time.perf_counter() - at >= 20 * took
        if due or last:
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
        start = time.perf_counter()
        step = int(self.state.step)
        facts = {"seconds": self.seconds}
        save_checkpoint(self.run.checkpoints, step, state_arrays(self.state), facts)
        now = time.perf_counter()
        self.saved_at = (step, now, now - start)

    def _load(self) -> None:
        found = load_checkpoint(self.run.checkpoints)
        if found is None:
            self.say.note("the run has no checkpoint yet: starting from the beginning")
            return
        for bad in found.skipped:
            self.say.note(f"damaged checkpoint left out: {bad}")
        if found.step > self.job.steps:
            raise RunError(
                f"{self.run.folder}: has {found.step} steps, more than --steps {self.job.steps}; "
                "ask for more steps or leave --steps out"
            )
        self.state = restore(self.state, found.arrays)
        self.seconds = float(found.facts.get("seconds", 0.0))
        self.saved_at = (found.step, time.perf_counter(), 0.0)
        self.say.line(f"resuming at step {found.step} of {self.job.steps}")

    # -- views -------------------------------------------------------------------------------

    def _watched_psnr(self) -> float:
        every = max(1, len(self.capture.held_out) // self.job.watched)
        some = tuple(self.capture.held_out)[::every][: self.job.watched]
        pictures, truths = self._held_out(some)
        errors = [
            np.mean((a.astype(np.float32) - b) ** 2) / 255**2
            for a, b in zip(pictures, truths, strict=True)
        ]
        return float(np.mean([-10 * np.log10(max(e, 1e-10)) for e in errors]))

    def _held_out(
        self, which: tuple[int, ...]
    ) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]]:
        """Drawn views and their photos, 8 bits, each at its own size; weight 0 is black in both."""
        from lumefield.apps._scene_io import to_bytes

        views = Views.of(self.capture, self.job.frame, which)
        draw, level = self.job.draw(self.state), self.job.level
        pictures: list[NDArray[np.uint8]] = []
        truths: list[NDArray[np.uint8]] = []
        for k, i in enumerate(which):
            view = (views.world_from_cam[k], views.focal[k], views.centre[k])
            rgb = draw(view, (views.height, views.width))
            width, height = self.capture.sizes[i]
            weight = views.weight[k] > 127
            truth = views.image[k]
            if self.job.carve and level:
                truth = truth + ((255 - views.alpha[k]) * level).astype(np.uint8)[..., None]
            keep = np.broadcast_to(weight[..., None], truth.shape)
            pictures.append(np.where(keep, to_bytes(np.asarray(rgb)), 0)[:height, :width])
            truths.append(np.where(keep, truth, 0)[:height, :width])
        return pictures, truths

    def _config(self) -> dict[str, Any]:
        settings = {
            k: str(v.resolve()) if isinstance(v, Path) else v
            for k, v in dataclasses.asdict(self.settings).items()
            if k not in ("out", "resume", "overwrite", "threads", "devices")
        }
        return {
            "settings": settings,
            **self.job.record,
            "frame": dataclasses.asdict(self.job.frame),
            "versions": versions(),
        }

    def _write_cameras(self) -> None:
        from lumefield.apps._scene_io import write_json

        held = set(self.capture.held_out)
        cameras = [
            {
                "name": name,
                "world_from_cam": self.capture.world_from_cam[i].tolist(),
                "focal": self.capture.focal[i].tolist(),
                "centre": self.capture.centre[i].tolist(),
                "width": int(self.capture.sizes[i][0]),
                "height": int(self.capture.sizes[i][1]),
                "held_out": i in held,
            }
            for i, name in enumerate(self.capture.names)
        ]
        source = json.loads(json.dumps(self.capture.source, default=str))
        record = {"world": "the input's own", "source": source, "cameras": cameras}
        write_json(self.run.cache / "cameras.json", record)


def _photos(settings: Train, run: Run) -> Capture:
    with CaptureBar() as bar:
        return capture(
            settings.input,
            cache=run.cache,
            downscale=settings.downscale,
            max_side=_plan.MAX_SIDE["cpu" if jax.default_backend() == "cpu" else "gpu"],
            mask_mode=settings.mask_mode,
            progress=bar,
            threads=settings.threads,
        )


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
