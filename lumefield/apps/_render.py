"""``lumefield render``: pictures or a video along a camera path."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tyro

from lumefield.apps import _paths
from lumefield.apps._keyframes import keyframes
from lumefield.apps._mp4 import Stereo
from lumefield.apps._render_out import Pass, Shown, outputs, pictures, videos
from lumefield.apps._scene_io import Draw, Picture, Scene, load_scene, scene_draw
from lumefield.apps._signal_render import render_signal, signal_config
from lumefield.apps._sphere import AWAY, Layout, Sphere, level, metres_per_unit, rows_of
from lumefield.apps._views import Views
from lumefield.errors import InputError

MAX_SIDE = 8192
"""Largest picture, pixels a side."""


IPD = 0.063
"""Distance of a person's eyes, metres: the mean of adults (Dodgson 2004)."""
_LOOKS = (
    *(("depth", False), ("passes", ("rgb",)), ("layout", "mono")),
    *(("stereo", None), ("ipd", None), ("scale_to_metres", None)),
)
"""What scenes are drawn with and signals are not, with its default."""


@dataclasses.dataclass(frozen=True)
class Render:
    """Render held-out views, an orbit, a spiral or a keyframe path."""

    scene: tyro.conf.Positional[Path]
    """Folder of a run, or a splat file (.ply, .spz, .splat)."""
    out: Path
    """Video file (.mp4), or a folder for one PNG per frame; of a fitted signal the file itself."""
    path: str = "orbit"
    """orbit, spiral, test (the held-out views of a run) or a keyframe file (.json)."""
    frames: int | None = None
    """Number of frames; by default 120, or what a keyframe file says."""
    width: int | None = None
    """Columns of a frame, both eyes included; by default those of the photos, or for headsets as
    fine as the photos, at most 2048 rows an eye. One of width and height is enough."""
    height: int | None = None
    """Rows of a frame, both eyes included."""
    fps: float = 30.0
    """Frames a second of the video; a keyframe file brings its own."""
    depth: bool = False
    """Depth instead of colour; short for --passes depth."""
    passes: tuple[Pass, ...] = ("rgb",)
    """What is drawn: rgb, depth (16-bit PNGs with a depth.json, or a coloured video), normal. More
    than one makes NAME.depth.mp4 and NAME.normal.mp4 beside a video."""
    layout: Layout = "mono"
    """mono is a flat picture; vr180 half a sphere and vr360 the whole, for headsets."""
    stereo: Stereo | None = None
    """Where the two eyes are in a frame, the left one first: when not given side-by-side for vr180
    and top-bottom for vr360; off is one eye."""
    ipd: float | None = None
    """Distance of the eyes, metres; 0.063 when not given."""
    scale_to_metres: float | None = None
    """Metres per unit of the scene; when not given, what the cameras look at is 2 m away."""
    overwrite: bool = False
    """Write over files that are there already."""
    resolution: int | None = None
    """Cells of the mesh of a fitted shape along its cube."""
    rate: int | None = None
    """Samples a second of a fitted sound."""


def render(settings: Render, *, draw: Draw | None = None) -> Path:
    """Draw a scene along a path and write the frames.

    Args:
        settings: What to draw and where to.
        draw: How to draw; the scene with this machine's kernels when None.

    Returns:
        The video or the folder that was written.

    Raises:
        InputError: If the scene, the path, a size or the output cannot be used.
        RunError: If the run is incomplete or damaged.
        FormatError: If a splat file is damaged.
    """
    from rich.console import Console

    if signal_config(settings.scene) is not None:
        return _signal(settings)
    _check(settings)
    passes: tuple[Pass, ...] = ("depth",) if settings.depth else settings.passes
    say, scene = Console(), load_scene(settings.scene)
    views, fps = plan(settings, scene)
    video = settings.out.suffix.lower() == ".mp4"
    sphere = None
    if settings.layout != "mono":
        sphere, views, line = _sphere(settings, scene, views)
        say.print(line, highlight=False)
    elif video:
        views = _even(settings, views)
    if draw is None:
        draw = scene_draw(scene)
        if sphere is not None:
            from lumefield.apps._sphere_draw import sphere_draw  # loads jax

            draw = sphere_draw(scene, sphere)
    shown = Shown(_far(scene, views) if "depth" in passes else 1.0, sphere)
    if video:
        out = videos(settings.out, passes, shown, fps)
    else:
        out = pictures(settings.out, passes, shown, views.names)
    with out as write:
        for k, picture in enumerate(_pictures(draw, views)):
            write(views.pick([k]), picture)
    say.print(f"wrote {len(views)} frames to {settings.out}", highlight=False)
    return settings.out


