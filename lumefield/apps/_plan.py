"""From the quality dial and the photos to the numbers of a training run, and what it will need."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lumefield.errors import InputError

Quality = Literal["draft", "standard", "best"]

MAX_SIDE = {"cpu": 512, "gpu": 1600}
"""Longest side of the photos, in pixels, that ``--downscale`` aims at when it is not given."""
_STEPS = {"draft": 4_000, "standard": 7_000, "best": 10_000}
_PER_PIXEL = {"draft": 0.25, "standard": 0.45, "best": 0.8}
START_SHARE = 0.25
"""Share of the most Gaussians to start with, where the sparse points are fewer."""
_GROWN_BY = 0.4
"""Share of the steps after which the most Gaussians are in use (relocation)."""
_FLOATS = 3 + 4 + 3 + 1 + 48
_COPIES = 9
"""Copies of the Gaussians in memory at once: values, two moments, gradients, the scan's carry."""
_BASE_MB = 650
"""A Python process with jax, its compiler and the photo library."""
_DEVICE_MB = 900
"""An accelerator before the first array: context, compiled code, lists of the tiles."""
Place = Literal["all", "host", "device"]


@dataclass(frozen=True)
class StagePlan:
    """A stretch of steps at one size and one degree of the spherical harmonics."""

    until: int
    factor: int
    """Photos are averaged down by this much more."""
    degree: int


@dataclass(frozen=True)
class Plan:
    """What a run does; saved in ``config.json`` and read back to continue."""

    steps: int
    limit: int
    """Most Gaussians."""
    chunk: int
    """Steps per jitted call."""
    stages: tuple[StagePlan, ...]
    refine_from: int
    refine_until: int
    refine_every: int
    growth: float
    """Factor on the number of Gaussians at each refinement."""

    def to_json(self) -> dict[str, Any]:
        """As plain numbers."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Plan":
        """The inverse of ``to_json``."""
        fields: dict[str, Any] = dict(record)
        fields["stages"] = tuple(StagePlan(**stage) for stage in record["stages"])
        return cls(**fields)


def make_plan(
    quality: Quality,
    *,
    height: int,
    width: int,
    points: int,
    steps: int | None,
    max_gaussians: int | None,
    cameras_per_step: int,
) -> Plan:
    """Everything that follows from the dial.

    Half size and degree 0 for the first tenth, then half size, then full size with degrees 2 and 3:
    coarse photos are cheap and keep early Gaussians from fitting noise.

    Args:
        quality: The dial.
        height: Rows of the photos.
        width: Columns.
        points: Points to start from.
        steps: Overrides the dial.
        max_gaussians: Overrides the dial.
        cameras_per_step: Photos per step, for the size of a chunk.

    Raises:
        InputError: If an override is not positive.
    """
    for name, value in (("steps", steps), ("max-gaussians", max_gaussians)):
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}, expected at least 1")
    steps = steps or _STEPS[quality]
    limit = max_gaussians or max(20_000, min(3_000_000, int(_PER_PIXEL[quality] * height * width)))
    limit = limit if max_gaussians else max(limit, points)
    photo = height * width * 3 * cameras_per_step
    # Divisors of 100, so that refinement and opacity resets fall on whole hundreds.
    chunk = max(c for c in (5, 10, 20, 25, 50) if c == 5 or c * photo <= 64e6)

    def whole(share: float) -> int:
        return max(chunk, round(share * steps / chunk) * chunk)

    small = 2 if min(height, width) >= 200 else 1
    marks = [(whole(0.06), small, 0), (whole(0.15), small, 1), (whole(0.3), 1, 2), (steps, 1, 3)]
    stages: list[StagePlan] = []
    for until, factor, degree in marks:
        if not stages or stages[-1].until < min(until, steps):
            stages.append(StagePlan(min(until, steps), factor, degree))
    stages[-1] = dataclasses.replace(stages[-1], until=steps)
    every = max(chunk, min(100, round(steps / 80 / chunk) * chunk))
    start = min(500, whole(0.1))
    times = max(1, (_GROWN_BY * steps - start) / every)
    return Plan(
        steps=steps,
        limit=limit,
        chunk=chunk,
        stages=tuple(stages),
        refine_from=start,
        refine_until=int(0.85 * steps),
        refine_every=every,
        growth=min(1.5, max(1.05, (limit / max(points, START_SHARE * limit)) ** (1 / times))),
    )


def forecast_mb(plan: Plan, *, photos: int, height: int, width: int, place: Place = "all") -> int:
    """Peak memory of the run in MB: Gaussians and moments, photos, one chunk, working space.

    Args:
        plan: The run.
        photos: How many photos there are.
        height: Rows of the photos.
        width: Columns.
        place: What of it: all of it on a CPU; or the share of the host, or of the accelerator.
    """
    gaussians = plan.limit * _FLOATS * 4 * _COPIES
    pixels = height * width
    stored = photos * pixels * 3 * (1 + 1 / 4)
    chunk = max(plan.chunk * pixels * 3, 64e6) * 2
    working = pixels * 4 * 40 + plan.limit * 64 * 8
    there = gaussians + chunk + working
    base, used = {
        "all": (_BASE_MB, there + stored),
        "host": (_BASE_MB, chunk + stored),
        "device": (_DEVICE_MB, there),
    }[place]
    return round(base + used / 1e6)


def check_memory(
    plan: Plan,
    *,
    photos: int,
    height: int,
    width: int,
    available_mb: float | None,
    place: Place = "all",
) -> str:
    """A line that says what the run needs.

    Args:
        plan: The run.
        photos: How many photos there are.
        height: Rows of the photos.
        width: Columns.
        available_mb: What is free, in MB; None where nobody can tell.
        place: Which memory, see ``forecast_mb``.

    Raises:
        InputError: If that is more than there is, with values of the flags that would fit.
    """
    need = forecast_mb(plan, photos=photos, height=height, width=width, place=place)
    what = {"all": "memory", "host": "memory", "device": "GPU memory"}[place]
    line = f"{what}: about {need:,} MB for {plan.limit:,} Gaussians and {photos} photos"
    if available_mb is None:
        return line.replace(",", " ")
    line += f" of {available_mb:,.0f} MB free"
    if need <= 0.9 * available_mb:
        return line.replace(",", " ")
    bare = dataclasses.replace(plan, limit=0)
    rest = forecast_mb(bare, photos=photos, height=height, width=width, place=place)
    fits = int((0.85 * available_mb - rest) / (max(need - rest, 1) / plan.limit))
    helps = place != "host" and fits >= 5_000
    ways = [f"--max-gaussians {fits // 1000 * 1000}"] if helps else []
    ways.append(
        f"--downscale {max(2, math.ceil(math.sqrt(need / max(1.0, 0.5 * available_mb))))} or more"
    )
    raise InputError(
        f"the run needs about {need} MB of {what} and {available_mb:.0f} MB are free; "
        f"use {' or '.join(ways)}"
    )


def available_mb() -> float | None:
    """Memory that is free to use, in MB; None where the system does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) / 1024
    except (OSError, ValueError, IndexError):
        pass
    return None
