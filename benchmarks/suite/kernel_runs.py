"""What the kernel workloads run, each in a process of its own; numbers come back as one JSON line.

``python -m benchmarks.suite.kernel_runs NAME [--pin]``. A process of its own, because XLA sizes
its thread pool once: ``--pin`` keeps the process on one core before jax is imported. Times are
medians of interleaved rounds in CPU milliseconds; ``wall`` takes the least wall time.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from benchmarks.suite import garden
from benchmarks.suite.timing import Run, free_cores, interleaved, pin, waiting

Numbers = dict[str, float]
Backend = Literal["native", "xla"]
BACKENDS: tuple[Backend, ...] = ("native", "xla")
ROUNDS = 9
N, SIZE = 100_000, "540p"


def nouns(scene: garden.Garden) -> tuple[Any, Any]:
    """The scene as ``Gaussians`` and ``Cameras``."""
    import jax.numpy as jnp

    from lumefield.fields import Gaussians
    from lumefield.render import Cameras

    gaussians = Gaussians.from_arrays(
        scene.means, scene.quats_wxyz, scene.log_scales, scene.logit_opacities, scene.sh
    )
    camera = Cameras.from_pinhole(
        jnp.asarray(scene.world_from_cam),
        jnp.asarray(scene.focal),
        jnp.asarray(scene.centre),
        height=scene.height,
        width=scene.width,
    )
    return gaussians, camera


def cotangent(scene: garden.Garden) -> Any:
    """(H, W, 4) weights of colour and opacity in the loss: standard normal."""
    import jax.numpy as jnp

    noise = np.random.default_rng(1).normal(size=(scene.height, scene.width, 4))
    return jnp.asarray(noise, jnp.float32)


def forward(scene: garden.Garden, backend: Backend) -> Run:
    """Projection, SH and compositing."""
    import jax

    from lumefield.render import SplatOptions, rasterize_rgb

    gaussians, camera = nouns(scene)
    options = SplatOptions(backend=backend)

    def image(gaussians: Any, camera: Any) -> Any:
        return rasterize_rgb(**gaussians.activate(), camera=camera, options=options)

    return waiting(jax.jit(image), gaussians, camera)


def full_step(scene: garden.Garden, backend: Backend) -> Run:
    """Activation, projection, SH, compositing; forward and backward to every parameter."""
    import jax
    import jax.numpy as jnp

    from lumefield.render import SplatOptions, rasterize_rgb

    gaussians, camera = nouns(scene)
    options = SplatOptions(backend=backend)

    def loss(gaussians: Any, camera: Any, g: Any) -> Any:
        rgb, opacity = rasterize_rgb(**gaussians.activate(), camera=camera, options=options)
        return jnp.sum(rgb * g[..., :3]) + jnp.sum(opacity * g[..., 3])

    return waiting(jax.jit(jax.grad(loss)), gaussians, camera, cotangent(scene))


def step() -> Numbers:
    """The full step: native, xla and, where its folder is there, the prototype."""
    from benchmarks import prototype_leg

    scene = garden.make(N, SIZE)
    runs = {name: full_step(scene, name) for name in BACKENDS}
    prototype = prototype_leg.full_step(scene, cotangent(scene))
    if prototype:
        runs["prototype"] = prototype
    return interleaved(runs, ROUNDS)


def order() -> Numbers:
    """The full step, native, of Gaussians in random order and along a space-filling curve."""
    import dataclasses

    import jax
    import jax.numpy as jnp

    from lumefield.fields import morton_order
    from lumefield.fit import permuted

    scene = garden.make(N, SIZE)  # points were drawn at random: their order says nothing of space
    last = jnp.zeros(N, bool)
    sort = jax.jit(morton_order)
    rows = np.asarray(sort(jnp.asarray(scene.means), last))
    names = ("means", "quats_wxyz", "log_scales", "logit_opacities", "sh")
    curve = dataclasses.replace(scene, **{name: getattr(scene, name)[rows] for name in names})

    def moved(g: Any) -> Any:  # with the moments of the optimizer
        return permuted(morton_order(g.means, last), (g, g, g))

    gaussians, _ = nouns(scene)
    runs = {
        "random": full_step(scene, "native"),
        "curve": full_step(curve, "native"),
        "resort": waiting(jax.jit(moved), gaussians),
    }
    return interleaved(runs, ROUNDS)


def tiles() -> Numbers:
    """Row visits counted by a slow build, times of the normal one, and stages of a third."""
    import jax

    from benchmarks.suite import kernel_builds
    from lumefield import native

    scene = garden.make(N, SIZE)
    inputs, _ = projected(scene)
    out = kernel_builds.forward_shapes(scene, N)
    assert native.load(), "the parent process has checked that there are native kernels"

    def call(*args: Any) -> Any:
        return native.call("CompositeForward", out, *args, n_threads=np.int64(1))

    time_ms = interleaved({"forward": waiting(jax.jit(call), *inputs)}, ROUNDS * 2)
    rows, items = kernel_builds.visits(inputs, out)
    lanes = {"avx512": 16, "avx2": 8}[native.status().isa]
    return {
        "forward_ms": time_ms["forward"],
        "pixel_evaluations": float(rows * lanes),
        "items": float(items),
        **kernel_builds.stages(inputs, out, ROUNDS * 2),
    }


def wall() -> Numbers:
    """The full step on all threads of this process, least wall time."""
    run = full_step(garden.make(N, SIZE), "native")
    return interleaved({"wall": run}, ROUNDS * 3, clock=time.perf_counter, of=min)


def idle() -> Numbers:
    """How idle the machine is."""
    return {"free_cores": free_cores()}


def memory() -> Numbers:
    """Bytes that the vjp of the rasterizer keeps beside its inputs, from the arrays it holds."""
    import jax

    from lumefield.render import SplatOptions, rasterize_rgb

    scene = garden.make(N, SIZE)
    gaussians, camera = nouns(scene)
    inputs = gaussians.activate()
    options = SplatOptions(backend="native")

    def image(inputs: Any) -> Any:
        return rasterize_rgb(**inputs, camera=camera, options=options)

    _, pull = jax.vjp(image, inputs)
    arrays = [x for x in jax.tree.leaves(pull) if isinstance(x, jax.Array)]
    known = {x.unsafe_buffer_pointer() for x in jax.tree.leaves((inputs, camera))}
    kept = {x.unsafe_buffer_pointer(): x.nbytes for x in arrays}
    total = sum(size for pointer, size in kept.items() if pointer not in known)
    _, seen = projected(scene)
    pixels = scene.height * scene.width
    return {
        "kept_bytes": float(total),
        "visible": float(seen),
        "bytes_per_visible": (total - 20 * pixels) / seen,
        "of_budget": total / (100 * seen + 20 * pixels),
    }


def projected(scene: garden.Garden) -> tuple[tuple[Any, ...], int]:
    """Inputs of the compositing kernel, and the number of Gaussians that reach the image."""
    import jax

    from lumefield.render import project_gaussians

    gaussians, camera = nouns(scene)

    def project(gaussians: Any, camera: Any) -> Any:
        return project_gaussians(**gaussians.activate(), camera=camera)

    p = jax.block_until_ready(jax.jit(project)(gaussians, camera))
    opacities, xy, factor = (np.asarray(x) for x in (p.opacities, p.xy, p.factor))
    on_image = garden.visible(opacities, xy, factor, scene)
    return (p.xy, p.factor, p.opacities, p.depth, p.rgb), int(on_image.sum())


def photometric() -> Numbers:
    """Value and gradient of the photometric loss, native and xla."""
    import jax
    import jax.numpy as jnp

    from lumefield.render import photometric_loss

    height, width = garden.SIZES[SIZE]
    rng = np.random.default_rng(2)
    image = jnp.asarray(rng.random((height, width, 3)), jnp.float32)
    truth = jnp.asarray(rng.integers(0, 256, (height, width, 3)), jnp.uint8)
    weight = jnp.full((1, 1), 255, jnp.uint8)

    def run(backend: Backend) -> Run:
        def loss(image: Any, truth: Any, weight: Any) -> Any:
            return photometric_loss(image, truth, weight, backend=backend)

        return waiting(jax.jit(jax.value_and_grad(loss)), image, truth, weight)

    return interleaved({name: run(name) for name in BACKENDS}, 5)


def projection() -> Numbers:
    """Projection and SH, forward and forward + backward, native and xla."""
    import jax
    import jax.numpy as jnp

    from lumefield.render import SplatOptions, project_gaussians

    gaussians, camera = nouns(garden.make(N, SIZE))

    def run(backend: Backend, backward: bool) -> Run:
        options = SplatOptions(backend=backend)

        def image(gaussians: Any) -> Any:
            return project_gaussians(**gaussians.activate(), camera=camera, options=options)

        def both(gaussians: Any) -> Any:
            out, pull = jax.vjp(image, gaussians)
            return pull(jax.tree.map(jnp.ones_like, out))

        return waiting(jax.jit(both if backward else image), gaussians)

    runs: dict[str, Run] = {}
    for name in BACKENDS:
        runs[f"{name}_fwd"], runs[f"{name}_step"] = run(name, False), run(name, True)
    return interleaved(runs, ROUNDS)


def table() -> Numbers:
    """Native only: forward and full step over counts, image sizes and degrees."""
    import dataclasses

    out: Numbers = {}
    for n in (20_000, 100_000, 500_000):
        for size in garden.SIZES:
            scene = garden.make(n, size)
            runs = {"fwd": forward(scene, "native"), "step": full_step(scene, "native")}
            rounds = 5 if n <= 100_000 else 3
            times = interleaved(runs, rounds, warm=1)
            out |= {f"{n // 1000}k.{size}.{way}": t for way, t in times.items()}
    scene = garden.make(N, SIZE)
    runs = {}
    for degree in range(4):
        cut = dataclasses.replace(scene, sh=scene.sh[:, : (degree + 1) ** 2].copy())
        runs[f"sh{degree}.step"] = full_step(cut, "native")
    return out | interleaved(runs, 5)


RUNS: dict[str, Callable[[], Numbers]] = {
    "step": step,
    "order": order,
    "tiles": tiles,
    "wall": wall,
    "idle": idle,
    "memory": memory,
    "photometric": photometric,
    "projection": projection,
    "table": table,
}


def main() -> None:
    """Run one of ``RUNS`` and print its numbers as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=RUNS)
    parser.add_argument("--pin", action="store_true", help="stay on one core, one kernel thread")
    options = parser.parse_args()
    if options.pin:
        pin()
        os.environ["LUMEFIELD_THREADS"] = "1"
    sys.stdout.write(json.dumps(RUNS[options.name]()) + "\n")


if __name__ == "__main__":
    main()
