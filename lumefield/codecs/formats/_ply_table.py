"""PLY as a table: header, and named vertex columns, whatever their order, type and encoding.

Letters: ``n`` vertices, ``c`` columns asked for. The body is read in blocks, so that the memory is
that of the result.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lumefield.codecs.formats._files import reading, shown
from lumefield.errors import FormatError

_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"},
    **{"float": "f4", "double": "f8", "float32": "f4", "float64": "f8"},
}
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_LINES, _LINE = 8192, 1 << 16
_BLOCK = 1 << 16


@dataclass(frozen=True)
class Element:
    """One ``element`` of a header."""

    name: str
    count: int
    properties: tuple[tuple[str, str], ...]
    """(name, NumPy type without byte order) of each property; type "" marks a list."""

    @property
    def names(self) -> frozenset[str]:
        """Names of the properties."""
        return frozenset(name for name, _ in self.properties)


@dataclass(frozen=True)
class Header:
    """The header of a PLY file."""

    path: Path
    order: str
    """Byte order as NumPy writes it, "" for ASCII."""
    elements: tuple[Element, ...]
    comments: tuple[str, ...]
    body: int
    """Offset of the first byte after the header."""

    @property
    def vertex(self) -> Element:
        """The ``vertex`` element.

        Raises:
            FormatError: If there is none.
        """
        return self.element("vertex")

    def element(self, name: str) -> Element:
        """The element of that name.

        Raises:
            FormatError: If there is none.
        """
        for element in self.elements:
            if element.name == name:
                return element
        have = shown(", ".join(e.name for e in self.elements)) or "nothing"
        raise FormatError(f"{self.path}: PLY holds {have}, expected an element `{name}`")


def read_header(path: Path) -> Header:
    """Read the header of a PLY file.

    Raises:
        InputError: If the file cannot be opened.
        FormatError: If it is not PLY or the header is damaged.
    """
    order, comments = None, list[str]()
    elements: list[tuple[str, int, list[tuple[str, str]]]] = []
    with reading(path) as file:
        if file.readline(_LINE).rstrip() != b"ply":
            raise FormatError(f"{path}: does not begin with `ply`; expected a PLY file")
        for raw in _lines(file, path):
            line = raw.decode("utf-8", "replace").rstrip("\r\n")
            words = line.split()
            match words:
                case [] | ["obj_info", *_]:
                    continue
                case ["comment", *_]:
                    comments.append(line.strip()[len("comment") :].strip())
                case ["format", name, _] if name in _ORDERS:
                    order = _ORDERS[name]
                case ["element", name, count] if re.fullmatch("[0-9]{1,18}", count, re.ASCII):
                    elements.append((name, int(count), []))
                case ["property", "list", _, _, name] if elements:
                    elements[-1][2].append((name, ""))
                case ["property", kind, name] if elements and kind in _TYPES:
                    elements[-1][2].append((name, _TYPES[kind]))
                case _:
                    raise FormatError(f"{path}: PLY header line {line[:80]!r} is not understood")
        body = file.tell()
    if order is None:
        raise FormatError(f"{path}: PLY header has no `format` line; expected ascii or binary")
    return Header(path, order, _elements(elements, path), tuple(comments), body)


def _elements(
    found: Sequence[tuple[str, int, list[tuple[str, str]]]], path: Path
) -> tuple[Element, ...]:
    for name, _, properties in found:
        if len({p for p, _ in properties}) != len(properties):
            raise FormatError(f"{path}: PLY element {name[:40]!r} names a property twice")
    return tuple(Element(name, count, tuple(p)) for name, count, p in found)


def _lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    for _ in range(_LINES):
        raw = file.readline(_LINE)
        if raw.rstrip() == b"end_header" and raw.endswith(b"\n"):
            return
        if not raw.endswith(b"\n"):
            break
        yield raw
    raise FormatError(f"{path}: PLY header has no `end_header` line; the file is cut off")


def read_columns(
    header: Header,
    groups: Mapping[str, Sequence[str]],
    dtype: DTypeLike,
    element: str = "vertex",
) -> dict[str, NDArray[Any]]:
    """Read groups of properties of an element, each as one (n, c) array of ``dtype``.

    Raises:
        FormatError: If a property is missing or a list, or the body is shorter than promised.
    """
    vertex = header.element(element)
    before = header.elements[: header.elements.index(vertex)]
    for each in (*before, vertex):
        if any(kind == "" for _, kind in each.properties):
            raise FormatError(
                f"{header.path}: PLY element {each.name[:40]!r} has a list property, expected "
                "plain numbers; write the vertices first and without lists"
            )
    for name in (name for group in groups.values() for name in group):
        if name not in vertex.names:
            raise FormatError(f"{header.path}: PLY vertices have no property {name!r}")
    n, blocks = vertex.count, _ascii_blocks if header.order == "" else _binary_blocks
    source = blocks(header, before, vertex)
    first = next(source, None)  # checks the length before anything is allocated
    out = {name: np.empty((n, len(group)), dtype) for name, group in groups.items()}
    start = 0
    with np.errstate(over="ignore", invalid="ignore"):
        while first is not None:
            stop = start + len(first)
            for key, group in groups.items():
                for j, name in enumerate(group):
                    out[key][start:stop, j] = first[name]
            start, first = stop, next(source, None)
    return out


def _short(header: Header, n: int) -> FormatError:
    return FormatError(
        f"{header.path}: PLY header promises {n} vertices, the file ends before; "
        "it is cut off, copy it again"
    )


def _row(element: Element, order: str) -> np.dtype[Any]:
    return np.dtype([(name, order + kind) for name, kind in element.properties])


def _binary_blocks(
    header: Header, before: Sequence[Element], vertex: Element
) -> Iterator[NDArray[Any]]:
    row = _row(vertex, header.order)
    start = header.body + sum(e.count * _row(e, header.order).itemsize for e in before)
    if start + vertex.count * row.itemsize > header.path.stat().st_size:
        raise _short(header, vertex.count)
    with reading(header.path) as file:
        file.seek(start)
        for done in range(0, vertex.count, _BLOCK):
            count = min(_BLOCK, vertex.count - done)
            data = file.read(count * row.itemsize)
            if len(data) != count * row.itemsize:
                raise _short(header, vertex.count)
            yield np.frombuffer(data, row)


def _ascii_blocks(
    header: Header, before: Sequence[Element], vertex: Element
) -> Iterator[NDArray[Any]]:
    skip = sum(e.count * len(e.properties) for e in before)
    width = len(vertex.properties)
    if skip + vertex.count * width > header.path.stat().st_size:
        raise _short(header, vertex.count)
    with reading(header.path) as file:
        file.seek(header.body)
        words = _words(file)
        for _ in range(skip):
            if next(words, None) is None:
                raise _short(header, vertex.count)
        names = np.dtype([(name, "f8") for name, _ in vertex.properties])
        for done in range(0, vertex.count, _BLOCK):
            count = min(_BLOCK, vertex.count - done)
            taken = [w for _, w in zip(range(count * width), words, strict=False)]
            if len(taken) != count * width:
                raise _short(header, vertex.count)
            try:
                flat = np.array([float(w) for w in taken], np.float64)
            except ValueError as error:
                raise FormatError(
                    f"{header.path}: PLY body has a word that is not a number: {error}"
                ) from error
            yield flat.view(names)


def _words(file: BinaryIO) -> Iterator[bytes]:
    tail = b""
    while chunk := file.read(1 << 20):
        pieces = (tail + chunk).split()
        tail = pieces.pop() if pieces and not chunk[-1:].isspace() else b""
        yield from pieces
    if tail:
        yield tail
