"""Compositing kernels of the `warp` backend: forward, backward and the gradients of Gaussians.

One block of 32 threads, on CUDA one warp, composites one tile of 16 x 16 pixels: a thread owns
eight pixels of one column, every second row. So a Gaussian costs one reduction of its sums for 256
pixels, and rows of pixels outside its height cost nothing. Gaussians come in chunks of 32, read by
a thread each and shared within the block; a finished tile leaves at the next chunk.

The backward pass walks front to back again with the residual R = what is still to come, weighted
by the incoming gradient; each slot (a Gaussian in a tile) writes one row of sums, and ``reduce``
adds the rows of a Gaussian in their order: no atomics, so the same bits every time.

Letters: T transmittance, C channels, p = u dx + v dy, q = w dy, sigma = (p^2 + q^2) / 2.
"""

import functools
from typing import Any, no_type_check

import warp as wp

from lumefield.render import _spec
from lumefield.render._warp_lists import TILE, Row

BLOCK = 32
"""Threads of a tile, and Gaussians of a chunk."""

_PIXELS = wp.constant(8)
_BLOCK = wp.constant(BLOCK)
_TILE = wp.constant(TILE)
_ALPHA_MIN = wp.constant(wp.float32(_spec.ALPHA_MIN))
_ALPHA_MAX = wp.constant(wp.float32(_spec.ALPHA_MAX))
_T_MIN = wp.constant(wp.float32(_spec.T_MIN))

Eight = wp.types.vector(length=8, dtype=wp.float32)

assert _PIXELS * BLOCK == TILE * TILE, "a block holds a tile"


@no_type_check
@wp.func
def pixel_rows(g: Row, y0: wp.float32) -> wp.vec2i:
    """First and last pixel row within a tile whose centres lie within a Gaussian's height."""
    middle = g[1] - y0 - 0.5
    low = wp.clamp(wp.ceil(middle - g[7]), 0.0, 99.0)
    high = wp.clamp(wp.floor(middle + g[7]), -1.0, 99.0)
    return wp.vec2i(wp.int32(low), wp.int32(high))


@no_type_check
@wp.struct
class Pixels:
    """The eight pixels of a thread: column ``x``, rows ``y``, ``y + 2``, ..."""

    x: wp.int32
    y: wp.int32
    top: wp.int32
    """First row of the tile."""
    centre: wp.vec2
    """Of the first pixel."""


@no_type_check
@wp.func
def pixels_of(tile: wp.int32, lane: wp.int32, width: wp.int32) -> Pixels:
    """Which pixels a thread owns."""
    own = Pixels()
    columns = (width + _TILE - 1) / _TILE
    own.x = (tile % columns) * _TILE + lane % _TILE
    own.top = (tile / columns) * _TILE
    own.y = own.top + lane / _TILE
    own.centre = wp.vec2(wp.float32(own.x) + 0.5, wp.float32(own.y) + 0.5)
    return own


@no_type_check
@wp.func
def shape_at(g: Row, centre: wp.vec2, k: wp.int32) -> wp.vec4:
    """(p, q, dy, e) at pixel k of a thread: sigma = (p^2 + q^2) / 2, e = o exp(-sigma)."""
    dy = centre[1] + wp.float32(2 * k) - g[1]
    p = g[2] * (centre[0] - g[0]) + g[3] * dy
    q = g[4] * dy
    return wp.vec4(p, q, dy, g[5] * wp.exp(-0.5 * (p * p + q * q)))


