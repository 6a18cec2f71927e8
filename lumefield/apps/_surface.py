"""Surfaces to take signed distances from: triangle meshes and points with normals, in NumPy.

The sign is that of the generalised winding number (Jacobson et al., "Robust Inside-Outside
Segmentation using Generalized Winding Numbers", 2013; for points and for the sums over far parts:
Barill et al., "Fast Winding Numbers for Soups and Clouds", 2018), so that holes, self-intersections
and noise do no harm: a point is inside where the number is above one half.

Queries are sorted along a space-filling curve and answered in blocks of near neighbours: a block
walks once down a tree of the faces, takes far parts as one dipole each and near parts exactly.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from lumefield.apps._surface_tree import Tree, blocks

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
_CLOSE_POINTS = 8
"""Neighbours that give the spacing of a point cloud."""


@dataclass(frozen=True)
class Surface:
    """Triangles, or points that each stand for a small disc."""

    tree: Tree
    """Parts of the surface, in the tree's order."""
    corners: Doubles | None
    """(p, 3, 3) triangles; None for a point cloud."""
    near: Any
    """``KDTree`` of the vertices or points."""
    normals: Doubles
    """(n, 3) unit normals of the points; of the triangles for a mesh."""
    spacing: float
    """Typical distance of neighbouring points; 0 for a mesh."""

    @classmethod
    def of_mesh(cls, vertices: Doubles, faces: Ints) -> "Surface":
        """A triangle mesh; it need not be closed, clean or free of self-intersections.

        Raises:
            ValueError: If there is no triangle with an area.
        """
        corners = vertices[faces]
        vectors = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 2
        good = np.linalg.norm(vectors, axis=1) > 0
        if not good.any():
            raise ValueError("the mesh has no triangle with an area")
        corners, vectors = corners[good], vectors[good]
        centres = corners.mean(1)
        radii = np.linalg.norm(corners - centres[:, None], axis=-1).max(1)
        tree, order = Tree.build(centres, radii, vectors)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return cls(tree, corners[order], KDTree(corners.reshape(-1, 3)), unit[order], 0.0)

    @classmethod
    def of_points(cls, points: Doubles, normals: Doubles) -> "Surface":
        """Points with outward normals of any length but zero; each counts with its own area.

        The area of a point is that of a disc in which its neighbours would lie evenly.

        Raises:
            ValueError: If there are fewer than nine points.
        """
        if len(points) <= _CLOSE_POINTS:
            raise ValueError(f"{len(points)} points are no surface; expected at least 9")
        near = KDTree(points)
        reach = near.query(points, k=_CLOSE_POINTS + 1)[0][:, -1]
        unit = normals / np.linalg.norm(normals, axis=1, keepdims=True)
        area = np.pi * reach**2 / _CLOSE_POINTS
        tree, order = Tree.build(points, np.zeros(len(points)), unit * area[:, None])
        spacing = float(np.median(reach)) / 3**0.5
        return cls(tree, None, KDTree(points[order]), unit[order], spacing)

    def signed_distance(self, queries: Doubles) -> Doubles:
        """Distance to the surface at (q, 3) points, negative inside."""
        inside = self.winding(queries) > 0.5
        return np.where(inside, -1.0, 1.0) * self.distance(queries)

    def winding(self, queries: Doubles) -> Doubles:
        """Generalised winding number at (q, 3) points: about 1 inside, 0 outside."""
        out = np.zeros(len(queries))
        for rows in blocks(queries):
            q = queries[rows]
            far, parts = self.tree.split(q)
            total = _dipoles(q, *far)
            if len(parts):
                if self.corners is None:
                    total += _dipoles(q, self.tree.centres[parts], self.tree.vectors[parts])
                else:
                    total += _solid_angles(q, self.corners[parts])
            out[rows] = total / (4 * np.pi)
        return out

    def distance(self, queries: Doubles) -> Doubles:
        """Unsigned distance at (q, 3) points.

        For points it is that to the tangent plane of the nearest one where the query is almost
        above it, so that the surface between the points is not a row of dents.
        """
        bound, index = self.near.query(queries)
        if self.corners is None:
            offset = queries - self.near.data[index]
            height = np.abs((offset * self.normals[index]).sum(1))
            aside = np.sqrt(np.maximum(bound**2 - height**2, 0))
            return np.where(aside < 2 * self.spacing, height, bound)
        out = bound.copy()
        for rows in blocks(queries):
            q, limit = queries[rows], bound[rows]
            parts = self.tree.within(q, float(limit.max()))
            gap = _pairwise(q, self.tree.centres[parts]) - self.tree.radii[parts]
            which, part = np.nonzero(gap <= limit[:, None] * (1 + 1e-9))
            found = _to_triangles(q[which], self.corners[parts[part]])
            best = limit**2
            np.minimum.at(best, which, found)
            out[rows] = np.sqrt(best)
        return out

    def sample(self, count: int, rng: np.random.Generator) -> tuple[Doubles, Doubles]:
        """Points on the surface, uniform by area, with unit normals: two (count, 3)."""
        area = np.linalg.norm(self.tree.vectors, axis=1)
        chosen = rng.choice(len(area), count, p=area / area.sum())
        if self.corners is None:
            return self.near.data[chosen], self.normals[chosen]
        u, v = rng.uniform(size=(2, count, 1))
        fold = u + v > 1
        u, v = np.where(fold, 1 - u, u), np.where(fold, 1 - v, v)
        a, b, c = np.moveaxis(self.corners[chosen], 1, 0)
        return a + u * (b - a) + v * (c - a), self.normals[chosen]


