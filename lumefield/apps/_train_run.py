"""One training session: the capture, the loop's callbacks, what comes out."""

import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from lumefield.apps import _plan
from lumefield.apps._batches import Views
from lumefield.apps._capture import capture
from lumefield.apps._capture_type import Capture
from lumefield.apps._live import Live
from lumefield.apps._loop_keeper import LoopKeeper, versions
from lumefield.apps._method import Job, Prepare
from lumefield.apps._progress import CaptureBar, Say, StepBar
from lumefield.apps._radiance_job import prepare_radiance
from lumefield.apps._run import Run
from lumefield.apps._splat_job import prepare_splats
from lumefield.apps._train_settings import OF_THE_CALL, Train
from lumefield.fit import Chunk, TrainState

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
_WATCH_STEPS, _WATCH_SHARE = 500, 0.1
"""Steps between two looks at held-out views, and their most share of the time of training."""


@dataclass(frozen=True)
class Session:
    """One training: what it is made of, step by step."""

    settings: Train
    run: Run
    capture: Capture
    job: Job
    keeper: LoopKeeper
    timings: dict[str, float]
    """Seconds by stage."""
    say: Say
    live: Live | None

    @classmethod
    def prepare(cls, settings: Train, run: Run, live: Live | None = None) -> "Session":
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
        keeper = LoopKeeper(run, say, job.start(), steps=job.steps, save_steps=_SAVE_STEPS)
        session = cls(settings, run, photos, job, keeper, spent, say, live)
        if settings.resume:
            keeper.load()
        run.begin(session._config())
        session._write_cameras()
        if settings.resume:
            run.cut_log(keeper.step)
        if live:
            live.begin(job, photos, keeper)
        return session

    def fit(self) -> None:
        """Train until the last step, Ctrl-C, or until the live view is told to stop."""
        job, keeper = self.job, self.keeper
        keeper.fit(
            job.stages(),
            job.optimizer(keeper.state.scene),
            self._note,
            bar=StepBar("train", job.steps, keeper.step),
            chunk=job.chunk,
            state=job.placed(keeper.state),
            after_step=job.after_step,
            between=job.between,
            onlooker=self.live.look if self.live else None,
        )

    def finish(self) -> None:
        """Write the scene, score the held-out views, write metrics and report."""
        from lumefield.apps._evaluate import save_renders, score_table, score_views
        from lumefield.apps._report import write_report
        from lumefield.apps._scene_io import write_json

        keeper = self.keeper
        result = self.run.folder / self.job.result
        made = self.job.save(keeper.state, self.run.folder)
        if keeper.stopped:
            keeper.tell_stopped(result, "scene")
            return
        if self.live:
            self.live.finishing(keeper.state)
        if keeper.step < keeper.steps:
            self.say.note(
                f"ended after {keeper.step} of {keeper.steps} steps, as asked for in the live "
                "view; --resume continues"
            )
        start = time.perf_counter()
        names = [self.capture.names[i] for i in self.capture.held_out]
        metrics: dict[str, Any] = {"method": self.settings.method, "steps": keeper.step}
        if names:
            pictures, truths = self._held_out(tuple(self.capture.held_out))
            save_renders(self.run.folder, names, pictures, truths)
            scores = score_views(pictures, truths, names)
            metrics |= scores
            self.say.show(score_table(scores))
        self.timings["evaluation"] = round(time.perf_counter() - start, 2)
        self.timings["training"] = round(keeper.seconds, 2)
        metrics |= {**keeper.account(), **made, "timings": self.timings}
        write_json(self.run.folder / "metrics.json", metrics)
        report = write_report(self.run.folder)
        score = f"PSNR {metrics['psnr']:.2f} dB, SSIM {metrics['ssim']:.3f}, " if names else ""
        self.say.line(
            f"{score}{self.job.count(keeper.state):,} {self.job.noun}, {keeper.seconds:.0f} s, "
            f"{metrics['peak_rss_mb']:.0f} MB\nreport {report}\nscene  {result}"
        )

    def _note(self, state: TrainState, chunk: Chunk) -> tuple[dict[str, Any], str]:
        psnr = float(np.mean(chunk.metrics["psnr"]))
        line = {"psnr": round(psnr, 3), **self.job.facts(chunk.metrics, state)}
        last = chunk.step == self.job.steps
        rested = self.timings.get("watching", 0.0) <= _WATCH_SHARE * self.keeper.seconds
        if self.capture.held_out and (last or (chunk.step % _WATCH_STEPS == 0 and rested)):
            line["held_out_psnr"] = round(self._watched_psnr(), 3)
        return line, f"{psnr:.2f} dB  {self.job.count(state):,} {self.job.noun}"

    # -- views -------------------------------------------------------------------------------

    def _watched_psnr(self) -> float:
        start = time.perf_counter()
        every = max(1, len(self.capture.held_out) // self.job.watched)
        some = tuple(self.capture.held_out)[::every][: self.job.watched]
        pictures, truths = self._held_out(some)
        errors = [
            np.mean((a.astype(np.float32) - b) ** 2) / 255**2
            for a, b in zip(pictures, truths, strict=True)
        ]
        spent = self.timings.get("watching", 0.0) + time.perf_counter() - start
        self.timings["watching"] = round(spent, 2)
        return float(np.mean([-10 * np.log10(max(e, 1e-10)) for e in errors]))

    def _held_out(
        self, which: tuple[int, ...]
    ) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]]:
        """Drawn views and their photos, 8 bits, each at its own size; weight 0 is black in both."""
        from lumefield.apps._scene_io import to_bytes

        views = Views.of(self.capture, self.job.frame, which)
        draw, level = self.job.draw(self.keeper.state), self.job.level
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
            if k not in OF_THE_CALL
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
