"""The inter frames of a group: fitted together, then finished one by one as they will be decoded.

A step looks at one frame: its latents and the shared networks move, its references stand still.
References are at first the frames themselves, later what has been decoded (rounded) of them the
last time they were looked at, so networks see what a decoder will. At the end the networks become
integers, and each frame in coding order is finished under them, predicted from the exact pictures
of those before.

Where frames follow from earlier ones only, errors add up along the chain, and frames at its end
would teach the networks not to trust predictions. There what is decoded of a reference is predicted
from the frames themselves until the finish: one link of the chain, as good for all frames.

Cool-chic's video codec (Leguay et al. 2024) fits networks of each frame's own, one frame after the
other. Sharing them makes them nearly free and lets all frames teach them.
"""

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from lumefield.codecs.neural._decoders import Planes, decoders
from lumefield.codecs.neural._group import CodedFrame, Intra
from lumefield.codecs.neural._inter import painter
from lumefield.codecs.neural._inter_model import LEVELS, InterModel, inter_base, inter_widths
from lumefield.codecs.neural._motion import PAD, reference
from lumefield.codecs.neural._order import Role
from lumefield.codecs.overfit._chroma import colour_error, halved
from lumefield.codecs.overfit._image_fit import Goal
from lumefield.codecs.overfit._noise import again, annealed
from lumefield.codecs.overfit._soap import scaled_soap
from lumefield.codecs.overfit._video_bank import Bank, coded_frame, reachable
from lumefield.codecs.overfit._video_integers import (
    best_inter_model,
    inter_bits,
    inter_networks_of,
)
from lumefield.codecs.overfit._video_intra import Tell
from lumefield.codecs.overfit._video_match import start_motion
from lumefield.codecs.overfit._video_model import (
    InterNetworks,
    InterScene,
    References,
    decoded,
    motion_planes,
    padded,
    predicted,
    rates,
)
from lumefield.codecs.overfit._video_servo import Servo
from lumefield.codecs.overfit._video_start import (
    SYNTHESIS,
    as_floats,
    first_networks,
    start_references,
)
from lumefield.fields.latent import noisy
from lumefield.fit import Stage, TrainState, fit

_OPEN = 0.4
"""Share of the fit before references are what is decoded; until then they are the frames."""
_THRIFT = (2.0, 0.2)
"""Log of how much more bits of the residual cost at first, and until which share of the fit:
networks must have learned to pass predictions on before residuals mend what they do wrong."""
_LEVEL_GAIN = 1.3
_RATES = (0.1, 0.06)
"""First learning rates of finest residual latents and of motion latents."""
_NETWORK_RATE = 5e-3
_AGAIN = 0.4
"""Share of the fit whose noise a frame's finish begins with: that of its end costs 7 % of bits."""
_DRIFT = 10.0
"""How much more errors count when networks are rounded: what they do wrong to a frame they do again
to all that are predicted from it."""
_VISIT = 2
"""Steps in a row at one frame."""
_B2 = 0.9
"""Decay of the second moments of latents, which are some visits old: 0.99 costs a fifth of the
bits, 0.8 is worse by 2 % again."""
_STEER, _GAIN = (0.5, 0.9), 0.3
"""Shares of the fit between which lambda is steered; share of the miss that a move takes back."""
_ROUNDS, _CLOSE, _ROUND_GAIN = 6, 0.01, 1.5
"""Of finishing, at most; miss in log lambda that is near enough (0.03 dB, 0.8 % of size); share of
it that the next round takes back."""
_SHORTER = 4
"""By how much later rounds are: they begin with latents finished for nearly that lambda."""
_OVERHEAD = 40 * 8.0
"""Bits of a group beside latents and networks, about: chunk, energies, rounding."""


@dataclass(frozen=True)
class InterFit:
    """Fitted inter frames of a group."""

    model: InterModel
    frames: list[CodedFrame]
    planes: dict[int, Planes]
    """Decoded pictures by place, the first frame among them."""


