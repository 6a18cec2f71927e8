"""antimatter15's .splat: 32 bytes per Gaussian, no header, no view-dependent colour.

Per Gaussian: f32 x 3 position, f32 x 3 linear scale, u8 x 4 RGBA (0.5 + C0 dc, sigmoid opacity),
u8 x 4 quaternion w x y z as round(128 q + 128). Frame as in the PLY.
"""

from pathlib import Path

import numpy as np

from lumefield.codecs.formats._files import read_bytes, replacing
from lumefield.codecs.formats._splat_rows import (
    SH_C0,
    checked,
    cleaned,
    logits_from_bytes,
    opacities,
    scales_of,
    to_bytes,
    unit_quaternions,
)
from lumefield.codecs.formats._types import Splats
from lumefield.errors import FormatError, InputError

_ROW = np.dtype([("xyz", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])


def load_splat(path: Path) -> Splats:
    """Read a .splat file; the spherical harmonics have degree 0.

    Raises:
        InputError: If the file cannot be opened.
        FormatError: If its size is not a multiple of 32 bytes, or 0.
    """
    data = read_bytes(path)
    if not data or len(data) % _ROW.itemsize:
        raise FormatError(
            f"{path}: has {len(data)} bytes, expected a multiple of 32 (.splat, one per "
            "Gaussian); the file is cut off or of another format"
        )
    rows = np.frombuffer(data, _ROW)
    quats = (rows["quat"].astype(np.float32) - 128) / 128
    quats[(quats == 0).all(1)] = (1, 0, 0, 0)
    return cleaned(
        Splats(
            means=rows["xyz"].astype(np.float32),
            quats_wxyz=quats.astype(np.float32),
            log_scales=scales_of(rows["scale"]),
            logit_opacities=logits_from_bytes(rows["rgba"][:, 3]),
            source=".splat (antimatter15), frame as in a PLY",
            sh=((rows["rgba"][:, None, :3] / 255.0 - 0.5) / SH_C0).astype(np.float32),
        )
    )


def save_splat(splats: Splats, path: Path) -> None:
    """Write a .splat file in the order given; coefficients above degree 0 do not fit and are lost.

    Raises:
        InputError: If there is no Gaussian, or the file cannot be written.
        ValueError: If the arrays do not fit one another.
    """
    splats = checked(splats)
    if not len(splats.means):
        raise InputError(f"cannot write {path}: no Gaussians, expected at least one in a .splat")
    rows = np.zeros(len(splats.means), _ROW)
    rows["xyz"] = splats.means
    rows["scale"] = np.exp(np.clip(splats.log_scales.astype(np.float64), -69, 88))
    rows["rgba"][:, :3] = to_bytes((splats.sh[:, 0].astype(np.float64) * SH_C0 + 0.5) * 255)
    rows["rgba"][:, 3] = to_bytes(opacities(splats.logit_opacities) * 255)
    rows["quat"] = to_bytes(unit_quaternions(splats.quats_wxyz) * 128 + 128)
    with replacing(path) as file:
        file.write(rows.tobytes())
