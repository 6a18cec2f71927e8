"""What a scene's file holds beside its symbols: units, predictions and scales of all channels.

Letters: a *channel* is one number of every Gaussian, a *group* is a few channels that share a
model. The first channel is the *class* c, an importance from 0 (most) to 15: steps double with it.
Values are integers in *units* of their group, a power of 2^(1/8); a Gaussian's *step* is
2^shift units, where the shift follows from its class, opacity and sizes, all decoded before.

    prediction = rshift(sum_k near_k n_k + sum_j inner_j d_j + 2^10 offset, 10)
    value      = prediction + q 2^shift

n: values of the four neighbours, nearest first; d: how two earlier channels of the same Gaussian
differ from the mean of these neighbours. q has a Laplace distribution (``neural._laplace``) whose
row is looked up by its expected size, see :func:`sizes_bin`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.neural._bits import BitReader, BitWriter
from lumefield.errors import FormatError

Ints = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]
NEAR, INNER = 4, 2
FRACTION = 10
"""Fractional bits of the weights of a prediction."""
SPREAD_FRACTION = 6
"""Fractional bits of the weights of an expected size."""
MOST_SHIFT = 15
MOST_CLASS = 15
LIMIT = 1 << 23
"""Values are clipped to this size."""
SLOPES = 5
"""Inputs of a shift: class, opacity logit, and three sizes in octaves."""
_SLOPE = 32.0
BINS = (1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 45, 64, 91, 128, 181, 256, 362, 512, 724, 1024)
"""Expected sizes in sixteenths of a step at which another row of the table begins."""
_LOG2E = 1.4426950408889634
_EIGHTHS = (
    *(1.0, 1.0905077326652577, 1.189207115002721, 1.2968395546510096),
    *(1.4142135623730951, 1.5422108254079407, 1.681792830507429, 1.8340080864093424),
)
"""2^(k / 8)."""


@dataclass(frozen=True)
class Group:
    """Channels that share a model."""

    name: str
    first: int
    """First channel."""
    stop: int
    """One past the last."""
    inner: tuple[tuple[int, int], ...]
    """For each channel the two earlier ones it is predicted from; itself where there is none."""


def groups_of(degree: int) -> tuple[Group, ...]:
    """The groups of a scene, in coding order; 9 + 3 (degree + 1)^2 - 1 channels in all.

    0 class; 1 logit; 2-4 log scales; 5-7 turns; 8 grey; 9, 10 colour; then for each band of
    harmonics the grey of every order, and both colours of every order.
    """
    found = [
        Group("class", 0, 1, ((0, 0),)),
        Group("opacity", 1, 2, ((1, 1),)),
        Group("long", 2, 3, ((1, 2),)),
        Group("middle", 3, 4, ((2, 1),)),
        Group("short", 4, 5, ((3, 2),)),
        Group("turn", 5, 8, ((5, 5), (5, 6), (6, 5))),
        Group("grey", 8, 9, ((8, 8),)),
        Group("colour", 9, 11, ((8, 9), (8, 9))),
    ]
    at = 11
    for band in range(1, degree + 1):
        n = 2 * band + 1
        inner = tuple((at + m - 1 if m else 8, 8) for m in range(n))
        found.append(Group(f"grey {band}", at, at + n, inner))
        both = tuple(
            (at + m, at + n + 2 * m - 2 + c if m else 9 + c) for m in range(n) for c in (0, 1)
        )
        found.append(Group(f"colour {band}", at + n, at + 3 * n, both))
        at += 3 * n
    return tuple(found)


@dataclass
class GroupModel:
    """Integers of one group."""

    unit: int = 0
    """log2 of the unit, in eighths."""
    slopes: tuple[int, ...] = (0,) * (SLOPES + 1)
    """Of the shift, in 1/32, and its constant."""
    near: tuple[int, ...] = (0,) * NEAR
    inner: tuple[int, ...] = (0,) * INNER
    offset: int = 0
    spread: tuple[int, ...] = (0, 0, 0, 0)
    """Of the expected size: of the step, of a unit, of the neighbours' spread, of the d_j."""
    scales: tuple[int, ...] = (30,) * (len(BINS) + 1)
    """Scale of the Laplace distribution in every bin."""

    def size(self) -> float:
        """The unit."""
        return power(self.unit)

    def shift(self, facts: Floats) -> Ints:
        """Shifts of Gaussians.

        Args:
            facts: (5, n) class, logit, log2 of the three sizes.
        """
        return np.clip(linear(self.slopes, facts), 0, MOST_SHIFT)


