"""Training on the device, timed: the fox at full size, and a scene of the garden's size.

The fox is trained by the command a user types, so that its wall seconds hold start-up, compiling,
reading photos and scoring; 7 000 steps run twice, the second time from a warm compile cache. The
synthetic scene takes training steps alone, to see what a step takes and how much memory:
``python -m benchmarks.gpu.train N HEIGHT WIDTH STEPS`` prints one JSON line.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu import scene
from benchmarks.gpu.legs import megabytes, tell

DATA = Path(os.environ.get("LUMEFIELD_DATA", Path(__file__).parents[3] / "shared" / "data"))
Numbers = dict[str, Any]


def main() -> None:
    """Steps of the synthetic scene."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    for word in ("n", "height", "width", "steps"):
        parser.add_argument(word, type=int)
    given = parser.parse_args()
    tell(steps(given.n, given.height, given.width, given.steps))


def fox(*, tiny: bool) -> list[Numbers]:
    """Rows of the fox: steps, wall seconds, PSNR; a note where its photos are not there."""
    photos = DATA / "scenes" / "fox"
    if not photos.is_dir():
        return [{"scene": "fox", "note": f"no {photos}; set LUMEFIELD_DATA"}]
    flags = ("--downscale", "16") if tiny else ("--downscale", "1")
    rows: list[Numbers] = []
    with tempfile.TemporaryDirectory() as folder:
        for count in (20,) if tiny else (7_000, 7_000, 30_000):
            out = Path(folder) / "run"
            words = ["train", str(photos), "--out", str(out), "--steps", str(count), *flags]
            again = ["--overwrite"] if out.exists() else []
            start = time.perf_counter()
            command = [sys.executable, "-m", "lumefield.apps", *words, *again]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            wall = time.perf_counter() - start
            row: Numbers = {"scene": "fox", "steps": count, "wall_s": round(wall, 1)}
            if done.returncode:
                rows.append(row | {"note": (done.stderr.strip().splitlines() or ["failed"])[-1]})
                break
            metrics = json.loads((out / "metrics.json").read_text())
            kept = ("psnr", "ssim", "seconds", "num_gaussians", "peak_rss_mb", "backend")
            rows.append(row | {name: metrics[name] for name in kept})
    return rows


def steps(n: int, height: int, width: int, count: int) -> Numbers:
    """Training steps of ``n`` Gaussians towards the scene's own picture in grey."""
    import jax
    import jax.numpy as jnp

    from lumefield.apps import _splat
    from lumefield.apps._batches import Batch
    from lumefield.fields import Gaussians, Stats
    from lumefield.fit import Chunk, TrainState, fit

    made = scene.make(n, height, width)
    recipe = _splat.Recipe(steps=30_000, limit=n)
    start = _splat.SplatScene(
        gaussians=Gaussians(*(jnp.asarray(x) for x in made.inputs)),
        exposure=jnp.zeros((0, 3, 2)),
        pose=jnp.zeros((0, 6)),
        probe=jnp.zeros((0, 2)),
    )
    tx = _splat.optimizer(recipe, start)
    state = TrainState.start(start, tx, jax.random.key(0), Stats.start(n, n))
    grey = np.full((1, height, width, 3), 128, np.uint8)
    full = np.full((1, 1, 1), 255, np.uint8)
    views = (made.world_from_cam[None], made.focal[None], made.centre[None])

    def batches(first: int, size: int) -> Any:
        del first
        batch = Batch(np.zeros(1, np.int32), grey, full, full, *views)
        return Batch(*(np.broadcast_to(x[None], (size, *x.shape)) for x in batch))

    size: dict[str, Any] = {"height": height, "width": width}
    after = _splat.make_after_step(recipe, **size)
    stage = _splat.make_stage(recipe, 2 * count, batches, **size, degree=3)
    times, losses = [time.perf_counter()], list[float]()

    def tick(state: TrainState, chunk: Chunk) -> bool:
        del state
        times.append(time.perf_counter())
        losses.append(float(np.mean(chunk.metrics["loss"])))
        return True

    fit(state, (stage,), tx, chunk=count, after_step=after, on_chunk=tick)
    stats = jax.devices()[0].memory_stats() or {}
    return {
        "scene": "synthetic",
        "gaussians": n,
        "size": f"{width}x{height}",
        "first_chunk_s": round(times[1] - times[0], 2),
        "step_ms": round(1e3 * (times[2] - times[1]) / count, 3),
        "losses": losses,
        "peak_mb": megabytes(stats.get("peak_bytes_in_use")),
    }


if __name__ == "__main__":
    main()
