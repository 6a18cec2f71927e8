"""Time volume rendering along rays: marching, packed compositing, resampling, proposal bounds.

    taskset -c 0 .venv/bin/python -m benchmarks.march            # interleaved medians, one thread
    .venv/bin/python -m benchmarks.march --rays 8192 --rounds 15

CPU time of one thread in milliseconds, the native and the XLA backend in turn. The scene is a thin
shell in a grid of 128^3 cells, seen by random rays; docs/render.md has the numbers.
"""

import argparse
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("LUMEFIELD_THREADS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.suite.timing import interleaved, waiting
from lumefield import native
from lumefield.render import volume

STEP = 2 * 3**0.5 / 1024
CAPACITY = 1 << 18


def rays(n: int) -> tuple[Array, Array, Array, Array]:
    """Origins around the scene, directions towards it, and where they cross the box."""
    rng = np.random.default_rng(0)
    origin = rng.normal(size=(n, 3))
    origin *= 2 / np.linalg.norm(origin, axis=-1, keepdims=True)
    direction = 0.3 * rng.normal(size=(n, 3)) - origin
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    o, d = jnp.asarray(origin, jnp.float32), jnp.asarray(direction, jnp.float32)
    near, far = volume.ray_box(o, d)
    return o, d, near, far


def shell(x: Array) -> Array:
    """Density of a shell of radius 0.5 and thickness 0.2."""
    return jnp.where(jnp.abs(jnp.linalg.norm(x, axis=-1) - 0.5) < 0.1, 50.0, 0.0)


@jax.jit
def update(grid: volume.Occupancy, key: Array) -> volume.Occupancy:
    """One update by the shell."""
    return grid.updated(shell, key, step=STEP)


def grid() -> volume.Occupancy:
    """The shell in 128^3 cells."""
    out = volume.Occupancy.full(128)
    for i in range(8):
        out = update(out, jax.random.key(i))
    return out


def contenders(n: int) -> dict[str, Callable[[], object]]:
    """Every kernel by name and backend, on its own arrays."""
    rng = np.random.default_rng(1)
    occupied, ray = grid().occupied, rays(n)
    edges = volume.step_edges(STEP, 2 + 3**0.5)
    start = np.r_[0, np.cumsum(rng.multinomial(CAPACITY, np.ones(n) / n))]
    owner = jnp.asarray(start, jnp.int32)
    tau = jnp.asarray(rng.exponential(0.05, CAPACITY), jnp.float32)
    values = jnp.asarray(rng.uniform(size=(CAPACITY, 4)), jnp.float32)
    g = jnp.asarray(rng.normal(size=(n, 4)), jnp.float32)
    t = volume.stratified(jnp.zeros(n), jnp.ones(n), 64, jax.random.key(0))
    w = jnp.asarray(rng.exponential(1 / 64, (64, n)), jnp.float32)
    out: dict[str, Callable[[], object]] = {}
    for backend in ("native", "xla") if native.load() else ("xla",):

        def march(
            occupied: Array, o: Array, d: Array, near: Array, far: Array, backend: str = backend
        ) -> Any:
            return volume.march(
                occupied, o, d, near, far, edges, capacity=CAPACITY, backend=backend
            )

        def composite(tau: Array, values: Array, owner: Array, backend: str = backend) -> Array:
            image, trans = volume.composite_packed(tau, values, owner, backend=backend)
            return jnp.sum(image * g) + jnp.sum(trans)

        def importance(t: Array, w: Array, backend: str = backend) -> Array:
            return volume.importance(t, w, 64, jax.random.key(1), backend=backend)

        def proposal(t: Array, w: Array, p: Array, backend: str = backend) -> Array:
            return jnp.sum(volume.proposal_loss(t, w, t, p, backend=backend))

        out[f"march {backend}"] = waiting(jax.jit(march), occupied, *ray)
        out[f"packed fwd+bwd {backend}"] = waiting(
            jax.jit(jax.value_and_grad(composite, (0, 1))), tau, values, owner
        )
        out[f"importance {backend}"] = waiting(jax.jit(importance), t, w)
        out[f"proposal fwd+bwd {backend}"] = waiting(
            jax.jit(jax.value_and_grad(proposal, 2)), t, w, 0.5 * w
        )

    def weights(w: Array) -> Array:
        return jnp.sum(volume.ray_weights(w) ** 2)

    def distortion(w: Array, t: Array) -> Array:
        return jnp.sum(volume.distortion_loss(t, w))

    out["ray_weights fwd+bwd"] = waiting(jax.jit(jax.grad(weights)), w)
    out["distortion fwd+bwd"] = waiting(jax.jit(jax.grad(distortion)), w, t)
    fresh = volume.Occupancy.full(128)
    out["occupancy 128^3 / 8"] = waiting(update, fresh, jax.random.key(0))
    return out


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="Time volume rendering along rays.")
    parser.add_argument("--rays", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    occupied, ray = grid().occupied, rays(options.rays)
    edges = volume.step_edges(STEP, 2 + 3**0.5)
    packed = volume.march(occupied, *ray, edges, capacity=CAPACITY)
    print(
        f"{options.rays} rays, {len(edges) - 1} steps, {int(packed.total)} samples kept "
        f"({float(jnp.mean((occupied > 0).astype(jnp.float32))):.1%} of the cells occupied); "
        f"packed: {CAPACITY} samples, 4 channels; histograms: 64 intervals"
    )
    times = interleaved(contenders(options.rays), options.rounds)
    for name, ms in times.items():
        print(f"{name:28s} {ms:8.2f} ms")


if __name__ == "__main__":
    main()
