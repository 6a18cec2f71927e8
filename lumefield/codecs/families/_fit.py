"""The one way all families are fitted: Adam on the squared error of some pixels or frames a step.

Letters: p parameters, s their fractional bits.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from lumefield.codecs.families._compress import Progress
from lumefield.codecs.families._family import Family, Layout
from lumefield.codecs.families._float import FloatOps
from lumefield.codecs.families._ops import MAX_WEIGHT
from lumefield.fit import Chunk, Loss, Stage, TrainState, fit, scaled_adam

Tensors = dict[str, Any]
_CHUNK = 50
_FLOOR = 0.01
"""The learning rate ends at this share of its largest value."""
_FINISH = 0.2
"""That of the steps through rounding begins at this share."""


class Data(NamedTuple):
    """What a network is fitted to."""

    inputs: Any
    """(items, ...) of the family."""
    targets: Any
    """(items, ..., channels) in [0, 1]."""
    weights: Any
    """(channels,) importance; their sum is 1."""


class Plan(NamedTuple):
    """How long and from where."""

    steps: int
    finish: int
    """Steps through rounding, on top."""
    seed: int
    progress: Progress | None = None


def first_state(family: Family, layout: Layout, data: Data, plan: Plan) -> TrainState:
    """The state before the first step."""
    key = jax.random.key(plan.seed)
    seen = family.seen(layout, np.asarray(data.targets, np.float32))
    scene = family.start(jax.random.fold_in(key, 1), layout)
    scene |= {name: jnp.asarray(value, jnp.float32) for name, value in seen.items()}
    aux = Data(*(jnp.asarray(part, jnp.float32) for part in data))
    return TrainState.start(scene, _adam(family, plan), key, aux)


def fit_network(family: Family, layout: Layout, state: TrainState, plan: Plan) -> TrainState:
    """Fit the float parameters."""
    loss = _loss(family, layout, lambda p: p)
    return _run(family, state, loss, plan.steps, plan)


def fit_rounded(
    family: Family, layout: Layout, state: TrainState, fractions: Mapping[str, int], plan: Plan
) -> TrainState:
    """Go on with the rounding to the steps of the file inside the loss, straight through.

    Bengio, Leonard and Courville, 2013, arXiv:1308.3432: the gradient takes rounding for identity.
    """
    loss = _loss(family, layout, lambda p: straight(p, fractions))
    return _run(family, state, loss, plan.steps + plan.finish, plan)


def straight(p: Tensors, fractions: Mapping[str, int]) -> Tensors:
    """Parameters rounded to multiples of 2^-s, with the gradient of the identity."""

    def rounded(name: str, value: Array) -> Array:
        unit = np.float32(2.0 ** fractions[name])
        most = np.float32(MAX_WEIGHT)
        near = jnp.clip(jnp.round(value * unit), -most, most) / unit
        return value + jax.lax.stop_gradient(near - value)

    return {name: rounded(name, value) for name, value in p.items()}


def probe(family: Family, layout: Layout, data: Data) -> Callable[[Tensors], float]:
    """Mean squared error of clipped values on a fixed choice of items, of given parameters."""
    count = len(data.inputs)
    some = np.random.default_rng(0).choice(count, min(count, family.recipe.probe), replace=False)
    block = min(len(some), max(1, family.recipe.batch))
    parts = [some[i : i + block] for i in range(0, len(some) - block + 1, block)]
    fixed = _fixed(family, layout)

    @jax.jit
    def error(p: Tensors, inputs: Array, targets: Array) -> Array:
        y = family.forward(FloatOps(), {**fixed, **p}, layout, inputs)
        return _error(jnp.clip(y, 0, 1), targets, data.weights)

    pairs = [(jnp.asarray(data.inputs[at]), jnp.asarray(data.targets[at])) for at in parts]
    return lambda p: float(np.mean([float(error(p, *pair)) for pair in pairs]))


def _fixed(family: Family, layout: Layout) -> Tensors:
    return {name: jnp.asarray(whole.floats()) for name, whole in family.fixed(layout).items()}


def _error(y: Array, targets: Array, weights: Any) -> Array:  # noqa: ANN401
    each = jnp.square(y - targets) * jnp.broadcast_to(jnp.asarray(weights, jnp.float32), y.shape)
    return each.sum(-1).mean()


def _loss(family: Family, layout: Layout, through: Callable[[Tensors], Tensors]) -> Loss:
    fixed = _fixed(family, layout)

    def loss(scene: Any, aux: Any, batch: Any, key: Any, step: Any) -> Any:  # noqa: ANN401
        del key, step
        p = {**fixed, **through(scene)}
        y = family.forward(FloatOps(), p, layout, aux.inputs[batch])
        error = _error(y, aux.targets[batch], aux.weights)
        return error, (aux, {})

    return loss


def _run(family: Family, state: TrainState, loss: Loss, until: int, plan: Plan) -> TrainState:
    items = len(state.aux.inputs)
    total = plan.steps + plan.finish

    def tell(state: TrainState, chunk: Chunk) -> bool:
        if plan.progress:
            error = float(np.mean(chunk.metrics["loss"]))
            plan.progress(chunk.step, total, -10 * math.log10(max(error, 1e-12)))
        return True

    batch = min(family.recipe.batch, items)
    stage = Stage(until, loss, lambda first, count: _batches(items, batch, plan.seed, first, count))
    return fit(state, (stage,), _adam(family, plan), chunk=_CHUNK, on_chunk=tell)


def _batches(items: int, batch: int, seed: int, first: int, count: int) -> NDArray[np.int32]:
    """(count, batch) items of some steps: every epoch sees each item at most once."""
    each = items // batch
    orders = dict[int, NDArray[np.int64]]()
    found = np.empty((count, batch), np.int32)
    for i, step in enumerate(range(first, first + count)):
        epoch, part = divmod(step, each)
        if epoch not in orders:
            orders[epoch] = np.random.default_rng((seed, epoch)).permutation(items)
        found[i] = orders[epoch][part * batch : (part + 1) * batch]
    return found


def _adam(family: Family, plan: Plan) -> Any:  # noqa: ANN401
    recipe = family.recipe

    def rate(step: Array) -> Array:
        at = step.astype(jnp.float32)
        rise = jnp.minimum((at + 1) / max(recipe.warm * plan.steps, 1.0), 1.0)
        fitted = _fall(jnp.minimum(at / max(plan.steps, 1), 1.0)) * rise
        finished = _FINISH * _fall(jnp.clip((at - plan.steps) / max(plan.finish, 1), 0, 1))
        return recipe.rate * jnp.where(step < plan.steps, fitted, finished)

    return scaled_adam(rate)


def _fall(share: Array) -> Array:
    return _FLOOR + (1 - _FLOOR) * (0.5 + 0.5 * jnp.cos(jnp.pi * share))
