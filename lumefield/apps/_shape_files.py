"""Meshes and point clouds as files: read and written by trimesh."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._marching import Mesh
from lumefield.errors import FormatError, InputError

Doubles = NDArray[np.float64]
MESH_SUFFIXES = (".glb", ".ply", ".obj", ".stl")
"""Suffixes of meshes that can be written, in lower case."""
_MAX_FACES = 20_000_000


@dataclass(frozen=True)
class Shape:
    """A triangle mesh, or points with normals."""

    vertices: Doubles
    """(v, 3) positions in the frame of the file."""
    faces: NDArray[np.int64]
    """(f, 3) corners; empty for a point cloud."""
    normals: Doubles | None
    """(v, 3) outward normals of a point cloud; None for a mesh."""
    summary: str
    notes: tuple[str, ...]


def load_shape(path: Path) -> Shape:
    """Read a mesh, or a point cloud with normals (PLY).

    Holes of a mesh are closed, each by a fan of triangles over its border.

    Raises:
        InputError: If the suffix is not one of a shape.
        FormatError: If the file is empty, damaged, or holds neither triangles nor normals.
    """
    from lumefield.apps._surface import close_holes

    vertices, faces, normals = _read(path)
    if not np.isfinite(vertices).all():
        bad = int((~np.isfinite(vertices)).any(1).sum())
        raise FormatError(f"{path}: {bad} vertices are NaN or infinite; repair the mesh first")
    if not len(faces):
        if normals is None:
            raise FormatError(
                f"{path}: has {len(vertices):,} points and no faces, expected triangles, or points "
                "with normals (nx ny nz of a PLY); compute normals first"
            )
        good = np.isfinite(normals).all(1) & (np.linalg.norm(normals, axis=1) > 0)
        vertices, normals = vertices[good], normals[good]
        if len(vertices) < 100:
            raise FormatError(f"{path}: {len(vertices)} points with a normal, expected 100 or more")
        _check_extent(path, vertices)
        return Shape(vertices, faces, normals, f"{len(vertices):,} points with normals", ())
    if len(faces) > _MAX_FACES:
        raise FormatError(f"{path}: {len(faces):,} triangles, at most {_MAX_FACES:,} can be used")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise FormatError(f"{path}: a face names a vertex that is not there; the file is damaged")
    count = len(faces)
    vertices, faces, closed = close_holes(vertices, faces)
    _check_extent(path, vertices)
    if not len(faces) or not _areas(vertices, faces).any():
        raise FormatError(f"{path}: no triangle has an area, expected a surface")
    notes = (f"{closed} holes closed by a fan each",) if closed else ()
    return Shape(vertices, faces, None, f"{len(vertices):,} vertices, {count:,} triangles", notes)


def save_mesh(path: Path, mesh: Mesh) -> None:
    """Write a mesh whole or not at all, in the format that the suffix names.

    Raises:
        InputError: If the suffix is unknown or the folder cannot be written.
    """
    import trimesh

    from lumefield.codecs.formats import replacing

    kind = path.suffix.lower()
    if kind not in MESH_SUFFIXES:
        raise InputError(f"{path}: not a mesh; expected one of {' '.join(MESH_SUFFIXES)}")
    data: Any = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).export(file_type=kind[1:])
    with replacing(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def _read(path: Path) -> tuple[Doubles, NDArray[np.int64], Doubles | None]:
    import trimesh
    from trimesh.resolvers import FilePathResolver

    kind = path.suffix.lower()
    if kind not in (*MESH_SUFFIXES, ".gltf", ".off"):
        raise InputError(f"{path}: not a shape; expected one of {' '.join(MESH_SUFFIXES)} .off")
    data = path.read_bytes()
    if not data:
        raise FormatError(f"{path}: an empty file, expected a mesh; copy it again")
    loaded: Any
    try:
        resolver = FilePathResolver(str(path)) if kind == ".gltf" else None
        loaded = trimesh.load(
            io.BytesIO(data), file_type=kind[1:], process=False, resolver=resolver, force=None
        )
        if isinstance(loaded, trimesh.Scene):
            parts: list[Any] = [g for g in loaded.dump() if isinstance(g, trimesh.Trimesh)]
            loaded = trimesh.util.concatenate(parts) if parts else None
        if loaded is None:
            return np.zeros((0, 3)), np.zeros((0, 3), np.int64), None
        vertices = np.asarray(loaded.vertices, np.float64).reshape(-1, 3)
        faces = np.asarray(getattr(loaded, "faces", ()), np.int64).reshape(-1, 3)
    except Exception as error:
        text = (str(error) or type(error).__name__).splitlines()[0]
        raise FormatError(
            f"{path}: cannot be read as a mesh ({text}); expected an intact {kind[1:].upper()} file"
        ) from None
    return vertices, faces, None if len(faces) else _normals(loaded, len(vertices))


def _normals(cloud: Any, count: int) -> Doubles | None:  # noqa: ANN401
    """Normals of a PLY point cloud: trimesh keeps its columns as they are."""
    raw = getattr(cloud, "metadata", {}).get("_ply_raw") or {}
    data = (raw.get("vertex") or {}).get("data")
    names = data if isinstance(data, dict) else getattr(getattr(data, "dtype", None), "names", ())
    if data is None or not {"nx", "ny", "nz"} <= set(names or ()):
        return None
    normals = np.stack([np.asarray(data[n], np.float64).reshape(-1) for n in ("nx", "ny", "nz")], 1)
    return normals if len(normals) == count else None


def _check_extent(path: Path, vertices: Doubles) -> None:
    if not (vertices.max(0) - vertices.min(0)).max() > 0:
        raise FormatError(f"{path}: all vertices are in one place, expected a shape with an extent")


def _areas(vertices: Doubles, faces: NDArray[np.int64]) -> Doubles:
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    return np.linalg.norm(np.cross(b - a, c - a), axis=1)
