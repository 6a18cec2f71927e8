"""The demo's photo set: a small painted room, ray-cast in NumPy and written as JPEGs with EXIF.

Light is baked into the textures once (``_demo_solids.bake``), so that a photo costs only its
primary rays. Everything follows from the seed; nothing is loaded or downloaded.
"""

import os
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lumefield.apps import _demo_paint as paint
from lumefield.apps._demo_solids import LIGHT, Floats, Solid, bake, chart, hit, lookup
from lumefield.errors import InputError

FOCAL_35MM = 28
"""Focal length of the demo camera, in millimetres of a 36 mm wide film."""


def make_photos(
    folder: Path, *, count: int = 40, width: int = 480, height: int = 360, seed: int = 0
) -> tuple[Path, ...]:
    """Take ``count`` photos of the demo room and write them as ``folder/photo_000.jpg`` and on.

    The camera walks once around the table at two heights. The folder appears whole or not at all.

    Args:
        folder: New folder for the photos; the ones above it must exist.
        count: Number of photos, at least 2.
        width: Columns, pixels.
        height: Rows, pixels.
        seed: Draws the paint and the small irregularities of the walk.

    Returns:
        The files, in name order.

    Raises:
        InputError: If ``folder`` holds anything already, or a size is too small.
    """
    if count < 2 or width < 16 or height < 16:
        raise InputError(
            f"demo photos: {count} of {width}x{height} pixels; expected at least 2 of 16x16"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty; give a new folder for the demo photos")
    scratch = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        solids = build_room(seed)
        poses = walk(count, seed)
        focal = width * FOCAL_35MM / 36
        for k, pose in enumerate(poses):
            pixels = take_photo(solids, pose, focal, width, height)
            Image.fromarray(pixels).save(
                scratch / f"photo_{k:03d}.jpg", quality=95, subsampling=0, exif=_exif(k, count)
            )
        if folder.exists():
            folder.rmdir()
        os.replace(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return tuple(sorted(folder.glob("photo_*.jpg")))


def walk(count: int, seed: int = 0) -> NDArray[np.float64]:
    """Poses ``world_from_cam`` [count, 3, 4] of the walk; OpenCV axes, z up, metres."""
    rng = np.random.default_rng(seed + 1)
    turn = np.arange(count) / count * 2 * np.pi
    wobble = rng.normal(size=(count, 3)) * [0.03, 0.03, 0.03]
    radius = 2.3 + 0.12 * np.sin(3 * turn)
    up = np.where(np.arange(count) % 2, 1.32, 0.72) + 0.06 * np.sin(2 * turn)
    eye = np.stack([radius * np.cos(turn), radius * np.sin(turn), up], -1) + wobble
    target = np.array([0.0, 0.0, 0.22]) + rng.normal(size=(count, 3)) * 0.04
    forward = target - eye
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    return np.stack([right, np.cross(forward, right), forward, eye], -1)


def build_room(seed: int = 0) -> tuple[Solid, ...]:
    """The painted and lit solids: the room, a round table and the things on it."""
    rng = np.random.default_rng(seed)
    top = paint.wood(rng, 900, 900, ("#8a5a34", "#d9a76c"), 9)
    rim = paint.wood(rng, 64, 512, ("#6b4327", "#a87748"), 2)
    dark = paint.wood(rng, 128, 128, ("#4a2f1d", "#6b4327"), 3)
    block = [
        paint.cover(rng, 128, 128, tones, letter)
        for letter, tones in zip(
            "LUMEFD",
            [("#c9523a", "#e0825a"), ("#2f6673", "#58a0a5"), ("#d9a03c", "#f0cd7a")] * 2,
            strict=True,
        )
    ]
    gift = [paint.cover(rng, 160, 110, ("#6d2b4a", "#b25a6e"), "") for _ in range(6)]
    solids = (
        Solid(
            "room",
            (0, 0, 0.95),
            (4.4, 4.4, 1.85),
            (paint.mural(rng, 512, 3200), paint.carpet(rng, 1024)),
        ),
        Solid("can", (0, 0, -0.05), (1.3, 1.3, 0.05), (rim, top, dark), gloss=0.04),
        Solid("can", (0, 0, -0.5), (0.16, 0.16, 0.4), (rim, dark, dark)),
        _book(rng, (-0.42, 0.2, 0.07), (0.4, 0.29, 0.07), 0.4, ("#23405e", "#4c7ba0"), "lumefield"),
        _book(rng, (-0.4, 0.22, 0.19), (0.33, 0.24, 0.05), 0.75, ("#7c2b2f", "#b5603f"), "Rays"),
        Solid(
            "sphere",
            (-0.38, 0.22, 0.24 + 0.24),
            (0.24, 0.24, 0.24),
            (paint.globe(rng, 256),),
            0.5,
            gloss=0.25,
        ),
        Solid("box", (0.42, 0.45, 0.17), (0.17, 0.17, 0.17), tuple(block), 0.3),
        Solid("box", (0.62, -0.18, 0.3), (0.15, 0.2, 0.3), tuple(gift), -0.35),
        _tea_tin(rng),
        Solid(
            "sphere",
            (-0.42, -0.52, 0.13),
            (0.13, 0.13, 0.13),
            (paint.orange(rng, 160, ("#d9701f", "#f0a23a")),),
            gloss=0.12,
        ),
        Solid(
            "sphere",
            (-0.68, -0.38, 0.11),
            (0.11, 0.11, 0.11),
            (paint.orange(rng, 160, ("#6f8f2f", "#b9c24a")),),
            1.0,
            gloss=0.12,
        ),
        Solid(
            "sphere",
            (0.3, -0.7, 0.09),
            (0.09, 0.09, 0.09),
            (paint.orange(rng, 128, ("#9c2f3c", "#cf5a4a")),),
            2.0,
            gloss=0.12,
        ),
    )
    return bake(solids, rng)


def _book(
    rng: np.random.Generator,
    centre: tuple[float, float, float],
    size: tuple[float, float, float],
    yaw: float,
    tones: tuple[str, str],
    title: str,
) -> Solid:
    rows, columns = int(size[1] * 700), int(size[0] * 700)
    thick = int(size[2] * 700)
    front = paint.cover(rng, rows, columns, tones, title)
    back = paint.cover(rng, rows, columns, tones, "")
    spine = paint.cover(rng, thick, columns, tones, title)
    ends = [paint.pages(rng, thick, rows) for _ in range(2)]
    faces = (*ends, paint.pages(rng, thick, columns), spine, front, back)
    return Solid("box", centre, size, faces, yaw)


def _tea_tin(rng: np.random.Generator) -> Solid:
    lid = paint.orange(rng, 96, ("#8f6a34", "#d8b56a"))[:, :96]
    return Solid(
        "can",
        (0.02, -0.28, 0.21),
        (0.17, 0.17, 0.21),
        (paint.tin(rng, 200, 512), lid, lid),
        gloss=0.2,
    )


def take_photo(
    solids: tuple[Solid, ...], pose: NDArray[np.float64], focal: float, width: int, height: int
) -> NDArray[np.uint8]:
    """One photo [height, width, 3] in display sRGB, four rays a pixel.

    Args:
        solids: The lit room.
        pose: ``world_from_cam`` [3, 4], OpenCV axes.
        focal: Focal length, pixels; the principal point is the image centre.
        width: Columns.
        height: Rows.
    """
    columns, rows = 2 * width, 2 * height
    y, x = np.meshgrid(np.arange(rows) + 0.5, np.arange(columns) + 0.5, indexing="ij")
    cam = np.stack([x.ravel() / 2 - width / 2, y.ravel() / 2 - height / 2, np.full(x.size, focal)])
    d = (pose[:, :3] @ (cam / focal)).astype(np.float32)
    eye = pose[:, 3].astype(np.float32)
    depth = np.full(x.size, np.inf, np.float32)
    which = np.zeros(x.size, np.int8)
    for k, solid in enumerate(solids):
        seen = _in_sight(solid, pose, focal, columns, rows)
        t = hit(solid, eye[:, None], d[:, seen])
        nearer = t < depth[seen]
        depth[seen] = np.where(nearer, t, depth[seen])
        which[seen] = np.where(nearer, k, which[seen])
    radiance = np.zeros((x.size, 3), np.float32)
    for k, solid in enumerate(solids):
        pick = np.flatnonzero(which == k)
        if pick.size:
            radiance[pick] = _shade(solid, eye, d[:, pick], depth[pick])
    linear = radiance.reshape(height, 2, width, 2, 3).mean((1, 3))
    return (np.clip(linear, 0, 1) ** (1 / 2.2) * 255 + 0.5).astype(np.uint8)


def _in_sight(
    solid: Solid, pose: NDArray[np.float64], focal: float, columns: int, rows: int
) -> NDArray[np.intp] | slice:
    """Flat indices of the rays that can meet the solid's bounding sphere."""
    radius = solid.size[0] if solid.kind == "sphere" else float(np.linalg.norm(solid.size))
    x, y, z = pose[:, :3].T @ (np.array(solid.centre) - pose[:, 3])
    if z < 1.5 * radius:
        return slice(None)
    reach = 2 * focal * radius / (z - radius) * 1.1 + 2
    middle = 2 * focal * x / z + columns / 2, 2 * focal * y / z + rows / 2
    left, right = np.clip([middle[0] - reach, middle[0] + reach], 0, columns).astype(int)
    top, bottom = np.clip([middle[1] - reach, middle[1] + reach], 0, rows).astype(int)
    return (np.arange(top, bottom)[:, None] * columns + np.arange(left, right)).ravel()


def _shade(solid: Solid, eye: Floats, d: Floats, depth: Floats) -> Floats:
    point = eye[:, None] + depth * d
    p = solid.local(point)
    face, u, v = chart(solid, p)
    radiance = np.zeros((len(u), 3), np.float32)
    for k, texture in enumerate(solid.faces):
        pick = np.flatnonzero(face == k)
        if pick.size:
            radiance[pick] = lookup(texture, u[pick], v[pick])
    if solid.gloss == 0:
        return radiance
    normal = p / solid.size[0]
    if solid.kind == "can":
        flat = face > 0
        normal = np.stack([np.where(flat, 0, normal[0]), np.where(flat, 0, normal[1]), flat * 1.0])
    light = LIGHT[:, None] - point
    half = light / np.linalg.norm(light, axis=0) - d / np.linalg.norm(d, axis=0)
    half /= np.linalg.norm(half, axis=0)
    shine = np.maximum((solid.turned(normal, 1.0) * half).sum(0), 0) ** 24
    return radiance + np.float32(solid.gloss) * shine[:, None].astype(np.float32)


def _exif(index: int, count: int) -> Image.Exif:
    """What a camera would have written: maker, lens, exposure and the time, one photo every 4 s."""
    taken = datetime(2026, 5, 17, 10, 12, 0) + timedelta(seconds=4 * index)
    exif = Image.Exif()
    exif[271], exif[272] = "Lumefield", f"Demo camera ({count} photos)"
    exif[274] = 1
    exif[306] = taken.strftime("%Y:%m:%d %H:%M:%S")
    detail = exif.get_ifd(34665)
    detail[33434] = 1 / 125
    detail[33437] = 5.6
    detail[34855] = 200
    detail[36867] = taken.strftime("%Y:%m:%d %H:%M:%S")
    detail[37386] = 4.67
    detail[41989] = FOCAL_35MM
    return exif
