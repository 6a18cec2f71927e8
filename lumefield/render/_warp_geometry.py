"""Projection of one Gaussian and its way back, as Warp functions for ``_warp_project``.

The mathematics is that of ``_project`` (Zwicker et al. 2002); letters: t0 and t1 are the rows of
J R, linearised at the clamped direction, q_k column k of the Gaussian's rotation,
a0_k = s_k t0.q_k, c the second diagonal entry of the covariance. The centre is found in double: a
float near pixel 1000 is already 3e-5 px off.
"""

from typing import no_type_check

import warp as wp

from lumefield.render import _spec
from lumefield.render._project import LOW_PASS

_LOW_PASS = wp.constant(wp.float32(LOW_PASS))
_ALPHA_MIN = wp.constant(wp.float32(_spec.ALPHA_MIN))
_TINY = wp.constant(wp.float32(1e-24))
_LEAST_COVERAGE = wp.constant(wp.float32(1e-12))


@no_type_check
@wp.struct
class Camera:
    """One pinhole camera."""

    r0: wp.vec3
    r1: wp.vec3
    r2: wp.vec3
    position: wp.vec3
    focal: wp.vec2
    centre: wp.vec2
    size: wp.vec2
    """Width and height."""
    near: wp.float32


@no_type_check
@wp.struct
class Geometry:
    """One Gaussian in front of a camera."""

    front: wp.bool
    xy: wp.vec2
    rel: wp.vec3
    p: wp.vec3
    iz: wp.float32
    slope: wp.vec2
    """Slopes of the linearisation point."""
    free_x: wp.bool
    free_y: wp.bool
    t0: wp.vec3
    t1: wp.vec3
    unit: wp.vec4
    """Unit quaternion wxyz."""
    shrink: wp.float32
    """1 / length of the quaternion."""
    q0: wp.vec3
    q1: wp.vec3
    q2: wp.vec3
    a0: wp.vec3
    a1: wp.vec3
    b: wp.float32
    c: wp.float32
    sharp: wp.float32
    """Determinant without low-pass, over c."""
    schur: wp.float32
    """Determinant, over c."""


@no_type_check
@wp.func
def camera_of(
    pose: wp.array2d[wp.float32],
    focal: wp.array[wp.float32],
    centre: wp.array[wp.float32],
    width: wp.float32,
    height: wp.float32,
    near: wp.float32,
) -> Camera:
    """Unpack the arrays of a camera; ``pose`` is world_from_cam."""
    o = Camera()
    o.r0 = wp.vec3(pose[0, 0], pose[1, 0], pose[2, 0])
    o.r1 = wp.vec3(pose[0, 1], pose[1, 1], pose[2, 1])
    o.r2 = wp.vec3(pose[0, 2], pose[1, 2], pose[2, 2])
    o.position = wp.vec3(pose[0, 3], pose[1, 3], pose[2, 3])
    o.focal = wp.vec2(focal[0], focal[1])
    o.centre = wp.vec2(centre[0], centre[1])
    o.size = wp.vec2(width, height)
    o.near = near
    return o


@no_type_check
@wp.func
def clamped_slope(slope: wp.float32, f: wp.float32, c: wp.float32, size: wp.float32) -> wp.float32:
    """Slope of the linearisation point: at most 0.3 half fields of view outside the image."""
    margin = 0.15 * size / f
    return wp.clamp(slope, -(c / f + margin), (size - c) / f + margin)


