"""Which reader or writer a file belongs to: splats by suffix, camera files by what is there."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lumefield.codecs.formats._checkpoint import load_checkpoint
from lumefield.codecs.formats._colmap import load_colmap
from lumefield.codecs.formats._colmap_model import model_folders
from lumefield.codecs.formats._gltf import load_glb, save_glb
from lumefield.codecs.formats._ksplat import load_ksplat
from lumefield.codecs.formats._llff import is_llff, load_llff
from lumefield.codecs.formats._ply import load_ply, save_ply
from lumefield.codecs.formats._ply_packed import save_packed
from lumefield.codecs.formats._sog import load_sog, save_sog
from lumefield.codecs.formats._splat import load_splat, save_splat
from lumefield.codecs.formats._spz import load_spz, save_spz
from lumefield.codecs.formats._transforms_json import find_transforms, load_transforms
from lumefield.codecs.formats._types import PosedImages, Splats
from lumefield.codecs.formats._usd import load_usd, save_usd
from lumefield.errors import FormatError, InputError


class _Row(NamedTuple):
    """One splat format."""

    read: Callable[[Path], Splats]
    write: Callable[[Splats, Path], None] | None = None


_USD = _Row(load_usd, save_usd)
_SPLATS = {
    ".ply": _Row(load_ply, save_ply),
    ".compressed.ply": _Row(load_ply, save_packed),
    ".splat": _Row(load_splat, save_splat),
    ".ksplat": _Row(load_ksplat),
    ".spz": _Row(load_spz, save_spz),
    ".sog": _Row(load_sog, save_sog),
    ".zip": _Row(load_sog),
    ".json": _Row(load_sog),
    ".glb": _Row(load_glb, save_glb),
    **{".usdz": _USD, ".usdc": _USD, ".usda": _USD, ".usd": _USD},
    ".pt": _Row(load_checkpoint),
    ".ckpt": _Row(load_checkpoint),
}
"""End of a file's name -> its format; the longest end that fits counts."""

SPLAT_SUFFIXES = tuple(suffix for suffix in _SPLATS if suffix.count(".") == 1)
"""Suffixes that :func:`load_splats` knows."""


def load_splats(path: Path | str) -> Splats:
    """Read Gaussians from any splat file: the suffix says the format, in a ``.ply`` the header.

    ``.zip`` and ``.json`` are a bundled SOG and the ``meta.json`` of an unbundled one; ``.pt`` and
    ``.ckpt`` checkpoints of gsplat and nerfstudio; USD needs ``usd-core``.

    Returns:
        Splats in the frame of a 3DGS PLY (x right, y down, z forward), finite values only.

    Raises:
        InputError: If the file cannot be opened or its suffix is not known.
        FormatError: If it does not hold what its format promises, or no finite Gaussian.
    """
    path = Path(path)
    splats = _by_suffix(path).read(path)
    if not len(splats.means) and any(c.startswith("left out") for c in splats.comments):
        raise FormatError(
            f"{path}: every Gaussian has values that are not finite; the training failed or the "
            "file is damaged"
        )
    return splats


def save_splats(
    splats: Splats, path: Path | str, *, suffix: str | None = None, spz_version: int = 3
) -> None:
    """Write Gaussians, whole or not at all; the end of the name is the format.

    ``.ply`` is exact; ``.glb`` and USD are up to rounding. Lossy are ``.compressed.ply``,
    ``.splat`` (no view-dependent colour), ``.spz`` and ``.sog``; docs/codecs.md says what is lost.

    Args:
        splats: What to write, in the frame of a 3DGS PLY (x right, y down, z forward).
        path: Where to.
        suffix: Format, where the name does not end with it.
        spz_version: 3, which every reader of ``.spz`` knows, or 4.

    Raises:
        InputError: If the suffix is not known or is read only, or the file cannot be written.
        ValueError: If the arrays do not fit one another.
    """
    path = Path(path)
    row = _by_suffix(path if suffix is None else path.with_name("scene" + suffix))
    if row.write is None:
        known = " ".join(end for end, r in _SPLATS.items() if r.write)
        raise InputError(f"{path}: {path.suffix} is read only, expected one of {known}")
    if row.write is save_spz:
        save_spz(splats, path, spz_version)
    else:
        row.write(splats, path)


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


def _by_suffix(path: Path) -> _Row:
    name = path.name.lower()
    fitting = [suffix for suffix in _SPLATS if name.endswith(suffix)]
    if not fitting:
        known = ", ".join(SPLAT_SUFFIXES)
        raise InputError(f"{path}: suffix {path.suffix!r} is not known, expected one of {known}")
    return _SPLATS[max(fitting, key=len)]
