"""What the rows for video share: cells, time, upsampling blocks, and the way to pixels.

A picture is cut into *cells* of 16 x 16 pixels. Networks make features of cells, enlarge
them, and give six numbers for every 2 x 2 pixels: four of luma, one each of Cb and Cr. (The
papers make RGB at full size; videos here are 4:2:0, and layers at half the size cost a quarter.)

Letters: n frames, h and w cells, c channels, t time in [0, 1].
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.families._family import Layout
from lumefield.codecs.families._ops import (
    Ops,
    Parameters,
    Shapes,
    Tensor,
    encode_position,
    features,
    pixel_shuffle,
)

CELL = 16
STAGES = 3
"""Doublings from cells to half the size of the picture."""
SAMPLES = 6
"""Numbers of 2 x 2 pixels."""
TIME_BASE, PLACE_BASE = 1.25, 1.4
"""Ratio of one frequency to the next."""
HEAD = "head"


def cells(layout: Layout) -> tuple[int, int]:
    """Rows and columns of cells: enough to cover the picture."""
    return -(-layout.picture.rows // CELL), -(-layout.picture.columns // CELL)


def times(layout: Layout, count: int) -> NDArray[np.float32]:
    """(frames, 2 count) features of the time of every frame (NeRV, Eq. 1)."""
    frames = layout.picture.frames
    return encode_position((np.arange(frames) + 0.5) / frames, count, TIME_BASE)


def places(rows: int, columns: int, count: int) -> NDArray[np.float32]:
    """(rows, columns, 4 count) features of the place of every cell."""
    y, x = (encode_position((np.arange(n) + 0.5) / n, count, PLACE_BASE) for n in (rows, columns))
    size = (rows, columns, 2 * count)
    return np.concatenate([np.broadcast_to(y[:, None], size), np.broadcast_to(x[None], size)], -1)


def frame_numbers(layout: Layout) -> NDArray[np.float32]:
    """(frames, 1) 0, 1, 2 ..."""
    return np.arange(layout.picture.frames, dtype=np.float32)[:, None]


def between(layout: Layout, count: int) -> NDArray[np.float32]:
    """(frames, 3) for linear interpolation among ``count`` moments: first, second, share of second.

    Moments lie in the middles of equal parts of the time; before the first and after the last there
    is that one alone.
    """
    frames = layout.picture.frames
    place = np.clip((np.arange(frames) + 0.5) * count / frames - 0.5, 0, count - 1)
    first = np.floor(place)
    second = np.minimum(first + 1, count - 1)
    return np.stack([first, second, features(place - first)], -1).astype(np.float32)


def moment(ops: Ops, grid: Tensor, inputs: Tensor) -> Tensor:
    """(n, ...) of a parameter (moments, ...) at the times of (n, 3) ``between``."""
    values = ops.value(grid)
    both = [ops.xp.take(values, inputs[:, i].astype(np.int32), axis=0) for i in (0, 1)]
    shape = (-1,) + (1,) * (values.ndim - 1)
    share = ops.input(inputs[:, 2]).reshape(shape)
    rest = ops.input(1 - inputs[:, 2]).reshape(shape)
    return ops.add(ops.mul(both[0], rest), ops.mul(both[1], share))


def in_squares(frames: NDArray[np.float32], side: int, count: int) -> NDArray[np.float32]:
    """(n, rows, columns, 3) to (n, h, w, count): what the luma of squares looks like.

    The ``count`` lowest frequencies of a cosine transform of each square of ``side`` pixels; every
    one has mean 0 and deviation 1 over all squares. Good first values of what a network keeps for
    places of a frame; at most ``side``^2.
    """
    n, rows, columns, _ = frames.shape
    h, w = -(-rows // side), -(-columns // side)
    after = (0, 0), (0, h * side - rows), (0, w * side - columns)
    luma = np.pad(frames[..., 0], after, mode="edge").reshape(n, h, side, w, side)
    at = (2 * np.arange(side) + 1) * (np.pi / (2 * side))
    waves = np.cos(np.arange(side)[:, None] * at).astype(np.float32)
    both = sorted(np.ndindex(side, side), key=lambda uv: (sum(uv), uv))[:count]
    u, v = np.array(both).T
    found = np.einsum("nhiwj,ki,kj->nhwk", luma, waves[u], waves[v], optimize=True)
    found = found - found.mean((0, 1, 2))
    return (found / (found.std((0, 1, 2)) + np.float32(1e-3))).astype(np.float32)


def layer(name: str, *shape: int) -> Shapes:
    """A weight and its bias."""
    return {f"{name}.w": shape, f"{name}.b": shape[-1:]}


def enlargements(
    channels: Sequence[int], sizes: Sequence[int] = (3, 3, 3), times: Sequence[int] = (2, 2, 2)
) -> Shapes:
    """Parameters of ``enlarged`` for all stages.

    Args:
        channels: Before the first stage and after each.
        sizes: Sides of the kernels.
        times: How much larger each stage makes its picture.
    """
    out: Shapes = {}
    for i, (k, r) in enumerate(zip(sizes, times, strict=True)):
        out |= layer(f"up{i}", k, k, channels[i], r * r * channels[i + 1])
    return out


def enlarged(ops: Ops, p: Parameters, stage: int, x: Tensor, times: int = 2) -> Tensor:
    """The NeRV block: convolution, pixel shuffle, GELU."""
    name = f"up{stage}"
    return ops.gelu(pixel_shuffle(ops.conv(x, p[f"{name}.w"], p[f"{name}.b"]), times))


def modulations(width: int, channels: Sequence[int]) -> Shapes:
    """Parameters of ``modulated`` for all stages."""
    out: Shapes = {}
    for i in range(STAGES):
        out |= layer(f"gain{i}", width, channels[i]) | layer(f"shift{i}", width, channels[i])
    return out


def modulated(ops: Ops, p: Parameters, stage: int, x: Tensor, style: Tensor) -> Tensor:
    """(n, h, w, c) times 1 + gain, plus shift: affine functions of a style (n, width)."""
    gain, shift = (
        ops.linear(style, p[f"{name}{stage}.w"], p[f"{name}{stage}.b"])[:, None, None]
        for name in ("gain", "shift")
    )
    return ops.add(ops.add(x, ops.mul(x, gain)), shift)


def pixels(ops: Ops, p: Parameters, layout: Layout, x: Tensor, times: int = 1) -> Tensor:
    """(n, rows, columns, 3) Y'CbCr from features at half the size, or ``times`` smaller."""
    x = pixel_shuffle(ops.conv(x, p[f"{HEAD}.w"], p[f"{HEAD}.b"]), times)
    chroma = ops.xp.concatenate([x[..., 4:]] * 4, -1)
    whole = ops.xp.concatenate([pixel_shuffle(x[..., :4], 2), pixel_shuffle(chroma, 2)], -1)
    return whole[:, : layout.picture.rows, : layout.picture.columns]


