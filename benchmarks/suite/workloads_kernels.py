"""The kernel workloads: what ``suite.kernel_runs`` measures in child processes, as metrics.

One CPU thread unless the key says otherwise. Targets are in ``benchmarks/results.py``.
"""

import json
import os
import statistics
import subprocess
import sys

from benchmarks.suite import garden
from benchmarks.suite.kernel_runs import Numbers
from benchmarks.suite.metrics import ROOT, Metric
from lumefield import native

_SCENE = "render.gauss100k.540p"
_PAIRS = 5
"""Processes of either kind that take turns; the gain is the median of neighbours."""
_RATIO, _TIME, _FREE = 0.25, 0.5, 1e9
"""Tolerances: of a ratio, of a time, and of what is reported but not gated."""


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _measure(name: str, *, pin: bool = True, scene: bool = True) -> Numbers:
    """Numbers of one run; empty, with the reason on stderr, where this machine cannot have them."""
    status = native.status()
    if status.backend != "native":
        return _skip(name, f"no native kernels: {status.reason}")
    if scene and not garden.path().exists():
        return _skip(name, f"no {garden.path()}; set LUMEFIELD_DATA to the test data")
    words = [sys.executable, "-m", "benchmarks.suite.kernel_runs", name, *(["--pin"] * pin)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    environment.pop("LUMEFIELD_THREADS", None)
    done = subprocess.run(words, stdout=subprocess.PIPE, cwd=ROOT, env=environment, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _skip(name: str, reason: str) -> Numbers:
    sys.stderr.write(f"{name}: skipped, {reason}\n")
    return {}


def splat_step() -> list[Metric]:
    """Full step (projection, SH, raster, backward): native, against xla, against the prototype."""
    t = _measure("step")
    if not t:
        return []
    metrics = [
        Metric(f"{_SCENE}.step_ms", t["native"], "ms", "lower", _TIME),
        Metric(f"{_SCENE}.xla_step_ms", t["xla"], "ms", "lower", _FREE),
        Metric(f"{_SCENE}.step_speedup", t["xla"] / t["native"], "x", "higher", _RATIO),
    ]
    if "prototype" in t:
        part = t["native"] / t["prototype"]
        metrics += [
            Metric(f"{_SCENE}.prototype_step_ms", t["prototype"], "ms", "lower", _FREE),
            Metric(f"{_SCENE}.step_of_prototype", part, "x", "lower", _RATIO),
        ]
    return metrics


def splat_order() -> list[Metric]:
    """Full step, native: Gaussians in random order against the order that training puts them in."""
    t = _measure("order")
    if not t:
        return []
    gain = t["random"] / t["curve"]
    return [
        Metric(f"{_SCENE}.order_random_ms", t["random"], "ms", "lower", _FREE),
        Metric(f"{_SCENE}.order_curve_ms", t["curve"], "ms", "lower", _FREE),
        Metric(f"{_SCENE}.order_gain", gain, "x", "higher", 0.1),
        Metric(f"{_SCENE}.resort_ms", t["resort"], "ms", "lower", _FREE),
    ]


def splat_tiles() -> list[Metric]:
    """Forward compositing: row visits x lanes over time, with and without sorting and binning."""
    t = _measure("tiles")
    if not t:
        return []
    work = t["pixel_evaluations"]
    metrics = [
        Metric(f"{_SCENE}.composite_fwd_ms", t["forward_ms"], "ms", "lower", _TIME),
        Metric(f"{_SCENE}.pixel_evaluations", work, "", "equal", 0.02),
        Metric(f"{_SCENE}.fwd_rate", work / t["forward_ms"] / 1e6, "G/s", "higher", _TIME),
    ]
    metrics += [
        Metric(f"{_SCENE}.stage_{stage}", value, "ms", "lower", _FREE)
        for stage, value in t.items()
        if stage.endswith("_ms") and stage != "forward_ms"
    ]
    if "tiles_ms" in t:
        rate = work / t["tiles_ms"] / 1e6
        metrics.append(Metric(f"{_SCENE}.tiles_rate", rate, "G/s", "higher", _TIME))
    return metrics


def splat_threads() -> list[Metric]:
    """Full step of a process with two cores against one with one core, wall time.

    First of all workloads, while the machine idles. Processes of either kind take turns: XLA sizes
    its thread pool once, and what it does between the kernels is part of the step.
    """
    if cores() < 2:
        _skip("threads", "this process has one core")
        return []
    idle = _measure("idle", pin=False)
    if not idle:
        return []
    if idle["free_cores"] < 1.9:
        text = f"{idle['free_cores']:.2f} of 2 cores were free; the gain means nothing"
        sys.stderr.write(f"threads: {text}, run it again on an idle machine\n")
    walls: dict[bool, list[float]] = {True: [], False: []}
    for pinned in (True, False) * _PAIRS:
        walls[pinned].append(_measure("wall", pin=pinned)["wall"])
    gain = statistics.median(a / b for a, b in zip(walls[True], walls[False], strict=True))
    one, two = min(walls[True]), min(walls[False])
    return [
        Metric(f"{_SCENE}.wall_1thread_ms", one, "ms", "lower", _FREE),
        Metric(f"{_SCENE}.wall_2threads_ms", two, "ms", "lower", _TIME),
        Metric(f"{_SCENE}.free_cores", idle["free_cores"], "", "higher", _FREE),
        Metric(f"{_SCENE}.two_threads_gain", gain, "x", "higher", _RATIO),
    ]


def splat_memory() -> list[Metric]:
    """Bytes kept between forward and backward beside the inputs of the rasterizer."""
    t = _measure("memory")
    if not t:
        return []
    return [
        Metric(f"{_SCENE}.kept_bytes", t["kept_bytes"], "B", "lower", 0.01),
        Metric(f"{_SCENE}.visible", t["visible"], "", "equal", 0.01),
        Metric(f"{_SCENE}.kept_bytes_per_visible", t["bytes_per_visible"], "B", "lower", 0.02),
        Metric(f"{_SCENE}.kept_of_budget", t["of_budget"], "x", "lower", 0.01),
    ]


def photometric() -> list[Metric]:
    """Photometric loss at 540 x 960, value and gradient: native and xla."""
    t = _measure("photometric", scene=False)
    if not t:
        return []
    return [
        Metric("render.photometric.540p.native_ms", t["native"], "ms", "lower", _TIME),
        Metric("render.photometric.540p.xla_ms", t["xla"], "ms", "lower", _FREE),
        Metric("render.photometric.540p.speedup", t["xla"] / t["native"], "x", "higher", _RATIO),
    ]


def projection() -> list[Metric]:
    """Projection and SH of 100k Gaussians, forward alone and with backward: native and xla."""
    t = _measure("projection")
    metrics: list[Metric] = []
    for way in ("fwd", "step") if t else ():
        key = f"render.project100k.{way}"
        mine, other = t[f"native_{way}"], t[f"xla_{way}"]
        metrics += [
            Metric(f"{key}_ms", mine, "ms", "lower", _TIME),
            Metric(f"{key}_xla_ms", other, "ms", "lower", _FREE),
            Metric(f"{key}_speedup", other / mine, "x", "higher", _RATIO),
        ]
    return metrics


def splat_table() -> list[Metric]:
    """Native forward and full step over counts, image sizes and SH degrees; not gated."""
    return [
        Metric(f"render.table.{name}_ms", value, "ms", "lower", _FREE)
        for name, value in _measure("table").items()
    ]
