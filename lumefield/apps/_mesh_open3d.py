"""Depth fusion by Open3D, the optional extra ``[mesh]``: faster on large grids than our own.

Zhou et al., "Open3D: A Modern Library for 3D Data Processing", 2018: the tensor ``VoxelBlockGrid``.
(The legacy ``ScalableTSDFVolume`` of Open3D 0.20 divides depths in metres by 1000 where it
allocates, and finds nothing.)
"""

from typing import Any

import numpy as np

from lumefield.apps._bake_views import Targets
from lumefield.apps._marching import Mesh
from lumefield.apps._mesh_tsdf import Coloured, Grid, used_only

_TRUNCATION = 4.0
"""In voxels, as in our own fusion."""
_BLOCK = 8
"""Voxels along a block."""


def by_open3d(targets: Targets, grid: Grid) -> Coloured:
    """The mesh that Open3D fuses, cut to the box of ``grid``."""
    import open3d  # pyright: ignore[reportMissingImports]

    o3d: Any = open3d
    core, shapes = o3d.core, o3d.t.geometry
    float32 = core.Dtype.Float32
    volume = shapes.VoxelBlockGrid(
        attr_names=("tsdf", "weight", "color"),
        attr_dtypes=(float32, float32, float32),
        attr_channels=((1,), (1,), (3,)),
        voxel_size=1.0,
        block_resolution=_BLOCK,
        block_count=10_000,
    )
    views, start = targets.views, np.asarray(grid.origin)
    far = _BLOCK * 1e5
    for k in range(len(views)):
        seen = np.where(targets.alpha[k] > 127, targets.depth[k] / grid.spacing, 0)
        depth = shapes.Image(core.Tensor(np.ascontiguousarray(seen, np.float32)[..., None]))
        colour = shapes.Image(core.Tensor(targets.rgb[k].astype(np.float32) / 255))
        lens = np.eye(3)
        lens[[0, 1], [0, 1]] = views.focal[k]
        lens[:2, 2] = views.centre[k] - 0.5  # there, pixel centres are at integers
        pose = np.eye(4)
        pose[:3] = views.world_from_cam[k]
        pose[:3, 3] = (pose[:3, 3] - start) / grid.spacing
        cameras = core.Tensor(lens), core.Tensor(np.linalg.inv(pose))
        blocks = volume.compute_unique_block_coordinates(depth, *cameras, 1.0, far, _TRUNCATION)
        volume.integrate(blocks, depth, colour, *cameras, 1.0, far, _TRUNCATION)
    found = volume.extract_triangle_mesh(weight_threshold=min(2, len(views)) - 0.5)
    vertices = found.vertex.positions.numpy().astype(np.float64).reshape(-1, 3)
    faces = found.triangle.indices.numpy().astype(np.int64).reshape(-1, 3)
    colours = found.vertex.colors.numpy().astype(np.float64).reshape(-1, 3)
    inside = np.all((vertices >= 0) & (vertices <= np.array(grid.shape) - 1), 1)
    faces = faces[inside[faces].all(1)]
    mesh = used_only(Mesh(start + grid.spacing * vertices, faces))
    return Coloured(mesh, colours[np.unique(faces)].clip(0, 1))
