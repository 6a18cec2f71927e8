"""The splats chunk of a ``.lume`` file: numbers of a scene to bytes and back, exactly.

Bits, most significant first::

    32  Gaussians; all have at most 24 numbers for every byte of the chunk
    3   degree of the harmonics
    1   whether the scene is drawn antialiased
    5   depth of the tree of cells
    4   log2 of the coder lanes
    3   zero
    128 corner of the cube (three float32) and its side (float32)
    32  bytes before the coder's, this head included
    ... model (``_model``), tables of the tree (``_tree``), states of the lanes (``_rans``)
    ... for each level of the tree: a bit per box of one, then plain bits of large boxes
    ... excess of symbols at the end of a table's row (Exp-Golomb of order 2), in coding order
    0   to the next whole byte
    ... bytes of the coder: levels of the tree, then the blocks of ``_walk``
    ... bits of positions within their cells: what the lanes' last states carry, then these bytes

Symbols of one level, or of one channel of a block, take the lanes in turn.
"""

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.neural._bits import BitReader, BitWriter
from lumefield.codecs.neural._laplace import MEANS, cumulative, reach
from lumefield.codecs.neural._levels import MAX_LANES
from lumefield.codecs.neural._model import MAX_LATENT
from lumefield.codecs.neural._rans import Decoder, payload_of, read_states, write_states
from lumefield.codecs.neural._runs import Symbols, decode_run, folded, packed, unfolded, unpacked
from lumefield.codecs.scene import _tree
from lumefield.codecs.scene._model import (
    Ints,
    SceneModel,
    facts_of,
    groups_of,
    linear,
    read_model,
    write_model,
)
from lumefield.codecs.scene._walk import rows_of, walk
from lumefield.errors import FormatError

MAX_DEGREE = 4
_NUMBERS = 24
"""Numbers per byte of a chunk, at most, so that memory stays in proportion; real ones have 5."""
MOST_FINER = 15
"""Bits of a position below its cell, at most."""
_EXCESS_ORDER = 2
_HEAD = 32 + 16 + 128 + 32
_DAMAGED = "the file is cut off or damaged"


class Coded(NamedTuple):
    """A scene as integers."""

    model: SceneModel
    antialiased: bool
    corner: tuple[float, float, float]
    """Of the cube, float32 values."""
    side: float
    depth: int
    cells: Ints
    """(N, 3) in Morton order."""
    values: NDArray[np.int32]
    """(N, channels)."""
    below: Ints
    """(N, 3) position within the cell, in 2^-finer of it."""

    def finer(self) -> Ints:
        """(N,) bits of a position below its cell."""
        facts = facts_of(self.values.astype(np.int64), self.model.groups)
        return np.clip(linear(self.model.finer, facts), 0, MOST_FINER)


