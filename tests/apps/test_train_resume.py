"""A run that was stopped, killed or damaged ends in the same bytes as one that was not."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lumefield.apps._run import Run
from tests.apps.train_cases import (
    SMALL,
    Capsys,
    contents,
    logged_step,
    posed_room,
    run,
    run_and_signal,
    saved_steps,
    train_here,
)


@pytest.fixture(scope="module")
def whole(room: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 150 steps in one go; copy it before changing it."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert train_here(room, "--out", out, *SMALL, "--steps", 150) == 0
    return out


def scene(folder: Path) -> bytes:
    """The result, byte by byte."""
    return (folder / "scene.ply").read_bytes()


def log(folder: Path) -> list[dict[str, Any]]:
    """The log without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C when this step is logged."""
    original = Run.log

    def logged(self: Run, line: dict[str, Any]) -> None:
        original(self, line)
        if line["step"] == step:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Run, "log", logged)


# -- in this process: every kind of state ----------------------------------------------------

KINDS: list[tuple[str, tuple[object, ...], bool, int]] = [
    ("defaults", (), False, 50),
    ("after densification", (), False, 100),
    ("adc", ("--densify", "adc"), False, 50),
    ("adc after densification", ("--densify", "adc"), False, 100),
    ("exposure and poses", ("--exposure", "--refine-poses"), False, 50),
    ("two cameras", ("--cameras-per-step", 2, "--antialiased"), False, 50),
    ("carve over random", ("--background", "random"), True, 50),
]


@pytest.mark.parametrize(("words", "transparent", "stop"), [k[1:] for k in KINDS],
                         ids=[k[0] for k in KINDS])  # fmt: skip
def test_ctrl_c_saves_and_resume_ends_in_the_same_bytes(
    words: tuple[object, ...],
    transparent: bool,
    stop: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capsys,
) -> None:
    room = posed_room(tmp_path / "room", transparent=transparent)
    words = (*SMALL, "--steps", 150, *words)
    assert train_here(room, "--out", tmp_path / "whole", *words) == 0
    with monkeypatch.context() as patch:
        interrupt_at(stop, patch)
        assert train_here(room, "--out", tmp_path / "parts", *words) == 0
    told = capsys.readouterr().out
    assert f"stopped after {stop} of 150 steps" in told
    assert "--resume continues it" in told
    assert saved_steps(tmp_path / "parts") == [stop]
    assert (tmp_path / "parts" / "scene.ply").is_file()
    assert not (tmp_path / "parts" / "metrics.json").exists()
    assert train_here(room, "--out", tmp_path / "parts", "--resume") == 0
    assert f"resuming at step {stop} of 150" in capsys.readouterr().out
    assert scene(tmp_path / "parts") == scene(tmp_path / "whole")
    assert log(tmp_path / "parts") == log(tmp_path / "whole")
    assert (tmp_path / "parts" / "report.html").is_file()


def test_options_change_the_result(whole: Path, room: Path, tmp_path: Path) -> None:
    words = ("--out", tmp_path / "out", *SMALL, "--steps", 150)
    assert train_here(room, *words, "--seed", 1) == 0
    assert scene(tmp_path / "out") != scene(whole)


def test_the_same_seed_gives_the_same_bytes(whole: Path, room: Path, tmp_path: Path) -> None:
    assert train_here(room, "--out", tmp_path / "out", *SMALL, "--steps", 150) == 0
    assert scene(tmp_path / "out") == scene(whole)
    assert log(tmp_path / "out") == log(whole)


def test_resuming_a_finished_run_writes_the_report_again_and_nothing_else(
    whole: Path, room: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    (out / "report.html").unlink()
    before = contents(out)
    assert train_here(room, "--out", out, "--resume") == 0
    after = contents(out)
    assert after.keys() - before.keys() == {"report.html"}
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= {"metrics.json"}  # its clock and memory
    numbers = [json.loads((run / "metrics.json").read_text()) for run in (out, whole)]
    assert numbers[0]["views"] == numbers[1]["views"]
    assert numbers[0]["seconds"] == pytest.approx(numbers[1]["seconds"], abs=0.01)


def test_more_steps_extend_a_finished_run(
    whole: Path, room: Path, tmp_path: Path, capsys: Capsys
) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    assert train_here(room, "--out", out, "--resume", "--steps", 250) == 0
    assert "resuming at step 150 of 250" in capsys.readouterr().out
    assert json.loads((out / "metrics.json").read_text())["steps"] == 250
    assert [line["step"] for line in log(out)] == [50, 100, 150, 200, 250]
    assert json.loads((out / "config.json").read_text())["settings"]["steps"] == 250


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--steps", 100), "has 150 steps, more than --steps 100; ask for more steps"),
        (("--densify", "adc"), "--densify adc: the run in"),
        (("--seed", 7), "was started with 0, and --resume continues it with that"),
        (("--max-gaussians", 200), "was started with 300"),
    ],
    ids=str,
)
def test_a_resumed_run_keeps_its_settings(
    words: tuple[object, ...],
    message: str,
    whole: Path,
    room: Path,
    tmp_path: Path,
    capsys: Capsys,
) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    before = contents(out)
    assert train_here(room, "--out", out, "--resume", *words) == 2
    assert message in capsys.readouterr().err
    assert contents(out) == before


def test_another_input_cannot_resume_a_run_but_moved_photos_can(
    whole: Path, room: Path, tmp_path: Path, capsys: Capsys
) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    moved = Path(shutil.copytree(room, tmp_path / "moved"))
    assert train_here(moved, "--out", out, "--resume", "--steps", 200) == 2
    assert f"was started with {room}, and --resume" in capsys.readouterr().err
    config = json.loads((out / "config.json").read_text())
    config["settings"]["input"] = str(tmp_path / "gone")
    (out / "config.json").write_text(json.dumps(config))
    assert train_here(moved, "--out", out, "--resume", "--steps", 200) == 0
    config = json.loads((out / "config.json").read_text())
    assert config["settings"]["input"] == str(moved)


def test_photos_added_or_taken_away_cannot_resume_a_run(
    room: Path, tmp_path: Path, capsys: Capsys
) -> None:
    own = Path(shutil.copytree(room, tmp_path / "room"))
    words = (own, "--out", tmp_path / "out", *SMALL, "--steps", 20)
    assert train_here(*words) == 0
    before = contents(tmp_path / "out")
    (own / "images" / "04.png").write_text("gone")
    assert train_here(*words, "--resume") == 2
    message = "was started with 9 photos and there are 8 now, 04.png among the difference"
    assert message in capsys.readouterr().err
    assert contents(tmp_path / "out") == before


# -- damaged checkpoints ---------------------------------------------------------------------


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def torn_seal(path: Path) -> None:
    path.with_suffix(".json").write_text('{"step": 1')


@pytest.fixture(scope="module")
def two_saves(room: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with two checkpoints."""
    out = tmp_path_factory.mktemp("saves") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lumefield.apps._train_run._SAVE_STEPS", 50)
        assert train_here(room, "--out", out, *SMALL, "--steps", 150) == 0
    assert len(saved_steps(out)) == 2
    return out


