"""A SCENE of the command line: the folder of a run, or any splat file; and how to draw it."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._field_file import FIELD_FILE
from lumefield.apps._views import Views, camera_at, load_views
from lumefield.errors import InputError, RunError

if TYPE_CHECKING:
    from lumefield.apps._radiance_io import Radiance
    from lumefield.codecs.formats import Splats

Rgb = tuple[float, float, float]


class Picture(NamedTuple):
    """One drawn view of ``H`` x ``W`` pixels."""

    rgb: NDArray[Any]
    """(H, W, 3) display sRGB, float; may leave [0, 1]."""
    depth: NDArray[Any]
    """(H, W) distance along the view axis, world units; 0 where nothing is seen."""


Draw = Callable[[Views], Picture]
"""Draws the first of the views it is given."""


@dataclasses.dataclass(frozen=True)
class Scene:
    """Splats or a radiance field, with what is known about where they came from."""

    content: "Splats | Radiance"
    """What is drawn; Gaussians are in the user's world frame."""
    views: Views | None
    """Cameras of the capture; None for a bare splat file."""
    run: Path | None
    """Folder of the run; None for a bare splat file."""
    background: Rgb
    """Display sRGB behind the scene."""

    @property
    def field(self) -> "Radiance | None":
        """The radiance field, or None where there are splats."""
        from lumefield.codecs.formats import Splats

        return None if isinstance(self.content, Splats) else self.content

    @property
    def splats(self) -> "Splats":
        """The Gaussians.

        Raises:
            InputError: If the scene is a radiance field.
        """
        from lumefield.codecs.formats import Splats

        if isinstance(self.content, Splats):
            return self.content
        raise InputError(
            f"{self.run}: holds a radiance field ({self.content.recipe.method}), expected "
            "Gaussians; `lumefield export` makes them"
        )

    def surface(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Points (p, 3) of what can be seen, in world units, and their weights (p,)."""
        from lumefield.codecs.formats import Splats

        if isinstance(self.content, Splats):
            logits = np.clip(self.content.logit_opacities.astype(np.float64), -50, 50)
            opacity = 1 / (1 + np.exp(-logits))
            return self.content.means.astype(np.float64), np.where(opacity > 0.1, opacity, 0)
        points = self.content.points.astype(np.float64)
        return points, np.ones(len(points))


def load_scene(path: Path) -> Scene:
    """Load the folder of a run, or a splat file.

    Gaussians with values that are not finite are left out.

    Raises:
        InputError: If the path does not exist, or is neither a run nor a splat file.
        RunError: If the folder holds no scene, or its files are damaged.
        FormatError: If the file of the scene is damaged.
    """
    from lumefield.codecs.formats import SPLAT_SUFFIXES, load_splats

    if path.is_dir():
        file = path / "scene.ply"
        trained = path / FIELD_FILE
        if not file.is_file() and not trained.is_file():
            raise RunError(f"{path}: holds no scene.ply; expected the folder of a finished run")
        cameras = path / "capture" / "cameras.json"
        views = load_views(cameras) if cameras.is_file() else None
        if file.is_file():
            return Scene(_finite(load_splats(file)), views, path, run_background(path))
        from lumefield.apps._radiance_io import load_radiance

        found = load_radiance(trained)
        return Scene(found, views, path, found.background)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give a run folder or a splat file")
    if path.suffix.lower() == ".lume":
        return _unpacked(path)
    if path.suffix.lower() not in SPLAT_SUFFIXES:
        raise InputError(
            f"{path}: not a scene; expected a run folder or one of .lume {' '.join(SPLAT_SUFFIXES)}"
        )
    return Scene(_finite(load_splats(path)), None, None, (0.0, 0.0, 0.0))


def _unpacked(path: Path) -> Scene:
    """The scene of a ``.lume`` file."""
    from lumefield.codecs.families import decode_field
    from lumefield.codecs.neural import Container
    from lumefield.codecs.scene import decode_scene

    data = path.read_bytes()
    if Container.holds(data) != "field":
        return Scene(decode_scene(data, source=str(path))[0], None, None, (0, 0, 0))
    from lumefield.apps._radiance_io import radiance_of

    found = radiance_of(*decode_field(data, str(path)), path)
    return Scene(found, None, None, found.background)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a run; empty where the file does not exist.

    Raises:
        RunError: If the file cannot be read or is not a JSON object.
    """
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: not valid JSON ({error}); train the run again") from None
    if not isinstance(record, dict):
        raise RunError(f"{path}: holds a {type(record).__name__}, expected a JSON object")
    return record


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write a JSON object whole or not at all.

    Raises:
        InputError: If the folder cannot be written.
    """
    from lumefield.codecs.formats import replacing

    with replacing(path) as file:
        file.write((json.dumps(record, indent=2, allow_nan=False) + "\n").encode())


def run_background(run: Path) -> Rgb:
    """``background`` of ``config.json`` when it is three numbers, else black."""
    value = read_json(run / "config.json").get("background")
    if (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(v, int | float) for v in value)
    ):
        return (float(value[0]), float(value[1]), float(value[2]))
    return (0.0, 0.0, 0.0)


def scene_draw(scene: Scene) -> Draw:
    """A function that draws a scene, splats or field, over its background."""
    found = scene.field
    if found is None:
        return make_draw(scene.splats, background=scene.background)

    def draw(views: Views) -> Picture:
        width, height = (int(side) for side in views.size[0])
        pose, focal, centre = views.world_from_cam[0], views.focal[0], views.centre[0]
        rgb, depth = found.view(pose, focal, centre, (height, width))
        return Picture(rgb, depth)

    return draw


def make_draw(splats: "Splats", *, background: Rgb = (0.0, 0.0, 0.0)) -> Draw:
    """A function that draws ``splats`` with the fastest kernels of this machine.

    Args:
        splats: What to draw.
        background: Display sRGB behind it.
    """
    import jax
    import jax.numpy as jnp

    from lumefield.fields import Gaussians
    from lumefield.render import Cameras, SplatOptions, rasterize

    leaves = (splats.means, splats.quats_wxyz, splats.log_scales)
    gaussians = Gaussians.from_arrays(*leaves, splats.logit_opacities, splats.sh).activate()
    options = SplatOptions(antialiased=splats.antialiased)
    behind = jnp.asarray(background, jnp.float32)

    @jax.jit
    def run(arrays: Any, camera: Cameras) -> tuple[jax.Array, jax.Array]:  # noqa: ANN401
        seen = rasterize(**arrays, camera=camera, background=behind, options=options)
        return seen.rgb, seen.depth

    def draw(views: Views) -> Picture:
        camera = camera_at(views)
        rgb, depth = run(gaussians, camera)
        return Picture(np.asarray(rgb), np.asarray(depth))

    return draw


def to_bytes(rgb: NDArray[Any]) -> NDArray[np.uint8]:
    """Display sRGB in [0, 1], rounded to 8 bits; what is outside is clipped."""
    return (np.clip(np.nan_to_num(rgb), 0, 1) * 255 + 0.5).astype(np.uint8)


def _finite(splats: "Splats") -> "Splats":
    good = np.isfinite(splats.means).all(1) & np.isfinite(splats.quats_wxyz).all(1)
    good &= np.isfinite(splats.sh).all((1, 2)) & ~np.isnan(splats.logit_opacities)
    good &= ~np.isnan(splats.log_scales).any(1) & (splats.log_scales < 80).all(1)
    if good.all():
        return splats
    names = ("means", "quats_wxyz", "log_scales", "logit_opacities", "sh")
    return dataclasses.replace(splats, **{name: getattr(splats, name)[good] for name in names})
