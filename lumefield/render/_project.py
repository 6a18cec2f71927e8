"""EWA projection of 3D Gaussians and their view-dependent colour, in plain jnp.

Zwicker et al., "EWA Splatting", 2002; conventions of gsplat 1.5 (linearisation point clamped to
1.3 times the field of view, low-pass 0.3 px^2). Letters: X, Y, Z camera coordinates, a0 and a1 the
rows of A = J R Q diag(s) (2x3), so that the 2D covariance is S = A A^T + e I.

The shape leaves as the triangular factor (u, v, w) of the inverse covariance,

    sigma = ((u dx + v dy)^2 + (w dy)^2) / 2,    (dx, dy) = pixel centre - xy,

whose determinant is built by Cauchy-Binet without subtraction: needles keep their width.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from lumefield.render._sh import basis_columns, degree_of

LOW_PASS = 0.3
"""px^2 added to both diagonal entries of the 2D covariance."""


class Projected(NamedTuple):
    """Gaussians on the image plane; ``opacities`` is 0 for those that are culled."""

    xy: Float[Array, "*b n 2"]
    """Centres in pixels; (0.5, 0.5) is the centre of the first pixel."""
    factor: Float[Array, "*b n 3"]
    """(u, v, w) in 1/px, u and w > 0."""
    depth: Float[Array, "*b n"]
    """Camera Z, world units."""
    opacities: Float[Array, "*b n"]
    """In [0, 1]; 0 where the Gaussian is not in front of the camera."""
    rgb: Float[Array, "*b n 3"]
    """Display sRGB seen from this camera, >= 0, not clipped above."""


class _Jacobian(NamedTuple):
    """xy and the entries of J = d xy / d (X, Y, Z), as columns over the Gaussians."""

    xy: tuple[Array, Array]
    row0: tuple[Array, Array, Array]
    row1: tuple[Array, Array, Array]


def project(
    means: Array,
    quats_wxyz: Array,
    scales: Array,
    opacities: Array,
    sh: Array,
    world_from_cam: Array,
    focal: Array,
    centre: Array,
    *,
    height: int,
    width: int,
    near: float,
    antialiased: bool,
    model: str,
) -> Projected:
    """Project one set of Gaussians into one camera; shapes as in ``project_gaussians``."""
    rotation, position = world_from_cam[:, :3], world_from_cam[:, 3]
    # Whole-array normalisations first: column by column, XLA would repeat them for each output.
    offset = means - position[None]
    cam = jnp.matmul(offset, rotation, precision="highest")
    q = quats_wxyz * _rsqrt_norm2(quats_wxyz)
    direction = offset * _rsqrt_norm2(offset)

    ok = cam[:, 2] > near
    safe = jnp.where(ok[:, None], cam, jnp.ones((1, 3), cam.dtype))
    lens = {"pinhole": _pinhole, "ortho": _ortho, "fisheye": _fisheye}[model]
    jac = lens(safe[:, 0], safe[:, 1], safe[:, 2], focal, centre, height, width)

    turn = _rotation_columns(q)
    s = [scales[:, i] for i in range(3)]
    a0 = _axis_row(jac.row0, rotation, turn, s)
    a1 = _axis_row(jac.row1, rotation, turn, s)
    factor, coverage = _factor(a0, a1)
    if antialiased:
        opacities = opacities * coverage
    return Projected(
        xy=jnp.stack(jac.xy, -1),
        factor=factor,
        depth=cam[:, 2],
        opacities=jnp.where(ok, opacities, 0.0),
        rgb=colour(sh, direction),
    )


def colour(sh: Array, direction: Array) -> Array:
    """Colour max(0.5 + sum, 0) of (N, K, 3) coefficients and (N, 3) unit directions."""
    x, y, z = (direction[:, i] for i in range(3))
    basis = jnp.stack(basis_columns(x, y, z, degree_of(sh.shape[1])), -1)
    return jnp.maximum(jnp.sum(basis[:, :, None] * sh, 1) + 0.5, 0.0)


def _rsqrt_norm2(v: Array) -> Array:
    """1 / length over the last axis, finite (and differentiable) at the zero vector."""
    return 1 / jnp.sqrt(jnp.sum(v * v, -1, keepdims=True) + 1e-24)


def _rotation_columns(q: Array) -> list[list[Array]]:
    """3x3 rotation of unit quaternions (N, 4), entry by entry."""
    w, x, y, z = (q[:, i] for i in range(4))
    return [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]


def _axis_row(
    row: tuple[Array, Array, Array], rotation: Array, turn: list[list[Array]], s: list[Array]
) -> list[Array]:
    """One row of J R Q diag(s), R = cam_from_world = rotation^T."""
    t = [
        sum((row[k] * rotation[i, k] for k in range(1, 3)), row[0] * rotation[i, 0])
        for i in range(3)
    ]
    return [(t[0] * turn[0][k] + t[1] * turn[1][k] + t[2] * turn[2][k]) * s[k] for k in range(3)]


def _factor(a0: list[Array], a1: list[Array]) -> tuple[Array, Array]:
    """(u, v, w) of the blurred covariance, and sqrt(det without blur / det with blur)."""
    aa = a0[0] * a0[0] + a0[1] * a0[1] + a0[2] * a0[2]
    cc = a1[0] * a1[0] + a1[1] * a1[1] + a1[2] * a1[2]
    b = a0[0] * a1[0] + a0[1] * a1[1] + a0[2] * a1[2]
    q = 1 / (cc + LOW_PASS)
    w = jnp.sqrt(q)
    # det(S) / c, a sum of squares: |a0 x a1|^2 / c + e (|a0|^2 + |a1|^2 + e) / c
    n0 = (a0[1] * a1[2] - a0[2] * a1[1]) * w
    n1 = (a0[2] * a1[0] - a0[0] * a1[2]) * w
    n2 = (a0[0] * a1[1] - a0[1] * a1[0]) * w
    sharp = n0 * n0 + n1 * n1 + n2 * n2
    schur = sharp + LOW_PASS * (aa + cc + LOW_PASS) * q
    u = 1 / jnp.sqrt(schur)
    # Mip-Splatting's 2D filter (Yu et al. 2024); the floor keeps the derivative of the root finite
    coverage = jnp.sqrt(jnp.maximum(sharp / schur, 1e-12))
    return jnp.stack([u, -b * q * u, w], -1), coverage


def _pinhole(
    x: Array, y: Array, z: Array, focal: Array, centre: Array, height: int, width: int
) -> _Jacobian:
    iz = 1 / z
    tx = _clamped(x * iz, focal[0], centre[0], width)
    ty = _clamped(y * iz, focal[1], centre[1], height)
    zero = jnp.zeros_like(z)
    fx, fy = focal[0] * iz, focal[1] * iz
    return _Jacobian(
        xy=(focal[0] * (x / z) + centre[0], focal[1] * (y / z) + centre[1]),
        row0=(fx, zero, -fx * tx),
        row1=(zero, fy, -fy * ty),
    )


def _clamped(slope: Array, f: Array, c: Array, size: int) -> Array:
    """Slope of the linearisation point: at most 0.3 half fields of view outside the image."""
    margin = 0.3 * 0.5 * size / f
    return jnp.clip(slope, -(c / f + margin), (size - c) / f + margin)


def _ortho(
    x: Array, y: Array, z: Array, focal: Array, centre: Array, height: int, width: int
) -> _Jacobian:
    del height, width
    zero, one = jnp.zeros_like(z), jnp.ones_like(z)
    return _Jacobian(
        xy=(focal[0] * x + centre[0], focal[1] * y + centre[1]),
        row0=(focal[0] * one, zero, zero),
        row1=(zero, focal[1] * one, zero),
    )


def _fisheye(
    x: Array, y: Array, z: Array, focal: Array, centre: Array, height: int, width: int
) -> _Jacobian:
    """Equidistant: the distance to the principal point is f theta. Smooth on the axis."""
    del height, width
    r2 = x * x + y * y
    il2 = 1 / (r2 + z * z)
    near_axis = r2 < 0.04 * z * z
    t = r2 / (z * z)  # both branches stay finite on both sides of the switch
    r2_far = jnp.where(near_axis, jnp.ones_like(r2), r2)
    t = jnp.where(near_axis, t, jnp.zeros_like(t))
    r = jnp.sqrt(r2_far)
    k_far = jnp.arctan2(r, z) / r
    h_far = (z * il2 - k_far) / r2_far
    # theta / r and its derivative over r, as series in t = tan^2 theta
    k_near = jnp.polyval(jnp.asarray([(-1) ** i / (2 * i + 1) for i in range(8)][::-1], t.dtype), t)
    h_near = jnp.polyval(
        jnp.asarray([(-1) ** (i + 1) * (2 * i + 2) / (2 * i + 3) for i in range(8)][::-1], t.dtype),
        t,
    )
    k = jnp.where(near_axis, k_near / z, k_far)
    h = jnp.where(near_axis, h_near / (z * z * z), h_far)
    fx, fy = focal[0], focal[1]
    return _Jacobian(
        xy=(fx * k * x + centre[0], fy * k * y + centre[1]),
        row0=(fx * (k + x * x * h), fx * x * y * h, -fx * x * il2),
        row1=(fy * x * y * h, fy * (k + y * y * h), -fy * y * il2),
    )
