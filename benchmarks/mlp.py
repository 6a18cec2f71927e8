"""``python -m benchmarks.mlp [--rounds N]``: the fused perceptron against XLA, one thread and two.

Each number of threads is a process of its own, because XLA sizes its pool once. One thread: CPU
time of a process pinned to one core. Two threads: wall time, minimum of rounds, which means nothing
on a busy machine, so the number of free cores is printed beside it. ``plain`` is the network as one
expression, ``blocked`` the XLA fallback, ``native`` the kernel, ``bfloat16`` what is taken where
that is allowed (tiles, on CPUs that multiply them; else the same as without); ``fwd+bwd`` gives the
gradients of inputs, weights and biases. All contenders take turns within a round.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.suite.timing import Run, free_cores, interleaved, pin, waiting

ROOT = Path(__file__).parents[1]
CASES: dict[str, tuple[tuple[tuple[int, ...], ...], str, int]] = {
    "ngp pair": (((32, 64, 16), (32, 64, 64, 3)), "relu", 1 << 16),
    "siren 64x3": (((2, 64, 64, 64, 3),), "sine", 1 << 14),
    "mip 256": (((123, 256, 256, 256, 256, 129),), "relu", 1 << 12),
    "mip 384": (((123, 384, 384, 384, 384, 193),), "relu", 1 << 12),
}
"""Name -> layer sizes of its networks, activation, samples. Only sine networks have biases."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run one process per number of threads and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mlp", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="how often each is timed")
    parser.add_argument("--threads", type=int, choices=(1, 2), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.threads:
        print(json.dumps(measure(options.threads, options.rounds)))
        return
    one, two = (_process(threads, options.rounds) for threads in (1, 2))
    print(f"{two.pop('free cores'):.2f} of 2 cores were free")
    print(f"{'':<28}{'1 thread, CPU ms':>18}{'2 threads, wall ms':>20}")
    for key, ms in one.items():
        print(f"{key:<28}{ms:>18.2f}{two[key]:>20.2f}")


def _process(threads: int, rounds: int) -> dict[str, float]:
    eigen = "true" if threads > 1 else "false"
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "LUMEFIELD_THREADS": str(threads),
        "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={eigen}",
    }
    command = [sys.executable, "-m", "benchmarks.mlp", f"--threads={threads}", f"--rounds={rounds}"]
    done = subprocess.run(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(threads: int, rounds: int) -> dict[str, float]:
    """Milliseconds of every case and contender in this process."""
    if threads == 1:
        pin()
    runs: dict[str, Run] = {}
    for name in CASES:
        runs |= _contenders(name)
    if threads == 1:
        return interleaved(runs, rounds, clock=time.process_time)
    cores = free_cores()
    return {"free cores": cores} | interleaved(runs, rounds, clock=time.perf_counter, of=min)


def _contenders(name: str) -> dict[str, Run]:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from lumefield.fields.networks._blocked import blocked_mlp, plain_mlp
    from lumefield.fields.networks._fused_mlp import MAX_WIDTH, mlp

    shapes, act, n = CASES[name]
    activation: Any = act
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return jnp.asarray(rng.normal(size=shape) / shape[0] ** 0.5, jnp.float32)

    nets = [
        (
            [normal(*s) for s in itertools.pairwise(sizes)],
            [normal(s) for s in sizes[1:]] if activation == "sine" else [],
        )
        for sizes in shapes
    ]
    x = jnp.asarray(rng.uniform(-1, 1, (n, shapes[0][0])), jnp.float32)
    cotangents = [jnp.asarray(rng.normal(size=(n, sizes[-1])), jnp.float32) for sizes in shapes]

    def native(x: Any, weights: Any, biases: Any, activation: Any) -> Any:
        return mlp(x, weights, biases, activation=activation, backend="native")

    def half(x: Any, weights: Any, biases: Any, activation: Any) -> Any:
        return mlp(x, weights, biases, activation=activation, precision="bfloat16")

    contenders = {"plain": plain_mlp, "blocked": blocked_mlp, "native": native, "bfloat16": half}
    widest = max(size for sizes in shapes for size in sizes)
    left_out = {"native"} if widest > MAX_WIDTH else set[str]()
    left_out |= {"bfloat16"} if activation == "sine" else set()
    runs: dict[str, Run] = {}
    for kind in (k for k in contenders if k not in left_out):
        function: Any = contenders[kind]

        def forward(x: Any, nets: Any, function: Any = function) -> Any:
            return [function(x, *net, activation) for net in nets]

        def both(x: Any, nets: Any, gs: Any, forward: Any = forward) -> Any:
            y, pull = jax.vjp(forward, x, nets)
            return y, pull(gs)

        runs[f"{name}, {kind}, fwd"] = waiting(jax.jit(forward), x, nets)
        runs[f"{name}, {kind}, fwd+bwd"] = waiting(jax.jit(both), x, nets, cotangents)
    return runs


if __name__ == "__main__":
    main()
