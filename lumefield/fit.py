"""The only training loop: state, step, scan, chunks, resume.

Letters: a *step* is one optimizer update; a *chunk* is a number of steps run by one jitted
``lax.scan``; a *stage* is a stretch of steps that share one loss (and so one compiled function).
Everything a step depends on is in :class:`TrainState` and the step number: the same state continues
exactly, whoever loaded it.
"""

import dataclasses
import typing
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, PRNGKeyArray

from lumefield.errors import RunError

Loss = Callable[[Any, Any, Any, PRNGKeyArray, Array], tuple[Array, tuple[Any, dict[str, Array]]]]
"""(scene, aux, batch, key, step) -> (value, (aux, metrics)).

The scalar value is differentiated by the scene."""
AfterStep = Callable[[Any, Any, Any, PRNGKeyArray, Array], tuple[Any, Any]]
"""(scene, aux, grads, key, step) -> (scene, aux).

What an optimizer does not do: noise, statistics."""
Batches = Callable[[int, int], Any]
"""(first step, count) -> a pytree whose leaves have ``count`` as leading axis.

A function of the step alone, so that a resumed run sees the same batches."""


@typing.no_type_check
@struct.dataclass
class TrainState:
    """Everything that changes while fitting; saving it is a checkpoint."""

    scene: Any
    """Any pytree of floating-point arrays: Gaussians, an ``nnx.Module``, a dataclass of both."""
    opt: Any
    """State of the optimizer."""
    aux: Any
    """What is carried along without gradient, such as densification statistics; may be ``()``."""
    key: PRNGKeyArray
    """Random key; every step derives its own from this one and the step number."""
    step: Array
    """Steps done so far, int32."""

    @classmethod
    def start(
        cls,
        scene: Any,  # noqa: ANN401
        tx: optax.GradientTransformation,
        key: PRNGKeyArray,
        aux: Any = (),  # noqa: ANN401
    ) -> "TrainState":
        """The state before the first step."""
        return cls(scene=scene, opt=tx.init(scene), aux=aux, key=key, step=jnp.zeros((), jnp.int32))


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stretch of steps that share one compiled function."""

    until: int
    """Last step of the stage (exclusive)."""
    loss: Loss
    batches: Batches


@dataclasses.dataclass(frozen=True)
class Chunk:
    """What happened in one chunk, for progress and logs."""

    step: int
    """Steps done after it."""
    metrics: Mapping[str, np.ndarray]
    """Each metric of the loss, (steps of the chunk, ...), and ``loss``."""


def fit(
    state: TrainState,
    stages: tuple[Stage, ...],
    tx: optax.GradientTransformation,
    *,
    chunk: int = 50,
    after_step: AfterStep | None = None,
    between: Callable[[TrainState], TrainState] | None = None,
    on_chunk: Callable[[TrainState, Chunk], bool] | None = None,
) -> TrainState:
    """Minimise the losses of the stages, from ``state.step`` on.

    Args:
        state: Where to start; a loaded state continues exactly.
        stages: In order; those that end before ``state.step`` are skipped.
        tx: The optimizer.
        chunk: Steps per jitted call. Part of the result's definition only in that ``between`` runs
            after each.
        after_step: Applied to the scene after each update, inside the jit.
        between: Applied to the state after each chunk, such as densification. It decides by
            ``state.step``.
        on_chunk: Told of every chunk; returning False stops.

    Returns:
        The last state. All numbers of its scene are finite.

    Raises:
        RunError: If the loss, or the scene after a chunk, is not finite; the message names the
            step. ``on_chunk`` saw the last good state.
    """
    for stage in stages:
        if int(state.step) >= stage.until:
            continue
        run = _runner(stage.loss, tx, after_step)
        while (first := int(state.step)) < stage.until:
            count = min(chunk, stage.until - first)
            new, metrics, finite = run(state, stage.batches(first, count))
            host = {name: np.asarray(value) for name, value in metrics.items()}
            _check_finite(host["loss"], bool(finite), first)
            state = between(new) if between else new
            if on_chunk and not on_chunk(state, Chunk(int(state.step), host)):
                return state
    return state


def _check_finite(losses: np.ndarray, scene_is_finite: bool, first: int) -> None:
    bad = np.flatnonzero(~np.isfinite(losses))
    if not bad.size and scene_is_finite:
        return
    what, at = ("loss", int(bad[0]) + 1) if bad.size else ("scene", len(losses))
    raise RunError(
        f"the {what} is not a finite number at step {first + at}; the last good state is at "
        f"step {first}: resume from it with another seed, and please report this"
    )


def _runner(
    loss: Loss, tx: optax.GradientTransformation, after_step: AfterStep | None
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, Array], Array]]:
    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Array]]:  # noqa: ANN401
        key = jax.random.fold_in(state.key, state.step)
        for_loss, for_noise = jax.random.split(key)
        grad = jax.value_and_grad(loss, has_aux=True)
        (value, (aux, metrics)), grads = grad(state.scene, state.aux, batch, for_loss, state.step)
        with jax.numpy_dtype_promotion("standard"):  # optax' Adam is not clean under "strict"
            updates, opt = tx.update(grads, state.opt, state.scene)
            scene = optax.apply_updates(state.scene, updates)
        if after_step:
            scene, aux = after_step(scene, aux, grads, for_noise, state.step)
        new = TrainState(scene=scene, opt=opt, aux=aux, key=state.key, step=state.step + 1)
        return new, {**metrics, "loss": value}

    @jax.jit
    def run(
        state: TrainState,
        stack: Any,  # noqa: ANN401
    ) -> tuple[TrainState, dict[str, Array], Array]:
        new, metrics = jax.lax.scan(step, state, stack)
        finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(new.scene)]
        return new, metrics, jnp.stack(finite).all() if finite else jnp.array(True)

    return run


def state_arrays(state: TrainState) -> dict[str, np.ndarray]:
    """Every leaf of the state by its path, as host arrays; the inverse is :func:`restore`."""
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    return {_name(path): np.asarray(_raw(leaf)) for path, leaf in leaves}


def restore(like: TrainState, arrays: Mapping[str, np.ndarray]) -> TrainState:
    """A state with the structure of ``like`` and the given numbers.

    Raises:
        RunError: If a leaf is missing, left over, or of another shape or type.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(like)
    names = [_name(path) for path, _ in leaves]
    if set(names) != set(arrays):
        odd = sorted(set(names) ^ set(arrays))[:3]
        raise RunError(
            f"the checkpoint does not fit this run: {', '.join(odd)} missing or left over; "
            "resume with the settings the run was started with"
        )
    out: list[Any] = []
    for name, (_, leaf) in zip(names, leaves, strict=True):
        raw, value = _raw(leaf), arrays[name]
        if raw.shape != value.shape or raw.dtype != value.dtype:
            raise RunError(
                f"the checkpoint does not fit this run: {name} is {value.dtype}{value.shape}, "
                f"expected {raw.dtype}{raw.shape}; "
                "resume with the settings the run was started with"
            )
        array = jnp.asarray(value)
        if raw is not leaf:
            array = jax.random.wrap_key_data(array, impl=jax.random.key_impl(leaf))
        out.append(array)
    return jax.tree_util.tree_unflatten(tree, out)


