"""The first frame of a group: the picture codec's fit, for Y'CbCr that is judged in RGB."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, PRNGKeyArray

from lumefield.codecs.neural._base import LEARNED_VIDEO, base_model
from lumefield.codecs.neural._group import Intra
from lumefield.codecs.neural._latents import code_latents
from lumefield.codecs.neural._model import MAX_LATENT, ImageModel, Widths
from lumefield.codecs.overfit._chroma import colour_error
from lumefield.codecs.overfit._integers import best_model, networks_of
from lumefield.codecs.overfit._noise import again, annealed
from lumefield.codecs.overfit._refine import Costs, refined
from lumefield.codecs.overfit._soap import scaled_soap
from lumefield.fields.latent import (
    Networks,
    latent_rate,
    level_sizes,
    noisy,
    synthesise,
    upsample,
)
from lumefield.fit import Chunk, Stage, TrainState, fit

LEVELS, CONTEXT, SYNTHESIS = 7, 12, 32
_LEVEL_GAIN = 1.45
_RATES = (0.18, 1.5e-2)
"""First learning rates of the finest latents and of the networks."""
_THRIFT = (2.0, 0.4)
_FINISH, _AGAIN = 0.05, 0.85
"""Of the latents under the integer networks: learning rate, as a share of the first; share of the
fit whose noise it begins with."""
REFINING = 500
"""Steps that take about as long as refining the networks."""
_TRIAL = 200
"""Steps of :func:`tried_intra`."""
_B2 = 0.97
"""Decay of the second moments of latents: gradients of latents change fast as noise is redrawn."""


@struct.dataclass
class IntraScene:
    """Latents, finest first, and networks."""

    latents: tuple[Array, ...]
    networks: Any


def intra_weight(frames: int) -> float:
    """How much the squared error of a first frame counts, given how many are in its group.

    What stands still in a group is as good as it is there: 7 instead of 2 for 32 frames takes a
    tenth off the bits of all at the same PSNR (10 is level with 5).
    """
    return 1 + 0.2 * min(frames - 1, 32)


def fit_intra(
    target: np.ndarray, lambda_: float, steps: int, finish: int, tell: "Tell", seed: int = 0
) -> Intra:
    """Networks and latents of a frame.

    Args:
        target: (3, h, w) Y'CbCr in [0, 16], chroma repeated.
        lambda_: Squared error worth a bit per pixel, over :func:`intra_weight`.
        steps: Steps with all moving.
        finish: Steps of the latents under the integer networks.
        tell: Told of every chunk of steps.
        seed: Of the noise.
    """
    size = (target.shape[1], target.shape[2])
    widths = Widths(LEVELS, CONTEXT, SYNTHESIS, 3)
    base = base_model(LEARNED_VIDEO, widths)
    aux = (jnp.asarray(target), jnp.float32(math.log(lambda_)))
    latents = tuple(jnp.zeros(s, jnp.float32) for s in level_sizes(*size, LEVELS))
    scene = IntraScene(latents, networks_of(base))
    scene = _fitted(scene, aux, steps, _RATES, False, tell, seed)

    def latents_of(networks: Networks) -> float:
        return float(_measured_bits(IntraScene(scene.latents, networks)))

    def distortion(networks: Networks) -> float:
        mse = float(_measured_mse(IntraScene(scene.latents, networks), aux[0]))
        return mse * size[0] * size[1] / lambda_

    def cost(networks: Networks) -> float:
        return latents_of(networks) + distortion(networks)

    model: ImageModel = best_model(scene.networks, base, cost)
    model = refined(model, base, Costs(latents_of, distortion), tell.refining)
    scene = IntraScene(scene.latents, networks_of(model))
    scene = _fitted(scene, aux, finish, (_RATES[0] * _FINISH, 0.0), True, tell, seed + 1)
    whole = [np.rint(np.asarray(y)).astype(np.int32) for y in scene.latents]
    return Intra(model, code_latents(model, whole), LEARNED_VIDEO)


def tried_intra(target: np.ndarray, lambda_: float, seed: int = 0) -> tuple[float, float]:
    """Squared error in RGB and bits of a frame after a short fit: about what it will take.

    Args:
        target: As of :func:`fit_intra`.
        lambda_: Squared error worth a bit per pixel.
        seed: Of the noise.
    """
    base = base_model(LEARNED_VIDEO, Widths(LEVELS, CONTEXT, SYNTHESIS, 3))
    sizes = level_sizes(target.shape[1], target.shape[2], LEVELS)
    scene = IntraScene(tuple(jnp.zeros(s, jnp.float32) for s in sizes), networks_of(base))
    aux = (jnp.asarray(target), jnp.float32(math.log(lambda_)))
    scene = _fitted(scene, aux, _TRIAL, _RATES, False, Tell(_TRIAL, None), seed)
    return float(_measured_mse(scene, aux[0])), float(_measured_bits(scene))


class Tell:
    """Counts steps for a progress display."""

    def __init__(self, total: int, show: Any) -> None:  # noqa: ANN401
        self.total, self.done, self._show = total, 0.0, show
        self._psnr = 0.0

    def __call__(self, _: TrainState, chunk: Chunk) -> bool:
        """After a chunk of steps."""
        self._psnr = -10 * math.log10(max(float(chunk.metrics["mse"].mean()), 1e-12))
        self._add(len(chunk.metrics["loss"]))
        return True

    def refining(self, share: float) -> None:
        """After a share of the refinement of the networks of a first frame."""
        self._add(share * REFINING)

    def _add(self, steps: float) -> None:
        self.done += steps
        if self._show:
            self._show(round(self.done), self.total, self._psnr)


def _fitted(
    scene: IntraScene,
    aux: Any,  # noqa: ANN401
    steps: int,
    first: tuple[float, float],
    late: bool,
    tell: Tell,
    seed: int,
) -> IntraScene:
    def rates(step: Array) -> IntraScene:
        fall = 0.5 + 0.5 * jnp.cos(jnp.pi * step.astype(jnp.float32) / steps)
        each = tuple(first[0] * _LEVEL_GAIN**i * fall for i in range(LEVELS))
        return IntraScene(each, first[1] * fall)

    tx = scaled_soap(rates, b2=_B2)
    state = TrainState.start(scene, tx, jax.random.key(seed), aux)
    stage = Stage(steps, partial(_loss, steps, late), lambda _, count: jnp.zeros((count,)))
    chunk = max(5, min(50, steps // 10))
    return fit(state, (stage,), tx, chunk=chunk, after_step=_within, on_chunk=tell).scene


def _within(
    scene: IntraScene,
    aux: Any,  # noqa: ANN401
    _grads: IntraScene,
    _key: PRNGKeyArray,
    _step: Array,
) -> tuple[IntraScene, Any]:
    latents = tuple(jnp.clip(y, -MAX_LATENT, MAX_LATENT) for y in scene.latents)
    return IntraScene(latents, scene.networks), aux


def _loss(
    steps: int,
    late: bool,
    scene: IntraScene,
    aux: tuple[Array, Array],
    batch: Any,  # noqa: ANN401
    key: PRNGKeyArray,
    step: Array,
) -> tuple[Array, tuple[Any, dict[str, Array]]]:
    share = (step / steps).astype(jnp.float32)
    share = again(share, _AGAIN) if late else share
    noise = annealed(share)
    keys = jax.random.split(key, len(scene.latents))
    latents = tuple(noisy(k, y, *noise) for k, y in zip(keys, scene.latents, strict=True))
    bits, _ = latent_rate(scene.networks.context, latents)
    z = synthesise(scene.networks.synthesis, upsample(latents, scene.networks.filters))
    mse = colour_error(z, aux[0])
    thrift = _THRIFT[0] * jnp.maximum(1 - share / _THRIFT[1], 0.0)
    pixels = z.shape[1] * z.shape[2]
    loss = bits / pixels + mse * jnp.exp(-aux[1] - thrift)
    return loss, (aux, {"mse": mse, "bits": bits})


@jax.jit
def _measured_mse(scene: IntraScene, target: Array) -> Array:
    latents = tuple(jnp.round(y) for y in scene.latents)
    z = synthesise(scene.networks.synthesis, upsample(latents, scene.networks.filters))
    return colour_error(z, target)


@jax.jit
def _measured_bits(scene: IntraScene) -> Array:
    return latent_rate(scene.networks.context, tuple(jnp.round(y) for y in scene.latents))[0]
