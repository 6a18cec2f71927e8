"""E-NeRV: what a place looks like, and what a moment does to it, are made apart.

Li, Wang, Pi, Xu, Mei and Liu, "E-NeRV: Expedite Neural Video Representation with Disentangled
Spatial-Temporal Context", ECCV 2022, arXiv:2207.08132: features of the places of cells and of the
time go through small networks of their own, are multiplied, and the time modulates the channels
before every block; so NeRV's linear layer that makes all cells is gone. We differ: places are
multiplied by 1 + a function of the time, the fusion is one linear layer and no transformer block,
and the first block is one convolution; otherwise as ``_nerv``.
"""

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.families._family import Family, Layout, Number, Recipe, searched
from lumefield.codecs.families._frames import (
    HEAD,
    SAMPLES,
    STAGES,
    cells,
    enlarged,
    enlargements,
    layer,
    macs,
    modulated,
    modulations,
    pixels,
    places,
    stage_of,
    started,
    times,
    usual_gain,
)
from lumefield.codecs.families._ops import Ops, Parameters, Shapes, Tensor
from lumefield.codecs.neural._container import Picture

TIMES, PLACES = 20, 8
"""Frequencies."""
MAX_WIDTH = 256


def _channels(layout: Layout) -> tuple[int, ...]:
    width = layout.numbers[0]
    return width * 3 // 2, width, max(4, width * 5 // 6), max(4, width * 2 // 3)


def _shapes(layout: Layout) -> Shapes:
    channels, hidden = _channels(layout), layout.numbers[1]
    return {
        **layer("time", 2 * TIMES, hidden),
        **layer("place", 4 * PLACES, channels[0]),
        **layer("moment", hidden, channels[0]),
        **layer("fusion", channels[0], channels[0]),
        **modulations(hidden, channels),
        **enlargements(channels),
        **layer(HEAD, 1, 1, channels[-1], SAMPLES),
    }


def _start(key: Tensor, layout: Layout) -> dict[str, Tensor]:
    return started(key, _shapes(layout), usual_gain)


def _inputs(layout: Layout) -> NDArray[np.float32]:
    return times(layout, TIMES)


def _forward(ops: Ops, parameters: Parameters, layout: Layout, inputs: Tensor) -> Tensor:
    p = parameters
    where = ops.input(places(*cells(layout), PLACES))
    where = ops.gelu(ops.linear(where, p["place.w"], p["place.b"]))
    time = ops.gelu(ops.linear(ops.input(inputs), p["time.w"], p["time.b"]))
    now = ops.linear(time, p["moment.w"], p["moment.b"])
    x = ops.add(where[None], ops.mul(where[None], now[:, None, None]))
    x = ops.gelu(ops.linear(x, p["fusion.w"], p["fusion.b"]))
    for stage in range(STAGES):
        x = enlarged(ops, p, stage, modulated(ops, p, stage, x, time))
    return pixels(ops, p, layout, x)


def _macs(layout: Layout) -> float:
    h, w = cells(layout)

    def places(name: str) -> float:
        if name.startswith(("place", "fusion")):
            return h * w
        return h * w * 4 ** stage_of(name) if name.startswith(("up", HEAD)) else 1

    return macs(layout, _shapes(layout), places)


def _layout(picture: Picture, size: float) -> Layout:
    numbers = [(w, max(8, w * 5 // 4)) for w in range(4, MAX_WIDTH + 1)]
    return searched(picture, numbers, 8 * size / RECIPE.bits, ENERV.count)


RECIPE = Recipe(rate=1e-2, warm=0.05, batch=2, steps=3500, finish=0.2, bits=6.5)

ENERV = Family(
    name="e-nerv",
    content="video",
    source="Li et al. 2022, arXiv:2207.08132",
    identity=17,
    numbers=(Number("width", 1, MAX_WIDTH), Number("hidden", 1, 2 * MAX_WIDTH)),
    layout=_layout,
    shapes=_shapes,
    start=_start,
    inputs=_inputs,
    forward=_forward,
    macs=_macs,
    recipe=RECIPE,
    channels=(3,),
)
