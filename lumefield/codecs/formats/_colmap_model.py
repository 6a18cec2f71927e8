"""The three files of a COLMAP model, as records; lengths are checked before allocating."""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.formats._files import Cursor, is_file, read_bytes, reading, replacing, shown
from lumefield.errors import FormatError

CAMERA_MODELS = (
    ("SIMPLE_PINHOLE", 3),
    ("PINHOLE", 4),
    ("SIMPLE_RADIAL", 4),
    ("RADIAL", 5),
    ("OPENCV", 8),
    ("OPENCV_FISHEYE", 8),
    ("FULL_OPENCV", 12),
    ("FOV", 5),
    ("SIMPLE_RADIAL_FISHEYE", 4),
    ("RADIAL_FISHEYE", 5),
    ("THIN_PRISM_FISHEYE", 12),
    ("RAD_TAN_THIN_PRISM_FISHEYE", 16),
    ("SIMPLE_DIVISION", 4),
    ("DIVISION", 5),
    ("SIMPLE_FISHEYE", 3),
    ("FISHEYE", 4),
    ("EUCM", 6),
    ("EQUIRECTANGULAR", 2),
)
"""(name, number of parameters) by COLMAP's model id, of COLMAP 4.2."""

_POINT = np.dtype([("id", "<u8"), ("xyz", "<f8", 3), ("rgb", "u1", 3), ("error", "<f8")])
_FILES = ("cameras", "images")


class ColmapImage(NamedTuple):
    """One registered image; the pose is camera-from-world."""

    name: str
    quat_wxyz: NDArray[np.float64]
    translation: NDArray[np.float64]
    camera: int


class Model(NamedTuple):
    """A sparse model."""

    cameras: dict[int, tuple[str, tuple[int, int], tuple[float, ...]]]
    """id -> (model name, (width, height), parameters)."""
    images: list[ColmapImage]
    points: NDArray[np.float64]
    colours: NDArray[np.uint8]


def has_model(folder: Path) -> bool:
    """Whether the folder itself holds a model."""
    return any(all(is_file(folder / (f + end)) for f in _FILES) for end in (".bin", ".txt"))


def model_folders(path: Path) -> list[Path]:
    """Model folders at or below ``path``: those of the first usual place that has any."""
    for base in (path, path / "sparse", path / "colmap" / "sparse", path / "colmap"):
        if has_model(base):
            return [base]
        try:
            inner = sorted(p for p in base.iterdir() if p.name.isdecimal() and has_model(p))
        except (OSError, ValueError):
            continue
        if inner:
            return inner
    return []


def find_model(path: Path) -> tuple[Path, int]:
    """The model with most registered images at or below ``path``, and how many others there are.

    Raises:
        FormatError: If there is none.
    """
    found = model_folders(path)
    if not found:
        raise FormatError(
            f"{path}: holds no COLMAP model, expected cameras and images (.bin or .txt) in it, in "
            "sparse/0, sparse or colmap/sparse/0"
        )
    return max(found, key=_image_count), len(found) - 1


def _image_count(folder: Path) -> int:
    if is_file(folder / "images.bin"):
        with reading(folder / "images.bin") as file:
            return int.from_bytes(file.read(8), "little")
    return sum(1 for _ in _image_lines(folder / "images.txt"))


def read_model(folder: Path) -> Model:
    """Read a model folder; binary wins over text when both are there.

    Raises:
        InputError: If a file cannot be opened.
        FormatError: If a file is damaged or cut off.
    """
    end = ".bin" if is_file(folder / "images.bin") and is_file(folder / "cameras.bin") else ".txt"
    cameras, images, points = (folder / (f + end) for f in (*_FILES, "points3D"))
    no_points = np.zeros((0, 3)), np.zeros((0, 3), np.uint8)
    if end == ".bin":
        xyz, rgb = _points_bin(points) if is_file(points) else no_points
        return Model(_cameras_bin(cameras), _images_bin(images), xyz, rgb)
    xyz, rgb = _points_txt(points) if is_file(points) else no_points
    return Model(_cameras_txt(cameras), list(_images_txt(images)), xyz, rgb)


