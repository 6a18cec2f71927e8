"""``python -m benchmarks.networks [--torch-python PYTHON]``: sine, cosine and SIREN steps.

Each leg runs in a process of its own, pinned to one core, and prints JSON; times are CPU times,
minimum of rounds. The torch leg runs this file by its path under the given interpreter, which needs
torch (and a C++ compiler for torch.compile) and nothing of ours. Both sides do the same: forward,
mean squared error, backward, Adam, on the same points. Ours runs ``STEPS`` steps per call in one
``lax.scan``, as ``fit`` does; ``ours`` with the fused kernel where it fits (at most 128 units),
``ours_xla`` without.
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

SIZES = {"64x3": (64, 3, 16384), "256x4": (256, 4, 4096)}
"""Name -> width, hidden layers, points."""
STEPS, ROUNDS = 10, 7
ROOT = Path(__file__).parents[1]


def main() -> None:
    """Run the legs and print a table; ``--leg`` runs one here and prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch-python", help="an interpreter that has torch")
    parser.add_argument("--leg", choices=sorted(LEGS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.leg:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        print(json.dumps(LEGS[options.leg]()))
        return
    result = {name: _run(sys.executable, name) for name in ("trig", "ours", "ours_xla")}
    for name in ("torch_eager", "torch_compile") if options.torch_python else ():
        result[name] = _run(options.torch_python, name)
    for leg, values in result.items():
        for key, value in values.items():
            print(f"{leg:<14} {key:<22} {value:>10.4g}")
    for leg in ("torch_eager", "torch_compile"):
        for size in SIZES if leg in result else ():
            ratio = result[leg][f"{size} step ms"] / result["ours"][f"{size} step ms"]
            print(f"{leg} / ours, {size}: {ratio:.2f}")


def _run(python: str, leg: str) -> dict[str, float]:
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1", "LUMEFIELD_THREADS": "1"}
    env |= {"PYTHONPATH": str(ROOT), "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    command = [python, str(Path(__file__)), "--leg", leg]
    out = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if out.returncode:
        raise SystemExit(f"leg {leg} failed under {python}:\n{out.stderr[-2000:]}")
    return json.loads(out.stdout.splitlines()[-1])


def fastest(run: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Least CPU time of a call in milliseconds, after one to warm up."""
    run()
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    return best * 1e3


def trig() -> dict[str, float]:
    """Errors against float64, and nanoseconds per element within a fused loop."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from lumefield.fields.networks import cos, sin

    rng, found = np.random.default_rng(0), {}
    wide = np.concatenate([rng.uniform(-2000, 2000, 4_000_000), np.linspace(-10, 10, 1_000_001)])
    wide, tiny = wide.astype("f"), np.geomspace(1e-30, 0.1, 1_000_001).astype("f")
    for name, ours in (("sin", sin), ("cos", cos)):
        exact = getattr(np, name)
        found[f"{name} max error"] = _largest(jax.jit(ours)(wide) - exact(wide.astype("d")))
    near = np.sin(tiny.astype("d"))
    found["sin rel. error near 0"] = _largest((jax.jit(sin)(tiny) - near) / near)

    x, repeats = jnp.asarray(rng.uniform(-100, 100, 1 << 14).astype("f")), 200

    def nanoseconds(f: Callable[[Any], Any]) -> float:
        @jax.jit
        def loop(x: Any) -> Any:
            def body(c: Any, _: None) -> tuple[Any, None]:
                return 0.99 * c + f(c), None

            return jax.lax.scan(body, x, None, length=repeats)[0]

        return fastest(partial(_done, loop, x)) * 1e6 / repeats / x.size

    def scaled(x: Any) -> Any:
        return x * 0.01

    empty = nanoseconds(scaled)
    for name, f in {"sin": sin, "cos": cos, "jnp.sin": jnp.sin, "jnp.cos": jnp.cos}.items():
        found[f"{name} ns"] = nanoseconds(f) - empty
    return found


def _largest(error: Any) -> float:
    return float(abs(error).max())


def ours(backend: str) -> dict[str, float]:
    """Milliseconds per Adam step of our SIREN."""
    import jax
    import optax
    from flax import nnx

    from lumefield.fields.networks import FIELDS

    found: dict[str, float] = {}
    for name, (width, depth, points) in SIZES.items():
        x = jax.random.uniform(jax.random.key(0), (points, 2), minval=-1.0)
        y = jax.random.uniform(jax.random.key(1), (points, 3))
        options: Any = {"width": width, "depth": depth, "backend": backend}
        field: Any = FIELDS["siren"](2, 3, **options, rngs=nnx.Rngs(0))
        run, carry = _steps(field, x, y, optax.adam(1e-4))
        found[f"{name} step ms"] = fastest(partial(_done, run, carry)) / STEPS
    return found


def _steps(field: Any, x: Any, y: Any, tx: Any) -> tuple[Any, Any]:
    """``STEPS`` steps as one jitted function, and what it starts from."""
    import jax
    import jax.numpy as jnp
    import optax

    def loss(field: Any) -> Any:
        return jnp.mean((field(x) - y) ** 2)

    def step(carry: Any, _: None) -> Any:
        value, grads = jax.value_and_grad(loss)(carry[0])
        updates, opt = tx.update(grads, carry[1])
        return (optax.apply_updates(carry[0], updates), opt), value

    @jax.jit
    def run(carry: Any) -> Any:
        return jax.lax.scan(step, carry, None, length=STEPS)[1]

    return run, (field, tx.init(field))


def _done(run: Any, carry: Any) -> Any:
    return run(carry).block_until_ready()


def torch_steps(compiled: bool) -> dict[str, float]:
    """Milliseconds per Adam step of the same network in torch."""
    import torch  # pyright: ignore

    torch.set_num_threads(1)
    found: dict[str, float] = {}
    for name, (width, depth, points) in SIZES.items():
        sizes = [2, *[width] * depth, 3]
        layers = torch.nn.ModuleList(torch.nn.Linear(i, o) for i, o in itertools.pairwise(sizes))

        def forward(x: Any, layers: Any = layers) -> Any:
            for layer in layers[:-1]:
                x = torch.sin(30.0 * layer(x))
            return layers[-1](x)

        call = torch.compile(forward) if compiled else forward
        x, y = torch.rand(points, 2) * 2 - 1, torch.rand(points, 3)
        adam = torch.optim.Adam(layers.parameters(), lr=1e-4, fused=True)

        def steps(call: Any = call, adam: Any = adam, x: Any = x, y: Any = y) -> None:
            for _ in range(STEPS):
                adam.zero_grad()
                torch.mean((call(x) - y) ** 2).backward()
                adam.step()

        found[f"{name} step ms"] = fastest(steps) / STEPS
    return found


LEGS: dict[str, Callable[[], dict[str, float]]] = {
    "trig": trig,
    "ours": partial(ours, "auto"),
    "ours_xla": partial(ours, "xla"),
    "torch_eager": partial(torch_steps, compiled=False),
    "torch_compile": partial(torch_steps, compiled=True),
}

if __name__ == "__main__":
    main()
