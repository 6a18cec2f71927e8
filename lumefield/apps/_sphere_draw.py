"""Drawing panoramas: of Gaussians by way of flat pictures, of radiance fields ray by ray.

The rasterizer of Gaussians draws pinhole cameras, so the sphere is covered by flat pictures (a ring
of 60 degrees each and two caps) that are resampled. They overlap and are cross-faded there, because
a Gaussian near the border of two flat pictures is not linearised alike in both.

Omni-directional stereo has another eye for every azimuth. Drawn in strips, one eye each, it shows
steps at their borders: strips of width w leave r w sin(elevation) / 2 D of wrong elevation at
distance D, 2.8 pixels of 4096 with 32 strips at 0.5 m. Here are no strips: for every Gaussian the
one eye that sees its centre is known in closed form, and the Gaussian is moved by minus that eye.
Then one camera in the middle sees every centre where its own eye sees it. What is left is a shear
of r / D within a Gaussian, nought at its centre.

Letters: P Gaussians, H x W pixels of a flat picture, R x C of an eye's panorama.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from lumefield.apps._scene_io import Draw, Picture, Scene
from lumefield.apps._sphere import MERGE, Sphere
from lumefield.apps._views import Views
from lumefield.fields import Gaussians
from lumefield.render import Cameras, SplatOptions, composite_gaussians, project_gaussians

if TYPE_CHECKING:
    from lumefield.apps._radiance_io import Radiance

Doubles = NDArray[np.float64]

_RING = 6
"""Flat pictures around the horizon of a whole sphere."""
_FADE = 4.0
"""Degrees to either side of a border over which two flat pictures are cross-faded."""
_CAP = 45.0
"""Elevation of the border between the ring and the caps, degrees."""
_DENSITY = 1.3
"""Pixels of a flat picture's centre per pixel of the panorama."""
_SUB = 2
"""Samples along each side of a pixel of the panorama."""
_NEAREST = 0.9
"""Largest share of the distance to the axis that an eye is away from it."""


def sphere_draw(scene: Scene, sphere: Sphere) -> Draw:
    """A function that draws the frame of a level head: all eyes, colour and distance.

    The ``depth`` of its pictures is the distance from the eye along the ray, not along an axis.

    Args:
        scene: Splats or a radiance field.
        sphere: What a frame holds.
    """
    field = scene.field
    eye = _splat_eye(scene, sphere) if field is None else _field_eye(field, sphere)

    def draw(views: Views) -> Picture:
        seen = [eye(views.world_from_cam[0], side) for side in sphere.eyes]
        rgb = sphere.together([picture.rgb for picture in seen])
        return Picture(rgb, sphere.together([picture.depth for picture in seen]))

    return draw


Eye = Callable[[Doubles, float], Picture]
"""The picture of one eye: pose [3, 4] of the head, and -1, 0 or 1."""


def _field_eye(field: "Radiance", sphere: Sphere) -> Eye:
    from lumefield.apps._radiance_draw import draw_rays
    from lumefield.apps._radiance_rays import cone_radius

    ways = sphere.directions().reshape(-1, 3)
    radius = np.full(len(ways), cone_radius(sphere.rows / np.pi), np.float32)

    def eye(pose: Doubles, side: float) -> Picture:
        start = sphere.origins(side).reshape(-1, 3) @ pose[:, :3].T + pose[:, 3]
        rgb, distance, opacity = draw_rays(
            field.recipe,
            field.scene,
            field.occupied,
            field.frame.inward_points(start).astype(np.float32),
            (ways @ pose[:, :3].T).astype(np.float32),
            radius,
        )
        rgb = rgb + (1 - opacity)[:, None] * np.asarray(field.background, np.float32)
        depth = np.where(opacity > 1e-3, distance * np.float32(field.frame.scale), 0)
        shape = (sphere.rows, sphere.columns)
        return Picture(rgb.reshape(*shape, 3), depth.astype(np.float32).reshape(shape))

    return eye


class Face(NamedTuple):
    """A flat picture and the part of the panorama that it fills."""

    head_from_face: Doubles
    """(3, 3)."""
    size: tuple[int, int]
    """(W, H)."""
    centre: tuple[float, float]
    """(cx, cy) pixels."""
    rows: slice
    columns: slice
    turn: float
    """Azimuth of the middle of a picture of the ring, radians; nan for a cap."""


