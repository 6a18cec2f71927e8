"""The command line: exit codes, one line per error, and an answer without jax."""

import dataclasses
import errno
import importlib
import os
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lumefield import __version__
from lumefield.apps import _cli, _runtime
from lumefield.errors import CapacityError, InputError, UserError

ROOT = Path(__file__).parents[2]


def run(*words: str) -> tuple[int, str, str, float]:
    """Exit code, stdout, stderr and CPU seconds of the command line in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "lumefield.apps", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100"},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.returncode, done.stdout, done.stderr, cpu


def fails_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of a command that raises ``error``."""

    def fail(settings: object) -> None:
        raise error

    module = SimpleNamespace(doctor=fail, Doctor=object)
    monkeypatch.setattr(_cli, "_module", lambda _: module)
    monkeypatch.setattr(_cli, "parse", lambda *_: object())
    return _cli.main(["doctor"])


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--help",), 0),
        (("--version",), 0),
        (("doctor",), 0),
        (("trian",), 2),
        (("train", "--no-such-flag"), 2),
        *(((name, "--help"), 0) for name in _cli.COMMANDS),
    ],
    ids=str,
)
def test_help_doctor_and_wrong_words_answer_within_half_a_second(words: tuple[str], code: int):
    tries = [run(*words) for _ in range(3)]
    assert {t[0] for t in tries} == {code}, tries[0]
    assert min(t[3] for t in tries) < 0.5


def test_help_lists_every_command_and_no_other():
    _, out, _, _ = run("--help")
    listed = [line.split()[0] for line in out.splitlines() if line.startswith("  ")]
    assert [word for word in listed if not word.startswith("-")][: len(_cli.COMMANDS)] == list(
        _cli.COMMANDS
    )


@pytest.mark.parametrize("command", _cli.COMMANDS)
def test_a_command_is_a_settings_class_and_a_function_of_its_name(command: str):
    module = importlib.import_module(f"lumefield.apps._{command}")
    for name in (command, command.capitalize()):
        assert getattr(module, name).__doc__, name
    assert dataclasses.is_dataclass(getattr(module, command.capitalize()))


def test_no_words_print_the_help_and_exit_2(capsys: pytest.CaptureFixture[str]):
    assert _cli.main([]) == 2
    assert "usage: lumefield COMMAND" in capsys.readouterr().out


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]):
    assert _cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"lumefield {__version__}"


@pytest.mark.parametrize(
    ("word", "hint"),
    [("trian", "unknown command 'trian', did you mean train?"), ("--frob", "unknown option")],
)
def test_an_unknown_command_suggests_a_known_one(
    word: str, hint: str, capsys: pytest.CaptureFixture[str]
):
    assert _cli.main([word]) == 2
    assert hint in capsys.readouterr().err


def test_an_unknown_flag_suggests_a_known_one():
    code, _, err, _ = run("doctor", "--jsn")
    assert code == 2
    assert "--json" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("error", [InputError("a; b"), CapacityError("a; b"), UserError("a; b")])
def test_a_user_error_is_one_line_and_exit_code_2(
    error: UserError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert fails_with(error, monkeypatch) == 2
    assert capsys.readouterr().err == "lumefield: error: a; b\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "x", "run/a"), "run/a: the disk is full; free some space"),
        (OSError(errno.EROFS, "x", "run/a"), "run/a: the disk is read-only; choose another"),
        (PermissionError(errno.EACCES, "x", "run/a"), "run/a: permission denied; choose a path"),
        (PermissionError(errno.EPERM, "x"), "permission denied; choose a path"),
        (OSError(errno.EDQUOT, "x"), "the disk quota is used up"),
        (NotADirectoryError(errno.ENOTDIR, "x", "run/a"), "run/a: not a directory"),
        (MemoryError(), "out of memory; ask for less"),
        (RuntimeError("RESOURCE_EXHAUSTED: 9 bytes"), "out of memory; ask for less"),
    ],
    ids=repr,
)
def test_a_failure_of_the_machine_is_one_line_and_exit_code_2(
    error: Exception,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    assert fails_with(error, monkeypatch) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"lumefield: error: {line}")
    assert err.count("\n") == 1


def test_an_interrupt_is_one_line_and_exit_code_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert fails_with(KeyboardInterrupt(), monkeypatch) == 130
    assert capsys.readouterr().err == "lumefield: interrupted\n"


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ZeroDivisionError):
        fails_with(ZeroDivisionError(), monkeypatch)


def test_a_reader_that_leaves_early_is_no_error():
    code = "import lumefield.apps._cli as c, sys; sys.exit(c.main(['doctor', '--json']))"
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()


def test_prepare_keeps_what_the_user_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "environ", {"JAX_COMPILATION_CACHE_DIR": "mine", "HOME": str(tmp_path)})
    _runtime.prepare(3)
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "mine"
    assert os.environ["LUMEFIELD_THREADS"] == os.environ["NPROC"] == "3"


def test_prepare_puts_compiled_programs_into_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os, "environ", {"XDG_CACHE_HOME": str(tmp_path)})
    _runtime.prepare()
    folder = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    assert folder.is_dir()
    assert folder.is_relative_to(tmp_path / "lumefield" / "xla")
    assert "LUMEFIELD_THREADS" not in os.environ


def test_prepare_does_without_a_cache_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "lumefield").write_text("in the way")
    monkeypatch.setattr(os, "environ", {"XDG_CACHE_HOME": str(tmp_path)})
    _runtime.prepare()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


@pytest.mark.parametrize("threads", ["0", "-1", "two", "²"])
def test_a_wrong_number_of_threads_is_an_input_error(threads: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "environ", {"LUMEFIELD_THREADS": threads})
    with pytest.raises(InputError, match="expected 1 or more; leave it out to use all cores"):
        _runtime.prepare()
