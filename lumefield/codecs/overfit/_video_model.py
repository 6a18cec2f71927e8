"""An inter frame in floats: motion, prediction, residual; what ``neural/_inter`` does, for fitting.

A frame is predicted from two decoded pictures: latents of motion give a displacement for each
pixel and reference, and a blend; then the picture decoder of ``fields.latent`` gets the prediction
as three more channels of its stack, so that it adds a residual, sharpens and smooths in one.
Networks are shared by all inter frames of a group; only latents are a frame's own.

Letters: f frames, l levels of the residual, c = 3 channels (Y'CbCr), h w rows and columns.
"""

import dataclasses
import functools
import typing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from lumefield import native
from lumefield.codecs.neural._motion import (
    CELL_BITS,
    KINDS,
    MOTION_LEVELS,
    PAD,
    PHASES,
    TAPS,
)
from lumefield.codecs.overfit._chroma import doubling
from lumefield.fields.latent import (
    RANGE,
    ContextModel,
    Synthesis,
    latent_rate,
    synthesise,
    upsample,
)


@typing.no_type_check
@struct.dataclass
class InterNetworks:
    """What all inter frames of a group share."""

    context: ContextModel
    """Biases ``b1``: residual levels, then for each kind of motion its levels."""
    energy: Float[Array, " a"]
    """Added to ``b1`` times how much is in a level, see :func:`energies`."""
    filters: Float[Array, "m 4"]
    synthesis: Synthesis
    gains: Float[Array, " layers"]
    """Value of a residual latent of 1, by layer of the hierarchy."""
    units: Float[Array, "kinds levels"]
    """Value of a motion latent of 1, in sixteenths of a pixel; of the blend in 1/256."""


@typing.no_type_check
@struct.dataclass
class InterScene:
    """What is fitted while a frame is looked at."""

    residual: tuple[Array, ...]
    """(h, w) of each level, finest first."""
    motion: tuple[Array, ...]
    """(5, h, w) of each level."""
    networks: InterNetworks


@typing.no_type_check
@struct.dataclass
class References:
    """What inter frames are fitted to and predicted from."""

    target: Float[Array, "f c h w"]
    """Values in [0, 16]."""
    pictures: Float[Array, "g c hp wp"]
    """Decoded pictures with a repeated edge of 16, in [0, 16]; by place in the group."""
    first: Array
    """(f,) places of the references."""
    second: Array
    ratio: Array
    """(f,) second displacement / first."""
    layer: Array
    weight: Array
    """(f,) how much the squared error of a frame counts."""
    log_lambda: Array


def padded(pictures: Array) -> Array:
    """Pictures (..., h, w) with their edge repeated 16 times."""
    width = [(0, 0)] * (pictures.ndim - 2) + [(PAD, PAD)] * 2
    return jnp.pad(pictures, width, mode="edge")


@functools.cache
def _taps() -> tuple[np.ndarray, np.ndarray]:
    """Filters of all phases and their slopes by a sixteenth (central differences)."""
    taps = TAPS.astype(np.float32) / 128
    before = np.roll(taps, 1, 0)
    before[0] = np.append(taps[-1, 1:], 0)  # phase -1 is phase 15 of one cell before
    after = np.roll(taps, -1, 0)
    after[-1] = np.append(np.float32(0), taps[0, :-1])
    return taps, (after - before) / 2


@jax.custom_vjp
def warp(picture: Array, flow: Array) -> Array:
    """(c, h, w) picture at displaced places; not differentiable in the picture.

    Args:
        picture: (c, h + 32, w + 32), see :func:`padded`.
        flow: (2, h, w) x, y in sixteenths of a pixel, rounded here.
    """
    return _warp(picture, flow)[0]


def _warp(picture: Array, flow: Array) -> tuple[Array, Array, Array]:
    c, (h, w) = picture.shape[0], flow.shape[1:]
    out = (jax.ShapeDtypeStruct((c, h, w), picture.dtype),) * 3
    taps, slopes = (jnp.asarray(t) for t in _taps())
    if native.load() and jax.default_backend() == "cpu":
        threads = np.int64(native.threads())
        return tuple(native.call("VideoWarp", out, picture, flow, taps, slopes, n_threads=threads))
    return _warp_xla(picture, flow, taps, slopes)


