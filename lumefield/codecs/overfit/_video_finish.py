"""The finish of a group: networks become integers, then frame by frame as they will be decoded.

Latents alone move, in coding order, each frame predicted from the exact pictures of those before.
"""

import copy
import dataclasses
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from lumefield.codecs.neural._decoders import Planes
from lumefield.codecs.neural._group import CodedFrame
from lumefield.codecs.neural._inter import painter
from lumefield.codecs.neural._inter_model import InterModel
from lumefield.codecs.neural._motion import reference
from lumefield.codecs.neural._order import Role
from lumefield.codecs.overfit._video_bank import Bank, coded_frame, reachable
from lumefield.codecs.overfit._video_integers import best_inter_model, inter_networks_of
from lumefield.codecs.overfit._video_intra import Tell
from lumefield.codecs.overfit._video_model import InterNetworks, InterScene
from lumefield.codecs.overfit._video_servo import Servo
from lumefield.codecs.overfit._video_start import as_floats
from lumefield.codecs.overfit._video_step import hard_frame, loss_of, optimizer, prices, shown_error
from lumefield.fit import Stage, TrainState, fit

_DRIFT = 10.0
"""How much more errors count when networks are rounded: what they do wrong to a frame they do again
to all that are predicted from it."""


@dataclass(frozen=True)
class Group:
    """What is fitted."""

    target: np.ndarray
    """(g, 3, h, w) all frames, Y'CbCr of 8 bits in [0, 16], chroma repeated."""
    order: tuple[Role, ...]
    """The inter frames in coding order."""
    first: Planes
    """The first frame as decoded."""
    tell: Tell
    """Told of every chunk of steps."""
    seed: int

    @property
    def size(self) -> tuple[int, int]:
        """(h, w)."""
        return self.target.shape[2], self.target.shape[3]

    @property
    def chain(self) -> bool:
        """Whether frames follow from earlier ones only, inter frames among them."""
        order = self.order
        return len(order) > 1 and all(max(r.first, r.second) < r.place for r in order)


@dataclass(frozen=True)
class Fitted:
    """How far the fit of a group is. Steps change bank and servo in place."""

    state: TrainState
    bank: Bank
    """Latents of all frames."""
    servo: Servo

    def copied(self) -> "Fitted":
        """One that goes on by itself."""
        return Fitted(self.state, copy.deepcopy(self.bank), copy.deepcopy(self.servo))


def rounded(fitted: Fitted, group: Group) -> InterModel:
    """The networks in integers, judged on a few frames."""
    state, bank, size = fitted.state, fitted.bank, group.size
    n = len(bank)
    some = sorted({round(i) for i in np.linspace(0, n - 1, min(n, 6)).tolist()})
    price = prices(state.aux)

    def cost(networks: InterNetworks) -> float:
        total = 0.0
        for i in some:
            scene = bank.scene(i, networks)
            _, mse, bits = hard_frame(scene, state.aux, jnp.int32(i), size)
            total += float(bits) + _DRIFT * price[i] * float(mse)
        return total * n / len(some)

    return best_inter_model(state.scene.networks, cost)


def one_by_one(
    fitted: Fitted, group: Group, model: InterModel, finish: int
) -> tuple[list[CodedFrame], dict[int, Planes]]:
    """Frames and their decoded pictures by place, each after ``finish`` steps of its latents."""
    state, bank, servo = fitted.state, fitted.bank, fitted.servo
    order, target, size = group.order, group.target, group.size
    paint, frames, begun = painter("auto"), list[CodedFrame](), list[InterScene]()
    planes = {0: group.first}
    references = {0: reference(group.first, 8)}
    pictures = state.aux.pictures.at[0].set(as_floats(group.first))
    aux = dataclasses.replace(state.aux, pictures=pictures)

    def between(now: TrainState) -> TrainState:
        role = order[len(frames)]
        bank.keep(len(frames), now)
        coded = coded_frame(model, role, _cheaper(begun, now, len(frames), size))
        both = (references[role.first], references[role.second])
        planes[role.place] = paint(model, coded.frame, both, 8, True)
        references[role.place] = reference(planes[role.place], 8)
        error = float(shown_error(planes[role.place], target[role.place]))
        servo.told(len(frames), error, coded.bits)
        frames.append(coded)
        picture = as_floats(planes[role.place])
        pictures = now.aux.pictures.at[role.place].set(picture)
        aux = dataclasses.replace(now.aux, pictures=pictures)
        return prepared(min(len(frames), len(order) - 1), dataclasses.replace(now, aux=aux))

    def prepared(frame: int, now: TrainState) -> TrainState:
        """With a frame's latents, those that cannot be coded clipped already."""
        now = bank.loaded(frame, now)
        scene = reachable(coded_frame(model, order[frame], now.scene), now.scene)
        begun[:] = [scene]
        return dataclasses.replace(now, scene=scene)

    def batches(at: int, count: int) -> Array:
        return jnp.full((count,), at // finish, jnp.int32)

    steps = finish * len(order)
    tx, key = optimizer(steps, finish), jax.random.fold_in(state.key, state.step)
    late = TrainState.start(bank.scene(0, inter_networks_of(model)), tx, key, aux)
    late = prepared(0, late)
    stage = Stage(steps, partial(loss_of, steps, finish, size), batches)
    fit(late, (stage,), tx, chunk=finish, between=between, on_chunk=group.tell)
    return frames, planes


def _cheaper(
    begun: list[InterScene], now: TrainState, frame: int, size: tuple[int, int]
) -> InterScene:
    """The scene that costs least: as it is, or as its finish began."""
    price = prices(now.aux)[frame]

    def cost(scene: InterScene) -> float:
        _, mse, bits = hard_frame(scene, now.aux, jnp.int32(frame), size)
        return float(bits) + price * float(mse)

    return min((now.scene, *begun), key=cost)
