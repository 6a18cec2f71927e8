"""Which cells of space hold anything: a cascade of grids, kept up to date while a field trains.

Müller et al., "Instant Neural Graphics Primitives", 2022, App. E.2. We differ in what is visited: a
fixed part of the cells in turn, so that shapes are static and every cell has its turn, and in the
decay, which a cell gets for the updates since its last visit. Letters: L levels of n^3 cells, axes
x, y, z; level l covers [-2^l, 2^l]^3.
"""

import dataclasses
import math
import typing
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array, lax
from jaxtyping import Bool, Float, Int32, PRNGKeyArray, UInt8

UNKNOWN = 1e4
"""Density of a cell before its first visit: occupied."""
_WEYL = (3518319155, 2882110345, 2360945575)
"""2^32 times the powers of 1 / 1.22074...: steps that fill a cube evenly (Roberts, 2018)."""
NEVER = -1.0
"""Density of a cell that ``without`` took out."""


@typing.no_type_check
@struct.dataclass
class Occupancy:
    """A pure value: part of the state of a training, saved and resumed with it."""

    density: Float[Array, "l n n n"]
    """Decaying maximum of the density seen in a cell, inverse units of the cascade; < 0 = never."""
    occupied: UInt8[Array, "l n n n"]
    """1 where rays are to be sampled, for ``march``."""
    updates: Int32[Array, ""]
    """How often it was updated."""

    @classmethod
    def full(cls, n: int = 128, levels: int = 1) -> "Occupancy":
        """All cells occupied: nothing is known yet.

        Args:
            n: Cells per axis, a multiple of 4 so that the cells of a level tile those of the next
                coarser one; marching skips fastest with a multiple of 16.
            levels: L; the cascade covers [-2^(L-1), 2^(L-1)]^3.

        Raises:
            ValueError: If the numbers do not fit.
        """
        if n < 4 or n % 4 or levels < 1:
            raise ValueError(
                f"n={n}, levels={levels}, expected n a positive multiple of 4 and at least 1 level"
            )
        shape = (levels, n, n, n)
        return cls(
            density=jnp.full(shape, UNKNOWN, jnp.float32),
            occupied=jnp.ones(shape, jnp.uint8),
            updates=jnp.zeros((), jnp.int32),
        )

    def centres(self) -> Float[Array, "l n n n 3"]:
        """Centres of all cells, in the units of the cascade."""
        levels, n = self.density.shape[:2]
        axis = (jnp.arange(n, dtype=jnp.float32) + 0.5) * (2 / n) - 1
        unit = jnp.stack(jnp.meshgrid(axis, axis, axis, indexing="ij"), -1)
        scale = 2.0 ** jnp.arange(levels, dtype=jnp.float32)
        return unit[None] * scale[:, None, None, None, None]

    def without(self, mask: Bool[Array, "l n n n"]) -> "Occupancy":
        """Take cells out for good, such as those that no camera sees.

        A coarse cell that holds an occupied finer one stays occupied.

        Raises:
            ValueError: If the mask has another shape.
        """
        if mask.shape != self.density.shape:
            raise ValueError(f"mask has shape {mask.shape}, expected {self.density.shape}")
        return dataclasses.replace(
            self,
            density=jnp.where(mask, NEVER, self.density),
            occupied=_cascaded(jnp.where(mask, 0, self.occupied).astype(jnp.uint8)),
        )

    def fraction(self) -> Float[Array, ""]:
        """Share of occupied cells."""
        return jnp.mean(self.occupied.astype(jnp.float32))

    def updated(
        self,
        density: Callable[[Array], Array],
        key: PRNGKeyArray,
        *,
        step: float,
        parts: int = 8,
        decay: float = 0.95,
        threshold: float = 0.01,
    ) -> "Occupancy":
        """Look at the density of one part of the cells and decide anew which are occupied.

        A visited cell keeps max(decay^parts x what it had, density at a random point in it); its
        first visit forgets that nothing was known. Occupied is what has an optical depth per
        shortest step of at least min(threshold, mean over the cells). Pure, and of static shape.

        Args:
            density: Points (P, 3) in the units of the cascade -> (P,) density, P = L n^3 / parts.
            key: Random key for the points.
            step: Shortest step of marching, the first of ``step_edges``.
            parts: The cells are visited in this many updates; divides n.
            decay: Factor per update.
            threshold: Optical depth of a step that counts as something.

        Raises:
            ValueError: If ``parts`` does not divide n.
        """
        levels, n = self.density.shape[:2]
        if parts < 1 or n % parts:
            raise ValueError(f"parts={parts}, expected a divisor of n={n}")
        turn = (self.updates * _stride(parts)) % parts
        grid = self.density.reshape(levels, n // parts, parts, n, n)
        old = lax.dynamic_index_in_dim(grid, turn, 2, keepdims=False)
        fresh = jnp.maximum(density(_points(key, old.shape, turn, parts)).reshape(old.shape), 0)
        first = self.updates < parts
        kept = jnp.where(first, jnp.zeros_like(old), old * decay**parts)
        new = jnp.where(old < 0, old, jnp.maximum(kept, fresh.astype(old.dtype)))
        grid = lax.dynamic_update_index_in_dim(grid, new, turn, 2).reshape(self.density.shape)

        tau = jnp.maximum(grid, 0) * step
        known = jnp.sum((grid >= 0).astype(tau.dtype))
        # 0.999: where all cells are equal, all are occupied, whatever the rounding of their mean
        cut = jnp.minimum(threshold, 0.999 * jnp.sum(tau) / jnp.maximum(known, 1))
        return Occupancy(
            density=grid,
            occupied=_cascaded(((tau >= cut) & (grid >= 0)).astype(jnp.uint8)),
            updates=self.updates + 1,
        )


def _stride(parts: int) -> int:
    """A step that visits all phases 0 .. parts - 1, neighbours far apart in time."""
    wanted = max(1, round(0.618 * parts))
    return next(i for i in range(wanted, wanted + parts + 1) if _coprime(i, parts))


def _coprime(a: int, b: int) -> bool:
    while b:
        a, b = b, a % b
    return a == 1


def _points(key: PRNGKeyArray, shape: tuple[int, ...], turn: Array, parts: int) -> Array:
    """(P, 3) random points, one in each visited cell: those with x = turn, turn + parts, ..."""
    levels, n = shape[0], shape[2]
    index = jnp.arange(math.prod(shape), dtype=jnp.uint32)[:, None]
    weyl = index * jnp.asarray(_WEYL, jnp.uint32)[None] + jax.random.bits(key, (1, 3), jnp.uint32)
    within = (weyl >> 8).astype(jnp.float32).reshape(*shape, 3) * 2.0**-24
    x = (jnp.arange(shape[1]) * parts + turn).astype(jnp.float32)
    yz = jnp.arange(n, dtype=jnp.float32)
    corner = jnp.stack(jnp.meshgrid(x, yz, yz, indexing="ij"), -1)
    unit = (corner[None] + within) * (2 / n) - 1
    scale = 2.0 ** jnp.arange(levels, dtype=jnp.float32)
    return (unit * scale[:, None, None, None, None]).reshape(-1, 3)


def _cascaded(occupied: Array) -> Array:
    """Each level also occupied where the next finer one is, so that a coarse 0 means empty."""
    levels, n = occupied.shape[:2]
    out = [occupied[0]]
    lo, hi, half = n // 4, 3 * n // 4, n // 2
    for i in range(1, levels):
        pooled = jnp.max(out[-1].reshape(half, 2, half, 2, half, 2), (1, 3, 5))
        middle = jnp.maximum(occupied[i, lo:hi, lo:hi, lo:hi], pooled)
        out.append(occupied[i].at[lo:hi, lo:hi, lo:hi].set(middle))
    return jnp.stack(out)
