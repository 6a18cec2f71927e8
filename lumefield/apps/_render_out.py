"""Frames as files: colour, depth and normals, as pictures in a folder or as videos side by side."""

import contextlib
import tempfile
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._bake_views import directions
from lumefield.apps._evaluate import image_stems, save_png
from lumefield.apps._mp4 import finish, sphere_boxes
from lumefield.apps._scene_io import Picture, to_bytes, write_json
from lumefield.apps._sphere import Sphere
from lumefield.apps._views import Views

Pass = Literal["rgb", "depth", "normal"]
Bytes = NDArray[np.uint8]
Write = Callable[[Views, Picture], None]
"""Takes the view of one frame and what was drawn of it."""

DEPTH_STEPS = 65000
"""A depth picture holds ``far`` as this value, so that some room is left behind it."""
_AXES = "x right, y up, z towards the camera, as (n + 1) / 2; of a panorama those of the head"
_PAIRS = [(r, c) for r in range(3) for c in range(-2, 3) if r > 0 or c > 0]
"""Rows and columns to one of two opposite neighbours."""


@dataclass(frozen=True)
class Shown:
    """How frames are shown."""

    far: float
    """A depth that nearly everything is nearer than, world units."""
    sphere: Sphere | None
    """What a frame of a panorama holds; None for a pinhole camera."""


def outputs(out: Path, passes: tuple[Pass, ...]) -> dict[Pass, Path]:
    """The video of each pass: ``out`` itself where there is one, else ``NAME.PASS.mp4`` beside it.

    Colour keeps the plain name.
    """
    if len(passes) == 1:
        return {passes[0]: out}
    return {p: out if p == "rgb" else out.with_suffix(f".{p}{out.suffix}") for p in passes}


@contextlib.contextmanager
def videos(
    out: Path, passes: tuple[Pass, ...], shown: Shown, fps: float
) -> Generator[Write, None, None]:
    """Write frames as videos, one for each pass, whole or not at all.

    Raises:
        InputError: If the folder cannot be written.
    """
    mark = b""
    if shown.sphere is not None:
        mark = sphere_boxes(shown.sphere.stereo, shown.sphere.degrees)
    with contextlib.ExitStack() as stack:
        paths = outputs(out, passes)
        movies = [stack.enter_context(_movie(paths[name], fps, mark)) for name in passes]

        def write(view: Views, picture: Picture) -> None:
            for name, movie in zip(passes, movies, strict=True):
                movie(coloured(name, view, picture, shown))

        yield write


@contextlib.contextmanager
def pictures(
    folder: Path, passes: tuple[Pass, ...], shown: Shown, names: tuple[str, ...]
) -> Generator[Write, None, None]:
    """Write frames as PNGs: ``NAME.png``, ``NAME.depth.png`` (16 bit) and ``NAME.normal.png``.

    ``depth.json`` says what a step of depth is, ``normal.json`` which axes normals have.

    Raises:
        InputError: If the folder cannot be written.
    """
    stems = iter(image_stems(names))

    def write(view: Views, picture: Picture) -> None:
        stem = next(stems)
        if "rgb" in passes:
            save_png(folder / f"{stem}.png", to_bytes(picture.rgb))
        if "depth" in passes:
            steps = np.clip(picture.depth / shown.far * DEPTH_STEPS + 0.5, 0, 65535)
            save_png(folder / f"{stem}.depth.png", np.nan_to_num(steps).astype(np.uint16))
        if "normal" in passes:
            save_png(folder / f"{stem}.normal.png", coloured("normal", view, picture, shown))

    yield write
    if "depth" in passes:
        axis = "camera z" if shown.sphere is None else "ray"
        facts = {"world_units_per_step": shown.far / DEPTH_STEPS, "empty": 0, "axis": axis}
        write_json(folder / "depth.json", facts)
    if "normal" in passes:
        write_json(folder / "normal.json", {"axes": _AXES, "empty": [0, 0, 0]})


def coloured(name: Pass, view: Views, picture: Picture, shown: Shown) -> Bytes:
    """A pass of one frame as display sRGB [H, W, 3]."""
    if name == "rgb":
        return to_bytes(picture.rgb)
    if name == "depth":
        return _false_colours(picture, shown.far)
    sphere, depth = shown.sphere, np.asarray(picture.depth, np.float32)
    if sphere is None:
        found = normals(directions(view) * depth[..., None])
    else:
        ways = sphere.directions()
        each = [normals(ways * eye[..., None]) for eye in sphere.apart(depth)]
        found = sphere.together(each)
    shade = to_bytes((found * [1, -1, -1] + 1) / 2)
    return np.where((depth > 0)[..., None], shade, 0).astype(np.uint8)


