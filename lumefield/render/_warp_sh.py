"""Spherical harmonics up to degree 3 as Warp functions, 3DGS order and signs (see ``_sh``)."""

import math
from typing import no_type_check

import warp as wp

MAX_COEFFICIENTS = 16
"""Coefficients of degree 3."""

Basis = wp.types.vector(length=MAX_COEFFICIENTS, dtype=wp.float32)


def _c(a: float, b: float) -> wp.float32:
    return wp.constant(wp.float32(math.sqrt(a / (b * math.pi))))


_K0, _K1 = _c(1, 4), _c(3, 4)
_K2A, _K2B, _K2C = _c(15, 4), _c(5, 16), _c(15, 16)
_K3A, _K3B, _K3C, _K3D, _K3E = _c(35, 32), _c(105, 4), _c(21, 32), _c(7, 16), _c(105, 16)


@no_type_check
@wp.func
def sh_basis(d: wp.vec3, count: wp.int32) -> Basis:
    """Values of the first ``count`` (0, 1, 4, 9 or 16) functions at the unit direction ``d``."""
    b = Basis()
    x, y, z = d[0], d[1], d[2]
    xx = x * x
    yy = y * y
    zz = z * z
    if count > 0:
        b[0] = _K0
    if count > 1:
        b[1] = -_K1 * y
        b[2] = _K1 * z
        b[3] = -_K1 * x
    if count > 4:
        b[4] = _K2A * x * y
        b[5] = -_K2A * y * z
        b[6] = _K2B * (2.0 * zz - xx - yy)
        b[7] = -_K2A * x * z
        b[8] = _K2C * (xx - yy)
    if count > 9:
        f = 4.0 * zz - xx - yy
        b[9] = -_K3A * y * (3.0 * xx - yy)
        b[10] = _K3B * x * y * z
        b[11] = -_K3C * y * f
        b[12] = _K3D * z * (2.0 * zz - 3.0 * (xx + yy))
        b[13] = -_K3C * x * f
        b[14] = _K3E * z * (xx - yy)
        b[15] = -_K3A * x * (xx - 3.0 * yy)
    return b


@no_type_check
@wp.func
def sh_slope(d: wp.vec3, s: Basis) -> wp.vec3:
    """Gradient of sum_k s[k] basis_k(d) over ``d``, taken as three free numbers."""
    x, y, z = d[0], d[1], d[2]
    g = _K1 * wp.vec3(-s[3], -s[1], s[2])
    a = _K2A
    b = 2.0 * _K2B
    c = 2.0 * _K2C
    g += wp.vec3(
        a * (y * s[4] - z * s[7]) - b * x * s[6] + c * x * s[8],
        a * (x * s[4] - z * s[5]) - b * y * s[6] - c * y * s[8],
        2.0 * b * z * s[6] - a * (y * s[5] + x * s[7]),
    )
    xx = x * x
    yy = y * y
    zz4 = 4.0 * z * z
    a9 = -_K3A * s[9]
    a10 = _K3B * s[10]
    a11 = -_K3C * s[11]
    a12 = _K3D * s[12]
    a13 = -_K3C * s[13]
    a14 = _K3E * s[14]
    a15 = -_K3A * s[15]
    xy2 = 2.0 * x * y
    gx = 3.0 * xy2 * a9 + y * z * a10 - xy2 * a11 - 6.0 * x * z * a12
    gx += (zz4 - 3.0 * xx - yy) * a13 + 2.0 * x * z * a14 + 3.0 * (xx - yy) * a15
    gy = 3.0 * (xx - yy) * a9 + x * z * a10 + (zz4 - xx - 3.0 * yy) * a11 - 6.0 * y * z * a12
    gy -= xy2 * a13 + 2.0 * y * z * a14 + 3.0 * xy2 * a15
    gz = x * y * a10 + 8.0 * y * z * a11 + (6.0 * z * z - 3.0 * (xx + yy)) * a12
    gz += 8.0 * x * z * a13 + (xx - yy) * a14
    return g + wp.vec3(gx, gy, gz)