@no_type_check
@wp.func
def geometry_of(cam: Camera, mean: wp.vec3, quat: wp.vec4, scale: wp.vec3) -> Geometry:
    """Everything of one Gaussian but its colour."""
    o = Geometry()
    wide = wp.vec3d(mean) - wp.vec3d(cam.position)
    px = wp.dot(wide, wp.vec3d(cam.r0))
    py = wp.dot(wide, wp.vec3d(cam.r1))
    pz = wp.dot(wide, wp.vec3d(cam.r2))
    o.rel = wp.vec3(wide)
    o.p = wp.vec3(wp.float32(px), wp.float32(py), wp.float32(pz))
    o.front = o.p[2] > cam.near
    if not o.front:
        px = wp.float64(1.0)
        py = wp.float64(1.0)
        pz = wp.float64(1.0)
    x = wp.float32(px / pz * wp.float64(cam.focal[0]) + wp.float64(cam.centre[0]))
    y = wp.float32(py / pz * wp.float64(cam.focal[1]) + wp.float64(cam.centre[1]))
    o.xy = wp.vec2(x, y)
    o.iz = 1.0 / wp.float32(pz)
    dx = wp.float32(px) * o.iz
    dy = wp.float32(py) * o.iz
    tx = clamped_slope(dx, cam.focal[0], cam.centre[0], cam.size[0])
    ty = clamped_slope(dy, cam.focal[1], cam.centre[1], cam.size[1])
    o.slope = wp.vec2(tx, ty)
    o.free_x = tx == dx
    o.free_y = ty == dy
    o.t0 = (cam.focal[0] * o.iz) * (cam.r0 - tx * cam.r2)
    o.t1 = (cam.focal[1] * o.iz) * (cam.r1 - ty * cam.r2)
    o.shrink = 1.0 / wp.sqrt(wp.dot(quat, quat) + _TINY)
    o.unit = quat * o.shrink
    qw, qx, qy, qz = o.unit[0], o.unit[1], o.unit[2], o.unit[3]
    o.q0 = wp.vec3(
        1.0 - 2.0 * (qy * qy + qz * qz), 2.0 * (qx * qy + qw * qz), 2.0 * (qx * qz - qw * qy)
    )
    o.q1 = wp.vec3(
        2.0 * (qx * qy - qw * qz), 1.0 - 2.0 * (qx * qx + qz * qz), 2.0 * (qy * qz + qw * qx)
    )
    o.q2 = wp.vec3(
        2.0 * (qx * qz + qw * qy), 2.0 * (qy * qz - qw * qx), 1.0 - 2.0 * (qx * qx + qy * qy)
    )
    h0 = wp.vec3(wp.dot(o.t0, o.q0), wp.dot(o.t0, o.q1), wp.dot(o.t0, o.q2))
    h1 = wp.vec3(wp.dot(o.t1, o.q0), wp.dot(o.t1, o.q1), wp.dot(o.t1, o.q2))
    o.a0 = wp.cw_mul(h0, scale)
    o.a1 = wp.cw_mul(h1, scale)
    aa = wp.dot(o.a0, o.a0)
    cc = wp.dot(o.a1, o.a1)
    o.b = wp.dot(o.a0, o.a1)
    o.c = cc + _LOW_PASS
    # det / c as a sum of squares (Cauchy-Binet): needles keep their width
    n = wp.cross(o.a0, o.a1) / wp.sqrt(o.c)
    o.sharp = wp.dot(n, n)
    o.schur = o.sharp + _LOW_PASS * (aa + cc + _LOW_PASS) / o.c
    return o


@no_type_check
@wp.func
def coverage_of(o: Geometry, antialiased: wp.bool) -> wp.float32:
    """What antialiasing multiplies the opacity by."""
    if not antialiased:
        return wp.float32(1.0)
    return wp.sqrt(wp.max(o.sharp / o.schur, _LEAST_COVERAGE))


@no_type_check
@wp.func
def is_seen(o: Geometry, cam: Camera, opacity: wp.float32) -> wp.bool:
    """Whether the ellipse e >= 1/255 may meet the image."""
    if not (o.front and opacity >= _ALPHA_MIN):
        return False
    reach = 1.01 * wp.sqrt(2.0 * wp.log(opacity / _ALPHA_MIN)) + 0.01
    w2 = 1.0 / o.c
    v = o.b * w2 / wp.sqrt(o.schur)
    half_x = reach * wp.sqrt((w2 + v * v) * o.schur * o.c) + 1.0
    half_y = reach * wp.sqrt(o.c) + 1.0
    x = o.xy[0]
    y = o.xy[1]
    across = x + half_x > 0.0 and x - half_x < cam.size[0]
    return across and y + half_y > 0.0 and y - half_y < cam.size[1]


@no_type_check
@wp.struct
class Slopes:
    """Cotangents of one Gaussian on their way back, as far as its rotation, scale and place."""

    t0: wp.vec3
    t1: wp.vec3
    a0: wp.vec3
    a1: wp.vec3
    k0: wp.float32
    k1: wp.float32
    slope: wp.vec2
    p: wp.vec3


