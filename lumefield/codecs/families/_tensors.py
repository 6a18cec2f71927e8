"""Tensors of integers to bytes and back: what every network of a ``.lume`` file is stored as.

Bits, most significant first::

    4   log2 of the coder lanes
        for each tensor, in its order:
    1       0: all its numbers are zero, and nothing follows
    5       fractional bits s: numbers are integers q times 2^-s
    4       plain bits k: the low bits of q, not coded
    6       scale: row of the table of Laplace distributions (``_laplace``) of floor(q / 2^k)
        states of the lanes (``_rans``)
    0   to the next whole byte
    ... bytes of the coder: the symbols of every tensor, in C order
    ... excess of symbols at the end of their row (Exp-Golomb of order 2), then the plain bits, both
        in coding order: what the lanes' last states carry, then these bytes

Numbers of a tensor take the lanes in turn. Shapes are known to who reads.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.families._ops import MAX_BITS, MAX_WEIGHT, Shapes, Whole
from lumefield.codecs.neural._bits import BitReader, BitWriter, golomb_lengths
from lumefield.codecs.neural._laplace import MEANS, PRECISION, cumulative, reach
from lumefield.codecs.neural._levels import MAX_LANES
from lumefield.codecs.neural._model import MAX_LATENT
from lumefield.codecs.neural._rans import Decoder, payload_of, read_states, write_states
from lumefield.codecs.neural._runs import Ints, Symbols, decode_alike, folded, unfolded
from lumefield.errors import FormatError

MAX_PLAIN = 12
DAMAGED = "the file is cut off or damaged"
_HEAD = (5, 4, 6)
_EXCESS_ORDER = 2
_EXCESS_BITS = 3
"""Of a symbol at the end of its row, at least."""
_STATE_BITS, _MOST_LANES = 27, 512
"""Of a lane's state; lanes that are written."""
_BITS_PER_LANE = 400
"""Coded bits that earn a bit of a lane's state: lanes cost 1/400 where nothing else fills them."""


class Head(NamedTuple):
    """What is stored of a tensor before its numbers."""

    bits: int
    """Fractional bits."""
    plain: int
    row: int


class Code(NamedTuple):
    """How the integers of a tensor are coded."""

    bits: float
    """Length, head included."""
    plain: int
    row: int


def code_of(values: Ints) -> Code:
    """The shortest code of a tensor's integers."""
    if not values.any():
        return Code(1.0, 0, 0)
    mean = float(np.abs(values).mean())
    first = max(0, int(np.ceil(np.log2(max(mean, 1.0) / 60.0))))
    found = [_coded(values, plain) for plain in range(first, min(first + 2, MAX_PLAIN + 1))]
    return min(found)


def _coded(values: Ints, plain: int) -> Code:
    high = values >> plain
    most = reach().astype(np.int64)
    count = np.bincount(np.clip(high, -MAX_LATENT, MAX_LATENT) + MAX_LATENT, minlength=255)
    q = np.arange(-MAX_LATENT, MAX_LATENT + 1)
    inside = np.clip(q, -most[:, None], most[:, None])
    lengths = np.take_along_axis(_lengths(plain), inside + MAX_LATENT, 1)
    total = lengths @ count
    best = np.argsort(total)[:4]
    found = list[Code]()
    for row in best.tolist():
        at_end = high[np.abs(high) >= most[row]]
        excess = golomb_lengths(unfolded(np.abs(at_end) - most[row]), _EXCESS_ORDER).sum()
        found.append(Code(float(total[row]) + excess + plain * values.size + 16, plain, row))
    return min(found)


@functools.cache
def _lengths(plain: int) -> NDArray[np.float64]:
    """(64, 255) bits of each symbol under each scale; infinite out of reach."""
    sums = cumulative()[:, mean_of(plain)].astype(np.float64)
    with np.errstate(divide="ignore"):
        return PRECISION - np.log2(np.diff(sums, axis=1))


def bits_of(values: Ints, code: Code) -> NDArray[np.float64]:
    """Bits of each integer under a code without plain bits; at the end of its reach, a few more."""
    most = int(reach()[code.row])
    inside = np.clip(values, -most, most)
    excess = np.where(np.abs(values) >= most, _EXCESS_BITS + np.abs(values) - most, 0)
    return _lengths(0)[code.row][inside + MAX_LATENT] + excess


def mean_of(plain: int) -> int:
    """Index of the mean of floor(q / 2^plain), where that of q is zero."""
    return MEANS // 2 - ((MEANS // 2) * ((1 << plain) - 1) + (1 << plain) // 2 >> plain)


