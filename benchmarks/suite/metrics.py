"""What a workload returns, and helpers to time it fairly."""

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[2]
TIME_UNITS = ("s", "ms", "us", "G/s")


@dataclass(frozen=True)
class Metric:
    """One measured number and how far it may move before it counts as a regression."""

    key: str
    """``room.workload.what``, for example ``render.gauss100k.540p.step_ms``."""
    value: float
    unit: str
    """``s``, ``ms``, ``us``, ``G/s`` are speeds of this machine; all others hold on any."""
    direction: Literal["higher", "lower", "equal"]
    """Which way is better; ``equal`` means that either way is a regression."""
    rel_tol: float
    """Largest harmless change for the worse, as a fraction of the baseline."""

    @property
    def portable(self) -> bool:
        """Whether the value means the same on another machine (a ratio, dB, bytes)."""
        return self.unit not in TIME_UNITS

    def regressed(self, baseline: float) -> bool:
        """Whether the value is worse than ``baseline`` by more than the tolerance."""
        slack = abs(baseline) * self.rel_tol
        worse = {
            "higher": baseline - self.value,
            "lower": self.value - baseline,
            "equal": abs(self.value - baseline),
        }[self.direction]
        return not worse <= slack  # a NaN is a regression


def best_of(run: Callable[[], object], repeats: int = 5, *, warm: int = 1) -> float:
    """Shortest wall time of ``run()`` in seconds, after ``warm`` calls that do not count.

    ``run`` must wait for its result (``jax.block_until_ready``).
    """
    for _ in range(warm):
        run()
    times: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def ratio(
    slow: Callable[[], object], fast: Callable[[], object], repeats: int = 5, *, warm: int = 1
) -> float:
    """How many times faster ``fast()`` is than ``slow()``: minima of interleaved repeats.

    Interleaving keeps a busy moment of the machine from counting against one side only.
    """
    for _ in range(warm):
        slow()
        fast()
    times = [(best_of(slow, 1, warm=0), best_of(fast, 1, warm=0)) for _ in range(repeats)]
    slows, fasts = zip(*times, strict=True)
    return min(slows) / min(fasts)


def cpu_seconds(words: Sequence[str], repeats: int = 5, *, code: int = 0) -> float:
    """Least CPU time, user and system, of the command ``python WORDS`` in a new process.

    Raises:
        RuntimeError: If the command does not exit with ``code``.
    """
    times: list[float] = []
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, *words], capture_output=True, cwd=ROOT, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != code:
            raise RuntimeError(f"python {' '.join(words)}: exit code {done.returncode}, not {code}")
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)
