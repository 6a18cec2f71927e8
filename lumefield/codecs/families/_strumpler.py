"""A SIREN of few layers over encoded positions, refitted through the rounding of its weights.

Strümpler, Postels, Yang, Van Gool and Tombari, "Implicit Neural Representations for Image
Compression", 2022, arXiv:2112.04267: 16 sines and cosines of each coordinate, frequencies growing
by 1.4, before three sine layers; weights rounded with a step for each tensor, then fitted again
with the rounding in the loss; an entropy coder. We differ: steps come from the quantiser that all
families share; the refitting alone chooses how weights are rounded (they run AdaRound first); and
nothing is meta-learned, so this is their "basic" row, which took longer to fit than that from a
learned start and ended a little below it.
"""

import numpy as np

from lumefield.codecs.families._family import Family, Layout, Number, Recipe, searched
from lumefield.codecs.families._ops import Ops, Parameters, Shapes, Tensor
from lumefield.codecs.families._siren import (
    pixels_of,
    siren_forward,
    siren_macs,
    siren_shapes,
    siren_sizes,
    siren_start,
)
from lumefield.codecs.neural._container import Picture

DEPTH = 3
COUNT, GROWTH = 16, 1.4
"""Frequencies of a coordinate, and their ratio."""
INPUTS = 2 + 4 * COUNT
MAX_WIDTH = 128


def _sizes(layout: Layout) -> list[int]:
    depth, width = layout.numbers
    return siren_sizes(layout.picture.channels, depth, width, INPUTS)


def _shapes(layout: Layout) -> Shapes:
    return siren_shapes(_sizes(layout))


def _start(key: Tensor, layout: Layout) -> dict[str, Tensor]:
    return siren_start(key, _sizes(layout), first=FIRST)


def _forward(ops: Ops, parameters: Parameters, layout: Layout, inputs: Tensor) -> Tensor:
    return siren_forward(ops, parameters, layout.numbers[0], encoded(ops, ops.input(inputs)))


def encoded(ops: Ops, x: Tensor) -> Tensor:
    """(n, 2) positions and the sines and cosines of pi 1.4^i times them: (n, 66)."""
    rates = np.array([0.5 * GROWTH**i for i in range(COUNT)], np.float32)  # turns a unit
    turns = ops.scale(x[:, :, None], rates).reshape(len(x), -1)
    quarter = ops.input(np.full(1, np.float32(0.25)))
    parts = [x, ops.sin(turns), ops.sin(ops.add(turns, quarter))]
    return ops.xp.concatenate(parts, axis=-1)


def _macs(layout: Layout) -> float:
    return siren_macs(_sizes(layout)) + 2 * COUNT


def _layout(picture: Picture, size: float) -> Layout:
    widths = [(DEPTH, width) for width in range(4, MAX_WIDTH + 1)]
    return searched(picture, widths, 8 * size / RECIPE.bits, STRUMPLER.count)


FIRST = 1.0
"""First weights relative to a SIREN's, whose first layer spans the frequencies by itself."""
RECIPE = Recipe(rate=5e-3, batch=1 << 14, probe=1 << 15, steps=2000, finish=0.5, bits=6.0)

STRUMPLER = Family(
    name="strumpler",
    content="image",
    source="Strümpler et al. 2022, arXiv:2112.04267",
    identity=3,
    numbers=(Number("depth", 1, 8), Number("width", 1, MAX_WIDTH)),
    layout=_layout,
    shapes=_shapes,
    start=_start,
    inputs=pixels_of,
    forward=_forward,
    macs=_macs,
    recipe=RECIPE,
)
