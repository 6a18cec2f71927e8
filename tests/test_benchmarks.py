"""The benchmark gate: directions, tolerances, other machines, and the file of the baseline."""

import math
from pathlib import Path
from typing import Any, Literal

import pytest

from benchmarks.suite import __main__ as suite
from benchmarks.suite import baseline
from benchmarks.suite.metrics import Metric, best_of, cpu_seconds, ratio
from benchmarks.suite.workloads import WORKLOADS

Direction = Literal["higher", "lower", "equal"]


def metric(value: float, direction: Direction = "lower", unit: str = "dB") -> Metric:
    return Metric("a.b", value, unit, direction, 0.1)


@pytest.mark.parametrize(
    ("direction", "value", "regressed"),
    [
        ("lower", 1.05, False),
        ("lower", 1.2, True),
        ("lower", 0.5, False),
        ("higher", 0.95, False),
        ("higher", 0.8, True),
        ("higher", 2.0, False),
        ("equal", 1.05, False),
        ("equal", 1.2, True),
        ("equal", 0.8, True),
        ("lower", math.nan, True),
    ],
)
def test_a_change_for_the_worse_beyond_the_tolerance_is_a_regression(
    direction: Direction, value: float, regressed: bool
):
    assert metric(value, direction).regressed(1.0) is regressed


def test_the_baseline_comes_back_from_its_file_and_keeps_what_was_not_measured(tmp_path: Path):
    path = baseline.path_of("cpu", tmp_path)
    baseline.save(path, [metric(1.0), Metric("c.d", 2.0, "ratio", "higher", 0.1)])
    baseline.save(path, [metric(3.0)], keep=baseline.load(path))
    rows = baseline.load(path)["metrics"]
    assert {key: row["value"] for key, row in rows.items()} == {"a.b": 3.0, "c.d": 2.0}
    assert baseline.load(path)["machine"]["versions"]["jax"]
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("unit", "cpu", "lines"), [("s", "another", 0), ("ratio", "another", 1), ("s", None, 1)]
)
def test_times_are_compared_on_one_kind_of_processor_only(unit: str, cpu: str | None, lines: int):
    old: dict[str, Any] = {"machine": baseline.machine(), "metrics": {"a.b": {"value": 1.0}}}
    old["machine"]["cpu"] = cpu or old["machine"]["cpu"]
    assert len(baseline.gate([metric(2.0, unit=unit)], old)) == lines


def test_a_metric_without_a_baseline_passes_the_gate():
    assert baseline.gate([metric(2.0)], {"machine": {}, "metrics": {}}) == []


def test_the_gate_exits_1_and_the_update_accepts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    values = iter([1.0, 2.0, 2.0, 2.0])
    monkeypatch.setitem(WORKLOADS, "fake", lambda: [metric(next(values))])
    path = tmp_path / "baseline.cpu.json"
    monkeypatch.setattr(baseline, "path_of", lambda _: path)
    assert suite.main(["fake", "--update-baseline"]) == 0
    assert suite.main(["fake", "--gate"]) == 1
    assert "regression: a.b: 2 dB, baseline 1" in capsys.readouterr().out
    assert suite.main(["fake", "--update-baseline", "--out", str(tmp_path / "now.json")]) == 0
    assert suite.main(["fake", "--gate"]) == 0
    assert baseline.load(tmp_path / "now.json")["metrics"]["a.b"]["value"] == 2.0


def test_an_unknown_workload_is_an_error(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        suite.main(["nothing"])
    assert "no workload nothing; there are" in capsys.readouterr().err


def test_best_of_warms_up_and_repeats():
    calls: list[int] = []
    assert best_of(lambda: calls.append(1), 3, warm=2) >= 0
    assert len(calls) == 5


def test_ratio_is_that_of_slow_to_fast():
    assert ratio(lambda: sum(range(200_000)), lambda: sum(range(2_000)), 3) > 5


def test_cpu_seconds_measures_a_child_and_checks_its_exit_code():
    assert cpu_seconds(["-c", "sum(range(3_000_000))"], 1) > 0.01
    with pytest.raises(RuntimeError, match="exit code 3, not 0"):
        cpu_seconds(["-c", "raise SystemExit(3)"], 1)
