"""``export --out FILE.points.ply|.las|.laz``: what can be seen of a scene, as a point cloud."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._export_settings import Export, suffix_of
from lumefield.apps._progress import Say
from lumefield.apps._scene_io import Scene
from lumefield.errors import InputError

_C0 = 0.28209479177387814
_STEPS = 1e9
"""Steps of a LAS coordinate over the extent of the scene; they are 32-bit integers."""


def write_points(settings: Export, scene: Scene) -> Path:
    """Write centres of visible Gaussians (opacity above 0.1), or the surface of a field.

    World frame and units; display sRGB; nothing is turned, so LAS is z-up only where the scene is.

    Raises:
        InputError: If nothing can be seen, laspy is missing, or the file cannot be written.
    """
    from lumefield.codecs.formats import replacing

    points, weight = scene.surface()
    field = scene.field
    if field is None:
        colour = np.clip(0.5 + _C0 * scene.splats.sh[:, 0].astype(np.float64), 0, 1)
        rgb = (colour * 255 + 0.5).astype(np.uint8)
    else:
        rgb = np.asarray(field.colours, np.uint8)
    seen = (weight > 0) & np.isfinite(points).all(1)
    if not seen.any():
        raise InputError(f"{settings.scene}: nothing in it can be seen, so there are no points")
    points, rgb = points[seen], rgb[seen]
    suffix = suffix_of(settings)
    data = ply_bytes(points, rgb) if suffix == ".points.ply" else las_bytes(points, rgb, suffix)
    with replacing(settings.out) as file:
        file.write(data)
    size = len(data) / 1e6
    Say().line(f"wrote {len(points):,} points to {settings.out}, {size:.1f} MB")
    return settings.out


def ply_bytes(points: NDArray[np.float64], rgb: NDArray[np.uint8]) -> bytes:
    """A binary PLY of x y z (float) and red green blue (uchar)."""
    kinds = [*((axis, "<f4") for axis in "xyz"), *((c, "u1") for c in ("red", "green", "blue"))]
    rows = np.zeros(len(points), np.dtype(kinds))
    for j, axis in enumerate("xyz"):
        rows[axis] = points[:, j]
    for j, name in enumerate(("red", "green", "blue")):
        rows[name] = rgb[:, j]
    words = {"<f4": "float", "u1": "uchar"}
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    lines += [f"property {words[kind]} {name}" for name, kind in kinds]
    return ("\n".join([*lines, "end_header"]) + "\n").encode() + rows.tobytes()


def las_bytes(points: NDArray[np.float64], rgb: NDArray[np.uint8], suffix: str) -> bytes:
    """LAS 1.4, point format 7: 32-bit coordinates, 16-bit colours.

    Raises:
        InputError: If laspy is not installed.
    """
    try:
        import laspy
    except ImportError:
        raise InputError(
            f"{suffix}: needs laspy, which is not installed; `pip install lumefield[las]`"
        ) from None
    header = laspy.LasHeader(point_format=7, version="1.4")
    header.offsets = points.min(0)
    header.scales = np.full(3, max(float(np.ptp(points, axis=0).max()), 1e-9) / _STEPS)
    las = laspy.LasData(header)
    las.x, las.y, las.z = points.T
    las.red, las.green, las.blue = (rgb.astype(np.uint16) * 257).T
    held = io.BytesIO()
    las.write(held, do_compress=suffix == ".laz")
    return held.getvalue()
