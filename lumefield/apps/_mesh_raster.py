"""Which triangle of a mesh each pixel of a view shows: a z-buffer in NumPy.

All pixels that the triangles' bounding boxes touch are candidates; those inside remain, and the
nearest of a pixel wins. Triangles that reach behind the camera are left out, as a mesh of fine
triangles loses nothing by it.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._marching import Mesh
from lumefield.apps._views import Views

Doubles = NDArray[np.float64]

_CHUNK = 1 << 22
"""Candidates that are looked at together."""


class Shown(NamedTuple):
    """The pixels of a view that show the mesh."""

    pixels: NDArray[np.int64]
    """(p,) row * width + column, ascending."""
    faces: NDArray[np.int64]
    """(p,) which triangle."""
    shares: Doubles
    """(p, 3) barycentric coordinates on it, right for perspective."""
    depth: Doubles
    """(p,) camera Z."""


def rasterised(mesh: Mesh, views: Views) -> Shown:
    """What the first of the views shows at its pixel centres.

    Args:
        mesh: World units; seen from both sides.
        views: The camera.
    """
    width, height = (int(v) for v in views.size[0])
    pose = views.world_from_cam[0]
    local = (mesh.vertices - pose[:, 3]) @ pose[:, :3]
    z = local[:, 2]
    near = 1e-6 * max(float(np.abs(z).max(initial=0)), 1e-12)
    flat = local[:, :2] / np.maximum(z, near)[:, None] * views.focal[0] + views.centre[0]
    corners = flat[mesh.faces]
    low = np.ceil(corners.min(1) - 0.5).clip(0)
    high = np.floor(corners.max(1) - 0.5).clip(max=[width - 1, height - 1])
    ahead = (z[mesh.faces] > near).all(1) & (high >= low).all(1)
    order = np.flatnonzero(ahead)
    count = ((high - low + 1)[order]).astype(np.int64)
    area = count.prod(1)
    ends = np.cumsum(area)
    best = np.full(width * height, np.inf)
    owner = np.full(width * height, -1, np.int64)
    share = np.zeros((width * height, 3))
    first = 0
    while first < len(order):
        start = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, start + _CHUNK, "right")))
        some = order[first:last]
        pixel, face, part, depth = _inside(
            some, area[first:last], count[first:last], low, corners, z[mesh.faces[some]], width
        )
        rank = np.argsort(-depth, kind="stable")  # of equal pixels the last, nearest, is kept
        pixel, face, part, depth = pixel[rank], face[rank], part[rank], depth[rank]
        winner = np.full(width * height, -1, np.int64)
        winner[pixel] = np.arange(len(pixel))
        touched = np.unique(pixel)
        at = winner[touched]
        nearer = depth[at] < best[touched]
        touched, at = touched[nearer], at[nearer]
        best[touched], owner[touched], share[touched] = depth[at], face[at], part[at]
        first = last
    pixels = np.flatnonzero(owner >= 0)
    return Shown(pixels, owner[pixels], share[pixels], best[pixels])


def _inside(
    some: NDArray[np.int64],
    area: NDArray[np.int64],
    count: NDArray[np.int64],
    low: Doubles,
    corners: Doubles,
    z: Doubles,
    width: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], Doubles, Doubles]:
    """Pixels (p,) whose centres are in triangles, which, barycentric coordinates and depths."""
    row = np.repeat(np.arange(len(some)), area)
    at = np.arange(len(row)) - np.repeat(np.cumsum(area) - area, area)
    face = some[row]
    x = low[face, 0] + at % count[row, 0] + 0.5
    y = low[face, 1] + at // count[row, 0] + 0.5
    a, b, c = (corners[some, k] for k in range(3))
    whole = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    whole = np.where(np.abs(whole) > 1e-12, whole, np.inf)

    def against(p: Doubles, q: Doubles) -> Doubles:
        side = (q[row, 0] - p[row, 0]) * (y - p[row, 1]) - (q[row, 1] - p[row, 1]) * (x - p[row, 0])
        return side / whole[row]

    flat = np.stack([against(b, c), against(c, a), against(a, b)], 1)
    keep = (flat >= -1e-9).all(1) & np.isfinite(whole[row])
    row, flat = row[keep], flat[keep].clip(0)
    inverse = flat / z[row]
    depth = 1 / inverse.sum(1)
    pixel = (y[keep] - 0.5).astype(np.int64) * width + (x[keep] - 0.5).astype(np.int64)
    return pixel, some[row], inverse * depth[:, None], depth
