"""``lumefield render``: pictures or a video along a camera path."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

from lumefield.apps import _paths
from lumefield.apps._evaluate import image_stems, save_png
from lumefield.apps._keyframes import keyframes
from lumefield.apps._scene_io import (
    Draw,
    Picture,
    Scene,
    load_scene,
    scene_draw,
    to_bytes,
    write_json,
)
from lumefield.apps._signal_render import render_signal, signal_config
from lumefield.apps._views import Views
from lumefield.errors import InputError

MAX_SIDE = 8192
"""Largest picture, pixels a side."""
DEPTH_STEPS = 65000
"""A depth picture holds ``far`` as this value, so that some room is left behind it."""


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
    """Columns; by default those of the photos. One of width and height is enough."""
    height: int | None = None
    """Rows; by default those of the photos."""
    fps: float = 30.0
    """Frames a second of the video; a keyframe file brings its own."""
    depth: bool = False
    """Depth instead of colour: 16-bit PNGs with a depth.json, or a coloured video."""
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
    scene = load_scene(settings.scene)
    views, fps = plan(settings, scene)
    video = settings.out.suffix.lower() == ".mp4"
    if video:
        width, height = (int(side) // 2 * 2 for side in views.size[0])
        if min(width, height) < 2:
            raise InputError(f"{settings.out}: a video needs at least 2x2 pixels; give --width")
        if (views.size != [width, height]).any():
            views = views.resized(width, height)
    draw = draw or scene_draw(scene)
    far = _far(scene, views) if settings.depth else 0.0
    pictures = _pictures(draw, views)
    if video:
        frames = (_false_colours(p, far) if settings.depth else to_bytes(p.rgb) for p in pictures)
        write_video(settings.out, frames, fps)
    else:
        _write_folder(settings, views, pictures, far)
    Console().print(f"wrote {len(views)} frames to {settings.out}", highlight=False)
    return settings.out


def _signal(settings: Render) -> Path:
    """Draw a run of ``lumefield fit``: one picture, mesh or sound."""
    from rich.console import Console

    for name, default in (("path", "orbit"), ("frames", None), ("fps", 30.0), ("depth", False)):
        if getattr(settings, name) != default:
            raise InputError(f"--{name}: is for scenes, and {settings.scene} is a fitted signal")
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


def write_video(path: Path, frames: Iterator[NDArray[np.uint8]], fps: float) -> None:
    """Write even-sized frames [H, W, 3] as H.264 (yuv420p, BT.709, crf 18), whole or not at all.

    Raises:
        InputError: If the folder cannot be written.
    """
    import av
    from av.video.reformatter import Colorspace

    from lumefield.codecs.formats import replacing

    with replacing(path) as file, av.open(file, "w", format="mp4") as container:
        stream: Any = None
        for pixels in frames:
            if stream is None:
                stream = container.add_stream("libx264", rate=_rate(fps))
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt, stream.options = "yuv420p", {"crf": "18"}
                codec = stream.codec_context
                codec.colorspace = codec.color_primaries = codec.color_trc = 1
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode(None))


def _rate(fps: float) -> Any:  # noqa: ANN401
    from fractions import Fraction

    return Fraction(fps).limit_denominator(1001)


def _check(settings: Render) -> None:
    out = settings.out
    if out.suffix and out.suffix.lower() != ".mp4":
        raise InputError(f"--out {out}: expected a .mp4 file or a folder for PNGs")
    if out.suffix.lower() == ".mp4" and out.is_dir():
        raise InputError(f"--out {out}: is a folder; give another name for the video")
    there = out.is_file() or (out.is_dir() and any(out.iterdir()))
    if there and not settings.overwrite:
        raise InputError(f"--out {out}: exists already; give another name or add --overwrite")
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


def _write_folder(settings: Render, views: Views, pictures: Iterator[Picture], far: float) -> None:
    for stem, picture in zip(image_stems(views.names), pictures, strict=True):
        if settings.depth:
            steps = np.clip(picture.depth / far * DEPTH_STEPS + 0.5, 0, 65535)
            save_png(settings.out / f"{stem}.depth.png", np.nan_to_num(steps).astype(np.uint16))
        else:
            save_png(settings.out / f"{stem}.png", to_bytes(picture.rgb))
    if settings.depth:
        facts = {"world_units_per_step": far / DEPTH_STEPS, "empty": 0, "axis": "camera z"}
        write_json(settings.out / "depth.json", facts)


def _far(scene: Scene, views: Views) -> float:
    """A depth that nearly everything is nearer than, world units."""
    eyes = views.world_from_cam[:: max(1, len(views) // 8), :, 3]
    points = scene.surface()[0]
    means = points[:: max(1, len(points) // 20_000)]
    if not len(means):
        return 1.0
    away = np.linalg.norm(means[None] - eyes[:, None], axis=-1)
    return max(float(np.percentile(away, 99)) * 1.25, 1e-9)


def _false_colours(picture: Picture, far: float) -> NDArray[np.uint8]:
    """Near is bright, far is dark, nothing is black."""
    from lumefield.apps._colours import heat

    near = 1 - np.sqrt(np.clip(picture.depth / far, 0, 1))
    return np.where(picture.depth[..., None] > 0, heat(near), 0).astype(np.uint8)
