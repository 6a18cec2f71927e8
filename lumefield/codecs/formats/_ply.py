"""3DGS PLY: one vertex per Gaussian, the layout of the INRIA code; also plain point clouds.

Kerbl et al., "3D Gaussian Splatting", 2023, reference code `scene/gaussian_model.py`: scale is the
natural logarithm, opacity the logit, rot = w x y z, and f_rest is channel-major (all coefficients
of red, then green, then blue), where :class:`Splats` is basis-major.
"""

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.formats._files import replacing
from lumefield.codecs.formats._las import load_las
from lumefield.codecs.formats._ply_packed import is_packed, load_packed
from lumefield.codecs.formats._ply_table import Header, read_columns, read_header
from lumefield.codecs.formats._ply_tags import read_tags, written_tags
from lumefield.codecs.formats._splat_rows import checked, cleaned, rest_names, to_channel_major
from lumefield.codecs.formats._types import Splats
from lumefield.errors import FormatError

_BLOCK = 1 << 15
_DEGREES = {0: 1, 9: 4, 24: 9, 45: 16, 72: 25}


def load_ply(path: Path) -> Splats:
    """Read Gaussians from a 3DGS PLY or a compressed one (binary or ASCII, any property order).

    Properties that are not part of a Gaussian are skipped. Gaussians with a NaN or an infinity are
    left out, and a comment says how many. Comments of Brush and Postshot become ``antialiased``
    and ``up``.

    Raises:
        InputError: If the file cannot be opened.
        FormatError: If it is not such a file; a mesh, a point cloud or a 2D splat PLY is named as
            what it is.
    """
    header = read_header(path)
    packed = is_packed(header)
    splats = load_packed(header) if packed else _load_plain(header)
    antialiased, up, kept = read_tags(header.comments)
    return cleaned(
        dataclasses.replace(
            splats,
            antialiased=antialiased,
            comments=kept,
            up=up,
            source=("compressed PLY (PlayCanvas)" if packed else "3DGS PLY") + ", frame as it is",
        )
    )


def _load_plain(header: Header) -> Splats:
    _refuse_others(header)
    path = header.path
    names = header.vertex.names
    count = sum(1 for name in names if name.startswith("f_rest_"))
    if count not in _DEGREES:
        raise FormatError(
            f"{path}: PLY has {count} f_rest properties, expected one of {sorted(_DEGREES)} "
            "(spherical harmonics of degree 0 to 4)"
        )
    k = _DEGREES[count]
    groups = {
        "means": ("x", "y", "z"),
        "quats": ("rot_0", "rot_1", "rot_2", "rot_3"),
        "scales": ("scale_0", "scale_1", "scale_2"),
        "opacity": ("opacity",),
        "sh": _basis_major(k),
    }
    columns = read_columns(header, groups, np.float32)
    return Splats(
        means=columns["means"],
        quats_wxyz=columns["quats"],
        log_scales=columns["scales"],
        logit_opacities=columns["opacity"][:, 0],
        sh=columns["sh"].reshape(-1, k, 3),
    )


def save_ply(splats: Splats, path: Path) -> None:
    """Write a binary little-endian 3DGS PLY, normals included (some viewers expect them).

    Raises:
        InputError: If the file cannot be written.
        ValueError: If the arrays do not fit one another.
    """
    splats = checked(splats)
    n, k = splats.sh.shape[:2]
    names = [*"xyz", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *rest_names(k)]
    names += ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    comments = written_tags(splats)
    lines = ["ply", "format binary_little_endian 1.0", *(f"comment {c}" for c in comments)]
    lines += [f"element vertex {n}", *(f"property float {name}" for name in names), "end_header\n"]
    with replacing(path) as file:
        file.write("\n".join(lines).encode("ascii"))
        for a in range(0, n, _BLOCK):
            b = min(a + _BLOCK, n)
            rows = np.zeros((b - a, len(names)), "<f4")
            rows[:, :3] = splats.means[a:b]
            rows[:, 6:9] = splats.sh[a:b, 0]
            rows[:, 9:-8] = to_channel_major(splats.sh[a:b, 1:])
            rows[:, -8] = splats.logit_opacities[a:b]
            rows[:, -7:-4] = splats.log_scales[a:b]
            rows[:, -4:] = splats.quats_wxyz[a:b]
            file.write(rows.tobytes())


def load_points(path: Path | str) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Read a point cloud: positions and sRGB colours.

    Args:
        path: A PLY file, binary or ASCII, whose properties red, green, blue are uchar, or float in
            [0, 1]; or a LAS or LAZ file. Without colours the points are mid-grey.

    Returns:
        xyz (p, 3) in the file's frame and rgb (p, 3); points with a NaN or infinity are left out.

    Raises:
        InputError: If the file cannot be opened.
        FormatError: If it is not such a file.
    """
    if Path(path).suffix.lower() in (".las", ".laz"):
        return load_las(Path(path))
    header = read_header(Path(path))
    kinds = dict(header.vertex.properties)
    rgb = ("red", "green", "blue")
    has_colour = all(name in kinds for name in rgb)
    groups = {"xyz": ("x", "y", "z")} | ({"rgb": rgb} if has_colour else {})
    columns = read_columns(header, groups, np.float64)
    xyz = columns["xyz"]
    grey = np.full(xyz.shape, 128.0)
    is_float = has_colour and kinds["red"].startswith("f")
    colours = columns.get("rgb", grey) * (255.0 if is_float else 1.0)
    keep = np.isfinite(xyz).all(1)
    colours = np.clip(np.nan_to_num(colours[keep], nan=128.0), 0, 255)
    return xyz[keep], np.round(colours).astype(np.uint8)


def _basis_major(k: int) -> tuple[str, ...]:
    """Property names in the order of ``sh.reshape(n, -1)``."""
    rest = [f"f_rest_{channel * (k - 1) + i}" for i in range(k - 1) for channel in range(3)]
    return ("f_dc_0", "f_dc_1", "f_dc_2", *rest)


def _refuse_others(header: Header) -> None:
    """Say what a PLY is when it is not Gaussians."""
    vertex, path = header.vertex, header.path
    elements = {e.name: e.count for e in header.elements}
    if "f_dc_0" in vertex.names and {"scale_0", "scale_1"} <= vertex.names:
        if "scale_2" not in vertex.names:
            raise FormatError(
                f"{path}: is a PLY of 2D Gaussians (no scale_2), expected 3D ones; "
                "train or export it as 3DGS"
            )
        return
    what = "mesh" if elements.get("face") else "point cloud"
    if {"x", "y", "z"} <= vertex.names and "f_dc_0" not in vertex.names:
        raise FormatError(
            f"{path}: is a {what} PLY of {vertex.count} points, expected Gaussians "
            "(properties f_dc_0, opacity, scale_0, rot_0); train a scene from it first"
        )
