"""The training loss of `_photometric` on an NVIDIA GPU: two Warp kernels, value and gradient.

A block of 256 threads makes 16 x 16 pixels of one channel. It reads them with a border of 5 into
shared memory, so that a pixel comes from memory once for all windows it is in, and filters along
rows, then along columns. The first kernel adds up both terms of the loss and writes, of every
pixel, the derivatives of SSIM by the window means; the second filters these and writes the
gradient. XLA drops the second where nobody asks for a gradient. Sums are written a row a block and
added up by XLA: no atomics, so the same bits every time.

Letters: x image, y truth, both times their weight; a, b their window means; S the SSIM of a pixel.
This file imports warp: import it where a kernel is called. (``no_type_check`` keeps the type checks
of the tests off the kernels.)
"""

from functools import partial
from typing import no_type_check

import jax
import jax.numpy as jnp
import warp as wp
from jax import Array

from lumefield import native
from lumefield.render import _spec

wp.set_module_options({"enable_backward": False, "fast_math": False})

TILE = 16
"""Edge of what a block makes, in pixels."""
BLOCK = TILE * TILE
"""Threads of a block, one a pixel."""

_WIDE = TILE + 2 * _spec.SSIM_RADIUS
_TILE = wp.constant(wp.int32(TILE))
_RADIUS = wp.constant(wp.int32(_spec.SSIM_RADIUS))
_EDGE = wp.constant(wp.int32(_WIDE))
_TAPS = wp.constant(wp.int32(2 * _spec.SSIM_RADIUS + 1))
_WINDOW = wp.constant(
    wp.types.vector(length=2 * _spec.SSIM_RADIUS + 1, dtype=wp.float32)(*_spec.ssim_window())
)
_C1 = wp.constant(wp.float32(_spec.SSIM_C1))
_C2 = wp.constant(wp.float32(_spec.SSIM_C2))
_READS = -(-(_WIDE * _WIDE) // BLOCK)
"""Pixels that a thread reads, of the block's square and its border."""
_ROWS = -(-(_WIDE * TILE) // BLOCK)
"""Window means along a row that a thread makes."""

Means = wp.types.vector(length=5, dtype=wp.float32)
"""Window means of x, y, x^2, y^2, x y."""


@no_type_check
@wp.func
def weight_at(weight: wp.array2d[wp.uint8], y: wp.int32, x: wp.int32) -> wp.float32:
    """Weight of a pixel in [0, 1]; an array (1, 1) holds that of all pixels."""
    value = weight[wp.min(y, weight.shape[0] - 1), wp.min(x, weight.shape[1] - 1)]
    return wp.float32(value) * wp.static(1.0 / 255.0)


@no_type_check
@wp.func
def both_at(
    image: wp.array3d[wp.float32],
    truth: wp.array3d[wp.uint8],
    weight: wp.array2d[wp.uint8],
    y: wp.int32,
    x: wp.int32,
    channel: wp.int32,
) -> wp.vec2:
    """(x, y) of a pixel, zeros outside the image."""
    both = wp.vec2(0.0, 0.0)
    if y >= 0 and y < image.shape[0] and x >= 0 and x < image.shape[1]:
        w = weight_at(weight, y, x)
        other = wp.float32(truth[y, x, channel]) * wp.static(1.0 / 255.0)
        both = wp.vec2(image[y, x, channel] * w, other * w)
    return both


@no_type_check
@wp.func
def corner_of(block: wp.int32, width: wp.int32) -> wp.vec2i:
    """(y, x) of the first pixel that a block makes."""
    columns = (width + _TILE - 1) / _TILE
    return wp.vec2i((block / columns) * _TILE, (block % columns) * _TILE)


@no_type_check
@wp.func
def read_at(corner: wp.vec2i, at: wp.int32) -> wp.vec2i:
    """(y, x) of a pixel of the square with its border that a block reads."""
    return wp.vec2i(corner[0] + at / _EDGE - _RADIUS, corner[1] + at % _EDGE - _RADIUS)


@no_type_check
@wp.func
def row_start(at: wp.int32) -> wp.int32:
    """Where, in that square, the window of a mean along a row begins."""
    mean = wp.min(at, wp.static(_WIDE * TILE - 1))  # what is beyond the last one is not read
    return (mean / _TILE) * _EDGE + mean % _TILE


@no_type_check
@wp.kernel
def photometric_value(
    image: wp.array3d[wp.float32],
    truth: wp.array3d[wp.uint8],
    weight: wp.array2d[wp.uint8],
    sums: wp.array2d[wp.vec2],
    slopes: wp.array3d[wp.vec3],
) -> None:
    """Sums of |x - y| and S over a block, and dS by the means a, of x^2 and of x y, per pixel."""
    channel, block, lane = wp.tid()
    corner = corner_of(block, image.shape[1])
    seen = wp.tile_empty(shape=wp.static(_READS * BLOCK), dtype=wp.vec2, storage="shared")
    for k in range(wp.static(_READS)):
        at = read_at(corner, lane + k * wp.static(BLOCK))
        mine = wp.tile(both_at(image, truth, weight, at[0], at[1], channel), preserve_type=True)
        wp.tile_assign(seen, mine, offset=(k * wp.static(BLOCK),))
    rows = wp.tile_empty(shape=wp.static(_ROWS * BLOCK), dtype=Means, storage="shared")
    for k in range(wp.static(_ROWS)):
        first = row_start(lane + k * wp.static(BLOCK))
        row = Means()
        for j in range(_TAPS):
            both = seen[first + j]
            p = both[0]
            q = both[1]
            row += _WINDOW[j] * Means(p, q, p * p, q * q, p * q)
        wp.tile_assign(rows, wp.tile(row, preserve_type=True), offset=(k * wp.static(BLOCK),))
    mean = Means()
    for j in range(_TAPS):
        mean += _WINDOW[j] * rows[lane + j * _TILE]
    a = mean[0]
    b = mean[1]
    a1 = 2.0 * a * b + _C1
    a2 = 2.0 * (mean[4] - a * b) + _C2
    b1 = a * a + b * b + _C1
    b2 = (mean[2] - a * a) + (mean[3] - b * b) + _C2
    shrink = 1.0 / (b1 * b2)
    alike = a1 * a2 * shrink
    here = seen[(lane / _TILE + _RADIUS) * _EDGE + lane % _TILE + _RADIUS]
    part = wp.vec2(0.0, 0.0)
    y = corner[0] + lane / _TILE
    x = corner[1] + lane % _TILE
    if y < image.shape[0] and x < image.shape[1]:
        part = wp.vec2(wp.abs(here[0] - here[1]), alike)
        slopes[channel, y, x] = wp.vec3(
            2.0 * shrink * (b * (a2 - a1) - a * alike * (b2 - b1)),
            -alike / b2,
            2.0 * a1 * shrink,
        )
    whole = wp.tile_sum(wp.tile(part, preserve_type=True))
    total = whole[0]
    if lane == 0:
        sums[channel, block] = total


@no_type_check
@wp.kernel
def photometric_gradient(
    image: wp.array3d[wp.float32],
    truth: wp.array3d[wp.uint8],
    weight: wp.array2d[wp.uint8],
    slopes: wp.array3d[wp.vec3],
    l1_scale: wp.float32,
    ssim_scale: wp.float32,
    gradient: wp.array3d[wp.float32],
) -> None:
    """Gradient over the image of l1_scale * sum |x - y| - ssim_scale * sum S."""
    channel, block, lane = wp.tid()
    corner = corner_of(block, image.shape[1])
    seen = wp.tile_empty(shape=wp.static(_READS * BLOCK), dtype=wp.vec3, storage="shared")
    for k in range(wp.static(_READS)):
        at = read_at(corner, lane + k * wp.static(BLOCK))
        slope = wp.vec3(0.0, 0.0, 0.0)
        if at[0] >= 0 and at[0] < image.shape[0] and at[1] >= 0 and at[1] < image.shape[1]:
            slope = slopes[channel, at[0], at[1]]
        wp.tile_assign(seen, wp.tile(slope, preserve_type=True), offset=(k * wp.static(BLOCK),))
    rows = wp.tile_empty(shape=wp.static(_ROWS * BLOCK), dtype=wp.vec3, storage="shared")
    for k in range(wp.static(_ROWS)):
        first = row_start(lane + k * wp.static(BLOCK))
        row = wp.vec3(0.0, 0.0, 0.0)
        for j in range(_TAPS):
            row += _WINDOW[j] * seen[first + j]
        wp.tile_assign(rows, wp.tile(row, preserve_type=True), offset=(k * wp.static(BLOCK),))
    total = wp.vec3(0.0, 0.0, 0.0)
    for j in range(_TAPS):
        total += _WINDOW[j] * rows[lane + j * _TILE]
    y = corner[0] + lane / _TILE
    x = corner[1] + lane % _TILE
    if y < image.shape[0] and x < image.shape[1]:
        here = both_at(image, truth, weight, y, x, channel)
        apart = here[0] - here[1]
        side = wp.float32(0.0)  # as jnp.abs has it where both are the same
        if apart > 0.0:
            side = wp.float32(1.0)
        if apart < 0.0:
            side = wp.float32(-1.0)
        alike = total[0] + 2.0 * here[0] * total[1] + here[1] * total[2]
        w = weight_at(weight, y, x)
        gradient[y, x, channel] = w * (l1_scale * side - ssim_scale * alike)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def photometric(image: Array, truth: Array, weight: Array, dssim: float) -> Array:
    """See ``_photometric.photometric_loss``; float32, three channels, at least one pixel."""
    return _forward(image, truth, weight, dssim)[0]


def _forward(image: Array, truth: Array, weight: Array, dssim: float) -> tuple[Array, Array]:
    height, width, channels = image.shape
    blocks = -(-height // TILE) * -(-width // TILE)
    launch = {"dims": (channels, blocks, BLOCK), "block": BLOCK}
    inputs, n = (image, truth, weight), image.size
    shapes = {"sums": (channels, blocks, 2), "slopes": (channels, height, width, 3)}
    sums, slopes = native.warp_call(photometric_value, shapes, *inputs, **launch)
    scales = (float((1 - dssim) / n), float(dssim / n))
    (gradient,) = native.warp_call(
        photometric_gradient, {"gradient": image.shape}, *inputs, slopes, *scales, **launch
    )
    whole = jnp.sum(sums, (0, 1))
    return (1 - dssim) * whole[0] / n + dssim * (1 - whole[1] / n), gradient


def _backward(dssim: float, gradient: Array, g: Array) -> tuple[Array, None, None]:
    del dssim
    return g * gradient, None, None


photometric.defvjp(_forward, _backward)
