"""Projection and colour of the `warp` backend as kernels: one thread a Gaussian.

The gradient of the camera is a kernel of its own, so that XLA drops it where nobody asks for it.
Its sums run over all Gaussians: a fixed number of threads adds in double, in a fixed order.
"""

from typing import no_type_check

import warp as wp

from lumefield.render._warp_geometry import (
    Camera,
    Geometry,
    Slopes,
    camera_of,
    coverage_of,
    geometry_of,
    is_seen,
    quaternion_slope,
    scale_slope,
    slopes_of,
)
from lumefield.render._warp_sh import MAX_COEFFICIENTS, Basis, sh_basis, sh_slope

wp.set_module_options({"enable_backward": False, "fast_math": False})

CAMERA_BLOCK = 128
"""Threads of a block that sums the gradient of the camera."""
CAMERA_BLOCKS = 128
"""Blocks that do, at most."""

_TINY = wp.constant(wp.float32(1e-24))
_BLOCK = wp.constant(CAMERA_BLOCK)
_COUNT = wp.constant(MAX_COEFFICIENTS)

PoseSums = wp.types.vector(length=16, dtype=wp.float64)
"""Rows of cam_from_world, position, fx, fy, cx, cy."""


@no_type_check
@wp.func
def basis_at(rel: wp.vec3, count: wp.int32) -> Basis:
    """Spherical harmonics towards a point ``rel`` away from the camera."""
    return sh_basis(rel / wp.sqrt(wp.dot(rel, rel) + _TINY), count)


@no_type_check
@wp.func
def colour_of(i: wp.int32, sh: wp.array2d[wp.vec3], basis: Basis) -> wp.vec3:
    """Colour of Gaussian ``i`` before it is clamped."""
    colour = wp.vec3(0.5, 0.5, 0.5)
    for k in range(_COUNT):
        if k < sh.shape[1]:
            colour += basis[k] * sh[i, k]
    return colour


@no_type_check
@wp.kernel
def project_forward(
    means: wp.array[wp.vec3],
    quats: wp.array[wp.vec4],
    scales: wp.array[wp.vec3],
    opacities: wp.array[wp.float32],
    sh: wp.array2d[wp.vec3],
    pose: wp.array2d[wp.float32],
    focal: wp.array[wp.float32],
    centre: wp.array[wp.float32],
    width: wp.float32,
    height: wp.float32,
    near: wp.float32,
    antialiased: wp.bool,
    xy: wp.array[wp.vec2],
    factor: wp.array[wp.vec3],
    depth: wp.array[wp.float32],
    opacity: wp.array[wp.float32],
    rgb: wp.array[wp.vec3],
) -> None:
    """Centre, shape, depth, opacity and colour; colour is 0 where nothing can be seen."""
    i = wp.tid()
    cam = camera_of(pose, focal, centre, width, height, near)
    o = geometry_of(cam, means[i], quats[i], scales[i])
    u = 1.0 / wp.sqrt(o.schur)
    xy[i] = o.xy
    factor[i] = wp.vec3(u, -o.b / o.c * u, 1.0 / wp.sqrt(o.c))
    depth[i] = o.p[2]
    shown = wp.float32(0.0)
    if o.front:
        shown = opacities[i] * coverage_of(o, antialiased)
    opacity[i] = shown
    colour = wp.vec3()
    if is_seen(o, cam, shown):
        colour = wp.max(colour_of(i, sh, basis_at(o.rel, sh.shape[1])), wp.vec3())
    rgb[i] = colour


@no_type_check
@wp.func
def kept_colour(i: wp.int32, sh: wp.array2d[wp.vec3], basis: Basis, g_rgb: wp.vec3) -> wp.vec3:
    """The cotangent of the channels of Gaussian ``i`` that are not clamped to 0."""
    colour = colour_of(i, sh, basis)
    g = g_rgb
    for c in range(3):
        if colour[c] <= 0.0:
            g[c] = 0.0
    return g


@no_type_check
@wp.func
def direction_slope(rel: wp.vec3, i: wp.int32, sh: wp.array2d[wp.vec3], g_rgb: wp.vec3) -> wp.vec3:
    """Gradient over ``rel`` of the colour of Gaussian ``i``, from what ``kept_colour`` returns."""
    s = Basis()
    for k in range(_COUNT):
        if k < sh.shape[1]:
            s[k] = wp.dot(g_rgb, sh[i, k])
    inverse = 1.0 / wp.sqrt(wp.dot(rel, rel) + _TINY)
    direction = inverse * rel
    slope = sh_slope(direction, s)
    return inverse * (slope - wp.dot(slope, direction) * direction)


