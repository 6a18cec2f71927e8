"""A step divided among devices is the step of one device, bit by bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.apps.train_cases import ROOT, SMALL, Capsys, environment, only_line, train_here

_TRAIN = """
import sys
from tests.apps.train_cases import train_here
for n in sys.argv[3].split(","):
    code = train_here(sys.argv[1], "--out", f"{sys.argv[2]}/{n}", "--devices", n, *sys.argv[4:])
    assert code == 0, code
"""


def trained_on(devices: str, room: Path, folder: Path, *words: object) -> list[Path]:
    """Runs on 1, 2, ... of four host devices, in one process."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    env = environment() | {"XLA_FLAGS": flags, "LUMEFIELD_THREADS": "1", "PYTHONPATH": str(ROOT)}
    told = [str(word) for word in (room, folder, devices, *words)]
    done = subprocess.run(
        [sys.executable, "-c", _TRAIN, *told],
        capture_output=True, text=True, check=False, cwd=ROOT, env=env, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return [folder / n for n in devices.split(",")]


def result(run: Path) -> tuple[bytes, object]:
    """The scene, byte by byte, and the scores of the held-out views."""
    return (run / "scene.ply").read_bytes(), json.loads((run / "metrics.json").read_text())["views"]


def test_four_devices_train_the_scene_of_one(room: Path, tmp_path: Path) -> None:
    words = (*SMALL, "--steps", 12, "--cameras-per-step", 4)
    one, four = trained_on("1,4", room, tmp_path, *words)
    assert result(one) == result(four)
    configs = [json.loads((run / "config.json").read_text()) for run in (one, four)]
    assert configs[0] == configs[1]


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--densify", "adc", "--exposure", "--refine-poses")])
def test_200_steps_on_two_and_four_devices_are_those_of_one(
    words: tuple[str, ...], room: Path, tmp_path: Path
) -> None:
    given = (*SMALL, "--steps", 200, "--cameras-per-step", 4, *words)
    one, two, four = trained_on("1,2,4", room, tmp_path, *given)
    assert result(one) == result(two) == result(four)


@pytest.mark.slow
def test_devices_that_are_no_power_of_two_agree_up_to_rounding(room: Path, tmp_path: Path) -> None:
    words = (*SMALL, "--steps", "20", "--cameras-per-step", "3")
    one, three = trained_on("1,3", room, tmp_path, *words)
    for a, b in zip(*(json.loads((r / "metrics.json").read_text())["views"] for r in (one, three)),
                    strict=True):  # fmt: skip
        assert a["psnr"] == pytest.approx(b["psnr"], abs=0.01)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--devices", 2, "--cameras-per-step", 2), "--devices 2, and jax sees 1 (cpu)"),
        (("--devices", 0), "--devices 0, expected 1 to 64"),
        (("--devices", 1, "--method", "ngp"), "--devices does nothing for --method ngp"),
    ],
)
def test_devices_that_are_not_there_are_refused(
    words: tuple[object, ...], message: str, room: Path, tmp_path: Path, capsys: Capsys
) -> None:
    assert train_here(room, "--out", tmp_path / "out", *words) == 2
    assert only_line(capsys).startswith(message)


def test_devices_that_do_not_divide_the_photos_are_refused(
    room: Path, tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jax

    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices() * 4)
    words = ("--devices", 4, "--cameras-per-step", 6)
    assert train_here(room, "--out", tmp_path / "out", *SMALL, *words) == 2
    told = only_line(capsys)
    assert told.startswith("--devices 4 with --cameras-per-step 6, expected a multiple of 4")
    assert told.endswith("use --cameras-per-step 4")
