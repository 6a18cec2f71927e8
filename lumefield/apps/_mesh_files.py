"""Meshes as files, with a colour per vertex or a picture: GLB and textured OBJ, others by trimesh.

glTF 2.0: y is up and colours are linear light, so display sRGB is converted (16 bits a channel).
Positions stay in the user's world; the node above them turns its up axis to y, which viewers apply
and which can be undone exactly. The material is unlit (KHR_materials_unlit): the colours hold the
light of the photos already.
"""

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._marching import Mesh
from lumefield.apps._mesh_texture import Textured
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


def write_textured(path: Path, made: Textured, up: Doubles) -> None:
    """Write the mesh and its picture, in the format that the suffix names.

    OBJ keeps the picture in ``NAME.png`` and says so in ``NAME.mtl``; the OBJ is written last.

    Args:
        path: File ending in one of ``TEXTURED``.
        made: The mesh, world units.
        up: (3,) up of the world; the nearest axis is used.

    Raises:
        InputError: If a file cannot be written, or usd-core is not installed.
    """
    from lumefield.codecs.formats import replacing

    files = TEXTURED[path.suffix.lower()](path, made, up, _png(made.picture))
    for name, data in files.items():
        with replacing(name) as file:
            file.write(data)


def glb(made: Coloured, up: Doubles) -> bytes:
    """The bytes of a GLB file with one mesh of coloured vertices."""
    linear = np.ones((len(made.colours), 4))
    linear[:, :3] = _linear(made.colours)
    colours = _Part(np.round(linear * 65535).astype("<u2"), "VEC4", _UINT16, "COLOR_0")
    return _glb(made.mesh, up, colours, None)


def textured_glb(made: Textured, up: Doubles, picture: bytes) -> bytes:
    """The bytes of a GLB file with one textured mesh.

    Args:
        made: The mesh.
        up: (3,) up of the world.
        picture: Its picture as PNG.
    """
    return _glb(made.mesh, up, _Part(made.uv.astype("<f4"), "VEC2", _FLOAT, "TEXCOORD_0"), picture)


class _Part(NamedTuple):
    """What the vertices of a GLB have beside their positions."""

    values: NDArray[Any]
    kind: str
    component: int
    name: str


def _glb(mesh: Mesh, up: Doubles, extra: _Part, picture: bytes | None) -> bytes:
    positions = mesh.vertices.astype("<f4")
    parts = (
        (mesh.faces.astype("<u4").reshape(-1, 1), "SCALAR", _UINT32, _INDICES),
        (positions, "VEC3", _FLOAT, _VERTICES),
        (extra.values, extra.kind, extra.component, _VERTICES),
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
    if extra.component == _UINT16:
        accessors[2]["normalized"] = True
    primitive = {"attributes": {"POSITION": 1, extra.name: 2}, "indices": 0, "material": 0}
    surface: dict[str, Any] = {"metallicFactor": 0.0, "roughnessFactor": 1.0}
    images: dict[str, Any] = {}
    if picture is not None:
        surface["baseColorTexture"] = {"index": 0}
        images["images"] = [{"bufferView": len(views), "mimeType": "image/png"}]
        images["samplers"] = [
            {"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}
        ]
        images["textures"] = [{"source": 0, "sampler": 0}]
        views.append({"buffer": 0, "byteOffset": len(body), "byteLength": len(picture)})
        body += picture + b"\0" * (-len(picture) % 4)
    material = {
        "pbrMetallicRoughness": surface,
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
        **images,
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(body)}],
    }
    return _chunks(record, body)


def _chunks(record: dict[str, Any], body: bytes) -> bytes:
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


def _png(picture: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def _one_glb(path: Path, made: Textured, up: Doubles, picture: bytes) -> dict[Path, bytes]:
    return {path: textured_glb(made, up, picture)}


def _usdz(path: Path, made: Textured, up: Doubles, picture: bytes) -> dict[Path, bytes]:
    from lumefield.apps._mesh_usd import usdz

    return {path: usdz(made, up, picture)}


def _obj(path: Path, made: Textured, up: Doubles, picture: bytes) -> dict[Path, bytes]:
    """The files of an OBJ; texture coordinates there start at the lower left."""
    del up
    other = path.with_suffix(".mtl"), path.with_suffix(".png")
    # "illum 0" is colour without light; blanks in a name would end it.
    name = other[1].name.replace(" ", "_")
    material = f"newmtl photos\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nillum 0\nmap_Kd {name}\n"
    out = io.StringIO()
    out.write(f"mtllib {other[0].name.replace(' ', '_')}\nusemtl photos\n")
    np.savetxt(out, made.mesh.vertices, "v %.9g %.9g %.9g")
    np.savetxt(out, np.stack([made.uv[:, 0], 1 - made.uv[:, 1]], 1), "vt %.7g %.7g")
    np.savetxt(out, np.repeat(made.mesh.faces + 1, 2, 1), "f %d/%d %d/%d %d/%d")
    return {
        other[1].with_name(name): picture,
        other[0].with_name(other[0].name.replace(" ", "_")): material.encode(),
        path: out.getvalue().encode(),
    }


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

TEXTURED: dict[str, Callable[[Path, Textured, Doubles, bytes], dict[Path, bytes]]] = {
    ".glb": _one_glb,
    ".obj": _obj,
    ".usdz": _usdz,
}
"""Suffix -> (path, mesh, up, its picture as PNG) -> the files, the one that names others last."""
