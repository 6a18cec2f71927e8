"""Meshes with a colour per vertex as files: GLB written here, PLY and OBJ by trimesh.

glTF 2.0: y is up and colours are linear light, so display sRGB is converted (16 bits a channel).
Positions stay in the user's world; the node above them turns its up axis to y, which viewers apply
and which can be undone exactly. The material is unlit (KHR_materials_unlit): the colours hold the
light of the photos already.
"""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._mesh_tsdf import Coloured

Doubles = NDArray[np.float64]

_FLOAT, _UINT16, _UINT32 = 5126, 5123, 5125
_VERTICES, _INDICES = 34962, 34963


def write_coloured(path: Path, made: Coloured, up: Doubles) -> None:
    """Write the mesh whole or not at all, in the format that the suffix names.

    Args:
        path: File ending in one of ``WRITERS``.
        made: The mesh, world units.
        up: (3,) up of the world; the nearest axis is used.

    Raises:
        InputError: If the file cannot be written.
    """
    from lumefield.codecs.formats import replacing

    data = WRITERS[path.suffix.lower()](made, up)
    with replacing(path) as file:
        file.write(data)


def glb(made: Coloured, up: Doubles) -> bytes:
    """The bytes of a GLB file with one mesh."""
    positions = made.mesh.vertices.astype("<f4")
    linear = np.ones((len(positions), 4))
    linear[:, :3] = _linear(made.colours)
    parts = (
        (made.mesh.faces.astype("<u4").reshape(-1, 1), "SCALAR", _UINT32, _INDICES),
        (positions, "VEC3", _FLOAT, _VERTICES),
        (np.round(linear * 65535).astype("<u2"), "VEC4", _UINT16, _VERTICES),
    )
    views: list[dict[str, Any]] = []
    accessors: list[dict[str, Any]] = []
    body = b""
    for k, (array, kind, component, target) in enumerate(parts):
        data = array.tobytes()
        view = {"buffer": 0, "byteOffset": len(body), "byteLength": len(data), "target": target}
        views.append(view)
        accessors.append(
            {"bufferView": k, "componentType": component, "count": len(array), "type": kind}
        )
        body += data + b"\0" * (-len(data) % 4)
    accessors[1] |= {
        "min": [float(v) for v in positions.min(0)],
        "max": [float(v) for v in positions.max(0)],
    }
    accessors[2]["normalized"] = True
    primitive = {"attributes": {"POSITION": 1, "COLOR_0": 2}, "indices": 0, "material": 0}
    material = {
        "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0},
        "doubleSided": True,
        "extensions": {"KHR_materials_unlit": {}},
    }
    record = {
        "asset": {"version": "2.0", "generator": "lumefield"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": "scene", "mesh": 0, "rotation": upright(up)}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [material],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(body)}],
    }
    text = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    length = 12 + 8 + len(text) + 8 + len(body)
    header = struct.pack("<4sII", b"glTF", 2, length)
    return b"".join(
        (
            header,
            struct.pack("<I4s", len(text), b"JSON"),
            text,
            struct.pack("<I4s", len(body), b"BIN\0"),
            body,
        )
    )


def upright(up: Doubles) -> list[float]:
    """Rotation xyzw of glTF that turns the axis nearest to ``up`` to +y."""
    axis = int(np.abs(up).argmax())
    sign = 1.0 if up[axis] >= 0 else -1.0
    half = 0.5**0.5
    if axis == 0:
        return [0.0, 0.0, sign * half, half]
    if axis == 1:
        return [0.0, 0.0, 0.0, 1.0] if sign > 0 else [1.0, 0.0, 0.0, 0.0]
    return [-sign * half, 0.0, 0.0, half]


def _linear(srgb: Doubles) -> Doubles:
    srgb = srgb.clip(0, 1)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _by_trimesh(kind: str) -> Callable[[Coloured, Doubles], bytes]:
    def write(made: Coloured, up: Doubles) -> bytes:
        import trimesh

        del up
        colours = np.full((len(made.colours), 4), 255, np.uint8)
        colours[:, :3] = np.clip(made.colours * 255 + 0.5, 0, 255).astype(np.uint8)
        mesh = trimesh.Trimesh(
            made.mesh.vertices, made.mesh.faces, vertex_colors=colours, process=False
        )
        data: Any = mesh.export(file_type=kind)
        return data.encode() if isinstance(data, str) else bytes(data)

    return write


WRITERS: dict[str, Callable[[Coloured, Doubles], bytes]] = {
    ".glb": glb,
    ".ply": _by_trimesh("ply"),
    ".obj": _by_trimesh("obj"),
}
"""Suffix -> (mesh, up) -> the bytes of the file."""
