"""What a latent is predicted from, and the prediction: NumPy, exact.

Products are taken in float64, which holds every integer below 2^53: the sum is exact in any order.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.neural._laplace import CENTRE, MEANS, SCALES
from lumefield.codecs.neural._model import MAX_HIDDEN, MAX_LATENT, NEIGHBOURS, ImageModel

Ints = NDArray[np.integer[Any]]


class Prediction(NamedTuple):
    """Distribution of latents: row of the frequency table and the integer it is centred on."""

    row: NDArray[np.int64]
    """16 s + f + 8, in [0, 1024)."""
    centre: NDArray[np.int64]
    """p; the coded symbol is latent - p."""


def rshift(value: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Divide by 2^n, rounded to the nearest integer, halves up."""
    return value + (1 << (n - 1)) >> n


def exact(weights: Ints, values: Ints) -> NDArray[np.int64]:
    """The product of two integer matrices; every sum fits int32 by the bounds of the model."""
    product = weights.astype(np.float64) @ values.astype(np.float64)
    assert not product.size or np.abs(product).max() < 1 << 31, "bounds of the model are broken"
    return product.astype(np.int64)


def canvas(level: Ints) -> NDArray[np.int64]:
    """A level with two rows of zeros above it and two columns on either side."""
    return np.pad(level.astype(np.int64), ((2, 0), (2, 2)))


def ringed(level: NDArray[Any]) -> NDArray[Any]:
    """A level with zeros around it, as :func:`coarse_inputs` wants it."""
    return np.pad(level, 1)


def near_inputs(padded: NDArray[np.int64], row: Ints, column: Ints) -> NDArray[np.int64]:
    """(12, *n) causal neighbours of the latents at ``row``, ``column`` of a :func:`canvas`."""
    return np.stack([padded[row + 2 + dr, column + 2 + dc] for dr, dc in NEIGHBOURS])


def coarse_inputs(
    coarse: NDArray[Any], coarser: NDArray[Any], row: Ints, column: Ints
) -> NDArray[Any]:
    """(5, *n) cells of the two next coarser levels.

    Args:
        coarse: The next coarser level with a ring of zeros (:func:`ringed`).
        coarser: The one after it, without.
        row: Rows of the latents.
        column: Columns.
    """
    stride = coarse.shape[1]
    at = ((row >> 1) + 1) * stride + (column >> 1) + 1
    up, aside = (2 * (row & 1) - 1) * stride, 2 * (column & 1) - 1
    flat = coarse.ravel()
    four = [flat[at], flat[at + aside], flat[at + up], flat[at + up + aside]]
    return np.stack([*four, coarser[row >> 2, column >> 2]])


def coarser_levels(levels: list[NDArray[Any]], i: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The two arrays :func:`coarse_inputs` wants for level ``i``; zeros above the coarsest.

    Args:
        levels: The pyramid, finest first; those above ``i`` are read.
        i: A level.
    """
    h, w = levels[i].shape
    sizes = ((-(-h // 2), -(-w // 2)), (-(-h // 4), -(-w // 4)))
    found = (
        levels[i + n] if i + n < len(levels) else np.zeros(size, levels[i].dtype)
        for n, size in zip((1, 2), sizes, strict=True)
    )
    coarse, coarser = found
    return ringed(coarse), coarser


def predict(model: ImageModel, x: Ints, level: int) -> Prediction:
    """The context network.

    Args:
        model: Its parameters.
        x: (K, n) inputs.
        level: Which level they are of.
    """
    a1 = exact(model.W1, x) + model.b1[level][:, None]
    h1 = np.clip(rshift(a1, 2), 0, MAX_HIDDEN)
    a2 = exact(model.W2, h1) + (model.b2.astype(np.int64) << 8)[:, None]
    h2 = np.clip(h1 + np.clip(rshift(a2, 10), 0, MAX_HIDDEN), 0, MAX_HIDDEN)
    o = rshift(exact(model.W3, h2), 8) + exact(model.V, x) + model.b3[:, None]
    place = np.clip(rshift(o[0], 6), -MAX_LATENT * MEANS, MAX_LATENT * MEANS)
    log_scale = np.clip(o[1], -(1 << 17), 1 << 17)
    scale = np.clip(rshift(5 * log_scale, 10) + CENTRE, 0, SCALES - 1)
    centre = rshift(place, 4)
    return Prediction(scale * MEANS + place - MEANS * centre + MEANS // 2, centre)