def decode(chunk: bytes) -> Coded:
    """A scene as integers.

    Raises:
        FormatError: If the chunk is cut off, or holds numbers that no encoder writes.
    """
    head = BitReader(np.unpackbits(np.frombuffer(chunk[: _HEAD // 8 + 1], np.uint8)))
    count, degree, antialiased = head.take(32), head.take(3), bool(head.take(1))
    depth, lanes, zero = head.take(5), 1 << head.take(4), head.take(3)
    corner = struct.unpack(">4f", head.take(128).to_bytes(16, "big"))
    front = head.take(32)
    fault = _fault(count, degree, depth, lanes, corner, front, len(chunk))
    if zero and not fault:
        fault = "bits that are kept for later are set, expected zeros"
    if fault:
        raise FormatError(f"{fault}; {_DAMAGED}")
    reader = BitReader(np.unpackbits(np.frombuffer(chunk[:front], np.uint8)))
    reader.position = _HEAD
    model, tables = read_model(reader, degree), _tree.read_tables(reader)
    code = np.frombuffer(chunk[front:], np.uint8)
    decoder = Decoder(read_states(reader, lanes), code)
    cells = _tree.grow(count, depth, _filler(decoder, reader, tables))
    rows, of_bins = cumulative().reshape(-1, cumulative().shape[-1]), rows_of(model)

    def visit(targets: Ints, channel: int, guess: Ints, shift: Ints, size: Ints) -> Ints:
        del targets, guess, shift
        row = of_bins[channel][size]
        q = decode_run(decoder, rows, row) - MAX_LATENT
        at_end = np.flatnonzero(np.abs(q) == reach()[row // MEANS])
        if len(at_end):
            more = reader.take_golomb(len(at_end), _EXCESS_ORDER)
            q[at_end] += np.sign(q[at_end]) * folded(more)
        return q

    values = walk(model, cells, visit)
    found = Coded(
        model, antialiased, corner[:3], corner[3], depth, cells, values, np.zeros((0, 3), np.int64)
    )
    if decoder.taken > len(code):
        raise FormatError(f"ends inside the Gaussians; {_DAMAGED}")
    tail = np.unpackbits(code[decoder.taken :])
    bits = np.concatenate([payload_of(decoder.states.astype(np.uint32)), tail])
    return found._replace(below=unpacked(bits, _widths(found.finer())).reshape(-1, 3))


def encode_chunk(coded: Coded, q: list[tuple[Ints, Ints]], lanes: int) -> bytes:
    """The chunk of a scene.

    Args:
        coded: Its integers.
        q: Symbol with excess, and row of the Laplace table, of every run in coding order.
        lanes: Power of two, at most 1024.
    """
    levels = _tree.splits(coded.cells, coded.depth)
    writer, later, symbols = BitWriter(), BitWriter(), Symbols(lanes)
    count = len(coded.cells)
    write_model(writer, coded.model)
    tables = _tree.write_tables(writer, levels)
    for split in levels:
        single, many = split.counts == 1, split.counts > 1
        later.put(1 - split.lower[single], 1)
        counts, lower = split.counts[many], split.lower[many]
        symbol, table = _tree.symbols_of(counts, lower), _tree.table_of(counts, split.alone[many])
        low, high = _tree.ranges(counts, symbol)
        spare = np.where(counts >= _tree.PARTS, _tree.spare_bits(low, high), 0)
        later.put((lower - low)[spare > 0], spare[spare > 0])
        starts = tables[table, symbol]
        symbols.put(starts.astype(np.int64), (tables[table, symbol + 1] - starts).astype(np.int64))
    rows = cumulative().reshape(-1, cumulative().shape[-1])
    for value, row in q:
        most = reach()[row // MEANS].astype(np.int64)
        inside = np.clip(value, -most, most)
        at_end = np.abs(inside) == most
        later.put_golomb(unfolded(np.abs(value[at_end]) - most[at_end]), _EXCESS_ORDER)
        starts = rows[row, inside + MAX_LATENT].astype(np.int64)
        symbols.put(starts, rows[row, inside + MAX_LATENT + 1] - starts)
    payload = packed(coded.below.ravel(), _widths(coded.finer()))
    states, code, carried = symbols.coded(payload)
    write_states(writer, states)
    rest = np.concatenate([writer.bits(), later.bits()])
    front = -(-(_HEAD + len(rest)) // 8)
    head = BitWriter()
    for value, width in (
        (count, 32), (coded.model.degree, 3), (int(coded.antialiased), 1), (coded.depth, 5),
        (lanes.bit_length() - 1, 4), (0, 3),
    ):  # fmt: skip
        head.put(value, width)
    box = struct.pack(">4f", *coded.corner, coded.side)
    head.put(np.frombuffer(box, np.uint8), 8)
    head.put(front, 32)
    bits = np.packbits(np.concatenate([head.bits(), rest])).tobytes()
    data = bits + code.tobytes() + np.packbits(payload[carried:]).tobytes()
    least = -(-count * groups_of(coded.model.degree)[-1].stop // _NUMBERS)
    return data.ljust(least, b"\0")


def _fault(
    count: int,
    degree: int,
    depth: int,
    lanes: int,
    corner: tuple[float, ...],
    front: int,
    size: int,
) -> str:
    """What no encoder writes, or ""."""
    if degree > MAX_DEGREE or depth > _tree.MAX_DEPTH or lanes > MAX_LANES:
        return (
            f"degree {degree}, depth {depth}, {lanes} lanes; expected at most {MAX_DEGREE}, "
            f"{_tree.MAX_DEPTH}, {MAX_LANES}"
        )
    if count * groups_of(degree)[-1].stop > _NUMBERS * size:
        return f"{count} Gaussians in {size} bytes, expected at most {_NUMBERS} numbers per byte"
    if not np.isfinite(corner).all() or corner[3] < 0:
        return f"a cube at {corner[:3]} of side {corner[3]}, expected finite numbers"
    if front > size:
        return f"{front} bytes before the coder's, the chunk has {size}"
    return ""


def _filler(decoder: Decoder, reader: BitReader, tables: NDArray[np.int32]) -> _tree.Fill:
    def fill(counts: Ints, alone: NDArray[np.bool_]) -> Ints:
        lower, many = np.zeros(len(counts), np.int64), counts > 1
        single = np.flatnonzero(~many)
        lower[single] = 1 - reader.take_bits(len(single))
        n = counts[many]
        symbol = decode_run(decoder, tables, _tree.table_of(n, alone[many]))
        low, high = _tree.ranges(n, symbol)
        spare = np.where(n >= _tree.PARTS, _tree.spare_bits(low, high), 0)
        value = np.where(n >= _tree.PARTS, low, symbol)
        for i in np.flatnonzero(spare):
            value[i] += reader.take(int(spare[i]))
        lower[many] = np.minimum(value, n)
        return lower

    return fill


def _widths(finer: Ints) -> Ints:
    """Bits of x, y and z of every Gaussian."""
    return np.repeat(finer, 3)