def _count(cursor: Cursor, what: str) -> int:
    at = cursor.need(8, f"the number of {what}")
    return int.from_bytes(cursor.data[at : at + 8], "little")


def _cameras_bin(path: Path) -> dict[int, tuple[str, tuple[int, int], tuple[float, ...]]]:
    cursor = Cursor(read_bytes(path), path)
    cameras: dict[int, tuple[str, tuple[int, int], tuple[float, ...]]] = {}
    for _ in range(_count(cursor, "cameras")):
        at = cursor.need(24, "a camera")
        number, model, width, height = struct.unpack_from("<IiQQ", cursor.data, at)
        if not 0 <= model < len(CAMERA_MODELS):
            raise FormatError(
                f"{path}: camera {number} has model id {model}, expected 0 to "
                f"{len(CAMERA_MODELS) - 1}; the file is damaged or newer than COLMAP 4.2"
            )
        name, length = CAMERA_MODELS[model]
        at = cursor.need(8 * length, f"the parameters of camera {number}")
        cameras[number] = name, (width, height), struct.unpack_from(f"<{length}d", cursor.data, at)
    return cameras


def _images_bin(path: Path) -> list[ColmapImage]:
    cursor = Cursor(read_bytes(path), path)
    data = cursor.data
    images: list[ColmapImage] = []
    for _ in range(_count(cursor, "images")):
        at = cursor.need(64, "an image")
        values = struct.unpack_from("<I7dI", data, at)
        end = data.find(b"\0", cursor.at, cursor.at + 4096)
        if end < 0:
            raise FormatError(
                f"{path}: the name of image {values[0]} at byte {cursor.at} does not end; "
                "the file is cut off or damaged, copy it again"
            )
        name = data[cursor.at : end].decode("utf-8", "surrogateescape")
        cursor.at = end + 1
        cursor.need(24 * _count(cursor, "observations"), f"the observations of {shown(name)}")
        images.append(ColmapImage(name, np.array(values[1:5]), np.array(values[5:8]), values[8]))
    return images


def _points_bin(path: Path) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    cursor = Cursor(read_bytes(path), path)
    starts: list[int] = []
    for _ in range(_count(cursor, "points")):
        starts.append(cursor.need(_POINT.itemsize, "a point"))
        cursor.need(8 * _count(cursor, "observations of a point"), "the track of a point")
    raw = np.frombuffer(cursor.data, np.uint8)
    rows = raw[np.array(starts, np.int64)[:, None] + np.arange(_POINT.itemsize)]
    table = np.ascontiguousarray(rows).view(_POINT)[:, 0]
    keep = np.isfinite(table["xyz"]).all(1)
    return table["xyz"][keep].astype(np.float64), table["rgb"][keep].copy()


def _lines(path: Path) -> Iterator[str]:
    """Lines without comments; empty ones are kept, they mean an image without observations."""
    for raw in read_bytes(path).decode("utf-8", "surrogateescape").split("\n"):
        line = raw.strip("\r ")
        if not line.startswith("#"):
            yield line


def _image_lines(path: Path) -> Iterator[str]:
    """The first of the two lines of each image."""
    lines = _lines(path)
    for line in lines:
        if line:
            yield line
            next(lines, None)


def _bad_line(path: Path, line: str, expected: str) -> FormatError:
    return FormatError(f"{path}: line {line[:80]!r}, expected {expected}; correct or export again")


def _cameras_txt(path: Path) -> dict[int, tuple[str, tuple[int, int], tuple[float, ...]]]:
    cameras: dict[int, tuple[str, tuple[int, int], tuple[float, ...]]] = {}
    sizes = dict(CAMERA_MODELS)
    for line in filter(None, _lines(path)):
        words = line.split()
        try:
            number, name, width, height = int(words[0]), words[1], int(words[2]), int(words[3])
            params = tuple(float(w) for w in words[4:])
        except (ValueError, IndexError) as error:
            raise _bad_line(path, line, "CAMERA_ID MODEL WIDTH HEIGHT PARAMS") from error
        if len(params) != sizes.get(name, len(params)):
            raise _bad_line(path, line, f"{sizes[name]} parameters of {name}")
        cameras[number] = name, (width, height), params
    return cameras


