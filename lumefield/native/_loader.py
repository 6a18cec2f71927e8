"""Find, build, load and register the C++ kernels.

Order: a library shipped inside the package, then one built earlier on this machine, then a build at
first use when a C++17 compiler is there. A failed build is a warning, never an error: the ``xla``
backend needs none. What the first :func:`load` found holds for the life of the process.
One library per instruction set, so that a linker can never merge AVX-512 code into an AVX2 build.
"""

import ctypes
import hashlib
import os
import platform
import shutil
import sys
import threading
import warnings
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

from lumefield.errors import InputError
from lumefield.native._build import build_library

_HERE = Path(__file__).parent
_SOURCES = (
    "composite.cc",
    "project.cc",
    "photometric.cc",
    "mlp.cc",
    "mlp_tiles.cc",
    "hashgrid.cc",
    "march.cc",
    "intervals.cc",
    "latent_rate.cc",
    "latent_synthesis.cc",
    "latent_upsample.cc",
    "latent_noise.cc",
    "codec_latents.cc",
    "codec_synthesis.cc",
    "video_warp.cc",
)
_HEADERS = (
    "simd.h",
    "parallel.h",
    "scratch.h",
    "bins.h",
    "planar.h",
    "hash_levels.h",
    "sine.h",
    "mlp_args.h",
    "tiles.h",
    "ints.h",
)
_SYMBOLS = (
    "CompositeForward",
    "CompositeBackward",
    "ProjectForward",
    "ProjectBackward",
    "PhotometricLoss",
    "MlpForward",
    "MlpBackward",
    "MlpTilesForward",
    "MlpTilesBackward",
    "HashGather",
    "HashGatherAlong",
    "HashScatter",
    "HashScatterAlong",
    "HashSlope",
    "HashSlopeAlong",
    "March",
    "PackedForward",
    "PackedBackward",
    "Quantiles",
    "Overlaps",
    "LatentRate",
    "SynthesisForward",
    "SynthesisBackward",
    "UpsampleForward",
    "UpsampleBackward",
    "LatentNoise",
    "VideoWarp",
)
_LEVELS = {
    "avx512": ("-march=x86-64-v4", "-mprefer-vector-width=512"),
    "avx2": ("-march=x86-64-v3",),
}
# Never -ffast-math: it deletes the rounding that exp2_neg relies on.
_FLAGS = (
    "-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast",
    "-Wno-psabi", "-Wno-ignored-attributes", "-fPIC",
)  # fmt: skip


@dataclass(frozen=True)
class Status:
    """What would run on this machine, found without importing jax."""

    backend: str
    """"native" or "xla"."""
    reason: str
    """Why, in one sentence, and what to do for a faster one."""
    isa: str
    """Best instruction set of this CPU that the kernels know: "avx512", "avx2" or "none"."""
    compiler: str
    """Path of the C++ compiler, or "" when there is none."""
    library: str
    """The library that is, or would be, loaded; "" when it still has to be built."""


def cpu_level() -> str:
    """Best instruction set of this CPU that the kernels are written for."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return "none"
    forced = os.environ.get("LUMEFIELD_ISA")
    if forced:
        return forced if forced in _LEVELS else "none"
    try:
        after = Path("/proc/cpuinfo").read_text().split("flags", 1)[1]
        flags = set(after.split("\n", 1)[0].split())
    except (OSError, IndexError):
        return "none"
    if {"avx512f", "avx512dq", "avx512vl", "avx512bw"} <= flags:
        return "avx512"
    return "avx2" if {"avx2", "fma"} <= flags else "none"


def compiler() -> str:
    """The C++ compiler: ``$CXX``, else g++, else clang++; "" when there is none."""
    for name in (os.environ.get("CXX", ""), "g++", "clang++"):
        found = shutil.which(name) if name else None
        if found:
            return found
    return ""


def cache_folder() -> Path:
    """Where built libraries are kept: ``$LUMEFIELD_CACHE``, else the user's cache folder."""
    root = os.environ.get("LUMEFIELD_CACHE")
    if root:
        return Path(root) / "native"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lumefield" / "native"


def _flags(isa: str, extra: tuple[str, ...]) -> tuple[str, ...]:
    return (*_LEVELS[isa], *_FLAGS, *extra)


def _library(isa: str, extra: tuple[str, ...] = ()) -> Path:
    """Name of the library by everything it depends on: sources, flags, jaxlib, compiler."""
    digest = hashlib.sha256()
    for name in (*_SOURCES, *_HEADERS):
        digest.update((_HERE / name).read_bytes())
    parts = (*_flags(isa, extra), metadata.version("jaxlib"), compiler())
    digest.update("\0".join(parts).encode())
    return cache_folder() / f"lumefield-{isa}-{digest.hexdigest()[:16]}.so"


def _shipped(isa: str) -> Path:
    return _HERE / f"lumefield-{isa}.so"