def faces(sphere: Sphere) -> tuple[list[Face], float]:
    """The flat pictures of an eye and their focal length in pixels."""
    rows, columns = sphere.rows, sphere.columns
    focal = _DENSITY * rows / np.pi
    fade, wide, cap = np.radians([_FADE, 180 / _RING + _FADE, _CAP + _FADE])
    x, y = focal * np.tan(wide), focal * np.tan(cap) / np.cos(wide)
    size = 2 * int(np.ceil(x)) + 2, 2 * int(np.ceil(y)) + 2
    made: list[Face] = []
    per_radian = rows / np.pi
    band = slice(_at(rows / 2 - cap * per_radian, rows), _at(rows / 2 + cap * per_radian, rows) + 1)
    half = np.radians(sphere.degrees) / 2
    count = _RING if sphere.degrees == 360 else _RING // 2
    for k in range(count):
        turn = (k + 0.5) / count * 2 * half - half
        first = int(np.floor((turn - wide + half) * per_radian))
        last = first + int(np.ceil(2 * wide * per_radian)) + 1  # all alike: compiled once
        if sphere.degrees == 180:
            first, last = max(first, 0), min(last, columns)
        c, s = np.cos(turn), np.sin(turn)
        axes = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        made.append(Face(axes, size, (size[0] / 2, size[1] / 2), band, slice(first, last), turn))
    reach = 2 * int(np.ceil(focal * np.tan(cap))) + 2
    edge = int(_at(rows / 2 - (np.radians(_CAP) - fade) * per_radian, rows)) + 1
    for up in (True, False):
        axes = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
        axes = axes if up else np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
        high, cy = reach, reach / 2
        if sphere.degrees == 180:  # what is behind is not in the panorama
            high = reach // 2 + 4
            cy = 4.0 if up else high - 4.0
        part = slice(0, edge) if up else slice(rows - edge, rows)
        made.append(
            Face(axes, (reach, high), (reach / 2, cy), part, slice(0, columns), float("nan"))
        )
    return made, float(focal)


def _at(row: float, rows: int) -> int:
    return int(np.clip(np.floor(row), 0, rows - 1))


def _splat_eye(scene: Scene, sphere: Sphere) -> Eye:
    splats = scene.splats
    leaves = (splats.means, splats.quats_wxyz, splats.log_scales, splats.logit_opacities)
    arrays = {**Gaussians.from_arrays(*leaves, splats.sh).activate()}
    options = SplatOptions(antialiased=splats.antialiased)
    behind = jnp.asarray(scene.background, jnp.float32)
    parts, focal = faces(sphere)

    def eye(pose: Doubles, side: float) -> Picture:
        from_world = jnp.asarray(pose, jnp.float32)
        reach = jnp.float32(side * sphere.radius)
        moved = _eye_moved(sphere.degrees, arrays["means"], from_world, reach)
        total = np.zeros((sphere.rows, sphere.columns, 6), np.float32)
        for face in parts:
            turned = np.concatenate([pose[:, :3] @ face.head_from_face, pose[:, 3:]], 1)
            camera = Cameras.from_pinhole(
                jnp.asarray(turned, jnp.float32),
                jnp.full(2, focal, jnp.float32),
                jnp.asarray(face.centre, jnp.float32),
                width=face.size[0],
                height=face.size[1],
            )
            flat = _flat(options, {**arrays, "means": moved}, camera, behind)
            _add(total, face, _resampled(sphere, face, focal, flat))
        rgb = total[..., :3] / total[..., 5:]
        share = np.maximum(total[..., 4], 1e-6)
        depth = np.where(total[..., 4] > total[..., 5] / 2, total[..., 3] / share, 0)
        return Picture(rgb, depth.astype(np.float32))

    return eye


@partial(jax.jit, static_argnums=0)
def _flat(options: SplatOptions, arrays: dict[str, Array], camera: Cameras, behind: Array) -> Array:
    """(H, W, 4) colour and mean distance, 0 where nothing is seen.

    Gaussians are sorted by distance: neighbouring flat pictures agree on it, not on Z.
    """
    p = project_gaussians(**arrays, camera=camera, options=options)
    away = jnp.linalg.norm(arrays["means"] - camera.world_from_cam[None, :, 3], axis=1)
    values = jnp.concatenate([p.rgb, away[:, None]], 1)
    image, through = composite_gaussians(
        *(p.xy, p.factor, p.opacities, away, values), height=camera.height, width=camera.width
    )
    rgb = image[..., :3] + through[..., None] * behind[None, None]
    return jnp.concatenate([rgb, image[..., 3:] / jnp.maximum(1 - through, 1e-8)[..., None]], -1)


