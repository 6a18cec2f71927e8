"""A picture as a pyramid of integer latents: context model, upsampling and synthesis, in floats.

The codec family of COOL-CHIC (Ladune et al. 2023, arXiv:2212.05458) and C3 (Kim et al. 2024,
arXiv:2312.02753): latents at resolutions 1, 1/2, 1/4 ... are upsampled, stacked and turned into
pixels by a tiny network; a second tiny network predicts the distribution of every latent from those
already decoded. Both networks and the latents are fitted to one picture. This is the float twin of
the exact integer decoder in ``lumefield.codecs.neural``, used while fitting: nothing is rounded but
the latents, and the clips of the integer form are kept. We differ in contexts that see the two next
coarser levels (as the IFCE of Cool-chic 5.0, but without weights per level), and in a bias per
level. It is also the readable twin of the fast routes in ``_rate``, ``_upsample`` and
``_synthesis``, which training uses.

Letters: l levels, m = l - 1 steps between them, h w rows and columns of a level, k context inputs,
a width of the context network, s width of the synthesis, c channels of the picture. Level 0 is the
finest. Latents are in units of their quantisation step. Synthesis values have full range 16.
"""

import typing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray

NEIGHBOURS = tuple(
    sorted(
        [(dr, dc) for dr in (-2, -1) for dc in range(-2, 3)] + [(0, -2), (0, -1)],
        key=lambda o: (o[0] ** 2 + o[1] ** 2, o),
    )
)
"""Causal neighbours (row, column offset) that a latent is predicted from, nearest first."""
INPUTS = len(NEIGHBOURS) + 5
"""Inputs of the context network: the neighbours, four of the next coarser level, one of two up."""
RANGE = 16.0
"""Synthesis value of full white."""
MAX_HIDDEN = 64.0
"""Hidden activations are clipped here, as in the integer form."""
MIN_LOG_SCALE, MAX_LOG_SCALE = -6.0, 6.6
"""Bounds of the log2 of the Laplace scale."""
MIN_PROBABILITY = 2.0**-16
REACH, LEAST_REACH, MOST_REACH = 11.0, 9.0, 126.0
"""How far from its location a file can say a latent, about: in scales, and at least and most."""
MAX_LATENT = 127


@typing.no_type_check
@struct.dataclass
class ContextModel:
    """Parameters of the network that predicts a latent's distribution."""

    w1: Float[Array, "a k"]
    b1: Float[Array, "l a"]
    w2: Float[Array, "a a"]
    b2: Float[Array, " a"]
    w3: Float[Array, "2 a"]
    linear: Float[Array, "2 k"]
    b3: Float[Array, " 2"]


@typing.no_type_check
@struct.dataclass
class Synthesis:
    """Parameters of the network that turns upsampled latents into pixels."""

    x1: Float[Array, "s l"]
    c1: Float[Array, " s"]
    x2: Float[Array, "c s"]
    linear: Float[Array, "c l"]
    c2: Float[Array, " c"]
    conv1: Float[Array, "c c 3 3"]
    g1: Float[Array, " c"]
    conv2: Float[Array, "c c 3 3"]
    g2: Float[Array, " c"]


@typing.no_type_check
@struct.dataclass
class Networks:
    """All that is decoded before the latents: small, and coded at a few bits per number."""

    context: ContextModel
    filters: Float[Array, "m 4"]
    synthesis: Synthesis


