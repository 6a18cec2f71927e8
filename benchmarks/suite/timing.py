"""Interleaved timing: every contender once a round, so that a busy moment hits all of them."""

import hashlib
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

Clock = Callable[[], float]
Run = Callable[[], object]


def waiting(compiled: Callable[..., Any], *args: Any) -> Run:
    """A call of the jitted function on ``args`` that waits for its result."""
    import jax

    def run() -> object:
        return jax.block_until_ready(compiled(*args))

    return run


def interleaved(
    runs: Mapping[str, Run],
    rounds: int,
    *,
    clock: Clock = time.process_time,
    of: Callable[[Iterable[float]], float] = statistics.median,
    warm: int = 2,
) -> dict[str, float]:
    """Median (or other statistic) of each run's times, in milliseconds.

    Args:
        runs: Name -> a call that waits for its result.
        rounds: How often each is timed.
        clock: ``time.process_time`` (CPU time of all threads: for one pinned thread) or
            ``time.perf_counter`` (wall).
        of: What becomes of a run's times; ``min`` for wall time on a machine with other work.
        warm: Calls of each before the first round.
    """
    for _ in range(warm):
        for run in runs.values():
            run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = clock()
            run()
            times[name].append((clock() - start) * 1e3)
    return {name: of(t) for name, t in times.items()}


def free_cores() -> float:
    """How many times faster two threads hash than one: 2 on an idle machine, 1 on a busy one."""
    data = bytes(64 << 20)

    def hashed(threads: int) -> None:
        with ThreadPoolExecutor(threads) as pool:  # hashlib gives up the interpreter lock
            list(pool.map(hashlib.sha256, [data] * 2))

    ms = interleaved({str(n): partial(hashed, n) for n in (1, 2)}, 3, clock=time.perf_counter)
    return ms["1"] / ms["2"]


def pin() -> None:
    """Keep this process on one core. Before jax is imported, so that XLA's pool has one thread."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
