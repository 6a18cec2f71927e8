"""The only training loop: state, step, scan, chunks, resume.

Letters: a *step* is one optimizer update; a *chunk* is a number of steps run by one jitted
``lax.scan``; a *stage* is a stretch of steps that share one loss (and so one compiled function).
Everything a step depends on is in :class:`TrainState` and the step number: the same state continues
exactly, whoever loaded it.
"""

import dataclasses
import typing
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, PRNGKeyArray

from lumefield import native
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


class RowAdam(typing.NamedTuple):
    """An optimizer that moves some rows of a scene and leaves the others; see :func:`row_adam`."""

    init: Callable[[Any], Any]
    """Scene -> state."""
    move: Callable[[Any, Any, Any], tuple[Any, Any]]
    """(gradients, state, scene) -> (scene, state)."""


Optimizer = optax.GradientTransformation | RowAdam


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
        tx: Optimizer,
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
    redo: "Callable[[Mapping[str, np.ndarray]], Stage | None] | None" = None
    """Metrics of a chunk -> None, or the stage to go on with instead.

    That one runs the same steps again, from the state before the chunk, whose outcome is forgotten.
    So a size that a step finds too small is looked at once a chunk, not at every step."""


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
    tx: Optimizer,
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
    for planned in stages:
        stage = planned
        if int(state.step) >= stage.until:
            continue
        run = _runner(stage.loss, tx, after_step)
        while (first := int(state.step)) < stage.until:
            count = min(chunk, stage.until - first)
            new, metrics, finite = run(state, stage.batches(first, count))
            host = {name: np.asarray(value) for name, value in metrics.items()}
            if stage.redo and (other := stage.redo(host)):
                stage, run = other, _runner(other.loss, tx, after_step)
                continue
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
    loss: Loss, tx: Optimizer, after_step: AfterStep | None
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, Array], Array]]:
    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, Array]]:  # noqa: ANN401
        key = jax.random.fold_in(state.key, state.step)
        for_loss, for_noise = jax.random.split(key)
        grad = jax.value_and_grad(loss, has_aux=True)
        (value, (aux, metrics)), grads = grad(state.scene, state.aux, batch, for_loss, state.step)
        with jax.numpy_dtype_promotion("standard"):  # optax' Adam is not clean under "strict"
            if isinstance(tx, RowAdam):
                scene, opt = tx.move(grads, state.opt, state.scene)
            else:
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

    def times(rate: Any, leaf: Array) -> Array:  # noqa: ANN401
        return -rate * leaf

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:  # noqa: ANN401
        scaled, new = adam.update(updates, state, params)
        return _below(times, rates(state.count), scaled), new

    return optax.GradientTransformation(adam.init, update)


def row_adam(
    rates: Callable[[Array], Any],
    rows: Callable[[Any], Any],
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-15,
    backend: str = "auto",
) -> RowAdam:
    """``scaled_adam`` of some rows in each step; the others keep their values and their moments.

    As the sparse Adam of 3DGS and of Taming 3DGS (Mallick et al. 2024), but for the correction of
    the bias: it counts all steps, as Adam's does. The result is not Adam's, whose moments decay and
    whose rows go on in steps that have no gradient for them.

    Args:
        rates: As in ``scaled_adam``.
        rows: Gradients -> pytree like the scene, or a prefix of it: boolean arrays over the leading
            axis of each leaf, or None for all of what the scene has there.
        b1: Decay of the first moment.
        b2: Decay of the second moment.
        eps: Added to the root of the second moment.
        backend: See ``native.adam_rows``.
    """

    def move(grads: Any, state: Any, scene: Any) -> tuple[Any, Any]:  # noqa: ANN401
        count = jnp.asarray(optax.safe_increment(state.count))
        decay = jnp.asarray([np.log(b1), np.log(b2)], jnp.float32)
        # 1 / (1 - b^t), which loses digits for b near 1.
        grow = -1 / jnp.expm1(decay * count.astype(jnp.float32))
        step = partial(native.adam_rows, grow=grow, b1=b1, b2=b2, eps=eps, backend=backend)
        told = (_spread(rows(grads), scene), _spread(rates(state.count), scene))
        trees = (jax.tree.leaves(tree) for tree in (grads, state.mu, state.nu, scene))
        done = [step(*leaves) for leaves in zip(*told, *trees, strict=True)]
        whole = jax.tree.structure(scene)
        moved, mu, nu = (jax.tree.unflatten(whole, x) for x in zip(*done, strict=True))
        return moved, state._replace(count=count, mu=mu, nu=nu)

    return RowAdam(optax.scale_by_adam().init, move)


