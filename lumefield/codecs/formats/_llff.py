"""LLFF ``poses_bounds.npy``: one row of 17 numbers per photo, in the order of sorted names.

Mildenhall et al., "Local Light Field Fusion", 2019, code README: a row is a 3x5 matrix, row-major,
and two depth bounds. The matrix is [down, right, back, position | (height, width, focal)] in world
coordinates.
"""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.formats._files import image_size, is_file, photos_in, read_bytes, shown
from lumefield.codecs.formats._posed import Frame, Lens, assemble
from lumefield.codecs.formats._types import PosedImages
from lumefield.errors import FormatError

NAME = "poses_bounds.npy"


def load_llff(path: Path, images: Path | None = None) -> PosedImages:
    """Read a folder with ``poses_bounds.npy`` and the photos in ``images`` (or beside it).

    The intrinsics are scaled to the size the photos have on disk.

    Raises:
        InputError: If the file cannot be opened.
        FormatError: If it is damaged, or its rows are not as many as the photos.
    """
    file = path if path.name == NAME else path / NAME
    table = _rows(file)
    folders = [images] if images else [file.parent / s for s in ("images", "input", ".")]
    photos = next((found for found in map(photos_in, folders) if found), list[Path]())
    if len(photos) != len(table):
        raise FormatError(
            f"{file}: has {len(table)} rows but {folders[0]} has {len(photos)} photos, expected "
            "one row per photo in name order; restore or remove photos"
        )
    frames: list[Frame] = []
    missing: list[str] = []
    for photo, row in zip(photos, table, strict=True):
        size = image_size(photo)
        if size is None:
            missing.append(shown(str(photo)))
            continue
        matrix = row[:15].reshape(3, 5)
        down, right, back, position = matrix[:, :4].T
        pose = np.stack([right, down, -back, position], 1)
        frames.append(Frame(photo.name, photo, _lens(matrix[:, 4], size, photo, file), pose))
    return assemble(frames, file, missing=missing)


def _lens(hwf: NDArray[np.float64], size: tuple[int, int], photo: Path, file: Path) -> Lens:
    height, width, focal = (float(v) for v in hwf)
    if not (np.isfinite(hwf).all() and min(height, width, focal) >= 1e-3):
        raise FormatError(
            f"{file}: height, width, focal of {shown(photo.name)} are {hwf.tolist()}, expected "
            "positive finite numbers"
        )
    scale = size[0] / width, size[1] / height
    return Lens("pinhole", size, (focal * scale[0], focal * scale[1]), (size[0] / 2, size[1] / 2))


def _rows(path: Path) -> NDArray[np.float64]:
    """The (n, 17) array of a .npy file, its length checked against its own header."""
    data = read_bytes(path)
    wide = data[6:7] in (b"\x02", b"\x03")
    at = 12 if wide else 10
    end = at + int.from_bytes(data[8:at], "little")
    header = data[at:end].decode("latin-1")
    kind = re.search(r"'descr': *'([<>][f][48])'", header)
    shape = re.search(r"'shape': *\((\d{1,9}), *17\)", header)
    if data[:6] != b"\x93NUMPY" or kind is None or shape is None:
        raise FormatError(
            f"{path}: is not a NumPy file of shape (n, 17) and type float; expected LLFF poses"
        )
    n, dtype = int(shape[1]), np.dtype(kind[1])
    if n * 17 * dtype.itemsize != len(data) - end:
        raise FormatError(f"{path}: promises {n} rows of 17 numbers, holds fewer; copy it again")
    order = "F" if re.search(r"'fortran_order': *True", header) else "C"
    with np.errstate(invalid="ignore"):
        flat = np.frombuffer(data, dtype, offset=end).astype(np.float64)
    return flat.reshape((n, 17), order=order)


def is_llff(path: Path) -> bool:
    """Whether ``path`` is such a file or a folder with one."""
    return is_file(path if path.name == NAME else path / NAME)
