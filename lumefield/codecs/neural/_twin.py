"""The decoder in plain NumPy, int64 throughout: slow, obvious, the meaning of the format.

Every other decoder (XLA, native) gives exactly these latents and these pixels.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.neural._context import (
    canvas,
    coarse_inputs,
    coarser_levels,
    exact,
    near_inputs,
    predict,
    rshift,
)
from lumefield.codecs.neural._levels import Level, places
from lumefield.codecs.neural._model import (
    FULL_BITS,
    MAX_HIDDEN,
    MAX_LATENT,
    MAX_RESIDUAL,
    MAX_UPSAMPLED,
    MAX_VALUE,
    ImageModel,
)
from lumefield.codecs.neural._rans import Decoder

Ints = NDArray[np.integer[Any]]
Planes = tuple[NDArray[np.unsignedinteger[Any]], ...]
ONE = 256
"""Value of a latent of 1 where nothing else is said."""


def decode_latents(
    model: ImageModel,
    levels: tuple[Level, ...],
    coded: tuple[bool, ...],
    lanes: int,
    decoder: Decoder,
) -> list[NDArray[np.int8]]:
    """Latents of all levels, finest first; levels that are not coded are zero.

    Args:
        model: Parameters; only those of the context network are used.
        levels: Sizes, finest first.
        coded: Which levels are in the stream.
        lanes: Coder lanes.
        decoder: The stream; read as far as the latents reach.
    """
    found = [np.zeros((level.rows, level.columns), np.int8) for level in levels]
    for i in reversed(range(len(levels))):
        if coded[i]:
            found[i] = _decode_level(model, levels[i], found, i, lanes, decoder)
    return found


def _decode_level(
    model: ImageModel,
    level: Level,
    found: list[NDArray[np.int8]],
    i: int,
    lanes: int,
    decoder: Decoder,
) -> NDArray[np.int8]:
    padded = canvas(found[i])
    coarse, coarser = coarser_levels(found, i)
    for step in range(level.steps):
        where = places(level, step, 1)
        (slot,) = np.nonzero(where.active[0])
        row, column = where.row[0, slot], where.column[0, slot]
        x = np.concatenate(
            [near_inputs(padded, row, column), coarse_inputs(coarse, coarser, row, column)]
        )
        guess = predict(model, x, i)
        for part in range(0, level.slots, lanes):
            mine = (slot >= part) & (slot < part + lanes)
            if mine.any():
                index = decoder.symbols(guess.row[mine], slot[mine] - part)
                value = np.clip(guess.centre[mine] + index - MAX_LATENT, -MAX_LATENT, MAX_LATENT)
                padded[row[mine] + 2, column[mine] + 2] = value
    return padded[2:, 2:-2].astype(np.int8)


def upsample(
    latents: list[NDArray[np.int8]], filters: NDArray[np.int32], gain: int = ONE
) -> NDArray[np.int64]:
    """(L, H, W) all levels at the size of the finest, level 0 first; 8 fractional bits.

    Args:
        latents: The pyramid, finest first.
        filters: (L - 1, 4) taps; see :func:`_doubled`.
        gain: Value of a latent of 1.
    """
    stack = latents[-1][None].astype(np.int64) * gain
    for i in range(len(latents) - 2, -1, -1):
        h, w = latents[i].shape
        taps = filters[i].astype(np.int64)
        stack = _doubled(_doubled(stack, taps, 2)[:, :, :w], taps, 1)[:, :h]
        stack = np.concatenate([latents[i][None].astype(np.int64) * gain, stack])
    return stack


def _doubled(v: NDArray[np.int64], taps: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
    """Twice as long along an axis: symmetric filter of 8 taps in two phases, edges repeated."""
    n = v.shape[axis]
    at = [np.take(v, np.clip(np.arange(n) + k, 0, n - 1), axis) for k in (-2, -1, 0, 1, 2)]
    even = sum(t * a for t, a in zip(taps, at[:4], strict=True))
    odd = sum(t * a for t, a in zip(taps[::-1], at[1:], strict=True))
    shape = list(v.shape)
    shape[axis] = 2 * n
    out = np.stack([even, odd], axis + 1).reshape(shape)
    return np.clip(rshift(_within_int32(out), 10), -MAX_UPSAMPLED, MAX_UPSAMPLED)


def synthesise(
    model: ImageModel, latents: list[NDArray[np.int8]], bits: int, *, subsampled: bool
) -> Planes:
    """Planes of the picture, one per channel, uint8 or uint16 with ``bits`` used bits.

    Args:
        model: Parameters.
        latents: The pyramid, finest first.
        bits: 8 ... 16.
        subsampled: Whether channels 1 and 2 are chroma of half the size (4:2:0).
    """
    return painted(model, upsample(latents, model.u), bits, subsampled=subsampled)


def painted(model: ImageModel, stack: NDArray[np.int64], bits: int, *, subsampled: bool) -> Planes:
    """The planes that the synthesis makes of a stack of inputs, as :func:`synthesise`."""
    size = stack.shape[1:]
    v = np.clip(stack, -MAX_VALUE, MAX_VALUE).reshape(len(stack), -1)
    h = rshift(exact(model.X1, v), 10) + rshift(model.c1.astype(np.int64), 2)[:, None]
    h = np.clip(h, 0, MAX_HIDDEN)
    z = rshift(exact(model.X2, h), 8) + rshift(exact(model.Y, v), 8) + model.c2[:, None]
    z = np.clip(z, -MAX_VALUE, MAX_VALUE).reshape(-1, *size)
    z = np.maximum(_residual(z, model.G[0], model.g[0]), 0)
    z = _residual(z, model.G[1], model.g[1])
    return tuple(
        _rounded(_halved(plane) if subsampled and c in (1, 2) else plane, bits)
        for c, plane in enumerate(z)
    )


def _residual(
    z: NDArray[np.int64], kernel: NDArray[np.int32], bias: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Add a 3x3 convolution, edges repeated."""
    e = np.clip(rshift(z, 2), -MAX_RESIDUAL, MAX_RESIDUAL)
    padded = np.pad(e, ((0, 0), (1, 1), (1, 1)), "edge")
    _, h, w = z.shape
    total = np.zeros_like(z)
    for dr in range(3):
        for dc in range(3):
            taps = kernel[:, :, dr, dc].astype(np.int64)
            total += np.tensordot(taps, padded[:, dr : dr + h, dc : dc + w], 1)
    changed = z + rshift(_within_int32(total), 8) + bias.astype(np.int64)[:, None, None]
    return np.clip(changed, -MAX_VALUE, MAX_VALUE)


def _halved(z: NDArray[np.int64]) -> NDArray[np.int64]:
    """Means of 2x2, edges repeated."""
    h, w = z.shape
    even = np.pad(z, ((0, h % 2), (0, w % 2)), "edge")
    return rshift(even[::2, ::2] + even[::2, 1::2] + even[1::2, ::2] + even[1::2, 1::2], 2)


def _rounded(z: NDArray[np.int64], bits: int) -> NDArray[np.unsignedinteger[Any]]:
    white = (1 << bits) - 1
    scaled = _within_int32(np.clip(z, 0, 1 << FULL_BITS) * white)
    pixel = np.clip(rshift(scaled, FULL_BITS), 0, white)
    return pixel.astype(np.uint8 if bits == 8 else np.uint16)


def _within_int32(value: NDArray[np.int64]) -> NDArray[np.int64]:
    assert not value.size or np.abs(value).max() < 1 << 31, "bounds of the model are broken"
    return value
