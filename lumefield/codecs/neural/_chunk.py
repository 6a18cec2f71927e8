"""The picture chunk of a ``.lume`` file: networks and latents of one picture.

Bits, most significant first::

    8   base model that the parameters are stored relative to (0: none)
    3   levels - 1
    4   width of the context network, as its index in ``CONTEXT_WIDTHS``
    5   width of the synthesis - 1
    4   log2 of the coder lanes
    L   which levels are coded, finest first; the others are zero
        if any is: context weights and biases (``_parameters``), states of the lanes (``_rans``)
    0   to the next whole byte
    ... bytes of the coder, if any level is coded
    ... filters, synthesis weights and biases: what the lanes' last states carry, then these bytes
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.neural._base import base_model
from lumefield.codecs.neural._bits import BitReader, BitWriter
from lumefield.codecs.neural._container import Picture
from lumefield.codecs.neural._decoders import Backend, Latents, Parts, Planes, Stream, decoders
from lumefield.codecs.neural._latents import Coded, Symbols
from lumefield.codecs.neural._levels import MAX_LANES, Level, places, pyramid
from lumefield.codecs.neural._model import CONTEXT_WIDTHS, ImageModel, Widths
from lumefield.codecs.neural._parameters import (
    CONTEXT_GROUPS,
    PICTURE_GROUPS,
    read_groups,
    write_groups,
)
from lumefield.codecs.neural._rans import (
    encode,
    loaded_states,
    payload_of,
    read_states,
    write_states,
)
from lumefield.errors import FormatError

_START = 3 << 23
"""First state of a trial run: the middle of an octave."""
_MAX_PARAMETER_BYTES = 1 << 15
"""More than the parameters and states of any model take."""
_MAX_CODED_LANES = 64


class Decoded(NamedTuple):
    """A decoded chunk."""

    latents: Latents
    planes: Planes


def decode_chunk(chunk: bytes, picture: Picture, backend: Backend) -> Decoded:
    """Latents and pixels.

    Raises:
        FormatError: If the chunk is not intact.
    """
    backends = decoders(backend)
    parts = taken_apart(chunk, picture)
    if any(parts.coded):
        stream = backends.latents(parts)
    else:
        zeros = [np.zeros((level.rows, level.columns), np.int8) for level in parts.levels]
        stream = Stream(zeros, parts.states, 0)
    if stream.taken > len(parts.rest):
        raise FormatError("ends inside the latents; the file is cut off or damaged")
    tail = parts.rest[stream.taken : stream.taken + _MAX_PARAMETER_BYTES]
    bits = np.concatenate([payload_of(stream.states), np.unpackbits(np.frombuffer(tail, np.uint8))])
    arrays = read_groups(BitReader(bits), PICTURE_GROUPS, parts.base, parts.widths)
    model = parts.context.replace(**arrays)
    return Decoded(
        stream.latents, backends.planes(model, stream.latents, picture.bits, picture.subsampled)
    )


def taken_apart(chunk: bytes, picture: Picture) -> Parts:
    """What a chunk holds before its latents are decoded.

    Raises:
        FormatError: If the chunk is cut off, or holds numbers that no encoder writes.
    """
    head = np.frombuffer(chunk[:_MAX_PARAMETER_BYTES], np.uint8)
    reader = BitReader(np.unpackbits(head))
    identity = reader.take(8)
    levels, context = reader.take(3) + 1, CONTEXT_WIDTHS[reader.take(4)]
    synthesis = reader.take(5) + 1
    lanes = 1 << reader.take(4)
    widths = Widths(levels, context, synthesis, picture.channels)
    try:
        widths.check()
        base = base_model(identity, widths)
    except (KeyError, OSError, ValueError):
        raise FormatError(
            f"base model {identity} with {levels} levels is not known; update lumefield to read it"
        ) from None
    if lanes > MAX_LANES:
        raise FormatError(f"{lanes} coder lanes, expected at most {MAX_LANES}; the file is damaged")
    coded = tuple(bool(reader.take(1)) for _ in range(levels))
    states, arrays = np.zeros(0, np.uint32), dict[str, NDArray[np.int32]]()
    if any(coded):
        arrays = read_groups(reader, CONTEXT_GROUPS, base, widths)
        states = read_states(reader, lanes)
    return Parts(
        base=base,
        context=base.replace(**arrays),
        widths=widths,
        levels=pyramid(picture.rows, picture.columns, levels, lanes),
        coded=coded,
        lanes=lanes,
        states=states,
        rest=chunk[-(-reader.position // 8) :],
    )


def picture_chunk(model: ImageModel, coded: Coded, identity: int) -> bytes:
    """The chunk of a model and its latents, relative to a base model."""
    widths, base = model.widths, base_model(identity, model.widths)
    later = BitWriter()
    write_groups(later, PICTURE_GROUPS, model, base)
    tail = later.bits()
    rows, columns = coded.latents[0].shape
    lanes = fitting_lanes(len(tail), min(rows, -(-columns // 3)))
    writer = BitWriter()
    for value, width in (
        (identity, 8),
        (widths.levels - 1, 3),
        (CONTEXT_WIDTHS.index(widths.context), 4),
        (widths.synthesis - 1, 5),
        (lanes.bit_length() - 1, 4),
    ):
        writer.put(value, width)
    writer.put(np.array([part is not None for part in coded.symbols], np.int64), 1)
    code = np.zeros(0, np.uint8)
    if any(part is not None for part in coded.symbols):
        write_groups(writer, CONTEXT_GROUPS, model, base)
        levels = pyramid(rows, columns, widths.levels, lanes)
        states, code, carried = coded_stream([(coded.symbols, levels)], lanes, tail)
        write_states(writer, states)
        tail = tail[carried:]
    front = np.packbits(writer.bits()).tobytes()
    return front + code.tobytes() + np.packbits(tail).tobytes()


def fitting_lanes(payload: int, wave: int) -> int:
    """A power of two: no more lanes than the payload can fill (27 bits each), nor than are busy."""
    most = max(1, min(payload // 27, _MAX_CODED_LANES, wave))
    return 1 << (most.bit_length() - 1)


def coded_stream(
    pyramids: list[tuple[list[Symbols | None], tuple[Level, ...]]],
    lanes: int,
    payload: NDArray[np.uint8],
) -> tuple[NDArray[np.uint64], NDArray[np.uint8], int]:
    """States and bytes of a decoder that yields the symbols; how many payload bits they carry.

    Args:
        pyramids: Symbols and levels of each pyramid, in the order of decoding; not all empty.
        lanes: Coder lanes.
        payload: Bits that the states may carry.
    """
    starts, sizes, lane, groups = _in_order(pyramids, lanes)
    trial = np.full(lanes, _START, np.uint64)
    ends, _ = encode(starts, sizes, lane, groups, trial)
    first, carried = loaded_states(payload, ends, _START)
    states, code = encode(starts, sizes, lane, groups, first)
    return states, code, carried


def _in_order(
    pyramids: list[tuple[list[Symbols | None], tuple[Level, ...]]], lanes: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
    """Start, size and lane of symbols in the order of decoding, and groups: see ``encode``."""
    starts, sizes, lane, group = ([] for _ in range(4))
    before = 0
    for symbols, levels in pyramids:
        for part, level in zip(reversed(symbols), reversed(levels), strict=True):
            if part is None:
                continue
            where = places(level, 0, level.steps)
            step, slot = np.nonzero(where.active)
            row, column = where.row[step, slot], where.column[step, slot]
            starts.append(part.starts[row, column])
            sizes.append(part.sizes[row, column])
            lane.append(slot % lanes)
            group.append(before + step * (level.slots // lanes) + slot // lanes)
            before = group[-1][-1] + 1
    groups = np.concatenate(group)
    borders = np.flatnonzero(np.diff(groups, prepend=-1))
    return (
        np.concatenate(starts).astype(np.uint64),
        np.concatenate(sizes).astype(np.uint64),
        np.concatenate(lane),
        np.append(borders, len(groups)),
    )