def _raw(leaf: Any) -> Any:  # noqa: ANN401
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def scaled_adam(
    rates: Callable[[Array], Any], *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-15
) -> optax.GradientTransformation:
    """Adam (Kingma and Ba, 2015, Algorithm 1) with its own learning rate per leaf and step.

    Args:
        rates: Step -> pytree like the scene whose leaves broadcast against its leaves. It may be a
            prefix: a leaf of it counts for all that the scene has below it.
        b1: Decay of the first moment.
        b2: Decay of the second moment.
        eps: Added to the root of the second moment.
    """
    adam = optax.scale_by_adam(b1=b1, b2=b2, eps=eps)

    def below(rate: Any, scaled: Any) -> Any:  # noqa: ANN401
        def times(leaf: Array) -> Array:
            return -rate * leaf

        return jax.tree.map(times, scaled)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:  # noqa: ANN401
        scaled, new = adam.update(updates, state, params)
        return jax.tree.map(below, rates(state.count), scaled), new

    return optax.GradientTransformation(adam.init, update)


def forget(opt: Any, scene: Any, rows: Any) -> Any:  # noqa: ANN401
    """Set the optimizer's moments to zero where ``rows`` is true.

    Args:
        opt: Optimizer state whose moment leaves mirror the scene.
        scene: The scene the moments belong to.
        rows: Pytree like ``scene``, or a prefix of it: boolean arrays over the leading axis of each
            leaf, or None to keep what the scene has there.
    """
    wanted = _outline(scene)

    def mirrors(tree: Any) -> bool:  # noqa: ANN401
        return _outline(tree) == wanted

    def clear(tree: Any) -> Any:  # noqa: ANN401
        return jax.tree.map(_cleared, rows, tree, is_leaf=_is_none) if mirrors(tree) else tree

    return jax.tree.map(clear, opt, is_leaf=mirrors)


def _is_none(x: Any) -> bool:  # noqa: ANN401
    return x is None


def _outline(tree: Any) -> tuple[Any, list[tuple[int, ...]]]:  # noqa: ANN401
    leaves, structure = jax.tree.flatten(tree)
    return structure, [np.shape(leaf) for leaf in leaves]


def _cleared(rows: Array | None, moments: Any) -> Any:  # noqa: ANN401
    if rows is None:
        return moments

    def zeroed(leaf: Array) -> Array:
        gone = rows.reshape(rows.shape + (1,) * (leaf.ndim - rows.ndim))
        return jnp.where(gone, jnp.zeros((), leaf.dtype), leaf)

    return jax.tree.map(zeroed, moments)