def _even(settings: Render, views: Views) -> Views:
    """The views at even sizes, which videos must have."""
    width, height = (int(side) // 2 * 2 for side in views.size[0])
    if min(width, height) < 2:
        raise InputError(f"{settings.out}: a video needs at least 2x2 pixels; give --width")
    return views if (views.size == [width, height]).all() else views.resized(width, height)


def _sphere(settings: Render, scene: Scene, views: Views) -> tuple[Sphere, Views, str]:
    """What a frame for a headset holds, the level heads, and what a person is told about it."""
    points, weights = scene.surface()
    known = scene.views or _paths.around_points(points, weights, 960, 540)
    layout = settings.layout
    stereo = settings.stereo or ("side-by-side" if layout == "vr180" else "top-bottom")
    rows = rows_of(layout, stereo, settings.width, settings.height, known)
    metres = settings.scale_to_metres or metres_per_unit(known, points)
    radius = 0.0 if stereo == "off" else (settings.ipd or IPD) / 2 / metres
    sphere = Sphere(180 if layout == "vr180" else 360, stereo, rows, radius)
    width, height = sphere.size
    if max(width, height) > MAX_SIDE:
        raise InputError(f"--{layout}: {width}x{height} frames, expected at most {MAX_SIDE} a side")
    line = f"{width}x{height}, {layout}, stereo {stereo}"
    if stereo != "off":
        line += f", eyes {2 * radius:.4g} units apart; a unit is {metres:.4g} m"
        if settings.scale_to_metres is None:
            line += f" if what is looked at is {AWAY:g} m away (--scale-to-metres says otherwise)"
    return sphere, level(views, _paths.world_up(known), sphere.size), line


def _signal(settings: Render) -> Path:
    """Draw a run of ``lumefield fit``: one picture, mesh or sound."""
    from rich.console import Console

    for name, default in (("path", "orbit"), ("frames", None), ("fps", 30.0), *_LOOKS):
        if getattr(settings, name) != default:
            raise InputError(
                f"{_flag(name)}: is for scenes, and {settings.scene} is a fitted signal"
            )
    render_signal(
        settings.scene,
        settings.out,
        size=(settings.width, settings.height),
        resolution=settings.resolution,
        rate=settings.rate,
        overwrite=settings.overwrite,
    )
    Console().print(f"wrote {settings.out}", highlight=False)
    return settings.out


def plan(settings: Render, scene: Scene) -> tuple[Views, float]:
    """The views to draw, at their final size, and the frames per second.

    Raises:
        InputError: If the path is unknown, or needs cameras that the scene does not have.
    """
    known = scene.views
    points, weights = scene.surface()
    if known is None:
        known = _paths.around_points(points, weights, 960, 540)
    width, height = _size(settings, known)
    count = settings.frames or 120
    if settings.path == "test":
        views = known.test() if scene.views is not None else known.pick([])
        if not len(views):
            raise InputError(
                f"{settings.scene}: has no held-out views; use --path orbit or a run that has"
            )
        if settings.width is None and settings.height is None:
            return views, settings.fps
    elif settings.path == "orbit":
        views = _paths.orbit(known, points, count)
    elif settings.path == "spiral":
        views = _paths.spiral(known, points, count)
    else:
        file = Path(settings.path)
        if file.suffix.lower() != ".json" or not file.is_file():
            raise InputError(
                f"--path {settings.path}: expected orbit, spiral, test or a keyframe file (.json)"
            )
        return keyframes(file, n=settings.frames, width=width, height=height)
    return views.resized(width, height), settings.fps


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _check_looks(settings: Render) -> None:
    """Refuse passes and panoramas that cannot be."""
    if settings.depth and settings.passes != ("rgb",):
        raise InputError("--depth: is short for --passes depth; leave one of them out")
    if not settings.passes or len(set(settings.passes)) != len(settings.passes):
        raise InputError(f"--passes {' '.join(settings.passes)}: expected each pass at most once")
    if settings.layout == "mono":
        for name in ("stereo", "ipd", "scale_to_metres"):
            if getattr(settings, name) is not None:
                raise InputError(
                    f"{_flag(name)}: does nothing for --layout mono; add --layout vr180 or vr360"
                )
    if settings.stereo == "off" and settings.ipd is not None:
        raise InputError("--ipd: does nothing for --stereo off; leave one of them out")
    for name, low, high in (("ipd", 1e-4, 10.0), ("scale_to_metres", 1e-6, 1e6)):
        value = getattr(settings, name)
        if value is not None and not low <= value <= high:
            raise InputError(f"{_flag(name)} {value:g}: expected {low:g} to {high:g} metres")


def _check(settings: Render) -> None:
    out = settings.out
    _check_looks(settings)
    if out.suffix and out.suffix.lower() != ".mp4":
        raise InputError(f"--out {out}: expected a .mp4 file or a folder for PNGs")
    if out.suffix.lower() == ".mp4" and out.is_dir():
        raise InputError(f"--out {out}: is a folder; give another name for the video")
    there = [file for file in outputs(out, settings.passes).values() if file.is_file()]
    there += [out] if out.is_dir() and any(out.iterdir()) else []
    if there and not settings.overwrite:
        raise InputError(f"--out {there[0]}: exists already; give another name or add --overwrite")
    if not out.suffix and out.is_file():
        raise InputError(f"--out {out}: is a file; expected a .mp4 file or a folder for PNGs")
    for name, side in (("width", settings.width), ("height", settings.height)):
        if side is not None and not 1 <= side <= MAX_SIDE:
            raise InputError(f"--{name} {side}: expected 1 to {MAX_SIDE} pixels")
    if settings.frames is not None and not 1 <= settings.frames <= 100_000:
        raise InputError(f"--frames {settings.frames}: expected 1 to 100000")
    if not 0 < settings.fps <= 1000:
        raise InputError(f"--fps {settings.fps}: expected more than 0 and at most 1000")


def _size(settings: Render, views: Views) -> tuple[int, int]:
    """Width and height from the flags; one alone keeps the shape of the photos."""
    width, height = (int(side) for side in views.size[0])
    if settings.width is not None and settings.height is not None:
        return settings.width, settings.height
    if settings.width is not None:
        return settings.width, max(1, round(settings.width * height / width))
    if settings.height is not None:
        return max(1, round(settings.height * width / height)), settings.height
    return width, height


def _pictures(draw: Draw, views: Views) -> Iterator[Picture]:
    """Draw one view after the other under a progress bar."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("rendering"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task("rendering", total=len(views))
        for k in range(len(views)):
            yield draw(views.pick([k]))
            progress.advance(task)


def _far(scene: Scene, views: Views) -> float:
    """A depth that nearly everything is nearer than, world units."""
    eyes = views.world_from_cam[:: max(1, len(views) // 8), :, 3]
    points = scene.surface()[0]
    means = points[:: max(1, len(points) // 20_000)]
    if not len(means):
        return 1.0
    away = np.linalg.norm(means[None] - eyes[:, None], axis=-1)
    return max(float(np.percentile(away, 99)) * 1.25, 1e-9)
