"""Frames of pictures, folders and videos, two by two. Paired by order, never by time stamps."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.errors import FormatError, InputError

_PLANAR = {
    "yuv420p": (8, 2, 2), "yuvj420p": (8, 2, 2), "yuv422p": (8, 2, 1), "yuvj422p": (8, 2, 1),
    "yuv444p": (8, 1, 1), "yuvj444p": (8, 1, 1), "yuv420p10le": (10, 2, 2),
    "yuv422p10le": (10, 2, 1), "yuv444p10le": (10, 1, 1),
}  # fmt: skip
"""Formats of videos whose planes are compared as they are: bits, columns and rows per chroma."""


@dataclass(frozen=True)
class Pair:
    """One frame of the reference and its counterpart."""

    name: str
    reference: NDArray[np.float32]
    """(H, W, 3) display sRGB in [0, 1]."""
    distorted: NDArray[np.float32]
    planes: tuple[tuple[NDArray[np.float32], ...], tuple[NDArray[np.float32], ...]] | None
    """Y, U, V of both as the videos hold them, 1 = largest code; None where not both are videos."""


@dataclass(frozen=True)
class Source:
    """Where frames come from."""

    path: Path
    kind: str
    """picture, lume (a picture in it), film (a video in it), folder or video."""
    files: tuple[Path, ...] = ()
    """Pictures of a folder, by name."""

    def frames(self) -> Iterator[tuple[str, Any]]:
        """Names and frames: arrays (H, W, 3) in [0, 1], or frames of PyAV."""
        if self.kind == "video":
            for k, frame in enumerate(_decoded(self.path)):
                yield f"frame {k}", frame
        elif self.kind == "film":
            for k, frame in enumerate(_lume_frames(self.path)):
                yield f"frame {k}", frame
        elif self.kind == "lume":
            yield self.path.stem, _lume(self.path)
        else:
            for path in self.files or (self.path,):
                yield path.stem, _picture(path)


def open_source(path: Path) -> Source:
    """What a path holds, by its suffix.

    Raises:
        InputError: If it does not exist, or is a folder without pictures or with two of one name.
    """
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in _pictures())
        if not files:
            raise InputError(f"{path}: no pictures in it; expected {' '.join(_pictures())}")
        stems = [p.stem for p in files]
        double = next((s for s in stems if stems.count(s) > 1), None)
        if double is not None:
            raise InputError(f"{path}: two pictures are called {double}; keep one of them")
        return Source(path, "folder", tuple(files))
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder; check the path")
    suffix = path.suffix.lower()
    if suffix == ".lume":
        from lumefield.codecs.neural import Container

        with path.open("rb") as file:
            return Source(path, "film" if Container.holds(file.read(6)) == "video" else "lume")
    still = suffix in (*_pictures(), ".exr", ".hdr")
    return Source(path, "picture" if still else "video")


def paired(reference: Source, distorted: Source, limit: int | None) -> Iterator[Pair]:
    """Frames two by two, the first ``limit`` of them.

    Raises:
        InputError: If sizes, names or numbers of frames differ.
    """
    if reference.kind == distorted.kind == "folder":
        _check_names(reference, distorted)
    size, count = None, [0, 0]
    streams = (islice(source.frames(), limit) for source in (reference, distorted))
    for one, two in zip_longest(*streams):
        count = [n + (frame is not None) for n, frame in zip(count, (one, two), strict=True)]
        if one is None or two is None:
            continue
        pair = _pair(one[0], one[1], two[1])
        shapes = pair.reference.shape, pair.distorted.shape
        if shapes[0] != shapes[1]:
            (h, w, _), (i, j, _) = shapes
            raise InputError(
                f"{distorted.path}: {pair.name} is {j} x {i}, expected {w} x {h} as in "
                f"{reference.path}; scale one of them first"
            )
        if size not in (None, shapes[0]) and "video" in (reference.kind, distorted.kind):
            raise InputError(f"{reference.path}: the size changes at {pair.name}; cut it there")
        size = shapes[0]
        yield pair
    if count[0] != count[1]:
        raise InputError(
            f"{reference.path} has {count[0]} frames, {distorted.path} {count[1]}; expected as "
            f"many: cut the longer one, or give --frames {min(count)}"
            if min(count)
            else f"{(reference, distorted)[count[0] > 0].path}: no frames; expected a picture in it"
        )
    if not count[0]:
        raise InputError(f"{reference.path}: no frames; expected a video with a picture in it")


def _check_names(reference: Source, distorted: Source) -> None:
    ours, theirs = ({p.stem for p in source.files} for source in (reference, distorted))
    for here, there, missing in (
        (reference, distorted, sorted(ours - theirs)),
        (distorted, reference, sorted(theirs - ours)),
    ):
        if missing:
            raise InputError(
                f"{there.path}: {len(missing)} of the pictures of {here.path} have no partner of "
                f"the same name, the first is {missing[0]}; rename or remove them"
            )


def _pair(name: str, one: Any, two: Any) -> Pair:  # noqa: ANN401
    if isinstance(one, np.ndarray) or isinstance(two, np.ndarray):
        return Pair(name, as_rgb(one), as_rgb(two), None)
    if (one.width, one.height) != (two.width, two.height):
        return Pair(name, as_rgb(one), as_rgb(two), None)  # whose sizes are compared next
    # One matrix for both: a stream that does not say its own would else differ in colour alone.
    two.colorspace, two.color_range = one.colorspace, one.color_range
    kind = one.format.name if one.format.name in _PLANAR else "yuv444p"
    planes = tuple(
        _planes(x if x.format.name == kind else x.reformat(format=kind)) for x in (one, two)
    )
    return Pair(name, as_rgb(one), as_rgb(two), (planes[0], planes[1]))


def _planes(frame: Any) -> tuple[NDArray[np.float32], ...]:  # noqa: ANN401
    bits, across, down = _PLANAR[frame.format.name]
    kind = np.uint8 if bits == 8 else np.uint16
    found = list[NDArray[np.float32]]()
    for k, plane in enumerate(frame.planes):
        rows, columns = frame.height, frame.width
        if k:
            rows, columns = -(-rows // down), -(-columns // across)
        lines = np.frombuffer(plane, kind).reshape(-1, plane.line_size // kind().itemsize)
        found.append(lines[:rows, :columns].astype(np.float32) / np.float32((1 << bits) - 1))
    return tuple(found)


def as_rgb(frame: Any) -> NDArray[np.float32]:  # noqa: ANN401
    """(H, W, 3) display sRGB in [0, 1] of a frame of :meth:`Source.frames`."""
    if isinstance(frame, np.ndarray):
        return frame
    return frame.to_ndarray(format="rgb24").astype(np.float32) / np.float32(255)


def _decoded(path: Path) -> Iterator[Any]:
    import av
    from av import logging
    from av.error import FFmpegError

    logging.set_level(logging.PANIC)
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path}: no picture in it; expected a picture or a video")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            yield from container.decode(stream)
    except FFmpegError as error:
        raise FormatError(
            f"{path}: cannot be decoded as a video ({error.strerror}); expected a picture or an "
            "intact video"
        ) from None


def _picture(path: Path) -> NDArray[np.float32]:
    from lumefield.codecs.formats import load_picture

    picture = load_picture(path)
    if picture.linear:
        raise InputError(
            f"{path}: holds linear light, expected display colours; write both as 16-bit PNG"
        )
    return _three(picture.values)


def _lume_frames(path: Path) -> Iterator[Any]:
    from lumefield.apps._video_files import as_frame
    from lumefield.codecs.neural import decode_video

    return map(as_frame, decode_video(path.read_bytes(), source=str(path)))


def _lume(path: Path) -> NDArray[np.float32]:
    from lumefield.codecs.neural import decode_image, pixels_of

    planes, container = decode_image(path.read_bytes(), source=str(path))
    assert container.picture is not None, "an image has one"
    pixels = pixels_of(planes, container.picture)
    return _three(pixels.astype(np.float32) / np.float32(2**container.picture.bits - 1))


def _three(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Red, green and blue of 1 to 4 channels; alpha is left out."""
    return values[..., :3] if values.shape[-1] >= 3 else np.repeat(values[..., :1], 3, -1)


def _pictures() -> tuple[str, ...]:
    return (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