@no_type_check
@wp.func
def is_zero(
    g_xy: wp.vec2, g_factor: wp.vec3, g_depth: wp.float32, g_opacity: wp.float32, g_rgb: wp.vec3
) -> wp.bool:
    """Whether nothing comes back to a Gaussian."""
    shape = wp.dot(wp.abs(g_factor), wp.vec3(1.0)) + wp.dot(wp.abs(g_xy), wp.vec2(1.0))
    return shape + wp.dot(wp.abs(g_rgb), wp.vec3(1.0)) + wp.abs(g_depth) + wp.abs(g_opacity) == 0.0


@no_type_check
@wp.struct
class Way:
    """One Gaussian on its way back, as far as the coordinates of the camera."""

    o: Geometry
    g: Slopes
    """Of shape and centre; not set where the Gaussian is not in front."""
    coverage: wp.float32
    to_p: wp.vec3
    """Cotangent of the camera coordinates."""
    kept: wp.vec3
    """See ``kept_colour``; 0 where the Gaussian cannot be seen, as is the next."""
    to_rel: wp.vec3
    """Gradient of the colour over where the Gaussian is from the camera."""


@no_type_check
@wp.func
def way_back(
    i: wp.int32,
    cam: Camera,
    means: wp.array[wp.vec3],
    quats: wp.array[wp.vec4],
    scales: wp.array[wp.vec3],
    opacities: wp.array[wp.float32],
    sh: wp.array2d[wp.vec3],
    g_xy: wp.array[wp.vec2],
    g_factor: wp.array[wp.vec3],
    g_depth: wp.array[wp.float32],
    g_opacity: wp.array[wp.float32],
    g_rgb: wp.array[wp.vec3],
    antialiased: wp.bool,
) -> Way:
    """What the gradients of a Gaussian and of the camera have in common."""
    way = Way()
    scale = scales[i]
    way.o = geometry_of(cam, means[i], quats[i], scale)
    way.to_p = wp.vec3(0.0, 0.0, g_depth[i])  # depth is Z everywhere, also behind the camera
    if way.o.front:
        way.coverage = coverage_of(way.o, antialiased)
        g_coverage = wp.float32(0.0)
        if antialiased:
            g_coverage = g_opacity[i] * opacities[i]
        way.g = slopes_of(way.o, cam, scale, g_xy[i], g_factor[i], g_coverage)
        way.to_p += way.g.p
        if is_seen(way.o, cam, opacities[i] * way.coverage):
            way.kept = kept_colour(i, sh, basis_at(way.o.rel, sh.shape[1]), g_rgb[i])
            way.to_rel = direction_slope(way.o.rel, i, sh, way.kept)
    return way


@no_type_check
@wp.kernel
def project_backward(
    means: wp.array[wp.vec3],
    quats: wp.array[wp.vec4],
    scales: wp.array[wp.vec3],
    opacities: wp.array[wp.float32],
    sh: wp.array2d[wp.vec3],
    pose: wp.array2d[wp.float32],
    focal: wp.array[wp.float32],
    centre: wp.array[wp.float32],
    g_xy: wp.array[wp.vec2],
    g_factor: wp.array[wp.vec3],
    g_depth: wp.array[wp.float32],
    g_opacity: wp.array[wp.float32],
    g_rgb: wp.array[wp.vec3],
    width: wp.float32,
    height: wp.float32,
    near: wp.float32,
    antialiased: wp.bool,
    g_means: wp.array[wp.vec3],
    g_quats: wp.array[wp.vec4],
    g_scales: wp.array[wp.vec3],
    g_opacities: wp.array[wp.float32],
    kept: wp.array[wp.vec3],
) -> None:
    """Gradients of the Gaussians, of the harmonics as what ``sh_backward`` spreads over them."""
    i = wp.tid()
    to_mean = wp.vec3()
    to_quat = wp.vec4()
    to_scale = wp.vec3()
    to_opacity = wp.float32(0.0)
    to_sh = wp.vec3()
    if not is_zero(g_xy[i], g_factor[i], g_depth[i], g_opacity[i], g_rgb[i]):
        cam = camera_of(pose, focal, centre, width, height, near)
        way = way_back(
            i, cam, means, quats, scales, opacities, sh,
            g_xy, g_factor, g_depth, g_opacity, g_rgb, antialiased,
        )  # fmt: skip
        if way.o.front:
            to_opacity = g_opacity[i] * way.coverage
            to_quat = quaternion_slope(way.o, way.g, scales[i])
            to_scale = scale_slope(way.o, way.g)
        to_sh = way.kept
        to_mean = way.to_rel
        to_mean += way.to_p[0] * cam.r0 + way.to_p[1] * cam.r1 + way.to_p[2] * cam.r2
    g_means[i] = to_mean
    g_quats[i] = to_quat
    g_scales[i] = to_scale
    g_opacities[i] = to_opacity
    kept[i] = to_sh