@dataclass
class SceneModel:
    """Everything but symbols."""

    degree: int
    groups: tuple[GroupModel, ...]
    finer: tuple[int, ...]
    """Slopes of the number of bits that a position has below its cell, and its constant."""


def power(eighths: int) -> float:
    """2^(eighths / 8), the same bits everywhere."""
    return _EIGHTHS[eighths % 8] * 2.0 ** (eighths // 8)


def linear(slopes: tuple[int, ...], facts: Floats) -> Ints:
    """Slopes times facts plus constant, rounded; one product after another, so that it is exact."""
    total = np.full(facts.shape[1], slopes[SLOPES] / _SLOPE)
    for slope, fact in zip(slopes[:SLOPES], facts, strict=True):
        total = total + (slope / _SLOPE) * fact
    return np.floor(np.clip(total, -99.0, 99.0) + 0.5).astype(np.int64)


def facts_of(values: Ints, models: tuple[GroupModel, ...]) -> Floats:
    """(5, n) class, logit and log2 of the sizes, of (n, >= 5) decoded integers."""
    v = values[:, :5].astype(np.float64)
    logs = [v[:, k] * models[k].size() * _LOG2E for k in (2, 3, 4)]
    return np.stack([v[:, 0], v[:, 1] * models[1].size(), *logs])


def rounded_shift(value: Ints, bits: int) -> Ints:
    """Divided by 2^bits, halves up."""
    return value + (1 << (bits - 1)) >> bits


def predicted(model: GroupModel, near: Ints, inner: Ints) -> Ints:
    """Predictions from (4, n) neighbours and (2, n) differences, all within +-2^24."""
    total = np.full(near.shape[1], model.offset << FRACTION, np.int64)
    for weight, value in zip((*model.near, *model.inner), (*near, *inner), strict=True):
        total += weight * value
    return np.clip(rounded_shift(total, FRACTION), -LIMIT, LIMIT)


def sizes_bin(model: GroupModel, near: Ints, inner: Ints, shift: Ints) -> Ints:
    """Bin of the expected |q|: from the neighbours' spread and the size of the differences."""
    mean = near.sum(0) >> 2
    spread = np.abs(near - mean).sum(0) >> 2
    size = np.abs(inner).sum(0) >> 1
    a, b, c, d = model.spread
    total = (a << shift) + b + c * spread + d * size
    sixteenths = total >> (SPREAD_FRACTION - 4 + shift)
    return np.searchsorted(np.array(BINS), sixteenths, side="right")


_WIDTHS = {"unit": 8, "slopes": 12, "weights": 13, "offset": 25, "spread": 12}


def write_model(writer: BitWriter, model: SceneModel) -> None:
    """Append all numbers of a model."""
    for slope in model.finer:
        writer.put(slope + (1 << 11), _WIDTHS["slopes"])
    for group in model.groups:
        writer.put(group.unit + 128, _WIDTHS["unit"])
        for slope in group.slopes:
            writer.put(slope + (1 << 11), _WIDTHS["slopes"])
        for weight in (*group.near, *group.inner):
            writer.put(weight + (1 << 12), _WIDTHS["weights"])
        writer.put(group.offset + (1 << 24), _WIDTHS["offset"])
        for weight in group.spread:
            writer.put(weight, _WIDTHS["spread"])
        writer.put_golomb(np.diff(np.array(group.scales), prepend=30), 1)


def read_model(reader: BitReader, degree: int) -> SceneModel:
    """Read what :func:`write_model` wrote.

    Raises:
        FormatError: If the bits end before, or hold a scale that no encoder writes.
    """

    def slopes() -> tuple[int, ...]:
        return tuple(reader.take(_WIDTHS["slopes"]) - (1 << 11) for _ in range(SLOPES + 1))

    finer, groups = slopes(), list[GroupModel]()
    for _ in groups_of(degree):
        unit, shifts = reader.take(_WIDTHS["unit"]) - 128, slopes()
        weights = [reader.take(_WIDTHS["weights"]) - (1 << 12) for _ in range(NEAR + INNER)]
        offset = reader.take(_WIDTHS["offset"]) - (1 << 24)
        spread = tuple(reader.take(_WIDTHS["spread"]) for _ in range(4))
        scales = 30 + np.cumsum(reader.take_golomb(len(BINS) + 1, 1))
        if scales.min() < 0 or scales.max() > 63:
            raise FormatError("a scale of the scene's model is not from 0 to 63; it is damaged")
        near, inner = tuple(weights[:NEAR]), tuple(weights[NEAR:])
        groups.append(GroupModel(unit, shifts, near, inner, offset, spread, tuple(scales.tolist())))
    return SceneModel(degree, tuple(groups), finer)
