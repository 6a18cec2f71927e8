"""NVIDIA Warp kernels inside jax code: availability, configuration and one call.

Kernels of the `warp` backend are Python functions that Warp compiles, with the compiler inside its
wheel, for the CPU and for CUDA; no toolkit is needed. They live in files of their own that import
warp, so that nothing imports it until a kernel is asked for by name or a CUDA device is there.
Kernels that jax calls take arrays and numbers, no structs: each has its parameters to itself, and
what several of them do stands in functions.

On the CPU a thread block runs as cooperative fibres, so that kernels which share tiles within a
block run, and are tested, as they are on a GPU; that is for tests, not for speed.
"""

import functools
import threading
import warnings
from collections.abc import Mapping, Sequence
from importlib import metadata, util
from typing import Any

from lumefield.native._loader import cache_folder, load

MIN_VERSION = (1, 19)
"""Oldest Warp that the kernels were run with."""


def warp_missing() -> str:
    """Why the `warp` backend cannot be used here, with the remedy; "" when it can.

    Imports neither warp nor jax.
    """
    if util.find_spec("warp") is None:
        return "warp-lang is not installed; pip install 'lumefield[cuda]'"
    try:
        found = metadata.version("warp-lang")
    except metadata.PackageNotFoundError:
        return "the installed package `warp` is not NVIDIA Warp; pip install 'lumefield[cuda]'"
    numbers = [int("".join(c for c in part if c.isdigit()) or 0) for part in found.split(".")[:2]]
    if tuple(numbers) < MIN_VERSION:
        wanted = ".".join(map(str, MIN_VERSION))
        return f"warp-lang {found} is too old, expected {wanted}; pip install -U warp-lang"
    return ""


def warp_available() -> bool:
    """Whether kernels written in Warp can be run: on a CPU too, slowly."""
    return not warp_missing()


_lock = threading.Lock()
_jax_kernels: dict[Any, Any] = {}


def _configured() -> Any:  # noqa: ANN401
    """The module ``warp``: quiet, with its compiled kernels beside ours. The lock is held."""
    import warp

    if not _jax_kernels:
        warp.config.log_level = max(warp.config.log_level, warp.LOG_WARNING)
        if warp.config.kernel_cache_dir is None:
            warp.config.kernel_cache_dir = str(cache_folder().parent / "warp")
        warp.config.enable_cpu_blocks = True
    return warp


def warp_call(
    kernel: Any,  # noqa: ANN401
    out: Mapping[str, Sequence[int]],
    *args: Any,  # noqa: ANN401
    dims: int | Sequence[int],
    block: int | None = None,
    in_out: Sequence[str] = (),
) -> list[Any]:
    """Launch a Warp kernel inside jax code; one example at a time under ``vmap``.

    Args:
        kernel: A ``warp.kernel`` whose last parameters are its outputs.
        out: Name of each output parameter -> shape of the jax array, in the order of the kernel;
            the components of vector elements are its last axis (leave out the ``in_out`` ones).
        *args: Inputs in the order of the kernel: arrays of exactly the types it declares, and
            numbers for its scalar parameters (static, not traced).
        dims: Threads of the launch, one extent for each index of ``warp.tid()``.
        block: Threads of a block; on the CPU too. None: 256 on CUDA, 1 on the CPU.
        in_out: Parameters that are read and written; their arrays come back first. They stand
            after the inputs and before the outputs.

    Returns:
        The outputs as jax arrays. What a kernel does not write is not initialised.
    """
    key = (kernel, block, tuple(in_out))
    with _lock:  # Warp's own table of calls is not safe to fill from two threads
        warp = _configured()
        if key not in _jax_kernels:
            _jax_kernels[key] = warp.jax_kernel(
                kernel,
                num_outputs=len(out) + len(in_out),
                vmap_method="sequential",
                in_out_argnames=list(in_out),
                block_dim=block,
            )
        launch = (dims,) if isinstance(dims, int) else tuple(dims)
        shapes = {name: tuple(shape) for name, shape in out.items()}
        return list(_jax_kernels[key](*args, launch_dims=launch, output_dims=shapes))


@functools.cache
def warp_on_gpu() -> bool:
    """Whether Warp can use the NVIDIA GPU of this process; one warning when only jax can.

    Imports warp when it is installed: ask only where jax runs on a GPU.
    """
    if not warp_available():
        return False
    with _lock:
        if _configured().is_cuda_available():
            return True
    warnings.warn(
        "warp-lang cannot use the GPU that jax uses (most likely the driver is older than its CUDA "
        "version), using the xla backend; update the NVIDIA driver",
        RuntimeWarning,
        stacklevel=2,
    )
    return False


def backend_on(platform: str) -> str:
    """What ``backend="auto"`` runs on a jax platform ("cpu", "gpu", ...): native, warp or xla."""
    if platform == "cpu":
        return "native" if load() else "xla"
    return "warp" if platform in ("gpu", "cuda") and warp_on_gpu() else "xla"