def fit_inter(
    target: np.ndarray,
    order: tuple[Role, ...],
    intra: Intra,
    goal: Goal,
    lambda_: float,
    passes: int,
    finish: int,
    tell: Tell,
    seed: int = 0,
) -> InterFit:
    """Fit the inter frames of a group.

    Args:
        target: (g, 3, h, w) all frames of the group, Y'CbCr of 8 bits in [0, 16], chroma repeated.
        order: The inter frames in coding order.
        intra: The first frame.
        goal: What to steer to: lambda, mean PSNR of the frames in RGB, or bits of the group.
        lambda_: Squared error worth a bit per pixel, to begin with.
        passes: Times that each frame is looked at.
        finish: Steps for each frame under the integer networks.
        tell: Told of every chunk of steps.
        seed: Of noise and networks.
    """
    size = (target.shape[2], target.shape[3])
    first = decoders("auto").planes(intra.model, intra.coded.latents, 8, True)
    if not order:
        return InterFit(inter_base(inter_widths(SYNTHESIS)), [], {0: first})
    networks = first_networks(lambda_, seed)
    base = (float(_shown_error(first, target[0])), sum(intra.coded.bits) + _OVERHEAD)
    servo = Servo(goal, base, len(order))
    bank = Bank(start_motion(target[:, 0], order, networks.units), size)
    state = TrainState.start(
        bank.scene(0, networks),
        _optimizer(passes * len(order)),
        jax.random.key(seed),
        start_references(target, order, first, lambda_),
    )
    state = _together(state, bank, order, passes, size, servo, tell, seed)
    model = _rounded(state, bank, size)
    servo.told_networks(inter_bits(model))
    best: tuple[float, list[CodedFrame], dict[int, Planes]] | None = None
    for number in range(_ROUNDS):
        steps = max(1, finish // _SHORTER) if number else finish
        frames, planes = _one_by_one(state, bank, model, order, target, first, steps, servo, tell)
        if best is None or abs(servo.miss()) < best[0]:
            best = abs(servo.miss()), frames, planes
        if best[0] <= _CLOSE:
            break
        state = dataclasses.replace(state, aux=servo.steered(state.aux, _ROUND_GAIN))
    assert best is not None
    return InterFit(model, *best[1:])


def _optimizer(steps: int, period: int = 0) -> Any:  # noqa: ANN401
    """SOAP whose rates fall over all steps, or over each ``period``, then of the latents alone."""

    def rates_at(step: Array) -> Any:  # noqa: ANN401
        share = (step % period) / period if period else step / steps
        fall = 0.5 + 0.5 * jnp.cos(jnp.pi * share.astype(jnp.float32))
        one = jnp.zeros(()) if period else _NETWORK_RATE * fall
        each: dict[str, Any] = dict.fromkeys(("context", "energy", "gains", "units"), one)
        each |= {"filters": one / 3, "synthesis": 0.7 * one}
        residual = tuple(_RATES[0] * _LEVEL_GAIN**i * fall for i in range(LEVELS))
        motion: Any = _RATES[1] * fall
        return InterScene(residual, motion, InterNetworks(**each))

    return scaled_soap(rates_at, b2=_B2)


def _together(
    state: TrainState,
    bank: Bank,
    order: tuple[Role, ...],
    passes: int,
    size: tuple[int, int],
    servo: Servo,
    tell: Tell,
    seed: int,
) -> TrainState:
    """All frames and the networks, with noise."""
    n, steps = len(order), passes * len(order)
    visits = -(-steps // _VISIT)
    chain = all(max(role.first, role.second) < role.place for role in order)
    originals = state.aux
    turns = np.concatenate(
        [np.random.default_rng((seed, k)).permutation(n) for k in range(visits // n + 2)]
    )

    def batches(first: int, count: int) -> Array:
        return jnp.full((count,), turns[first // _VISIT], jnp.int32)

    def between(now: TrainState) -> TrainState:
        visit = -(-int(now.step) // _VISIT)
        frame = int(turns[visit - 1])
        bank.keep(frame, now)
        if visit >= _OPEN * visits:
            seen = originals if chain else now.aux
            picture, mse, bits = _hard_frame(now.scene, seen, jnp.int32(frame), size)
            servo.told(frame, float(mse), float(bits))
            place = order[frame].place
            pictures = now.aux.pictures.at[place].set(padded(picture))
            aux = dataclasses.replace(now.aux, pictures=pictures)
            if _STEER[0] * visits <= visit < _STEER[1] * visits and visit % (2 * n) == 0:
                aux = servo.steered(aux, _GAIN)
            now = dataclasses.replace(now, aux=aux)
        return bank.loaded(int(turns[visit]), now)

    stage = Stage(steps, partial(_loss, steps, 0, size), batches)
    first = bank.loaded(int(turns[0]), state)
    return fit(first, (stage,), _optimizer(steps), chunk=_VISIT, between=between, on_chunk=tell)


def _shown_error(planes: Planes, target: np.ndarray) -> Array:
    """Squared error in RGB of decoded planes."""
    shown = as_floats(planes)[:, PAD:-PAD, PAD:-PAD]
    return colour_error(shown, jnp.asarray(target, jnp.float32))


def _drawn(
    networks: InterNetworks,
    aux: References,
    frame: Array,
    residual: tuple[Array, ...],
    motion: tuple[Array, ...],
    size: tuple[int, int],
) -> Array:
    planes = motion_planes(motion, networks.units, size)
    first, second = aux.pictures[aux.first[frame]], aux.pictures[aux.second[frame]]
    prediction = predicted(planes, aux.ratio[frame], first, second)
    return decoded(networks, residual, networks.gains[aux.layer[frame]], prediction)


def _loss(
    steps: int,
    period: int,
    size: tuple[int, int],
    scene: InterScene,
    aux: References,
    frame: Array,
    key: PRNGKeyArray,
    step: Array,
) -> tuple[Array, tuple[References, dict[str, Array]]]:
    share = (step / steps).astype(jnp.float32)
    if period:  # of finishing, each frame anew
        share = again(((step % period) / period).astype(jnp.float32), _AGAIN)
    own = (scene.residual, scene.motion)
    keys = iter(jax.random.split(key, len(own[0]) + len(own[1])))
    noise = annealed(share)
    residual, motion = (tuple(noisy(next(keys), y, *noise) for y in levels) for levels in own)
    z = _drawn(scene.networks, aux, frame, residual, motion, size)
    mse = colour_error(z, aux.target[frame])
    bits, moved = rates(scene.networks, residual, motion, own)
    thrift = _THRIFT[0] * jnp.maximum(1 - share / _THRIFT[1], 0.0)
    pixels = size[0] * size[1]
    rate = (bits * jnp.exp(thrift) + moved) / pixels
    loss = rate + mse * aux.weight[frame] * jnp.exp(-aux.log_lambda)
    return loss, (aux, {"mse": mse, "residual": bits, "motion": moved})


@partial(jax.jit, static_argnums=3)
def _hard_frame(
    scene: InterScene, aux: References, frame: Array, size: tuple[int, int]
) -> tuple[Array, Array, Array]:
    """A frame from rounded latents as 8-bit 4:2:0, repeated; its squared error and bits."""
    residual, motion = (
        tuple(jnp.round(y) for y in levels) for levels in (scene.residual, scene.motion)
    )
    z = _drawn(scene.networks, aux, frame, residual, motion, size)
    small = halved(z[1:]).repeat(2, 1).repeat(2, 2)[:, : size[0], : size[1]]
    shown = jnp.clip(jnp.round(jnp.concatenate([z[:1], small]) * (255 / 16)), 0, 255) * (16 / 255)
    bits, moved = rates(scene.networks, residual, motion, (residual, motion))
    return shown, colour_error(shown, aux.target[frame]), bits + moved


def _rounded(state: TrainState, bank: Bank, size: tuple[int, int]) -> InterModel:
    """The networks in integers, judged on a few frames."""
    n = len(bank)
    some = sorted({round(i) for i in np.linspace(0, n - 1, min(n, 6)).tolist()})
    exchange = math.exp(float(state.aux.log_lambda))
    pixels = size[0] * size[1]

    def cost(networks: InterNetworks) -> float:
        total = 0.0
        for i in some:
            scene = bank.scene(i, networks)
            _, mse, bits = _hard_frame(scene, state.aux, jnp.int32(i), size)
            weight = _DRIFT * float(state.aux.weight[i])
            total += float(bits) + float(mse) * weight * pixels / exchange
        return total * n / len(some)

    return best_inter_model(state.scene.networks, cost)


def _one_by_one(
    state: TrainState,
    bank: Bank,
    model: InterModel,
    order: tuple[Role, ...],
    target: np.ndarray,
    first: Planes,
    finish: int,
    servo: Servo,
    tell: Tell,
) -> tuple[list[CodedFrame], dict[int, Planes]]:
    """Latents alone, frame by frame, each from the exact pictures of those before."""
    paint, frames, begun = painter("auto"), list[CodedFrame](), list[InterScene]()
    planes = {0: first}
    references = {0: reference(first, 8)}
    pictures = state.aux.pictures.at[0].set(as_floats(first))
    aux = dataclasses.replace(state.aux, pictures=pictures)

    def between(now: TrainState) -> TrainState:
        role = order[len(frames)]
        bank.keep(len(frames), now)
        coded = coded_frame(model, role, _cheaper(begun, now, len(frames), size))
        both = (references[role.first], references[role.second])
        planes[role.place] = paint(model, coded.frame, both, 8, True)
        references[role.place] = reference(planes[role.place], 8)
        error = float(_shown_error(planes[role.place], target[role.place]))
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

    steps, size = finish * len(order), (target.shape[2], target.shape[3])
    tx, key = _optimizer(steps, finish), jax.random.fold_in(state.key, state.step)
    late = TrainState.start(bank.scene(0, inter_networks_of(model)), tx, key, aux)
    late = prepared(0, late)
    stage = Stage(steps, partial(_loss, steps, finish, size), batches)
    fit(late, (stage,), tx, chunk=finish, between=between, on_chunk=tell)
    return frames, planes


def _cheaper(
    begun: list[InterScene], now: TrainState, frame: int, size: tuple[int, int]
) -> InterScene:
    """The scene that costs least: as it is, or as its finish began."""
    pixels = size[0] * size[1]
    errors = float(now.aux.weight[frame]) * pixels * math.exp(-float(now.aux.log_lambda))

    def cost(scene: InterScene) -> float:
        _, mse, bits = _hard_frame(scene, now.aux, jnp.int32(frame), size)
        return float(bits) + float(mse) * errors

    return min((now.scene, *begun), key=cost)
