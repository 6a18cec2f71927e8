"""Rate and distortion of the image codec against stored curves of other codecs.

    python -m benchmarks.codecs kodim23 kodim15 --effort standard --lambda 2e-4 6e-4 2e-3 6e-3

Every picture is compressed at every lambda to real bytes and decoded again; printed are bits per
pixel, PSNR (RGB, 8 bit), seconds of wall and of all cores, and the BD-rate (Bjontegaard 2001, with
PCHIP interpolation of log rate) against each anchor of ``../shared/baselines/rd_images_kodak.csv``
over the shared range of PSNR. ``--out`` keeps the rows as JSON.
"""

import argparse
import csv
import json
import math
import os
import time
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.interpolate import PchipInterpolator

from lumefield.render.quality import bd_rate

ANCHORS = (
    "4:4:4 speed2 aom tune=psnr",
    "4:4:4 speed6 aom tune=psnr",
)
Curve = list[tuple[float, float]]
"""(bits per pixel, PSNR in dB)."""


def anchors(path: Path, image: str) -> dict[str, Curve]:
    """Stored AVIF curves of a picture."""
    found: dict[str, Curve] = {name: [] for name in ANCHORS}
    with path.open() as file:
        for row in csv.DictReader(file):
            if row["source"] == image and row["codec"] == "avif" and row["config"] in found:
                found[row["config"]].append((float(row["bpp"]), float(row["psnr_rgb"])))
    return {name: curve for name, curve in found.items() if curve}


def main() -> None:
    """Run the command line above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="*", default=["kodim23"])
    parser.add_argument("--effort", default="standard", choices=("fast", "standard", "best"))
    parser.add_argument("--lambda", dest="lambdas", type=float, nargs="+", default=[1e-3])
    parser.add_argument("--baselines", type=Path, default=Path("../shared/baselines"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    from lumefield.codecs.neural import Picture
    from lumefield.codecs.overfit import EFFORTS, Goal, compress_picture

    root = Path(os.environ.get("LUMEFIELD_DATA", "../shared/data"))
    rows = []
    for name in args.images:
        with Image.open(root / "images" / "kodak" / f"{name}.png") as file:
            pixels = np.asarray(file.convert("RGB"))
        ours: Curve = []
        for exchange in args.lambdas:
            wall, cpu = time.monotonic(), time.process_time()
            found = compress_picture(
                pixels,
                Picture(*pixels.shape[:2]),
                goal=Goal("lambda", exchange),
                effort=EFFORTS[args.effort],
            )
            wall, cpu = time.monotonic() - wall, time.process_time() - cpu
            ours.append((found.bits_per_pixel, found.psnr))
            rows.append(
                {
                    **{"image": name, "effort": args.effort, "lambda": exchange},
                    **{"bpp": found.bits_per_pixel, "psnr": found.psnr},
                    **{"wall_s": wall, "cpu_s": cpu, "parameter_bytes": found.parameter_bytes},
                }
            )
            print(json.dumps(rows[-1]), flush=True)
        for anchor, curve in anchors(args.baselines / "rd_images_kodak.csv", name).items():
            is_one = len(ours) == 1
            found = _at(curve, ours[0]) if is_one else bd_rate(curve, ours)
            words = "rate at equal PSNR" if is_one else "BD-rate"
            print(f"{name}: {words} {found:+.1f} % of AVIF {anchor}")
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


def _at(curve: Curve, point: tuple[float, float]) -> float:
    """Difference of rate at the PSNR of one point, percent."""
    rate, quality = np.array(sorted(curve, key=lambda p: p[1])).T
    return 100 * (
        point[0] / math.exp(float(PchipInterpolator(quality, np.log(rate))(point[1]))) - 1
    )


if __name__ == "__main__":
    main()
