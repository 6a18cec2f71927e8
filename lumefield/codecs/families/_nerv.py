"""NeRV: a video is a network from the number of a frame to the frame.

Chen, He, Wang, Ren, Lim and Shrivastava, "NeRV: Neural Representations for Videos", NeurIPS 2021,
arXiv:2110.13903: features of the time, two linear layers that make all cells of a frame at once,
blocks of convolution, pixel shuffle and GELU, and a pointwise head. Shares of the layers are those
of its NeRV-S (61 % in the linear layers, 26 : 96 channels). We differ: 20 frequencies, the
squared error alone (the paper adds SSIM), rounding in the fit and the entropy coder of this package
instead of pruning and Huffman codes, and see ``_frames``.
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
    pixels,
    stage_of,
    started,
    times,
    usual_gain,
)
from lumefield.codecs.families._ops import Ops, Parameters, Shapes, Tensor
from lumefield.codecs.neural._container import Picture

FREQUENCIES = 20
MAX_WIDTH = 256
_STEM = 0.6
"""Share of the parameters before the blocks."""


def _channels(layout: Layout) -> tuple[int, ...]:
    """Before each stage, and after the last."""
    first, _, width = layout.numbers
    return first, first, width, width


def _shapes(layout: Layout) -> Shapes:
    h, w = cells(layout)
    channels, hidden = _channels(layout), layout.numbers[1]
    return {
        **layer("time", 2 * FREQUENCIES, hidden),
        "stem.w": (hidden, h * w * channels[0]),
        "stem.b": (channels[0],),
        **enlargements(channels),
        **layer(HEAD, 1, 1, channels[-1], SAMPLES),
    }


def _start(key: Tensor, layout: Layout) -> dict[str, Tensor]:
    return started(key, _shapes(layout), usual_gain)


def _inputs(layout: Layout) -> NDArray[np.float32]:
    return times(layout, FREQUENCIES)


def _forward(ops: Ops, parameters: Parameters, layout: Layout, inputs: Tensor) -> Tensor:
    p, (h, w) = parameters, cells(layout)
    x = ops.gelu(ops.linear(ops.input(inputs), p["time.w"], p["time.b"]))
    x = ops.linear(x, p["stem.w"]).reshape(-1, h, w, layout.numbers[0])
    x = ops.gelu(ops.add(x, ops.value(p["stem.b"])[None, None, None]))
    for stage in range(STAGES):
        x = enlarged(ops, p, stage, x)
    return pixels(ops, p, layout, x)


def _macs(layout: Layout) -> float:
    h, w = cells(layout)

    def places(name: str) -> float:
        return 1 if name.startswith(("time", "stem")) else h * w * 4 ** stage_of(name)

    return macs(layout, _shapes(layout), places)


def _layout(picture: Picture, size: float) -> Layout:
    wanted = 8 * size / RECIPE.bits
    h, w = cells(Layout(picture, ()))
    numbers = list[tuple[int, ...]]()
    for width in range(4, MAX_WIDTH + 1):
        first = max(2, round(0.27 * width))
        hidden = round(_STEM * wanted / (h * w * first + 2 * FREQUENCIES))
        numbers.append((first, min(max(hidden, 4), 2 * MAX_WIDTH), width))
    return searched(picture, numbers, wanted, NERV.count)


RECIPE = Recipe(rate=1e-2, warm=0.05, batch=2, steps=3800, finish=0.2, bits=6.5)

NERV = Family(
    name="nerv",
    content="video",
    source="Chen et al. 2021, arXiv:2110.13903",
    identity=16,
    numbers=(
        Number("first channels", 1, MAX_WIDTH),
        Number("hidden", 1, 2 * MAX_WIDTH),
        Number("width", 1, MAX_WIDTH),
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
