"""The `xla` backend: tile lists in static memory and a scan over depth rank, plain jnp.

The lists, a batch of depth ranks at a time, are made by ``_xla_bins``. An outer while loop takes
batch after batch, carrying the transmittance and the colours, so nothing is ever dropped: too small
a capacity costs time only. Inside a batch one scan step composites one Gaussian per tile on all
pixels of a group of tiles.

The backward pass walks the same batches front to back again with the residual
R = sum of what is still to come, weighted by the incoming gradient; nothing is stored per item.

Letters: T transmittance, P pixels of a tile, G tiles of a group, K ranks of a chunk, C channels.
Pixel arrays are (G, P): pixels along the lanes ((P, G) was measured 8 times slower).
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import sequential_vmap

from lumefield.render._spec import ALPHA_MAX, ALPHA_MIN, T_MIN
from lumefield.render._xla_bins import (
    Plan,
    Ranked,
    TileGroup,
    by_length,
    default_capacity,
    inside,
    rank_by_depth,
    tile_group,
    tile_lists,
    to_image,
    to_tiles,
)

CHUNK = 16
"""Depth ranks between two tests for early exit."""


def composite(
    xy: Array,
    factor: Array,
    opacities: Array,
    depth: Array,
    values: Array,
    probe: Array | None = None,
    *,
    height: int,
    width: int,
    capacity: int | None = None,
) -> tuple[Array, Array]:
    """Composite (N, C) values into an (H, W, C) image and the (H, W) transmittance.

    Same contract as ``composite_gaussians``, unbatched (``vmap`` runs one after the other).

    Args:
        xy: (N, 2) pixels.
        factor: (N, 3) triangular factor.
        opacities: (N,) in [0, 1].
        depth: (N,) sort key; receives no gradient.
        values: (N, C) channels.
        probe: (N, 2) zeros, added nowhere; its cotangent is the sum over pixels of |dL/dxy|.
            None when that sum is not wanted, which is quicker.
        height: Rows of the image.
        width: Columns of the image.
        capacity: Intersections of one batch; rounded up to a power of two and to the tile count.
    """
    n = xy.shape[0]
    wanted = default_capacity(n, height, width) if capacity is None else capacity
    least = default_capacity(1, height, width)
    size = max(2 ** math.ceil(math.log2(max(wanted, 2))), least)
    plan = Plan(height, width, size, probed=probe is not None)
    probe = jnp.zeros_like(xy) if probe is None else probe
    return _composite(plan, xy, factor, opacities, depth, values, probe)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _composite(
    plan: Plan,
    xy: Array,
    factor: Array,
    opacities: Array,
    depth: Array,
    values: Array,
    probe: Array,
) -> tuple[Array, Array]:
    del probe
    image, t = _sequential(_forward, plan)(xy, factor, opacities, depth, values)
    return image, t


def _composite_fwd(plan: Plan, *inputs: Array) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
    image, t = _sequential(_forward, plan)(*inputs[:5])
    return (image, t), (*inputs[:5], image, t)


def _composite_bwd(
    plan: Plan, saved: tuple[Array, ...], grads: tuple[Array, Array]
) -> tuple[Array, ...]:
    return _sequential(_backward, plan)(*saved, *grads)


_composite.defvjp(_composite_fwd, _composite_bwd)


def _sequential(
    f: Callable[..., tuple[Array, ...]], plan: Plan
) -> Callable[..., tuple[Array, ...]]:
    """``f`` with ``plan`` bound; batches run one after the other, so that vmap = loop exactly."""
    return sequential_vmap(functools.partial(f, plan))


# --- one Gaussian per tile --------------------------------------------------------------------


def _chunk(group: TileGroup, rows: Array, k: Array) -> tuple[Array, Array]:
    """(K, G) ranks (N where the list has ended) and their (K, 6 + C, G) rows."""
    i = group.start[None, :] + (k * CHUNK + jnp.arange(CHUNK, dtype=jnp.int32))[:, None]
    ok = i < group.end[None, :]
    rank = jnp.where(ok, group.ids[jnp.minimum(i, group.ids.shape[0] - 1)], rows.shape[0])
    picked = rows[jnp.minimum(rank, rows.shape[0] - 1)]
    picked = picked.at[:, :, 5].multiply(ok.astype(rows.dtype))
    return rank, picked.transpose(0, 2, 1)


def _more(group: TileGroup, k: Array, t: Array) -> Array:
    return (k * CHUNK < jnp.max(group.end - group.start)) & jnp.any(t > T_MIN)


class _Alpha(NamedTuple):
    """One Gaussian per tile on all pixels of a group, each (G, P)."""

    dx: Array
    dy: Array
    p: Array
    q: Array
    e: Array
    alpha: Array


def _alpha(group: TileGroup, f: Array, t: Array) -> _Alpha:
    dx, dy = group.px - f[0][:, None], group.py - f[1][:, None]
    p, q = f[2][:, None] * dx + f[3][:, None] * dy, f[4][:, None] * dy
    e = f[5][:, None] * jnp.exp(-0.5 * (p * p + q * q))
    alpha = jnp.where((e >= ALPHA_MIN) & (t > T_MIN), jnp.minimum(e, ALPHA_MAX), 0.0)
    return _Alpha(dx, dy, p, q, e, alpha)


# --- forward and backward ---------------------------------------------------------------------

_State = tuple[Array, Array, Array, Array]
_GroupStep = Callable[[TileGroup, Array, Array, Array], tuple[Array, Array, Array]]


def _batches(
    plan: Plan, ranked: Ranked, t: Array, carry: Array, pixels: Array, group_step: _GroupStep
) -> _State:
    """Run ``group_step`` over all groups of all batches until nothing is left to see.

    Args:
        plan: Static sizes.
        ranked: Gaussians in depth order.
        t: (all tiles, P) transmittance.
        carry: Handed from group to group.
        pixels: (all tiles, C, P), rewritten by each group.
        group_step: (group, carry, t (G, P), pixels (C, G, P)) -> the last three, updated.
    """
    visible = jnp.sum(ranked.touched > 0, dtype=jnp.int32)

    def body(loop: _State) -> _State:
        first, t, carry, pixels = loop
        ids, edges, last = tile_lists(plan, ranked, first)
        tiles = by_length(plan, edges)

        def one(carry: Array, index: Array) -> tuple[Array, tuple[Array, Array]]:
            group = tile_group(plan, ids, edges, index, t.dtype)
            carry, tg, pg = group_step(group, carry, t[index], pixels[index].transpose(1, 0, 2))
            return carry, (tg, pg.transpose(1, 0, 2))

        carry, (t_new, p_new) = lax.scan(one, carry, tiles)
        back = jnp.argsort(tiles.reshape(-1))
        t_new, p_new = t_new.reshape(t.shape)[back], p_new.reshape(pixels.shape)[back]
        return last, t_new, carry, p_new

    def more(loop: _State) -> Array:
        return (loop[0] < visible) & jnp.any(loop[1] > T_MIN)

    return lax.while_loop(more, body, (jnp.zeros((), jnp.int32), t, carry, pixels))


def _forward(
    plan: Plan, xy: Array, factor: Array, opacities: Array, depth: Array, values: Array
) -> tuple[Array, Array]:
    ranked = rank_by_depth(plan, xy, factor, opacities, depth, values)
    t = inside(plan, xy.dtype)
    pixels = jnp.zeros((t.shape[0], values.shape[1], t.shape[1]), xy.dtype)

    def group_step(
        group: TileGroup, carry: Array, t: Array, c: Array
    ) -> tuple[Array, Array, Array]:
        def body(loop: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            k, t, c = loop

            def step(tc: tuple[Array, Array], f: Array) -> tuple[tuple[Array, Array], None]:
                t, c = tc
                weight = _alpha(group, f, t).alpha * t
                return (t - weight, c + weight[None] * f[6:, :, None]), None

            (t, c), _ = lax.scan(step, (t, c), _chunk(group, ranked.rows, k)[1], unroll=4)
            return k + 1, t, c

        init = (jnp.zeros((), jnp.int32), t, c)
        _, t, c = lax.while_loop(lambda loop: _more(group, loop[0], loop[1]), body, init)
        return carry, t, c

    _, t, _, pixels = _batches(plan, ranked, t, jnp.zeros(()), pixels, group_step)
    return to_image(plan, pixels), to_image(plan, t[:, None])[..., 0]


def _backward(
    plan: Plan,
    xy: Array,
    factor: Array,
    opacities: Array,
    depth: Array,
    values: Array,
    image: Array,
    transmittance: Array,
    g_image: Array,
    g_transmittance: Array,
) -> tuple[Array, ...]:
    ranked = rank_by_depth(plan, xy, factor, opacities, depth, values)
    n, channels = values.shape
    rest = jnp.sum(g_image * image, -1) + g_transmittance * transmittance
    # rewritten per group: the residual; read only: the incoming gradient, carried beside it
    pixels = to_tiles(plan, jnp.concatenate([rest[..., None], g_image], -1))

    def group_step(
        group: TileGroup, sums: Array, t: Array, pixels: Array
    ) -> tuple[Array, Array, Array]:
        g = pixels[1:]

        def body(loop: _State) -> _State:
            k, t, rest, sums = loop
            rank, rows = _chunk(group, ranked.rows, k)

            def step(state: tuple[Array, Array], f: Array) -> tuple[tuple[Array, Array], Array]:
                t, rest = state
                a = _alpha(group, f, t)
                weight = a.alpha * t
                seen = weight * jnp.sum(g * f[6:, :, None], 0)
                rest = rest - seen
                # V = alpha dL/d alpha, zero where alpha was clamped
                v = jnp.where(a.e <= ALPHA_MAX, seen - a.alpha * rest / (1 - a.alpha), 0.0)
                return (t - weight, rest), _moments(plan, a, v, weight, f, g)

            (t, rest), moments = lax.scan(step, (t, rest), rows)
            return k + 1, t, rest, sums.at[rank].add(moments.transpose(0, 2, 1), mode="drop")

        init = (jnp.zeros((), jnp.int32), t, pixels[0], sums)
        _, t, rest, sums = lax.while_loop(lambda loop: _more(group, loop[0], loop[1]), body, init)
        return sums, t, jnp.concatenate([rest[None], g], 0)

    sums = jnp.zeros((n, channels + (8 if plan.probed else 6)), xy.dtype)
    t = inside(plan, xy.dtype)
    _, _, sums, _ = _batches(plan, ranked, t, sums, pixels, group_step)
    sums = jnp.zeros_like(sums).at[ranked.order].set(sums, unique_indices=True)
    return _gradients(plan.probed, factor, opacities, depth, sums)


def _moments(plan: Plan, a: _Alpha, v: Array, weight: Array, f: Array, g: Array) -> Array:
    """(6 + C or 8 + C, G) sums over pixels that the gradients of one Gaussian per tile need."""
    vp, vq = v * a.p, v * a.q
    parts = [v, vp, vq, vp * a.dx, vp * a.dy, vq * a.dy]
    if plan.probed:
        parts += [jnp.abs(vp), jnp.abs(f[3][:, None] * vp + f[4][:, None] * vq)]
    sums = jnp.stack([jnp.sum(x, -1) for x in parts])
    return jnp.concatenate([jnp.sum(weight[None] * g, -1), sums])


def _gradients(
    probed: bool, factor: Array, opacities: Array, depth: Array, sums: Array
) -> tuple[Array, ...]:
    """From the moments to the inputs: xy, factor, opacities, depth, values, probe."""
    u, v, w = factor[:, 0], factor[:, 1], factor[:, 2]
    channels = sums.shape[1] - (8 if probed else 6)
    m = [sums[:, i] for i in range(channels, sums.shape[1])]
    seen = m[0] != 0
    zero = jnp.zeros_like(depth)
    return (
        jnp.stack([u * m[1], v * m[1] + w * m[2]], -1),
        jnp.stack([-m[3], -m[4], -m[5]], -1),
        jnp.where(seen, m[0] / jnp.where(seen, opacities, 1.0), 0.0),
        zero,
        sums[:, :channels],
        jnp.stack([u * m[6], m[7]] if probed else [zero, zero], -1),
    )
