"""``python -m benchmarks.gpu [--size tiny] [--device cpu] [--train]``: rasterizers side by side.

Ours (warp, xla and, on a CPU, native), gsplat (CUDA) and splax, those that are installed, on the
same synthetic scenes; nothing is built or downloaded. Every contender runs in a process of its own,
one after the other. Printed, and written to benchmarks/results/gpu-DEVICE[-tiny].json: forward and
forward + backward in milliseconds (median), how many times the roofline's least that is, peak
memory, and how far picture and gradients are from those of xla.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.legs import MEASURES, OPENING, OTHERS
from benchmarks.gpu.peaks import floor_ms
from benchmarks.gpu.train import fox
from lumefield import __version__
from lumefield.apps import _runtime

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"counts": (300,), "images": ((48, 64),), "rounds": 1},
    "small": {"counts": (20_000,), "images": ((270, 480),), "rounds": 3},
    "full": {
        "counts": (100_000, 500_000, 2_000_000),
        "images": ((540, 960), (1080, 1920)),
        "rounds": 20,
    },
}
TRAINING = {
    "tiny": (300, 48, 64, 2),
    "small": (20_000, 270, 480, 5),
    "full": (2_000_000, 1080, 1920, 50),
}
PATIENCE_S = 1800
"""Seconds that a contender may take, compiling included."""
PACKAGES = ("jax", "jaxlib", "warp-lang", "numpy", "torch", "gsplat", "splax")
Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for; 1 when a contender of ours failed or is far from xla."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto")
    parser.add_argument("--train", action="store_true", help="also time training")
    parser.add_argument("--legs", nargs="+", help="contenders, all by default")
    parser.add_argument("--out", type=Path, help="JSON file, in place of the usual one")
    given = parser.parse_args(argv)
    _runtime.prepare()
    environment = dict(os.environ)
    if given.device == "cpu":
        environment["JAX_PLATFORMS"] = "cpu"
    device = _device(given.device)
    ours = ("xla", "warp", "native") if device["name"] == "cpu" else ("xla", "warp")
    report: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "size": given.size,
        "device": device,
        "versions": _versions(),
        "rows": _rows(given.size, tuple(given.legs or (*ours, *OTHERS)), environment),
    }
    if given.train:
        words = (str(v) for v in TRAINING[given.size])
        synthetic = child("train", *words, environment=environment)
        report["training"] = [synthetic, *fox(tiny=given.size != "full")]
    slug = "-".join(device["name"].lower().split())
    tail = "" if given.size == "full" else f"-{given.size}"
    out = given.out or RESULTS / f"gpu-{slug}{tail}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")
    print(table(report))
    mine = [r for r in report["rows"] if r["leg"] in ours]
    failed = [r for r in mine if r.get("note", "").startswith("failed")]
    return 1 if failed or not all(r.get("agrees", True) for r in mine) else 0


def _rows(size: str, legs: tuple[str, ...], environment: dict[str, str]) -> list[Row]:
    plan = SIZES[size]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for n in plan["counts"]:
            for height, width in plan["images"]:
                words = [str(v) for v in (n, height, width)]
                tiny = str(int(size == "tiny"))
                least = child("peaks", *words, tiny, environment=environment)
                for leg in legs:
                    sys.stderr.write(f"{leg}: {n} Gaussians, {width} x {height}\n")
                    file = Path(folder) / f"{leg}.npz"
                    file.unlink(missing_ok=True)
                    told = child(
                        "legs", leg, *words, str(plan["rounds"]), str(file), environment=environment
                    )
                    row: Row = {"leg": leg, "gaussians": n, "size": f"{width}x{height}", **told}
                    known = f"{MEASURES[0]}_ms" in told and "note" not in least
                    for measure in MEASURES if known else ():
                        row[f"{measure}_floor_ms"] = round(floor_ms(least, measure), 5)
                    row |= parity(file, Path(folder) / "xla.npz")
                    rows.append(row | {"least": least} if leg == legs[0] else row)
    return rows


def child(module: str, *words: str, environment: dict[str, str]) -> Row:
    """What a process of this package prints; its failure as a note."""
    command = [sys.executable, "-m", f"benchmarks.gpu.{module}", *words]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env=environment,
            timeout=PATIENCE_S,
        )
    except subprocess.TimeoutExpired:
        return {"note": f"failed: not done after {PATIENCE_S} s"}
    for line in reversed(done.stdout.splitlines()):  # libraries may print when they are left
        if line.startswith(OPENING):
            return json.loads(line.removeprefix(OPENING))
    lines = done.stderr.strip().splitlines() or done.stdout.strip().splitlines() or ["no output"]
    return {"note": f"failed: exit code {done.returncode}: {lines[-1][:200]}"}


def parity(file: Path, reference: Path) -> Row:
    """Largest and mean difference of the picture, and of gradients relative to their norms."""
    if not file.exists() or not reference.exists():
        return {}
    with np.load(file) as mine, np.load(reference) as other:
        if any(mine[k].shape != other[k].shape for k in other.files):
            return {"agrees": False, "note": "failed: pictures or gradients of another shape"}
        apart = np.abs(mine["picture"] - other["picture"])
        gradients = [
            float(np.linalg.norm(mine[k] - other[k]) / max(np.linalg.norm(other[k]), 1e-30))
            for k in ("g0", "g1", "g2", "g3")
        ]
    worst = max(gradients)
    return {
        "picture_max": float(apart.max()),
        "picture_mean": float(apart.mean()),
        "gradient_relative": worst,
        "agrees": bool(apart.mean() <= 1e-4 and worst <= 1e-2),
    }


def _device(wanted: str) -> dict[str, Any]:
    """Name, driver and memory of the first NVIDIA GPU, or the CPU."""
    tool = shutil.which("nvidia-smi")
    if wanted == "cpu" or tool is None:
        return {"name": "cpu", "model": _runtime.cpu_name(), "cores": _runtime.cores()}
    query = ["--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    done = subprocess.run([tool, *query], capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"name": "cpu", "model": _runtime.cpu_name(), "cores": _runtime.cores()}
    name, driver, memory = (part.strip() for part in lines[0].split(","))
    return {"name": name, "driver": driver, "memory": memory, "gpus": len(lines)}


def _versions() -> dict[str, str]:
    found = {"lumefield": __version__, "python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def table(report: dict[str, Any]) -> str:
    """The report as text: one line a contender and scene, and what did not run."""
    device = report["device"]
    lines = [
        f"{device['name']} ({device.get('driver') or device.get('model')}), {report['date']}",
        f"{'':<8}{'Gaussians':>10} {'image':>10} {'fwd ms':>9} {'x least':>8} {'fwd+bwd':>9} "
        f"{'x least':>8} {'peak MB':>8} {'picture max':>12} {'gradients':>10}",
    ]
    for r in report["rows"]:
        head = f"{r['leg']:<8}{r['gaussians']:>10} {r['size']:>10} "
        if "note" in r:
            lines.append(head + r["note"])
            continue
        of_floor = [r[f"{m}_ms"] / max(r.get(f"{m}_floor_ms", np.nan), 1e-9) for m in MEASURES]
        lines.append(
            f"{head}{r['forward_ms']:>9.2f} {of_floor[0]:>8.1f} {r['step_ms']:>9.2f} "
            f"{of_floor[1]:>8.1f} {r['peak_mb']:>8.0f} {r.get('picture_max', np.nan):>12.2g} "
            f"{r.get('gradient_relative', np.nan):>10.2g}"
        )
    for r in report.get("training", ()):
        lines.append("train   " + ", ".join(f"{k} {v}" for k, v in r.items() if k != "losses"))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
