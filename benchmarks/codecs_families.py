"""The families of the literature beside our image codec, at real bytes.

    python -m benchmarks.codecs_families [kodim23] --method coin strumpler coin++ --bytes 8000 20000
        [--effort standard] [--ours] [--out benchmarks/results/families_image.json]

Every method codes the picture to a file of about so many bytes, which is decoded again (Kodak, from
LUMEFIELD_DATA). One line each: parameters, bytes, bits per pixel, PSNR of the decoded file, that of
the network before rounding, CPU seconds of encoder and decoder, multiplications per pixel, and the
rate at equal PSNR against the anchors of ``../shared/baselines`` where these reach that far down.
``--ours`` adds the image codec, ``--effort fast``, at the same bytes. Rows that are in ``--out``
already are replaced, the others kept. Videos: ``benchmarks.codecs_families_video``.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.codecs import anchors

EXACT = ("image", "clip", "method", "asked")
"""What tells rows apart."""


def main() -> None:
    """Run the command line above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", nargs="?", default="kodim23")
    parser.add_argument("--method", nargs="*", default=["coin", "strumpler", "coin++"])
    parser.add_argument("--bytes", type=float, nargs="+", default=[8000, 20000])
    parser.add_argument("--effort", default="standard", choices=("fast", "standard", "best"))
    parser.add_argument("--ours", action="store_true")
    parser.add_argument("--baselines", type=Path, default=Path("../shared/baselines"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    root = Path(os.environ.get("LUMEFIELD_DATA", "../shared/data"))
    with Image.open(root / "images" / "kodak" / f"{args.image}.png") as file:
        pixels = np.asarray(file.convert("RGB"))
    curves = anchors(args.baselines / "rd_images_kodak.csv", args.image)
    for size in args.bytes:
        jobs = [(_network, name) for name in args.method]
        jobs += [(_ours, "lumefield fast")] if args.ours else []
        for job, name in jobs:
            row = {"image": args.image, "method": name, "asked": size, "effort": args.effort}
            row |= job(pixels, name, size, args.effort)
            row |= {f"bytes of {anchor}": _at(curve, row) for anchor, curve in curves.items()}
            print(json.dumps(row), flush=True)
            if args.out:
                keep(args.out, row)


def keep(path: Path, row: dict[str, Any]) -> None:
    """Put a row into a file of rows, in place of an older one of the same experiment."""
    rows = json.loads(path.read_text()) if path.exists() else []
    rows = [old for old in rows if any(old.get(k) != row.get(k) for k in EXACT)]
    path.write_text(json.dumps([*rows, row], indent=1) + "\n")


def _network(pixels: np.ndarray, name: str, size: float, effort: str) -> dict[str, Any]:
    from lumefield.codecs.families import EFFORTS, METHODS, compress_network
    from lumefield.codecs.neural import Picture

    planes = tuple(np.ascontiguousarray(pixels[..., c]) for c in range(3))
    picture = Picture(*pixels.shape[:2])
    cpu = time.process_time()
    found = compress_network([planes], picture, METHODS[name], size, effort=EFFORTS[effort])
    cpu = time.process_time() - cpu
    return {
        **{"parameters": found.parameters, "layout": list(found.layout)},
        **{"bytes": len(found.data), "bpp": found.bits_per_pixel},
        **{"psnr": found.psnr, "float_psnr": found.float_psnr, "macs": found.macs},
        **{"encode_cpu_s": cpu, "decode_s": found.seconds[1]},
    }


def _ours(pixels: np.ndarray, name: str, size: float, effort: str) -> dict[str, Any]:
    from lumefield.codecs.neural import Picture, decode_image
    from lumefield.codecs.overfit import EFFORTS, Goal, compress_picture

    del name, effort
    cpu, goal = time.process_time(), Goal("bits", 8 * size)
    picture = Picture(*pixels.shape[:2])
    found = compress_picture(pixels, picture, goal=goal, effort=EFFORTS["fast"])
    cpu = time.process_time() - cpu
    begun = time.monotonic()
    decode_image(found.data)
    return {
        **{"bytes": len(found.data), "bpp": found.bits_per_pixel, "psnr": found.psnr},
        **{"encode_cpu_s": cpu, "decode_s": time.monotonic() - begun},
    }


def _at(curve: list[tuple[float, float]], row: dict[str, Any]) -> float | None:
    """Bytes of an anchor at the row's PSNR, or None where its curve does not reach that far."""
    rate, quality = np.array(sorted(curve, key=lambda p: p[1])).T
    if not quality[0] <= row["psnr"] <= quality[-1]:
        return None
    bpp = float(np.exp(np.interp(row["psnr"], quality, np.log(rate))))
    return bpp / row["bpp"] * row["bytes"]


if __name__ == "__main__":
    main()
