"""The golden scene: splats whose picture shows a wrong axis, colour, quaternion or harmonic.

In the frame of a 3DGS PLY, x right, y DOWN, z forward. A chequered floor; arrows along x (red),
up (green, -y) and z (blue); a yellow letter F, which shows mirroring; a tilted slab of long
Gaussians in one known colour, which shows the order of quaternions; and a sphere whose degree-1
harmonics make it orange from the front (from -z) and blue from behind, with small degrees 2 and 3,
which shows their signs and order.
"""

import numpy as np

from lumefield.codecs.formats import Splats

SH_C0 = 0.28209479177387814
SLAB = (204, 77, 204)
LETTER = (242, 217, 26)
UP = (13, 217, 13)
RIGHT = (230, 13, 13)
"""sRGB bytes of the parts of one flat colour."""

_LETTER_F = ("#####", "#....", "####.", "#....", "#....")


def golden(degree: int = 3, sphere: int = 600, seed: int = 0) -> Splats:
    """About 1 300 Gaussians, or 650 + ``sphere``; the same bytes on every machine."""
    rng = np.random.default_rng(seed)
    k = (degree + 1) ** 2
    parts = [
        _floor(),
        _arrow((1, 0, 0), (1, 0, 0, 0), RIGHT),
        _arrow((0, -1, 0), _about((0, 0, 1), 90), UP),
        _arrow((0, 0, 1), _about((0, 1, 0), 90), (26, 51, 242)),
        _letter(),
        _slab(rng),
        _sphere(rng, sphere),
    ]
    columns = [np.concatenate(group) for group in zip(*parts, strict=True)]
    means, scales, quats, opacity, rgb, rest = columns
    sh = np.concatenate([((rgb - 0.5) / SH_C0)[:, None], rest], 1)[:, :k]
    return Splats(
        means=means.astype(np.float32),
        quats_wxyz=quats.astype(np.float32),
        log_scales=np.log(scales).astype(np.float32),
        logit_opacities=np.log(opacity / (1 - opacity)).astype(np.float32),
        sh=sh.astype(np.float32),
    )


def colours(splats: Splats, directions: np.ndarray) -> np.ndarray:
    """Colour (N, m, 3) of each Gaussian along unit view directions (m, 3), degrees 0 and 1 only."""
    x, y, z = directions.T
    c1 = 0.4886025119029199
    basis = np.stack([np.full_like(x, SH_C0), -c1 * y, c1 * z, -c1 * x], 1)
    k = min(4, splats.sh.shape[1])
    return 0.5 + np.einsum("mk,nkc->nmc", basis[:, :k], splats.sh[:, :k].astype(np.float64))


def _part(means, scale, quat, opacity, rgb, rest=None):
    n = len(means)
    return (
        np.asarray(means, np.float64),
        np.broadcast_to(np.asarray(scale, np.float64), (n, 3)),
        np.broadcast_to(np.asarray(quat, np.float64), (n, 4)),
        np.full(n, opacity, np.float64),
        np.broadcast_to(np.asarray(rgb, np.float64), (n, 3)),
        np.zeros((n, 24, 3)) if rest is None else rest,
    )


def _floor():
    x, z = (v.ravel() for v in np.meshgrid(np.linspace(-2, 2, 17), np.linspace(-2, 2, 17)))
    grey = 0.25 + 0.35 * ((np.floor(x) + np.floor(z)) % 2)
    means = np.stack([x, np.full_like(x, 0.6), z], 1)
    return _part(means, (0.15, 0.006, 0.15), (1, 0, 0, 0), 0.95, grey[:, None] * np.ones(3))


def _arrow(axis, quat, rgb):
    along = np.linspace(0.1, 1.2, 30)[:, None] * np.array(axis, np.float64)
    return _part(along, (0.05, 0.015, 0.015), quat, 0.98, np.array(rgb) / 255)


def _letter():
    cells = [
        (-1.5 + 0.14 * i + dx, -0.75 + 0.22 * j + dy, -0.2)
        for j, row in enumerate(_LETTER_F)
        for i, cell in enumerate(row)
        if cell == "#"
        for dx in (0, 0.07)
        for dy in (0, 0.07, 0.14)
    ]
    return _part(cells, (0.04, 0.04, 0.01), (1, 0, 0, 0), 0.97, np.array(LETTER) / 255)


def _slab(rng):
    quat = _about((1, 2, 3), 70)
    flat = np.concatenate([rng.uniform(-0.35, 0.35, (200, 2)), np.zeros((200, 1))], 1)
    means = flat @ turn(quat).T + (1.2, -0.6, 0.2)
    return _part(means, (0.1, 0.02, 0.005), quat, 0.9, np.array(SLAB) / 255)


def _sphere(rng, n):
    out = rng.normal(size=(n, 3))
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    quats = rng.normal(size=(n, 4))
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    rest = np.zeros((n, 24, 3))
    rest[:, 1] = (0.55, 0, -0.55)  # along z: red towards +z, so orange for a camera at -z
    rest[:, 2, 1] = 0.35
    rest[:, 3:8] = rng.normal(0, 0.08, (n, 5, 3))
    rest[:, 8:15] = rng.normal(0, 0.05, (n, 7, 3))
    rest[:, 15:] = rng.normal(0, 0.03, (n, 9, 3))
    part = _part(out * 0.4 + (0, 0.15, -0.9), (1, 1, 1), (1, 0, 0, 0), 0.85, (0.5, 0.5, 0.5), rest)
    scales = np.abs(rng.normal(0.05, 0.01, (n, 3))) + 1e-3
    return (part[0], scales, quats, *part[3:])


def _about(axis, degrees):
    unit = np.array(axis, np.float64) / np.linalg.norm(axis)
    half = np.deg2rad(degrees) / 2
    return np.concatenate([[np.cos(half)], np.sin(half) * unit])


def turn(quat: np.ndarray) -> np.ndarray:
    """Rotation matrix (3, 3) of a unit quaternion, w first."""
    w, x, y, z = quat
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def covariances(splats: Splats) -> np.ndarray:
    """(N, 3, 3): the way to compare rotations and sizes that knows no signs and no order."""
    q = splats.quats_wxyz.astype(np.float64)
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    m = np.stack([turn(v) for v in q]) * np.exp(splats.log_scales.astype(np.float64))[:, None]
    return m @ m.transpose(0, 2, 1)
