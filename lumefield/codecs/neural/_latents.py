"""Latents to symbols: what the encoder does, and what latents cost.

The encoder knows all latents, so the context network runs over whole levels at once. Only a latent
that its distribution cannot reach must be clipped, and then the contexts after it change: that
level is done again step by step.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.neural._context import (
    Prediction,
    canvas,
    coarse_inputs,
    coarser_levels,
    near_inputs,
    predict,
)
from lumefield.codecs.neural._laplace import MEANS, WIDTH, cumulative, reach
from lumefield.codecs.neural._levels import Level, level_sizes, places
from lumefield.codecs.neural._model import MAX_LATENT, ImageModel
from lumefield.codecs.neural._rans import symbol_bits

_BLOCK = 1 << 16
"""Latents done at once: bounds the memory."""


class Symbols(NamedTuple):
    """Symbols of a level in the order of the picture: frequency tables' numbers."""

    starts: NDArray[np.int32]
    sizes: NDArray[np.int32]


class Coded(NamedTuple):
    """Latents as they will be decoded."""

    latents: list[NDArray[np.int8]]
    """Finest first; clipped to what can be coded."""
    symbols: list[Symbols | None]
    """(rows, columns) arrays per level; None where all latents are zero."""
    bits: list[float]
    """Ideal bits of each level."""


def checked_latents(latents: list[NDArray[Any]], levels: int) -> list[NDArray[np.int8]]:
    """Latents as int8, after checking that they are a pyramid of ``levels`` levels.

    Raises:
        ValueError: If sizes do not fit, or a latent is not in [-127, 127].
    """
    if len(latents) != levels:
        raise ValueError(f"{len(latents)} levels of latents, expected the model's {levels}")
    rows, columns = latents[0].shape
    sizes = level_sizes(rows, columns, levels)
    for i, (level, size) in enumerate(zip(latents, sizes, strict=True)):
        if level.shape != size:
            raise ValueError(f"latents of level {i} have shape {level.shape}, expected {size}")
        if level.size and max(int(level.max()), -int(level.min())) > MAX_LATENT:
            raise ValueError(f"latents of level {i} leave [-127, 127]; clip them first")
    return [level.astype(np.int8) for level in latents]


def code_latents(model: ImageModel, latents: list[NDArray[Any]]) -> Coded:
    """Symbols of all latents under a model, coarsest level first; unreachable latents are clipped.

    Raises:
        ValueError: If the latents do not fit the model.
    """
    found = checked_latents(latents, model.widths.levels)
    symbols: list[Symbols | None] = [None] * len(found)
    bits = [0.0] * len(found)
    for i in reversed(range(len(found))):
        if not found[i].any():
            continue
        coded = _level(model, found, i)
        if coded is None:
            found[i] = _clipped(model, found, i)
            if not found[i].any():
                continue
            coded = _level(model, found, i)
        assert coded is not None, "a clipped level can be coded"
        symbols[i], bits[i] = coded, symbol_bits(coded.sizes)
    return Coded(found, symbols, bits)


def _level(model: ImageModel, found: list[NDArray[np.int8]], i: int) -> Symbols | None:
    """Symbols of a level, or None if a latent is out of reach."""
    y = found[i]
    padded, (coarse, coarser) = canvas(y), coarser_levels(found, i)
    result = Symbols(np.empty(y.shape, np.int32), np.empty(y.shape, np.int32))
    for rows in _blocks(*y.shape):
        row, column = np.arange(rows.start, rows.stop)[:, None], np.arange(y.shape[1])[None]
        x = np.concatenate(
            [near_inputs(padded, row, column), coarse_inputs(coarse, coarser, row, column)]
        )
        guess = predict(model, x.reshape(len(x), -1), i)
        value = y[rows].ravel()
        if (_reachable(guess, value) != value).any():
            return None
        at = guess.row * WIDTH + value - guess.centre + MAX_LATENT
        table = cumulative().ravel()
        start = table[at].reshape(y[rows].shape)
        result.starts[rows] = start
        result.sizes[rows] = table[at + 1].reshape(start.shape) - start
    return result


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    count = max(1, _BLOCK // columns)
    return (slice(first, min(first + count, rows)) for first in range(0, rows, count))


def _reachable(guess: Prediction, value: NDArray[Any]) -> NDArray[np.int64]:
    radius = reach()[guess.row // MEANS]
    return np.clip(value.astype(np.int64), guess.centre - radius, guess.centre + radius)


def _clipped(model: ImageModel, found: list[NDArray[np.int8]], i: int) -> NDArray[np.int8]:
    """A level whose latents are clipped to what can be coded, in the order of decoding."""
    level = Level(*found[i].shape, slots=found[i].shape[0])
    padded, (coarse, coarser) = canvas(found[i]), coarser_levels(found, i)
    for step in range(level.steps):
        where = places(level, step, 1)
        (slot,) = np.nonzero(where.active[0])
        row, column = where.row[0, slot], where.column[0, slot]
        x = np.concatenate(
            [near_inputs(padded, row, column), coarse_inputs(coarse, coarser, row, column)]
        )
        value = padded[row + 2, column + 2]
        padded[row + 2, column + 2] = _reachable(predict(model, x, i), value)
    return padded[2:, 2:-2].astype(np.int8)
