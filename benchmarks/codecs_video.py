"""Rate and distortion of the video codec against stored curves of x264, x265 and SVT-AV1.

    python -m benchmarks.codecs_video bigbuckbunny carphone --lambda 2e-4 5e-4 1.2e-3 3e-3

The first 32 frames of each clip at 240 x 136 (Lanczos, 4:2:0) are compressed at every lambda to
real bytes and decoded again. Printed are bits per pixel, PSNR (mean over frames, 8-bit RGB after
bilinear upsampling of the chroma, as the stored curves), seconds, and the BD-rate against each
codec of ``results/rd_video_240x136x32.csv`` over the shared range of PSNR. Those files count every
packet and the codec's extradata, ours the whole ``.lume`` file. The curves were made by
``shared/baselines/rd_baselines.py``; in 32 frames all but the low-delay one have one intra frame.
"""

import argparse
import csv
import json
import math
import os
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from benchmarks.codecs import bd_rate

CLIPS = {
    "bigbuckbunny": "bigbuckbunny/bigbuckbunny.mp4",
    "carphone_pristine": "carphone/carphone_pristine.mp4",
}
SIZE, FRAMES = (240, 136), 32
TABLE = Path(__file__).with_name("results") / "rd_video_240x136x32.csv"
Planes = tuple[NDArray[np.uint8], ...]


def rgb(planes: Planes) -> NDArray[np.float64]:
    """(h, w, 3) 8-bit RGB of narrow-range BT.601, chroma upsampled bilinearly."""
    y = (planes[0].astype(np.float64) - 16) * (255 / 219)
    u, v = (
        _doubled(p.astype(np.float64) - 128)[: y.shape[0], : y.shape[1]] * (255 / 224)
        for p in planes[1:]
    )
    out = np.stack([y + 1.402 * v, y - 0.344136 * u - 0.714136 * v, y + 1.772 * u], -1)
    return np.clip(np.rint(out), 0, 255)


def _doubled(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    for axis in (0, 1):
        n = plane.shape[axis]
        at = np.arange(2 * n)
        beside = np.clip(at // 2 + np.where(at % 2, 1, -1), 0, n - 1)
        plane = 0.75 * np.take(plane, at // 2, axis) + 0.25 * np.take(plane, beside, axis)
    return plane


def psnr(ours: list[Planes], theirs: list[Planes]) -> float:
    """Mean over frames of the PSNR in RGB."""
    errors = [np.square(rgb(a) - rgb(b)).mean() for a, b in zip(ours, theirs, strict=True)]
    return float(np.mean([10 * math.log10(255**2 / max(e, 1e-9)) for e in errors]))


def curves(clip: str) -> dict[str, list[tuple[float, float]]]:
    """Stored (bpp, PSNR) of each codec."""
    found: dict[str, list[tuple[float, float]]] = {}
    with TABLE.open() as file:
        for row in csv.DictReader(file):
            if row["source"] == clip:
                point = (float(row["bpp"]), float(row["psnr_rgb"]))
                found.setdefault(row["codec"], []).append(point)
    return found


def main() -> None:
    """Run the command line above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", nargs="*", default=list(CLIPS))
    parser.add_argument("--effort", default="standard", choices=("fast", "standard", "best"))
    parser.add_argument("--lambda", dest="lambdas", type=float, nargs="+", default=[1e-3])
    parser.add_argument("--low-delay", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = []
    for clip in args.clips:
        ours = []
        for exchange in args.lambdas:
            rows.append(_row(clip, exchange, args.effort, args.low_delay))
            ours.append((rows[-1]["bpp"], rows[-1]["psnr_rgb"]))
            print(json.dumps(rows[-1]), flush=True)
            if args.out:
                args.out.write_text(json.dumps(rows, indent=1) + "\n")
        for codec, curve in curves(clip).items():
            if len(ours) > 1:
                print(f"{clip}: BD-rate {bd_rate(curve, ours):+.1f} % of {codec}")
            else:
                rate, quality = np.array(sorted(curve, key=lambda p: p[1])).T
                same = math.exp(float(PchipInterpolator(quality, np.log(rate))(ours[0][1])))
                print(f"{clip}: {100 * (ours[0][0] / same - 1):+.1f} % of {codec} at its PSNR")


def _row(clip: str, exchange: float, effort: str, low_delay: bool) -> dict[str, float | str]:
    from lumefield.apps._video_files import read_film
    from lumefield.codecs.neural import decode_video, video_picture
    from lumefield.codecs.overfit import VIDEO_EFFORTS, Goal, VideoPlan, compress_video

    root = Path(os.environ.get("LUMEFIELD_DATA", "../shared/data")) / "video"
    film = read_film(root / CLIPS[clip], SIZE, 0, FRAMES)
    columns, rows = SIZE
    picture = video_picture(rows, columns, len(film.frames), film.rate, colour=film.colour)
    goal = Goal("lambda", exchange)
    plan = VideoPlan(goal, VIDEO_EFFORTS[effort], low_delay=low_delay)
    wall, cpu = time.monotonic(), time.process_time()
    found = compress_video(film.frames, picture, plan)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    begun = time.process_time()
    decoded = list(decode_video(found.data))
    decode = time.process_time() - begun
    return {
        **{"clip": clip, "effort": effort, "lambda": exchange, "low_delay": str(low_delay)},
        **{"bytes": len(found.data), "bpp": found.bits_per_pixel},
        **{"psnr_rgb": psnr(decoded, film.frames), "wall_s": wall, "cpu_s": cpu},
        "decode_ms_per_frame": 1e3 * decode / len(decoded),
    }


if __name__ == "__main__":
    main()