def status() -> Status:
    """Which backend runs on the CPU here and why; needs no jax and builds nothing."""
    isa, cxx = cpu_level(), compiler()
    if _process.failure:
        return Status("xla", f"not available: {_process.failure}", isa, cxx, "")
    if os.environ.get("LUMEFIELD_NATIVE") == "0":
        return Status("xla", "switched off by LUMEFIELD_NATIVE=0; unset it", isa, cxx, "")
    forced = os.environ.get("LUMEFIELD_ISA")
    if forced and forced not in _LEVELS:
        return Status("xla", f"LUMEFIELD_ISA={forced}, expected avx512 or avx2", isa, cxx, "")
    if isa == "none":
        return Status("xla", "this CPU has neither AVX-512 nor AVX2 with FMA", isa, cxx, "")
    if _shipped(isa).exists():
        return Status("native", "shipped with the package", isa, cxx, str(_shipped(isa)))
    if _library(isa).exists():
        return Status("native", f"built on this machine for {isa}", isa, cxx, str(_library(isa)))
    if cxx:
        return Status("native", f"will be built with {cxx} at first use", isa, cxx, "")
    return Status("xla", "no C++ compiler found; install g++ (4-6 times faster)", isa, cxx, "")


def _include() -> str:
    spec = util.find_spec("jaxlib")
    if spec is None or spec.origin is None:
        raise RuntimeError("jaxlib is not installed")
    return str(Path(spec.origin).parent / "include")


def build(isa: str | None = None, *, extra: tuple[str, ...] = ()) -> Path:
    """Compile the kernels into the cache and return the library; nothing is done when it is there.

    Args:
        isa: "avx512" or "avx2"; the CPU's own level when None.
        extra: More compiler flags; they are part of the library's name.

    Raises:
        RuntimeError: If there is no compiler or it fails; the message ends with its last lines.
    """
    isa = isa or cpu_level()
    if isa not in _LEVELS:
        raise RuntimeError(f"no native kernels for instruction set {isa!r}; use the xla backend")
    target, cxx = _library(isa, extra), compiler()
    if target.exists():
        return target
    if not cxx:
        raise RuntimeError("no C++ compiler found; install g++ or set CXX")
    command = [cxx, *_flags(isa, extra), "-isystem", _include()]
    sources, headers = ([_HERE / n for n in names] for names in (_SOURCES, _HEADERS))
    build_library(target, command, sources, headers)
    return target


def _register(path: Path, prefix: str) -> None:
    import jax

    library = ctypes.CDLL(str(path))
    for symbol in _SYMBOLS:
        capsule = jax.ffi.pycapsule(getattr(library, symbol))
        jax.ffi.register_ffi_target(f"{prefix}_{symbol}", capsule, platform="cpu")


@dataclass
class _Process:
    """What the first ``load`` of this process found."""

    loaded: bool | None = None
    """None before."""
    failure: str = ""
    """Why building or registering failed."""
    library: ctypes.CDLL | None = None
    """For callers without jax."""


_process = _Process()
_lock = threading.Lock()


def load() -> bool:
    """Register the kernels with XLA once; whether they can be used.

    False where ``status`` says "xla", and, with one warning, when building or registering fails:
    neither is tried again in this process.
    """
    with _lock:
        if _process.loaded is not None:
            return _process.loaded
        now = status()
        _process.loaded = False
        if now.backend != "native":
            return False
        try:
            _register(Path(now.library) if now.library else _first_build(), "lumefield")
        except Exception as error:
            _process.failure = str(error) or type(error).__name__
        else:
            _process.loaded = True
            return True
    _warn()
    return False


def library() -> ctypes.CDLL | None:
    """The kernels' library for plain C functions (``extern "C"``), without jax.

    None where ``status`` says "xla", and, with one warning, when building or opening fails.
    """
    with _lock:
        if _process.library is not None:
            return _process.library
        now = status()
        if now.backend != "native":
            return None
        try:
            path = Path(now.library) if now.library else _first_build()
            _process.library = ctypes.CDLL(str(path))
        except Exception as error:
            _process.failure = str(error) or type(error).__name__
        else:
            return _process.library
    _warn()
    return None


def has_tiles() -> bool:
    """Whether the kernels can multiply bfloat16 here (Intel AMX or AVX512-BF16, on Linux)."""
    found = library()
    return found is not None and bool(found.lumefield_has_tiles())


def _warn() -> None:
    message = f"native kernels not available, using the xla backend: {_process.failure}"
    warnings.warn(message, RuntimeWarning, stacklevel=3)


def _first_build() -> Path:
    sys.stderr.write("lumefield: building the native kernels once (half a minute) ...\n")
    return build()


def threads() -> int:
    """Threads of the kernels: ``$LUMEFIELD_THREADS``, else 0 = all of XLA's pool.

    Raises:
        InputError: If ``$LUMEFIELD_THREADS`` is not a whole number.
    """
    given = os.environ.get("LUMEFIELD_THREADS", "").strip() or "0"
    try:
        return max(0, int(given))
    except ValueError:
        raise InputError(
            f"LUMEFIELD_THREADS={given}, expected a whole number such as 2; 0 or unset takes all"
        ) from None


def call(symbol: str, out: Any, *args: Any, **attributes: Any) -> Any:  # noqa: ANN401
    """Call a kernel inside jax code; one example at a time under ``vmap``.

    Args:
        symbol: One of the C++ handler names, such as "CompositeForward".
        out: ``jax.ShapeDtypeStruct`` or a sequence of them.
        *args: float32 (or integer) arrays.
        **attributes: NumPy scalars or bools, as the handler declares them.
    """
    import jax

    target = f"lumefield_{symbol}"
    return jax.ffi.ffi_call(target, out, vmap_method="sequential")(*args, **attributes)
