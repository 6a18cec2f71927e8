"""The order in which the numbers of a scene are coded, and what is known of each before.

Gaussians lie in the order of their cells along the Morton curve, 0 ... N - 1. First comes number 0,
then for stride 2^m from the largest below N down to 1 all odd multiples of it: so every Gaussian
but the first lies between some that are known. Of the three known ones on either side, the four
whose cells are nearest are its neighbours. All Gaussians of a stride are independent of each other:
one channel after another, they are coded at once.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.neural._laplace import MEANS
from lumefield.codecs.scene._model import (
    LIMIT,
    MOST_CLASS,
    NEAR,
    Ints,
    SceneModel,
    facts_of,
    groups_of,
    predicted,
    sizes_bin,
)

Visit = Callable[[Ints, int, Ints, Ints, Ints], Ints]
"""(Gaussians, channel, prediction, shift, bin of the expected size) -> q of each."""


BLOCK = 1 << 15
"""Gaussians that are looked at together, at most."""


def blocks(count: int) -> Iterator[tuple[int, Ints]]:
    """Stride and numbers of the Gaussians that are coded together, in order."""
    if count:
        yield 0, np.zeros(1, np.int64)
    for m in reversed(range(max(count - 1, 0).bit_length())):
        found = np.arange(1 << m, count, 2 << m, dtype=np.int64)
        for first in range(0, len(found), BLOCK):
            yield 1 << m, found[first : first + BLOCK]


def neighbours(stride: int, targets: Ints, cells: Ints) -> Ints:
    """(4, n) neighbours of Gaussians, nearest first; the first is its own, before it has values.

    Args:
        stride: A power of two, or 0 for the first Gaussian.
        targets: (n,) odd multiples of it.
        cells: (N, 3) cells of all Gaussians.
    """
    left = targets - stride
    steps = np.array([-1, 1, -3, 3, -5, 5]) * stride
    found = targets + steps[:, None]
    found = np.where((found >= 0) & (found < len(cells)), found, left)
    gap = cells[found] - cells[targets]
    order = np.argsort((gap * gap).sum(2), axis=0, kind="stable")[:NEAR]
    return np.take_along_axis(found, order, 0)


def walk(model: SceneModel, cells: Ints, visit: Visit) -> NDArray[np.int32]:
    """All values of a scene, (N, channels).

    Args:
        model: Its parameters.
        cells: (N, 3) of all Gaussians, in order.
        visit: Told of every channel of every stride; returns the symbols.
    """
    groups = groups_of(model.degree)
    values = np.zeros((len(cells), groups[-1].stop), np.int32)
    for stride, targets in blocks(len(cells)):
        near = values[neighbours(stride, targets, cells)].astype(np.int64)
        values[targets] = _block(model, targets, near.transpose(2, 0, 1), visit).T
    return values


def _block(model: SceneModel, targets: Ints, near: Ints, visit: Visit) -> Ints:
    """(channels, n) values of a block, whose neighbours have ``near`` (channels, 4, n)."""
    channels, _, n = near.shape
    mean = near.sum(1) >> 2
    own, apart = np.zeros((channels, n), np.int64), np.zeros((channels, n), np.int64)
    for group, part in zip(groups_of(model.degree), model.groups, strict=True):
        shift = part.shift(facts_of(own[:5].T, model.groups))
        for channel in range(group.first, group.stop):
            inner = apart[list(group.inner[channel - group.first])]  # 0 where not known yet
            guess = predicted(part, near[channel], inner)
            size = sizes_bin(part, near[channel], inner, shift)
            q = visit(targets, channel, guess, shift, size)
            low, high = (-LIMIT, LIMIT) if channel else (0, MOST_CLASS)
            own[channel] = np.clip(guess + (q << shift), low, high)
            apart[channel] = own[channel] - mean[channel]
    return own


def rows_of(model: SceneModel) -> Ints:
    """(channels, bins) rows of the Laplace table: the scale of a bin, no fraction of a mean."""
    found = [
        np.tile(np.array(part.scales, np.int64), (group.stop - group.first, 1))
        for group, part in zip(groups_of(model.degree), model.groups, strict=True)
    ]
    return np.concatenate(found) * MEANS + MEANS // 2
