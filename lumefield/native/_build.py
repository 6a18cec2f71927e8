"""Compile C++ sources into one shared library: what is unchanged is kept, one process at a time."""

import contextlib
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_KEPT = 4
"""Objects kept of each source and set of flags: those of other versions of lumefield."""


def build_library(
    target: Path, command: Sequence[str], sources: Sequence[Path], headers: Sequence[Path]
) -> None:
    """Make ``target`` from the sources; nothing is done when another process was faster.

    Objects stay in ``objects`` beside it, named by all they depend on. Both appear whole.

    Args:
        target: The library.
        command: The compiler and its flags.
        sources: C++ files.
        headers: Files that any of the sources may include.

    Raises:
        RuntimeError: If the compiler fails; the message ends with its last lines.
    """
    folder = target.parent / "objects"
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(target.parent / ".lock"):
        if target.exists():
            return
        with ThreadPoolExecutor(min(len(sources), os.cpu_count() or 1)) as pool:
            jobs = [pool.submit(_object, folder, command, s, headers) for s in sources]
            objects = [job.result() for job in jobs]
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            out = Path(scratch) / target.name
            _run([*command, *map(str, objects), "-shared", "-o", str(out), "-lpthread"], "linking")
            os.replace(out, target)


def _object(folder: Path, command: Sequence[str], source: Path, headers: Sequence[Path]) -> Path:
    digest = hashlib.sha256("\0".join(command).encode())
    family = f"{source.stem}-{digest.hexdigest()[:8]}"
    for path in (source, *headers):
        digest.update(path.read_bytes())
    target = folder / f"{family}-{digest.hexdigest()[:16]}.o"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            out = Path(scratch) / target.name
            _run([*command, "-c", str(source), "-o", str(out)], source.name)
            os.replace(out, target)
        others = sorted(folder.glob(f"{family}-*.o"), key=lambda p: p.stat().st_mtime)
        for old in others[:-_KEPT]:
            old.unlink(missing_ok=True)
    return target


def _run(words: Sequence[str], what: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{words[0]} failed on {what}: {done.stderr.strip()[-600:]}")


@contextlib.contextmanager
def _alone(path: Path) -> Generator[None]:
    """Only one process at a time (where the system has file locks)."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with path.open("w") as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
