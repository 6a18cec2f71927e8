"""COLMAP sparse models, binary and text: cameras, images, points3D.

Facts from COLMAP's documentation ("Output format"). A pose in the file is camera-from-world, with a
quaternion w x y z; pixel centres are at +0.5, as ours. The newer ``rigs`` and ``frames`` files are
not needed: ``images`` still holds every pose. Camera ids and point tracks are not kept.
"""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.formats._colmap_model import (
    ColmapImage,
    Model,
    find_model,
    read_model,
    write_model,
)
from lumefield.codecs.formats._files import is_file, shown
from lumefield.codecs.formats._posed import Frame, Lens, assemble
from lumefield.codecs.formats._types import PosedImages
from lumefield.errors import FormatError

_PINHOLE = ("SIMPLE_PINHOLE", "PINHOLE")
_OPENCV = ("SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV")
_FISHEYE = (
    *("SIMPLE_FISHEYE", "FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE"),
    "OPENCV_FISHEYE",
)
_ONE_FOCAL = (
    *("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL"),
    *("SIMPLE_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE"),
)


def load_colmap(path: Path, images: Path | None = None) -> PosedImages:
    """Read the COLMAP model at or below ``path``.

    Args:
        path: A model folder, or a scene folder with ``sparse/0``, ``sparse``, ``colmap/sparse/0``.
            Of several numbered models the one with most images is taken.
        images: The folder of photos; by default ``images`` or ``input`` beside the model, or
            wherever most names of the model exist.

    Raises:
        InputError: If a file cannot be opened.
        FormatError: If the model is damaged, has no image that exists, or a camera model that
            cannot be expressed.
    """
    model, others = find_model(path)
    read = read_model(model)
    folder = images or _image_folder(model, [image.name for image in read.images])
    frames: list[Frame] = []
    missing: list[str] = []
    for image in read.images:
        file = folder / image.name
        if not is_file(file):
            missing.append(shown(str(file)))
            continue
        if image.camera not in read.cameras:
            raise FormatError(
                f"{model}: image {shown(image.name)} names camera {image.camera}, which is not "
                "in the model; export the model again"
            )
        lens = _lens(*read.cameras[image.camera], model)
        frames.append(Frame(image.name, file, lens, _world_from_cam(image, model)))
    notes = [f"COLMAP model {model}"]
    if others:
        notes.append(f"{others} smaller models of the same reconstruction are not used")
    return assemble(
        frames, model, missing=missing, points=read.points, colours=read.colours, notes=notes
    )


def save_colmap(posed: PosedImages, folder: Path | str, *, text: bool = False) -> None:
    """Write a COLMAP model (cameras, images, points3D) that COLMAP, pycolmap and others open.

    Image names are relative to the common folder of the photos; photos with equal intrinsics share
    a camera; points have no tracks and no error. COLMAP itself ends a name in a text model at the
    first space: write binary for such names.

    Args:
        posed: Photos with cameras.
        folder: Where the three files go; made if missing.
        text: Write .txt in place of .bin.

    Raises:
        InputError: If a file cannot be written.
    """
    base = Path(os.path.commonpath([p.parent for p in posed.paths])) if posed.paths else Path()
    cameras: dict[int, tuple[str, tuple[int, int], tuple[float, ...]]] = {}
    seen: dict[object, int] = {}
    rows: list[ColmapImage] = []
    for i, path in enumerate(posed.paths):
        camera = _colmap_camera(posed, i)
        number = seen.setdefault(camera, len(seen) + 1)
        cameras[number] = camera
        r = posed.world_from_cam[i, :, :3].T
        t = -r @ posed.world_from_cam[i, :, 3]
        rows.append(ColmapImage(path.relative_to(base).as_posix(), _quaternion(r), t, number))
    write_model(Model(cameras, rows, posed.points, posed.colours), Path(folder), text=text)


def _colmap_camera(posed: PosedImages, i: int) -> tuple[str, tuple[int, int], tuple[float, ...]]:
    d = [float(x) for x in posed.distortion[i]]
    first = [float(x) for x in (*posed.focal[i], *posed.centre[i])]
    if posed.model[i] == "pinhole":
        name, params = "PINHOLE", first
    elif posed.model[i] == "fisheye":
        name, params = "OPENCV_FISHEYE", [*first, *d[:4]]
    elif any(d[4:]):
        name, params = "FULL_OPENCV", [*first, *d]
    else:
        name, params = "OPENCV", [*first, *d[:4]]
    return name, (int(posed.size[i, 0]), int(posed.size[i, 1])), tuple(params)


def _lens(name: str, size: tuple[int, int], params: tuple[float, ...], model: Path) -> Lens:
    """Express a COLMAP camera as pinhole, opencv or fisheye with 8 numbers."""
    if name not in (*_PINHOLE, *_OPENCV, *_FISHEYE):
        known = ", ".join((*_PINHOLE, *_OPENCV, *_FISHEYE))
        raise FormatError(
            f"{model}: camera model {shown(name)} is not supported, expected one of {known}; "
            "run COLMAP's image_undistorter first"
        )
    if name in _ONE_FOCAL:
        params = (params[0], *params)
    focal, centre, rest = (params[0], params[1]), (params[2], params[3]), params[4:]
    kind = "pinhole" if name in _PINHOLE else "opencv" if name in _OPENCV else "fisheye"
    if kind == "opencv" and not any(rest):
        kind = "pinhole"
    return Lens(kind, size, focal, centre, rest)


def _world_from_cam(image: ColmapImage, model: Path) -> NDArray[np.float64]:
    q = image.quat_wxyz
    length = float(np.linalg.norm(q)) if np.isfinite(q).all() and np.abs(q).max() < 1e100 else 0.0
    if not length > 0:
        raise FormatError(
            f"{model}: pose of {shown(image.name)} has the quaternion {q.tolist()}, expected a "
            "finite one that is not 0; remove that image"
        )
    w, x, y, z = q / length
    r = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    with np.errstate(over="ignore", invalid="ignore"):
        centre = -r.T @ image.translation
    return np.concatenate([r.T, centre[:, None]], 1)


def _quaternion(r: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit quaternion (w first, w >= 0) of a rotation matrix.

    Bar-Itzhack, "New method for extracting the quaternion from a rotation matrix", 2000: the
    eigenvector of the largest eigenvalue of a symmetric 4x4 matrix; no case distinction needed.
    """
    xx, xy, xz, yx, yy, yz, zx, zy, zz = r.ravel()
    k = np.array(
        [
            [xx + yy + zz, zy - yz, xz - zx, yx - xy],
            [zy - yz, xx - yy - zz, xy + yx, xz + zx],
            [xz - zx, xy + yx, yy - xx - zz, yz + zy],
            [yx - xy, xz + zx, yz + zy, zz - xx - yy],
        ]
    )
    q = np.linalg.eigh(k)[1][:, -1]
    return -q if q[0] < 0 else q


def _image_folder(model: Path, names: list[str]) -> Path:
    """The folder around the model in which most of the named images exist."""
    bases = [model, *model.absolute().parents[:3]]
    folders = [base / sub for base in bases for sub in ("images", "input", ".")]
    sample = names[:: max(1, len(names) // 64)]
    counts = [sum(is_file(folder / name) for name in sample) for folder in folders]
    best = int(np.argmax(counts))
    if counts[best] == 0:
        beside = model.absolute().parent
        beside = beside.parent if beside.name == "sparse" else beside
        return beside / "images"
    return folders[best].resolve()
