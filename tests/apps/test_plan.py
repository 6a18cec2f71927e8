"""The plan of a run and its memory forecast."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from lumefield.apps._plan import Plan, available_mb, check_memory, forecast_mb, make_plan
from lumefield.errors import InputError

NORMAL: dict[str, Any] = {
    "height": 340,
    "width": 510,
    "points": 7000,
    "steps": None,
    "max_gaussians": None,
    "cameras_per_step": 1,
}


def plan(quality: Any = "standard", **change: Any) -> Plan:
    return make_plan(quality, **(NORMAL | change))


@pytest.mark.parametrize("quality", ["draft", "standard", "best"])
@pytest.mark.parametrize("steps", [None, 1, 7, 49, 50, 51, 99, 330, 1000, 12_345])
@pytest.mark.parametrize("size", [(90, 160), (480, 640), (1080, 1920)])
def test_the_stages_cover_every_step_once(quality: str, steps: int | None, size: tuple[int, int]):
    p = plan(quality, steps=steps, height=size[0], width=size[1])
    ends = [s.until for s in p.stages]
    assert ends == sorted(set(ends))
    assert ends[0] > 0
    assert ends[-1] == p.steps == (steps or p.steps)
    assert all(end % p.chunk == 0 for end in ends[:-1])
    assert [s.degree for s in p.stages] == sorted(s.degree for s in p.stages)
    assert [s.factor for s in p.stages] == sorted((s.factor for s in p.stages), reverse=True)
    assert p.refine_every % p.chunk == 0


@pytest.mark.parametrize("quality", ["draft", "standard", "best"])
def test_a_whole_run_ends_at_full_size_and_degree_3(quality: str):
    p = plan(quality)
    assert (p.stages[-1].factor, p.stages[-1].degree) == (1, 3)
    assert (p.stages[0].factor, p.stages[0].degree) == (2, 0)
    assert 0 < p.refine_from < p.refine_until < p.steps


def test_small_photos_are_not_halved():
    assert {s.factor for s in plan(height=199).stages} == {1}


def test_the_dial_orders_steps_and_gaussians():
    draft, standard, best = plan("draft"), plan("standard"), plan("best")
    assert draft.steps < standard.steps < best.steps
    assert draft.limit < standard.limit < best.limit


def test_the_flags_win_over_the_dial():
    p = plan(steps=77, max_gaussians=1234)
    assert (p.steps, p.limit) == (77, 1234)
    assert plan(points=10**6).limit == 10**6  # every point of the capture has a slot
    assert plan(points=10**6, max_gaussians=5).limit == 5


@pytest.mark.parametrize("name", ["steps", "max_gaussians"])
@pytest.mark.parametrize("value", [0, -3])
def test_flags_that_are_not_positive_are_refused(name: str, value: int):
    flag = name.replace("_", "-")
    with pytest.raises(InputError, match=f"--{flag} {value}, expected at least 1"):
        plan(**{name: value})


@pytest.mark.parametrize("size", [(90, 160), (640, 750), (1600, 2400), (4000, 6000)])
@pytest.mark.parametrize("cameras", [1, 4])
def test_a_chunk_is_bounded_in_bytes_and_divides_a_hundred(size: tuple[int, int], cameras: int):
    p = plan(height=size[0], width=size[1], cameras_per_step=cameras)
    assert 100 % p.chunk == 0
    assert p.chunk == 5 or p.chunk * size[0] * size[1] * 3 * cameras <= 64e6


def test_a_plan_survives_json():
    p = plan("best")
    assert Plan.from_json(json.loads(json.dumps(p.to_json()))) == p


# memory


def test_the_forecast_grows_with_every_input():
    p = plan()
    base = forecast_mb(p, photos=50, height=340, width=510)
    more = [
        forecast_mb(dataclasses.replace(p, limit=2 * p.limit), photos=50, height=340, width=510),
        forecast_mb(p, photos=100, height=340, width=510),
        forecast_mb(p, photos=50, height=680, width=510),
        forecast_mb(p, photos=50, height=340, width=1020),
    ]
    assert base > 0
    assert all(m > base for m in more)


def checked(p: Plan, available: float | None) -> str:
    return check_memory(p, photos=50, height=340, width=510, available_mb=available)


def test_a_run_that_fits_says_what_it_needs():
    p = plan(max_gaussians=76_000)
    assert checked(p, 16_000.0).startswith("memory: about ")
    assert checked(p, 16_000.0).endswith("for 76 000 Gaussians and 50 photos of 16 000 MB free")
    assert checked(p, None).endswith("for 76 000 Gaussians and 50 photos")


def test_too_little_memory_names_flags_that_would_fit():
    p = plan(max_gaussians=3_000_000)
    with pytest.raises(
        InputError,
        match=r"needs about \d+ MB of memory and 3000 MB are free; "
        r"use --max-gaussians \d+ or --downscale \d+ or more",
    ) as caught:
        checked(p, 3000.0)
    found = re.search(r"--max-gaussians (\d+)", str(caught.value))
    assert found
    proposed = int(found[1])
    assert 0 < proposed < 3_000_000
    checked(dataclasses.replace(p, limit=proposed), 3000.0)  # it does fit


@pytest.mark.parametrize("available", [0.0, 1.0, 300.0])
@pytest.mark.parametrize("limit", [1, 100, 76_000])
def test_with_hardly_any_memory_only_smaller_photos_are_proposed(available: float, limit: int):
    with pytest.raises(InputError, match=r"free; use --downscale \d+ or more$"):
        checked(plan(max_gaussians=limit), available)


def test_free_memory_is_read_from_the_system_or_unknown(monkeypatch: pytest.MonkeyPatch):
    free = available_mb()
    assert free is None or free > 0
    monkeypatch.setattr(Path, "read_text", lambda self: "MemTotal: 1 kB\nMemAvailable: 2048 kB\n")
    assert available_mb() == 2.0
    monkeypatch.setattr(Path, "read_text", lambda self: "MemAvailable: much\n")
    assert available_mb() is None
