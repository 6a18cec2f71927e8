"""A GLB as bytes that may hold anything: its JSON, its nodes and its accessors."""

import struct
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.formats._files import read_bytes, shown
from lumefield.codecs.formats._json_values import parse_json
from lumefield.codecs.formats._turn import rotation_matrix
from lumefield.errors import FormatError

_MAGIC, _JSON, _BIN = 0x46546C67, 0x4E4F534A, 0x004E4942
_TYPES = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5126: "<f4"}
_WIDTH = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}
_DEEP = 64


class Document(NamedTuple):
    """A GLB."""

    path: Path
    json: dict[str, Any]
    body: bytes

    @classmethod
    def read(cls, path: Path) -> "Document":
        """Split a GLB into its chunks.

        Raises:
            InputError: If it cannot be opened.
            FormatError: If it is no GLB of version 2, or is cut off.
        """
        data = read_bytes(path)
        if len(data) < 20 or struct.unpack_from("<I", data)[0] != _MAGIC:
            raise FormatError(f"{path}: does not begin with glTF; expected a binary glTF (.glb)")
        _, version, length, size, kind = struct.unpack_from("<IIIII", data)
        if version != 2 or kind != _JSON or length > len(data) or 20 + size > len(data):
            raise FormatError(
                f"{path}: glTF header promises version {version} and {length} bytes, the file has "
                f"{len(data)}; expected version 2, it is cut off or damaged"
            )
        scene = parse_json(data[20 : 20 + size], path)
        at = 20 + size
        if at + 8 > len(data):
            return cls(path, scene, b"")
        more, kind = struct.unpack_from("<II", data, at)
        if kind != _BIN or at + 8 + more > len(data):
            raise FormatError(
                f"{path}: glTF data at byte {at} is cut off or damaged; copy it again"
            )
        return cls(path, scene, data[at + 8 : at + 8 + more])

    @property
    def meshes(self) -> list[Any]:
        """The list of meshes, which may be empty."""
        return self._list(self.json, "meshes")

    def placed(self, extension: str) -> list[tuple[dict[str, Any], NDArray[np.float64]]]:
        """Primitives with an extension, and where the nodes put them: (4, 4) world_from_mesh.

        Raises:
            FormatError: If nodes or meshes are not what they have to be.
        """
        nodes = [self._object(node, "a node") for node in self._list(self.json, "nodes")]
        held = {child for node in nodes for child in self._indices(node, "children", len(nodes))}
        found: list[tuple[dict[str, Any], NDArray[np.float64]]] = []
        stack = [(i, np.eye(4), 0) for i in range(len(nodes)) if i not in held]
        seen = set[int]()
        while stack:
            i, world, depth = stack.pop()
            if i in seen or depth > _DEEP:
                raise FormatError(f"{self.path}: glTF nodes are not a tree; the file is damaged")
            seen.add(i)
            here = world @ self._matrix(nodes[i])
            stack += [(c, here, depth + 1) for c in self._indices(nodes[i], "children", len(nodes))]
            if "mesh" in nodes[i]:
                found += [(p, here) for p in self._primitives(nodes[i]["mesh"], extension)]
        return found

    def has(self, primitive: dict[str, Any], name: str) -> bool:
        """Whether a primitive has an attribute."""
        return name in self._object(primitive.get("attributes"), "attributes")

    def attribute(self, primitive: dict[str, Any], name: str, width: int) -> NDArray[np.float32]:
        """An attribute as numbers (n, width); normalised integers as fractions.

        Raises:
            FormatError: If it is missing, sparse, of another width, or outside the file.
        """
        attributes = self._object(primitive.get("attributes"), "attributes")
        what = f"glTF attribute {name}"
        if name not in attributes:
            raise FormatError(f"{self.path}: {what} is missing; the file is incomplete")
        accessor = self._object(self._item("accessors", attributes[name]), what)
        count, kind = accessor.get("count"), accessor.get("componentType")
        fine = isinstance(count, int) and count >= 0 and isinstance(kind, int) and kind in _TYPES
        if not fine or _WIDTH.get(str(accessor.get("type"))) != width or "sparse" in accessor:
            raise FormatError(
                f"{self.path}: {what} is {shown(str(accessor))}, expected {width} plain numbers"
            )
        view = self._object(self._item("bufferViews", accessor.get("bufferView")), what)
        item = np.dtype(_TYPES[cast("int", kind)])
        row = item.itemsize * width
        stride = self._whole(view, "byteStride", what) or row
        start = self._whole(view, "byteOffset", what) + self._whole(accessor, "byteOffset", what)
        n = cast("int", count)
        if (
            view.get("buffer", 0) != 0
            or stride < row
            or (n and start + (n - 1) * stride + row > len(self.body))
        ):
            raise FormatError(
                f"{self.path}: {what} needs {n} rows from byte {start}, the data has "
                f"{len(self.body)} bytes; the file is cut off or damaged"
            )
        if not n:
            return np.zeros((0, width), np.float32)
        shape, strides = (n, width), (stride, item.itemsize)
        values = np.ndarray(shape, item, self.body, start, strides).astype(np.float32)
        if not accessor.get("normalized") or item.kind == "f":
            return values
        return np.maximum(values / np.float32(np.iinfo(item).max), -1)

    def _primitives(self, index: object, extension: str) -> list[dict[str, Any]]:
        mesh = self._object(self._item("meshes", index), "a mesh")
        found = [self._object(p, "a primitive") for p in self._list(mesh, "primitives")]
        return [
            p for p in found if extension in self._object(p.get("extensions", {}), "extensions")
        ]

    def _matrix(self, node: dict[str, Any]) -> NDArray[np.float64]:
        if "matrix" in node:
            return self._floats(node, "matrix", np.eye(4).ravel()).reshape(4, 4).T
        out = np.eye(4)
        x, y, z, w = self._floats(node, "rotation", np.array([0.0, 0, 0, 1]))
        length = float(np.sqrt(x * x + y * y + z * z + w * w))
        if not length > 0:
            raise FormatError(f"{self.path}: a glTF node has a rotation of length 0")
        turn = rotation_matrix(np.array([w, x, y, z]) / length)
        out[:3, :3] = turn * self._floats(node, "scale", np.ones(3))
        out[:3, 3] = self._floats(node, "translation", np.zeros(3))
        return out

    def _floats(
        self, node: dict[str, Any], key: str, default: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        value = node.get(key)
        if value is None:
            return default
        items = cast("list[Any]", value) if isinstance(value, list) else []
        try:
            found = np.array([float(v) for v in items])
        except (TypeError, ValueError, OverflowError):
            found = np.zeros(0)
        if found.shape != default.shape or not np.isfinite(found).all():
            raise FormatError(f"{self.path}: {key} of a glTF node is not {len(default)} numbers")
        return found

    def _item(self, key: str, index: object) -> object:
        items = self._list(self.json, key)
        if isinstance(index, int) and not isinstance(index, bool) and 0 <= index < len(items):
            return items[index]
        raise FormatError(
            f"{self.path}: glTF names number {shown(str(index))} of {len(items)} {key}; damaged"
        )

    def _indices(self, node: dict[str, Any], key: str, count: int) -> list[int]:
        found = self._list(node, key)
        if all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < count for i in found):
            return found
        raise FormatError(f"{self.path}: {key} of a glTF node are not nodes; the file is damaged")

    def _list(self, table: dict[str, Any], key: str) -> list[Any]:
        value = table.get(key, [])
        if isinstance(value, list):
            return cast("list[Any]", value)
        raise FormatError(f"{self.path}: glTF {key} is not a list; the file is damaged")

    def _object(self, value: object, what: str) -> dict[str, Any]:
        if isinstance(value, dict):
            return cast("dict[str, Any]", value)
        raise FormatError(f"{self.path}: {what} of the glTF is not an object; the file is damaged")

    def _whole(self, table: dict[str, Any], key: str, what: str) -> int:
        value = table.get(key, 0)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40:
            return value
        raise FormatError(f"{self.path}: {key} of {what} is not a whole number; damaged")
