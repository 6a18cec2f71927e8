"""A tree over the parts of a surface, walked once by a block of neighbouring queries.

Parts lie in the order of a space-filling curve, and ``FAN`` neighbours of one level are a node of
the next: no pointers, a node's children are the rows ``FAN k`` to ``FAN k + FAN - 1`` below it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

FAN = 8
"""Children of a node."""
BLOCK = 64
"""Queries answered together."""
FAR = 2.3
"""A node counts as far from this many of its radii on (Barill et al., 2018, use 2)."""


@dataclass(frozen=True)
class Tree:
    """Levels from the parts themselves (first) up to a few nodes (last)."""

    levels: tuple[tuple[Doubles, Doubles, Doubles], ...]
    """(centres (n, 3), radii (n), sums of area vectors (n, 3)) of each level."""

    @classmethod
    def build(cls, centres: Doubles, radii: Doubles, vectors: Doubles) -> tuple["Tree", Ints]:
        """A tree over parts, and the order (p,) in which it holds them."""
        order = np.argsort(curve_place(centres), kind="stable")
        level = (centres[order], radii[order], vectors[order])
        levels = [level]
        while len(level[0]) > 2 * FAN:
            level = _above(*level)
            levels.append(level)
        return cls(tuple(levels)), order

    @property
    def centres(self) -> Doubles:
        """(p, 3) centres of the parts."""
        return self.levels[0][0]

    @property
    def radii(self) -> Doubles:
        """(p,) radii of the parts about their centres."""
        return self.levels[0][1]

    @property
    def vectors(self) -> Doubles:
        """(p, 3) area vectors of the parts."""
        return self.levels[0][2]

    def split(self, queries: Doubles) -> tuple[tuple[Doubles, Doubles], Ints]:
        """What a block of queries sees: (centres, area vectors) of far nodes, and near parts."""
        middle, reach = ball(queries)
        centres: list[Doubles] = []
        vectors: list[Doubles] = []
        nodes = np.arange(len(self.levels[-1][0]))
        for depth in range(len(self.levels) - 1, -1, -1):
            c, r, v = (values[nodes] for values in self.levels[depth])
            far = np.linalg.norm(c - middle, axis=1) - reach > FAR * r
            if depth == 0:
                far &= r > 0  # points are dipoles themselves: exact either way
            centres.append(c[far])
            vectors.append(v[far])
            nodes = nodes[~far]
            if depth:
                nodes = self._children(nodes, depth)
        return (np.concatenate(centres), np.concatenate(vectors)), nodes

    def within(self, queries: Doubles, distance: float) -> Ints:
        """Parts that may be within ``distance`` of a query of the block."""
        middle, reach = ball(queries)
        nodes = np.arange(len(self.levels[-1][0]))
        for depth in range(len(self.levels) - 1, -1, -1):
            c, r, _ = (values[nodes] for values in self.levels[depth])
            gap = np.linalg.norm(c - middle, axis=1) - reach - r
            nodes = nodes[gap <= distance * (1 + 1e-9)]
            if depth:
                nodes = self._children(nodes, depth)
        return nodes

    def _children(self, nodes: Ints, depth: int) -> Ints:
        below = (nodes[:, None] * FAN + np.arange(FAN)).reshape(-1)
        return below[below < len(self.levels[depth - 1][0])]


def blocks(queries: Doubles) -> Iterator[Ints]:
    """Rows of ``queries`` in blocks of near neighbours."""
    order = np.argsort(curve_place(queries), kind="stable")
    for start in range(0, len(order), BLOCK):
        yield order[start : start + BLOCK]


def ball(points: Doubles) -> tuple[Doubles, float]:
    """Centre and radius of a ball around points."""
    middle = (points.min(0) + points.max(0)) / 2
    return middle, float(np.linalg.norm(points - middle, axis=1).max())


def curve_place(points: Doubles) -> NDArray[np.uint64]:
    """Place of each point on the Z-order curve of their bounding box, 20 bits per axis."""
    if not len(points):
        return np.zeros(0, np.uint64)
    low, high = points.min(0), points.max(0)
    cells = ((points - low) / np.maximum((high - low).max(), 1e-300) * (2**20 - 1)).astype(
        np.uint64
    )
    code = np.zeros(len(points), np.uint64)
    for bit in range(20):
        for axis in range(3):
            code |= (cells[:, axis] >> np.uint64(bit) & np.uint64(1)) << np.uint64(3 * bit + axis)
    return code


def _above(centres: Doubles, radii: Doubles, vectors: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """The level above: middles weighted by area, radii that hold everything below."""
    starts = np.arange(0, len(centres), FAN)
    weight = np.linalg.norm(vectors, axis=1) + 1e-300
    total = np.add.reduceat(weight, starts)
    middle = np.add.reduceat(centres * weight[:, None], starts) / total[:, None]
    owner = np.repeat(np.arange(len(starts)), FAN)[: len(centres)]
    reach = np.linalg.norm(centres - middle[owner], axis=1) + radii
    return middle, np.maximum.reduceat(reach, starts), np.add.reduceat(vectors, starts)
