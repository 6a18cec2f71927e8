"""Spheres, boxes and cans for the demo room: ray hits, charts (surface -> texture) and baked light.

Letters: o, d ray origin and direction [3, r]; p a point in the solid's own axes; u, v in [0, 1]
run along the columns and rows of a face's texture. World axes: z up, the table top is z = 0.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[Any]
"""Float32 arrays."""


@dataclass(frozen=True)
class Solid:
    """One painted solid; ``faces`` are display-sRGB textures, linear radiance once baked."""

    kind: Literal["sphere", "box", "can", "room"]
    """``room`` is a can seen from inside: faces = (wall, floor); ``can``: (side, top, bottom)."""
    centre: tuple[float, float, float]
    size: tuple[float, float, float]
    """Half extents; a sphere's radius three times; radius, radius, half height of a can."""
    faces: tuple[Floats, ...]
    yaw: float = 0.0
    """Turn about the vertical, radians."""
    gloss: float = 0.0
    """Strength of the highlight."""

    def turned(self, xyz: Floats, sign: float) -> Floats:
        """Rotate [3, r] vectors by ``sign * yaw``."""
        c, s = np.float32(np.cos(self.yaw)), np.float32(np.sin(self.yaw) * sign)
        return np.stack([c * xyz[0] - s * xyz[1], s * xyz[0] + c * xyz[1], xyz[2]])

    def local(self, xyz: Floats) -> Floats:
        """World points [3, r] in the solid's own axes."""
        return self.turned(xyz - np.array(self.centre, np.float32)[:, None], -1.0)


def hit(solid: Solid, o: Floats, d: Floats) -> Floats:
    """Distance along ``d`` to the first surface of ``solid``, inf where the ray misses."""
    o, d = solid.local(o), solid.turned(d, -1.0)
    d = np.where(np.abs(d) < 1e-9, np.float32(1e-9), d)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if solid.kind == "box":
            half = np.array(solid.size, np.float32)[:, None]
            inverse = 1 / d
            middle, reach = -o * inverse, np.abs(inverse) * half
            near, far = (middle - reach).max(0), (middle + reach).min(0)
            return np.where((near <= far) & (near > 1e-3), near, np.inf).astype(np.float32)
        if solid.kind == "sphere":
            near, _ = _quadratic(o, d, solid.size[0])
            return np.where(near > 1e-3, near, np.inf).astype(np.float32)
        near, far = _quadratic(o[:2], d[:2], solid.size[0])
        if solid.kind == "room":
            floor = (-solid.size[2] - o[2]) / d[2]
            return np.minimum(far, np.where(floor > 1e-3, floor, np.inf)).astype(np.float32)
        middle, reach = -o[2] / d[2], np.abs(solid.size[2] / d[2])
        near, far = np.maximum(near, middle - reach), np.minimum(far, middle + reach)
        return np.where((near <= far) & (near > 1e-3), near, np.inf).astype(np.float32)


def _quadratic(o: Floats, d: Floats, radius: float) -> tuple[Floats, Floats]:
    """Entry and exit of a sphere or circle about the origin; nan where the ray misses."""
    a, b = (d * d).sum(0), (o * d).sum(0)
    root = np.sqrt(b * b - a * ((o * o).sum(0) - radius * radius))
    return (-b - root) / a, (-b + root) / a


def chart(solid: Solid, p: Floats) -> tuple[NDArray[np.intp], Floats, Floats]:
    """Which face the own-axes points [3, r] lie on, and where on its texture (u, v)."""
    x, y, z = p / np.array(solid.size, np.float32)[:, None]
    if solid.kind == "box":
        size = np.abs(np.stack([x, y, z]))
        axis = size.argmax(0)
        sign = np.where(np.choose(axis, [x, y, z]) > 0, 0, 1)
        across = np.choose(2 * axis + sign, [y, -y, -x, x, x, x])
        down = np.choose(2 * axis + sign, [-z, -z, -z, -z, -y, y])
        return 2 * axis + sign, (across + 1) / 2, (down + 1) / 2
    u = np.arctan2(y, x) / np.float32(2 * np.pi) + np.float32(0.5)
    if solid.kind == "sphere":
        return np.zeros(len(u), np.intp), u, np.arccos(np.clip(z, -1, 1)) / np.float32(np.pi)
    if solid.kind == "room":
        face = np.where(x * x + y * y > 0.9999, 0, 1)
    else:
        face = np.where(np.abs(z) > 0.9999, np.where(z > 0, 1, 2), 0)
    flat = face > 0
    return face, np.where(flat, (x + 1) / 2, u), np.where(flat, (1 - y) / 2, (1 - z) / 2)


