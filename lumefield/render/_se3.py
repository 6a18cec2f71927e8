"""Rigid motions as (3, 4) matrices [R | t], and their tangent vectors (rho, phi).

Solà, Deray, Atchuthan, "A micro Lie theory for state estimation in robotics", 2018, Sec. D.
Letters: rho translation part, phi rotation vector (axis times angle in radians), theta its length.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

_SMALL = 1e-2
"""theta^2 below which the coefficients are taken from their series (error < 1e-16)."""


def se3_exp(tangent: Array) -> Float[Array, "*b 3 4"]:
    """Rigid motion of a tangent vector; smooth everywhere, exact at zero.

    Refine a pose by ``compose``: R' = R exp(phi), that is ``pose[:, :3] @ exp[:, :3]``.

    Args:
        tangent: (*b, 6) rho in world units, then phi in radians.

    Returns:
        (*b, 3, 4) matrix [exp(phi) | V(phi) rho].

    Raises:
        ValueError: If the last axis is not 6.
    """
    if tangent.ndim < 1 or tangent.shape[-1] != 6:
        raise ValueError(f"tangent has shape {tangent.shape}, expected (*b, 6): rho, then phi")
    rho, phi = tangent[..., :3], tangent[..., 3:]
    k = _skew(phi)
    kk = _matmul(k, k)
    sine, cosine, third = (c[..., None, None] for c in _coefficients(jnp.sum(phi * phi, -1)))
    eye = jnp.broadcast_to(jnp.eye(3, dtype=tangent.dtype), k.shape)
    rotation = eye + sine * k + cosine * kk
    left = eye + cosine * k + third * kk
    return jnp.concatenate([rotation, _matmul(left, rho[..., None])], -1)


def se3_log(motion: Array) -> Float[Array, "*b 6"]:
    """Tangent vector of a rigid motion: the inverse of ``se3_exp`` for angles below pi.

    Accurate near the identity and near pi (through a quaternion). At pi the axis has two signs;
    one of them is returned.

    Args:
        motion: (*b, 3, 4) matrix [R | t], R orthonormal with determinant 1.

    Returns:
        (*b, 6) rho in world units, then phi in radians, |phi| <= pi.

    Raises:
        ValueError: If the last axes are not (3, 4).
    """
    if motion.shape[-2:] != (3, 4):
        raise ValueError(f"motion has shape {motion.shape}, expected (*b, 3, 4); drop the last row")
    phi = _rotation_log(motion[..., :3])
    theta2 = jnp.sum(phi * phi, -1)
    sine, cosine, _ = _coefficients(theta2)
    k = _skew(phi)
    # V^-1 = I - K / 2 + (1 - sine / (2 cosine)) / theta^2 K^2
    small = theta2 < _SMALL
    safe = jnp.where(small, 1.0, theta2)
    series = 1 / 12 + theta2 / 720 + theta2**2 / 30240 + theta2**3 / 1209600
    c = jnp.where(small, series, (1 - sine / (2 * cosine)) / safe)[..., None, None]
    eye = jnp.broadcast_to(jnp.eye(3, dtype=motion.dtype), k.shape)
    inverse = eye - 0.5 * k + c * _matmul(k, k)
    return jnp.concatenate([_matmul(inverse, motion[..., 3:])[..., 0], phi], -1)


def _matmul(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")


def _skew(v: Array) -> Array:
    x, y, z = v[..., 0], v[..., 1], v[..., 2]
    o = jnp.zeros_like(x)
    rows = ([o, -z, y], [z, o, -x], [-y, x, o])
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def _coefficients(theta2: Array) -> tuple[Array, Array, Array]:
    """sin(t) / t, (1 - cos t) / t^2 and (t - sin t) / t^3 with finite derivatives at 0."""
    small = theta2 < _SMALL
    safe = jnp.where(small, 1.0, theta2)
    theta = jnp.sqrt(safe)
    half = jnp.sin(0.5 * theta)
    x = jnp.where(small, theta2, 0.0)
    return (
        jnp.where(small, _series(x, 1), jnp.sin(theta) / theta),
        jnp.where(small, _series(x, 2), 2 * half * half / safe),
        jnp.where(small, _series(x, 3), (theta - jnp.sin(theta)) / (safe * theta)),
    )


def _series(x: Array, first: int) -> Array:
    """Sum over i of (-x)^i / (2 i + first)!."""
    total, term = jnp.zeros_like(x), 1.0
    for i in range(1, first + 1):
        term /= i
    power = jnp.ones_like(x)
    for i in range(7):
        total = total + term * power
        power = -power * x
        term /= (2 * i + first + 1) * (2 * i + first + 2)
    return total


def _rotation_log(r: Array) -> Array:
    """Rotation vector, through the quaternion whose largest component is taken first."""
    d = jnp.stack([r[..., i, i] for i in range(3)], -1)
    trace = jnp.sum(d, -1)
    skew = jnp.stack(
        [r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]], -1
    )
    # four scaled quaternions (w, x, y, z), the one that starts from its largest entry is exact
    sums = r + jnp.swapaxes(r, -1, -2)
    candidates = [jnp.concatenate([(1 + trace)[..., None], skew], -1)]
    for i in range(3):
        own = (1 - trace + 2 * d[..., i])[..., None]
        vector = [own if j == i else sums[..., i, j][..., None] for j in range(3)]
        candidates.append(jnp.concatenate([skew[..., i, None], *vector], -1))
    size = jnp.concatenate([trace[..., None], d], -1)
    pick = jax.nn.one_hot(jnp.argmax(size, -1), 4, dtype=r.dtype)
    q = jnp.sum(jnp.stack(candidates, -2) * pick[..., None], -2)
    q = q / jnp.sqrt(jnp.sum(q * q, -1, keepdims=True))
    q = jnp.where(q[..., :1] < 0, -q, q)
    w, v = q[..., 0], q[..., 1:]
    n2 = jnp.sum(v * v, -1)
    small = n2 < 1e-6
    n = jnp.sqrt(jnp.where(small, 1.0, n2))
    # 2 atan(n / w) / n; the series at n -> 0 is in n^2 / w^2, where w is near 1
    w_safe = jnp.where(small, w, 1.0)
    t2 = jnp.where(small, n2, 0.0) / (w_safe * w_safe)
    near = 2 / w_safe * (1 - t2 / 3 + t2 * t2 / 5)
    return v * jnp.where(small, near, 2 * jnp.arctan2(n, w) / n)[..., None]
