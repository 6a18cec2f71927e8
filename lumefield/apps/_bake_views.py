"""What a scene looks like from its cameras and from between them: targets of baking and meshing."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._keyframes import interpolate
from lumefield.apps._views import Views, camera_at

if TYPE_CHECKING:
    from lumefield.apps._radiance_io import Radiance
    from lumefield.codecs.formats import Splats

Floats = NDArray[np.float32]
Tell = Callable[[str, float], None]
"""(what is done, share in [0, 1])."""


class Seen(NamedTuple):
    """One view of ``H`` x ``W`` pixels, without background."""

    rgb: Floats
    """(H, W, 3) display sRGB, weighted by opacity."""
    depth: Floats
    """(H, W) expected distance along the view axis, world units; 0 where nothing is seen."""
    opacity: Floats
    """(H, W) in [0, 1]."""


Look = Callable[[Views], Seen]
"""Looks through the first of the views it is given."""


@dataclasses.dataclass(frozen=True)
class Targets:
    """``n`` views of one size and what is seen in them."""

    views: Views
    rgb: NDArray[np.uint8]
    """(n, H, W, 3) display sRGB, weighted by opacity."""
    alpha: NDArray[np.uint8]
    """(n, H, W)."""
    depth: Floats
    """(n, H, W) world units."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.alpha.shape[1], self.alpha.shape[2]


def one_size(views: Views, longest: int) -> Views:
    """The views at the size that most of them have, at most ``longest`` pixels a side."""
    sizes, counts = np.unique(views.size, axis=0, return_counts=True)
    width, height = (int(v) for v in sizes[counts.argmax()])
    factor = min(1.0, longest / max(width, height))
    small = (max(1, round(width * factor)), max(1, round(height * factor)))
    if (views.size == small).all():
        return views
    return views.resized(*small)


def between(views: Views, count: int, seed: int) -> Views:
    """Cameras on the way from a camera to its nearest neighbour, at 30 to 70 % of it.

    Nearness is the distance of the eyes in units of their median spread, plus the angle between
    the viewing axes.

    Args:
        views: Cameras of one size.
        count: At most this many; every pair of neighbours gives one.
        seed: Draws which pairs, and where between them.
    """
    n = len(views)
    if n < 2 or count < 1:
        return views.pick([])
    eye, axis = views.world_from_cam[:, :, 3], views.world_from_cam[:, :, 2]
    gap = np.linalg.norm(eye[:, None] - eye[None], axis=-1)
    spread = float(np.median(gap)) or 1.0
    far = gap / spread + np.arccos(np.clip(axis @ axis.T, -1, 1))
    np.fill_diagonal(far, np.inf)
    pairs = np.unique(np.sort(np.stack([np.arange(n), far.argmin(1)], 1), 1), axis=0)
    rng = np.random.default_rng(seed)
    chosen = pairs[rng.permutation(len(pairs))[:count]]
    poses = [
        interpolate(np.array([0.0, 1.0]), views.world_from_cam[pair], np.array([at]))[0]
        for pair, at in zip(chosen, rng.uniform(0.3, 0.7, len(chosen)), strict=True)
    ]
    return dataclasses.replace(
        views.pick(chosen[:, 0].astype(np.intp)),
        world_from_cam=np.array(poses),
        names=tuple(f"between_{k}" for k in range(len(poses))),
    )


def joined(a: Views, b: Views) -> Views:
    """The views of both."""
    arrays = {
        name: np.concatenate([getattr(a, name), getattr(b, name)])
        for name in ("world_from_cam", "focal", "centre", "size")
    }
    return Views(names=a.names + b.names, held_out=a.held_out + b.held_out, **arrays)