def forget(opt: Any, scene: Any, rows: Any) -> Any:  # noqa: ANN401
    """Set the optimizer's moments to zero where ``rows`` is true.

    Args:
        opt: Optimizer state whose moment leaves mirror the scene.
        scene: The scene the moments belong to.
        rows: Pytree like ``scene``, or a prefix of it: boolean arrays over the leading axis of each
            leaf, or None to keep what the scene has there.
    """

    def clear(moments: Any) -> Any:  # noqa: ANN401
        def cleared(gone: Any, leaf: Array) -> Array:  # noqa: ANN401
            if gone is None:
                return leaf
            rows = gone.reshape(gone.shape + (1,) * (leaf.ndim - gone.ndim))
            return jnp.where(rows, jnp.zeros((), leaf.dtype), leaf)

        return _below(cleared, rows, moments)

    return _in_moments(clear, opt, scene)


def reordered(opt: Any, scene: Any, order: Any) -> Any:  # noqa: ANN401
    """The optimizer's moments when row ``order[i]`` of a leaf of the scene becomes its row i.

    Args:
        opt: Optimizer state whose moment leaves mirror the scene.
        scene: The scene the moments belong to.
        order: Pytree like ``scene``, or a prefix of it: integer arrays over the leading axis of
            each leaf, or None where the order stays.
    """
    return _in_moments(partial(permuted, order), opt, scene)


def permuted(order: Any, tree: Any) -> Any:  # noqa: ANN401
    """Rows ``order`` of the leaves of a tree; see :func:`reordered`."""

    def taken(rows: Any, leaf: Array) -> Array:  # noqa: ANN401
        return leaf if rows is None else leaf[rows]

    return _below(taken, order, tree)


def _in_moments(change: Callable[[Any], Any], opt: Any, scene: Any) -> Any:  # noqa: ANN401
    """``change`` done to every part of the optimizer's state that mirrors the scene."""
    wanted = _outline(scene)

    def mirrors(tree: Any) -> bool:  # noqa: ANN401
        return _outline(tree) == wanted

    def changed(tree: Any) -> Any:  # noqa: ANN401
        return change(tree) if mirrors(tree) else tree

    return jax.tree.map(changed, opt, is_leaf=mirrors)


def _below(change: Callable[[Any, Array], Any], prefix: Any, tree: Any) -> Any:  # noqa: ANN401
    """``change(what the prefix says of a leaf, leaf)`` for every leaf of the tree; None counts."""

    def part(said: Any, below: Any) -> Any:  # noqa: ANN401
        return jax.tree.map(partial(change, said), below)

    return jax.tree.map(part, prefix, tree, is_leaf=_is_none)


def _spread(prefix: Any, tree: Any) -> list[Any]:  # noqa: ANN401
    """What the prefix says of each leaf of the tree, in their order."""
    said = _below(lambda said, _: (said,), prefix, tree)
    return [x for (x,) in jax.tree.structure(tree).flatten_up_to(said)]


def _is_none(x: Any) -> bool:  # noqa: ANN401
    return x is None


def _outline(tree: Any) -> tuple[Any, list[tuple[int, ...]]]:  # noqa: ANN401
    leaves, structure = jax.tree.flatten(tree)
    return structure, [np.shape(leaf) for leaf in leaves]
