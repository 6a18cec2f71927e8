"""``--out``: whose folder it is, disks that are full or read-only, two trainings at once."""

import contextlib
import errno
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lumefield.apps._run import FORMAT, Run
from lumefield.errors import InputError
from tests.apps.train_cases import (
    SHORT,
    SMALL,
    Capsys,
    contents,
    only_line,
    saved_steps,
    train_here,
)

# -- whose folder it is ----------------------------------------------------------------------


def test_a_taken_folder_is_refused(good: Path, room: Path, capsys: Capsys) -> None:
    before = contents(good)
    assert train_here(room, "--out", good) == 2
    assert "already holds a run; add --resume to continue it, --overwrite" in only_line(capsys)
    assert contents(good) == before


def test_resume_and_overwrite_exclude_each_other(good: Path, room: Path, capsys: Capsys) -> None:
    assert train_here(room, "--out", good, "--resume", "--overwrite") == 2
    assert "give one of them" in only_line(capsys)


def test_a_folder_of_other_files_is_refused(tmp_path: Path, room: Path, capsys: Capsys) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    for words in ((), ("--overwrite",)):
        assert train_here(room, "--out", tmp_path / "out", *words) == 2
        assert "holds other files (thesis.tex)" in only_line(capsys)
    assert contents(tmp_path / "out").keys() == {"thesis.tex"}


def test_a_file_in_place_of_the_folder_is_refused(
    tmp_path: Path, room: Path, capsys: Capsys
) -> None:
    (tmp_path / "file").write_text("mine")
    assert train_here(room, "--out", tmp_path / "file") == 2
    assert "is a file, expected a folder" in only_line(capsys)
    assert train_here(room, "--out", tmp_path / "file" / "deeper") == 2
    assert "cannot be written (not a directory)" in only_line(capsys)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_hidden_file_does_not_make_a_folder_taken(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_text("")
    with Run.open(tmp_path, resume=False, overwrite=False):
        pass
    assert contents(tmp_path).keys() == {".DS_Store"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"format": FORMAT + 1}, "made by a newer lumefield"),
        ({"model_type": "llama"}, "holds something else"),
        (["a list"], "damaged, so nothing in the folder is touched"),
        (None, "damaged, so nothing in the folder is touched"),
    ],
    ids=["newer", "foreign", "list", "torn"],
)
def test_a_run_that_is_not_understood_is_never_touched(
    config: object, message: str, good: Path, room: Path, capsys: Capsys
) -> None:
    (good / "config.json").write_text("{" if config is None else json.dumps(config))
    before = contents(good)
    for words in ((), ("--resume",), ("--overwrite",)):
        assert train_here(room, "--out", good, *words) == 2
        assert message in only_line(capsys)
    assert contents(good) == before


def test_a_run_without_settings_cannot_be_resumed(good: Path, room: Path, capsys: Capsys) -> None:
    (good / "config.json").write_text(json.dumps({"format": FORMAT}))
    assert train_here(room, "--out", good, "--resume") == 2
    assert "has no settings; train again with --overwrite" in only_line(capsys)


def test_nothing_to_resume_is_an_error(tmp_path: Path, room: Path, capsys: Capsys) -> None:
    assert train_here(room, "--out", tmp_path / "out", "--resume") == 2
    assert "holds no run to resume; leave --resume out" in only_line(capsys)
    assert not (tmp_path / "out").exists()


def test_two_trainings_into_one_folder_are_refused(
    tmp_path: Path, room: Path, capsys: Capsys
) -> None:
    with Run.open(tmp_path / "out", resume=False, overwrite=False):
        assert train_here(room, "--out", tmp_path / "out") == 2
        assert "another lumefield is training into it" in only_line(capsys)
    assert not (tmp_path / "out").exists()


