"""Several devices in one training: the cameras of a step are divided among them.

Each device holds the whole scene, draws its share of the cameras and back-propagates through it;
the gradients are added up (data parallelism). Letters: D devices, B cameras of a step.
"""

import math
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lumefield.apps._train_settings import Train
from lumefield.errors import InputError

_AXIS = "cameras"


def chosen_mesh(settings: Train) -> Mesh | None:
    """The devices of a run, or None for one device, where nothing is divided.

    When ``--devices`` is not given: all accelerators of this process, or as many of them as divide
    the cameras of a step; one device where there are none.

    Raises:
        InputError: If there are fewer devices than asked for, or they do not divide the cameras.
    """
    there, cameras = jax.local_devices(), settings.cameras_per_step
    wanted = settings.devices
    if wanted is None:
        wanted = 1 if jax.default_backend() == "cpu" else math.gcd(len(there), cameras)
    if wanted > len(there):
        raise InputError(
            f"--devices {wanted}, and jax sees {len(there)} ({there[0].platform}); "
            "leave --devices out to use what there is"
        )
    if cameras % wanted:
        raise InputError(
            f"--devices {wanted} with --cameras-per-step {cameras}, expected a multiple of "
            f"{wanted}: each device draws as many; use --cameras-per-step {wanted}"
        )
    return Mesh(np.asarray(there[:wanted]), (_AXIS,)) if wanted > 1 else None


def free_mb() -> float | None:
    """Free memory of the first accelerator, MB; infinity where it does not tell, None on a CPU.

    What jax may still take, but no more than the driver says is free: the card may be shared.
    """
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return None
    told: list[float] = [math.inf]
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        told.append((stats["bytes_limit"] - stats.get("bytes_in_use", 0)) / 1e6)
    if tool := shutil.which("nvidia-smi"):
        words = [tool, "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        cards = done.stdout.split()
        if len(cards) == 1 and cards[0].isdecimal():  # with more, which is ours is not known
            told.append(int(cards[0]) * 2**20 / 1e6)
    return min(told)


def mean_over_cameras(one: Callable[..., tuple[Array, ...]], mesh: Mesh | None) -> Any:  # noqa: ANN401
    """The mean of what ``one`` makes of each camera; of the first number the gradient, too.

    Sums are taken in pairs, pairs of pairs, ...: on a power of two of devices the bits are those of
    one device, where cameras are a power of two as well.

    Args:
        one: (scene, batch, key) of one camera -> scalars.
        mesh: See ``chosen_mesh``.

    Returns:
        (scene, batch, keys) with a leading axis of B cameras -> the same scalars.
    """

    def total(scene: Any, items: list[Any]) -> tuple[Array, ...]:  # noqa: ANN401
        if len(items) == 1:
            return one(scene, *items[0])
        half = len(items) // 2
        # Calls of their own: the gradients of each half are added before those of the halves are.
        parts = (branch(scene, items[:half]), branch(scene, items[half:]))
        return tuple(a + b for a, b in zip(*parts, strict=True))

    branch = jax.jit(total)

    def mean(scene: Any, batch: Any, keys: Array, cameras: int) -> tuple[Array, ...]:  # noqa: ANN401
        items = [jax.tree.map(itemgetter(i), (batch, keys)) for i in range(keys.shape[0])]
        return tuple(x / cameras for x in total(scene, items))

    divided = None if mesh is None else _divided_mean(mean, mesh)

    def whole(scene: Any, batch: Any, keys: Array) -> tuple[Array, ...]:  # noqa: ANN401
        scene = _apart(scene) if keys.shape[0] > 1 else scene
        return divided(scene, batch, keys) if divided else mean(scene, batch, keys, keys.shape[0])

    return whole


@jax.custom_vjp
def _apart(tree: Any) -> Any:  # noqa: ANN401
    """The same; what is done with its gradient is compiled apart from what makes it.

    A compiler that sees both contracts products and sums otherwise when the sums differ.
    """
    return tree


def _apart_fwd(tree: Any) -> tuple[Any, None]:  # noqa: ANN401
    return tree, None


def _apart_bwd(_: None, g: Any) -> tuple[Any]:  # noqa: ANN401
    return (jax.lax.platform_dependent(g, cpu=_kept, default=jax.lax.optimization_barrier),)


def _kept(g: Any) -> Any:  # noqa: ANN401
    # On the CPU, XLA drops barriers before it fuses. It does not look into a choice it cannot make.
    first = max(jax.tree.leaves(g), key=jnp.size).ravel()[0]
    return jax.lax.cond(first == first, _same, partial(jax.tree.map, _lost), g)


def _same(tree: Any) -> Any:  # noqa: ANN401
    return tree


def _lost(x: Array) -> Array:
    return jnp.full_like(x, jnp.nan)


_apart.defvjp(_apart_fwd, _apart_bwd)


def _divided_mean(mean: Callable[..., tuple[Array, ...]], mesh: Mesh) -> Any:  # noqa: ANN401
    """Each device differentiates its share; the sum of the gradients is the only exchange."""
    specs = (P(), P(_AXIS), P(_AXIS))

    def share(scene: Any, batch: Any, keys: Array) -> tuple[Any, Any]:  # noqa: ANN401
        cameras = keys.shape[0] * mesh.size

        def first(scene: Any) -> tuple[Array, tuple[Array, ...]]:  # noqa: ANN401
            out = mean(scene, batch, keys, cameras)
            return out[0], out

        grads, out = jax.grad(first, has_aux=True)(scene)
        return _summed((out, grads), mesh.size)

    split = jax.shard_map(share, mesh=mesh, in_specs=specs, out_specs=(P(), P()), check_vma=False)

    @jax.custom_vjp
    def whole(scene: Any, batch: Any, keys: Array) -> tuple[Array, ...]:  # noqa: ANN401
        return split(scene, batch, keys)[0]

    def forward(scene: Any, batch: Any, keys: Array) -> tuple[Any, Any]:  # noqa: ANN401
        return split(scene, batch, keys)

    def backward(grads: Any, g: tuple[Array, ...]) -> tuple[Any, None, None]:  # noqa: ANN401
        return jax.tree.map(partial(jnp.multiply, g[0]), grads), None, None

    whole.defvjp(forward, backward)
    return whole


def _summed(tree: Any, devices: int) -> Any:  # noqa: ANN401
    """The sum over devices, the same bits on each: neighbours first, then pairs of them, ..."""
    if devices & (devices - 1):
        return jax.lax.psum(tree, _AXIS)
    for k in range(devices.bit_length() - 1):
        pairs = [(i, i ^ (1 << k)) for i in range(devices)]
        other = jax.lax.ppermute(tree, _AXIS, pairs)
        tree = jax.tree.map(jnp.add, tree, other)
    return tree


def divided(stack: Any, mesh: Mesh | None) -> Any:  # noqa: ANN401
    """Batches of several steps, leaves (steps, B, ...), with each camera on its device only."""
    return stack if mesh is None else jax.device_put(stack, NamedSharding(mesh, P(None, _AXIS)))


def everywhere(tree: Any, mesh: Mesh | None) -> Any:  # noqa: ANN401
    """The same arrays on every device."""
    return tree if mesh is None else jax.device_put(tree, NamedSharding(mesh, P()))


def on_one(tree: Any, mesh: Mesh | None) -> Any:  # noqa: ANN401
    """What is on every device, as arrays of the first alone: for work that is not divided."""
    return tree if mesh is None else jax.device_put(tree, mesh.devices.flat[0])
