"""``python -m benchmarks.codec_step [--rounds N]``: a training step of the image codec, 512 x 768.

Seven levels, 0.52M latents, a context model 17-12-12-2, synthesis 7-16-3 and two 3 x 3. Goals of
issue 4: a step in 150 ms of wall time on two cores, stretch 50. Each part is timed forward and
backward, native and xla; ``step`` is the whole: noise, rate, upsampling, synthesis, mean squared
error, gradients and Adam, eight in one scan, so that buffers are reused as in ``fit``.

Each number of threads is a process of its own, because XLA sizes its pool once. One thread: CPU
time of a process pinned to one core, median. Two threads: wall time, minimum of rounds, which means
nothing on a busy machine, so the number of free cores is printed beside it.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.suite.timing import Run, free_cores, interleaved, pin, waiting

ROOT = Path(__file__).parents[1]
ROWS, COLUMNS, LEVELS, CHANNELS = 512, 768, 7, 3
STEPS = 8  # in one scan


def main(argv: Sequence[str] | None = None) -> None:
    """Run one process per number of threads and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codec_step", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="how often each is timed")
    parser.add_argument("--native-only", action="store_true", help="leave the xla route out")
    parser.add_argument("--threads", type=int, choices=(1, 2), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    backends = ("native",) if options.native_only else ("native", "xla")
    if options.threads:
        print(json.dumps(measure(options.threads, options.rounds, backends)))
        return
    more = ["--native-only"] * options.native_only
    one, two = (_process(threads, options.rounds, more) for threads in (1, 2))
    print(f"{two.pop('free cores'):.2f} of 2 cores were free")
    print(f"{'':<24}{'1 thread, CPU ms':>18}{'2 threads, wall ms':>20}")
    for key, ms in one.items():
        print(f"{key:<24}{ms:>18.1f}{two[key]:>20.1f}")


def _process(threads: int, rounds: int, more: list[str]) -> dict[str, float]:
    eigen = "true" if threads > 1 else "false"
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "LUMEFIELD_THREADS": str(threads),
        "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={eigen}",
    }
    arguments = [f"--threads={threads}", f"--rounds={rounds}", *more]
    command = [sys.executable, "-m", "benchmarks.codec_step", *arguments]
    done = subprocess.run(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(threads: int, rounds: int, backends: Sequence[str]) -> dict[str, float]:
    """Milliseconds of every part and backend in this process."""
    if threads == 1:
        pin()
    runs: dict[str, Run] = {}
    for backend in backends:
        runs |= _parts(backend) | {f"step, {backend}": _steps(backend)}
    cores = {} if threads == 1 else {"free cores": free_cores()}
    if threads == 1:
        ms = interleaved(runs, rounds, clock=time.process_time, warm=1)
    else:
        ms = interleaved(runs, rounds, clock=time.perf_counter, of=min, warm=1)
    return cores | {key: t / STEPS if key.startswith("step") else t for key, t in ms.items()}


def _scene() -> tuple[Any, ...]:
    """Networks, latents, and a picture: what an encode has early on."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from lumefield.fields.latent import level_sizes, start_networks

    networks = start_networks(jax.random.key(0), levels=LEVELS, channels=CHANNELS)
    rng = np.random.default_rng(0)
    latents = tuple(
        jnp.asarray(rng.laplace(size=size), jnp.float32)
        for size in level_sizes(ROWS, COLUMNS, LEVELS)
    )
    picture = jnp.asarray(rng.uniform(0, 16, (CHANNELS, ROWS, COLUMNS)), jnp.float32)
    return networks, latents, picture


def _functions(backend: str) -> dict[str, Callable[..., Any]]:
    import jax

    from lumefield.fields import latent

    b: Any = backend

    def noisy(latents: Any, key: Any) -> Any:
        keys = jax.random.split(key, len(latents))
        return tuple(
            latent.noisy(k, y, 0.2, 0.2, backend=b) for k, y in zip(keys, latents, strict=True)
        )

    def rate(context: Any, latents: Any) -> Any:
        return latent.latent_rate(context, latents, backend=b)[0]

    def upsample(latents: Any, filters: Any) -> Any:
        return latent.upsample(latents, filters, backend=b)

    def synthesis(net: Any, stack: Any) -> Any:
        return latent.synthesise(net, stack, backend=b)

    return {"noise": noisy, "rate": rate, "upsample": upsample, "synthesis": synthesis}


def _parts(backend: str) -> dict[str, Run]:
    import jax
    import jax.numpy as jnp

    networks, latents, picture = _scene()
    f = _functions(backend)
    stack = jax.jit(f["upsample"])(latents, networks.filters)
    one = jnp.ones(())
    key = jax.random.key(1)

    def both(function: Any, *inputs: Any, g: Any) -> Run:
        def run(g: Any, *inputs: Any) -> Any:
            y, pull = jax.vjp(function, *inputs)
            return y, pull(g)

        return waiting(jax.jit(run), g, *inputs)

    def noise(latents: Any) -> Any:
        return f["noise"](latents, key)

    return {
        f"noise, {backend}": both(noise, latents, g=latents),
        f"rate, {backend}": both(f["rate"], networks.context, latents, g=one),
        f"upsample, {backend}": both(f["upsample"], latents, networks.filters, g=stack),
        f"synthesis, {backend}": both(f["synthesis"], networks.synthesis, stack, g=picture),
    }


def _steps(backend: str) -> Run:
    import jax
    import jax.numpy as jnp
    import optax

    from lumefield.fit import scaled_adam

    networks, latents, picture = _scene()
    f = _functions(backend)
    adam = scaled_adam(lambda step: jnp.asarray(1e-2))

    def loss(scene: Any, key: Any, picture: Any) -> Any:
        networks, latents = scene
        y = f["noise"](latents, key)
        z = f["synthesis"](networks.synthesis, f["upsample"](y, networks.filters))
        bits = f["rate"](networks.context, y)
        return bits / (ROWS * COLUMNS) + 10 * jnp.square((z - picture) / 16).mean()

    def step(carry: Any, key: Any) -> Any:
        scene, state, picture = carry
        value, grads = jax.value_and_grad(loss)(scene, key, picture)
        updates, state = adam.update(grads, state, scene)
        return (optax.apply_updates(scene, updates), state, picture), value

    def steps(scene: Any, picture: Any, keys: Any) -> Any:
        return jax.lax.scan(step, (scene, adam.init(scene), picture), keys)[1]

    keys = jax.random.split(jax.random.key(2), STEPS)
    return waiting(jax.jit(steps), (networks, latents), picture, keys)


if __name__ == "__main__":
    main()
