"""A painted ball that can be looked at from anywhere: an analytic scene for baking and meshing."""

import dataclasses
import typing

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from lumefield.apps._bake_views import Look, Seen, directions
from lumefield.apps._frame import WorldFrame
from lumefield.apps._paths import look_at, numbers
from lumefield.apps._radiance import RadianceScene, Recipe
from lumefield.apps._radiance_io import Radiance
from lumefield.apps._radiance_rays import Sampling
from lumefield.apps._views import Views

SIZE = (48, 40)
"""Width and height of the pictures."""


def cameras(n: int = 12, *, scale: float = 1.0, offset: float = 0.0) -> Views:
    """``n`` cameras on a sphere of three radii around the ball, z up."""
    k = np.arange(n)
    turn, height = k * 2.399963, 0.8 - 1.6 * (k + 0.5) / n
    eye = 3 * np.stack([np.cos(turn), np.sin(turn), height], -1) / np.hypot(1, height)[:, None]
    poses = np.array([look_at(e, np.zeros(3), np.array([0, 0, 1.0])) for e in eye])
    poses[:, :, 3] = scale * poses[:, :, 3] + offset
    return Views(
        names=numbers(n),
        world_from_cam=poses,
        focal=np.full((n, 2), 55.0),
        centre=np.tile(np.array(SIZE) / 2, (n, 1)),
        size=np.tile(np.array(SIZE), (n, 1)),
        held_out=tuple(i % 8 == 7 for i in range(n)),
    )


def colour(points: np.ndarray) -> np.ndarray:
    """Paint (..., 3) at unit vectors: smooth, different everywhere."""
    return 0.5 + 0.4 * np.sin(2 * points + np.array([0.0, 1.0, 2.0]))


def ball(*, scale: float = 1.0, offset: float = 0.0) -> Look:
    """A ball of radius ``scale`` around (offset, offset, offset), nothing behind it."""

    def look(views: Views) -> Seen:
        pose = views.world_from_cam[0].copy()
        pose[:, 3] = (pose[:, 3] - offset) / scale
        local = directions(views)
        length = np.linalg.norm(local, axis=-1)
        direction = (local / length[..., None]) @ pose[:, :3].T
        along = -(direction @ pose[:, 3])
        inside = along**2 - pose[:, 3] @ pose[:, 3] + 1
        hit = inside > 0
        t = along - np.sqrt(np.where(hit, inside, 0))
        rgb = colour(pose[:, 3] + t[..., None] * direction) * hit[..., None]
        depth = np.where(hit, scale * t / length, 0)
        return Seen(*(v.astype(np.float32) for v in (rgb, depth, hit)))

    return look


@typing.no_type_check
@struct.dataclass
class Paint:
    """A radiance field: a ball of radius 1/2 in the training frame, opaque, painted."""

    sharp: Array
    """Steepness of its border."""

    def density(self, x: Array, cov: Array | None = None) -> tuple[Array, Array]:
        """Density and position."""
        del cov
        away = jnp.linalg.norm(2 * x, axis=-1)
        return 200 * jax.nn.sigmoid((0.5 - away) * self.sharp), 4 * x

    def colour(self, features: Array, d: Array, look: Array | None) -> Array:
        """Paint at the position."""
        del d, look
        phase = jnp.arange(3, dtype=jnp.float32)
        return 0.5 + 0.4 * jnp.sin(2 * features + phase.reshape((1,) * (features.ndim - 1) + (3,)))


def painted() -> Radiance:
    """The field with a world of its own: world = 4 training + (1, 2, 3)."""
    sampling = Sampling("marched", 0.05, levels=1, step=1 / 64, cone=0.0)
    recipe = Recipe(
        method="ngp", steps=1, chunk=1, rays=1, sampling=sampling, rate=1e-2, rate_end=1e-3
    )
    none = (jnp.zeros((0, 3, 2)), jnp.zeros((0, 6)), jnp.zeros((0, 1)))
    return Radiance(
        recipe,
        RadianceScene(Paint(jnp.asarray(100.0)), *none),
        jnp.ones((1, 16, 16, 16), jnp.uint8),
        WorldFrame(4.0, (1.0, 2.0, 3.0)),
        (0.0, 0.0, 0.0),
        np.zeros((1, 3), np.float32),
        np.zeros((1, 3), np.uint8),
    )


def around_painted() -> Views:
    """Cameras around the painted ball, in its world."""
    views = cameras(12, scale=2.0)
    poses = views.world_from_cam.copy()
    poses[:, :, 3] += [1, 2, 3]
    return dataclasses.replace(views, world_from_cam=poses)
