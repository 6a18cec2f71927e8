"""PlayCanvas' SOG version 2: planes of quantised values as lossless WebP, and a ``meta.json``.

Bundled in a zip whose entries are stored (``.sog``), or side by side in a folder (``meta.json``).
Texel i of every plane belongs to Gaussian i. Positions: 16 bits of sign(x) ln(1 + |x|) between
``mins`` and ``maxs``, low and high bytes in two planes. Rotations: three components of w x y z,
without the largest, as bytes of q / sqrt 2 + 1/2, alpha = 252 + index of the one left out. Log
scales and degree 0: indices into codebooks of 256 numbers, the alpha of the latter the opacity.
Degrees 1 to 3: an index of 16 bits into a palette, 64 entries a row, whose texels index a third
codebook. Frame and colours (display sRGB) as in the PLY.
"""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lumefield import __version__
from lumefield.codecs.formats._codebook import codebook, nearest, palette
from lumefield.codecs.formats._files import read_bytes, replacing, shown
from lumefield.codecs.formats._json_values import parse_json, rows
from lumefield.codecs.formats._morton import morton_order
from lumefield.codecs.formats._splat_rows import (
    checked,
    cleaned,
    logits_from_bytes,
    opacities,
    to_bytes,
    unit_quaternions,
    with_largest,
    without_largest,
)
from lumefield.codecs.formats._types import Splats
from lumefield.codecs.formats._zip import Archive
from lumefield.errors import FormatError, InputError

_BANDS = {1: 4, 2: 9, 3: 16}
_ENTRIES = 256
_ROW = 64
_META = 1 << 20
_PER_BYTE = 2
"""Gaussians per byte of a file, at most: real files have one per 14 bytes."""
_SPARE = 1 << 16
_ROOT = float(np.sqrt(0.5))

Plane = NDArray[np.uint8]
Fetch = Callable[[str], bytes]


def load_sog(path: Path) -> Splats:
    """Read a bundled SOG, or the ``meta.json`` of an unbundled one.

    Raises:
        InputError: If a file cannot be opened, or is no SOG at all.
        FormatError: If it is not SOG of version 2, or is damaged.
    """
    if path.suffix.lower() == ".json":
        raw = read_bytes(path)
        size = sum(p.stat().st_size for p in path.parent.glob("*.webp"))
        return _decoded(raw, lambda name: read_bytes(path.with_name(name)), size, path)
    data = read_bytes(path)
    with Archive(data, path) as archive:
        folder = archive.folder_of("meta.json")

        def fetch(name: str) -> bytes:
            return archive.read(folder + name)

        return _decoded(archive.read(folder + "meta.json", _META), fetch, len(data), path)


def save_sog(splats: Splats, path: Path) -> None:
    """Write a bundled SOG, in Morton order; degree 4 does not fit and is lost.

    Raises:
        InputError: If there is no Gaussian, or the file cannot be written.
        ValueError: If the arrays do not fit one another.
    """
    splats = checked(splats).cut(3)
    if not len(splats.means):
        raise InputError(f"cannot write {path}: no Gaussians, expected at least one in a .sog")
    planes, meta = _encoded(splats.taken(morton_order(splats.means)))
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as bundle:
        for name, plane in planes.items():
            _put(bundle, f"{name}.webp", _webp(plane))
        _put(bundle, "meta.json", json.dumps(meta, allow_nan=False).encode())


def _put(bundle: zipfile.ZipFile, name: str, data: bytes) -> None:
    """An entry without the time of day: the same scene gives the same bytes."""
    bundle.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)


# Reading ----------------------------------------------------------------------------------------


