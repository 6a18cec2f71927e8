"""Laying a mesh out flat: charts by the direction that faces have, packed in rows.

Every face goes to the one of six directions that it and its neighbours face most; a chart is a
connected set of faces of one direction, projected along it. Where a chart lies over itself, the
hidden faces are taken out into charts of their own; large charts are cut. All charts have one
scale, so a texel is as long everywhere, seen along the direction of its chart.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._marching import Mesh
from lumefield.apps._mesh_raster import rasterised
from lumefield.apps._views import Views
from lumefield.errors import InputError

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

BORDER = 2
"""Texels around a chart that repeat its edge."""
_VOTES = 12
"""Rounds in which the direction of a face is averaged with those of its neighbours."""
_STEEPEST = 0.35
"""Least share of a length that is left when a face is projected."""
_FOLDS = 4096
"""Most texels along the raster on which faces over one another are found."""
_CUT = 6
"""Charts are cut into pieces of this share of the picture's side, which pack better."""
_LAYERS = 6
"""Times that what lies under something is taken out; what is left then becomes single faces."""


class Laid(NamedTuple):
    """A mesh whose vertices are split along the borders of its charts."""

    vertices: Ints
    """(w,) the vertex of the mesh that each is."""
    faces: Ints
    """(f, 3) corners, in the order of the mesh's faces."""
    uv: Doubles
    """(w, 2) in [0, 1]; (0, 0) is the upper left corner of the picture."""


def laid_out(mesh: Mesh, size: int) -> Laid:
    """Texture coordinates of a mesh on a square picture.

    Args:
        mesh: At least one face.
        size: Texels along a side of the picture.

    Raises:
        InputError: If there are more charts than the picture has room for.
    """
    axis = _voted(mesh, _facing(mesh))
    flat = _projected(mesh, axis)
    reach = np.sqrt(np.abs(_area(flat)).sum() * 1.5) / _CUT
    cell = np.floor((flat.mean(1) - flat.min((0, 1))) / reach).astype(np.int64)
    chart = _connected(mesh, (axis * 4096 + cell[:, 0]) * 4096 + cell[:, 1])
    chart = np.unique(_unfolded(mesh, chart, flat), return_inverse=True)[1]
    flat, size_of = _from_corner(flat, chart)
    scale, corner = _packed(size_of, size)
    uv = (flat * scale + corner[chart][:, None] + BORDER) / size
    key = chart[:, None] * len(mesh.vertices) + mesh.faces
    found: Any = np.unique(key.reshape(-1), return_index=True, return_inverse=True)
    _, first, faces = found
    return Laid(
        mesh.faces.reshape(-1)[first], faces.reshape(-1, 3), uv.reshape(-1, 2)[first].clip(0, 1)
    )


def _facing(mesh: Mesh) -> Doubles:
    """How much each face (f, 6) faces +x, -x, +y, -y, +z and -z, times its area."""
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces], 1, 0)
    normal = np.cross(b - a, c - a)
    return np.stack([normal, -normal], -1).reshape(-1, 6)


def _voted(mesh: Mesh, facing: Doubles) -> Ints:
    """The direction (f,) of each face, alike in patches."""
    length = np.linalg.norm(facing, axis=1, keepdims=True)
    own = facing / np.maximum(length, 1e-30)
    left, right = _neighbours(mesh)
    mean = own.copy()
    for _ in range(_VOTES):
        total = mean.copy()
        for column in range(6):
            total[:, column] += np.bincount(left, mean[right, column], len(mean))
            total[:, column] += np.bincount(right, mean[left, column], len(mean))
        mean = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-30)
    mean[own < _STEEPEST] = -2  # too steep, whatever the neighbours are
    return mean.argmax(1)


def _neighbours(mesh: Mesh) -> tuple[Ints, Ints]:
    """Pairs of faces that share an edge."""
    edges = np.sort(mesh.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), 1)
    face = np.repeat(np.arange(len(mesh.faces)), 3)
    key = edges[:, 0] * len(mesh.vertices) + edges[:, 1]
    order = np.argsort(key, kind="stable")
    same = np.flatnonzero(np.diff(key[order]) == 0)
    return face[order[same]], face[order[same + 1]]


