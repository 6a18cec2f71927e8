"""First motion of inter frames: block matching on the frames themselves, into the latents.

What gradients alone would find is the nearest local minimum. Displacements are judged by how unlike
the frame the mean of both references is, moved along one straight line. From the coarsest level of
motion to the finest, each cell takes the displacement that is best for its pixels when a change
against what the coarser levels say is charged as bits would be: a latent serves 64 pixels at the
finest level, four times as many at each coarser one.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lumefield.codecs.neural._motion import (
    CELL_BITS,
    PHASES,
    PLANES,
    RATIO_BITS,
    motion_sizes,
)
from lumefield.codecs.neural._order import Role
from lumefield.codecs.overfit._chroma import doubling

_REACH = 24
"""Pixels searched either way."""
_LIMITS = (4, 4, 8, 10)
"""Largest first latents by level: an outlier beyond what its distribution reaches is clipped in the
end, and until then has no gradient that says so."""
_CHANGE, _PER_PIXEL = 0.8, 0.15
"""Mean difference, in 1/255, that any change weighs at the finest level, and each pixel of it."""


def start_motion(
    luma: np.ndarray, order: tuple[Role, ...], units: Array
) -> list[tuple[Array, ...]]:
    """Motion latents of each inter frame, (5, h, w) a level.

    Args:
        luma: (g, h, w) of all frames of the group, [0, 16].
        order: Inter frames.
        units: (kinds, levels) value of a latent of 1, sixteenths of a pixel.
    """
    out = list[tuple[Array, ...]]()
    pictures = jnp.asarray(luma * (255 / 16))
    sizes = motion_sizes(luma.shape[1], luma.shape[2])
    for role in order:
        costs = np.asarray(
            _costs(
                pictures[role.place],
                pictures[role.first],
                pictures[role.second],
                role.ratio / (1 << RATIO_BITS),
            )
        )
        levels = [np.zeros((PLANES, *size), np.float32) for size in sizes]
        for level, value in zip(
            levels, _descended(costs, np.asarray(units)[0], sizes), strict=True
        ):
            level[:2] = value
        out.append(tuple(jnp.asarray(level) for level in levels))
    return out


def _descended(
    costs: np.ndarray, units: np.ndarray, sizes: tuple[tuple[int, int], ...]
) -> list[np.ndarray]:
    """Whole numbers (2, h, w) of each level: x and y of what it adds to the coarser ones.

    Args:
        costs: (n, n, h, w) of each displacement y, x, for the cells of the finest level.
        units: Value of a latent of 1 by level, sixteenths of a pixel.
        sizes: Of the levels, finest first.
    """
    volumes = [costs]
    for h, w in sizes[1:]:
        fine = volumes[-1]
        grown = ((0, 0), (0, 0), (0, 2 * h - fine.shape[2]), (0, 2 * w - fine.shape[3]))
        even = np.pad(fine, grown, "edge")
        volumes.append(even.reshape(*fine.shape[:2], h, 2, w, 2).mean((3, 5)))
    shifts = np.arange(-_REACH, _REACH + 1, dtype=np.float32)
    so_far, levels = np.zeros((2, *sizes[-1]), np.float32), list[np.ndarray]()
    for i in reversed(range(len(sizes))):
        apart = (np.abs(shifts[:, None, None] - so_far[k] / PHASES) for k in (1, 0))
        down, across = apart
        away = down[:, None] + across[None]
        charge = (_CHANGE * np.minimum(away, 1) + _PER_PIXEL * away) / 4**i
        best = (volumes[i] + charge).reshape(len(shifts) ** 2, -1).argmin(0)
        found = PHASES * np.stack([shifts[best % len(shifts)], shifts[best // len(shifts)]])
        change = found.reshape(2, *sizes[i]) - so_far
        change = np.where(np.abs(change) < PHASES / 2, 0, change)
        levels.insert(0, np.rint(change / units[i]).clip(-_LIMITS[i], _LIMITS[i]))
        so_far = so_far + levels[0] * units[i]
        if i:
            down, across = (doubling(a, b) for a, b in zip(sizes[i], sizes[i - 1], strict=True))
            so_far = np.einsum("yh,chw,xw->cyx", down, so_far, across)
    return levels


@functools.partial(jax.jit, static_argnums=3)
def _costs(frame: Array, first: Array, second: Array, ratio: float) -> Array:
    """(n, n, h, w) mean difference of every cell's window at each displacement y, x."""
    h, w = frame.shape
    cell = 1 << CELL_BITS
    rows, columns = -(-h // cell), -(-w // cell)
    pad = 2 * _REACH + 2
    a, b = (jnp.pad(p, pad + int(abs(ratio)) * _REACH, mode="edge") for p in (first, second))
    margin = pad + int(abs(ratio)) * _REACH
    shifts = jnp.arange(-_REACH, _REACH + 1)

    def cost(dy: Array, dx: Array) -> Array:
        at = (margin + dy, margin + dx)
        other = tuple(
            margin + jnp.round(ratio * d.astype(jnp.float32)).astype(jnp.int32) for d in (dy, dx)
        )
        mean = jax.lax.dynamic_slice(a, at, (h, w)) + jax.lax.dynamic_slice(b, other, (h, w))
        error = jnp.abs(frame - mean / 2)
        tall = jnp.pad(error, ((0, rows * cell - h), (0, columns * cell - w)), mode="edge")
        cells = tall.reshape(rows, cell, columns, cell).mean((1, 3))
        near = jnp.pad(cells, 1, mode="edge")
        window = sum(
            near[i : i + rows, j : j + columns] * (0.25, 0.5, 0.25)[i] * (0.25, 0.5, 0.25)[j]
            for i in range(3)
            for j in range(3)
        )
        return jnp.asarray(window)

    def line(dy: Array) -> Array:
        return jax.lax.map(functools.partial(cost, dy), shifts)

    return jax.lax.map(line, shifts)
