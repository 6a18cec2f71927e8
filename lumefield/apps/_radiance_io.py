"""The file of a radiance field: ``field.safetensors`` of a run.

Arrays: the leaves of :class:`RadianceScene` by path, ``occupied`` (packed bits) where rays are
marched, and some ``points`` of the surface with ``colours``. The header's ``lumefield`` entry is
JSON: format, recipe, frame, background.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from numpy.typing import NDArray

from lumefield.apps._capture_type import Capture
from lumefield.apps._field_file import FORMAT, damaged, read_field
from lumefield.apps._frame import WorldFrame
from lumefield.apps._radiance import RadianceScene, Recipe, new_scene
from lumefield.apps._radiance_draw import draw_rays, draw_view
from lumefield.apps._radiance_plan import recipe_from
from lumefield.apps._radiance_rays import cone_radius
from lumefield.apps._radiance_trace import colour_at, density_at
from lumefield.errors import RunError
from lumefield.fit import TrainState, restore, state_arrays

_SURFACE = 20_000
"""Rays drawn for the points of the surface."""
_MOST_PHOTOS = 100_000


class Radiance(NamedTuple):
    """A trained radiance field with all that is needed to draw or sample it."""

    recipe: Recipe
    scene: RadianceScene
    occupied: Array | None
    """(L, n, n, n) uint8 in the training frame, level l covers [-2^l, 2^l]^3; None: all of it."""
    frame: WorldFrame
    """world = scale * training + offset."""
    background: tuple[float, float, float]
    """Display sRGB."""
    points: NDArray[np.float32]
    """(p, 3) points of the visible surface, world units."""
    colours: NDArray[np.uint8]
    """(p, 3) display sRGB of the points."""

    def density(self, x: Float[Array, "*s 3"]) -> Float[Array, "*s"]:
        """Density at points of the training frame, per training unit; jit-able."""
        return density_at(self.scene.field, x)

    def colour(self, x: Float[Array, "*s 3"], d: Float[Array, "*s 3"]) -> Float[Array, "*s 3"]:
        """Display sRGB of points of the training frame seen along ``d``; jit-able."""
        look = jnp.mean(self.scene.look, 0) if self.scene.look.shape[0] else None
        rgb = colour_at(self.scene.field, x, d, look)[1]
        if self.scene.exposure.shape[0]:
            tone = jnp.mean(self.scene.exposure, 0)
            rgb = rgb * jnp.exp(tone[:, 0]) + tone[:, 1]
        return rgb

    def view(
        self,
        world_from_cam: NDArray[Any],
        focal: NDArray[Any],
        centre: NDArray[Any],
        size: tuple[int, int],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """A picture (H, W, 3) and its depth (H, W) along the view axis, in world units.

        Args:
            world_from_cam: (3, 4) pose in the user's world.
            focal: (2,) pixels.
            centre: (2,) pixels.
            size: (H, W).
        """
        pose = self.frame.inward(np.asarray(world_from_cam, np.float64)[None])[0]
        rgb, depth = draw_view(
            self.recipe, self.scene, self.occupied, (pose, focal, centre), size, self.background
        )
        return rgb, depth * np.float32(self.frame.scale)


def save_radiance(
    path: Path,
    recipe: Recipe,
    scene: RadianceScene,
    occupied: Array | None,
    frame: WorldFrame,
    photos: Capture,
    background: tuple[float, float, float],
) -> None:
    """Write the field, whole or not at all, with points of the surface that its photos see.

    Raises:
        InputError: If the folder cannot be written.
    """
    arrays = scene_arrays(scene)
    points, colours = _surface(recipe, scene, occupied, frame, photos)
    arrays |= {"points": points, "colours": colours}
    facts: dict[str, Any] = {
        "format": FORMAT,
        "recipe": dataclasses.asdict(recipe),
        "frame": dataclasses.asdict(frame),
        "background": list(background),
    }
    if occupied is not None:
        arrays["occupied"] = np.packbits(np.asarray(occupied).reshape(-1))
        facts["occupied"] = list(occupied.shape)
    write_field(path, facts, arrays)


def load_radiance(path: Path) -> Radiance:
    """Read the file that ``save_radiance`` wrote.

    Raises:
        RunError: If there is no such file.
        FormatError: If it is damaged, or made by a newer version.
    """
    return radiance_of(*read_field(path), path)


def radiance_of(facts: dict[str, Any], arrays: dict[str, NDArray[Any]], path: Path) -> Radiance:
    """The field of a header and arrays that were read from a file.

    Raises:
        FormatError: If they do not make one.
    """
    try:
        return _read(facts, arrays)
    except (ValueError, KeyError, TypeError, RunError) as error:
        raise damaged(path, error) from None


def write_field(path: Path, facts: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
    """Write header and arrays, whole or not at all.

    Raises:
        InputError: If the folder cannot be written.
    """
    from safetensors.numpy import save

    from lumefield.codecs.formats import replacing

    ordered = {name: np.asarray(value, order="C") for name, value in arrays.items()}
    data = save(ordered, metadata={"lumefield": json.dumps(facts)})
    with replacing(path) as file:
        file.write(data)


def _read(facts: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Radiance:
    recipe = recipe_from(facts["recipe"])
    offset = tuple(float(v) for v in facts["frame"]["offset"])
    if len(offset) != 3:
        raise ValueError("the offset of the frame is not three numbers")
    frame = WorldFrame(float(facts["frame"]["scale"]), (offset[0], offset[1], offset[2]))
    if not (np.isfinite(offset).all() and np.isfinite(frame.scale) and frame.scale > 0):
        raise ValueError("the frame is not finite")
    rows = {k: arrays[f"scene.{k}"].shape[0] for k in ("exposure", "pose", "look")}
    if max(rows.values()) > _MOST_PHOTOS:
        raise ValueError("more photos than there can be")
    photos = max(rows.values())
    like = jax.eval_shape(
        lambda: new_scene(
            recipe,
            jax.random.key(0),
            photos=photos,
            exposure=rows["exposure"] > 0,
            poses=rows["pose"] > 0,
        )
    )
    named = {k: v for k, v in arrays.items() if k.startswith("scene.")}
    rest = {k: v for k, v in state_arrays(_alone(())).items() if not k.startswith("scene.")}
    scene: RadianceScene = restore(_alone(like), named | rest).scene
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(scene)):
        raise ValueError("a number is not finite")
    occupied = None
    if recipe.sampling.way == "marched":
        shape = tuple(int(n) for n in facts["occupied"])
        size = int(np.prod(shape, dtype=np.int64))
        if len(shape) != 4 or size > 8 * len(arrays["occupied"]) or min(shape) < 1:
            raise ValueError(f"occupancy of shape {shape} does not fit its bits")
        bits = np.unpackbits(arrays["occupied"], count=size).reshape(shape)
        occupied = jnp.asarray(bits)
    background = [float(v) for v in facts["background"]]
    points, colours = arrays["points"], arrays["colours"]
    if points.shape != colours.shape or points.shape[1:] != (3,) or len(background) != 3:
        raise ValueError("points, colours or the background have the wrong shape")
    return Radiance(
        recipe,
        scene,
        occupied,
        frame,
        (background[0], background[1], background[2]),
        points.astype(np.float32),
        colours.astype(np.uint8),
    )


def scene_arrays(scene: RadianceScene) -> dict[str, NDArray[Any]]:
    """The leaves of a scene by path, as the file names them."""
    return {k: v for k, v in state_arrays(_alone(scene)).items() if k.startswith("scene.")}


def _alone(scene: Any) -> TrainState:  # noqa: ANN401
    """The scene in a state with nothing else, for the names and checks of checkpoints."""
    return TrainState(scene=scene, opt=(), aux=(), key=jax.random.key(0), step=jnp.int32(0))


def _surface(
    recipe: Recipe,
    scene: RadianceScene,
    occupied: Array | None,
    frame: WorldFrame,
    photos: Capture,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Where random pixels of the training photos meet the surface, in world units."""
    rng = np.random.default_rng(0)
    which = np.asarray(photos.train)[rng.integers(0, len(photos.train), _SURFACE)]
    pixel = rng.random((_SURFACE, 2)) * photos.sizes[which]
    poses = frame.inward(photos.world_from_cam)[which]
    origin, direction, radius = pixel_rays(poses, photos.focal[which], photos.centre[which], pixel)
    rgb, distance, opacity = draw_rays(recipe, scene, occupied, origin, direction, radius)
    at = frame.outward_points((origin + distance[:, None] * direction).astype(np.float64))
    hit = (opacity > 0.5) & np.isfinite(at).all(1)
    colours = np.clip(rgb[hit] * 255 + 0.5, 0, 255).astype(np.uint8)
    return at[hit].astype(np.float32), colours


def pixel_rays(
    poses: NDArray[np.float64],
    focal: NDArray[np.float64],
    centre: NDArray[np.float64],
    pixel: NDArray[np.float64],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Origins (n, 3), unit directions (n, 3) and radii (n,) of the cones through pixels.

    Args:
        poses: (n, 3, 4) in the training frame.
        focal: (n, 2) pixels.
        centre: (n, 2) pixels.
        pixel: (n, 2) pixels.
    """
    xy = (pixel - centre) / focal
    local = np.concatenate([xy, np.ones((len(xy), 1))], 1)
    local /= np.linalg.norm(local, axis=1, keepdims=True)
    direction = np.einsum("nij,nj->ni", poses[:, :, :3], local)
    radius = local[:, 2] * cone_radius(focal.mean(1))
    origin = poses[:, :, 3].astype(np.float32)
    return origin, direction.astype(np.float32), radius.astype(np.float32)
