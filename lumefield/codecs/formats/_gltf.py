"""glTF 2.0 binary with KHR_gaussian_splatting (ratified by Khronos in 2026), not compressed.

One primitive of points: ``POSITION``, and under the name of the extension ``ROTATION`` (x y z w, of
unit length), ``SCALE`` (standard deviations, not their logarithms), ``OPACITY`` (0 to 1) and
``SH_DEGREE_l_COEF_m`` in the order and signs of 3DGS files; ``colorSpace`` says that colours are
blended as display sRGB. ``COLOR_0`` is for programs that draw points: linear light, as glTF wants.

glTF is right-handed with y up, so the PLY's right, down, forward becomes right, up, back by half a
turn about x, as in SPZ. Some programs turn about z instead: upright too, but facing backwards.
"""

import dataclasses
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield import __version__
from lumefield.codecs.formats._files import replacing
from lumefield.codecs.formats._gltf_read import Document
from lumefield.codecs.formats._splat_rows import (
    SH_C0,
    checked,
    cleaned,
    half_turned,
    logits_of,
    opacities,
    scales_of,
    unit_quaternions,
)
from lumefield.codecs.formats._types import Splats
from lumefield.errors import FormatError, InputError

_NAME = "KHR_gaussian_splatting"
_FLOAT = 5126
_VECTORS = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}
_MAGIC, _JSON, _BIN = 0x46546C67, 0x4E4F534A, 0x004E4942
_LEAST, _SHARED = 32, 4
"""Bytes of a Gaussian at least; how often, on average, its data may be used."""
_LARGEST = 2**32 - 1


def load_glb(path: Path) -> Splats:
    """Read the Gaussians of a GLB, wherever its nodes put them, into the PLY's frame.

    Raises:
        InputError: If the file cannot be opened.
        FormatError: If it is no GLB, holds no Gaussians (a mesh is named as such), or is damaged.
    """
    document = Document.read(path)
    placed = document.placed(_NAME)
    if not placed:
        what = "mesh" if document.meshes else "file"
        raise FormatError(
            f"{path}: is a glTF {what} without Gaussians, expected "
            f"the extension {_NAME}; a mesh cannot be drawn as splats"
        )
    parts: list[Splats] = []
    for primitive, world in placed:
        parts.append(_part(document, primitive, world))
        if sum(len(p.means) for p in parts) * _LEAST > _SHARED * len(document.body):
            raise FormatError(
                f"{path}: glTF primitives share their data more than {_SHARED} times; it is hostile"
            )
    k = min(part.sh.shape[1] for part in parts)
    joined = dataclasses.replace(
        parts[0],
        **{
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("means", "quats_wxyz", "log_scales", "logit_opacities")
        },
        sh=np.concatenate([part.sh[:, :k] for part in parts]),
        source=f"glTF 2.0 with {_NAME}, stored right up back",
    )
    return cleaned(half_turned(joined))


def _part(document: Document, primitive: dict[str, Any], world: NDArray[np.float64]) -> Splats:
    def column(name: str, width: int) -> NDArray[np.float32]:
        return document.attribute(primitive, name, width)

    means = column("POSITION", 3)
    base = column(f"{_NAME}:SH_DEGREE_0_COEF_0", 3)
    bands = [base]
    for degree in range(1, 5):
        names = [f"{_NAME}:SH_DEGREE_{degree}_COEF_{m}" for m in range(2 * degree + 1)]
        if not document.has(primitive, names[0]):
            break
        bands += [column(name, 3) for name in names]
    scales = column(f"{_NAME}:SCALE", 3)
    # Drafts of the extension stored logarithms, and most logarithms are negative.
    log = bool((scales < 0).any())
    columns = (column(f"{_NAME}:ROTATION", 4), column(f"{_NAME}:OPACITY", 1), *bands)
    if any(len(values) != len(means) for values in (scales, *columns)):
        raise FormatError(f"{document.path}: glTF attributes differ in length; the file is damaged")
    with np.errstate(divide="ignore", invalid="ignore"):
        splats = Splats(
            means=means,
            quats_wxyz=np.roll(columns[0], 1, axis=1),
            log_scales=scales if log else scales_of(scales),
            logit_opacities=logits_of(columns[1][:, 0]),
            sh=np.stack(bands, 1),
            comments=("scales were stored as logarithms, a draft of the extension",) * log,
        )
    return _placed(splats, world, document.path)


