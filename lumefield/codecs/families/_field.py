"""A trained field as a ``.lume`` file: its tensors at a price per bit, and back.

Chunks of the container: the metadata hold the facts, and names, kinds and shapes of all arrays; one
holds the bytes of arrays that are kept as they are, one behind the other, as XZ; one the blocks of
coded float32 numbers: a bit for each that says whether it holds differences to the number before,
then their tensors (``_tensors``). See ``_blocks`` for what a block is.
"""

import json
import lzma
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.families._blocks import Block, from_rows, quantised, sizes_of, to_rows
from lumefield.codecs.families._tensors import DAMAGED, packed_tensors, unpacked_tensors
from lumefield.codecs.neural._bits import BitReader, BitWriter
from lumefield.codecs.neural._container import (
    EXACT_CHUNK,
    FIELD,
    FIELD_CHUNK,
    METADATA_CHUNK,
    NAME_CHUNK,
    Chunk,
    Container,
    pack,
    unpack,
)
from lumefield.errors import FormatError, RunError, format_errors_of

Arrays = dict[str, NDArray[Any]]
_MAX_NUMBERS = 1 << 24
"""In all arrays, so that a decoder's memory stays below 1 GB."""
_PER_BYTE = 4096
"""Numbers per byte of a file, at most, so that memory stays in proportion."""
_FRONT_BITS = 17
"""Of a block before the coder's bytes, at most."""
_STATES = 1 << 13
"""Bytes of lanes' states and what else stands in front, at most."""
_PRESET, _MEMORY = 6, 1 << 26
"""Of XZ: level, and most bytes that a reader takes."""
_CODED = "coded"
"""Kind of arrays of float32 that lose precision; the others are named by their type."""
_KINDS = (_CODED, "float32", "uint8", "int32")


def encode_field(
    facts: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    costs: Mapping[str, NDArray[Any]],
    price: float,
    *,
    name: str = "",
) -> tuple[bytes, Arrays]:
    """A ``.lume`` file of a field, decoded and compared before it is returned, and what it holds.

    Args:
        facts: JSON-able; they come back as they are.
        arrays: float32, uint8 or int32, by name.
        costs: Of float32 arrays that may lose precision: squared error that a squared error of
            each number makes. The others are kept as they are.
        price: Squared error that one bit is worth; smaller is better and larger.
        name: Of the original, kept in the file where not empty.

    Raises:
        ValueError: If a number is not finite or too large, or an array of another type.
        RunError: If the file does not decode to what was meant: a bug.
    """
    blocks, meant, exact = list[Block](), Arrays(), list[bytes]()
    for key, value in arrays.items():
        if value.dtype.name not in _KINDS or not np.isfinite(value).all():
            raise ValueError(f"{key} of {value.dtype}, expected finite float32, uint8 or int32")
        if key not in costs:
            exact.append(np.ascontiguousarray(value).tobytes())
            meant[key] = value
            continue
        mine = quantised(to_rows(value), to_rows(np.asarray(costs[key], np.float32)), price)
        meant[key] = from_rows([block.floats() for block in mine], value.shape)
        blocks += mine
    kinds = {key: _CODED if key in costs else value.dtype.name for key, value in arrays.items()}
    head = {
        "facts": dict(facts),
        "arrays": [[key, kinds[key], *value.shape] for key, value in arrays.items()],
    }
    front, tensors = BitWriter(), {str(i): block.whole for i, block in enumerate(blocks)}
    front.put(np.array([block.differs for block in blocks], np.int64), 1)
    shapes = {key: whole.values.shape for key, whole in tensors.items()}
    chunks = [
        *([Chunk(NAME_CHUNK, name.encode())] if name else []),
        Chunk(METADATA_CHUNK, json.dumps(head, separators=(",", ":")).encode()),
        Chunk(EXACT_CHUNK, lzma.compress(b"".join(exact), preset=_PRESET)),
        Chunk(FIELD_CHUNK, packed_tensors(front, tensors, shapes)),
    ]
    data = pack(FIELD, None, chunks)
    back = decode_field(data)[1]
    if not all(np.array_equal(back[key], value) for key, value in meant.items()):
        raise RunError("the coded field does not decode to what was meant; report it")
    return data, back


