"""The workloads, one function each: no argument, a list of metrics back.

Those that need jax run it in a process of their own: it sizes its thread pool once.
"""

from collections.abc import Callable

from benchmarks.suite import workloads_kernels as kernels
from benchmarks.suite.metrics import Metric, cpu_seconds

_CLI = ("-m", "lumefield.apps")


def command_line() -> list[Metric]:
    """How soon the command line answers: nothing of this may load jax."""
    cases = {
        "help": ((*_CLI, "--help"), 0),
        "train_help": ((*_CLI, "train", "--help"), 0),
        "doctor": ((*_CLI, "doctor"), 0),
        "wrong_flag": ((*_CLI, "train", "--no-such-flag"), 2),
    }
    return [
        Metric(f"apps.cli.{name}_cpu_s", cpu_seconds(words, 3, code=code), "s", "lower", 0.5)
        for name, (words, code) in cases.items()
    ]


WORKLOADS: dict[str, Callable[[], list[Metric]]] = {
    "cli": command_line,
    "splat_threads": kernels.splat_threads,
    "splat_step": kernels.splat_step,
    "splat_order": kernels.splat_order,
    "splat_tiles": kernels.splat_tiles,
    "splat_memory": kernels.splat_memory,
    "splat_table": kernels.splat_table,
    "projection": kernels.projection,
    "photometric": kernels.photometric,
}
"""Word of ``python -m benchmarks.suite WORD`` -> workload."""