def normals(points: NDArray[Any]) -> NDArray[np.float32]:
    """Unit normals (H, W, 3) of seen points (H, W, 3), towards the eye at the origin.

    The depth is smoothed over about two pixels first. Of the differences to the two neighbours
    along an axis the smaller is taken where they are unlike, so that normals do not bend at the
    border of a thing.

    Args:
        points: Where the rays end, axes of the camera; 0 where nothing is seen.
    """
    length = np.linalg.norm(points, axis=-1, keepdims=True)
    seen = length > 0
    way = points / np.maximum(length, 1e-12)
    at = way * _smooth(length, seen)
    normal = np.cross(_slope(at, seen, 0), _slope(at, seen, 1))
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-20)
    away = (normal * way).sum(-1, keepdims=True)
    normal = np.where(np.abs(normal).sum(-1, keepdims=True) > 0.5, normal, -way)
    return np.where(away > 0, -normal, normal).astype(np.float32)


def _smooth(depth: NDArray[Any], seen: NDArray[np.bool_]) -> NDArray[Any]:
    """Depth averaged with pairs of opposite neighbours that are both seen and nearly as far.

    Pairs, because one side alone would move the depth of slanted things.
    """
    base = np.where(seen, depth, 0)
    total, weight = base.copy(), seen.astype(depth.dtype)
    for row, column in _PAIRS:
        pair = [np.roll(base, (s * row, s * column), (0, 1)) for s in (1, -1)]
        near = [(np.abs(other - base) < 0.03 * base) & (other > 0) for other in pair]
        share = np.exp(-(row**2 + column**2) / 4) * (near[0] & near[1] & seen)
        total, weight = total + share * (pair[0] + pair[1]), weight + 2 * share
    return total / np.maximum(weight, 1e-12)


def _slope(at: NDArray[Any], seen: NDArray[np.bool_], axis: int) -> NDArray[Any]:
    """Differences of points along an axis of the picture; the smaller one where two are unlike."""
    step = np.diff(at, axis=axis)
    pad = [(0, 0), (0, 0), (0, 0)]
    pad[axis] = (1, 1)
    ok = np.take(seen, range(1, seen.shape[axis]), axis)
    ok = ok & np.take(seen, range(seen.shape[axis] - 1), axis)
    size = np.where(ok, np.linalg.norm(step, axis=-1, keepdims=True), np.inf)
    size = np.pad(size, pad, constant_values=np.inf)
    step = np.pad(np.where(ok, step, 0), pad)
    count = at.shape[axis]
    before, after = (np.take(step, range(k, k + count), axis) for k in (0, 1))
    less, more = (np.take(size, range(k, k + count), axis) for k in (0, 1))
    alike = (less < 2 * more) & (more < 2 * less)
    return np.where(alike, (before + after) / 2, np.where(less < more, before, after))


def _false_colours(picture: Picture, far: float) -> Bytes:
    """Near is bright, far is dark, nothing is black."""
    from lumefield.apps._colours import heat

    near = 1 - np.sqrt(np.clip(picture.depth / far, 0, 1))
    return np.where(picture.depth[..., None] > 0, heat(near), 0).astype(np.uint8)


@contextlib.contextmanager
def _movie(path: Path, fps: float, mark: bytes) -> Generator[Callable[[Bytes], None], None, None]:
    """Write even-sized frames [H, W, 3] as H.264 (yuv420p, BT.709, crf 18), index in front.

    ``mark`` goes into the sample entry of the video.
    """
    from fractions import Fraction

    import av
    from av.video.reformatter import Colorspace

    from lumefield.codecs.formats import replacing

    with replacing(path) as file, tempfile.TemporaryFile(dir=path.parent) as raw:
        with av.open(raw, "w", format="mp4") as container:
            stream: Any = None

            def add(pixels: Bytes) -> None:
                nonlocal stream
                if stream is None:
                    rate = Fraction(fps).limit_denominator(1001)
                    stream = container.add_stream("libx264", rate=rate)
                    stream.height, stream.width = pixels.shape[:2]
                    stream.pix_fmt, stream.options = "yuv420p", {"crf": "18"}
                    codec = stream.codec_context
                    codec.colorspace = codec.color_primaries = codec.color_trc = 1
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
                container.mux(stream.encode(frame))

            yield add
            if stream is not None:
                container.mux(stream.encode(None))
        finish(raw, file, path, mark)