@partial(jax.jit, static_argnums=0)
def _eye_moved(degrees: int, means: Array, pose: Array, reach: Array) -> Array:
    """Centres (P, 3) as they lie to their own eye, when that eye is put into the middle.

    Args:
        degrees: 180 or 360.
        means: (P, 3) world.
        pose: (3, 4) level head.
        reach: Signed half distance of the eyes, world units.
    """
    if degrees == 180:
        return means - reach * pose[None, :, 0]
    away = jnp.matmul(means - pose[None, :, 3], pose[:, :3], precision="highest")
    across = jnp.sqrt(away[:, 0] ** 2 + away[:, 2] ** 2)
    low, high = (v * np.pi / 180 for v in MERGE)
    elevation = jnp.arctan2(jnp.abs(away[:, 1]), across)
    past = jnp.clip((elevation - low) / (high - low), 0, 1)
    r = reach * (1 + jnp.cos(np.pi * past)) / 2
    safe = jnp.maximum(across, 1e-12)
    # The eye at o with |o| = r and (P - o) at right angles to o: o = r cos e + r sin n, with n the
    # direction of P over ground, e to the right of it and sin = r / |P|. At less than r from the
    # axis there is no such eye.
    sine = jnp.clip(r / safe, -_NEAREST, _NEAREST)
    r = sine * safe
    cosine = jnp.sqrt(1 - sine**2)
    n = away[:, [0, 2]] / safe[:, None]
    x = r * (cosine * n[:, 1] + sine * n[:, 0])
    z = r * (sine * n[:, 1] - cosine * n[:, 0])
    eye = jnp.stack([x, jnp.zeros_like(x), z], -1)
    return means - jnp.matmul(eye, pose[:, :3].T, precision="highest")


def _resampled(sphere: Sphere, face: Face, focal: float, flat: Array) -> NDArray[np.float32]:
    """Colour, distance, validity and 1, all times the weight of the face, on its part."""
    step = np.pi / sphere.rows
    elevation = np.pi / 2 - np.arange(face.rows.start, face.rows.stop) * step
    azimuth = np.arange(face.columns.start, face.columns.stop) * step
    azimuth = azimuth - sphere.columns * step / 2
    float32: Callable[[Any], Array] = partial(jnp.asarray, dtype=jnp.float32)
    lens = float32([focal, *face.centre])
    out = _sampled(flat, lens, float32(face.head_from_face), float32(azimuth), float32(elevation),
                   float32(step), float32(face.turn))  # fmt: skip
    return np.asarray(out)


@jax.jit
def _sampled(
    flat: Array,
    lens: Array,
    axes: Array,
    azimuth: Array,
    elevation: Array,
    step: Array,
    turn: Array,
) -> Array:
    """(R, C, 6) of a flat picture (H, W, 4): rgb, distance, validity, 1, times its weight.

    Args:
        flat: Colour, and distance (0 where nothing is seen).
        lens: Focal length and principal point, pixels.
        axes: (3, 3) head from face.
        azimuth: (C,) of the left border of the pixels, radians.
        elevation: (R,) of their upper border.
        step: Radians of a pixel.
        turn: Azimuth of the picture's middle; nan for a cap.
    """
    height, width = flat.shape[:2]
    total = jnp.zeros((elevation.shape[0], azimuth.shape[0], 6), flat.dtype)
    fade = _FADE * np.pi / 180
    for k in range(_SUB * _SUB):
        a = (azimuth + (k % _SUB + 0.5) / _SUB * step)[None, :]
        e = (elevation - (k // _SUB + 0.5) / _SUB * step)[:, None]
        way = (jnp.cos(e) * jnp.sin(a), -jnp.sin(e) + 0 * a, jnp.cos(e) * jnp.cos(a))
        x, y, z = (sum(way[i] * axes[i, j] for i in range(3)) for j in range(3))
        ring = jnp.clip((_CAP * np.pi / 180 + fade - jnp.abs(e)) / (2 * fade), 0, 1)
        beside = jnp.clip((np.pi / _RING + fade - jnp.abs(a - turn)) / (2 * fade), 0, 1)
        weight = jnp.where(jnp.isnan(turn), 1 - ring + 0 * a, ring * beside)
        weight = jnp.where(z > 1e-3, weight, 0)
        z = jnp.maximum(z, 1e-3)
        px = jnp.clip(x / z * lens[0] + lens[1] - 0.5, 0, width - 1.001)
        py = jnp.clip(y / z * lens[0] + lens[2] - 0.5, 0, height - 1.001)
        left, top = jnp.floor(px), jnp.floor(py)
        u, v = (px - left)[..., None], (py - top)[..., None]
        rows = flat.reshape(-1, 4)
        near = top.astype(jnp.int32) * width + left.astype(jnp.int32)
        for corner, share in (
            (near, (1 - u) * (1 - v)),
            (near + 1, u * (1 - v)),
            (near + width, (1 - u) * v),
            (near + width + 1, u * v),
        ):
            value = rows[corner]
            sees = (value[..., 3:] > 0).astype(flat.dtype)
            more = [value, sees, jnp.ones_like(sees)]
            total = total + jnp.concatenate(more, -1) * share * weight[..., None]
    return total / _SUB**2


def _add(total: NDArray[np.float32], face: Face, part: NDArray[np.float32]) -> None:
    """Add a part to the panorama; columns beyond its ends come in at the other one."""
    columns = np.arange(face.columns.start, face.columns.stop) % total.shape[1]
    cut = int(np.flatnonzero(np.diff(columns) < 0)[0]) + 1 if (np.diff(columns) < 0).any() else 0
    for some in (slice(0, cut), slice(cut, len(columns))):
        at = columns[some]
        if len(at):
            total[face.rows, at[0] : at[-1] + 1] += part[:, some]