def packed_tensors(front: BitWriter, tensors: Mapping[str, Whole], shapes: Shapes) -> bytes:
    """The bits of ``front``, then the tensors, as bytes.

    Raises:
        ValueError: If a tensor has another shape than it should, or is out of bounds.
    """
    writer, later, plains, widths = BitWriter(), BitWriter(), list[Ints](), list[int]()
    runs = list[tuple[Ints, int, Code]]()
    for name, shape in shapes.items():
        whole = tensors[name]
        _check(name, shape, whole)
        values = whole.values.ravel().astype(np.int64)
        code = code_of(values)
        writer.put(int(values.any()), 1)
        if not values.any():
            continue
        writer.put(np.array([whole.bits, code.plain, code.row]), np.array(_HEAD))
        plains.append(values & (1 << code.plain) - 1)
        widths.append(code.plain)
        runs.append((values >> code.plain, code.row * MEANS + mean_of(code.plain), code))
    payload_bits = sum(w * len(v) for v, w in zip(plains, widths, strict=True))
    coded_bits = sum(code.bits for _, _, code in runs)
    fitting = (payload_bits + int(coded_bits / _BITS_PER_LANE)) // _STATE_BITS
    lanes = 1 << max(1, min(fitting, _MOST_LANES)).bit_length() - 1
    symbols, rows = Symbols(lanes), cumulative().reshape(-1, cumulative().shape[-1])
    for values, row, code in runs:
        most = int(reach()[code.row])
        inside = np.clip(values, -most, most)
        at_end = np.abs(inside) == most
        later.put_golomb(unfolded(np.abs(values[at_end]) - most), _EXCESS_ORDER)
        starts = rows[row, inside + MAX_LATENT].astype(np.int64)
        symbols.put(starts, rows[row, inside + MAX_LATENT + 1] - starts)
    for values, width in zip(plains, widths, strict=True):
        later.put(values, width)
    payload = later.bits()
    states, coded, carried = symbols.coded(payload)
    front.put(lanes.bit_length() - 1, 4)
    between = BitWriter()
    write_states(between, states)
    head = np.packbits(np.concatenate([part.bits() for part in (front, writer, between)]))
    return head.tobytes() + coded.tobytes() + np.packbits(payload[carried:]).tobytes()


def _check(name: str, shape: tuple[int, ...], whole: Whole) -> None:
    if whole.values.shape != shape or not 0 <= whole.bits <= MAX_BITS:
        raise ValueError(
            f"{name} has shape {whole.values.shape} and {whole.bits} fractional bits, expected "
            f"{shape} and 0 to {MAX_BITS}"
        )
    if whole.values.size and np.abs(whole.values).max() > MAX_WEIGHT:
        raise ValueError(f"{name} reaches {np.abs(whole.values).max()}, at most {MAX_WEIGHT}")


def unpacked_tensors(reader: BitReader, chunk: bytes, shapes: Shapes) -> dict[str, Whole]:
    """The inverse of :func:`packed_tensors`.

    Args:
        reader: Bits of the chunk, those of ``front`` taken.
        chunk: All of its bytes.
        shapes: Of the tensors, in their order; bounded by who reads.

    Raises:
        FormatError: If the chunk is cut off, or holds what no encoder writes.
    """
    lanes = 1 << reader.take(4)
    if lanes > MAX_LANES:
        raise FormatError(f"{lanes} coder lanes, expected at most {MAX_LANES}; {DAMAGED}")
    heads = dict[str, Head | None]()
    for name in shapes:
        heads[name] = Head(*(reader.take(n) for n in _HEAD)) if reader.take(1) else None
        bits, plain, _ = heads[name] or (0, 0, 0)
        if bits > MAX_BITS or plain > MAX_PLAIN:
            raise FormatError(f"{bits} fractional and {plain} plain bits of a tensor; {DAMAGED}")
    return _tensors(reader, chunk, read_states(reader, lanes), heads, shapes)


def _tensors(
    reader: BitReader,
    chunk: bytes,
    states: NDArray[np.uint32],
    heads: Mapping[str, Head | None],
    shapes: Shapes,
) -> dict[str, Whole]:
    """All symbols first, then what of the integers stands behind them."""
    code = np.frombuffer(chunk[-(-reader.position // 8) :], np.uint8)
    decoder, tables = Decoder(states, code), cumulative().reshape(-1, cumulative().shape[-1])
    highs = dict[str, Ints]()
    for name, head in heads.items():
        if head is not None:
            size = int(np.prod(shapes[name], dtype=np.int64))
            table = tables[head.row * MEANS + mean_of(head.plain)]
            highs[name] = decode_alike(decoder, table, size) - MAX_LATENT
        if decoder.taken > len(code):
            raise FormatError(f"ends inside the parameters; {DAMAGED}")
    tail = np.unpackbits(code[decoder.taken :])
    rest = BitReader(np.concatenate([payload_of(decoder.states.astype(np.uint32)), tail]))
    for name, high in highs.items():
        head = heads[name]
        assert head is not None
        at_end = np.flatnonzero(np.abs(high) == reach()[head.row])
        if len(at_end):
            more = folded(rest.take_golomb(len(at_end), _EXCESS_ORDER))
            high[at_end] += np.sign(high[at_end]) * more
    found = dict[str, Whole]()
    for name, head in heads.items():
        if head is None:
            found[name] = Whole(np.zeros(shapes[name]), 0)
            continue
        high = highs[name]
        low = rest.take_bits(high.size * head.plain).reshape(high.size, head.plain)
        values = (high << head.plain) + low @ (1 << np.arange(head.plain)[::-1])
        if np.abs(values).max(initial=0) > MAX_WEIGHT:
            raise FormatError(f"{name} leaves +-{MAX_WEIGHT}; {DAMAGED}")
        found[name] = Whole(values.reshape(shapes[name]).astype(np.float64), head.bits)
    return found
