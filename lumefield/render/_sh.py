"""Real spherical harmonics up to degree 4: the view-dependent colour of a Gaussian.

Order and signs are those of 3DGS files (Kerbl et al. 2023): index ``l^2 + l + m``, degree 1 is
``(-y, z, -x)``. Letters: l degree, m order, x, y, z the components of a unit direction.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

MAX_DEGREE = 4


def _c(a: float, b: float) -> float:
    """The normalisation constant sqrt(a / (b pi))."""
    return math.sqrt(a / (b * math.pi))


def basis_columns(x: Array, y: Array, z: Array, degree: int) -> list[Array]:
    """The (degree + 1)^2 functions at unit directions given as three arrays of one shape."""
    out = [jnp.full_like(x, _c(1, 4))]
    if degree >= 1:
        out += [-_c(3, 4) * y, _c(3, 4) * z, -_c(3, 4) * x]
    if degree >= 2:
        xx, yy, zz, xy, yz, xz = x * x, y * y, z * z, x * y, y * z, x * z
        out += [
            _c(15, 4) * xy,
            -_c(15, 4) * yz,
            _c(5, 16) * (3 * zz - 1),
            -_c(15, 4) * xz,
            _c(15, 16) * (xx - yy),
        ]
        if degree >= 3:
            out += [
                -_c(35, 32) * y * (3 * xx - yy),
                _c(105, 4) * xy * z,
                -_c(21, 32) * y * (5 * zz - 1),
                _c(7, 16) * z * (5 * zz - 3),
                -_c(21, 32) * x * (5 * zz - 1),
                _c(105, 16) * z * (xx - yy),
                -_c(35, 32) * x * (xx - 3 * yy),
            ]
        if degree >= 4:
            out += [
                _c(315, 16) * xy * (xx - yy),
                -_c(315, 32) * yz * (3 * xx - yy),
                _c(45, 16) * xy * (7 * zz - 1),
                -_c(45, 32) * yz * (7 * zz - 3),
                _c(9, 256) * (zz * (35 * zz - 30) + 3),
                -_c(45, 32) * xz * (7 * zz - 3),
                _c(45, 64) * (xx - yy) * (7 * zz - 1),
                -_c(315, 32) * xz * (xx - 3 * yy),
                _c(315, 256) * (xx * (xx - 3 * yy) - yy * (3 * xx - yy)),
            ]
    return out


def sh_basis(directions: Array, degree: int) -> Float[Array, "*b k"]:
    """Real spherical harmonics of degree 0 to ``degree``, 3DGS order and signs.

    Differentiable in the directions (as polynomials; normalise before, with gradient, for the
    derivative on the sphere).

    Args:
        directions: (*b, 3) unit vectors.
        degree: 0 to 4.

    Returns:
        (*b, (degree + 1)^2) values, orthonormal over the sphere.

    Raises:
        ValueError: If the degree or the last axis does not fit.

    Example:
        >>> sh_basis(jnp.array([[0.0, 0.0, 1.0]]), 2).shape
        (1, 9)
    """
    if not 0 <= degree <= MAX_DEGREE:
        raise ValueError(f"degree={degree}, expected 0 to {MAX_DEGREE}; cut the coefficients")
    if directions.ndim < 1 or directions.shape[-1] != 3:
        raise ValueError(f"directions has shape {directions.shape}, expected (*b, 3); transpose it")
    x, y, z = (directions[..., i] for i in range(3))
    return jnp.stack(basis_columns(x, y, z, degree), -1)


def degree_of(count: int) -> int:
    """The degree whose number of coefficients is ``count``.

    Raises:
        ValueError: If no degree from 0 to 4 has that many.
    """
    if count not in (1, 4, 9, 16, 25):
        raise ValueError(
            f"sh has {count} coefficients, expected K in 1 4 9 16 25; pad it with zeros"
        )
    return math.isqrt(count) - 1


def rotate_sh(sh: Array, rotation: Array) -> Float[Array, "n k 3"]:
    """Coefficients of the rotated function: colour'(d) = colour(rotation^T d).

    The rotation acts on each degree separately; its matrices are the least-squares solution over
    a fixed set of directions (exact up to rounding, since each degree is closed under rotation).
    Differentiable in both arguments.

    Args:
        sh: (N, K, 3) coefficients, K in 1 4 9 16 25.
        rotation: (3, 3) new_from_old rotation.

    Returns:
        (N, K, 3) coefficients in the new frame.

    Raises:
        ValueError: If a shape does not fit.
    """
    if sh.ndim != 3 or sh.shape[-1] != 3:
        raise ValueError(f"sh has shape {sh.shape}, expected (N, K, 3); keep the colours last")
    if rotation.shape != (3, 3):
        raise ValueError(f"rotation has shape {rotation.shape}, expected (3, 3); drop translation")
    degree = degree_of(sh.shape[1])
    old, inverse = _directions(degree)
    turned = sh_basis(jnp.asarray(old, sh.dtype) @ rotation.astype(sh.dtype), degree)
    parts: list[Array] = []
    for low, solve in enumerate(inverse):
        band = slice(low**2, (low + 1) ** 2)
        matrix = jnp.asarray(solve, sh.dtype) @ turned[:, band]
        parts.append(jnp.einsum("ij,njc->nic", matrix, sh[:, band], precision="highest"))
    return jnp.concatenate(parts, 1)


def _directions(degree: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Spread-out directions and, for each degree, the pseudo-inverse of the basis at them."""
    n = 64
    z = 1 - (2 * np.arange(n) + 1) / n
    angle = np.arange(n) * math.pi * (3 - math.sqrt(5))
    r = np.sqrt(1 - z * z)
    d = np.stack([r * np.cos(angle), r * np.sin(angle), z], -1)
    values = _numpy_basis(d, degree)
    return d, [np.linalg.pinv(values[:, i**2 : (i + 1) ** 2]) for i in range(degree + 1)]


def _numpy_basis(d: np.ndarray, degree: int) -> np.ndarray:
    """Associated Legendre recurrence in float64: the same functions, found another way."""
    x, y, z = d.T
    table: dict[tuple[int, int], np.ndarray] = {(0, 0): np.ones_like(z)}
    for m in range(degree + 1):
        if m:  # P_mm without the sine, which goes into the powers of x + iy
            table[m, m] = -(2 * m - 1) * table[m - 1, m - 1]
        if m < degree:
            table[m + 1, m] = (2 * m + 1) * z * table[m, m]
        for low in range(m + 2, degree + 1):
            high = (2 * low - 1) * z * table[low - 1, m] - (low + m - 1) * table[low - 2, m]
            table[low, m] = high / (low - m)
    power = (x + 1j * y)[:, None] ** np.arange(degree + 1)
    out: list[np.ndarray] = []
    for low in range(degree + 1):
        for m in range(-low, low + 1):
            k = abs(m)
            norm = (2 * low + 1) / (4 * math.pi) * math.factorial(low - k)
            norm = math.sqrt(norm / math.factorial(low + k) * (2 if m else 1))
            trig = power[:, k].imag if m < 0 else power[:, k].real
            out.append(norm * table[low, k] * trig)
    return np.stack(out, -1)
