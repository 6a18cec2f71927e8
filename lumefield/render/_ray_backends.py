"""Which kernels work on rays, samples and pictures: by name, or by where the work is placed."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from lumefield import native as ground
from lumefield.render._composite import by_platform

Kernel = Callable[..., Any]


def on_rays(
    backend: str,
    dtype: Any,  # noqa: ANN401
    *args: Array,
    xla: Kernel,
    native: Kernel | None = None,
    warp: Kernel | None = None,
) -> Any:  # noqa: ANN401
    """What the kernel of a backend makes of the arguments; the kernels take float32 only.

    Args:
        backend: "auto" takes native on a CPU, warp on an NVIDIA GPU, where they can be used, and
            xla elsewhere; or one of their names.
        dtype: Float type of the arguments.
        *args: What the kernels are called with.
        xla: By plain jnp, of any float type.
        native: By C++, or None: there is no such kernel.
        warp: By NVIDIA Warp, or None.

    Raises:
        ValueError: If the backend is unknown or cannot do it.
    """
    names = ["auto", *(["native"] if native else []), *(["warp"] if warp else [])]
    if backend not in (*names, "xla"):
        raise ValueError(f"backend={backend!r}, expected {', '.join(names)} or xla")
    single = dtype == jnp.float32
    if warp and backend == "warp":
        if not single:
            raise ValueError(f"backend='warp' with {dtype} arrays, expected float32; use 'xla'")
        if missing := ground.warp_missing():
            raise ValueError(f"backend='warp', but {missing}, or use 'auto'")
        return warp(*args)
    usable = native is not None and backend != "xla" and single and ground.load()
    if backend == "native" and not usable:
        raise ValueError(
            f"backend='native' with {dtype} arrays, expected float32 and a native library "
            "(`lumefield doctor` says which); use 'auto'"
        )
    fast = native if native and usable else xla
    if backend != "auto" or not single or jax.default_backend() == "cpu":
        return fast(*args)
    return by_platform(*args, native=fast, warp=warp or xla, xla=xla)
