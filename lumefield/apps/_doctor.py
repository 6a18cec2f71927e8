"""``lumefield doctor``: what this machine offers and what lumefield makes of it, without jax."""

import dataclasses
import json as json_text
import os
import platform
import sys
from importlib import metadata, util
from pathlib import Path
from typing import Any

from lumefield import __version__
from lumefield.apps import _runtime

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "scipy", "pycolmap", "av", "pillow", "tyro")
"""Distributions whose versions matter when something goes wrong."""

PLUGINS = (
    "jax_cuda12_plugin",
    "jax_cuda13_plugin",
    "jax_rocm60_plugin",
    "jax_rocm7_plugin",
    "libtpu",
    "jax_plugins.metal_plugin",
)
"""Modules that bring jax to an accelerator."""

_INSTRUCTIONS = {
    "sse4_2": "SSE4.2",
    "avx2": "AVX2",
    "fma": "FMA",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX512-BF16",
    "amx_bf16": "AMX",
    "asimd": "NEON",
    "sve": "SVE",
}


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Show versions, device and kernel backend, and how to get a faster one."""

    json: bool = False
    """Print JSON instead of text."""


def doctor(settings: Doctor) -> None:
    """Print what :func:`examine` finds."""
    found = examine()
    print(json_text.dumps(found, indent=2) if settings.json else describe(found))


def examine() -> dict[str, Any]:
    """Everything ``doctor`` tells, as JSON-able values; sizes in bytes."""
    accelerator = _accelerator()
    kernels, warp = _kernels(), _warp(accelerator)
    return {
        "lumefield": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
        "versions": {name: _version(name) for name in PACKAGES},
        "cpu": {
            "name": _runtime.cpu_name(),
            "instructions": _instructions(),
            "cores": _runtime.cores(),
            "threads": os.environ.get("LUMEFIELD_THREADS") or _runtime.cores(),
            "memory": _memory(),
        },
        "accelerator": accelerator,
        "kernels": kernels,
        "warp": warp,
        "caches": {str(f): _size(f) for f in _cache_folders(kernels)},
        "advice": _advice(accelerator, kernels, warp),
    }


def describe(found: dict[str, Any]) -> str:
    """The text form of :func:`examine`."""
    cpu, gpu, kernels = found["cpu"], found["accelerator"], found["kernels"]
    total, free = cpu["memory"]["total"], cpu["memory"]["available"]
    rows = [
        ("lumefield", found["lumefield"]),
        ("python", found["python"]),
        ("platform", found["platform"]),
        ("packages", ", ".join(f"{k} {v or 'MISSING'}" for k, v in found["versions"].items())),
        ("processor", f"{cpu['name']} ({' '.join(cpu['instructions']) or 'features unknown'})"),
        ("cores", f"{cpu['cores']} usable, {cpu['threads']} used"),
        ("memory", f"{_human(total)}, {_human(free)} available"),
        ("accelerator", gpu["reason"]),
        ("kernels", f"{_backend(kernels)} - {kernels['reason']}"),
        ("gpu kernels", found["warp"]["reason"]),
        *(("caches", f"{folder} ({_human(size)})") for folder, size in found["caches"].items()),
        *(("advice", line) for line in found["advice"]),
    ]
    lines: list[str] = []
    last = ""
    for name, text in rows:
        lines.append(f"{'' if name == last else name:<12} {text}")
        last = name
    return "\n".join(lines)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _instructions() -> list[str]:
    flags = set(_runtime.cpu_flags())
    return [name for flag, name in _INSTRUCTIONS.items() if flag in flags]


def _memory() -> dict[str, int | None]:
    try:
        text = Path("/proc/meminfo").read_text("ascii")
        rows = dict(line.split(":", 1) for line in text.splitlines())
        kib = {name: int(value.split()[0]) for name, value in rows.items()}
        return {"total": kib["MemTotal"] * 1024, "available": kib["MemAvailable"] * 1024}
    except (OSError, ValueError, KeyError):
        pass
    try:
        return {
            "total": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "available": None,
        }
    except (AttributeError, ValueError, OSError):
        return {"total": None, "available": None}


def _found(module: str) -> bool:
    try:
        return util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _nvidia_devices() -> list[str]:
    return sorted(p.name for p in Path("/dev").glob("nvidia[0-9]*"))


def _accelerator() -> dict[str, Any]:
    devices = _nvidia_devices()
    plugins = [name for name in PLUGINS if _found(name)]
    cuda = [name for name in plugins if "cuda" in name]
    seen = f"{len(devices)} NVIDIA GPU{'s' if len(devices) > 1 else ''} seen"
    forced = os.environ.get("JAX_PLATFORMS", "")
    if forced:
        reason = f"JAX_PLATFORMS={forced} decides"
    elif devices and cuda:
        reason = f"{seen}, jax will use {'them' if len(devices) > 1 else 'it'}"
    elif devices:
        reason = f"{seen}, but jax has no plugin for it: the CPU is used"
    elif cuda:
        reason = f"{cuda[0]} is installed, but no device is visible"
    elif plugins:
        reason = f"jax may use the plugin {plugins[0]}"
    else:
        reason = "none seen: the CPU is used"
    return {"devices": devices, "plugins": plugins, "reason": reason}


def _kernels() -> dict[str, Any]:
    try:
        from lumefield import native

        return dataclasses.asdict(native.status())
    except (ImportError, AttributeError) as error:
        return {"backend": "xla", "reason": f"the native loader cannot be used: {error}"}


def _warp(accelerator: dict[str, Any]) -> dict[str, str]:
    """Whether kernels for NVIDIA GPUs can be used; "missing" is what they still need, or ""."""
    try:
        from lumefield import native

        missing = native.warp_missing()
    except (ImportError, AttributeError) as error:
        missing = f"the native loader cannot be used: {error}"
    if missing:
        return {"missing": missing, "reason": f"warp - not available: {missing}"}
    if not accelerator["devices"]:
        reason = "warp - installed; used on an NVIDIA GPU, and none is seen here"
    elif any("cuda" in name for name in accelerator["plugins"]):
        reason = "warp - installed, used on the GPU"
    else:
        reason = "warp - installed, but jax has no plugin for the GPU"
    return {"missing": "", "reason": reason}


def _backend(kernels: dict[str, Any]) -> str:
    isa = kernels.get("isa", "") if kernels["backend"] == "native" else ""
    return f"native ({isa})" if isa else kernels["backend"]


def _advice(
    accelerator: dict[str, Any], kernels: dict[str, Any], warp: dict[str, str]
) -> list[str]:
    lines: list[str] = []
    if accelerator["devices"] and not accelerator["plugins"]:
        lines.append("for the GPU: pip install 'lumefield[cuda]'")
    elif accelerator["devices"] and warp["missing"]:
        lines.append(f"for fast kernels on the GPU: {warp['missing']}")
    if kernels["backend"] != "native" and kernels.get("isa") != "none":
        how = (
            "see the reason above"
            if kernels.get("compiler")
            else "install g++ or clang++, and they are built at first use"
        )
        lines.append(f"native kernels are several times faster on this CPU: {how}")
    missing = [name for name in PACKAGES if _version(name) is None]
    if missing:
        lines.append(f"missing packages: pip install {' '.join(missing)}")
    return lines or ["nothing to do: this is the fastest backend for this machine"]


def _cache_folders(kernels: dict[str, Any]) -> list[Path]:
    folders = [_runtime.cache_dir()]
    library = kernels.get("library")
    if library and not Path(library).is_relative_to(folders[0]):
        folders.append(Path(library).parent)
    given = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    return [*folders, Path(given)] if given else folders


def _size(folder: Path) -> int | None:
    """Bytes in ``folder``, or None when it does not exist."""
    if not folder.is_dir():
        return None
    files = (Path(base) / name for base, _, names in os.walk(folder) for name in names)
    return sum(f.stat().st_size for f in files if f.is_file())


def _human(size: int | None) -> str:
    if size is None:
        return "absent"
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
