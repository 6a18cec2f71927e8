"""Round Gaussians around a head, and where each eye must see them."""

import numpy as np

from lumefield.apps._paths import look_at
from lumefield.apps._sphere import Sphere, merged
from lumefield.apps._views import Views
from lumefield.codecs.formats import Splats

UP = np.array([0.0, 0, 1])
EYE = np.array([0.4, -0.3, 0.2])
POSE = look_at(EYE, EYE + np.array([1.0, 0.5, 0]), UP)
"""A level head whose front is between the axes of the world."""


def blobs(places: np.ndarray, colours: np.ndarray, size: float = 0.012) -> Splats:
    """Round, nearly opaque Gaussians at places (n, 3) given in the axes of the head, one sized.

    The farther ones are larger, so that all look alike.
    """
    n, f32 = len(places), np.float32
    away = np.linalg.norm(places, axis=1)
    quats = np.zeros((n, 4), f32)
    quats[:, 0] = 1
    return Splats(
        means=(places @ POSE[:, :3].T + EYE).astype(f32),
        quats_wxyz=quats,
        log_scales=np.repeat(np.log(size * away)[:, None], 3, 1).astype(f32),
        logit_opacities=np.full(n, 6, f32),
        sh=((colours - 0.5) / 0.28209479177387814).astype(f32)[:, None],
    )


def around(azimuths, elevation: float, distance: float) -> np.ndarray:
    """Places in the axes of the head; degrees."""
    a, e = np.radians(np.asarray(azimuths, float)), np.radians(elevation)
    down = np.full_like(a, -np.sin(e))
    return distance * np.stack([np.cos(e) * np.sin(a), down, np.cos(e) * np.cos(a)], -1)


def head(count: int = 1) -> Views:
    return Views(
        names=tuple(f"{k}" for k in range(count)),
        world_from_cam=np.repeat(POSE[None], count, 0),
        focal=np.full((count, 2), 50.0),
        centre=np.full((count, 2), 50.0),
        size=np.full((count, 2), 100),
        held_out=(False,) * count,
    )


def expected(sphere: Sphere, place: np.ndarray, eye: float) -> tuple[float, float]:
    """Column and row at which an eye must see a place, by the definition of its rays."""
    r = eye * sphere.radius
    if sphere.degrees == 180:
        x, y, z = place - [r, 0, 0]
        azimuth, elevation = np.arctan2(x, z), np.arctan2(-y, np.hypot(x, z))
    else:
        over = float(np.hypot(place[0], place[2]))
        r *= float(merged(np.array([np.arctan2(-place[1], over)]))[0])
        azimuth = np.arctan2(place[0], place[2]) - np.arcsin(r / over)
        start = r * np.array([np.cos(azimuth), 0, -np.sin(azimuth)])
        x, y, z = place - start
        elevation = np.arctan2(-y, np.hypot(x, z))
        assert abs(np.sin(azimuth) * z - np.cos(azimuth) * x) < 1e-12, "its ray meets the place"
    step = np.pi / sphere.rows
    return azimuth / step + sphere.columns / 2, sphere.rows / 2 - elevation / step


def found(picture: np.ndarray, near: tuple[float, float], reach: int = 9) -> tuple[float, float]:
    """Centre of the brightness within ``reach`` pixels of a place; the picture goes round."""
    rows, columns = picture.shape
    row = np.arange(int(near[1]) - reach, int(near[1]) + reach + 1).clip(0, rows - 1)
    column = np.arange(int(near[0]) - reach, int(near[0]) + reach + 1)
    part = picture[row[:, None], column[None] % columns]
    x, y = (part * (column + 0.5)).sum() / part.sum(), (part * (row[:, None] + 0.5)).sum()
    return float(x), float(y / part.sum())
