"""The inter frames of a group: fitted together, then finished one by one as they will be decoded.

A step looks at one frame: its latents and the shared networks move, its references stand still.
References are at first the frames themselves, later what has been decoded (rounded) of them the
last time they were looked at, so networks see what a decoder will. At the end the networks become
integers, and each frame in coding order is finished under them, predicted from the exact pictures
of those before.

Where frames follow from earlier ones only, errors add up along the chain, and frames at its end
teach the networks not to trust predictions. If what is decoded of a reference is itself predicted
from the frames themselves (one link of the chain, as good for all frames), they never learn what
chains do, which is to smooth again at every link. Neither is always better, so a chain goes both
ways for the last third of the fit, and the one that costs less after a short finish goes on.

Cool-chic's video codec (Leguay et al. 2024) fits networks of each frame's own, one frame after the
other. Sharing them makes them nearly free and lets all frames teach them.
"""

import dataclasses
import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from lumefield.codecs.neural._decoders import Planes, decoders
from lumefield.codecs.neural._group import CodedFrame, Intra
from lumefield.codecs.neural._inter_model import InterModel, inter_base, inter_widths
from lumefield.codecs.neural._order import Role
from lumefield.codecs.overfit._image_fit import Goal
from lumefield.codecs.overfit._video_bank import Bank
from lumefield.codecs.overfit._video_finish import Fitted, Group, one_by_one, rounded
from lumefield.codecs.overfit._video_integers import inter_bits
from lumefield.codecs.overfit._video_intra import Tell
from lumefield.codecs.overfit._video_match import start_motion
from lumefield.codecs.overfit._video_model import References, padded
from lumefield.codecs.overfit._video_servo import Servo
from lumefield.codecs.overfit._video_start import SYNTHESIS, first_networks, start_references
from lumefield.codecs.overfit._video_step import hard_frame, loss_of, optimizer, prices, shown_error
from lumefield.fit import Stage, TrainState, fit

_OPEN = 0.4
"""Share of the fit before references are what is decoded; until then they are the frames."""
_FORK = 0.65
"""Share of the fit of a chain after which it goes both ways. Against x265 at its PSNR (carphone,
lambda 2e-4): 0.5 +18 %, 0.65 +11 %, 0.8 +39 %, one link to the end +32 %. At 1e-3: 0.65 +6 %, one
link -4 %; at 3e-3: -17 and -13 %."""
_VISIT = 2
"""Steps in a row at one frame."""
_STEER, _GAIN = (0.5, 0.9), 0.3
"""Shares of the fit between which lambda is steered; share of the miss that a move takes back."""
_ROUNDS, _CLOSE, _ROUND_GAIN = 6, 0.01, 1.5
"""Of finishing, at most; miss in log lambda that is near enough (0.03 dB, 0.8 % of size); share of
it that the next round takes back."""
_SHORTER = 4
"""By how much later rounds are: they begin with latents finished for nearly that lambda. And the
finish by which ways are compared."""
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
    first = decoders("auto").planes(intra.model, intra.coded.latents, 8, True)
    if not order:
        return InterFit(inter_base(inter_widths(SYNTHESIS)), [], {0: first})
    group = Group(target, order, first, tell, seed)
    base = (float(shown_error(first, target[0])), sum(intra.coded.bits) + _OVERHEAD)
    begun = _begun(group, lambda_, passes, Servo(goal, base, len(order)))
    fitted, model = fit_together(begun, group, passes, _short(finish))
    best: tuple[float, list[CodedFrame], dict[int, Planes]] | None = None
    for number in range(_ROUNDS):
        steps = _short(finish) if number else finish
        frames, planes = one_by_one(fitted, group, model, steps)
        miss = fitted.servo.miss()
        if best is None or abs(miss) < best[0]:
            best = abs(miss), frames, planes
        if best[0] <= _CLOSE:
            break
        aux = fitted.servo.steered(fitted.state.aux, _ROUND_GAIN)
        state = dataclasses.replace(fitted.state, aux=aux)
        fitted = dataclasses.replace(fitted, state=state)
    assert best is not None
    return InterFit(model, *best[1:])