@pytest.mark.parametrize("damage", [flip_a_byte, cut, empty, torn_seal])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(
    damage: Callable[[Path], None],
    two_saves: Path,
    whole: Path,
    room: Path,
    tmp_path: Path,
    capsys: Capsys,
) -> None:
    out = Path(shutil.copytree(two_saves, tmp_path / "out"))
    first, last = saved_steps(out)
    assert last == 150
    damage(out / "checkpoints" / f"step-{last:08}.safetensors")
    assert train_here(room, "--out", out, "--resume") == 0
    told = capsys.readouterr().out
    assert f"damaged checkpoint left out: step-{last:08}.safetensors" in told
    assert f"resuming at step {first} of 150" in told
    assert scene(out) == scene(whole)
    assert log(out) == log(whole)


def test_a_checkpoint_that_was_killed_before_its_seal_does_not_count(
    two_saves: Path, whole: Path, room: Path, tmp_path: Path, capsys: Capsys
) -> None:
    out = Path(shutil.copytree(two_saves, tmp_path / "out"))
    first, last = saved_steps(out)
    (out / "checkpoints" / f"step-{last:08}.json").unlink()
    assert train_here(room, "--out", out, "--resume") == 0
    assert f"resuming at step {first} of 150" in capsys.readouterr().out
    assert scene(out) == scene(whole)


