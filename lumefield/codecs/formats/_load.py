"""Which reader or writer a file belongs to: splats by suffix, camera files by what is there."""

from collections.abc import Callable
from pathlib import Path

from lumefield.codecs.formats._colmap import load_colmap
from lumefield.codecs.formats._colmap_model import model_folders
from lumefield.codecs.formats._llff import is_llff, load_llff
from lumefield.codecs.formats._ply import load_ply, save_ply
from lumefield.codecs.formats._splat import load_splat, save_splat
from lumefield.codecs.formats._spz import load_spz, save_spz
from lumefield.codecs.formats._transforms_json import find_transforms, load_transforms
from lumefield.codecs.formats._types import PosedImages, Splats
from lumefield.errors import InputError

_SPLATS = {
    ".ply": (load_ply, save_ply),
    ".splat": (load_splat, save_splat),
    ".spz": (load_spz, save_spz),
}
SPLAT_SUFFIXES = tuple(_SPLATS)
"""Suffixes that :func:`load_splats` and :func:`save_splats` know."""


def load_splats(path: Path | str) -> Splats:
    """Read Gaussians from a ``.ply`` (3DGS), ``.splat`` or ``.spz`` file.

    Returns:
        Splats in the frame of a 3DGS PLY (x right, y down, z forward), finite values only.

    Raises:
        InputError: If the file cannot be opened or its suffix is not known.
        FormatError: If it does not hold what its format promises.
    """
    path = Path(path)
    return _by_suffix(path)[0](path)


def save_splats(splats: Splats, path: Path | str) -> None:
    """Write Gaussians to a ``.ply``, ``.splat`` or ``.spz`` file, whole or not at all.

    ``.ply`` is exact. ``.splat`` keeps positions and scales as float32, the rest in 8 bits, and no
    view-dependent colour. ``.spz`` (version 3) quantises everything: positions to 1/4096 unit, log
    scales to 1/16, harmonics of degree 1 to 1/16 and above to 1/8, up to degree 3.

    Raises:
        InputError: If the suffix is not known, or the file cannot be written.
        ValueError: If the arrays do not fit one another.
    """
    path = Path(path)
    _by_suffix(path)[1](splats, path)


def detect_posed(path: Path | str) -> str | None:
    """Which camera file is at ``path``: "colmap", "transforms", "llff", or None.

    Only names are looked at. A COLMAP model in the folder or its ``sparse`` comes before a
    ``transforms.json``, that before ``colmap/sparse`` (nerfstudio keeps both), then LLFF.
    """
    path = Path(path)
    models = model_folders(path)
    if models and not models[0].is_relative_to(path / "colmap"):
        return "colmap"
    if find_transforms(path) is not None:
        return "transforms"
    if models:
        return "colmap"
    return "llff" if is_llff(path) else None


def load_posed_images(path: Path | str, images: Path | str | None = None) -> PosedImages:
    """Read photos with cameras: a COLMAP model, a ``transforms.json`` or an LLFF folder.

    Args:
        path: The folder, or the file itself.
        images: Folder of the photos, when it is not where the format puts it (COLMAP, LLFF).

    Returns:
        Images that exist, sorted by name, OpenCV camera axes, the file's own world frame.

    Raises:
        InputError: If there is no camera file, or it cannot be opened.
        FormatError: If it does not hold what its format promises, or no image exists.
    """
    path, folder = Path(path), None if images is None else Path(images)
    kind = detect_posed(path)
    if kind == "colmap":
        return load_colmap(path, folder)
    if kind == "transforms":
        return load_transforms(path)
    if kind == "llff":
        return load_llff(path, folder)
    raise InputError(
        f"{path}: no camera file found, expected a COLMAP model (sparse/0), transforms.json or "
        "poses_bounds.npy; check the path"
    )


def _by_suffix(path: Path) -> tuple[Callable[[Path], Splats], Callable[[Splats, Path], None]]:
    if path.suffix.lower() not in _SPLATS:
        known = ", ".join(_SPLATS)
        raise InputError(f"{path}: suffix {path.suffix!r} is not known, expected one of {known}")
    return _SPLATS[path.suffix.lower()]