def surface(solid: Solid, face: int, u: Floats, v: Floats) -> tuple[Floats, Floats]:
    """World points and outward normals [3, r] of a face: the inverse of :func:`chart`."""
    one, zero = np.ones_like(u), np.zeros_like(u)
    a, b = 2 * u - 1, 1 - 2 * v
    if solid.kind == "box":
        p = np.stack(
            [(one, a, b), (-one, -a, b), (-a, one, b), (a, -one, b), (a, b, one), (a, -b, -one)][
                face
            ]
        )
        n = np.zeros_like(p)
        n[face // 2] = 1 - 2 * (face % 2)
    elif solid.kind == "sphere":
        turn, lean = np.pi * a, np.pi * v
        p = np.stack([np.sin(lean) * np.cos(turn), np.sin(lean) * np.sin(turn), np.cos(lean)])
        n = p
    elif face == 0:
        p = np.stack([np.cos(np.pi * a), np.sin(np.pi * a), b])
        n = np.stack([p[0], p[1], zero]) * (-1 if solid.kind == "room" else 1)
    else:
        up = -1.0 if solid.kind == "can" and face == 2 else 1.0
        p = np.stack([a, b, zero + (-1 if solid.kind == "room" else up)])
        n = np.stack([zero, zero, zero + up])
    p = solid.turned(p * np.array(solid.size)[:, None], 1.0) + np.array(solid.centre)[:, None]
    return p.astype(np.float32), solid.turned(n, 1.0).astype(np.float32)


def lookup(texture: Floats, u: Floats, v: Floats) -> Floats:
    """Bilinear texture values [r, 3] at (u, v), clamped at the border."""
    height, width = texture.shape[:2]
    x, y = np.clip(u * width - 0.5, 0, width - 1.001), np.clip(v * height - 0.5, 0, height - 1.001)
    column, row = x.astype(np.int32), y.astype(np.int32)
    x, y = (x - column)[:, None], (y - row)[:, None]
    flat, at = texture.reshape(-1, 3), row * width + column
    top = flat[at] * (1 - x) + flat[at + 1] * x
    return top * (1 - y) + (flat[at + width] * (1 - x) + flat[at + width + 1] * x) * y


LIGHT = np.array([1.6, -1.3, 3.4], np.float32)
"""Middle of the lamp, world units."""


def bake(solids: tuple[Solid, ...], rng: np.random.Generator) -> tuple[Solid, ...]:
    """Multiply every face by the light that falls on it: soft shadows and ambient occlusion.

    The lamp is sampled at 24 points and the hemisphere in 40 directions, the same for every point.
    """
    turn, spread = rng.random(24) * 2 * np.pi, np.sqrt((np.arange(24) + 0.5) / 24) * 0.55
    lamp = LIGHT + np.stack([spread * np.cos(turn), spread * np.sin(turn), 0 * turn], -1)
    sky = rng.normal(size=(40, 3))
    sky /= np.linalg.norm(sky, axis=1, keepdims=True)
    blockers = tuple(s for s in solids if s.kind != "room")
    lit: list[Solid] = []
    for solid in solids:
        faces = tuple(
            _baked(solid, k, face, blockers, lamp.astype(np.float32), sky.astype(np.float32))
            for k, face in enumerate(solid.faces)
        )
        lit.append(replace(solid, faces=faces))
    return tuple(lit)


def _baked(
    solid: Solid, face: int, texture: Floats, blockers: tuple[Solid, ...], lamp: Floats, sky: Floats
) -> Floats:
    height, width = texture.shape[:2]
    if solid.kind == "room" and face == 0:
        rows, columns = 12, 24
    else:
        rows = columns = 200 if height >= 600 else 24
    v, u = np.meshgrid(
        (np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij"
    )
    p, n = surface(solid, face, u.ravel().astype(np.float32), v.ravel().astype(np.float32))
    start = p + 2e-3 * n
    towards = lamp.T[:, :, None] - p[:, None]
    distance = np.sqrt((towards**2).sum(0))
    towards /= distance
    facing = np.maximum((towards * n[:, None]).sum(0), 0) / distance**2
    direct = 11 * (facing * _free(blockers, start, towards)).mean(0)
    way = np.broadcast_to(sky.T[:, :, None], (3, len(sky), p.shape[1]))
    facing = (way * n[:, None]).sum(0)
    ambient = 2 * (np.abs(facing) * _free(blockers, start, way * np.sign(facing))).mean(0)
    light = direct[:, None] * [1.0, 0.93, 0.82] * 0.85 + ambient[:, None] * [0.44, 0.47, 0.52]
    if solid.kind == "room" and face == 0:
        light = 0.35 * light + 0.55
    light = light.reshape(rows, columns, 3).astype(np.float32)
    channels = [
        np.asarray(Image.fromarray(light[..., c]).resize((width, height), Image.Resampling.BICUBIC))
        for c in range(3)
    ]
    return (texture**2.2 * np.stack(channels, -1)).astype(np.float32)


def _free(blockers: tuple[Solid, ...], o: Floats, d: Floats) -> Floats:
    """1 where no solid is within 4 units of o [3, r] along d [3, k, r], else 0; [k, r]."""
    starts = np.broadcast_to(o[:, None], d.shape).reshape(3, -1)
    nearest = np.full(starts.shape[1], np.inf, np.float32)
    for solid in blockers:
        nearest = np.minimum(nearest, hit(solid, starts, d.reshape(3, -1)))
    return (nearest > 4.0).astype(np.float32).reshape(d.shape[1:])
