"""``python -m benchmarks.hashgrid``: hash-grid encoding and training step, native and plain XLA.

2^16 samples along 1024 rays, Instant-NGP's two networks (32-64-16, 32-64-64-3), 16 levels of 2
features. A step is the value and the gradient of a loss by table and weights; no optimizer. The
contenders take turns in one process pinned to one core; medians of CPU times. The leg with two
threads has a process of its own and takes the least wall time: the machine must be idle. At the end
the numbers that planes of 4 axes learn, over those of the dense grid.

Plain XLA is the package's jnp twin and the networks as plain products, all samples at once;
``blocked`` is the same with networks in blocks of 4096 samples, the fallback of the package.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.suite.timing import Run, free_cores, interleaved, pin, waiting

Numbers = dict[str, float]
ROOT = Path(__file__).parents[1]
SAMPLES, PER_RAY, ROUNDS = 1 << 16, 64, 7
GRIDS = {"2^15": (15, 512), "2^19": (19, 2048)}
"""Name -> log2 of the entries of a level, cells per axis of the finest level."""
NETWORKS = ((32, 64, 16), (32, 64, 64, 3))


def main() -> None:
    """Run the legs and print their numbers; ``--leg`` runs one here and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leg", choices=sorted(LEGS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.leg:
        print(json.dumps(LEGS[options.leg]()))
        return
    found = {leg: _child(leg) for leg in LEGS}
    for leg, values in found.items():
        for key, value in values.items():
            print(f"{leg:<8} {key:<28} {value:>10.4g}")
    for grid in GRIDS:
        one = found["one"]
        part = one[f"{grid} step native ms"] / one[f"{grid} step xla ms"]
        print(f"step of {grid}, native / plain XLA: {part:.3f} (goal 0.5)")


def _child(leg: str) -> Numbers:
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "benchmarks.hashgrid", "--leg", leg]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, cwd=ROOT, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def points() -> np.ndarray:
    """(SAMPLES, 3) points in [-1, 1]: rays in all directions, jittered samples along each."""
    draw = np.random.default_rng(0)
    rays = SAMPLES // PER_RAY
    origin, direction = draw.uniform(-1, 1, (rays, 1, 3)), draw.normal(size=(rays, 1, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    t = (np.arange(PER_RAY) + draw.uniform(size=(rays, PER_RAY))) / PER_RAY
    inside = (origin + direction * t[..., None] + 1) % 2 - 1
    return inside.reshape(-1, 3).astype(np.float32)


class Problem:
    """Arrays of one grid, and the functions that are timed."""

    def __init__(self, grid: str) -> None:
        import jax
        import jax.numpy as jnp

        from lumefield.fields.networks._hashgrid import Levels

        log2_entries, finest = GRIDS[grid]
        self.levels = Levels.geometric(3, finest=finest, log2_entries=log2_entries)
        keys = iter(jax.random.split(jax.random.key(0), 16))
        self.table = 0.1 * jax.random.normal(next(keys), (self.levels.rows, 2))
        self.x = jnp.asarray(points())
        self.g = jax.random.normal(next(keys), (SAMPLES, self.levels.width))
        self.weights = [
            [
                jax.random.normal(next(keys), (i, o)) * (2 / i) ** 0.5
                for i, o in itertools.pairwise(sizes)
            ]
            for sizes in NETWORKS
        ]

    def parts(self, backend: str) -> dict[str, Run]:
        """Encoding alone: forward, gradient of the table, gradient of the points."""
        import jax

        from lumefield.fields.networks._hashgrid import encode

        def value(table: Any, x: Any, g: Any) -> Any:
            return (encode(table, x, self.levels, backend=backend) * g).sum()

        forward = jax.jit(partial(encode, levels=self.levels, backend=backend))
        given = (self.table, self.x, self.g)
        return {
            "encode": waiting(forward, self.table, self.x),
            "table gradient": waiting(jax.jit(jax.grad(value, 0)), *given),
            "point gradient": waiting(jax.jit(jax.grad(value, 1)), *given),
        }

    def step(self, backend: str) -> Run:
        """Value and gradient of a loss by table and weights; "blocked" is xla's better one."""
        import jax
        import jax.numpy as jnp

        from lumefield.fields.networks._blocked import blocked_mlp, plain_mlp
        from lumefield.fields.networks._fused_mlp import mlp
        from lumefield.fields.networks._hashgrid import encode

        networks: dict[str, Callable[[Any, Any], Any]] = {
            "native": lambda x, w: mlp(x, w, backend="native"),
            "blocked": lambda x, w: blocked_mlp(x, w, [], "relu"),
            "xla": lambda x, w: plain_mlp(x, w, [], "relu"),
        }
        network = networks[backend]
        encoder = "native" if backend == "native" else "xla"

        def loss(learned: Any, x: Any) -> Any:
            table, (density, colour) = learned
            features = network(encode(table, x, self.levels, backend=encoder), density)
            rgb = network(jnp.concatenate([features, jnp.sin(features)], -1), colour)
            return jnp.mean(rgb**2) + jnp.mean(features[:, 0])

        return waiting(jax.jit(jax.value_and_grad(loss)), (self.table, self.weights), self.x)


def one_thread() -> Numbers:
    """Every part and the step, native and XLA in turns, one pinned core."""
    pin()
    os.environ["LUMEFIELD_THREADS"] = "1"
    numbers: Numbers = {}
    for grid in GRIDS:
        problem = Problem(grid)
        runs = {f"step {b}": problem.step(b) for b in ("native", "blocked", "xla")}
        for backend in ("native", "xla"):
            for name, run in problem.parts(backend).items():
                runs[f"{name} {backend}"] = run
        times = interleaved(runs, ROUNDS, warm=1)
        numbers |= {f"{grid} {name} ms": ms for name, ms in times.items()}
    return numbers


def two_threads() -> Numbers:
    """The native parts on one and on two threads, least wall time."""
    numbers: Numbers = {"free cores": free_cores()}
    for grid in GRIDS:
        runs: dict[str, Run] = {}
        for threads in ("1", "2"):  # read when a function is traced
            os.environ["LUMEFIELD_THREADS"] = threads
            problem = Problem(grid)
            for name, run in (*problem.parts("native").items(), ("step", problem.step("native"))):
                run()
                runs[f"{name}, {threads} threads"] = run
        times = interleaved(runs, 2 * ROUNDS, clock=time.perf_counter, of=min, warm=0)
        numbers |= {f"{grid} {name} ms": ms for name, ms in times.items()}
    return numbers


def planes() -> Numbers:
    """Parameters of K-Planes' 4D form (64 to 512 vertices in space, 100 in time, 16 features)."""
    import jax
    from flax import nnx

    from lumefield.fields.networks import Planes
    from lumefield.fields.networks._planes import dense_parameters, parameters

    def make() -> Planes:
        return Planes(4, 28, size=(64, 64, 64, 100), scales=(1, 2, 4, 8), rngs=nnx.Rngs(0))

    field = jax.eval_shape(make)
    mine, dense = parameters(field), dense_parameters(field)
    return {"parameters": mine, "dense parameters": dense, "dense / planes": dense / mine}


LEGS: dict[str, Callable[[], Numbers]] = {
    "one": one_thread,
    "two": two_threads,
    "planes": planes,
}


if __name__ == "__main__":
    main()