def _decoded(raw: bytes, fetch: Fetch, size: int, path: Path) -> Splats:
    meta = parse_json(raw, path)
    if "means" not in meta:
        raise InputError(f"{path}: not a scene; expected a SOG, whose meta.json has `means`")
    if meta.get("version") != 2:
        raise FormatError(
            f"{path}: is SOG version {str(meta.get('version', 1))[:20]}, expected 2; write it "
            "again with a newer program"
        )
    n = _count(meta, "count", "meta.json", path)
    if not 0 < n <= _PER_BYTE * size + _SPARE:
        raise FormatError(f"{path}: SOG promises {n} Gaussians in {size} bytes; it is damaged")

    def plane(group: str, k: int = 0, least: int = n) -> Plane:
        name = _names(_group(meta, group, path), group, path, k)
        return _texels(fetch(name), least, 2 * least + _SPARE, f"{path}: {name}")

    low, high = plane("means"), plane("means", 1)
    means = _group(meta, "means", path)
    ends = [_numbers(means, key, "means", path, 3) for key in ("mins", "maxs")]
    fixed = low[:n, :3].astype(np.int64) | (high[:n, :3].astype(np.int64) << 8)
    with np.errstate(over="ignore", invalid="ignore"):
        logs = ends[0] + (ends[1] - ends[0]) * (fixed / 65535)
        centres = (np.sign(logs) * np.expm1(np.abs(logs))).astype(np.float32)
    colour = plane("sh0")[:n]
    sh = _book(meta, "sh0", path)[colour[:, :3]][:, None]
    if meta.get("shN") is not None:
        sh = np.concatenate([sh, _rest(meta, plane, n, path)], 1)
    return cleaned(
        Splats(
            means=centres,
            quats_wxyz=_rotations(plane("quats")[:n]),
            log_scales=_book(meta, "scales", path)[plane("scales")[:n, :3]],
            logit_opacities=logits_from_bytes(colour[:, 3]),
            sh=sh,
            antialiased=meta.get("model") == "antialiased",
            source="SOG version 2, frame as in a PLY",
        )
    )


