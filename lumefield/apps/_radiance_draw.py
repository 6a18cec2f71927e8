"""Pictures of a radiance field: rays in blocks of one size, one program for all views."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from lumefield import render
from lumefield.apps._radiance import RadianceScene, Recipe
from lumefield.apps._radiance_march import march_on
from lumefield.apps._radiance_rays import Rays, Sampling, cone_radius
from lumefield.apps._radiance_trace import trace

_BLOCK = 4096
_T_MIN = 1e-4
"""What a ray lets through when it is opaque, as in compositing."""
_ROUND = 32
"""Most samples of a marched ray in one round; rays that are opaque then are left out."""

_seen = partial(jax.jit, static_argnums=0)(trace)
_march_on = partial(jax.jit, static_argnums=(0, 5))(march_on)


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
    look = None
    if scene.look.shape[0]:
        look = jnp.broadcast_to(jnp.mean(scene.look, 0), (_BLOCK, scene.look.shape[1]))

    def rays(rows: NDArray[np.intp]) -> Rays:
        """One block of the rays, the last one repeated to fill it."""
        at = np.pad(rows, (0, _BLOCK - len(rows)), mode="edge")
        o, d, r = (jnp.asarray(a[at]) for a in (origin, direction, radius))
        return Rays(o, d, r, look)

    if recipe.sampling.way == "marched":
        assert occupied is not None, "marching needs an occupancy"
        out = _in_rounds(recipe.sampling, scene.field, occupied, rays, len(origin))
    else:
        out = np.zeros((len(origin), 5), np.float32)
        sampling = recipe.sampling.drawn(float(np.median(radius)) if len(radius) else 0.0)
        for rows in _blocks(np.arange(len(origin))):
            seen = _seen(sampling, scene.field, occupied, rays(rows), None)
            columns = (seen.rgb, seen.depth[:, None], seen.opacity[:, None])
            out[rows] = np.concatenate([np.asarray(c) for c in columns], 1)[: len(rows)]
    rgb, depth, opacity = out[:, :3], out[:, 3], out[:, 4]
    if scene.exposure.shape[0]:
        tone = np.asarray(scene.exposure, np.float32).mean(0)
        rgb = rgb * np.exp(tone[:, 0]) + tone[:, 1]
    return rgb, (depth / np.maximum(opacity, 1e-8)).astype(np.float32), opacity


def _blocks(rows: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    return [rows[i : i + _BLOCK] for i in range(0, len(rows), _BLOCK)]


def _in_rounds(
    sampling: Sampling,
    field: Any,  # noqa: ANN401
    occupied: Array,
    rays: Callable[[NDArray[np.intp]], Rays],
    count: int,
) -> NDArray[np.float32]:
    """Colour, distance and opacity (count, 5) of marched rays, a few samples of each at a time."""
    out = np.zeros((count, 5), np.float32)
    left, start = np.ones(count, np.float32), np.zeros(count, np.float32)
    going = np.arange(count)
    while len(going):
        for rows in _blocks(going):
            at = np.pad(start[rows], (0, _BLOCK - len(rows)), mode="edge")
            done = _march_on(sampling, field, occupied, rays(rows), jnp.asarray(at), _ROUND)
            part, through, reached = (np.asarray(a)[: len(rows)] for a in done)
            out[rows, :4] += left[rows, None] * part
            left[rows] *= through
            start[rows] = reached
        going = going[(left[going] > _T_MIN) & np.isfinite(start[going])]
    out[:, 4] = 1 - left
    return out


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
    radius = along * np.float32(cone_radius(float(focal.mean())))
    rgb, distance, opacity = draw_rays(recipe, scene, occupied, origin, direction, radius)
    rgb = rgb + (1 - opacity)[:, None] * np.asarray(level, np.float32)
    depth = np.where(opacity > 1e-3, distance * along, 0)
    return rgb.astype(np.float32).reshape(*size, 3), depth.astype(np.float32).reshape(size)
