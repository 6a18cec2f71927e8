"""Fit latents and networks to one picture: rate-distortion training of the image codec.

As in C3 (Kim et al. 2024, arXiv:2312.02753, Sec. 3): first with soft rounding and noise that are
annealed, then with hard rounding. We differ there in moving the networks alone, in a third stage
that goes on with the latents after the networks have become integers, and in a servo on lambda
that steers to a wanted PSNR or size within the one encode. Minimised is

    bits / pixels + distortion / lambda,

distortion being the weighted mean squared error of values in [0, 1].
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray

from lumefield.codecs.neural._model import MAX_BIAS, MAX_FILTER, MAX_LATENT, MAX_WEIGHT
from lumefield.codecs.overfit._chroma import rgb_of
from lumefield.codecs.overfit._noise import again, annealed
from lumefield.codecs.overfit._soap import scaled_soap
from lumefield.codecs.overfit._webp import lambda_of_size
from lumefield.fields.latent import (
    RANGE,
    ContextModel,
    Networks,
    Synthesis,
    latent_rate,
    level_sizes,
    noisy,
    synthesise,
    upsample,
)
from lumefield.fit import Chunk, Stage, TrainState, fit

_B2 = 0.97
"""Decay of the second moments of latents: gradients of latents change fast as noise is redrawn."""
_MOST_WEIGHT, _MOST_BIAS, _MOST_FILTER = (
    most / 1024 for most in (MAX_WEIGHT, MAX_BIAS, MAX_FILTER)
)
_GAIN, _MOVES = 0.7, 12
"""Share of the miss that a move of the servo takes back, and moves in a stage."""
_LAST_RATE, _AGAIN = 0.05, 0.85
"""Of the last stage: learning rate, as a share of that of the first; share of the fit whose noise
it begins with. Whole pictures lose little to rounded networks: faster and noisier (0.15 and 0.7,
which suit a crop with its coarser networks) J ends 0.2 % higher after ``fast``, 1 % after
``best``."""
_THRIFT = 1.5
"""How much more than its bits a network pays while it is fitted: finds cheaper ones of equal J."""
_STEER_FROM = 0.25
"""Share of the noisy steps before the servo begins."""


@dataclass(frozen=True)
class Effort:
    """How long and how to fit."""

    steps: int
    """Steps with noise; the later stages come on top."""
    hard_steps: int
    """Steps with hard rounding."""
    finish_steps: int
    """Steps of the latents alone after the networks have become integers."""
    context: int = 12
    """Features of the context network, at most: more predict better and take more bytes."""
    latent_rate: float = 0.18
    """First learning rate of the finest latents, in quantisation steps."""
    level_gain: float = 1.45
    """How much faster each coarser level learns: it serves four times the pixels."""
    network_rate: float = 1.5e-2
    """First learning rate of the networks."""
    hard_rate: float = 4e-4
    """Learning rate of the networks while rounding is hard; it falls to 0. The latents rest:
    straight through the rounding, those near a boundary flicker, and J rose by 16 %."""
    refinements: int = 0
    """How often every number of the rounded networks tries its neighbours."""
    thrift: tuple[float, float] = (2.0, 0.4)
    """How much higher log lambda begins, and the share of the steps over which that is taken back.

    Fine levels otherwise take up in the first steps what coarse ones say in fewer bits."""


_ContextSteps: Any = ContextModel
_SynthesisSteps: Any = Synthesis
_NetworkSteps: Any = Networks
_STEPS = _NetworkSteps(
    context=_ContextSteps(w1=16.0, b1=128.0, w2=64.0, b2=32.0, w3=8.0, linear=8.0, b3=32.0),
    filters=4.0,
    synthesis=_SynthesisSteps(
        x1=16.0, c1=32.0, x2=4.0, linear=4.0, c2=16.0, conv1=2.0, g1=16.0, conv2=2.0, g2=16.0
    ),
)
"""Usual steps of the numbers in the file, in 1/1024."""
Wanted = Literal["lambda", "psnr", "bits"]


@struct.dataclass
class Picture:
    """What the fit is told of a picture and steers by; constant but for ``log_lambda``."""

    target: Float[Array, "c h w"]
    """Values in [0, 1]."""
    weight: Float[Array, "h w"]
    """Importance of a pixel, mean 1."""
    log_lambda: Float[Array, ""]
    subsampled: bool = struct.field(pytree_node=False, default=False)
    """The networks give Y'CbCr, shown as 4:2:0 of narrow range; ``target`` is RGB all the same."""
    base: Any = None
    """:class:`Networks` that those of the file are stored relative to; None: they cost nothing."""


@struct.dataclass
class LatentImage:
    """What is fitted."""

    latents: tuple[Array, ...]
    """Levels, finest first."""
    networks: Any
    """:class:`Networks`, or one number for all of them (learning rates)."""


