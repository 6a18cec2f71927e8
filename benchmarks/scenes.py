"""Train the sample scenes and tabulate what came out: the numbers of the README.

``python -m benchmarks.scenes OUT [NAME ...] [--collect]`` trains each scene as a user would,
into OUT/NAME (a run that is already finished there is kept), and prints a Markdown table of these
and of the scenes stored before; ``--collect`` only reads the runs. The photos come from
``LUMEFIELD_DATA`` (default ``../shared/data`` beside the repository). On 2 cores a scene takes
about five minutes.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

DATA = Path(os.environ.get("LUMEFIELD_DATA", Path(__file__).parents[2] / "shared" / "data"))
SCENES: dict[str, tuple[str, ...]] = {
    "fox": ("scenes/fox", "--downscale", "4"),
    "fox_best": ("scenes/fox", "--downscale", "4", "--quality", "best"),
    "banana": ("scenes/banana",),
    "sceaux_castle": ("scenes/sceaux_castle",),
    "bust_colmap": ("scenes/bust_colmap",),
    "duck_queen_llff": ("scenes/duck_queen_llff",),
    "fox_video": ("fox.mp4",),
}
"""Name -> input below the data folder and the flags; ``fox.mp4`` is made first."""
RESULTS = Path(__file__).parent / "results" / "scenes.json"


def main() -> None:
    """Train what is missing, then print and store the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("out", type=Path, help="folder of the runs")
    parser.add_argument("names", nargs="*", default=list(SCENES), help="scenes, all by default")
    parser.add_argument("--collect", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    for name in arguments.names:
        run = arguments.out / name
        if not arguments.collect and not (run / "metrics.json").exists():
            train(name, run)
        if (run / "metrics.json").exists():
            rows[name] = row(run)
    if not rows:
        raise SystemExit(f"{arguments.out} holds no finished run")
    RESULTS.parent.mkdir(exist_ok=True)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    rows = {name: (known | rows)[name] for name in SCENES if name in known | rows}
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))


def train(name: str, run: Path) -> None:
    """Run the command a user would type."""
    source, *flags = SCENES[name]
    given = DATA / source
    if name == "fox_video":
        given = run.parent / "fox.mp4"
        if not given.exists():
            given.parent.mkdir(parents=True, exist_ok=True)
            make = [sys.executable, str(Path(__file__).parent / "make_fox_video.py"), str(given)]
            subprocess.run(make, check=True)
    words = ["train", str(given), "--out", str(run), *flags]
    subprocess.run([sys.executable, "-m", "lumefield.apps", *words], check=True)


def row(run: Path) -> dict[str, Any]:
    """What the table says of a run."""
    metrics = json.loads((run / "metrics.json").read_text())
    cameras = json.loads((run / "capture" / "cameras.json").read_text())
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    early = [x for x in log if "held_out_psnr" in x and x["seconds"] <= 100]
    size = cameras["cameras"][0]
    return {
        "capture": cameras["source"].get("summary", ""),
        "pixels": f"{size['width']}x{size['height']}",
        "psnr": metrics["psnr"],
        "ssim": metrics["ssim"],
        "psnr_within_100_s": max((x["held_out_psnr"] for x in early), default=None),
        "views": len(metrics["views"]),
        "gaussians": metrics["num_gaussians"],
        "steps": metrics["steps"],
        "capture_s": metrics["timings"]["capture"],
        "seconds": metrics["seconds"],
        "peak_rss_mb": metrics["peak_rss_mb"],
        "backend": metrics["backend"],
        "versions": metrics["versions"],
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows as Markdown."""
    out = [
        "| scene | photos | size | PSNR dB | SSIM | Gaussians | steps | capture s | train s | MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, r in rows.items():
        out.append(
            f"| {name} | {r['capture']} | {r['pixels']} | {r['psnr']:.2f} | {r['ssim']:.3f} | "
            f"{r['gaussians']:,} | {r['steps']:,} | {r['capture_s']:.0f} | {r['seconds']:.0f} | "
            f"{r['peak_rss_mb']:.0f} |"
        )
    return "\n".join(out)


if __name__ == "__main__":
    main()