def look_all(look: Look, views: Views, tell: Tell) -> Targets:
    """Every view, drawn."""
    width, height = (int(v) for v in views.size[0])
    n = len(views)
    rgb = np.zeros((n, height, width, 3), np.uint8)
    alpha = np.zeros((n, height, width), np.uint8)
    depth = np.zeros((n, height, width), np.float32)
    for k in range(n):
        seen = look(views.pick([k]))
        rgb[k], alpha[k] = _bytes(seen.rgb), _bytes(seen.opacity)
        depth[k] = np.where(np.isfinite(seen.depth) & (seen.depth > 0), seen.depth, 0)
        tell("drawing the scene", (k + 1) / n)
    return Targets(views, rgb, alpha, depth)


def field_look(field: "Radiance") -> Look:
    """How a radiance field looks."""

    def look(views: Views) -> Seen:
        return field_seen(field, views.pick([0]))[0]

    return look


def field_seen(field: "Radiance", views: Views) -> list[Seen]:
    """What every one of the views sees; their rays are traced together, in blocks of one size."""
    from lumefield.apps._radiance_draw import draw_rays
    from lumefield.apps._radiance_rays import cone_radius

    eyes: list[Floats] = []
    ways: list[Floats] = []
    radii: list[Floats] = []
    lengths: list[NDArray[np.float64]] = []
    for k in range(len(views)):
        view = views.pick([k])
        pose = field.frame.inward(view.world_from_cam[:1])[0]
        local = directions(view)
        length = np.linalg.norm(local, axis=-1)
        direction = (local / length[..., None]) @ pose[:, :3].T
        radius = cone_radius(float(view.focal[0].mean()) * length)
        origin = np.broadcast_to(pose[:, 3], direction.shape)
        eyes.append(origin.reshape(-1, 3).astype(np.float32))
        ways.append(direction.reshape(-1, 3).astype(np.float32))
        radii.append(radius.reshape(-1).astype(np.float32))
        lengths.append(length)
    rays = (np.concatenate(parts) for parts in (eyes, ways, radii))
    drawn = draw_rays(field.recipe, field.scene, field.occupied, *rays)
    seen: list[Seen] = []
    start = 0
    for length in lengths:
        rgb, distance, opacity = (part[start : start + length.size] for part in drawn)
        start += length.size
        depth = distance / length.reshape(-1) * field.frame.scale
        depth = np.where(opacity > 1e-3, depth, 0).astype(np.float32)
        size = length.shape
        seen.append(Seen(rgb.reshape(*size, 3), depth.reshape(size), opacity.reshape(size)))
    return seen


def splat_look(splats: "Splats") -> Look:
    """How Gaussians look."""
    import jax

    from lumefield.fields import Gaussians
    from lumefield.render import Cameras, SplatOptions, rasterize

    leaves = (splats.means, splats.quats_wxyz, splats.log_scales, splats.logit_opacities)
    gaussians = Gaussians.from_arrays(*leaves, splats.sh).activate()
    options = SplatOptions(antialiased=splats.antialiased)

    @jax.jit
    def run(arrays: Any, camera: Cameras) -> tuple[jax.Array, jax.Array, jax.Array]:  # noqa: ANN401
        seen = rasterize(**arrays, camera=camera, options=options)
        return seen.rgb, seen.depth, seen.opacity

    def look(views: Views) -> Seen:
        camera = camera_at(views)
        rgb, depth, opacity = (np.asarray(v) for v in run(gaussians, camera))
        return Seen(rgb, np.where(opacity > 1e-3, depth, 0).astype(np.float32), opacity)

    return look


def directions(views: Views) -> NDArray[np.float64]:
    """(H, W, 3) directions through the pixels of the first view, camera axes, z = 1."""
    width, height = (int(v) for v in views.size[0])
    x = (np.arange(width) + 0.5 - views.centre[0, 0]) / views.focal[0, 0]
    y = (np.arange(height) + 0.5 - views.centre[0, 1]) / views.focal[0, 1]
    grid = np.stack(np.meshgrid(x, y), -1)
    return np.concatenate([grid, np.ones((height, width, 1))], -1)


def _bytes(values: Floats) -> NDArray[np.uint8]:
    return (np.clip(np.nan_to_num(values), 0, 1) * 255 + 0.5).astype(np.uint8)