@dataclass(frozen=True)
class Goal:
    """Where on the rate-distortion curve to end."""

    kind: Wanted
    value: float
    """Lambda, PSNR in dB, or bits of the file."""
    bits_beside: Callable[[TrainState], float] = lambda _: 0.0
    """Bits of the file that are not latents, for a state; may be slow: it is asked rarely."""

    def miss(self, data: bytes, psnr: float) -> float:
        """How far a file is from the goal: 1 is half of what is promised (0.05 dB, 2 % of size).

        Positive where it is too large or too good.
        """
        if self.kind == "lambda":
            return 0.0
        if self.kind == "psnr":
            return (psnr - self.value) / 0.025
        return math.log(8 * len(data) / self.value) / 0.01

    def first_lambda(self, picture: np.ndarray) -> float:
        """Lambda to begin with, near the end for most pictures (c, h, w) in [0, 1].

        A wanted PSNR says it alone; for a wanted size the picture is looked at.
        """
        if self.kind == "lambda":
            return self.value
        if self.kind == "psnr":
            return 3.0 * 10 ** (-self.value / 10)
        return lambda_of_size(picture, self.value)


def start(
    networks: Networks,
    picture: np.ndarray,
    weight: np.ndarray,
    goal: Goal,
    *,
    base: Networks | None = None,
    subsampled: bool = False,
    seed: int = 0,
) -> TrainState:
    """The state before the first step: latents of zero.

    Args:
        networks: To start from.
        picture: (c, h, w) in [0, 1].
        weight: (h, w) importance of each pixel, mean 1.
        goal: What to steer to.
        base: Networks that those of the file are stored relative to; without it they cost nothing.
        subsampled: Whether the networks give Y'CbCr for 4:2:0.
        seed: Of the noise.
    """
    _, h, w = picture.shape
    levels = networks.context.b1.shape[0]
    scene = LatentImage(
        latents=tuple(jnp.zeros(size, jnp.float32) for size in level_sizes(h, w, levels)),
        networks=networks,
    )
    aux = Picture(
        target=jnp.asarray(picture, jnp.float32),
        weight=jnp.asarray(weight, jnp.float32),
        log_lambda=jnp.asarray(math.log(goal.first_lambda(picture)), jnp.float32),
        subsampled=subsampled,
        base=base,
    )
    return TrainState.start(scene, _optimizer(Effort(1, 1, 1), levels), jax.random.key(seed), aux)


def _optimizer(effort: Effort, levels: int) -> Any:  # noqa: ANN401
    """SOAP whose rates fall along a cosine over the noisy steps, again over the hard ones."""

    def rates(step: Array) -> LatentImage:
        at = step.astype(jnp.float32)
        noisy_share = jnp.minimum(at / max(effort.steps, 1), 1.0)
        hard_share = jnp.clip((at - effort.steps) / max(effort.hard_steps, 1), 0.0, 1.0)
        is_hard = step >= effort.steps
        latents = jnp.where(is_hard, 0.0, effort.latent_rate * _fall(noisy_share))
        networks = jnp.where(
            is_hard,
            effort.hard_rate * _fall(hard_share),
            effort.network_rate * _fall(noisy_share),
        )
        each = tuple(latents * effort.level_gain**i for i in range(levels))
        return LatentImage(latents=each, networks=networks)

    return scaled_soap(rates, b2=_B2)


def _fall(share: Array) -> Array:
    return 0.5 + 0.5 * jnp.cos(jnp.pi * share)


def distortion(scene: LatentImage, latents: tuple[Array, ...], picture: Picture) -> Array:
    """Weighted mean squared error of values in [0, 1]."""
    nets = scene.networks
    z = synthesise(nets.synthesis, upsample(latents, nets.filters))
    z = rgb_of(z) if picture.subsampled else z / RANGE
    return (jnp.square(z - picture.target) * picture.weight[None]).mean()


def _loss(
    stage: Literal["noisy", "hard", "finish"],
    effort: Effort,
    scene: LatentImage,
    picture: Picture,
    batch: Any,  # noqa: ANN401
    key: PRNGKeyArray,
    step: Array,
) -> tuple[Array, tuple[Picture, dict[str, Array]]]:
    share = (step / effort.steps).astype(jnp.float32)
    if stage == "hard":
        latents = _whole(scene)
    else:
        noise = annealed(again(share, _AGAIN) if stage == "finish" else share)
        keys = jax.random.split(key, len(scene.latents))
        latents = tuple(noisy(k, y, *noise) for k, y in zip(keys, scene.latents, strict=True))
    bits, _ = latent_rate(scene.networks.context, latents)
    mse = distortion(scene, latents, picture)
    pixels = picture.weight.size
    thrift = effort.thrift[0] * jnp.maximum(1.0 - share / effort.thrift[1], 0.0)
    base = picture.base
    beside = 0.0 if base is None else _THRIFT * network_bits(scene.networks, base)
    loss = (bits + beside) / pixels + mse * jnp.exp(-picture.log_lambda - thrift)
    return loss, (picture, {"mse": mse, "bpp": bits / pixels, "log_lambda": picture.log_lambda})


def network_bits(networks: Networks, base: Networks) -> Array:
    """About the bits of the networks in the file, but for a constant; differentiable.

    A number d steps away from its base costs log2(1 + |d|): what is not worth its bits stays.
    """

    def bits(value: Array, start: Array, step: float) -> Array:
        return jnp.log2(1.0 + jnp.abs(value - start) * jnp.float32(1024.0 / step)).sum()

    return jnp.stack(jax.tree.leaves(jax.tree.map(bits, networks, base, _STEPS))).sum()