@no_type_check
@functools.cache
def forward(channels: int) -> Any:  # noqa: ANN401
    """Kernel that composites a batch of lists onto an image of so many channels."""
    Values = wp.types.vector(length=channels, dtype=wp.float32)
    Sums = wp.types.matrix(shape=(8, channels), dtype=wp.float32)

    @wp.kernel(module="unique", enable_backward=False)
    def composite_forward(
        edges: wp.array[wp.int32],
        slots: wp.array[wp.int32],
        owner: wp.array[wp.int32],
        order: wp.array[wp.int32],
        records: wp.array[Row],
        values: wp.array[Values],
        image: wp.array2d[Values],
        trans: wp.array2d[wp.float32],
    ) -> None:
        tile, lane = wp.tid()
        height = trans.shape[0]
        width = trans.shape[1]
        own = pixels_of(tile, lane, width)
        t = Eight()
        sums = Sums()
        for k in range(_PIXELS):
            y = own.y + 2 * k
            if y < height and own.x < width:
                t[k] = trans[y, own.x]
                seen = image[y, own.x]
                for c in range(wp.static(channels)):
                    sums[k, c] = seen[c]
        begin = edges[tile]
        end = edges[tile + 1]
        for base in range(begin, end, _BLOCK):
            most = wp.tile_max(wp.tile(wp.max(t)))
            if most[0] <= _T_MIN:
                break
            mine = Row()
            value = Values()
            if base + lane < end:
                rank = owner[slots[base + lane]]
                mine = records[rank]
                value = values[order[rank]]
            chunk = wp.tile(mine, preserve_type=True)
            colours = wp.tile(value, preserve_type=True)
            for j in range(wp.min(_BLOCK, end - base)):
                g = chunk[j]
                colour = colours[j]
                rows = pixel_rows(g, wp.float32(own.top))
                for k in range(_PIXELS):
                    if 2 * k + 1 >= rows[0] and 2 * k <= rows[1]:
                        e = shape_at(g, own.centre, k)[3]
                        if e >= _ALPHA_MIN and t[k] > _T_MIN:
                            weight = wp.min(e, _ALPHA_MAX) * t[k]
                            t[k] -= weight
                            for c in range(wp.static(channels)):
                                sums[k, c] += weight * colour[c]
        for k in range(_PIXELS):
            y = own.y + 2 * k
            if y < height and own.x < width:
                trans[y, own.x] = t[k]
                out = Values()
                for c in range(wp.static(channels)):
                    out[c] = sums[k, c]
                image[y, own.x] = out

    return composite_forward


def moments(channels: int, probed: bool) -> int:
    """Numbers in the row of a slot: dL/dvalue, then v, vp, vq, vp dx, vp dy, vq dy, |vp|, ...

    v is alpha dL/dalpha summed over pixels, |vp| and |v_y vp + w vq| only for the probe.
    """
    return channels + (8 if probed else 6)


@no_type_check
@functools.cache
def backward(channels: int, probed: bool) -> Any:  # noqa: ANN401
    """Kernel that writes the row of sums of every slot in a batch of lists."""
    Values = wp.types.vector(length=channels, dtype=wp.float32)
    Grads = wp.types.matrix(shape=(8, channels), dtype=wp.float32)
    Moments = wp.types.vector(length=moments(channels, probed), dtype=wp.float32)

    @wp.kernel(module="unique", enable_backward=False)
    def composite_backward(
        edges: wp.array[wp.int32],
        slots: wp.array[wp.int32],
        owner: wp.array[wp.int32],
        order: wp.array[wp.int32],
        records: wp.array[Row],
        values: wp.array[Values],
        g_image: wp.array2d[Values],
        trans: wp.array2d[wp.float32],
        rest: wp.array2d[wp.float32],
        sums: wp.array[Moments],
    ) -> None:
        tile, lane = wp.tid()
        height = trans.shape[0]
        width = trans.shape[1]
        own = pixels_of(tile, lane, width)
        t = Eight()
        r = Eight()
        grads = Grads()
        for k in range(_PIXELS):
            y = own.y + 2 * k
            if y < height and own.x < width:
                t[k] = trans[y, own.x]
                r[k] = rest[y, own.x]
                g_pixel = g_image[y, own.x]
                for c in range(wp.static(channels)):
                    grads[k, c] = g_pixel[c]
        begin = edges[tile]
        end = edges[tile + 1]
        done = begin
        for base in range(begin, end, _BLOCK):
            most = wp.tile_max(wp.tile(wp.max(t)))
            if most[0] <= _T_MIN:
                break
            mine = Row()
            value = Values()
            if base + lane < end:
                rank = owner[slots[base + lane]]
                mine = records[rank]
                value = values[order[rank]]
            chunk = wp.tile(mine, preserve_type=True)
            colours = wp.tile(value, preserve_type=True)
            for j in range(wp.min(_BLOCK, end - base)):
                g = chunk[j]
                colour = colours[j]
                rows = pixel_rows(g, wp.float32(own.top))
                to_colour = Values()
                m = Eight()
                for k in range(_PIXELS):
                    if 2 * k + 1 >= rows[0] and 2 * k <= rows[1]:
                        at = shape_at(g, own.centre, k)
                        e = at[3]
                        if e >= _ALPHA_MIN and t[k] > _T_MIN:
                            alpha = wp.min(e, _ALPHA_MAX)
                            weight = alpha * t[k]
                            d = wp.float32(0.0)
                            for c in range(wp.static(channels)):
                                d += grads[k, c] * colour[c]
                                to_colour[c] += weight * grads[k, c]
                            r[k] -= weight * d
                            t[k] -= weight
                            if e <= _ALPHA_MAX:
                                v = weight * d - alpha * r[k] / (1.0 - alpha)
                                vp = v * at[0]
                                vq = v * at[1]
                                m[0] += v
                                m[1] += vp
                                m[2] += vq
                                m[3] += vp * (own.centre[0] - g[0])
                                m[4] += vp * at[2]
                                m[5] += vq * at[2]
                                if wp.static(probed):
                                    slope = g[3] * vp + g[4] * vq
                                    m[6] += wp.abs(vp)
                                    m[7] += wp.abs(slope)
                row = Moments()
                for c in range(wp.static(channels)):
                    row[c] = to_colour[c]
                for c in range(wp.static(8 if probed else 6)):
                    row[wp.static(channels) + c] = m[c]
                whole = wp.tile_sum(wp.tile(row, preserve_type=True))
                wp.tile_store(sums, whole, offset=slots[base + j])
            done = wp.min(base + _BLOCK, end)
        for base in range(done + lane, end, _BLOCK):
            sums[slots[base]] = Moments()
        for k in range(_PIXELS):
            y = own.y + 2 * k
            if y < height and own.x < width:
                trans[y, own.x] = t[k]
                rest[y, own.x] = r[k]

    return composite_backward


