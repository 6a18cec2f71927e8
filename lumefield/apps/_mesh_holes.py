"""Small holes of a mesh closed: each by a fan of triangles around the middle of its border."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._marching import Mesh
from lumefield.apps._mesh_tsdf import Coloured


def closed(made: Coloured, longest: int) -> Coloured:
    """The mesh without holes whose border has at most ``longest`` edges.

    Borders that touch themselves or others are left as they are.

    Args:
        made: The mesh; its triangles are oriented alike.
        longest: Edges.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    faces, n = made.mesh.faces, len(made.mesh.vertices)
    edges = faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    there, back = edges[:, 0] * n + edges[:, 1], edges[:, 1] * n + edges[:, 0]
    border = edges[~np.isin(there, back)]
    if not len(border):
        return made
    links = coo_array((np.ones(len(border), np.int8), border.T), shape=(n, n))
    found: Any = connected_components(links, directed=False)[1]
    loop = found[border[:, 0]]
    out, into = (np.bincount(border[:, k], minlength=n) for k in (0, 1))
    odd = np.bincount(loop, (out[border[:, 0]] != 1) | (into[border[:, 0]] != 1)) > 0
    length = np.bincount(loop)
    fit = (length <= longest) & ~odd
    border, loop = border[fit[loop]], loop[fit[loop]]
    if not len(border):
        return made
    _, loop = np.unique(loop, return_inverse=True)
    count = np.bincount(loop)

    def middle(values: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = [np.bincount(loop, values[border[:, 0], k]) / count for k in range(3)]
        return np.stack(sums, 1)

    fans = np.stack([border[:, 1], border[:, 0], n + loop], 1)
    mesh = Mesh(
        np.concatenate([made.mesh.vertices, middle(made.mesh.vertices)]),
        np.concatenate([faces, fans.astype(np.int64)]),
    )
    return Coloured(mesh, np.concatenate([made.colours, middle(made.colours)]))
