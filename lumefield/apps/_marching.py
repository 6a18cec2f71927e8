"""Marching cubes: a triangle mesh of the level set of values on a regular grid, in NumPy.

Lorensen and Cline, "Marching Cubes", 1987. The table of the 256 cases is not written out but made
at first use from two rules: on a face of a cube whose signs alternate the inside corners are cut
off from one another (the same for both cubes of the face, so surfaces of neighbours meet); and a
polygon is cut into triangles without a diagonal that lies in a face of the cube, so that no edge is
used by more than two triangles. The mesh of values that are outside along the border of the grid is
therefore closed, two-manifold along edges and oriented outwards, whatever the values are.
"""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

_CORNERS = np.array([[c & 1, c >> 1 & 1, c >> 2] for c in range(8)])
"""Corner c of a cube at (x, y, z); bit 0 of c is x."""
_EDGES = [(a, b) for a in range(8) for b in range(8) if a < b and (a ^ b) in (1, 2, 4)]
"""The twelve edges by their corners, the lower one first."""


class Mesh(NamedTuple):
    """Triangles."""

    vertices: Doubles
    """(v, 3) positions."""
    faces: Ints
    """(f, 3) corners, counter-clockwise seen from outside."""


def marching_cubes(
    values: NDArray[np.floating],
    *,
    level: float = 0.0,
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0),
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    close: bool = False,
) -> Mesh:
    """The surface where ``values`` pass ``level``; inside is below it.

    Vertices lie on the grid's edges by linear interpolation, one for every edge that is crossed;
    they keep a thousandth of the edge away from its ends, so that no triangle is degenerate.

    Args:
        values: (nx, ny, nz) samples, such as signed distances (negative inside).
        level: Value of the surface.
        origin: Position of ``values[0, 0, 0]``.
        spacing: Distance of neighbours along each axis.
        close: Cap what is inside along the border of the grid, so that the mesh is closed.

    Raises:
        ValueError: If the grid has an axis below 2, or holds values that are not finite.
    """
    if values.ndim != 3 or min(values.shape) < 2:
        raise ValueError(
            f"values have shape {values.shape}, expected (nx, ny, nz), each at least 2"
        )
    if not np.isfinite(values).all():
        raise ValueError("values hold NaN or infinity; marching cubes needs finite values")
    start = np.asarray(origin, np.float64)
    if close:
        outside = max(float(values.max()), level) + 1.0
        values = np.pad(values, 1, constant_values=outside)
        start = start - np.asarray(spacing)
    field = values.astype(np.float64) - level
    inside = field < 0
    nx, ny, nz = (n - 1 for n in field.shape)
    code = np.zeros((nx, ny, nz), np.uint8)
    for c, (i, j, k) in enumerate(_CORNERS):
        part = inside[i : i + nx, j : j + ny, k : k + nz]
        code |= part.astype(np.uint8) << np.uint8(c)
    cells = np.argwhere((code != 0) & (code != 255))
    table, counts = _table()
    cases = code[tuple(cells.T)]
    owner = np.repeat(np.arange(len(cells)), counts[cases])
    rank = np.arange(len(owner)) - np.repeat(
        np.cumsum(counts[cases]) - counts[cases], counts[cases]
    )
    triangles = table[cases[owner], rank]  # (f, 3) edges of the cube
    ends = np.array(_EDGES)
    lower = cells[owner][:, None] + _CORNERS[ends[triangles, 0]]  # (f, 3, 3) grid points
    axis = np.log2(ends[:, 0] ^ ends[:, 1]).astype(np.int64)[triangles]
    flat = np.ravel_multi_index(tuple(np.moveaxis(lower, -1, 0)), field.shape) * 3 + axis
    used, faces = np.unique(flat, return_inverse=True)
    points, along = np.stack(np.unravel_index(used // 3, field.shape), -1), used % 3
    step = np.eye(3, dtype=np.int64)[along]
    a, b = field[tuple(points.T)], field[tuple((points + step).T)]
    share = np.clip(a / (a - b), 1e-3, 1 - 1e-3)
    vertices = start + (points + step * share[:, None]) * np.asarray(spacing, np.float64)
    return Mesh(vertices, faces.reshape(-1, 3))


@cache
def _table() -> tuple[Ints, Ints]:
    """For each of 256 cases its triangles (256, most, 3) as edges of the cube, and their number."""
    cases = [_case(code) for code in range(256)]
    table = np.zeros((256, max(map(len, cases)), 3), np.int64)
    for code, triangles in enumerate(cases):
        table[code, : len(triangles)] = np.array(triangles, np.int64).reshape(-1, 3)
    return table, np.array([len(t) for t in cases], np.int64)


def _case(code: int) -> list[tuple[int, int, int]]:
    follows: dict[int, int] = {}
    for face in _faces():
        follows.update(_segments(face, code))
    triangles: list[tuple[int, int, int]] = []
    while follows:
        first, edge = next(iter(follows.items()))
        loop = [first]
        del follows[first]
        while edge != first:
            loop.append(edge)
            edge = follows.pop(edge)
        triangles += next(t for t in _triangulations(loop) if _is_clean(t, loop))
    return triangles


@cache
def _faces() -> list[tuple[int, int, int, int]]:
    """Corners of the six faces, counter-clockwise seen from outside the cube."""
    faces: list[tuple[int, int, int, int]] = []
    for axis in range(3):
        u, v = 1 << (axis + 1) % 3, 1 << (axis + 2) % 3
        faces.append((0, v, u | v, u))
        high = 1 << axis
        faces.append((high, high | u, high | u | v, high | v))
    return faces


def _segments(face: tuple[int, int, int, int], code: int) -> Iterator[tuple[int, int]]:
    """Crossings (from edge, to edge) of a face, with the inside on the right seen from outside."""
    signs = [code >> c & 1 for c in face]
    for k in range(4):
        if not signs[k] and signs[(k + 1) % 4]:  # around the face, the inside begins here ...
            last = next(m for m in range(k + 1, k + 5) if not signs[(m + 1) % 4])
            begin = _edge(face[k], face[(k + 1) % 4])
            yield begin, _edge(face[last % 4], face[(last + 1) % 4])  # ... and ends there


def _edge(a: int, b: int) -> int:
    return _EDGES.index((min(a, b), max(a, b)))


def _triangulations(loop: list[int]) -> Iterator[list[tuple[int, int, int]]]:
    """Every way to cut a polygon into triangles."""
    if len(loop) < 3:
        yield []
        return
    for k in range(1, len(loop) - 1):
        for left in _triangulations(loop[: k + 1]):
            for right in _triangulations(loop[k:]):
                yield [*left, (loop[0], loop[k], loop[-1]), *right]


def _is_clean(triangles: list[tuple[int, int, int]], loop: list[int]) -> bool:
    """Whether no diagonal of the polygon lies in a face of the cube."""
    sides = {frozenset(pair) for pair in zip(loop, loop[1:] + loop[:1], strict=True)}
    for a, b, c in triangles:
        for pair in (frozenset((a, b)), frozenset((b, c)), frozenset((c, a))):
            corners = {corner for edge in pair for corner in _EDGES[edge]}
            if pair not in sides and any(corners <= set(face) for face in _faces()):
                return False
    return True