@no_type_check
@wp.kernel
def sh_backward(
    means: wp.array[wp.vec3],
    pose: wp.array2d[wp.float32],
    kept: wp.array[wp.vec3],
    count: wp.int32,
    g_sh: wp.array2d[wp.vec3],
) -> None:
    """Gradient of the harmonics; one thread a coefficient, so that neighbours write neighbours."""
    t = wp.tid()
    i = t / count
    k = t % count
    g = kept[i]
    out = wp.vec3()
    if g[0] != 0.0 or g[1] != 0.0 or g[2] != 0.0:
        rel = means[i] - wp.vec3(pose[0, 3], pose[1, 3], pose[2, 3])
        basis = basis_at(rel, count)
        weight = wp.float32(0.0)
        for j in range(_COUNT):
            if j == k:
                weight = basis[j]
        out = weight * g
    g_sh[i, k] = out


@no_type_check
@wp.func
def put3(sums: PoseSums, at: wp.int32, v: wp.vec3) -> PoseSums:
    """Add three numbers from place ``at`` on."""
    for c in range(3):
        sums[at + c] = sums[at + c] + wp.float64(v[c])
    return sums


@no_type_check
@wp.kernel
def camera_partial(
    means: wp.array[wp.vec3],
    quats: wp.array[wp.vec4],
    scales: wp.array[wp.vec3],
    opacities: wp.array[wp.float32],
    sh: wp.array2d[wp.vec3],
    pose: wp.array2d[wp.float32],
    focal: wp.array[wp.float32],
    centre: wp.array[wp.float32],
    g_xy: wp.array[wp.vec2],
    g_factor: wp.array[wp.vec3],
    g_depth: wp.array[wp.float32],
    g_opacity: wp.array[wp.float32],
    g_rgb: wp.array[wp.vec3],
    width: wp.float32,
    height: wp.float32,
    near: wp.float32,
    antialiased: wp.bool,
    stride: wp.int32,
    partial: wp.array2d[wp.float32],
) -> None:
    """Sums of the camera's gradient over every ``stride``-th Gaussian, one row a block.

    A row holds 16 sums rounded to float, then 16 times what the rounding left over.
    """
    block, lane = wp.tid()
    cam = camera_of(pose, focal, centre, width, height, near)
    sums = PoseSums()
    for i in range(block * _BLOCK + lane, means.shape[0], stride):
        if not is_zero(g_xy[i], g_factor[i], g_depth[i], g_opacity[i], g_rgb[i]):
            way = way_back(
                i, cam, means, quats, scales, opacities, sh,
                g_xy, g_factor, g_depth, g_opacity, g_rgb, antialiased,
            )  # fmt: skip
            o = way.o
            g = way.g
            if o.front:
                k0 = cam.focal[0] * o.iz
                k1 = cam.focal[1] * o.iz
                sums = put3(sums, 0, k0 * g.t0)
                sums = put3(sums, 3, k1 * g.t1)
                sums = put3(sums, 6, -(k0 * o.slope[0] * g.t0 + k1 * o.slope[1] * g.t1))
                # the clamped slopes move with the lens
                held_x = wp.float32(0.0)
                held_y = wp.float32(0.0)
                if not o.free_x:
                    held_x = g.slope[0] / cam.focal[0]
                if not o.free_y:
                    held_y = g.slope[1] / cam.focal[1]
                to_fx = (g_xy[i][0] * o.p[0] + g.k0) * o.iz - held_x * o.slope[0]
                to_fy = (g_xy[i][1] * o.p[1] + g.k1) * o.iz - held_y * o.slope[1]
                sums = put3(sums, 12, wp.vec3(to_fx, to_fy, g_xy[i][0] - held_x))
                sums[15] = sums[15] + wp.float64(g_xy[i][1] - held_y)
            p = way.to_p
            to_rel = way.to_rel + p[0] * cam.r0 + p[1] * cam.r1 + p[2] * cam.r2
            sums = put3(sums, 0, p[0] * o.rel)
            sums = put3(sums, 3, p[1] * o.rel)
            sums = put3(sums, 6, p[2] * o.rel)
            sums = put3(sums, 9, -to_rel)
    whole = wp.tile_sum(wp.tile(sums, preserve_type=True))
    total = whole[0]
    if lane < 16:
        rounded = wp.float32(total[lane])
        partial[block, lane] = rounded
        partial[block, 16 + lane] = wp.float32(total[lane] - wp.float64(rounded))


@no_type_check
@wp.kernel
def camera_total(partial: wp.array2d[wp.float32], total: wp.array[wp.float32]) -> None:
    """The 16 sums over all blocks; one thread a sum."""
    k = wp.tid()
    whole = wp.float64(0.0)
    for block in range(partial.shape[0]):
        whole += wp.float64(partial[block, k]) + wp.float64(partial[block, 16 + k])
    total[k] = wp.float32(whole)
