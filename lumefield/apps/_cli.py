"""From the words of a command line to one settings dataclass and one function.

Every command is a file of this room with a frozen dataclass (its fields are the flags, their
docstrings the help) and a function of the command's name that takes it. Only the file of the
command that was asked for is imported.
"""

import difflib
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from lumefield.errors import UserError

COMMANDS = {
    "train": "Train a scene from photos, a video or posed images.",
    "fit": "Fit a field to a picture, a shape, a gradient or a sound.",
    "evaluate": "Score a run again on its held-out views.",
    "render": "Render held-out views, an orbit, a spiral or a keyframe path.",
    "view": "Look at a scene in a browser or a headset, or compare two.",
    "export": "Write a scene for viewers: as Gaussians or as a mesh.",
    "edit": "Clean, crop, move, merge, thin out or recolour a scene; the old one stays.",
    "compress": "Compress a picture, a video or a scene, to a .lume file.",
    "decompress": "Decode a .lume file; the result is the same on every machine.",
    "quality": "Compare a picture, a folder or a video with its original.",
    "inspect": "Show what a splat file or a run holds.",
    "doctor": "Show versions, device and kernel backend, and how to get a faster one.",
    "demo": "Make a photo set, train on it and report, with no data of your own.",
}
"""Command -> its line of help. ``train`` is ``Train`` and ``train`` of ``_train.py``, and so on."""

WITHOUT_JAX = ("inspect", "doctor", "view")
"""Commands that never load jax, so that nothing has to be prepared for it."""

_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space or choose another --out",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another --out",
    errno.EROFS: "the disk is read-only; choose another --out",
    errno.EACCES: "permission denied; choose a path you may use",
    errno.EPERM: "permission denied; choose a path you may use",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0 done, 2 wrong input, 130 interrupted.

    Args:
        argv: Words after the program's name; those of the process when None.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        from lumefield import __version__

        print(f"lumefield {__version__}")
        return 0
    if words[0] not in COMMANDS:
        return _complain(_unknown(words[0]))
    try:
        return _run(words[0], words[1:])
    except UserError as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        print("lumefield: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output left, as in `lumefield inspect X | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        return _complain(line)


def explain(error: Exception) -> str | None:
    """One line for a failure of the machine rather than of the program, or None for a bug."""
    if isinstance(error, OSError) and error.errno is not None:
        reason = _REMEDIES.get(error.errno, os.strerror(error.errno).lower())
        return f"{error.filename}: {reason}" if error.filename else reason
    out_of_memory = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
    if out_of_memory:
        return (
            "out of memory; ask for less: of photos by a larger --downscale, of Gaussians by a "
            "smaller --max-gaussians"
        )
    return None


def parse(command: str, words: Sequence[str]) -> Any:  # noqa: ANN401
    """The settings of ``command`` from its flags; exits with code 2 on a wrong one."""
    if {"-h", "--help"} & set(words):  # numpy would start a thread per core, for 0.1 s
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import tyro

    settings = getattr(_module(command), command.capitalize())
    return tyro.cli(
        settings,
        prog=f"lumefield {command}",
        args=list(words),
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.HelptextFromCommentsOff),
    )


def _run(command: str, words: Sequence[str]) -> int:
    from lumefield.apps._runtime import prepare

    settings = parse(command, words)
    if command not in WITHOUT_JAX:
        prepare(getattr(settings, "threads", None))
    getattr(_module(command), command)(settings)
    sys.stdout.flush()
    return 0


def _module(command: str) -> Any:  # noqa: ANN401
    return importlib.import_module(f"lumefield.apps._{command}")


def _complain(line: str) -> int:
    print(f"lumefield: error: {line}", file=sys.stderr)
    return 2


def _unknown(word: str) -> str:
    near = difflib.get_close_matches(word, COMMANDS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(COMMANDS)}"
    what = "option" if word.startswith("-") else "command"
    return f"unknown {what} {word!r}, {hint}; see `lumefield --help`"


def _help() -> str:
    lines = "\n".join(f"  {name:<10} {text}" for name, text in COMMANDS.items())
    return f"""usage: lumefield COMMAND ...

Neural fields and 3D reconstruction: photos in, a scene you can look at out.

commands:
{lines}

options:
  --version  Print the version.
  -h --help  Print this; `lumefield COMMAND --help` explains one command.

first steps:
  lumefield demo
  lumefield train PHOTOS --out RUN"""