def _within(
    scene: LatentImage, picture: Picture, _grads: LatentImage, _key: PRNGKeyArray, _step: Array
) -> tuple[LatentImage, Picture]:
    """Networks and latents within the bounds that the integers of the file have."""

    def clipped(value: Array) -> Array:
        most = _MOST_WEIGHT if value.ndim > 1 else _MOST_BIAS
        return jnp.clip(value, -most, most)

    old = scene.networks
    nets = jax.tree.map(clipped, old)
    context = nets.context.replace(b1=jnp.clip(old.context.b1, -_MOST_BIAS, _MOST_BIAS))
    filters = jnp.clip(old.filters, -_MOST_FILTER, _MOST_FILTER)
    nets = nets.replace(context=context, filters=filters)
    latents = tuple(jnp.clip(y, -MAX_LATENT, MAX_LATENT) for y in scene.latents)
    return LatentImage(latents=latents, networks=nets), picture


def _nothing(first: int, count: int) -> Array:
    """The picture is in ``aux``; a step needs no data of its own."""
    return jnp.zeros((count,))


def fit_latents(
    state: TrainState,
    effort: Effort,
    goal: Goal,
    *,
    on_chunk: Callable[[TrainState, Chunk], bool] | None = None,
) -> TrainState:
    """The first two stages: latents and networks under noise, then networks under hard rounding."""
    stages = (
        Stage(effort.steps, partial(_loss, "noisy", effort), _nothing),
        Stage(effort.steps + effort.hard_steps, partial(_loss, "hard", effort), _nothing),
    )
    servo = _Servo(goal, effort)
    return fit(
        state,
        stages,
        _optimizer(effort, len(state.scene.latents)),
        chunk=_chunk(effort.steps),
        after_step=_within,
        between=servo,
        on_chunk=on_chunk,
    )


def finish_latents(
    state: TrainState,
    networks: Networks,
    effort: Effort,
    goal: Goal,
    *,
    on_chunk: Callable[[TrainState, Chunk], bool] | None = None,
) -> TrainState:
    """The last stage: less noise, the latents alone, under the networks of the file."""
    last = dataclasses.replace(
        effort,
        steps=effort.finish_steps,
        thrift=(0.0, 1.0),
        latent_rate=_LAST_RATE * effort.latent_rate,
        network_rate=0.0,
    )
    tx = _optimizer(last, len(state.scene.latents))
    scene = LatentImage(latents=state.scene.latents, networks=networks)
    new = TrainState.start(scene, tx, jax.random.fold_in(state.key, state.step), state.aux)
    stages = (Stage(last.steps, partial(_loss, "finish", last), _nothing),)
    servo, chunk = _Servo(goal, last, begin=0.0), _chunk(last.steps)
    return fit(new, stages, tx, chunk=chunk, after_step=_within, between=servo, on_chunk=on_chunk)


def _chunk(steps: int) -> int:
    """Steps of one jitted call: about sixty calls in a stage."""
    return max(5, min(100, steps // 60))


@jax.jit
def measured_mse(scene: LatentImage, picture: Picture) -> Array:
    """Distortion under the latents as they will be decoded: rounded."""
    return distortion(scene, _whole(scene), picture)


@jax.jit
def measured_bits(scene: LatentImage) -> Array:
    """Bits of the rounded latents."""
    return latent_rate(scene.networks.context, _whole(scene))[0]


def _whole(scene: LatentImage) -> tuple[Array, ...]:
    return tuple(jnp.round(y) for y in scene.latents)


class _Servo:
    """Moves lambda towards the wanted PSNR or size, measured on rounded latents.

    Latents follow lambda only after a while, so it moves seldom, then by nearly all of the miss.
    Slopes are those of usual photos: 1 dB is 0.3 in log lambda, a factor e of bits 1.3.
    """

    def __init__(self, goal: Goal, effort: Effort, begin: float = _STEER_FROM) -> None:
        self._goal = goal
        self._period = max(1, (effort.steps + effort.hard_steps) // _MOVES)
        self._next = begin * effort.steps if goal.kind != "lambda" else math.inf

    def __call__(self, state: TrainState) -> TrainState:
        if int(state.step) < self._next:
            return state
        self._next = int(state.step) + self._period
        mse = float(measured_mse(state.scene, state.aux))
        bits = float(measured_bits(state.scene))
        if self._goal.kind == "psnr":
            miss = 0.3 * (-10.0 * math.log10(max(mse, 1e-12)) - self._goal.value)
        else:
            wanted = self._goal.value - self._goal.bits_beside(state)
            miss = 1.3 * math.log(max(bits, 1.0) / max(wanted, 0.02 * self._goal.value))
        move = _GAIN * max(-2.0, min(2.0, miss))
        picture = state.aux.replace(log_lambda=state.aux.log_lambda + jnp.float32(move))
        return dataclasses.replace(state, aux=picture)