def _placed(splats: Splats, world: NDArray[np.float64], path: Path) -> Splats:
    if np.array_equal(world, np.eye(4)):
        return splats
    linear = world[:3, :3]
    scale = float(np.cbrt(np.linalg.det(linear)))
    if not (scale > 1e-12 and np.allclose(linear @ linear.T, scale**2 * np.eye(3), rtol=1e-4)):
        raise FormatError(
            f"{path}: a glTF node mirrors or stretches its Gaussians, expected a rotation, one "
            "scale and a translation; apply the node in the program it came from"
        )
    return splats.moved(linear / scale, world[:3, 3], scale)


def save_glb(splats: Splats, path: Path) -> None:
    """Write a GLB; degree 4 does not fit the extension and is lost.

    Raises:
        InputError: If there is no Gaussian, the file would exceed 4 GB, or cannot be written.
        ValueError: If the arrays do not fit one another.
    """
    splats = half_turned(checked(splats).cut(3))
    n = len(splats.means)
    if not n:
        raise InputError(f"cannot write {path}: no Gaussians, expected at least one in a .glb")
    columns = _columns(splats)
    size = sum(values.nbytes for values in columns.values())
    if size + (1 << 20) > _LARGEST:
        raise InputError(f"cannot write {path}: {n} Gaussians exceed the 4 GB of a .glb; use .spz")
    text = json.dumps(_scene(columns, n), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    with replacing(path) as file:
        file.write(struct.pack("<III", _MAGIC, 2, 12 + 8 + len(text) + 8 + size))
        file.write(struct.pack("<II", len(text), _JSON) + text)
        file.write(struct.pack("<II", size, _BIN))
        for values in columns.values():
            file.write(values.tobytes())


def _columns(splats: Splats) -> dict[str, NDArray[np.float32]]:
    k = splats.sh.shape[1]
    opacity = opacities(splats.logit_opacities)[:, None]
    colour = np.clip(0.5 + SH_C0 * splats.sh[:, 0].astype(np.float64), 0, 1)
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    found = {
        "POSITION": splats.means,
        "COLOR_0": np.concatenate([linear, opacity], 1),
        f"{_NAME}:ROTATION": np.roll(unit_quaternions(splats.quats_wxyz), -1, axis=1),
        f"{_NAME}:SCALE": np.exp(np.clip(splats.log_scales.astype(np.float64), -69, 88)),
        f"{_NAME}:OPACITY": opacity,
    }
    for i in range(k):
        degree = int(i**0.5)
        found[f"{_NAME}:SH_DEGREE_{degree}_COEF_{i - degree**2}"] = splats.sh[:, i]
    return {name: np.ascontiguousarray(v, "<f4") for name, v in found.items()}


def _scene(columns: dict[str, NDArray[np.float32]], n: int) -> dict[str, Any]:
    views: list[dict[str, Any]] = []
    accessors: list[dict[str, Any]] = []
    at = 0
    for name, values in columns.items():
        accessor: dict[str, Any] = {
            **{"bufferView": len(views), "componentType": _FLOAT},
            **{"count": n, "type": _VECTORS[values.shape[1]]},
        }
        if name == "POSITION":
            accessor |= {"min": values.min(0).tolist(), "max": values.max(0).tolist()}
        views.append({"buffer": 0, "byteOffset": at, "byteLength": values.nbytes, "target": 34962})
        accessors.append(accessor)
        at += values.nbytes
    primitive = {
        "attributes": {name: i for i, name in enumerate(columns)},
        "mode": 0,
        "extensions": {
            _NAME: {
                **{"kernel": "ellipse", "colorSpace": "srgb_rec709_display"},
                **{"projection": "perspective", "sortingMethod": "cameraDistance"},
            }
        },
    }
    return {
        "asset": {"version": "2.0", "generator": f"lumefield {__version__}"},
        "extensionsUsed": [_NAME],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "splats"}],
        "meshes": [{"primitives": [primitive]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": at}],
    }
