"""The kernel prototype's full step, timed beside ours where its folder is there; nothing is copied.

The folder is ``LUMEFIELD_PROTOTYPE`` (default ``../shared/prototypes/kernels``). Its ``splat.cc``
is built into a temporary folder with the flags of its ``build.sh``; its Python modules are imported
by path. It projects in XLA and bins again in the backward pass.
"""

import atexit
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.suite.garden import Garden
from benchmarks.suite.metrics import ROOT
from benchmarks.suite.timing import Run, waiting

_FLAGS = (
    "-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast",
    "-Wno-psabi", "-shared", "-fPIC",
)  # fmt: skip
_LEVELS = {
    "avx512": (
        "v4",
        ("-march=x86-64-v4", "-mprefer-vector-width=512", "-DLANES=16", "-DTILE_H=16"),
    ),
    "avx2": ("v3", ("-march=x86-64-v3", "-DLANES=8", "-DTILE_H=8")),
}


def folder() -> Path:
    """Where the prototype is, or would be."""
    default = ROOT.parent / "shared" / "prototypes" / "kernels"
    return Path(os.environ.get("LUMEFIELD_PROTOTYPE", default))


def full_step(scene: Garden, cotangent: Any) -> Run | None:
    """The prototype's projection, SH and raster, forward and backward; None when it is not there.

    Args:
        scene: Gaussians and camera, the same as ours.
        cotangent: (H, W, 4) weights of colour and opacity in the loss.
    """
    if not (folder() / "splat.cc").exists():
        sys.stderr.write(f"no prototype at {folder()}: its leg is left out\n")
        return None
    import jax
    import jax.numpy as jnp

    native, projection = _module("native"), _module("project")
    isa = _build(native)
    native.load(isa)
    raster = native.make(isa, scene.width, scene.height, 1)
    params = {
        "means": jnp.asarray(scene.means),
        "quats": jnp.asarray(scene.quats_wxyz),
        "log_scales": jnp.asarray(scene.log_scales),
        "logit_op": jnp.asarray(scene.logit_opacities),
        "sh": jnp.asarray(scene.sh),
    }
    k = jnp.array(
        [[scene.focal[0], 0, scene.centre[0]], [0, scene.focal[1], scene.centre[1]], [0, 0, 1]]
    )

    def loss(params: Any, view: Any, k: Any, g: Any) -> Any:
        image = raster(*projection.project(params, view, k, scene.width, scene.height))
        return jnp.sum(image * g)

    g = cotangent * jnp.array([1, 1, 1, -1])  # its fourth channel is 1 - opacity
    return waiting(jax.jit(jax.grad(loss)), params, jnp.asarray(scene.cam_from_world), k, g)


def _module(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"prototype_{name}", folder() / f"{name}.py")
    assert spec is not None, "a path that ends in .py has a loader"
    assert spec.loader is not None, "a path that ends in .py has a loader"
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # the folder is not ours
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


def _build(native: Any) -> str:
    """Build its library and point its loader there; returns its name for the instruction set."""
    import jax

    from lumefield import native as ours

    status = ours.status()
    isa, flags = _LEVELS[status.isa]
    target = Path(tempfile.mkdtemp(prefix="lumefield-prototype-"))
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    words = [status.compiler, *flags, *_FLAGS, "-isystem", jax.ffi.include_dir()]
    library = target / f"splat_{isa}.so"
    subprocess.run(
        [*words, str(folder() / "splat.cc"), "-o", str(library), "-lpthread"], check=True
    )
    native.BUILD = target
    return isa