def _rest(meta: dict[str, Any], plane: Callable[..., Plane], n: int, path: Path) -> NDArray[Any]:
    group = _group(meta, "shN", path)
    bands, entries = (_count(group, key, "shN", path) for key in ("bands", "count"))
    if bands not in _BANDS or not 0 < entries <= 1 << 16:
        raise FormatError(
            f"{path}: shN has {bands} bands and {entries} entries, expected 1 to 3 and 65536"
        )
    k = _BANDS[bands] - 1
    lines = -(-entries // _ROW)
    texels = plane("shN", 0, lines * _ROW * k)[: lines * _ROW * k, :3].reshape(-1, k, 3)
    labels = plane("shN", 1)[:n].astype(np.int64)
    label = labels[:, 0] | (labels[:, 1] << 8)
    if int(label.max()) >= entries:
        raise FormatError(f"{path}: shN label {int(label.max())} of {entries}; the file is damaged")
    return _book(meta, "shN", path)[texels[label]]


def _rotations(texels: Plane) -> NDArray[np.float32]:
    three = (texels[:, :3] / 255.0 - 0.5) * (2 * _ROOT)
    index = texels[:, 3].astype(np.int64) - 252
    quats = with_largest(three, np.maximum(index, 0))
    quats[index < 0] = (1, 0, 0, 0)
    return quats


def _texels(data: bytes, least: int, most: int, where: str) -> Plane:
    """RGBA (pixels, 4) of a WebP, whose size is looked at before it is decoded."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
            width, height = image.size
            if not least <= width * height <= most:
                raise FormatError(
                    f"{where} has {width} x {height} texels, expected {least} to {most}"
                )
            return np.asarray(image.convert("RGBA")).reshape(-1, 4)
    except FormatError:
        raise
    except (OSError, ValueError, SyntaxError, RuntimeError, Image.DecompressionBombError) as error:
        raise FormatError(f"{where} is not a WebP picture ({error}); copy it again") from error


def _group(meta: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = meta.get(key)
    if not isinstance(value, dict):
        raise FormatError(f"{path}: meta.json has no object {key!r}; expected SOG version 2")
    return cast("dict[str, Any]", value)


def _count(table: dict[str, Any], key: str, where: str, path: Path) -> int:
    value = table.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32:
        return value
    raise FormatError(f"{path}: {key} of {where} is not a whole number; the file is damaged")


def _names(group: dict[str, Any], key: str, path: Path, k: int) -> str:
    files = rows(group, "files", key, path)
    name = files[k] if k < len(files) else None
    if isinstance(name, str) and name and not set(name) & set("/\\\0:") and name not in (".", ".."):
        return name
    raise FormatError(f"{path}: file {k} of {key} is {shown(repr(name))}, expected a plain name")


def _numbers(
    group: dict[str, Any], key: str, where: str, path: Path, count: int
) -> NDArray[np.float64]:
    values = rows(group, key, where, path)
    fine = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not fine or not 0 < len(values) <= count:
        raise FormatError(f"{path}: {key} of {where} is not a list of {count} numbers")
    try:
        found = np.array([float(v) for v in values])
    except OverflowError as error:
        raise FormatError(f"{path}: {key} of {where} holds a number too large") from error
    return np.pad(found, (0, count - len(found)), mode="edge")


def _book(meta: dict[str, Any], key: str, path: Path) -> NDArray[np.float32]:
    values = _numbers(_group(meta, key, path), "codebook", key, path, _ENTRIES)
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


# Writing ----------------------------------------------------------------------------------------


def _encoded(splats: Splats) -> tuple[dict[str, Plane], dict[str, Any]]:
    n, k = splats.sh.shape[:2]
    wide = splats.means.astype(np.float64)
    logs = np.sign(wide) * np.log1p(np.abs(wide))
    low, high = logs.min(0), logs.max(0)
    fixed = np.round(65535 * (logs - low) / np.where(high > low, high - low, 1)).astype(np.int64)
    three, largest = without_largest(unit_quaternions(splats.quats_wxyz))
    scales = codebook(splats.log_scales, _ENTRIES)
    base = codebook(splats.sh[:, 0], _ENTRIES)
    opacity = to_bytes(opacities(splats.logit_opacities) * 255)
    quats = np.concatenate([to_bytes((three * _ROOT + 0.5) * 255), 252 + largest[:, None]], 1)
    colour = np.concatenate([nearest(splats.sh[:, 0], base), opacity[:, None]], 1)
    planes: dict[str, Plane] = {
        "means_l": _square(_opaque(fixed & 255)),
        "means_u": _square(_opaque(fixed >> 8)),
        "scales": _square(_opaque(nearest(splats.log_scales, scales))),
        "quats": _square(quats),
        "sh0": _square(colour),
    }
    meta: dict[str, Any] = {
        "version": 2,
        "asset": {"generator": f"lumefield {__version__}"},
        "count": n,
        "means": {"mins": low.tolist(), "maxs": high.tolist(), "files": _files("means_l means_u")},
        "scales": {"codebook": scales.tolist(), "files": _files("scales")},
        "quats": {"files": _files("quats")},
        "sh0": {"codebook": base.tolist(), "files": _files("sh0")},
    }
    if splats.antialiased:
        meta["model"] = "antialiased"
    if k > 1:
        more, meta["shN"] = _palettes(splats.sh[:, 1:])
        planes |= more
    return planes, meta


def _palettes(rest: NDArray[np.float32]) -> tuple[dict[str, Plane], dict[str, Any]]:
    n, k = rest.shape[:2]
    rounded = min(64, 2 ** int(np.log2(max(n / 1024, 1)))) * 1024
    entries, label = palette(rest.reshape(n, -1), min(rounded, n))
    book = codebook(entries, _ENTRIES)
    lines = -(-len(entries) // _ROW)
    texels = np.zeros((lines * _ROW, k, 3), np.int64)
    texels[: len(entries)] = nearest(entries, book).reshape(-1, k, 3)
    labels = np.stack([label & 255, label >> 8, np.zeros_like(label)], 1)
    planes = {
        "shN_centroids": _opaque(texels.reshape(-1, 3)).reshape(lines, _ROW * k, 4),
        "shN_labels": _square(_opaque(labels)),
    }
    degree = round((k + 1) ** 0.5) - 1
    about = {"count": len(entries), "bands": degree, "codebook": book.tolist()}
    return planes, {**about, "files": _files("shN_centroids shN_labels")}


def _files(names: str) -> list[str]:
    return [f"{name}.webp" for name in names.split()]


def _opaque(rgb: NDArray[np.int64]) -> Plane:
    return np.concatenate([rgb, np.full((len(rgb), 1), 255)], 1).astype(np.uint8)


def _square(texels: NDArray[Any]) -> Plane:
    """A picture (H, W, 4), sides multiples of 4, that holds the texels row by row."""
    n = len(texels)
    width = int(np.ceil(np.sqrt(n) / 4) * 4)
    height = int(np.ceil(n / width / 4) * 4)
    out = np.zeros((height * width, 4), np.uint8)
    out[:n] = texels
    return out.reshape(height, width, 4)


def _webp(plane: Plane) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    # Without `exact`, colours under alpha 0 are changed, and alpha is data here.
    Image.fromarray(plane).save(file, "WEBP", lossless=True, exact=True, method=4)
    return file.getvalue()
