"""Time and score the radiance fields on a capture.

    .venv/bin/python -m benchmarks.radiance speed --method ngp     # rays per CPU-second, one thread
    .venv/bin/python -m benchmarks.radiance small RUN_A RUN_B      # 1/4 of the training resolution
    .venv/bin/python -m benchmarks.radiance curve RUN ...          # held-out PSNR over time

``speed`` trains on the fox (LUMEFIELD_DATA) at 1/4 size and reports the last steps and one drawn
view; nerfstudio's nerfacto: 283 rays per CPU-second, 206 CPU-seconds a view (results.md). ``small``
draws the held-out views of finished runs with a quarter of the pixels a side, one ray through the
middle of each pixel (or its cone), and scores them against area averages of the truth.
"""

import argparse
import dataclasses
import itertools
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("LUMEFIELD_DATA", ROOT.parent / "shared" / "data"))


def decibels(a: NDArray[Any], b: NDArray[Any]) -> float:
    """PSNR of two images in [0, 1]."""
    return float(-10 * np.log10(max(np.mean((np.clip(a, 0, 1) - b) ** 2), 1e-10)))


def averaged(image: NDArray[Any], factor: int) -> NDArray[np.float64]:
    """Means over blocks of factor x factor pixels; what is left over at the edges is dropped."""
    h, w = (side // factor for side in image.shape[:2])
    crop = np.asarray(image[: h * factor, : w * factor], np.float64)
    return crop.reshape(h, factor, w, factor, 3).mean((1, 3))


def small(runs: list[Path], factor: int) -> None:
    """Score runs at a fraction of the resolution they were trained at."""
    from PIL import Image

    from lumefield.apps._evaluate import image_stems
    from lumefield.apps._scene_io import load_scene, scene_draw

    print(f"{'run':30} {'full size':>10} {f'1/{factor}':>8}   dB, mean over held-out views")
    for run in runs:
        scene = load_scene(run)
        assert scene.views is not None, f"{run} holds no cameras"
        views, draw = scene.views.test(), scene_draw(scene)
        scores: list[tuple[float, float]] = []
        for k, stem in enumerate(image_stems(views.names)):
            with Image.open(run / "renders" / f"{stem}.truth.png") as image:
                truth = np.asarray(image.convert("RGB")) / 255
            want = averaged(truth, factor)
            view = views.pick([k])
            less = dataclasses.replace(
                view,
                focal=view.focal / factor,
                centre=view.centre / factor,
                size=np.array([[want.shape[1], want.shape[0]]]),
            )
            both = (decibels(draw(view).rgb, truth), decibels(draw(less).rgb, want))
            scores.append(both)
        full, quarter = np.mean(scores, 0)
        print(f"{run.name:30} {full:10.2f} {quarter:8.2f}")


def speed(method: str, steps: int) -> dict[str, float]:
    """Rays per CPU-second of the last 100 steps, and CPU-seconds of a drawn view."""
    from lumefield.apps._batches import Views
    from lumefield.apps._capture import capture
    from lumefield.apps._radiance_job import prepare_radiance
    from lumefield.apps._train_settings import Train
    from lumefield.fit import Chunk, TrainState, fit

    with tempfile.TemporaryDirectory() as cache:
        photos = capture(
            DATA / "scenes" / "fox",
            cache=Path(cache),
            downscale=4,
            max_side=512,
            mask_mode=None,
            progress=lambda stage, share: None,
            threads=None,
        )
    asked: dict[str, Any] = {"method": method, "steps": steps}
    settings = Train(input=Path("fox"), out=Path("out"), **asked)
    job = prepare_radiance(settings, photos, {})
    rows: list[tuple[float, Mapping[str, NDArray[Any]]]] = []

    def note(state: TrainState, chunk: Chunk) -> bool:
        del state
        rows.append((time.process_time(), chunk.metrics))
        return True

    state = fit(
        job.start(),
        job.stages(),
        job.optimizer(None),
        chunk=job.chunk,
        between=job.between,
        on_chunk=note,
    )
    last = rows[-min(len(rows), 1 + 100 // job.chunk) :]
    spent = last[-1][0] - last[0][0]
    traced = sum(int(m["rays"].sum()) for _, m in last[1:])
    views = Views.of(photos, job.frame, photos.held_out[:1])
    draw = job.draw(state)
    camera = (views.world_from_cam[0], views.focal[0], views.centre[0])
    size = (views.height, views.width)
    rgb = draw(camera, size)  # compiles
    start = time.process_time()
    rgb = draw(camera, size)
    seconds = time.process_time() - start
    return {
        "rays_per_cpu_s": round(traced / max(spent, 1e-9)),
        "cpu_s_per_view": round(seconds, 2),
        "psnr_one_view": round(decibels(np.asarray(rgb), views.image[0] / 255), 2),
    }


def curve(runs: list[Path]) -> None:
    """Held-out PSNR over training time, from the logs of runs."""
    for run in runs:
        lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        points = [(x["seconds"], x["held_out_psnr"]) for x in lines if "held_out_psnr" in x]
        words = "  ".join(f"{s:.0f} s {p:.2f}" for s, p in points)
        rising = all(b[1] >= a[1] for a, b in itertools.pairwise(points))
        print(f"{run.name}: {words}  {'monotone' if rising else 'not monotone'}")


def main() -> None:
    """Run one of the modes."""
    parser = argparse.ArgumentParser(description=__doc__)
    modes = parser.add_subparsers(dest="mode", required=True)
    timed = modes.add_parser("speed")
    timed.add_argument("--method", default="ngp")
    timed.add_argument("--steps", type=int, default=1000)
    scored = modes.add_parser("small")
    scored.add_argument("runs", type=Path, nargs="+")
    scored.add_argument("--factor", type=int, default=4)
    modes.add_parser("curve").add_argument("runs", type=Path, nargs="+")
    words = parser.parse_args()
    if words.mode == "speed":
        print(json.dumps({"method": words.method, **speed(words.method, words.steps)}))
    elif words.mode == "small":
        small(words.runs, words.factor)
    else:
        curve(words.runs)


if __name__ == "__main__":
    main()
