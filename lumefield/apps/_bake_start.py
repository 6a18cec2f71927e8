"""Gaussians on the expected surface: where baking starts.

Pixels are put at their expected depth, as flat discs that face along the normal of the depth map:
about one pixel wide where the picture is busy, wider where it is smooth.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._bake_views import Targets, directions

Doubles = NDArray[np.float64]

_OPACITY = 0.9
_THICKNESS = 0.2
"""Of a disc, over its radius."""
_RADIUS = 0.5
"""Of a disc, over the way to its neighbours."""
_JUMP = 0.1
"""A pixel whose neighbour is nearer or farther by more than this share lies on an edge."""
_C0 = 0.28209479177387814


class Surfels(NamedTuple):
    """Points of the surface, world units."""

    points: Doubles
    """(n, 3)."""
    normals: Doubles
    """(n, 3) unit vectors towards the camera."""
    colours: Doubles
    """(n, 3) display sRGB in [0, 1]."""
    footprint: Doubles
    """(n,) width of a pixel at the point."""


class Start(NamedTuple):
    """Unconstrained values of Gaussians, as ``Gaussians.from_arrays`` takes them; world units."""

    means: Doubles
    quats_wxyz: Doubles
    log_scales: Doubles
    logit_opacities: Doubles
    sh: Doubles


def surfels(targets: Targets, count: int, seed: int) -> Surfels:
    """About ``count`` pixels of the targets, put on the surface; busy places get more of them."""
    n = len(targets.views)
    each = -(-count // max(n, 1))
    parts = [_of_view(targets, k, each, np.random.default_rng((seed, k))) for k in range(n)]
    return Surfels(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _of_view(targets: Targets, k: int, count: int, rng: np.random.Generator) -> Surfels:
    view = targets.views.pick([k])
    depth = targets.depth[k].astype(np.float64)
    points, normals = positions(view.world_from_cam[0], directions(view), depth)
    good = (targets.alpha[k] > 127) & (depth > 0) & ~_edges(depth)
    rgb = targets.rgb[k].astype(np.float64) / np.maximum(targets.alpha[k], 1)[..., None]
    grey = rgb.mean(-1)
    busy = np.abs(np.gradient(grey, axis=0)) + np.abs(np.gradient(grey, axis=1))
    weight = np.where(good, busy + busy[good].mean() + 1e-6 if good.any() else 1.0, 0.0).reshape(-1)
    most = int((weight > 0).sum())
    chosen = np.zeros(0, np.int64)
    if most:
        chosen = rng.choice(weight.size, min(count, most), replace=False, p=weight / weight.sum())
    flat = depth.reshape(-1)[chosen]
    return Surfels(
        points.reshape(-1, 3)[chosen],
        normals.reshape(-1, 3)[chosen],
        np.clip(rgb.reshape(-1, 3)[chosen], 0, 1),
        flat / float(view.focal[0].mean()),
    )


def positions(pose: Doubles, local: Doubles, depth: Doubles) -> tuple[Doubles, Doubles]:
    """World positions (H, W, 3) of pixels at their depth, and normals towards the camera."""
    seen = local * depth[..., None]
    points = seen @ pose[:, :3].T + pose[:, 3]
    along_x, along_y = np.gradient(seen, axis=1), np.gradient(seen, axis=0)
    normal = np.cross(along_x, along_y)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    back = -local / np.linalg.norm(local, axis=-1, keepdims=True)
    normal = np.where(length > 1e-20, normal / np.maximum(length, 1e-20), back)
    facing = np.sign((normal * back).sum(-1, keepdims=True))
    return points, (normal * np.where(facing == 0, 1, facing)) @ pose[:, :3].T


def _edges(depth: Doubles) -> NDArray[np.bool_]:
    """Pixels beside a jump of the depth."""
    out = np.zeros(depth.shape, bool)
    for axis in (0, 1):
        a, b = np.moveaxis(depth, axis, 0)[:-1], np.moveaxis(depth, axis, 0)[1:]
        jump = np.abs(b - a) > _JUMP * np.minimum(a, b)
        moved = np.moveaxis(out, axis, 0)
        moved[:-1] |= jump
        moved[1:] |= jump
    return out


def thinned(found: Surfels, most: int) -> Surfels:
    """At most ``most`` surfels: those in a cell become their mean.

    Cells are cubes, as wide as a multiple of the footprint that is the same everywhere, in steps
    of two; so that near surfaces keep their detail and far ones are not crowded.
    """
    if len(found.points) <= most:
        return found
    level = np.floor(np.log2(np.maximum(found.footprint, 1e-12)))
    low, high = -4.0, 16.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if _cells(found, level, middle)[1] > most else (low, middle)
    owner, count = _cells(found, level, high)
    if count > most:  # a scene of points all apart, wider than any cell
        some = np.linspace(0, len(found.points) - 1, most).astype(np.int64)
        return Surfels(*(column[some] for column in found))
    size = np.bincount(owner, minlength=count).astype(np.float64)

    def mean(values: Doubles) -> Doubles:
        sums = [np.bincount(owner, column, count) for column in values.reshape(len(values), -1).T]
        return (np.stack(sums, -1) / size[:, None]).reshape(count, *values.shape[1:])

    normals = mean(found.normals)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    first = np.zeros(count, np.int64)
    first[owner[::-1]] = np.arange(len(owner))[::-1]
    normals = np.where(length > 1e-3, normals / np.maximum(length, 1e-3), found.normals[first])
    return Surfels(mean(found.points), normals, mean(found.colours), mean(found.footprint))


def _cells(found: Surfels, level: Doubles, wide: float) -> tuple[NDArray[np.int64], int]:
    """Cell of every surfel and the number of cells, for cells of 2^(level + wide)."""
    at = np.floor(found.points / np.exp2(level + wide)[:, None]).astype(np.int64)
    rows = np.concatenate([at, level.astype(np.int64)[:, None]], 1)
    factors = np.array([73856093, 19349663, 83492791, 2654435761], np.int64)
    mixed = (rows * factors).sum(1)  # equal rows have equal sums; unequal ones hardly ever
    owner = np.unique(mixed, return_inverse=True)[1].reshape(-1)
    return owner, int(owner.max()) + 1


def gaussians(found: Surfels, degree: int) -> Start:
    """Flat Gaussians on surfels, as wide as the way to their neighbours."""
    from scipy.spatial import KDTree

    n = len(found.points)
    near = np.asarray(KDTree(found.points).query(found.points, k=min(4, n))[0]).reshape(n, -1)
    gap = near[:, 1:].mean(1) if near.shape[1] > 1 else found.footprint
    radius = np.clip(_RADIUS * gap, 0.4 * found.footprint, 12 * found.footprint)
    scales = radius[:, None] * np.array([1, 1, _THICKNESS])
    sh = np.zeros((n, (degree + 1) ** 2, 3))
    sh[:, 0] = (found.colours - 0.5) / _C0
    return Start(
        means=found.points,
        quats_wxyz=_turned_to(found.normals),
        log_scales=np.log(np.maximum(scales, 1e-12)),
        logit_opacities=np.full(n, np.log(_OPACITY / (1 - _OPACITY))),
        sh=sh,
    )


def _turned_to(normals: Doubles) -> Doubles:
    """Quaternions wxyz that turn the z axis to the normals, the short way."""
    x, y, z = normals.T
    flipped = z < -0.999999
    quats = np.stack([1 + z, -y, x, np.zeros_like(z)], 1)
    quats[flipped] = [0, 1, 0, 0]
    return quats / np.linalg.norm(quats, axis=1, keepdims=True)