@no_type_check
@functools.cache
def reduce(channels: int, probed: bool) -> Any:  # noqa: ANN401
    """Kernel that adds the rows of each Gaussian and writes its gradients, in input order."""
    Values = wp.types.vector(length=channels, dtype=wp.float32)
    Moments = wp.types.vector(length=moments(channels, probed), dtype=wp.float32)

    @wp.kernel(module="unique", enable_backward=False)
    def composite_reduce(
        order: wp.array[wp.int32],
        records: wp.array[Row],
        start: wp.array[wp.int32],
        taken: wp.array[wp.int32],
        sums: wp.array[Moments],
        g_xy: wp.array[wp.vec2],
        g_factor: wp.array[wp.vec3],
        g_opacities: wp.array[wp.float32],
        g_values: wp.array[Values],
        g_probe: wp.array[wp.vec2],
    ) -> None:
        block, lane = wp.tid()
        rank = block * _BLOCK + lane
        first = wp.int32(0)
        many = wp.int32(0)
        if rank < taken.shape[0]:
            first = start[rank]
            many = taken[rank]
        row = Moments()
        if many <= _BLOCK:
            for s in range(first, first + many):
                row += sums[s]
        # what has more slots than that is added by all threads together
        firsts = wp.tile(first)
        counts = wp.tile(many)
        for j in range(wp.static(BLOCK)):
            if counts[j] > _BLOCK:
                part = Moments()
                for s in range(firsts[j] + lane, firsts[j] + counts[j], _BLOCK):
                    part += sums[s]
                whole = wp.tile_sum(wp.tile(part, preserve_type=True))
                total = whole[0]
                if lane == j:
                    row = total
        if many > 0:
            i = order[rank]
            g = records[rank]
            to_colour = Values()
            m = Eight()
            for c in range(wp.static(channels)):
                to_colour[c] = row[c]
            for c in range(wp.static(8 if probed else 6)):
                m[c] = row[wp.static(channels) + c]
            vp = m[1]
            vq = m[2]
            g_values[i] = to_colour
            g_opacities[i] = m[0] / g[5]
            g_xy[i] = wp.vec2(g[2] * vp, g[3] * vp + g[4] * vq)
            g_factor[i] = -wp.vec3(m[3], m[4], m[5])
            if wp.static(probed):
                g_probe[i] = wp.vec2(g[2] * m[6], m[7])

    return composite_reduce