@no_type_check
@wp.func
def slopes_of(
    o: Geometry,
    cam: Camera,
    scale: wp.vec3,
    g_xy: wp.vec2,
    g_factor: wp.vec3,
    g_coverage: wp.float32,
) -> Slopes:
    """From the cotangents of centre, shape and coverage to those of the camera coordinates."""
    g = Slopes()
    det = o.schur * o.c
    inv_c = 1.0 / o.c
    inv_det = 1.0 / det
    root = wp.sqrt(inv_c * inv_det)
    u = o.c * root
    v = -o.b * root
    w = wp.sqrt(inv_c)
    # u = sqrt(c / det), v = -b / sqrt(c det), w = 1 / sqrt(c)
    along_v = 0.5 * v * g_factor[1]
    g_det = -(0.5 * u * g_factor[0] + along_v) * inv_det
    g_c = (0.5 * u * g_factor[0] - along_v - 0.5 * w * g_factor[2]) * inv_c
    g_b = -root * g_factor[1]
    ratio = o.sharp / o.schur
    g_det0 = wp.float32(0.0)
    if ratio > _LEAST_COVERAGE:
        half = 0.5 * wp.sqrt(ratio) * g_coverage
        g_det0 = half / (o.sharp * o.c)
        g_det -= half * inv_det
    # det = |a0 x a1|^2 + e (|a0|^2 + |a1|^2) + e^2; not by a c - b^2, which cancels for needles
    n = wp.cross(o.a0, o.a1)
    g_n = 2.0 * (g_det + g_det0)
    g_e = 2.0 * _LOW_PASS * g_det
    g.a0 = g_n * wp.cross(o.a1, n) + g_e * o.a0 + g_b * o.a1
    g.a1 = g_n * wp.cross(n, o.a0) + (g_e + 2.0 * g_c) * o.a1 + g_b * o.a0
    b0 = wp.cw_mul(g.a0, scale)
    b1 = wp.cw_mul(g.a1, scale)
    g.t0 = b0[0] * o.q0 + b0[1] * o.q1 + b0[2] * o.q2
    g.t1 = b1[0] * o.q0 + b1[1] * o.q1 + b1[2] * o.q2
    # t0 = fx iz (r0 - tx r2), t1 = fy iz (r1 - ty r2), x = fx X iz + cx, y = fy Y iz + cy
    fx = cam.focal[0]
    fy = cam.focal[1]
    g.k0 = wp.dot(g.t0, cam.r0 - o.slope[0] * cam.r2)
    g.k1 = wp.dot(g.t1, cam.r1 - o.slope[1] * cam.r2)
    g.slope = -o.iz * wp.vec2(fx * wp.dot(g.t0, cam.r2), fy * wp.dot(g.t1, cam.r2))
    along_x = g_xy[0] * fx
    along_y = g_xy[1] * fy
    if o.free_x:
        along_x += g.slope[0]
    if o.free_y:
        along_y += g.slope[1]
    g_iz = g.k0 * fx + g.k1 * fy + along_x * o.p[0] + along_y * o.p[1]
    g.p = o.iz * wp.vec3(along_x, along_y, -g_iz * o.iz)
    return g


@no_type_check
@wp.func
def scale_slope(o: Geometry, g: Slopes) -> wp.vec3:
    """Gradient of the three standard deviations."""
    return wp.vec3(
        g.a0[0] * wp.dot(o.t0, o.q0) + g.a1[0] * wp.dot(o.t1, o.q0),
        g.a0[1] * wp.dot(o.t0, o.q1) + g.a1[1] * wp.dot(o.t1, o.q1),
        g.a0[2] * wp.dot(o.t0, o.q2) + g.a1[2] * wp.dot(o.t1, o.q2),
    )


@no_type_check
@wp.func
def quaternion_slope(o: Geometry, g: Slopes, scale: wp.vec3) -> wp.vec4:
    """Rotation columns -> unit quaternion -> quaternion of any length."""
    b0 = wp.cw_mul(g.a0, scale)
    b1 = wp.cw_mul(g.a1, scale)
    c0 = b0[0] * o.t0 + b1[0] * o.t1
    c1 = b0[1] * o.t0 + b1[1] * o.t1
    c2 = b0[2] * o.t0 + b1[2] * o.t1
    w, x, y, z = o.unit[0], o.unit[1], o.unit[2], o.unit[3]
    g_w = x * (c1[2] - c2[1]) + y * (c2[0] - c0[2]) + z * (c0[1] - c1[0])
    g_x = y * (c0[1] + c1[0]) + z * (c0[2] + c2[0]) + w * (c1[2] - c2[1])
    g_y = x * (c0[1] + c1[0]) + z * (c1[2] + c2[1]) + w * (c2[0] - c0[2])
    g_z = x * (c0[2] + c2[0]) + y * (c1[2] + c2[1]) + w * (c0[1] - c1[0])
    g_x -= 2.0 * x * (c1[1] + c2[2])
    g_y -= 2.0 * y * (c0[0] + c2[2])
    g_z -= 2.0 * z * (c0[0] + c1[1])
    free = 2.0 * wp.vec4(g_w, g_x, g_y, g_z)
    return o.shrink * (free - wp.dot(free, o.unit) * o.unit)
