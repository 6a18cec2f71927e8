"""From a scene to a coloured mesh: of the depth its cameras see, or of a field's density."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._bake_views import Look, Targets, Tell, look_all, one_size
from lumefield.apps._marching import Mesh
from lumefield.apps._mesh_holes import closed
from lumefield.apps._mesh_tsdf import Coloured, Grid, fuse, surface, surface_points, used_only
from lumefield.apps._paths import look_centre
from lumefield.apps._views import Views
from lumefield.errors import RunError

Doubles = NDArray[np.float64]
At = Callable[[Grid], Coloured]
"""A mesh of the scene on a grid."""

CAMERAS = 80
"""Most cameras whose depth is fused."""
LONGEST = 960
"""Longest side of the pictures, pixels."""
_REACH = 1.5
"""Half of the box at most, in distances from the cameras to what they look at."""
_HOLE = 80
"""Edges of the border of the largest hole that is closed."""
_LEAST_PART = 0.02
"""Components with a smaller share of the faces than this are left out."""


@dataclass(frozen=True)
class Meshing:
    """How fine the mesh is."""

    resolution: int = 256
    """Cells along the longest side."""
    faces: int | None = None
    """Most triangles."""


def draw_targets(look: Look, views: Views, tell: Tell) -> Targets:
    """What the cameras of the photos see; evenly chosen where they are many.

    Raises:
        RunError: If they see nothing.
    """
    some = np.unique(np.linspace(0, len(views) - 1, CAMERAS).round().astype(np.intp))
    targets = look_all(look, one_size(views.pick(some), LONGEST), tell)
    if not ((targets.alpha > 127) & (targets.depth > 0)).any():
        raise RunError(
            "nothing opaque is seen from the cameras, so there is no surface to mesh; "
            "train the scene longer"
        )
    return targets


def box_of(targets: Targets) -> tuple[Doubles, Doubles]:
    """The box that is meshed: what the cameras look at, without the far background."""
    views = targets.views
    rng = np.random.default_rng(0)
    points = np.concatenate([surface_points(targets, k, 4) for k in range(len(views))])
    points = points[rng.permutation(len(points))[:200_000]]
    focus = look_centre(views, points)
    away = np.median(np.linalg.norm(views.world_from_cam[:, :, 3] - focus, axis=1))
    far = np.median(targets.depth[targets.depth > 0])
    near = points[np.linalg.norm(points - focus, axis=1) < _REACH * max(float(away), float(far))]
    near = near if len(near) else points
    low, high = np.percentile(near, [1, 99], axis=0)
    pad = 0.05 * (high - low).max() + 1e-6
    return low - pad, high + pad


def meshed(at: At, box: tuple[Doubles, Doubles], wanted: Meshing) -> Coloured:
    """The large components of the mesh of a box, small holes closed, with at most the wanted faces.

    Too many faces are simplified by quadrics where ``fast_simplification`` is installed; where it
    is not, the grid is made coarser until they are few enough.

    Raises:
        RunError: If there is no surface in the box.
    """
    resolution = wanted.resolution
    while True:
        made = closed(largest(at(Grid.of_box(*box, resolution))), _HOLE)
        count = len(made.mesh.faces)
        if not count:
            raise RunError(
                f"no surface was found on a grid of {resolution} cells; use a larger --resolution "
                "or --faces, or train the scene longer"
            )
        if wanted.faces is None or count <= wanted.faces:
            return made
        simpler = simplified(made, wanted.faces)
        if simpler is not None:
            return simpler
        resolution = max(2, min(resolution - 1, int(resolution * (wanted.faces / count) ** 0.5)))


def fused(targets: Targets) -> At:
    """Meshes of the depth of the targets: by Open3D where it is installed, else by our own."""
    try:
        importlib.import_module("open3d")
    except ImportError:
        return lambda grid: surface(fuse(targets, grid))
    from lumefield.apps._mesh_open3d import by_open3d

    return lambda grid: by_open3d(targets, grid)


def largest(made: Coloured) -> Coloured:
    """Connected components with a fair share of the faces; the largest is always kept."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    faces = made.mesh.faces
    if not len(faces):
        return made
    n = len(made.mesh.vertices)
    a, b = faces[:, [0, 1]].reshape(-1), faces[:, [1, 2]].reshape(-1)
    links = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(n, n))
    part: Any = connected_components(links, directed=False)[1]
    sizes = np.bincount(part[faces[:, 0]])
    good = sizes >= min(_LEAST_PART * len(faces), sizes.max())
    kept = faces[good[part[faces[:, 0]]]]
    used = np.unique(kept)
    return Coloured(used_only(Mesh(made.mesh.vertices, kept)), made.colours[used])


def simplified(made: Coloured, faces: int) -> Coloured | None:
    """At most ``faces`` triangles by quadric edge collapse; None where that is not installed.

    Garland and Heckbert, "Surface Simplification Using Quadric Error Metrics", 1997.
    """
    try:
        import fast_simplification  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    from scipy.spatial import KDTree

    vertices, triangles = fast_simplification.simplify(
        made.mesh.vertices.astype(np.float32),
        made.mesh.faces.astype(np.int32),
        target_count=faces,
    )
    if not 0 < len(triangles) <= faces:
        return None
    mesh = used_only(Mesh(vertices.astype(np.float64), triangles.astype(np.int64)))
    near = np.asarray(KDTree(made.mesh.vertices).query(mesh.vertices)[1])
    return Coloured(mesh, made.colours[near])
