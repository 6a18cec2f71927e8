"""``python -m benchmarks.suite [--gate] [--update-baseline] [names]``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.suite import baseline
from benchmarks.suite.metrics import Metric
from benchmarks.suite.workloads import WORKLOADS


def main(argv: Sequence[str] | None = None) -> int:
    """Run workloads, print them beside the baseline; 1 when the gate finds a regression."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.suite", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which of: {', '.join(WORKLOADS)} (default all)")
    parser.add_argument("--gate", action="store_true", help="exit 1 on a regression")
    parser.add_argument("--update-baseline", action="store_true", help="accept what is measured")
    parser.add_argument("--out", type=Path, help="also write the measurement to this JSON file")
    options = parser.parse_args(argv)
    unknown = set(options.names) - set(WORKLOADS)
    if unknown:
        parser.error(f"no workload {', '.join(sorted(unknown))}; there are {', '.join(WORKLOADS)}")

    measured: list[Metric] = []
    for name in options.names or WORKLOADS:
        print(f"{name} ...", file=sys.stderr)
        measured += WORKLOADS[name]()
    path = baseline.path_of(baseline.device())
    old = baseline.load(path)
    print(table(measured, old))
    if options.out:
        baseline.save(options.out, measured)
    lines = baseline.gate(measured, old)
    for line in lines:
        print(f"regression: {line}")
    if options.update_baseline:
        baseline.save(path, measured, keep=old)
    return 1 if lines and options.gate else 0


def table(metrics: Sequence[Metric], old: dict[str, Any]) -> str:
    """One line per metric: key, value, unit and the change against the baseline."""
    lines: list[str] = []
    for m in metrics:
        row = old["metrics"].get(m.key)
        change = f"{m.value / row['value'] - 1:+.1%}" if row and row["value"] else "new"
        lines.append(f"{m.key:<48} {m.value:>12.4g} {m.unit:<6} {change:>8}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