def _begun(group: Group, lambda_: float, passes: int, servo: Servo) -> Fitted:
    """Before the first step: frames move as blocks of them do, and have no residual."""
    networks = first_networks(lambda_, group.seed)
    motion = start_motion(group.target[:, 0], group.order, networks.units)
    bank = Bank(motion, group.size)
    state = TrainState.start(
        bank.scene(0, networks),
        optimizer(passes * len(group.order)),
        jax.random.key(group.seed),
        start_references(group.target, group.order, group.first, lambda_),
    )
    return Fitted(state, bank, servo)


def fit_together(
    fitted: Fitted, group: Group, passes: int, short: int
) -> tuple[Fitted, InterModel]:
    """All of the fit but the finish, and the networks in integers."""
    steps = passes * len(group.order)
    if not group.chain:
        return _rounded_at(_together(fitted, group, steps, steps), group)
    originals = fitted.state.aux
    fitted = _together(fitted, group, steps, _fork(steps), originals)
    price, found = prices(fitted.state.aux), list[tuple[float, Fitted, InterModel]]()
    for seen in (originals, None):
        way, model = _rounded_at(_together(fitted.copied(), group, steps, steps, seen), group)
        trial = way.copied()
        one_by_one(trial, group, model, short)
        found.append((trial.servo.cost(price), way, model))
    return min(found, key=lambda one: one[0])[1:]


def both_ways(inter: int, passes: int, finish: int) -> int:
    """Steps that a chain of so many inter frames takes more than others."""
    steps = passes * inter
    return steps - _fork(steps) + 2 * _short(finish) * inter if inter > 1 else 0


def _fork(steps: int) -> int:
    return max(0, math.ceil(_FORK * steps / _VISIT) - 1) * _VISIT


def _short(finish: int) -> int:
    return max(1, finish // _SHORTER)


def _rounded_at(fitted: Fitted, group: Group) -> tuple[Fitted, InterModel]:
    model = rounded(fitted, group)
    fitted.servo.told_networks(inter_bits(model))
    return fitted, model


def _together(
    fitted: Fitted, group: Group, steps: int, until: int, seen: References | None = None
) -> Fitted:
    """Steps at all frames and the networks, with noise.

    Args:
        fitted: What is fitted, from the step where it is.
        group: Its frames.
        steps: Of the whole fit.
        until: Last step.
        seen: What frames are predicted from when they are decoded as references of others; what
            is decoded of their own references if not given.
    """
    order, size, bank, servo = group.order, group.size, fitted.bank, fitted.servo
    n = len(order)
    visits = -(-steps // _VISIT)
    turns = np.concatenate(
        [np.random.default_rng((group.seed, k)).permutation(n) for k in range(visits // n + 2)]
    )

    def batches(first: int, count: int) -> Array:
        return jnp.full((count,), turns[first // _VISIT], jnp.int32)

    def between(now: TrainState) -> TrainState:
        visit = -(-int(now.step) // _VISIT)
        frame = int(turns[visit - 1])
        bank.keep(frame, now)
        if visit >= _OPEN * visits:
            from_ = now.aux if seen is None else seen
            picture, mse, bits = hard_frame(now.scene, from_, jnp.int32(frame), size)
            servo.told(frame, float(mse), float(bits))
            place = order[frame].place
            pictures = now.aux.pictures.at[place].set(padded(picture))
            aux = dataclasses.replace(now.aux, pictures=pictures)
            if _STEER[0] * visits <= visit < _STEER[1] * visits and visit % (2 * n) == 0:
                aux = servo.steered(aux, _GAIN)
            now = dataclasses.replace(now, aux=aux)
        return bank.loaded(int(turns[visit]), now)

    stage = Stage(until, partial(loss_of, steps, 0, size), batches)
    state = bank.loaded(int(turns[int(fitted.state.step) // _VISIT]), fitted.state)
    state = fit(
        state, (stage,), optimizer(steps), chunk=_VISIT, between=between, on_chunk=group.tell
    )
    return dataclasses.replace(fitted, state=state)
