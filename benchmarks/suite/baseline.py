"""The committed baseline: one JSON file per kind of device, and the gate against it."""

import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.suite.metrics import Metric
from lumefield import __version__

FOLDER = Path(__file__).parents[1]
PACKAGES = ("jax", "jaxlib", "numpy")


def path_of(device: str, folder: Path = FOLDER) -> Path:
    """Where the baseline of ``device`` (``cpu``, ``gpu``) is kept."""
    return folder / f"baseline.{device}.json"


def device() -> str:
    """Kind of device that was measured: jax's own word, or ``cpu`` where jax was not loaded."""
    jax: Any = sys.modules.get("jax")
    return "cpu" if jax is None else str(jax.default_backend())


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "python": sys.version.split()[0],
        "versions": {"lumefield": __version__, **{n: metadata.version(n) for n in PACKAGES}},
        "date": datetime.now(UTC).date().isoformat(),
    }


def load(path: Path) -> dict[str, Any]:
    """The baseline at ``path``; without metrics when there is none."""
    if not path.exists():
        return {"machine": {}, "metrics": {}}
    return json.loads(path.read_text("utf-8"))


def save(path: Path, metrics: Sequence[Metric], *, keep: dict[str, Any] | None = None) -> None:
    """Write ``metrics`` to ``path``, beside those of the baseline ``keep`` not measured now."""
    rows = dict((keep or {}).get("metrics", {}))
    for m in metrics:
        rows[m.key] = {
            "value": float(f"{m.value:.6g}"),
            "unit": m.unit,
            "direction": m.direction,
            "rel_tol": m.rel_tol,
        }
    text = json.dumps({"machine": machine(), "metrics": dict(sorted(rows.items()))}, indent=2)
    part = path.with_suffix(".part")
    part.write_text(text + "\n", "utf-8")
    part.replace(path)


def gate(metrics: Sequence[Metric], baseline: dict[str, Any]) -> list[str]:
    """One line per regression. Times count only on the kind of processor of the baseline."""
    same = baseline["machine"].get("cpu") == _cpu_name()
    lines: list[str] = []
    for m in metrics:
        row = baseline["metrics"].get(m.key)
        if row is None or not (same or m.portable):
            continue
        if m.regressed(row["value"]):
            lines.append(
                f"{m.key}: {m.value:.4g} {m.unit}, baseline {row['value']:.4g}, "
                f"{m.direction} is better, tolerance {m.rel_tol:.0%}"
            )
    return lines


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return "unknown"
    return next(
        (s.split(":", 1)[1].strip() for s in lines if s.startswith("model name")), "unknown"
    )
