"""LAS and LAZ point clouds (ASPRS LAS 1.4), read with the extra ``las``: laspy and lazrs."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.formats._files import reading
from lumefield.errors import FormatError, InputError

_LEAST = 20
"""Bytes of a point in the smallest format; LAZ does not get below about one."""


def load_las(path: Path) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Read positions (p, 3) and sRGB colours (p, 3); mid-grey where the file has none.

    Colours are 16 bits in LAS; a file whose colours all fit in 8 is taken to mean 8, as many
    programs write them.

    Raises:
        InputError: If laspy is not installed, or the file cannot be opened.
        FormatError: If it is not LAS, is damaged, or promises more points than it can hold.
    """
    try:
        import laspy
    except ImportError:
        raise InputError(
            f"{path}: LAS needs laspy, which is not installed; `pip install lumefield[las]`"
        ) from None
    size = path.stat().st_size if path.is_file() else 0
    with reading(path) as file:
        if file.read(4) != b"LASF":
            raise FormatError(f"{path}: does not begin with LASF; expected a LAS or LAZ file")
        file.seek(0)
        try:
            with laspy.open(file, closefd=False) as reader:
                n = int(reader.header.point_count)
                least = 1 if reader.header.are_points_compressed else _LEAST
                if n * least > size:
                    raise FormatError(f"{path}: promises {n} points in {size} bytes; cut off")
                found: Any = reader.read()
        except FormatError:
            raise
        except Exception as error:  # laspy and lazrs raise of every kind on damaged bytes
            raise FormatError(
                f"{path}: LAS cannot be read ({str(error)[:200]}); damaged"
            ) from error
    xyz = np.asarray(found.xyz, np.float64)
    if "red" not in set(found.point_format.dimension_names):
        return xyz, np.full(xyz.shape, 128, np.uint8)
    rgb = np.stack([np.asarray(found[name], np.int64) for name in ("red", "green", "blue")], -1)
    rgb = rgb if rgb.max(initial=0) < 256 else rgb // 257
    return xyz, rgb.astype(np.uint8)
