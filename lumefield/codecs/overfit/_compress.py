"""One picture to ``.lume`` bytes: fit, round the networks, finish the latents, code, verify."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.neural._base import base_model, learned
from lumefield.codecs.neural._colour import pixels_of
from lumefield.codecs.neural._container import Picture
from lumefield.codecs.neural._image import decode_image, encode_image
from lumefield.codecs.neural._levels import levels_for
from lumefield.codecs.neural._model import ImageModel, Widths
from lumefield.codecs.neural._parameters import parameter_bits
from lumefield.codecs.overfit._image_fit import (
    Effort,
    Goal,
    finish_latents,
    fit_latents,
    measured_bits,
    measured_mse,
    start,
)
from lumefield.codecs.overfit._integers import best_model, networks_of
from lumefield.codecs.overfit._refine import Costs, refined
from lumefield.fields.latent import Networks, start_networks
from lumefield.fit import Chunk, TrainState

EFFORTS: dict[str, Effort] = {
    "fast": Effort(steps=1000, hard_steps=80, finish_steps=200),
    "standard": Effort(steps=6600, hard_steps=400, finish_steps=400, refinements=1),
    "best": Effort(
        *(20_000, 400, 400),
        context=24,
        refinements=2,
        latent_rate=0.25,
        network_rate=2.5e-2,
        thrift=(0.5, 0.3),
    ),
}
"""The one dial. Times of a 512 x 768 picture are in docs/apps_compress.md."""
CONTEXT, SYNTHESIS = 12, 32
"""Widths of the two networks as shipped."""
_PROBE = Effort(steps=200, hard_steps=20, finish_steps=0)
_REFINING = 700
"""Steps that take about as long as a refinement of the networks."""
_WORTH = 8 * 12_000
"""Bits of latents from which on a context network of twice the features is worth its bytes, and
the fit that tells them within some tenths."""
_OVERHEAD = 48 * 8
"""Bits of header, name and rounding to bytes, about."""

_MOST_LEAN, _LANDINGS = 0.08, 7
"""How far roundings may lean: about 0.15 dB or 3 % of the bits. Codings tried."""
_ROUNDS = 3
"""Of finishing, at most: more are needed where the servo has missed the goal by more than that."""


@dataclass(frozen=True)
class Compressed:
    """A coded picture."""

    data: bytes
    """The ``.lume`` file."""
    psnr: float
    """Of the decoded pixels against the given ones, dB of full range; infinite where equal."""
    bits_per_pixel: float
    lambda_: float
    """Exchange rate at the end, squared error (of full range) per bit per pixel."""
    parameter_bytes: float
    """Bytes of the networks in the file."""


Progress = Callable[[int, int, float, float], None]
"""(steps done, steps in all, PSNR, bits per pixel) of the latents as fitted so far."""


def compress_picture(
    pixels: NDArray[np.unsignedinteger],
    picture: Picture,
    *,
    goal: Goal,
    effort: Effort,
    weight: NDArray[np.float32] | None = None,
    name: str = "",
    metadata: bytes = b"",
    seed: int = 0,
    progress: Progress | None = None,
) -> Compressed:
    """Compress one picture; what is returned has been decoded and compared.

    Args:
        pixels: (H, W, C) integers in [0, 2^bits - 1]; RGB also where the picture is 4:2:0.
        picture: Size, depth and colour; goes into the header.
        goal: Lambda, PSNR, or bits of the whole file.
        effort: How long to fit.
        weight: (H, W) importance of pixels, > 0; scaled to a mean of 1. None: all the same.
        name: Name of the original file.
        metadata: JSON object, UTF-8.
        seed: Of the noise and the first networks.
        progress: Told after every chunk of steps.
    """
    rows, columns = pixels.shape[:2]
    full = float(2**picture.bits - 1)
    target = (pixels.astype(np.float32) / np.float32(full)).transpose(2, 0, 1)
    importance = np.ones((rows, columns), np.float32) if weight is None else weight
    importance = importance / importance.mean()
    told = _Teller(progress, effort)
    begin = partial(_start, target, importance, picture, goal, seed)
    state, base, identity = begin(_worthwhile(begin, goal, effort, told))

    def beside(state: TrainState) -> float:
        return _OVERHEAD + parameter_bits(_rounded(state, base), base)

    wanted = dataclasses.replace(goal, bits_beside=beside)
    state = fit_latents(state, effort, wanted, on_chunk=told)
    model = _rounded(state, base)
    for _ in range(effort.refinements):
        model = refined(model, base, _costs(state), told.refining)
    known = _OVERHEAD + parameter_bits(model, base)

    def as_rounded(_: TrainState) -> float:
        return known

    wanted = dataclasses.replace(goal, bits_beside=as_rounded)

    def encoded(latents: list[NDArray[np.int32]]) -> tuple[bytes, float]:
        data = encode_image(model, latents, picture, name=name, metadata=metadata, base=identity)
        return data, _psnr(pixels_of(decode_image(data)[0], picture), pixels, full)

    def finished(state: TrainState) -> TrainState:
        return finish_latents(state, networks_of(model), effort, wanted, on_chunk=told)

    data, psnr, exchange = _nearest(state, finished, encoded, goal)
    bits = 8 * len(data) / (rows * columns)
    return Compressed(data, psnr, bits, exchange, parameter_bits(model, base) / 8)


Begin = Callable[[int], tuple[TrainState, ImageModel, int]]


def _costs(state: TrainState) -> Costs:
    """Bits of the latents, and the distortion in bits, under given networks."""
    pixels, exchange = state.aux.weight.size, math.exp(float(state.aux.log_lambda))

    def latents(networks: Networks) -> float:
        return float(measured_bits(state.scene.replace(networks=networks)))

    def distortion(networks: Networks) -> float:
        scene = state.scene.replace(networks=networks)
        return float(measured_mse(scene, state.aux)) * pixels / exchange

    return Costs(latents, distortion)


def _rounded(state: TrainState, base: ImageModel) -> ImageModel:
    costs = _costs(state)

    def bits_of(candidate: Networks) -> float:
        return costs.latents(candidate) + costs.distortion(candidate)

    return best_model(state.scene.networks, base, bits_of)


def _start(
    target: NDArray[np.float32],
    importance: NDArray[np.float32],
    picture: Picture,
    goal: Goal,
    seed: int,
    context: int,
) -> tuple[TrainState, ImageModel, int]:
    """The state before the first step, the base of its networks, and the name of that."""
    channels, rows, columns = target.shape
    widths = Widths(levels_for(rows, columns), context, SYNTHESIS, channels)
    networks, identity = first_networks(widths, picture.subsampled, seed)
    base = base_model(identity, widths)
    base_of, is_420 = networks_of(base), picture.subsampled
    state = start(networks, target, importance, goal, base=base_of, subsampled=is_420, seed=seed)
    return state, base, identity


def _worthwhile(begin: Begin, goal: Goal, effort: Effort, told: "_Teller") -> int:
    """Features of the context network that the latents pay for, told from a short fit."""
    if effort.context <= CONTEXT:
        return effort.context
    state = fit_latents(begin(CONTEXT)[0], _PROBE, goal, on_chunk=told)
    bits = float(measured_bits(state.scene))
    return effort.context if bits > _WORTH else CONTEXT


def _nearest(
    state: TrainState,
    finished: Callable[[TrainState], TrainState],
    encoded: Callable[[list[NDArray[np.int32]]], tuple[bytes, float]],
    goal: Goal,
) -> tuple[bytes, float, float]:
    """File, PSNR and lambda after finishing; once more where the servo has missed the goal."""
    best: tuple[bytes, float, float] | None = None
    for _ in range(_ROUNDS):
        state = finished(state)
        fitted = [np.asarray(y) for y in state.scene.latents]
        data, psnr = landed(lambda lean, ys=fitted: encoded([leaning(y, lean) for y in ys]), goal)
        if best is None or abs(goal.miss(data, psnr)) < abs(goal.miss(*best[:2])):
            best = data, psnr, math.exp(float(state.aux.log_lambda))
        if abs(goal.miss(*best[:2])) <= 1:
            break
    assert best is not None
    return best


def leaning(y: NDArray[np.float32], lean: float) -> NDArray[np.int32]:
    """Latents rounded, towards zero where ``lean`` > 0: an integer is taken from 1/2 + lean on."""
    return (np.sign(y) * np.floor(np.abs(y) + np.float32(0.5 - lean))).astype(np.int32)


def landed(coded: Callable[[float], tuple[bytes, float]], goal: Goal) -> tuple[bytes, float]:
    """The file, and its PSNR, that is nearest to the goal among slightly leaning roundings.

    Size and PSNR both fall with the lean where it is small: it takes back the servo's last misses.
    """
    low, high, lean = -_MOST_LEAN, _MOST_LEAN, 0.0
    best = now = coded(lean)
    for _ in range(_LANDINGS):
        if abs(goal.miss(*best)) < 0.1:
            break
        low, high = (lean, high) if goal.miss(*now) > 0 else (low, lean)
        lean = (low + high) / 2
        now = coded(lean)
        best = min(best, now, key=lambda found: abs(goal.miss(*found)))
    return best


def first_networks(widths: Widths, subsampled: bool, seed: int) -> tuple[Networks, int]:
    """Networks to start from, and the base model that they are stored relative to."""
    if identity := learned(widths, video=subsampled):
        return networks_of(base_model(identity, widths)), identity
    networks = start_networks(
        jax.random.key(seed),
        levels=widths.levels,
        channels=widths.channels,
        context=widths.context,
        synthesis=widths.synthesis,
    )
    return networks, 0


class _Teller:
    """Counts steps for a progress display."""

    def __init__(self, progress: Progress | None, effort: Effort) -> None:
        efforts = [effort, _PROBE] if effort.context > CONTEXT else [effort]
        total = sum(e.steps + e.hard_steps + e.finish_steps for e in efforts)
        self._show, self._done = progress, 0.0
        self._total = total + effort.refinements * _REFINING
        self._reached = 0.0, 0.0

    def __call__(self, _: TrainState, chunk: Chunk) -> bool:
        """After a chunk of steps."""
        mse = float(chunk.metrics["mse"].mean())
        self._reached = -10.0 * math.log10(max(mse, 1e-12)), float(chunk.metrics["bpp"].mean())
        self._add(len(chunk.metrics["loss"]))
        return True

    def refining(self, share: float) -> None:
        """After a share of a refinement of the networks."""
        self._add(share * _REFINING)

    def _add(self, steps: float) -> None:
        self._done = min(self._done + steps, self._total)
        if self._show:
            self._show(round(self._done), self._total, *self._reached)


def _psnr(a: NDArray[np.unsignedinteger], b: NDArray[np.unsignedinteger], full: float) -> float:
    mse = float(np.square(a.astype(np.float64) - b).mean()) / full**2
    return math.inf if mse == 0 else -10.0 * math.log10(mse)
