"""Fusing drawn depth into a signed distance on a grid, and taking its surface.

Curless and Levoy, "A Volumetric Method for Building Complex Models from Range Images", 1996. As
Open3D's scalable volume, only blocks near a surface that was seen are visited; unlike it the result
is a dense array, which ``_marching.py`` reads, and a triangle is kept only if all corners of its
cell were seen. Letters: V voxels that are visited, h their distance, n views of H x W pixels.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from lumefield.apps._bake_start import positions
from lumefield.apps._bake_views import Targets, directions
from lumefield.apps._marching import Mesh, marching_cubes

Doubles = NDArray[np.float64]

_BLOCK = 8
"""Voxels along a block."""
_TRUNCATION = 4.0
"""Distance at which the signed distance is cut off, in voxels; less than a block."""
_CHUNK = 1 << 18
"""Voxels of one jitted call."""
_STRIDE = 2
"""Every so many pixels mark the blocks that are visited."""


@dataclass(frozen=True)
class Grid:
    """Points ``origin + spacing * (i, j, k)``."""

    origin: tuple[float, float, float]
    """World units."""
    spacing: float
    shape: tuple[int, int, int]

    @classmethod
    def of_box(cls, low: Doubles, high: Doubles, resolution: int) -> "Grid":
        """A grid over a box, ``resolution`` cells along its longest side, whole blocks."""
        spacing = float((high - low).max()) / resolution
        cells = np.ceil((high - low) / spacing / _BLOCK).astype(int).clip(1) * _BLOCK
        x, y, z = map(float, (low + high) / 2 - cells * spacing / 2 + spacing / 2)
        return cls((x, y, z), spacing, (int(cells[0]), int(cells[1]), int(cells[2])))

    @property
    def steps(self) -> tuple[float, float, float]:
        """Spacing along x, y and z."""
        return self.spacing, self.spacing, self.spacing

    def points(self, index: NDArray[np.int64]) -> Doubles:
        """World positions (..., 3) of indices (..., 3)."""
        return np.asarray(self.origin, np.float64) + self.spacing * index.astype(np.float64)


class Coloured(NamedTuple):
    """A mesh with a colour per vertex."""

    mesh: Mesh
    colours: Doubles
    """(v, 3) display sRGB in [0, 1]."""


class Fused(NamedTuple):
    """Signed distances on a grid."""

    grid: Grid
    values: NDArray[np.float32]
    """Signed distance over the truncation, in [-1, 1], positive outside; 1 where not known."""
    known: NDArray[np.bool_]
    rgb: NDArray[np.uint8]
    """(nx, ny, nz, 3) display sRGB near the surface."""


def fuse(targets: Targets, grid: Grid) -> Fused:
    """Average the signed distances that the views give for every voxel near a surface.

    A voxel is known when two views see it, or one where there is only one. Pixels that see through
    everything (opacity below 10 %) carve, those in doubt (below 50 %) do not count.
    """
    voxels = _voxels(targets, grid)
    values = np.ones(grid.shape, np.float32)
    known = np.zeros(grid.shape, bool)
    rgb = np.zeros((*grid.shape, 3), np.uint8)
    opacity = targets.alpha / np.float32(255)
    depth = np.where(opacity > 0.5, targets.depth, 0).astype(np.float32)
    depth = np.where(opacity < 0.1, np.float32(np.inf), depth)
    views = targets.views
    stack = (
        jnp.asarray(views.world_from_cam, jnp.float32),
        jnp.asarray(views.focal, jnp.float32),
        jnp.asarray(views.centre, jnp.float32),
        jnp.asarray(depth),
        jnp.asarray(targets.rgb),
    )
    need = min(2, len(views))
    for first in range(0, len(voxels), _CHUNK):
        part = voxels[first : first + _CHUNK]
        padded = np.concatenate([part, np.repeat(part[-1:], _CHUNK - len(part), 0)])
        points = jnp.asarray(grid.points(padded), jnp.float32)
        found = _averaged(_TRUNCATION * grid.spacing, points, stack)
        distance, weight, colour = (np.asarray(a)[: len(part)] for a in found)
        at = tuple(part.T)
        known[at] = weight >= need
        values[at] = np.where(weight >= need, distance, 1)
        rgb[at] = np.clip(colour + 0.5, 0, 255).astype(np.uint8)
    return Fused(grid, values, known, rgb)


@partial(jax.jit, static_argnums=0)
def _averaged(
    truncation: float, points: Array, stack: tuple[Array, Array, Array, Array, Array]
) -> tuple[Array, Array, Array]:
    """Mean signed distance (V,), number of views (V,) and mean colour (V, 3), 0 to 255."""

    def add(total: tuple[Array, ...], view: tuple[Array, ...]) -> tuple[tuple[Array, ...], None]:
        pose, focal, centre, depth, rgb = view
        seen = (points - pose[None, :, 3]) @ pose[:, :3]
        z = seen[:, 2]
        ahead = z > 1e-6
        at = seen[:, :2] / jnp.where(ahead, z, 1.0)[:, None] * focal[None] + centre[None]
        x, y = at[:, 0], at[:, 1]
        height, width = depth.shape
        inside = ahead & (x >= 0) & (x < width) & (y >= 0) & (y < height)
        row = jnp.clip(jnp.where(inside, y, 0.0), 0, height - 1).astype(jnp.int32)
        column = jnp.clip(jnp.where(inside, x, 0.0), 0, width - 1).astype(jnp.int32)
        d = depth[row, column]
        distance = (d - z) / truncation
        sees = inside & (d > 0) & (distance > -1)
        near = sees & (distance < 1)
        tint = rgb[row, column].astype(jnp.float32)
        distances, weights, colours, tints = total
        return (
            distances + jnp.where(sees, jnp.minimum(distance, 1.0), 0.0),
            weights + sees.astype(jnp.float32),
            colours + jnp.where(near[:, None], tint, 0.0),
            tints + near.astype(jnp.float32),
        ), None

    zero = jnp.zeros(len(points), jnp.float32)
    start = (zero, zero, jnp.zeros((len(points), 3), jnp.float32), zero)
    (distance, weight, colour, tints), _ = jax.lax.scan(add, start, stack)
    return distance / jnp.maximum(weight, 1), weight, colour / jnp.maximum(tints, 1)[:, None]


def _voxels(targets: Targets, grid: Grid) -> NDArray[np.int64]:
    """Indices (V, 3) of the voxels in blocks that a surface passes, and in their neighbours."""
    from scipy.ndimage import binary_dilation

    blocks = np.zeros([n // _BLOCK for n in grid.shape], bool)
    for k in range(len(targets.views)):
        points = surface_points(targets, k, _STRIDE)
        at = np.floor((points - np.asarray(grid.origin)) / (grid.spacing * _BLOCK)).astype(np.int64)
        inside = np.all((at >= 0) & (at < blocks.shape), 1)
        blocks[tuple(at[inside].T)] = True
    blocks = binary_dilation(blocks, np.ones((3, 3, 3), bool))
    corners = np.argwhere(blocks) * _BLOCK
    within = np.stack(np.meshgrid(*[np.arange(_BLOCK)] * 3, indexing="ij"), -1).reshape(1, -1, 3)
    return (corners[:, None] + within).reshape(-1, 3)


def surface_points(targets: Targets, k: int, stride: int) -> Doubles:
    """World points (p, 3) of every ``stride``-th opaque pixel of a view."""
    view = targets.views.pick([k])
    pick = (slice(None, None, stride), slice(None, None, stride))
    depth = targets.depth[k][pick].astype(np.float64)
    points, _ = positions(view.world_from_cam[0], directions(view)[pick], depth)
    return points[(depth > 0) & (targets.alpha[k][pick] > 127)]


def surface(fused: Fused) -> Coloured:
    """The zero level of the distances, where they are known on all corners of a cell."""
    grid = fused.grid
    mesh = marching_cubes(fused.values, origin=grid.origin, spacing=grid.steps)
    cell = np.floor((mesh.vertices[mesh.faces].mean(1) - grid.origin) / grid.spacing)
    cell = cell.astype(np.int64).clip(0, np.array(grid.shape) - 2)
    sure = np.ones(len(cell), bool)
    for corner in np.ndindex(2, 2, 2):
        sure &= fused.known[tuple((cell + corner).T)]
    mesh = used_only(Mesh(mesh.vertices, mesh.faces[sure]))
    return Coloured(mesh, _along_edges(fused, mesh.vertices))


def _along_edges(fused: Fused, vertices: Doubles) -> Doubles:
    """Colours of points on the grid's edges, between those of the two ends."""
    at = (vertices - np.asarray(fused.grid.origin)) / fused.grid.spacing
    top = np.array(fused.grid.shape) - 1
    low = np.floor(at + 1e-6).astype(np.int64).clip(0, top)
    high = np.ceil(at - 1e-6).astype(np.int64).clip(0, top)
    part = np.abs(at - low).max(1, initial=0, where=high > low)[:, None].clip(0, 1)
    a, b = (fused.rgb[tuple(end.T)].astype(np.float64) / 255 for end in (low, high))
    return a * (1 - part) + b * part


def used_only(mesh: Mesh) -> Mesh:
    """The mesh without vertices that no face uses."""
    used, faces = np.unique(mesh.faces, return_inverse=True)
    return Mesh(mesh.vertices[used], faces.reshape(-1, 3).astype(np.int64))
