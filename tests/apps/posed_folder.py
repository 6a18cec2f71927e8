"""Small photo folders with known cameras, for the tests of capture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.formats import PosedImages, save_colmap


def look_at(position: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 4) pose at ``position`` that looks at ``target``, world z up, OpenCV axes."""
    z = (target - position) / np.linalg.norm(target - position)
    x = np.cross(z, np.array([0.0, 0.0, 1.0]))
    x /= np.linalg.norm(x)
    return np.column_stack([x, np.cross(z, x), z, position])


def write_posed(
    folder: Path,
    photos: Sequence[Path],
    size: tuple[int, int],
    *,
    model: str = "pinhole",
    distortion: Sequence[float] = (0.0,) * 8,
) -> PosedImages:
    """Write a COLMAP model with 200 points for photos in ``folder / images``, side by side."""
    n = len(photos)
    poses = np.zeros((n, 3, 4))
    poses[:, :, :3] = np.eye(3)
    poses[:, 0, 3] = np.arange(n) * 0.1
    rng = np.random.default_rng(0)
    posed = PosedImages(
        paths=tuple(photos),
        world_from_cam=poses,
        focal=np.full((n, 2), float(max(size))),
        centre=np.tile(np.array(size) / 2.0, (n, 1)),
        size=np.tile(np.array(size), (n, 1)),
        model=(model,) * n,
        distortion=np.tile(np.array(distortion, np.float64), (n, 1)),
        points=rng.uniform(-1, 1, (200, 3)) + np.array([0.0, 0.0, 4.0]),
        colours=rng.integers(0, 255, (200, 3)).astype(np.uint8),
    )
    save_colmap(posed, folder / "sparse" / "0")
    return posed


def texture(seed: int, side: int = 512) -> NDArray[np.uint8]:
    """(side, side, 3) random blobs of many sizes: rich in features."""
    rng = np.random.default_rng(seed)
    total = np.zeros((side, side, 3))
    for cells in (8, 16, 32, 64, 128):
        coarse = rng.uniform(-1, 1, (cells, cells, 3))
        total += np.repeat(np.repeat(coarse, side // cells, 0), side // cells, 1) / cells**0.3
    total -= total.min()
    return (total * (255 / total.max())).astype(np.uint8)


def render_room(
    pose: NDArray[np.float64], focal: float, size: tuple[int, int], seed: int = 0
) -> NDArray[np.uint8]:
    """A photo of two textured walls, y = 0 and x = 0, of 2 x 2 units each, over grey."""
    width, height = size
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([(u - width / 2) / focal, (v - height / 2) / focal, np.ones_like(u)], -1)
    rays = rays @ pose[:, :3].T
    image = np.full((height, width, 3), 128, np.uint8)
    nearest = np.full((height, width), np.inf)
    for axis, other in ((1, 0), (0, 1)):
        with np.errstate(divide="ignore", invalid="ignore"):
            t = -pose[axis, 3] / rays[..., axis]
        hit = pose[:, 3] + t[..., None] * rays
        a, b = hit[..., other], hit[..., 2]
        ok = (t > 0) & (t < nearest) & (a >= 0) & (a < 2) & (np.abs(b) < 1)
        picture = texture(seed + axis)
        i = np.clip((b + 1) / 2 * 512, 0, 511)[ok].astype(int)
        j = np.clip(a / 2 * 512, 0, 511)[ok].astype(int)
        image[ok] = picture[i, j]
        nearest[ok] = t[ok]
    return image


def room_poses(count: int) -> NDArray[np.float64]:
    """(count, 3, 4) cameras on an arc that look into the corner of ``render_room``."""
    angles = np.linspace(np.radians(25), np.radians(65), count)
    heights = 0.2 * np.sin(7 * angles)
    positions = np.column_stack([3.5 * np.cos(angles), 3.5 * np.sin(angles), heights])
    return np.stack([look_at(p, np.array([0.5, 0.5, 0.0])) for p in positions])