def _connected(mesh: Mesh, label: Ints) -> Ints:
    """Numbers (f,) of the connected sets of faces with one label."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    left, right = _neighbours(mesh)
    alike = label[left] == label[right]
    n = len(mesh.faces)
    links = (np.ones(int(alike.sum()), np.int8), (left[alike], right[alike]))
    found: Any = connected_components(coo_array(links, shape=(n, n)), directed=False)
    return found[1].astype(np.int64)


def _projected(mesh: Mesh, axis: Ints) -> Doubles:
    """Corners (f, 3, 2) along the direction of each face, world units; not mirrored."""
    corners = mesh.vertices[mesh.faces]
    along, minus = axis // 2, axis % 2 == 1
    u = np.take_along_axis(corners, ((along + 1) % 3)[:, None, None], 2)[..., 0]
    v = np.take_along_axis(corners, ((along + 2) % 3)[:, None, None], 2)[..., 0]
    return np.stack([np.where(minus[:, None], -u, u), -v], -1)


def _unfolded(mesh: Mesh, chart: Ints, flat: Doubles) -> Ints:
    """Charts (f,) of which none lies over itself."""
    chart, waiting = chart.copy(), np.arange(len(chart))
    following = int(chart.max()) + 1
    for layer in range(_LAYERS):
        hidden = waiting[_covered(flat[waiting], chart[waiting])]
        if not len(hidden):
            return chart
        if layer == _LAYERS - 1:
            chart[hidden] = following + np.arange(len(hidden))
            return chart
        parts = _connected(Mesh(mesh.vertices, mesh.faces[hidden]), chart[hidden])
        chart[hidden] = following + parts
        following = int(chart.max()) + 1
        waiting = hidden
    return chart


def _covered(flat: Doubles, chart: Ints) -> Ints:
    """Faces (rows of ``flat``) that lie under another of their chart.

    Drawn face by face from above on a fine raster; a face that does not own what it covers is under
    another.
    """
    chart = np.unique(chart, return_inverse=True)[1]
    local, size = _from_corner(flat, chart)
    edge = np.sqrt(np.abs(_area(flat)).mean() * 2) + 1e-30
    room = np.ceil(size / edge * 4) + 2 * BORDER + 1
    side = int(np.ceil(np.sqrt(room.prod(1).sum() * 1.3) + room.max()))
    scale, corner = _packed(size, min(max(side, 64), _FOLDS))
    at = local * scale + corner[chart][:, None] + BORDER
    width = int(np.ceil(at.max())) + 2
    # A made-up camera one unit above: pixels are texels, later faces are farther away.
    n = len(flat)
    depth = 1 + np.repeat(np.arange(n), 3) / n
    points = np.concatenate([(at.reshape(-1, 2)) * depth[:, None], depth[:, None]], 1)
    view = Views(
        names=("",),
        world_from_cam=np.eye(3, 4)[None],
        focal=np.ones((1, 2)),
        centre=np.zeros((1, 2)),
        size=np.array([[width, width]]),
        held_out=(False,),
    )
    soup = Mesh(points, np.arange(3 * n).reshape(-1, 3))
    drawn = rasterised(soup, view)
    owned = np.bincount(drawn.faces, minlength=n)
    area = np.abs(_area(at))
    return np.flatnonzero((area > 2) & (owned < 0.6 * area - 2))


def _area(flat: Doubles) -> Doubles:
    a, b, c = np.moveaxis(flat, 1, 0)
    return ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2


def _from_corner(flat: Doubles, chart: Ints) -> tuple[Doubles, Doubles]:
    """Corners (f, 3, 2) from the upper left of their chart, and sizes (charts, 2)."""
    count = int(chart.max()) + 1
    low, high = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
    np.minimum.at(low, chart, flat.min(1))
    np.maximum.at(high, chart, flat.max(1))
    size = np.where(np.isfinite(low), high - low, 0)
    return flat - low[chart][:, None], size


def _packed(sizes: Doubles, side: int) -> tuple[float, Doubles]:
    """The largest scale at which rectangles (n, 2) fit a square, and their corners (n, 2).

    In rows of falling height: for many small charts within a tenth of the best.
    """
    order = np.argsort(-sizes[:, 1], kind="stable")
    low, high = 0.0, side / max(float(sizes.max()), 1e-30)
    fit = _rows(sizes[order], low, side)
    for _ in range(24):
        middle = (low + high) / 2
        trial = _rows(sizes[order], middle, side)
        if trial is None:
            high = middle
        else:
            low, fit = middle, trial
    if fit is None:
        raise InputError(
            f"--texture {side}: too small for the {len(sizes)} pieces of this mesh, expected about "
            f"{int(8 * len(sizes) ** 0.5)}; or use fewer --faces"
        )
    corner = np.zeros_like(sizes)
    corner[order] = fit
    return low, corner


def _rows(sizes: Doubles, scale: float, side: int) -> Doubles | None:
    """Corners of scaled rectangles of falling height in rows, or None where they do not fit."""
    room = np.ceil(sizes * scale) + 2 * BORDER + 1
    if (room > side).any():
        return None
    corner = np.zeros_like(sizes)
    first, top = 0, 0.0
    reach = np.cumsum(room[:, 0])
    while first < len(room):
        start = reach[first - 1] if first else 0.0
        last = max(first + 1, int(np.searchsorted(reach, start + side, "right")))
        corner[first:last, 0] = reach[first:last] - room[first:last, 0] - start
        corner[first:last, 1] = top
        top += room[first, 1]
        if top > side:
            return None
        first = last
    return corner
