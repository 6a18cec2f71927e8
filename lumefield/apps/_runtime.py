"""What must be set before jax is first imported: compile cache, threads, memory, quiet logs."""

import hashlib
import os
import platform
import tempfile
from importlib import metadata
from pathlib import Path

from lumefield.errors import InputError


def cache_dir() -> Path:
    """``$LUMEFIELD_CACHE``, or the place in the user's cache folder; it may not exist yet."""
    if os.environ.get("LUMEFIELD_CACHE"):
        return Path(os.environ["LUMEFIELD_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lumefield"


def compile_cache_dir() -> Path:
    """Folder of compiled XLA programs: one per jax version and instruction set.

    A home folder may be shared by machines with different processors, and code compiled for one
    does not run on another.
    """
    flags = hashlib.sha256(" ".join(cpu_flags()).encode()).hexdigest()[:8]
    return cache_dir() / "xla" / f"jax{metadata.version('jax')}-{platform.machine()}-{flags}"


def cpu_flags() -> list[str]:
    """Feature words of the processor, sorted; empty where the system does not tell."""
    for line in _cpuinfo():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return sorted(value.split())
    return []


def cpu_name() -> str:
    """What the processor calls itself."""
    for line in _cpuinfo():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def writable(folder: Path) -> bool:
    """Whether files can be made in ``folder``, which is created when absent."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def prepare(threads: int | None = None) -> None:
    """Set the environment of jax; call it before jax is imported. What the user set stays.

    * Compiled programs are kept in :func:`compile_cache_dir`, where that can be written.
    * Accelerator memory is taken as needed, not all at once.
    * ``LUMEFIELD_THREADS`` bounds the threads of the native kernels, ``NPROC`` those of XLA.

    Args:
        threads: Threads to use; None means ``LUMEFIELD_THREADS`` or else all cores.

    Raises:
        InputError: If the number of threads is not a positive integer.
    """
    given = str(threads) if threads is not None else os.environ.get("LUMEFIELD_THREADS", "")
    if given:
        if not given.isdecimal() or int(given) < 1:
            raise InputError(f"threads={given}, expected 1 or more; leave it out to use all cores")
        os.environ["LUMEFIELD_THREADS"] = given
        os.environ["NPROC"] = given
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = compile_cache_dir()
        if not writable(folder):
            return
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
