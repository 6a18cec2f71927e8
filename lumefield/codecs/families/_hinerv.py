"""HiNeRV: learned grids at every scale, bilinear upsampling, ConvNeXt blocks.

Kwan, Gao, Zhang, Gower and Bull, "HiNeRV: Video Compression with Hierarchical Encoding-based Neural
Representation", NeurIPS 2023, arXiv:2306.09818: a base grid of several rates of time feeds the
cells; after every upsampling a small grid tells apart the places inside a cell; layers are
depthwise convolution, layer norm and a two-layer perceptron around a skip. We differ: squared error
alone (the paper adds MS-SSIM), base grids begin as low frequencies of frames, frames instead of
patches in the fit, no pruning, the last doubling is a pixel shuffle, as layers at full size cost
most of the time, and so all stages have the same channels; otherwise as ``_nerv``.
"""

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.families._family import Family, Layout, Number, Recipe, searched
from lumefield.codecs.families._frames import (
    CELL,
    HEAD,
    SAMPLES,
    between,
    cells,
    in_squares,
    layer,
    macs,
    moment,
    pixels,
    stage_of,
    started,
    usual_gain,
)
from lumefield.codecs.families._ops import Ops, Parameters, Shapes, Tensor
from lumefield.codecs.neural._container import Picture

LEVELS = 3
"""Of the base grid: each has half the moments and twice the channels of the one before."""
LOCAL = 4
"""Channels of the grids inside cells."""
BLOCKS = (2, 1, 1)
"""At the size of cells and after each upsampling."""
EXPANSION = 3
"""Hidden units of the perceptrons per channel."""
MAX_WIDTH = 256
_MOST_MOMENTS = 1 << 10
_BASE = 0.25
"""Share of the base grid in the parameters, about."""


def _moments(layout: Layout) -> list[int]:
    """Of every level of the base grid; the last counts for the grids inside cells too."""
    return [max(1, layout.numbers[1] >> i) for i in range(LEVELS)]


def _shapes(layout: Layout) -> Shapes:
    h, w = cells(layout)
    c, _, first = layout.numbers
    out: Shapes = {}
    for i, count in enumerate(_moments(layout)):
        out[f"base{i}"] = (count, h, w, first << i)
    out |= layer("stem", 3, 3, first * ((1 << LEVELS) - 1), c)
    for stage, blocks in enumerate(BLOCKS):
        if stage:
            side = 1 << stage
            out[f"inside{stage}"] = (_moments(layout)[-1], side, side, LOCAL)
            out |= layer(f"mix{stage}", c + LOCAL, c)
        for block in range(blocks):
            name = f"block{stage}{block}"
            out |= layer(f"{name}.near", 3, 3, c)
            out[f"{name}.norm.g"], out[f"{name}.norm.b"] = (c,), (c,)
            out |= layer(f"{name}.wide", c, EXPANSION * c)
            out |= layer(f"{name}.narrow", EXPANSION * c, c)
    return out | layer(HEAD, 1, 1, c, 4 * SAMPLES)


def _gain(name: str) -> float:
    if name.startswith("base"):
        return 0.5
    if name.startswith("inside"):
        return 0.5
    if name.startswith(("stem", "mix")) or name.endswith(".near.w"):
        return 1.0
    return 0.5 if name.endswith(".narrow.w") else usual_gain(name)


def _start(key: Tensor, layout: Layout) -> dict[str, Tensor]:
    return started(key, _shapes(layout), _gain)


def _seen(layout: Layout, frames: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Base grids from the frames nearest to their moments."""
    out: dict[str, NDArray[np.float32]] = {}
    for i, count in enumerate(_moments(layout)):
        nearest = (2 * np.arange(count) + 1) * len(frames) // (2 * count)
        out[f"base{i}"] = 0.5 * in_squares(frames[nearest], CELL, layout.numbers[2] << i)
    return out


def _inputs(layout: Layout) -> NDArray[np.float32]:
    return np.concatenate([between(layout, count) for count in _moments(layout)], -1)


def _forward(ops: Ops, parameters: Parameters, layout: Layout, inputs: Tensor) -> Tensor:
    p, xp, (h, w) = parameters, ops.xp, cells(layout)
    at = [inputs[:, 3 * i : 3 * i + 3] for i in range(LEVELS)]
    x = xp.concatenate([moment(ops, p[f"base{i}"], at[i]) for i in range(LEVELS)], -1)
    x = ops.conv(x, p["stem.w"], p["stem.b"])
    for stage, blocks in enumerate(BLOCKS):
        if stage:
            inside = xp.tile(moment(ops, p[f"inside{stage}"], at[-1]), (1, h, w, 1))
            x = xp.concatenate([ops.resize(x, 2), inside], -1)
            x = ops.linear(x, p[f"mix{stage}.w"], p[f"mix{stage}.b"])
        for block in range(blocks):
            x = _block(ops, p, f"block{stage}{block}", x)
    return pixels(ops, p, layout, x, 2)


def _block(ops: Ops, p: Parameters, name: str, x: Tensor) -> Tensor:
    """ConvNeXt (Liu et al. 2022, arXiv:2201.03545) with kernels of 3."""
    y = ops.depthwise(x, p[f"{name}.near.w"], p[f"{name}.near.b"])
    y = ops.layer_norm(y, p[f"{name}.norm.g"], p[f"{name}.norm.b"])
    y = ops.gelu(ops.linear(y, p[f"{name}.wide.w"], p[f"{name}.wide.b"]))
    return ops.add(x, ops.linear(y, p[f"{name}.narrow.w"], p[f"{name}.narrow.b"]))


def _macs(layout: Layout) -> float:
    h, w = cells(layout)

    def places(name: str) -> float:
        stage = 0 if name.startswith("stem") else min(stage_of(name), len(BLOCKS) - 1)
        return h * w * 4**stage

    return macs(layout, _shapes(layout), places)


def _layout(picture: Picture, size: float) -> Layout:
    wanted = 8 * size / RECIPE.bits
    each = int(np.prod(cells(Layout(picture, ()))))
    share = wanted * _BASE / (LEVELS * each)
    moments = int(np.clip(share, 1, max(1, min(picture.frames // 2, _MOST_MOMENTS))))
    first = int(np.clip(round(share / moments), 1, 8))
    numbers = [(w, moments, first) for w in range(6, MAX_WIDTH + 1)]
    return searched(picture, numbers, wanted, HINERV.count)


RECIPE = Recipe(rate=2e-2, warm=0.05, batch=2, steps=2800, finish=0.2, bits=6.5)

HINERV = Family(
    name="hinerv",
    content="video",
    source="Kwan et al. 2023, arXiv:2306.09818",
    identity=20,
    numbers=(
        Number("width", 1, MAX_WIDTH),
        Number("moments", 1, _MOST_MOMENTS, wide=False),
        Number("base channels", 1, 32),
    ),
    layout=_layout,
    shapes=_shapes,
    start=_start,
    inputs=_inputs,
    forward=_forward,
    macs=_macs,
    recipe=RECIPE,
    channels=(3,),
    seen=_seen,
)
