"""Pictures of a radiance field: rays in blocks of one size, one program for all views."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from lumefield import render
from lumefield.apps._radiance import RadianceScene, Recipe
from lumefield.apps._radiance_trace import Rays, Sampling, Seen, trace

_BLOCK = 4096
_MARCHED = 1 << 17
"""Packed samples of a block; rays that find no room come first in the next."""


@partial(jax.jit, static_argnums=0)
def _seen(
    sampling: Sampling,
    field: Any,  # noqa: ANN401
    occupied: Array | None,
    rays: Rays,
) -> tuple[Seen, Array]:
    seen = trace(sampling, field, occupied, rays, None)
    return seen, jnp.sum(seen.used, dtype=jnp.int32)


def draw_rays(
    recipe: Recipe,
    scene: RadianceScene,
    occupied: Array | None,
    origin: NDArray[np.float32],
    direction: NDArray[np.float32],
    radius: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Colours (n, 3), distances (n,) along the ray and opacities (n,) of any number of rays.

    Photos' own looks and exposures are replaced by their mean.
    """
    count = len(origin)
    out = np.zeros((count, 5), np.float32)
    look = None
    if scene.look.shape[0]:
        look = jnp.broadcast_to(jnp.mean(scene.look, 0), (_BLOCK, scene.look.shape[1]))
    sampling = dataclasses.replace(recipe.sampling, capacity=_MARCHED, kept=_MARCHED // 2)
    first = 0
    while first < count:
        take = min(_BLOCK, count - first)
        part = [_padded(a[first : first + take]) for a in (origin, direction, radius)]
        seen, used = _seen(sampling, scene.field, occupied, Rays(*map(jnp.asarray, part), look))
        done = min(take, int(used))
        if done == 0:
            raise ValueError(f"a ray needs more than {_MARCHED} samples, expected fewer")
        columns = (seen.rgb, seen.depth[:, None], seen.opacity[:, None])
        out[first : first + done] = np.concatenate([np.asarray(c) for c in columns], 1)[:done]
        first += done
    rgb, depth, opacity = out[:, :3], out[:, 3], out[:, 4]
    if scene.exposure.shape[0]:
        tone = np.asarray(scene.exposure, np.float32).mean(0)
        rgb = rgb * np.exp(tone[:, 0]) + tone[:, 1]
    return rgb, (depth / np.maximum(opacity, 1e-8)).astype(np.float32), opacity


def _padded(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    short = _BLOCK - len(rows)
    return np.concatenate([rows, np.repeat(rows[-1:], short, 0)]) if short else rows


def draw_view(
    recipe: Recipe,
    scene: RadianceScene,
    occupied: Array | None,
    camera: tuple[NDArray[Any], NDArray[Any], NDArray[Any]],
    size: tuple[int, int],
    level: tuple[float, float, float],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A picture (H, W, 3) over a background, and depth (H, W) along the view axis.

    Args:
        recipe: How the field was trained.
        scene: What was trained.
        occupied: Bits of the occupancy; None where rays are not marched.
        camera: Pose in the training frame, focal length and centre in pixels.
        size: (H, W).
        level: Display sRGB of the background.
    """
    pose, focal, centre = (np.asarray(a, np.float32) for a in camera)
    view = render.Cameras(
        world_from_cam=jnp.asarray(pose),
        focal=jnp.asarray(focal),
        centre=jnp.asarray(centre),
        height=size[0],
        width=size[1],
    )
    rays = render.camera_rays(view)
    origin, direction = (np.asarray(a).reshape(-1, 3) for a in (rays.origin, rays.direction))
    along = direction @ pose[:, 2]
    radius = along * np.float32(2 / 12**0.5 / focal.mean())
    rgb, distance, opacity = draw_rays(recipe, scene, occupied, origin, direction, radius)
    rgb = rgb + (1 - opacity)[:, None] * np.asarray(level, np.float32)
    depth = np.where(opacity > 1e-3, distance * along, 0)
    return rgb.astype(np.float32).reshape(*size, 3), depth.astype(np.float32).reshape(size)
