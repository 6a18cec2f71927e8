"""Which backend computes a part of the codec's training step."""

from collections.abc import Iterable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array

from lumefield import native

Backend = Literal["auto", "native", "xla"]
"""``auto`` takes the C++ kernel on a CPU where it is there and fits, and XLA elsewhere."""


def choose_backend(backend: str, arrays: Iterable[Array], unfit: str = "") -> str:
    """Resolve ``auto`` to ``native`` or ``xla``.

    Args:
        backend: One of ``Backend``.
        arrays: All inputs; the kernels take float32 only.
        unfit: Why the kernel cannot do what is asked, given and expected; "" when it can.

    Raises:
        ValueError: If the backend is unknown, or ``native`` cannot do what is asked.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend={backend!r}, expected one of {get_args(Backend)}")
    if backend == "xla":
        return "xla"
    other = sorted({str(a.dtype) for a in arrays if a.dtype != jnp.float32})
    if other and not unfit:
        unfit = f"{', '.join(other)} arrays, expected float32"
    if backend == "auto":
        able = not unfit and jax.default_backend() == "cpu" and native.load()
        return "native" if able else "xla"
    if unfit:
        raise ValueError(f"backend='native' with {unfit}; use 'auto'")
    if not native.load():
        raise ValueError(
            "backend='native', but no native library could be loaded; `lumefield doctor` says why, "
            "or use 'auto'"
        )
    return "native"
