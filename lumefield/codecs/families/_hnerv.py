"""HNeRV: every frame has a small embedding of its own, and one decoder makes frames of them.

Chen, Gwilliam, Lim and Shrivastava, "HNeRV: A Hybrid Neural Representation for Videos", CVPR 2023,
arXiv:2304.02633: embeddings depend on the content, kernels grow from 1 to 5 and channels shrink by
1.2 a block, so that parameters are spread evenly. We differ: there is no encoder network;
embeddings are fitted directly, from low frequencies of the frame on, and rounded and coded as the
weights are; otherwise as ``_nerv``.
"""

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.families._family import Family, Layout, Number, Recipe, searched
from lumefield.codecs.families._frames import (
    HEAD,
    SAMPLES,
    STAGES,
    enlarged,
    enlargements,
    frame_numbers,
    in_squares,
    layer,
    macs,
    pixels,
    stage_of,
    started,
    usual_gain,
)
from lumefield.codecs.families._ops import Ops, Parameters, Shapes, Tensor
from lumefield.codecs.neural._container import Picture

KERNELS = (1, 3, 5)
TIMES = (3, 4, 2)
"""Enlargements."""
SHRINKS = 1.2
AREA = 48
"""Pixels along a side of what one cell of an embedding stands for."""
MAX_WIDTH = 256
EMBEDDINGS = "embeddings"
_EMBEDDED = 0.2
"""Share of embeddings in the parameters."""
_MOST = 64
"""Numbers of an embedding in one area."""


def _areas(layout: Layout) -> tuple[int, int]:
    """Rows and columns of an embedding."""
    return -(-layout.picture.rows // AREA), -(-layout.picture.columns // AREA)


def _channels(layout: Layout) -> tuple[int, ...]:
    return tuple(max(4, round(layout.numbers[0] / SHRINKS**i)) for i in range(STAGES + 1))


def _shapes(layout: Layout) -> Shapes:
    channels, depth = _channels(layout), layout.numbers[1]
    return {
        EMBEDDINGS: (layout.picture.frames, *_areas(layout), depth),
        **layer("stem", depth, channels[0]),
        **enlargements(channels, KERNELS, TIMES),
        **layer(HEAD, 3, 3, channels[-1], SAMPLES),
    }


def _start(key: Tensor, layout: Layout) -> dict[str, Tensor]:
    return started(key, _shapes(layout), _gain)


def _gain(name: str) -> float:
    return 1.0 if name == EMBEDDINGS else usual_gain(name)


def _seen(layout: Layout, frames: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    return {EMBEDDINGS: in_squares(frames, AREA, layout.numbers[1])}


def _forward(ops: Ops, parameters: Parameters, layout: Layout, inputs: Tensor) -> Tensor:
    p = parameters
    x = ops.xp.take(ops.value(p[EMBEDDINGS]), inputs[:, 0].astype(np.int32), axis=0)
    x = ops.gelu(ops.linear(x, p["stem.w"], p["stem.b"]))
    for stage, times in enumerate(TIMES):
        x = enlarged(ops, p, stage, x, times)
    return pixels(ops, p, layout, x)


def _macs(layout: Layout) -> float:
    h, w = _areas(layout)
    sizes = np.cumprod((1, *TIMES))

    def places(name: str) -> float:
        return h * w * (1.0 if name.startswith("stem") else float(sizes[stage_of(name)]) ** 2)

    return macs(layout, _shapes(layout), places)


def _layout(picture: Picture, size: float) -> Layout:
    wanted = 8 * size / RECIPE.bits
    each = picture.frames * int(np.prod(_areas(Layout(picture, ()))))
    depth = int(np.clip(_EMBEDDED * wanted / each, 1, _MOST))
    numbers = [(w, depth) for w in range(4, MAX_WIDTH + 1)]
    return searched(picture, numbers, wanted, HNERV.count)


RECIPE = Recipe(rate=1e-2, warm=0.05, batch=2, steps=2400, finish=0.2, bits=6.5)

HNERV = Family(
    name="hnerv",
    content="video",
    source="Chen et al. 2023, arXiv:2304.02633",
    identity=19,
    numbers=(Number("width", 1, MAX_WIDTH), Number("embedding", 1, _MOST)),
    layout=_layout,
    shapes=_shapes,
    start=_start,
    inputs=frame_numbers,
    forward=_forward,
    macs=_macs,
    recipe=RECIPE,
    channels=(3,),
    seen=_seen,
)