def started(key: Tensor, shapes: Shapes, gains: Callable[[str], float]) -> dict[str, Tensor]:
    """First values: He's normal weights times a gain, zeros for the rest, grey pixels.

    Args:
        key: jax key.
        shapes: Of all parameters. What ends in ``.w`` is a weight, in ``.b`` added, in ``.g`` a
            gain; others are values themselves, normal with deviation ``gains(name)``.
        gains: Of names.
    """
    import jax
    import jax.numpy as jnp

    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    # One draw, so that one function is compiled and not one for every shape.
    drawn = np.split(np.asarray(jax.random.normal(key, (sum(sizes),))), np.cumsum(sizes)[:-1])
    out: dict[str, Tensor] = {}
    for normal, (name, shape) in zip(drawn, shapes.items(), strict=True):
        if name.endswith((".b", ".g")):
            value = 0.5 if name == f"{HEAD}.b" else float(name.endswith(".g"))
            out[name] = jnp.full(shape, value, jnp.float32)
            continue
        fan = np.prod(shape[:-1]) if name.endswith(".w") else 1
        spread = np.float32(gains(name) / np.sqrt(fan))
        out[name] = jnp.asarray(normal.reshape(shape) * spread, jnp.float32)
    return out


def usual_gain(name: str) -> float:
    """Gain of a weight: that of ReLU (He et al. 2015), small where it makes corrections."""
    return 0.3 if name.startswith((HEAD, "gain", "shift")) else 1.4


def macs(layout: Layout, shapes: Shapes, places: Callable[[str], float]) -> float:
    """Multiplications a pixel: of each weight at so many places of a frame."""
    weights = [(name, shape) for name, shape in shapes.items() if name.endswith(".w")]
    total = sum(float(np.prod(shape)) * places(name) for name, shape in weights)
    return total / (layout.picture.rows * layout.picture.columns)


def stage_of(name: str) -> int:
    """The stage whose parameter that is: the first digit; the last stage where there is none."""
    return next((int(letter) for letter in name if letter.isdigit()), STAGES)