def close_holes(vertices: Doubles, faces: Ints) -> tuple[Doubles, Ints, int]:
    """Span a fan over every loop of border edges: (vertices, faces, loops closed).

    Vertices at the same place are made one first.
    """
    vertices, same = np.unique(vertices, axis=0, return_inverse=True)
    faces = same.reshape(-1)[faces]
    faces = faces[(faces != np.roll(faces, 1, 1)).all(1)]
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    there = {(int(a), int(b)) for a, b in edges}
    follows: dict[int, list[int]] = {}
    for a, b in sorted(there):
        if (b, a) not in there:
            follows.setdefault(b, []).append(a)  # the cap runs the other way round
    more: list[tuple[int, int, int]] = []
    centres: list[Doubles] = []
    while follows:
        start = next(iter(follows))
        loop, at = [start], start
        while at in follows:
            at = _pop(follows, at)
            if at == start:
                break
            loop.append(at)
        if at == start and len(loop) >= 3:
            hub = len(vertices) + len(centres)
            centres.append(vertices[loop].mean(0))
            more += [(a, b, hub) for a, b in zip(loop, loop[1:] + loop[:1], strict=True)]
    if not more:
        return vertices, faces, 0
    whole = np.concatenate([faces, np.array(more, np.int64)])
    return np.concatenate([vertices, np.stack(centres)]), whole, len(centres)


def _pop(follows: dict[int, list[int]], at: int) -> int:
    ways = follows[at]
    to = ways.pop()
    if not ways:
        del follows[at]
    return to


def _pairwise(q: Doubles, p: Doubles) -> Doubles:
    squared = (q**2).sum(1)[:, None] + (p**2).sum(1) - 2 * (q @ p.T)
    return np.sqrt(np.maximum(squared, 0))


def _dipoles(q: Doubles, centres: Doubles, vectors: Doubles) -> Doubles:
    """Solid angles of far parts: area vectors (n, 3) at ``centres`` (Barill et al., Eq. 5)."""
    distance = np.maximum(_pairwise(q, centres), 1e-12)
    along = (centres * vectors).sum(1) - q @ vectors.T
    return (along / distance**3).sum(1)


def _solid_angles(q: Doubles, corners: Doubles) -> Doubles:
    """Sum of the signed solid angles of triangles (n, 3, 3) (Van Oosterom and Strackee, 1983).

    Everything is linear or bilinear in the query, so that it comes from products of matrices.
    """
    centre = q.mean(0)
    q, corners = q - centre, corners - centre
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    la, lb, lc = (_pairwise(q, p) for p in (a, b, c))
    squared = (q**2).sum(1)[:, None]
    ab, bc, ca = (squared + (u * v).sum(1) - q @ (u + v).T for u, v in ((a, b), (b, c), (c, a)))
    normal = np.cross(b - a, c - a)
    volume = (a * normal).sum(1) - q @ normal.T
    return 2 * np.arctan2(volume, la * lb * lc + ab * lc + bc * la + ca * lb).sum(1)


def _to_triangles(p: Doubles, corners: Doubles) -> Doubles:
    """Squared distance of point k to triangle k: the nearest of the plane and the three sides."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    normal = np.cross(b - a, c - a)
    height = ((p - a) * normal).sum(1)
    inside = np.ones(len(p), bool)
    best = np.full(len(p), np.inf)
    for u, v in ((a, b), (b, c), (c, a)):
        side, to = v - u, p - u
        inside &= (np.cross(side, to) * normal).sum(1) >= 0
        along = np.clip((to * side).sum(1) / np.maximum((side**2).sum(1), 1e-300), 0, 1)
        best = np.minimum(best, ((to - along[:, None] * side) ** 2).sum(1))
    return np.where(inside, height**2 / np.maximum((normal**2).sum(1), 1e-300), best)
