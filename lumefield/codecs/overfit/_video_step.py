"""A step of the fit of a group: what an inter frame costs, how it moves, and as it is decoded.

Latents are one frame's, networks all frames'; references stand still.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from lumefield.codecs.neural._decoders import Planes
from lumefield.codecs.neural._inter_model import LEVELS
from lumefield.codecs.neural._motion import PAD
from lumefield.codecs.overfit._chroma import colour_error, halved
from lumefield.codecs.overfit._noise import again, annealed
from lumefield.codecs.overfit._soap import scaled_soap
from lumefield.codecs.overfit._video_model import (
    InterNetworks,
    InterScene,
    References,
    decoded,
    motion_planes,
    predicted,
    rates,
)
from lumefield.codecs.overfit._video_start import as_floats
from lumefield.fields.latent import noisy

_THRIFT = (2.0, 0.2)
"""Log of how much more bits of the residual cost at first, and until which share of the fit:
networks must have learned to pass predictions on before residuals mend what they do wrong."""
_LEVEL_GAIN = 1.3
_RATES = (0.1, 0.06)
"""First learning rates of finest residual latents and of motion latents."""
_NETWORK_RATE = 5e-3
_AGAIN = 0.4
"""Share of the fit whose noise a frame's finish begins with: that of its end costs 7 % of bits."""
_B2 = 0.9
"""Decay of the second moments of latents, which are some visits old: 0.99 costs a fifth of the
bits, 0.8 is worse by 2 % again."""


def optimizer(steps: int, period: int = 0) -> Any:  # noqa: ANN401
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


def shown_error(planes: Planes, target: np.ndarray) -> Array:
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


def loss_of(
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


def prices(aux: References) -> list[float]:
    """Bits that squared error 1 of each inter frame is worth."""
    pixels = math.prod(aux.target.shape[-2:])
    each = np.asarray(aux.weight, np.float64) * pixels * math.exp(-float(aux.log_lambda))
    return each.tolist()


@partial(jax.jit, static_argnums=3)
def hard_frame(
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