def _images_txt(path: Path) -> Iterator[ColmapImage]:
    for line in _image_lines(path):
        words = line.split(maxsplit=9)
        try:
            values = [float(w) for w in words[1:8]]
            camera, name = int(words[8]), words[9]
        except (ValueError, IndexError) as error:
            expected = "IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME"
            raise _bad_line(path, line, expected) from error
        yield ColmapImage(name, np.array(values[:4]), np.array(values[4:]), camera)


def _points_txt(path: Path) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    rows: list[list[float]] = []
    for line in filter(None, _lines(path)):
        try:
            rows.append([float(w) for w in line.split(maxsplit=7)[1:7]])
        except ValueError as error:
            raise _bad_line(path, line, "POINT3D_ID X Y Z R G B ERROR TRACK") from error
        if len(rows[-1]) != 6:
            raise _bad_line(path, line, "POINT3D_ID X Y Z R G B ERROR TRACK")
    table = np.array(rows, np.float64).reshape(-1, 6)
    table = table[np.isfinite(table).all(1)]
    return table[:, :3].copy(), np.clip(table[:, 3:], 0, 255).astype(np.uint8)


def write_model(model: Model, folder: Path, *, text: bool) -> None:
    """Write the three files; each is whole or not there.

    Raises:
        InputError: If a file cannot be written.
    """
    parts = (
        ("cameras", _cameras_bytes, _cameras_text),
        ("images", _images_bytes, _images_text),
        ("points3D", _points_bytes, _points_text),
    )
    for name, as_bytes, as_text in parts:
        with replacing(folder / (name + (".txt" if text else ".bin"))) as file:
            lines = "\n".join([*as_text(model), ""]) if text else ""
            file.write(lines.encode("utf-8", "surrogateescape") if text else as_bytes(model))


def _cameras_bytes(model: Model) -> bytes:
    ids = {name: i for i, (name, _) in enumerate(CAMERA_MODELS)}
    rows = [struct.pack("<Q", len(model.cameras))]
    for number, (name, size, params) in model.cameras.items():
        rows.append(struct.pack(f"<IiQQ{len(params)}d", number, ids[name], *size, *params))
    return b"".join(rows)


def _images_bytes(model: Model) -> bytes:
    rows = [struct.pack("<Q", len(model.images))]
    for i, image in enumerate(model.images, 1):
        rows.append(struct.pack("<I4d3dI", i, *image.quat_wxyz, *image.translation, image.camera))
        rows.append(image.name.encode("utf-8", "surrogateescape") + b"\0" + struct.pack("<Q", 0))
    return b"".join(rows)


def _points_bytes(model: Model) -> bytes:
    n = len(model.points)
    row = np.dtype([("point", _POINT), ("track", "<u8")])
    table = np.zeros(n, row)
    table["point"]["id"] = np.arange(1, n + 1)
    table["point"]["xyz"] = model.points
    table["point"]["rgb"] = model.colours
    return struct.pack("<Q", n) + table.tobytes()


def _numbers(values: Sequence[float] | NDArray[np.float64]) -> str:
    return " ".join(repr(float(v)) for v in values)


def _cameras_text(model: Model) -> list[str]:
    return ["# CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]"] + [
        f"{number} {name} {size[0]} {size[1]} {_numbers(params)}"
        for number, (name, size, params) in model.cameras.items()
    ]


def _images_text(model: Model) -> list[str]:
    lines = ["# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then POINTS2D[] (none)"]
    for i, image in enumerate(model.images, 1):
        pose = _numbers([*image.quat_wxyz, *image.translation])
        lines += [f"{i} {pose} {image.camera} {image.name}", ""]
    return lines


def _points_text(model: Model) -> list[str]:
    lines = ["# POINT3D_ID X Y Z R G B ERROR TRACK[] (none)"]
    for i, (xyz, rgb) in enumerate(zip(model.points, model.colours, strict=True), 1):
        lines.append(f"{i} {_numbers(xyz)} {int(rgb[0])} {int(rgb[1])} {int(rgb[2])} 0.0")
    return lines
