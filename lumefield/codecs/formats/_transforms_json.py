"""transforms.json in the dialects of nerfstudio, instant-ngp, Blender (NeRF) and D-NeRF.

All share world-from-camera matrices with OpenGL axes (x right, y up, z back) and differ in the
rest: intrinsics for all frames or per frame, in pixels or as ``camera_angle_x``; file names with or
without suffix; ``time``; masks, points and a split. Poses stay in the frame of the file; an
``applied_transform`` is only noted.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, cast

import numpy as np

from lumefield.codecs.formats._files import image_size, is_file, shown
from lumefield.codecs.formats._json_values import number, pose, read_json, rows, text
from lumefield.codecs.formats._ply import load_points
from lumefield.codecs.formats._posed import FLIP_YZ, Frame, Lens, assemble
from lumefield.codecs.formats._types import PosedImages
from lumefield.errors import FormatError

_SUFFIXES = ("", ".png", ".jpg", ".jpeg", ".webp", ".JPG", ".JPEG", ".PNG")
_FISHEYE = ("OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "FISHEYE")
_OPENCV = (
    *("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "FULL_OPENCV"),
    "PERSPECTIVE",
)


class _Read(NamedTuple):
    frames: list[Frame]
    missing: list[str]
    meta: dict[str, Any]
    notes: list[str]


def find_transforms(path: Path) -> Path | None:
    """The transforms file that ``path`` is or holds, or None."""
    if path.suffix.lower() == ".json":
        return path if is_file(path) else None
    names = ("transforms.json", "transforms_train.json")
    return next((path / name for name in names if is_file(path / name)), None)


def load_transforms(path: Path) -> PosedImages:
    """Read a transforms file, or the one in a folder.

    A folder with ``transforms_train.json`` also gives its test views (``transforms_test.json``, or
    ``_val``), which become the held-out views; a file given by name is read alone.

    Raises:
        InputError: If a file cannot be opened.
        FormatError: If a value is not what it should be, a pose is not rigid, or no image exists.
    """
    main = find_transforms(path)
    if main is None:
        raise FormatError(f"{path}: holds no transforms.json, expected one; name the file itself")
    read = _read(main, split=False)
    has_split = bool(_split(read.meta, main))
    if main.name == "transforms_train.json" and main != path:
        for part in ("test", "val"):
            other = main.with_name(f"transforms_{part}.json")
            if not has_split and is_file(other):
                more = _read(other, split=True)
                has_split = bool(more.frames)
                read.frames.extend(more.frames)
                read.missing.extend(more.missing)
                read.notes.append(f"held-out views are those of {other.name}")
    points, colours = None, None
    name = text(read.meta, "ply_file_path", "the file", main)
    if name is not None:
        file = _find(main.parent, name, ("",))
        if file is None:
            read.notes.append(
                f"ply_file_path {shown(name)} does not exist; there are no sparse points"
            )
        else:
            points, colours = load_points(file)
    if read.meta.get("applied_transform") is not None:
        read.notes.append("poses stay in the file's frame, after its applied_transform")
    return assemble(
        read.frames,
        main,
        missing=read.missing,
        points=points,
        colours=colours,
        has_split=has_split,
        notes=read.notes,
    )


def _read(path: Path, *, split: bool) -> _Read:
    """Frames of one file; ``split`` marks all of them as held out."""
    meta = read_json(path)
    held = _split(meta, path)
    out = _Read([], [], meta, [])
    lost_masks = unreadable = 0
    for i, entry in enumerate(rows(meta, "frames", "the file", path)):
        if not isinstance(entry, dict):
            raise FormatError(f"{path}: frame {i} is not an object; correct the file")
        frame = cast("dict[str, Any]", entry)
        name = text(frame, "file_path", f"frame {i}", path)
        if name is None:
            raise FormatError(f"{path}: frame {i} has no file_path; remove or complete it")
        file, where = _find(path.parent, name, _SUFFIXES), shown(name)
        if file is None:
            out.missing.append(shown(str(path.parent / name)))
            continue
        lens = _lens(frame, meta, where, file, path)
        if lens is None:
            unreadable += 1
            out.missing.append(shown(str(file)))
            continue
        matrix = pose(frame, "transform_matrix", where, path)
        matrix = np.concatenate([matrix[:, :3] @ FLIP_YZ, matrix[:, 3:]], 1)
        mask_name = text(frame, "mask_path", where, path)
        mask = _find(path.parent, mask_name, ("",)) if mask_name else None
        lost_masks += mask_name is not None and mask is None
        time = number(frame, "time", where, path)
        out.frames.append(
            Frame(_key(name), file, lens, matrix, mask, time, split or _key(name) in held)
        )
    if lost_masks:
        out.notes.append(f"{lost_masks} masks do not exist; those photos count whole")
    if unreadable:
        out.notes.append(f"{unreadable} images could not be read to learn their size")
    return out


def _split(meta: Mapping[str, Any], path: Path) -> set[str]:
    """Keys of the frames that the file names as test or validation views."""
    held: set[str] = set()
    for key in ("test_filenames", "val_filenames"):
        if meta.get(key) is not None:
            held |= {_key(str(name)) for name in rows(meta, key, "the file", path)}
    return held


def _key(name: str) -> str:
    """A file name as written, in one spelling."""
    return PurePosixPath(name.replace("\\", "/")).as_posix()


def _find(root: Path, name: str, suffixes: tuple[str, ...]) -> Path | None:
    """The file a camera file names: as it is, or, for paths of another machine, by its tail."""
    key = _key(name)
    parts = [p for p in PurePosixPath(key).parts if p not in ("/", "..", ".")]
    tries = [root / key]
    if key != "/".join(parts) or ":" in key:
        tries += [root.joinpath(*parts[-k:]) for k in range(min(4, len(parts)), 0, -1)]
        tries += [root / sub / parts[-1] for sub in ("images", "input") if parts]
    for candidate in tries:
        for suffix in suffixes:
            file = Path(str(candidate) + suffix)
            if is_file(file):
                return file
    return None


def _lens(
    frame: Mapping[str, Any], meta: Mapping[str, Any], name: str, file: Path, path: Path
) -> Lens | None:
    """Intrinsics of a frame: its own values, else those of the file; None: no size."""

    def get(key: str) -> float | None:
        own = number(frame, key, name, path)
        return number(meta, key, "the file", path) if own is None else own

    width, height = get("w"), get("h")
    if width is None or height is None:
        size = image_size(file)
        if size is None:
            return None
        width, height = float(size[0]), float(size[1])
    fx, fy = get("fl_x"), get("fl_y")
    if fx is None:
        fx = _focal_of_angle(get("camera_angle_x"), width, "camera_angle_x", name, path)
        if fy is None and get("camera_angle_y") is not None:
            fy = _focal_of_angle(get("camera_angle_y"), height, "camera_angle_y", name, path)
    cx, cy = get("cx"), get("cy")
    model, distortion = _distortion(frame, meta, get, name, path)
    return Lens(
        model=model,
        size=(_pixels(width, name, path), _pixels(height, name, path)),
        focal=(fx, fx if fy is None else fy),
        centre=(width / 2 if cx is None else cx, height / 2 if cy is None else cy),
        distortion=distortion,
    )


def _pixels(value: float, name: str, path: Path) -> int:
    if not 1 <= value <= 1_000_000:
        raise FormatError(f"{path}: w or h of {name} is {value:g}, expected 1 to 1000000 pixels")
    return round(value)


def _focal_of_angle(angle: float | None, extent: float, key: str, name: str, path: Path) -> float:
    if angle is None:
        raise FormatError(f"{path}: {name} has neither fl_x nor camera_angle_x; add one of them")
    if not 1e-6 < angle < math.pi - 1e-6:
        raise FormatError(f"{path}: {key} of {name} is {angle:g}, expected radians in (0, pi)")
    return 0.5 * extent / math.tan(0.5 * angle)


def _distortion(
    frame: Mapping[str, Any],
    meta: Mapping[str, Any],
    get: Callable[[str], float | None],
    name: str,
    path: Path,
) -> tuple[str, tuple[float, ...]]:
    """Model and numbers; instant-ngp says ``is_fisheye``, nerfstudio ``camera_model``."""
    kind = text(frame, "camera_model", name, path) or text(meta, "camera_model", "the file", path)
    kind = (kind or "OPENCV").upper()
    if kind not in (*_FISHEYE, *_OPENCV):
        raise FormatError(
            f"{path}: camera_model {shown(kind)} of {name} is not supported, expected OPENCV, "
            "PINHOLE or OPENCV_FISHEYE; undistort the photos first"
        )
    k1, k2, k3, k4, p1, p2, k5, k6 = (
        get(key) or 0.0 for key in ("k1", "k2", "k3", "k4", "p1", "p2", "k5", "k6")
    )
    if kind in _FISHEYE or frame.get("is_fisheye") is True or meta.get("is_fisheye") is True:
        return "fisheye", (k1, k2, k3, k4)
    if kind != "FULL_OPENCV" and k4:
        # nerfstudio's k4 multiplies r^8, OpenCV's k4 divides by 1 + k4 r^2: not the same number.
        raise FormatError(
            f"{path}: {name} has k4 = {k4:g} with camera_model {kind}, expected k4 only for "
            "OPENCV_FISHEYE or FULL_OPENCV; undistort the photos first"
        )
    if kind != "FULL_OPENCV":
        k5 = k6 = 0.0
    numbers = (k1, k2, p1, p2, k3, k4, k5, k6)
    return ("opencv", numbers) if any(numbers) else ("pinhole", ())