def level_sizes(rows: int, columns: int, levels: int) -> tuple[tuple[int, int], ...]:
    """(rows, columns) of each level of a picture, finest first."""
    return tuple((-(-rows // 2**i), -(-columns // 2**i)) for i in range(levels))


def check_pyramid(latents: tuple[Array, ...]) -> None:
    """Say what does not fit in a pyramid of levels.

    Raises:
        ValueError: If a level is not half of the one before it, rounded up.
    """
    if not latents:
        raise ValueError("no latents, expected one array per level, finest first")
    for i, y in enumerate(latents):
        if y.ndim != 2:
            raise ValueError(f"latents[{i}] has shape {y.shape}, expected (rows, columns)")
        expected = _size(latents[i - 1], 1) if i else y.shape
        if y.shape != expected:
            raise ValueError(
                f"latents[{i}] has shape {y.shape}, expected {expected}: half of "
                f"{latents[i - 1].shape}, rounded up; give the finest level first"
            )


def start_networks(
    key: PRNGKeyArray, *, levels: int = 7, channels: int = 3, context: int = 12, synthesis: int = 16
) -> Networks:
    """Networks before fitting: a Laplace of scale 1/2 for every latent, bilinear, grey."""
    k1, k2, k3, k4, k5 = jax.random.split(key, 5)

    def draw(key: PRNGKeyArray, out: int, inputs: int, gain: float = 1.0) -> Array:
        return gain * jax.random.normal(key, (out, inputs), jnp.float32) / np.sqrt(inputs)

    def zeros(*shape: int) -> Array:
        return jnp.zeros(shape, jnp.float32)

    return Networks(
        context=ContextModel(
            w1=draw(k1, context, INPUTS),
            b1=zeros(levels, context),
            w2=draw(k2, context, context, 0.5),
            b2=zeros(context),
            w3=draw(k3, 2, context, 0.1),
            linear=zeros(2, INPUTS),
            b3=jnp.asarray([0.0, -1.0], jnp.float32),
        ),
        filters=jnp.tile(jnp.asarray([0.0, 0.25, 0.75, 0.0], jnp.float32), (levels - 1, 1)),
        synthesis=Synthesis(
            x1=draw(k4, synthesis, levels),
            c1=zeros(synthesis),
            x2=draw(k5, channels, synthesis, 0.3),
            linear=jnp.full((channels, levels), 0.25, jnp.float32),
            c2=jnp.full((channels,), RANGE / 2, jnp.float32),
            conv1=zeros(channels, channels, 3, 3),
            g1=zeros(channels),
            conv2=zeros(channels, channels, 3, 3),
            g2=zeros(channels),
        ),
    )


def contexts(
    y: Float[Array, "h w"], coarse: Float[Array, "h2 w2"], coarser: Float[Array, "h4 w4"]
) -> Float[Array, "k h w"]:
    """What the context network sees of every latent of a level.

    Args:
        y: The level.
        coarse: The next coarser level (zeros above the coarsest).
        coarser: The one after it (zeros where there is none).
    """
    h, w = y.shape
    padded = jnp.pad(y, ((2, 0), (2, 2)))
    near = [padded[2 + dr : 2 + dr + h, 2 + dc : 2 + dc + w] for dr, dc in NEIGHBOURS]
    across = _sideways(coarse, 1)[:, :w]
    below, diagonal = _sideways(coarse, 0)[:h], _sideways(across, 0)[:h]
    wide = _doubled(coarse)
    far = _doubled(_doubled(coarser))
    return jnp.stack(
        [
            *near,
            wide[:h, :w],
            _double(across, 0)[:h],
            _double(below, 1)[:, :w],
            diagonal,
            far[:h, :w],
        ]
    )


def _double(x: Array, axis: int) -> Array:
    return jnp.repeat(x, 2, axis)


def _doubled(x: Array) -> Array:
    return _double(_double(x, 0), 1)


def _sideways(x: Array, axis: int) -> Array:
    """Twice as long along an axis: x[n - 1] at 2n and x[n + 1] at 2n + 1, zero outside."""
    n = x.shape[axis]
    pad = [(0, 0)] * x.ndim
    pad[axis] = (1, 1)
    padded = jnp.pad(x, pad)
    before = jax.lax.slice_in_dim(padded, 0, n, axis=axis)
    after = jax.lax.slice_in_dim(padded, 2, n + 2, axis=axis)
    shape = list(x.shape)
    shape[axis] = 2 * n
    return jnp.stack([before, after], axis + 1).reshape(shape)


def distribution(
    net: ContextModel, x: Float[Array, "k *n"], level: int
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """Location and log2 of the scale of the Laplace distributions of latents, from contexts."""
    flat = x.reshape(x.shape[0], -1)
    h1 = jnp.clip(net.w1 @ flat + net.b1[level][:, None], 0.0, MAX_HIDDEN)
    h2 = jnp.clip(h1 + jnp.maximum(net.w2 @ h1 + net.b2[:, None], 0.0), 0.0, MAX_HIDDEN)
    out = net.w3 @ h2 + net.linear @ flat + net.b3[:, None]
    location = jnp.clip(out[0], -MAX_LATENT, MAX_LATENT)
    log_scale = jnp.clip(out[1], MIN_LOG_SCALE, MAX_LOG_SCALE)
    return location.reshape(x.shape[1:]), log_scale.reshape(x.shape[1:])


def laplace_bits(y: Array, location: Array, log_scale: Array) -> Array:
    """Bits of latents under Laplace distributions integrated over their quantisation cells.

    At most 16, and a bit more for each unit beyond what a file can say: a coder brings such latents
    nearer, and where that cost nothing, coarse ones drifted off in long fits (a crop lost 0.9 dB).
    """
    inverse = jnp.exp2(-log_scale)
    centre = jnp.abs(y - location)
    upper, lower = (centre + 0.5) * inverse, (centre - 0.5) * inverse

    # Mass of [lower, upper], 0 <= centre: beside the peak, or over it.
    beside = 0.5 * (jnp.exp(-jnp.maximum(lower, 0.0)) - jnp.exp(-upper))
    over = 1.0 - 0.5 * (jnp.exp(-upper) + jnp.exp(jnp.minimum(lower, 0.0)))
    mass = jnp.where(lower > 0, beside, over)
    reach = jnp.clip(REACH * jnp.exp2(log_scale), LEAST_REACH, MOST_REACH)
    return jnp.maximum(centre - reach, 0.0) - jnp.log2(jnp.maximum(mass, MIN_PROBABILITY))


def latent_bits(net: ContextModel, latents: tuple[Array, ...]) -> Float[Array, " l"]:
    """Bits of each level, in floats; latents may be noisy stand-ins of integers."""

    def level(i: int) -> Array:
        y = latents[i]
        half, quarter = (
            latents[i + n] if i + n < len(latents) else jnp.zeros(_size(y, n), y.dtype)
            for n in (1, 2)
        )
        return laplace_bits(y, *distribution(net, contexts(y, half, quarter), i)).sum()

    return jnp.stack([level(i) for i in range(len(latents))])


def _size(y: Array, halvings: int) -> tuple[int, int]:
    h, w = y.shape
    return -(-h // 2**halvings), -(-w // 2**halvings)


def upsample(latents: tuple[Array, ...], filters: Float[Array, "m 4"]) -> Float[Array, "l h w"]:
    """All levels at the size of the finest, level 0 first: a cascade of separable x2 filters."""
    stack = latents[-1][None]
    for i in range(len(latents) - 2, -1, -1):
        h, w = latents[i].shape
        wide = _up2(stack, filters[i], 2)[:, :, :w]
        stack = jnp.concatenate([latents[i][None], _up2(wide, filters[i], 1)[:, :h]])
    return stack


def _up2(x: Array, taps: Array, axis: int) -> Array:
    n = x.shape[axis]
    pad = [(0, 0)] * x.ndim
    pad[axis] = (2, 2)
    padded = jnp.pad(x, pad, mode="edge")
    at = [jax.lax.slice_in_dim(padded, k, k + n, axis=axis) for k in range(5)]
    even = taps[0] * at[0] + taps[1] * at[1] + taps[2] * at[2] + taps[3] * at[3]
    odd = taps[3] * at[1] + taps[2] * at[2] + taps[1] * at[3] + taps[0] * at[4]
    shape = list(x.shape)
    shape[axis] = 2 * n
    return jnp.stack([even, odd], axis + 1).reshape(shape)


def synthesise(net: Synthesis, stack: Float[Array, "l h w"]) -> Float[Array, "c h w"]:
    """Pixels in [0, 16] (not clipped) from upsampled latents."""
    z = pointwise(net, stack)
    z = jnp.maximum(z + _conv(z, net.conv1, net.g1), 0.0)
    return z + _conv(z, net.conv2, net.g2)


def pointwise(net: Synthesis, stack: Float[Array, "l h w"]) -> Float[Array, "c h w"]:
    """The part of :func:`synthesise` that sees one pixel at a time."""
    levels, h, w = stack.shape
    v = jnp.clip(stack, -128.0, 128.0).reshape(levels, -1)
    hidden = jnp.clip(net.x1 @ v + net.c1[:, None], 0.0, MAX_HIDDEN)
    z = net.x2 @ hidden + net.linear @ v + net.c2[:, None]
    return jnp.clip(z, -32.0, 32.0).reshape(-1, h, w)


def _conv(z: Array, kernel: Array, bias: Array) -> Array:
    padded = jnp.pad(z, ((0, 0), (1, 1), (1, 1)), mode="edge")
    out: Any = jax.lax.conv_general_dilated(
        padded[None], kernel, (1, 1), "VALID", dimension_numbers=("NCHW", "OIHW", "NCHW")
    )
    return out[0] + bias[:, None, None]