def test_overwrite_replaces_results_and_what_was_left_half_written_and_keeps_other_files(
    good: Path, room: Path, capsys: Capsys
) -> None:
    (good / "notes.txt").write_text("mine")
    before = contents(good)
    (good / "checkpoints" / ".step-00000010.safetensors.0000.part").write_text("torn")
    (good / "capture" / "sfm.99.tmp").mkdir()
    (good / "capture" / "sfm.99.tmp" / "database.db").write_text("of a process that was killed")
    assert train_here(room, "--out", good, "--overwrite", *SHORT, "--seed", 5) == 0
    after = contents(good)
    assert after.keys() == before.keys()
    assert after["scene.ply"] != before["scene.ply"]
    assert after["notes.txt"] == before["notes.txt"]


# -- disks -----------------------------------------------------------------------------------


def full(*_: object) -> None:
    """What a system call does on a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_while_saving_keeps_the_checkpoint_before(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    words = (room, "--out", tmp_path / "out", *SMALL, "--steps", 150)
    whole = (room, "--out", tmp_path / "whole", *SMALL, "--steps", 150)
    monkeypatch.setattr("lumefield.apps._train_run._SAVE_STEPS", 50)
    fsync = os.fsync
    with monkeypatch.context() as patch:
        out = tmp_path / "out"
        patch.setattr(os, "fsync", lambda fd: full() if saved_steps(out) else fsync(fd))
        assert train_here(*words) == 2
    assert "No space left on device; free some space" in only_line(capsys)
    assert saved_steps(tmp_path / "out") == [50]
    assert not list((tmp_path / "out").rglob("*.part"))
    assert train_here(*words, "--resume") == 0
    assert "resuming at step 50 of 150" in capsys.readouterr().out
    assert train_here(*whole) == 0
    scenes = [(tmp_path / name / "scene.ply").read_bytes() for name in ("out", "whole")]
    assert scenes[0] == scenes[1]


def test_a_disk_without_room_for_a_probe_is_refused(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    monkeypatch.setattr(Path, "write_bytes", full)
    assert train_here(room, "--out", tmp_path / "a" / "b") == 2
    assert "cannot be written (no space left on device); choose a folder" in only_line(capsys)
    assert not (tmp_path / "a").exists()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 420 kB, which only root can make."""
    place = tmp_path / "disk"
    place.mkdir()
    if not shutil.which("mount") or not mounted("-t", "tmpfs", "-o", "size=420k", "tmpfs", place):
        pytest.skip("cannot mount a small disk here (needs root on Linux)")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def mounted(*words: object) -> bool:
    """Whether ``mount`` did what it was asked for."""
    done = subprocess.run(["mount", *map(str, words)], check=False, capture_output=True)
    return done.returncode == 0


def test_a_small_disk_fills_and_the_run_goes_on_when_there_is_room(
    room: Path, disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    words = (room, "--out", disk / "out", *SMALL, "--steps", 150)
    monkeypatch.setattr("lumefield.apps._train_run._SAVE_STEPS", 50)
    assert train_here(*words) == 2
    assert "No space left on device; free some space" in only_line(capsys)
    assert saved_steps(disk / "out") == [50]
    assert mounted("-o", "remount,size=8m", disk)
    assert train_here(*words, "--resume") == 0


def test_a_full_or_read_only_disk_is_refused_and_its_run_stays(
    room: Path, good: Path, disk: Path, capsys: Capsys
) -> None:
    mounted("-o", "remount,size=2m", disk)
    shutil.copytree(good, disk / "good")
    with (disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    before = contents(disk)
    for state in ("no space left on device", "read-only file system"):
        for words in (("new",), ("good", "--resume"), ("good", "--overwrite")):
            assert train_here(room, "--out", disk / words[0], *words[1:]) == 2
            assert f"cannot be written ({state})" in only_line(capsys)
        assert contents(disk) == before
        assert mounted("-o", "remount,ro", disk)


def test_the_message_of_an_unwritable_folder_is_an_input_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with (
        pytest.raises(InputError, match=r"cannot be written \(permission denied\)"),
        Run.open(tmp_path / "out", resume=False, overwrite=False),
    ):
        pass
