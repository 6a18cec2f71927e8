"""One contender on one scene, in a process of its own; numbers come back as one JSON line.

``python -m benchmarks.gpu.legs NAME N HEIGHT WIDTH ROUNDS FILE``. The picture and the gradients go
to FILE (npz). Times are medians of wall milliseconds of calls that wait for the device; the inputs
are on it already. A process of its own, so that peak memory and compilers are those of one.
"""

import argparse
import importlib
import importlib.util
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu import scene
from benchmarks.gpu.scene import Scene
from benchmarks.suite.timing import waiting

Numbers = dict[str, Any]
OURS = ("warp", "xla", "native")
OTHERS = ("gsplat", "splax")
MEASURES = ("forward", "step")
OPENING = "numbers "
"""What the line of numbers of a process starts with; libraries print, too."""


def main() -> None:
    """Run one leg; what it cannot do is said in ``note``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("name", choices=(*OURS, *OTHERS))
    for word in ("n", "height", "width", "rounds"):
        parser.add_argument(word, type=int)
    parser.add_argument("file", type=Path)
    given = parser.parse_args()
    os.environ.setdefault("SCIPY_ARRAY_API", "1")  # splax wants it before anything loads SciPy
    leg = {"gsplat": _gsplat, "splax": _splax}.get(given.name)
    try:
        if missing := absent(given.name):
            tell({"note": missing})
            return
        made = scene.make(given.n, given.height, given.width)
        numbers = leg(made, given.rounds, given.file) if leg else _ours(given.name, made, given)
    except Exception as error:  # another program's failure is a row of the table
        lines = str(error).strip().splitlines()
        numbers = {"note": f"failed: {type(error).__name__}: {lines[0][:160] if lines else ''}"}
    tell(numbers)


def tell(numbers: Numbers) -> None:
    """Print the line that ``python -m benchmarks.gpu`` reads."""
    print(f"\n{OPENING}{json.dumps(numbers)}", flush=True)


def absent(name: str) -> str:
    """Why a contender cannot run here; "" when it can."""
    if name == "native":
        from lumefield import native

        return "" if native.load() else native.status().reason
    if name == "warp":
        from lumefield import native

        return native.warp_missing()
    if name == "xla":
        return ""
    if importlib.util.find_spec(name) is None:
        extra = "lumefield[gsplat]" if name == "gsplat" else name
        return f"not installed; pip install '{extra}'"
    if name == "gsplat":
        torch = importlib.import_module("torch")
        return "" if torch.cuda.is_available() else "needs a CUDA device"
    import jax

    return "" if jax.default_backend() == "gpu" else "needs a CUDA device"


def timed(run: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Seconds of the first call, and the median milliseconds of the others."""
    start = time.perf_counter()
    run()
    first = time.perf_counter() - start
    run()
    times: list[float] = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return first, statistics.median(times)


def _jax_leg(draw: Callable[..., Any], made: Scene, rounds: int, file: Path) -> Numbers:
    """``draw`` maps means, quats, log scales, logits and sh to the picture."""
    import jax
    import jax.numpy as jnp

    inputs = tuple(jnp.asarray(x) for x in made.inputs)
    weights = jnp.asarray(made.cotangent())

    def loss(inputs: Any, weights: Any) -> Any:
        picture = draw(*inputs)
        return jnp.sum(picture * weights), picture

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    runs = {
        "forward": waiting(jax.jit(draw), *inputs),
        "step": waiting(step, inputs, weights),
    }
    numbers = _measured(runs, rounds)
    (_, picture), gradients = step(inputs, weights)
    _store(file, picture, gradients)
    stats = jax.devices()[0].memory_stats() or {}
    return numbers | {"peak_mb": megabytes(stats.get("peak_bytes_in_use"))}


def _measured(runs: dict[str, Callable[[], Any]], rounds: int) -> Numbers:
    numbers: Numbers = {}
    for name in MEASURES:
        first, median = timed(runs[name], rounds)
        numbers[f"{name}_first_s"] = round(first, 3)
        numbers[f"{name}_ms"] = round(median, 4)
    return numbers


def _store(file: Path, picture: Any, gradients: Any) -> None:
    means, quats, scales, logits = (np.asarray(g) for g in gradients[:4])
    np.savez(file, picture=np.asarray(picture), g0=means, g1=quats, g2=scales, g3=logits)


def megabytes(device_bytes: int | None) -> float:
    """Of the device or, where it does not tell, the peak of the process."""
    if device_bytes is not None:
        return round(device_bytes / 1e6, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3), 1)


def _ours(name: Any, made: Scene, given: argparse.Namespace) -> Numbers:
    import jax.numpy as jnp

    from lumefield import fields, render

    camera = render.Cameras.from_pinhole(
        jnp.asarray(made.world_from_cam),
        jnp.asarray(made.focal),
        jnp.asarray(made.centre),
        height=made.height,
        width=made.width,
    )
    options = render.SplatOptions(backend=name)

    def draw(*inputs: Any) -> Any:
        splats = fields.Gaussians(*inputs).activate()
        return render.rasterize_rgb(**splats, camera=camera, options=options)[0]

    return _jax_leg(draw, made, given.rounds, given.file)


def _splax(made: Scene, rounds: int, file: Path) -> Numbers:
    import jax.numpy as jnp

    library = importlib.import_module("splax")
    if not hasattr(library, "spherical_harmonics"):  # 0.1 takes one colour a Gaussian
        return {"note": "a version without spherical harmonics; pip install -U splax"}
    pinhole = [tuple(float(v) for v in x) for x in (made.focal, made.centre)]

    def draw(means: Any, quats: Any, log_scales: Any, logits: Any, sh: Any) -> Any:
        return library.render(
            means,
            log_scales,
            quats,
            sh,
            logits,
            viewmat=jnp.asarray(made.cam_from_world),
            background=jnp.zeros(3),
            img_shape=(made.height, made.width),
            f=pinhole[0],
            c=pinhole[1],
        )[0]

    return _jax_leg(draw, made, rounds, file)


def _gsplat(made: Scene, rounds: int, file: Path) -> Numbers:
    library, torch = importlib.import_module("gsplat"), importlib.import_module("torch")
    inputs = [torch.as_tensor(x, device="cuda").requires_grad_() for x in made.inputs]
    weights = torch.as_tensor(made.cotangent(), device="cuda")
    k = np.eye(3, dtype=np.float32)
    k[[0, 1], [0, 1]], k[:2, 2] = made.focal, made.centre
    view = torch.as_tensor(made.cam_from_world, device="cuda")[None]
    lens = torch.as_tensor(k, device="cuda")[None]

    def draw() -> Any:
        means, quats, log_scales, logits, sh = inputs
        return library.rasterization(
            means,
            quats,
            torch.exp(log_scales),
            torch.sigmoid(logits),
            sh,
            view,
            lens,
            made.width,
            made.height,
            sh_degree=3,
            packed=False,
        )[0][0]

    def forward() -> None:
        with torch.no_grad():
            draw()
        torch.cuda.synchronize()

    def step() -> Any:
        for x in inputs:
            x.grad = None
        picture = draw()
        (picture * weights).sum().backward()
        torch.cuda.synchronize()
        return picture

    torch.cuda.reset_peak_memory_stats()
    numbers = _measured({"forward": forward, "step": step}, rounds)
    picture: Any = step().detach().cpu().numpy()
    gradients = [x.grad.cpu().numpy() for x in inputs if x.grad is not None]
    _store(file, picture, gradients)
    return numbers | {"peak_mb": megabytes(torch.cuda.max_memory_allocated())}


if __name__ == "__main__":
    main()