def _warp_xla(
    picture: Array, flow: Array, taps: Array, slopes: Array
) -> tuple[Array, Array, Array]:
    """The same in XLA: 64 gathers of all pixels."""
    from lumefield.codecs.neural._motion import REACH

    h, w = flow.shape[1:]
    moved = jnp.floor(flow + 0.5).astype(jnp.int32)
    places, phases = list[Array](), list[Array]()
    for axis, size in ((0, w), (1, h)):
        line = jnp.arange(size, dtype=jnp.int32)
        at = PHASES * (line[None, :] if axis == 0 else line[:, None]) + moved[axis]
        at = jnp.clip(at, -REACH * PHASES, (size - 1 + REACH) * PHASES)
        places.append((at >> 4) + PAD - 3)
        phases.append(at & 15)
    (column, row), (px, py) = places, phases
    zeros = jnp.zeros((picture.shape[0], h, w), picture.dtype)
    value, by_x, by_y = zeros, zeros, zeros
    for i in range(8):
        for j in range(8):
            cells = picture[:, row + i, column + j]
            value = value + (taps[py, i] * taps[px, j])[None] * cells
            by_x = by_x + (taps[py, i] * slopes[px, j])[None] * cells
            by_y = by_y + (slopes[py, i] * taps[px, j])[None] * cells
    return value, by_x, by_y


def _warp_fwd(picture: Array, flow: Array) -> tuple[Array, Any]:
    value, by_x, by_y = _warp(picture, flow)
    return value, (by_x, by_y, picture)


def _warp_bwd(saved: Any, g: Array) -> tuple[Array, Array]:  # noqa: ANN401
    by_x, by_y, picture = saved
    return jnp.zeros_like(picture), jnp.stack([(g * by_x).sum(0), (g * by_y).sum(0)])


warp.defvjp(_warp_fwd, _warp_bwd)


@functools.cache
def _spread(n: int, size: int, doublings: int) -> np.ndarray:
    """(size, n) matrix of that many doublings, each cut to what the picture's axis needs."""
    matrix = np.eye(n, dtype=np.float32)
    for k in reversed(range(doublings)):
        matrix = doubling(len(matrix), -(-size // 2**k)) @ matrix
    return matrix


def motion_planes(motion: tuple[Array, ...], units: Array, size: tuple[int, int]) -> Array:
    """(5, h, w) sum of the levels at the size of the picture, in sixteenths or 1/256."""
    h, w = size
    total = jnp.zeros((len(KINDS), h, w), jnp.float32)
    for i, level in enumerate(motion):
        down, across = (
            jnp.asarray(_spread(n, full, CELL_BITS + i))
            for n, full in zip(level.shape[1:], size, strict=True)
        )
        scaled = level * units[jnp.asarray(KINDS), i][:, None, None]
        total = total + jnp.einsum("yh,chw,xw->cyx", down, scaled, across)
    return total


def predicted(planes: Array, ratio: Array, first: Array, second: Array) -> Array:
    """(c, h, w) blend of the two displaced references, given :func:`motion_planes`."""
    share = jnp.clip(0.5 + planes[4:] / 256, 0.0, 1.0)
    a = warp(first, planes[:2])
    b = warp(second, ratio * planes[:2] + planes[2:4])
    return share * a + (1 - share) * b


def decoded(
    networks: InterNetworks, residual: tuple[Array, ...], gain: Array, prediction: Array
) -> Array:
    """(c, h, w) the frame, in [0, 16] (not clipped)."""
    stack = upsample(tuple(y * gain for y in residual), networks.filters)
    return synthesise(networks.synthesis, jnp.concatenate([stack, prediction - RANGE / 2]))


def energy(levels: tuple[Array, ...]) -> Array:
    """How much is in some levels, 1 to 15: 15 + 2 log2 of the mean size (``_group.energy_of``)."""
    total = sum((jnp.abs(jnp.round(y)).sum() for y in levels), start=jnp.zeros(()))
    mean = total / sum(y.size for y in levels)
    found = jnp.clip(jnp.round(15 + 2 * jnp.log2(jnp.maximum(mean, 1e-9))), 1, 15)
    return jax.lax.stop_gradient(found)


def rates(
    networks: InterNetworks,
    residual: tuple[Array, ...],
    motion: tuple[Array, ...],
    hard: tuple[tuple[Array, ...], tuple[Array, ...]],
) -> tuple[Array, Array]:
    """Bits of the residual and of the motion of a frame.

    Args:
        networks: The networks.
        residual: Levels, or noisy stand-ins.
        motion: Likewise.
        hard: Both as they are, for the energies.
    """
    context = networks.context
    n = len(residual)

    def tuned(first: int, energies: Array) -> ContextModel:
        b1 = context.b1[first : first + len(energies)]
        b1 = b1 + (energies[:, None] - 8) / 4 * networks.energy[None]
        return dataclasses.replace(context, b1=b1)

    own = jnp.stack([energy((y,)) for y in hard[0]])
    bits = latent_rate(tuned(0, own), residual)[0]
    moved = jnp.zeros((), jnp.float32)
    for plane, kind in enumerate(KINDS):
        whole = jnp.full((MOTION_LEVELS,), energy(tuple(y[plane] for y in hard[1])))
        net = tuned(n + kind * MOTION_LEVELS, whole)
        moved = moved + latent_rate(net, tuple(y[plane] for y in motion))[0]
    return bits, moved