def decode_field(data: bytes, source: str = "the data") -> tuple[dict[str, Any], Arrays]:
    """Facts and arrays of a field; the same bits on every machine.

    Args:
        data: The whole file.
        source: What to call the data in errors, such as the path.

    Raises:
        FormatError: If the data is not an intact field of this format.
    """
    with format_errors_of(source):
        container = unpack(data, FIELD)
        facts, kinds, shapes = _head(container.metadata(), len(data))
        return facts, _arrays(container, kinds, shapes)


def _head(
    record: dict[str, Any], size: int
) -> tuple[dict[str, Any], dict[str, str], dict[str, tuple[int, ...]]]:
    """Facts, types and shapes; checked before anything is allocated."""
    try:
        facts, rows = dict(record["facts"]), list(record["arrays"])
        kinds = {str(row[0]): str(row[1]) for row in rows}
        shapes = {str(row[0]): tuple(int(n) for n in row[2:]) for row in rows}
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise FormatError(f"has no list of arrays ({error!r}); {DAMAGED}") from None
    total = 0
    for key, shape in shapes.items():
        fits = kinds[key] in _KINDS and len(shape) <= 8 and min(shape, default=1) >= 0
        if not fits or max(shape, default=1) > _MAX_NUMBERS:
            raise FormatError(f"{key} of {kinds[key]} and shape {shape}; {DAMAGED}")
        count = 1
        for n in shape:
            count *= n
        total += count
    if len(shapes) != len(rows) or total > min(_MAX_NUMBERS, _PER_BYTE * size):
        raise FormatError(f"{total} numbers in {size} bytes, expected fewer; {DAMAGED}")
    return facts, kinds, shapes


def _arrays(
    container: Container, kinds: dict[str, str], shapes: dict[str, tuple[int, ...]]
) -> Arrays:
    counts = {key: int(np.prod(shape, dtype=np.int64)) for key, shape in shapes.items()}
    types = {key: np.dtype(kind) for key, kind in kinds.items() if kind != _CODED}
    exact = _exact(container, sum(counts[key] * kind.itemsize for key, kind in types.items()))
    parts = iter(_blocks(container, [n for k, n in counts.items() if k not in types]))
    found, at = Arrays(), 0
    for key, shape in shapes.items():
        if key in types:
            end = at + counts[key] * types[key].itemsize
            found[key] = np.frombuffer(exact[at:end], types[key]).reshape(shape)
            at = end
        else:
            found[key] = from_rows([next(parts) for _ in sizes_of(counts[key])], shape)
    return found


def _exact(container: Container, length: int) -> bytes:
    """Bytes of the arrays that are kept as they are."""
    chunk = next(container.all(EXACT_CHUNK), b"")
    try:
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)
        found = unpacker.decompress(chunk, length + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise FormatError(f"arrays that are exact do not unpack ({error}); {DAMAGED}") from None
    if len(found) != length:
        raise FormatError(f"arrays that are exact are not {length} bytes; {DAMAGED}")
    return found


def _blocks(container: Container, counts: list[int]) -> list[NDArray[np.float32]]:
    """The numbers of all blocks."""
    chunk = next(container.all(FIELD_CHUNK), b"")
    sizes = [size for count in counts for size in sizes_of(count)]
    front = chunk[: _STATES + _FRONT_BITS * len(sizes) // 8]
    reader = BitReader(np.unpackbits(np.frombuffer(front, np.uint8)))
    differs = reader.take_bits(len(sizes))
    shapes = {str(i): (size,) for i, size in enumerate(sizes)}
    wholes = unpacked_tensors(reader, chunk, shapes)
    return [
        Block(whole, bool(d)).floats() for whole, d in zip(wholes.values(), differs, strict=True)
    ]
