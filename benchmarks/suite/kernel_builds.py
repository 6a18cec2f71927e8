"""Special builds of the compositing kernel: one that counts its work, one that times its stages.

Both are the same sources with one more define; they are registered beside the normal library under
names of their own. Counting is slow, so its times mean nothing; the stage marks cost nothing.
"""

import ctypes
import os
import re
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.suite.garden import Garden
from benchmarks.suite.timing import Run, waiting

_LINE, _STAGE = re.compile(r"^fwd (.*)$", re.MULTILINE), re.compile(r"(\w+) ([\d.]+)")


def forward_shapes(scene: Garden, n: int) -> tuple[Any, ...]:
    """Results of ``CompositeForward``: image, transmittance, kept order."""
    import jax
    import jax.numpy as jnp

    h, w = scene.height, scene.width
    return (
        jax.ShapeDtypeStruct((h, w, 3), jnp.float32),
        jax.ShapeDtypeStruct((h, w), jnp.float32),
        jax.ShapeDtypeStruct((n + 1,), jnp.int32),
    )


def visits(inputs: tuple[Any, ...], out: tuple[Any, ...]) -> tuple[int, int]:
    """How many tile rows one forward pass fills in, and how many list items it looks at."""
    run, library = _forward("LUMEFIELD_COUNT", inputs, out)
    counts = (ctypes.c_uint64 * 2)()
    library.lumefield_counts(counts)  # reading sets them to zero
    run()
    library.lumefield_counts(counts)
    return int(counts[0]), int(counts[1])


def stages(inputs: tuple[Any, ...], out: tuple[Any, ...], rounds: int) -> dict[str, float]:
    """Median milliseconds of the forward pass by stage; empty when the build prints none.

    A call prints one line: ``fwd sort 2.1 rec 1.3 bins 8.0 tiles 23.3``.
    """
    run, _ = _forward("LF_TIME", inputs, out)
    text = _printed(run, rounds + 1)
    rows = [dict(_STAGE.findall(line)) for line in _LINE.findall(text)][1:]
    names = rows[0] if rows else ()
    return {f"{name}_ms": statistics.median(float(row[name]) for row in rows) for name in names}


def _forward(define: str, inputs: tuple[Any, ...], out: tuple[Any, ...]) -> tuple[Run, ctypes.CDLL]:
    import jax

    from lumefield import native

    library = ctypes.CDLL(str(native.build(extra=(f"-D{define}",))))
    name = f"lumefield_{define}_CompositeForward"
    jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(library.CompositeForward), platform="cpu")

    def call(*args: Any) -> Any:
        return jax.ffi.ffi_call(name, out)(*args, n_threads=np.int64(1))

    return waiting(jax.jit(call), *inputs), library


def _printed(run: Run, rounds: int) -> str:
    """What ``rounds`` calls of ``run`` write to the process's standard error, C++ included."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stderr"
        keep = os.dup(2)
        with path.open("wb") as file:
            os.dup2(file.fileno(), 2)
            try:
                for _ in range(rounds):
                    run()
            finally:
                os.dup2(keep, 2)
                os.close(keep)
        return path.read_text("utf-8", "replace")
