"""Splats in another frame: every attribute that has a direction turns, harmonics included.

Letters: ``R`` the rotation new_from_old, ``B_l`` the 2l + 1 real spherical harmonics of degree l in
the order and signs of 3DGS files, ``D_l`` the matrix that turns coefficients of degree l.
"""

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.formats._splat_rows import unit_quaternions
from lumefield.codecs.formats._types import Splats

_BLOCK = 1 << 16


def moved(
    splats: Splats,
    rotation: NDArray[np.floating],
    translation: NDArray[np.floating] | tuple[float, float, float],
    scale: float,
) -> Splats:
    """See :meth:`Splats.moved`.

    Raises:
        ValueError: If ``rotation`` is not a rotation, or ``scale`` is not positive.
    """
    r, t = np.asarray(rotation, np.float64), np.asarray(translation, np.float64)
    if r.shape != (3, 3) or not np.allclose(r @ r.T, np.eye(3), atol=1e-5) or np.linalg.det(r) < 0:
        raise ValueError(f"rotation {r.tolist()}, expected 3x3 orthonormal with determinant 1")
    if not (scale > 0 and math.isfinite(scale)):
        raise ValueError(f"scale {scale}, expected a positive number")
    up = None
    if splats.up is not None:
        x, y, z = (r @ np.asarray(splats.up)).tolist()
        up = (x, y, z)
    with np.errstate(over="ignore", invalid="ignore"):  # NaN stays NaN
        quats = _product(quaternion(r), unit_quaternions(splats.quats_wxyz))
        return dataclasses.replace(
            splats,
            means=(scale * splats.means.astype(np.float64) @ r.T + t).astype(np.float32),
            quats_wxyz=quats.astype(np.float32),
            log_scales=(splats.log_scales + math.log(scale)).astype(np.float32),
            sh=turned_sh(splats.sh, r),
            up=up,
        )


def turned_sh(sh: NDArray[np.float32], rotation: NDArray[np.float64]) -> NDArray[np.float32]:
    """Coefficients (N, K, 3) of the turned colour: colour'(R d) = colour(d)."""
    out = np.array(sh, np.float32)
    for degree, matrix in enumerate(sh_matrices(rotation, round(sh.shape[1] ** 0.5) - 1)):
        if degree == 0:
            continue
        band = slice(degree**2, (degree + 1) ** 2)
        for start in range(0, len(sh), _BLOCK):
            rows = slice(start, start + _BLOCK)
            out[rows, band] = np.einsum("ij,njc->nic", matrix, sh[rows, band].astype(np.float64))
    return out


def sh_matrices(rotation: NDArray[np.float64], degree: int) -> list[NDArray[np.float64]]:
    """The matrices ``D_l``, l = 0 to ``degree``, with B_l(R d) D_l c = B_l(d) c for every d.

    Each degree is closed under rotation, so the least-squares solution over a fixed set of
    directions is exact up to rounding (about 1e-14).
    """
    n = 64
    z = 1 - (2 * np.arange(n) + 1) / n
    angle = np.arange(n) * math.pi * (3 - math.sqrt(5))  # a Fibonacci spiral: no two alike
    r = np.sqrt(1 - z * z)
    d = np.stack([r * np.cos(angle), r * np.sin(angle), z], -1)
    old, new = harmonics(d, degree), harmonics(d @ rotation.T, degree)
    bands = [slice(l**2, (l + 1) ** 2) for l in range(degree + 1)]
    found = [np.linalg.lstsq(new[:, b], old[:, b], rcond=None)[0] for b in bands]
    return [np.asarray(matrix, np.float64) for matrix in found]


def harmonics(d: NDArray[np.float64], degree: int) -> NDArray[np.float64]:
    """Real spherical harmonics (n, (degree + 1)^2) at unit directions (n, 3).

    With the Condon-Shortley phase inside the Legendre functions, as 3DGS has it: degree 1 is
    (-y, z, -x).
    """
    from scipy.special import lpmv

    azimuth = np.arctan2(d[:, 1], d[:, 0])
    out: list[NDArray[np.float64]] = []
    for l in range(degree + 1):
        for m in range(-l, l + 1):
            k = abs(m)
            norm = (2 * l + 1) / (4 * math.pi) * math.factorial(l - k) / math.factorial(l + k)
            wave = np.sin(k * azimuth) if m < 0 else np.cos(k * azimuth)
            legendre = np.asarray(lpmv(k, l, np.clip(d[:, 2], -1, 1)))
            out.append(math.sqrt(norm * (2 if m else 1)) * legendre * wave)
    return np.stack(out, -1)


def quaternion(r: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit quaternion (4,), w first, of a rotation matrix: the eigenvector of largest eigenvalue.

    Bar-Itzhack, "New method for extracting the quaternion from a rotation matrix", 2000.
    """
    (a, b, c), (d, e, f), (g, h, i) = r
    k = np.array(
        [
            [a + e + i, h - f, c - g, d - b],
            [h - f, a - e - i, b + d, c + g],
            [c - g, b + d, e - a - i, f + h],
            [d - b, c + g, f + h, i - a - e],
        ]
    )
    q = np.linalg.eigh(k)[1][:, -1]
    return q if q[0] >= 0 else -q


def rotation_matrix(quat: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rotation (3, 3) of a unit quaternion (4,), w first."""
    w, x, y, z = quat
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _product(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hamilton product of one quaternion (4,) with many (N, 4), w first."""
    w, v = q[:, :1], q[:, 1:]
    real = p[0] * w - v @ p[1:, None]
    return np.concatenate([real, p[0] * v + w * p[1:] + np.cross(p[1:], v)], 1)