def test_a_run_whose_checkpoints_are_all_damaged_is_left_as_it_is(
    two_saves: Path, room: Path, tmp_path: Path, capsys: Capsys
) -> None:
    out = Path(shutil.copytree(two_saves, tmp_path / "out"))
    for path in (out / "checkpoints").glob("*.safetensors"):
        flip_a_byte(path)
    before = contents(out)
    assert train_here(room, "--out", out, "--resume") == 2
    err = capsys.readouterr().err
    assert "every checkpoint is damaged" in err
    assert "train again with --overwrite" in err
    assert contents(out) == before


def test_a_run_without_a_checkpoint_starts_from_the_beginning(
    whole: Path, room: Path, tmp_path: Path, capsys: Capsys
) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    shutil.rmtree(out / "checkpoints")
    assert train_here(room, "--out", out, "--resume") == 0
    assert "has no checkpoint yet: starting from the beginning" in capsys.readouterr().out
    assert scene(out) == scene(whole)
    assert log(out) == log(whole)


# -- in processes of their own ---------------------------------------------------------------


def test_ctrl_c_on_the_process_saves_exits_0_and_resumes_to_the_same_bytes(
    whole: Path, room: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ("train", room, "--out", out, *SMALL, "--steps", 150)
    done = run_and_signal(lambda: logged_step(out) >= 50, signal.SIGINT, *words)
    assert done.code == 0, done.err
    assert "stopping after this chunk" in done.err
    assert "Traceback" not in done.err
    stopped = saved_steps(out)[-1]
    assert stopped in (50, 100)
    done = run(*words, "--resume")
    assert done.code == 0, done.err
    assert f"resuming at step {stopped} of 150" in done.out
    assert scene(out) == scene(whole)


@pytest.mark.slow
def test_400_steps_in_one_go_are_200_a_kill_and_a_resume(room: Path, tmp_path: Path) -> None:
    words = ("--max-gaussians", 1_000, "--steps", 400)
    assert run("train", room, "--out", tmp_path / "whole", *words).code == 0
    out = tmp_path / "parts"
    killed = run_and_signal(
        lambda: logged_step(out) >= 300 and 200 in saved_steps(out),
        signal.SIGKILL,
        *("train", room, "--out", out, *words),
    )
    assert killed.code == -signal.SIGKILL
    assert saved_steps(out) == [200]
    assert 200 < logged_step(out) < 400
    done = run("train", room, "--out", out, *words, "--resume")
    assert done.code == 0, done.err
    assert "resuming at step 200 of 400" in done.out
    assert scene(out) == scene(tmp_path / "whole")
    assert log(out) == log(tmp_path / "whole")
    assert not (out / ".lock").exists()


@pytest.mark.slow
def test_one_thread_and_two_give_the_same_scene(room: Path, tmp_path: Path) -> None:
    psnr: list[float] = []
    for threads in (1, 2):
        out = tmp_path / str(threads)
        words = ("--max-gaussians", 1_000, "--steps", 400, "--threads", threads)
        done = run("train", room, "--out", out, *words)
        assert done.code == 0, done.err
        psnr.append(json.loads((out / "metrics.json").read_text())["psnr"])
    assert psnr[0] == pytest.approx(psnr[1], abs=1e-5)
    assert scene(tmp_path / "1") == scene(tmp_path / "2")
