"""PS-NeRV: a network from time and place to one patch of a frame, stylised by the time.

Bai, Dong, Wang and Yuan, "PS-NeRV: Patch-wise Stylized Neural Representations for Videos", ICIP
2023, arXiv:2208.03742: the stem makes the cells of one patch from features of the time and of the
patch's place, and the time modulates the channels before every block (adaptive instance
normalisation). We differ: modulations have no normalisation before them, patches are 3 x 3 cells;
otherwise as ``_nerv``. Convolutions see zeros around every patch, as in the paper, so its borders
can show.
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

TIMES, PLACES = 20, 4
"""Frequencies."""
PATCH = 3
"""Cells along a side of a patch."""
MAX_WIDTH = 256


def _patches(layout: Layout) -> tuple[int, int]:
    """Rows and columns of patches."""
    h, w = cells(layout)
    return -(-h // PATCH), -(-w // PATCH)


def _channels(layout: Layout) -> tuple[int, ...]:
    width = layout.numbers[0]
    return width, width, max(4, width * 5 // 6), max(4, width * 2 // 3)


def _shapes(layout: Layout) -> Shapes:
    _, hidden, style = layout.numbers
    channels = _channels(layout)
    return {
        **layer("time", 2 * TIMES + 4 * PLACES, hidden),
        "stem.w": (hidden, PATCH * PATCH * channels[0]),
        "stem.b": (channels[0],),
        **layer("style", 2 * TIMES, style),
        **modulations(style, channels),
        **enlargements(channels),
        **layer(HEAD, 1, 1, channels[-1], SAMPLES),
    }


def _start(key: Tensor, layout: Layout) -> dict[str, Tensor]:
    return started(key, _shapes(layout), usual_gain)


def _inputs(layout: Layout) -> NDArray[np.float32]:
    return times(layout, TIMES)


def _forward(ops: Ops, parameters: Parameters, layout: Layout, inputs: Tensor) -> Tensor:
    p, xp, (rows, columns) = parameters, ops.xp, _patches(layout)
    n, each = inputs.shape[0], rows * columns
    time = ops.input(inputs)
    where = ops.input(places(rows, columns, PLACES).reshape(each, -1))
    both = (n, each, time.shape[-1]), (n, each, where.shape[-1])
    x = xp.concatenate(
        [xp.broadcast_to(time[:, None], both[0]), xp.broadcast_to(where[None], both[1])], -1
    )
    x = ops.gelu(ops.linear(x.reshape(n * each, -1), p["time.w"], p["time.b"]))
    x = ops.linear(x, p["stem.w"]).reshape(-1, PATCH, PATCH, layout.numbers[0])
    x = ops.gelu(ops.add(x, ops.value(p["stem.b"])[None, None, None]))
    style = ops.gelu(ops.linear(time, p["style.w"], p["style.b"]))
    style = xp.repeat(style, each, axis=0)
    for stage in range(STAGES):
        x = enlarged(ops, p, stage, modulated(ops, p, stage, x, style))
    _, h, w, c = x.shape
    x = x.reshape(n, rows, columns, h, w, c).transpose(0, 1, 3, 2, 4, 5)
    return pixels(ops, p, layout, x.reshape(n, rows * h, columns * w, c))


def _macs(layout: Layout) -> float:
    rows, columns = _patches(layout)

    def places(name: str) -> float:
        if name.startswith(("up", HEAD)):
            return rows * columns * PATCH**2 * 4 ** stage_of(name)
        return rows * columns

    return macs(layout, _shapes(layout), places)


def _layout(picture: Picture, size: float) -> Layout:
    numbers = [(w, w * 3 // 2, max(8, w * 2 // 3)) for w in range(4, MAX_WIDTH + 1)]
    return searched(picture, numbers, 8 * size / RECIPE.bits, PSNERV.count)


RECIPE = Recipe(rate=1e-2, warm=0.05, batch=2, steps=3000, finish=0.2, bits=6.5)

PSNERV = Family(
    name="ps-nerv",
    content="video",
    source="Bai et al. 2022, arXiv:2208.03742",
    identity=18,
    numbers=(
        Number("width", 1, MAX_WIDTH),
        Number("hidden", 1, 2 * MAX_WIDTH),
        Number("style", 1, MAX_WIDTH),
    ),
    layout=_layout,
    shapes=_shapes,
    start=_start,
    inputs=_inputs,
    forward=_forward,
    macs=_macs,
    recipe=RECIPE,
    channels=(3,),
)
