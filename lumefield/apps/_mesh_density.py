"""The surface of a radiance field's density, by marching cubes of its logarithm."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from lumefield.apps._marching import Mesh, marching_cubes
from lumefield.apps._mesh_tsdf import Coloured, Grid

if TYPE_CHECKING:
    from lumefield.apps._radiance_io import Radiance

Doubles = NDArray[np.float64]

_CHUNK = 1 << 16
_DECADES = 5.0
"""The logarithm is cut off this far (base e) from the level."""


def of_density(field: "Radiance", grid: Grid) -> Coloured:
    """Where light is as likely to be stopped as not within two cells: density = ln 2 / (2 h).

    Cells that training found empty are empty. Colours are those seen from outside, straight on.
    What no camera saw is not known to be empty: ``--from depth`` leaves it out, this does not.
    """
    from lumefield.apps._radiance_trace import colour_at

    spacing = grid.spacing / field.frame.scale
    level = np.log(np.log(2) / (2 * spacing))
    look = jnp.mean(field.scene.look, 0) if field.scene.look.shape[0] else None
    run = jax.jit(field.density)

    @jax.jit
    def paint(x: Array, d: Array) -> Array:
        return colour_at(field.scene.field, x, d, look)[1]

    index = np.stack(np.unravel_index(np.arange(int(np.prod(grid.shape))), grid.shape), -1)
    values = np.empty(len(index), np.float32)
    for first in range(0, len(index), _CHUNK):
        at = field.frame.inward_points(grid.points(index[first : first + _CHUNK]))
        sigma = _in_chunks(run, at)
        sigma = np.where(occupied_at(field.occupied, at), sigma, 0)
        values[first : first + _CHUNK] = level - np.log(sigma + 1e-12)
    values = np.clip(values, -_DECADES, _DECADES).reshape(grid.shape)
    mesh = marching_cubes(values, origin=grid.origin, spacing=grid.steps, close=True)
    inward = -_normals(mesh)
    colours = _in_chunks(paint, field.frame.inward_points(mesh.vertices), inward)
    return Coloured(mesh, np.asarray(colours, np.float64).clip(0, 1).reshape(-1, 3))


def occupied_at(occupied: Array | None, at: Doubles) -> NDArray[np.bool_]:
    """Whether points (n, 3) of the training frame lie in occupied cells of the cascade."""
    if occupied is None:
        return np.ones(len(at), bool)
    bits = np.asarray(occupied)
    levels, n = bits.shape[:2]
    reach = np.abs(at).max(1)
    level = np.ceil(np.log2(np.maximum(reach, 1e-9))).clip(0).astype(np.int64)
    inside = level < levels
    level = level.clip(0, levels - 1)
    cell = np.floor((at / np.exp2(level)[:, None] + 1) / 2 * n).astype(np.int64).clip(0, n - 1)
    return inside & (bits[(level, *cell.T)] > 0)


def _in_chunks(run: Any, *columns: Doubles) -> NDArray[np.float32]:  # noqa: ANN401
    """A jitted function of rows, run on chunks of one size."""
    found: list[NDArray[np.float32]] = []
    for first in range(0, len(columns[0]), _CHUNK):
        part = [c[first : first + _CHUNK] for c in columns]
        short = _CHUNK - len(part[0])
        rows = [jnp.asarray(np.pad(p, ((0, short), (0, 0)), "edge"), jnp.float32) for p in part]
        found.append(np.asarray(run(*rows))[: len(part[0])])
    return np.concatenate(found) if found else np.zeros(0, np.float32)


def _normals(mesh: Mesh) -> Doubles:
    """Unit normals of the vertices, outwards: the mean of their faces by area."""
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces], 1, 0)
    face = np.cross(b - a, c - a)
    normal = np.zeros_like(mesh.vertices)
    for corner in mesh.faces.T:
        np.add.at(normal, corner, face)
    return normal / np.linalg.norm(normal, axis=1, keepdims=True).clip(1e-20)
