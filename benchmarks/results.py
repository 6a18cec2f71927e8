"""``python -m benchmarks.results``: write ``results.md`` from the committed baseline.

Run it after ``python -m benchmarks.suite --update-baseline``.
"""

import sys
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.suite import baseline

_SCENE = "render.gauss100k.540p"


class Target(NamedTuple):
    """What issue 2 asks of one metric."""

    key: str
    what: str
    at_least: bool
    value: float
    form: str

    def line(self, measured: float) -> str:
        """A row of the first table."""
        met = measured >= self.value if self.at_least else measured <= self.value
        sign, verdict = ("≥" if self.at_least else "≤"), ("yes" if met else "**no**")
        return (
            f"| {self.what} | {self.form.format(measured)} | "
            f"{sign} {self.form.format(self.value)} | {verdict} |"
        )


TARGETS = (
    Target(f"{_SCENE}.step_speedup", "full step, xla ÷ native", True, 4.0, "{:.2f}x"),
    Target(f"{_SCENE}.tiles_rate", "forward tile loop, one core", True, 1.5, "{:.2f} G pixel/s"),
    Target(f"{_SCENE}.two_threads_gain", "full step, 1 thread ÷ 2 (wall)", True, 1.8, "{:.2f}x"),
    Target(f"{_SCENE}.step_of_prototype", "full step, ours ÷ prototype", False, 0.6, "{:.2f}"),
    Target(
        f"{_SCENE}.kept_bytes_per_visible",
        "kept for the backward pass, per visible Gaussian (above 20 B per pixel)",
        False,
        100,
        "{:.0f} B",
    ),
)

_TITLES = {
    f"{_SCENE}.": "100k Gaussians, 960 x 540",
    "render.project100k.": "Projection and SH, 100k Gaussians",
    "render.photometric.": "Photometric loss, value and gradient",
    "apps.cli.": "Command line, CPU time",
}

_METHOD = """## Method

The garden point cloud (`suite/garden.py`: 3DGS sizes times lognormal(0.5), random rotations, logit
opacity N(-0.5, 2), SH degree 3, the file's first camera in 16:9; {visible} of 100 000 Gaussians
reach the image). A full step is activation, projection, SH and compositing, forward and backward
to every Gaussian parameter, through `rasterize_rgb`. Each workload is a process of its own. One
thread: the process is pinned to one core before jax starts, and its CPU time is taken. Medians
of interleaved rounds after a warm-up, so both sides of a ratio see the same machine. Two threads
against one: the median over five pairs of processes that take turns, one pinned to a core, one with
both, of the ratio of their least wall times; this needs a machine without other work.

* Pixel evaluations = tile rows filled in times SIMD lanes, counted by a build with
  `-DLUMEFIELD_COUNT`. `fwd_rate` divides by the whole forward call, sorting and binning included;
  `tiles_rate` by the tile loop alone (stage marks of a build with `-DLF_TIME`), as the 1.22 G/s of
  the prototype and the 2.46 G/s of a branch-free loop were taken.
* The prototype projects in XLA and gives the view direction no gradient, so it does slightly less.
  Its leg (`prototype_leg.py`) runs only where its folder is.
* Kept bytes = arrays that `jax.vjp` of the rasterizer holds beside its inputs, each counted once.

```
make bench                                               # all of it, about two minutes
.venv/bin/python -m benchmarks.suite --update-baseline   # accept the numbers
.venv/bin/python -m benchmarks.results                   # write this page from them
```"""


def page(measured: dict[str, Any]) -> str:
    """The whole of ``results.md`` from what ``baseline.load`` returns."""
    values = {key: row["value"] for key, row in measured["metrics"].items()}
    machine = measured["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items())
    rows = [t.line(values[t.key]) for t in TARGETS if t.key in values]
    free = values.get(f"{_SCENE}.free_cores", 2.0)
    if free < 1.9:
        rows.append(
            f"\nOnly {free:.2f} of 2 cores were free: two against one thread means nothing."
        )
    parts = [
        "# Benchmark results",
        f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, {versions}; "
        f"{machine['date']}. Written by `python -m benchmarks.results` from `baseline.cpu.json`.",
        "## Bottom line",
        "\n".join(["| | measured | target | met |", "| --- | --- | --- | --- |", *rows]),
        _METHOD.format(visible=f"{values.get(f'{_SCENE}.visible', 0):.0f}"),
        "## Native, one thread, over sizes",
        _sizes(values),
    ]
    for prefix, title in _TITLES.items():
        own = {k: r for k, r in measured["metrics"].items() if k.startswith(prefix)}
        if own:
            parts += [f"## {title}", _metrics(own, prefix)]
    return "\n\n".join(parts) + "\n"


def _sizes(values: dict[str, float]) -> str:
    """Forward / full step in ms, Gaussians by image size, then the SH degrees."""

    def cell(name: str) -> str:
        value = values.get(f"render.table.{name}_ms")
        return "-" if value is None else f"{value:.0f}"

    lines = [
        "Forward / full step, ms.\n",
        "| Gaussians | 480 x 270 | 960 x 540 | 1920 x 1080 |",
        "| --- | --- | --- | --- |",
    ]
    for n in ("20k", "100k", "500k"):
        cells = [
            f"{cell(f'{n}.{s}.fwd')} / {cell(f'{n}.{s}.step')}" for s in ("270p", "540p", "1080p")
        ]
        lines.append(f"| {n} | {' | '.join(cells)} |")
    degrees = ", ".join(f"{d}: {cell(f'sh{d}.step')}" for d in range(4))
    return "\n".join([*lines, "", f"Full step at 100k, 960 x 540 by SH degree, ms: {degrees}."])


def _metrics(rows: dict[str, Any], prefix: str) -> str:
    lines = ["| | | |", "| --- | --- | --- |"]
    for key, row in rows.items():
        value = row["value"]
        text = f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
        lines.append(f"| {key.removeprefix(prefix)} | {text} | {row['unit']} |")
    return "\n".join(lines)


def main() -> None:
    """Write ``results.md`` beside the baseline."""
    source = baseline.path_of("cpu")
    if not source.exists():
        sys.exit(f"no {source}; run python -m benchmarks.suite --update-baseline first")
    target = Path(__file__).parent / "results.md"
    part = target.with_suffix(".part")
    part.write_text(page(baseline.load(source)), "utf-8")
    part.replace(target)


if __name__ == "__main__":
    main()
