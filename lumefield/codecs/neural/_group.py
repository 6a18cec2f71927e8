"""A picture chunk of a video: one group of pictures, decodable alone.

The first frame is a picture as in ``_chunk``; the others are predicted (``_inter``), with networks
that they share. All latents of the group are one stream of the coder. Bits, the most significant
first::

    3   variant of the format of groups, 0
    10  frames - 1
    6   frames between anchors; 0: low delay (``_order``)
    5   width of the inter frames' synthesis - 1
    8   base model of the first frame
    3   its levels - 1
    4   width of its context network, as its index in ``CONTEXT_WIDTHS``
    5   width of its synthesis - 1
    4   log2 of the coder lanes
    L   which of its levels are coded, finest first
        for each inter frame in coding order: energies of the 5 levels of the residual and of the 5
        planes of motion, 0 to 15, each as the difference to that of the last frame of its layer,
        Exp-Golomb of order 0; after that of a plane, unless 0: 4 bits, which of its levels are
        coded, finest first
        context weights and biases of the first frame, then of the inter frames (if there are any)
        states of the lanes
    0   to the next whole byte
    ... bytes of the coder: first frame; then of each inter frame in coding order the planes of
        motion, and the residual, each coarsest level first; a level of energy 0 is not coded
    ... the other parameters of the first frame, then of the inter frames: what the lanes' last
        states carry, then these bytes
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.neural._base import base_model
from lumefield.codecs.neural._bits import BitReader, BitWriter
from lumefield.codecs.neural._chunk import coded_stream, fitting_lanes
from lumefield.codecs.neural._container import Picture
from lumefield.codecs.neural._decoders import (
    Backend,
    Decoders,
    Latents,
    Parts,
    Planes,
    decoders,
)
from lumefield.codecs.neural._inter import Frame, painter
from lumefield.codecs.neural._inter_model import (
    CHANNELS,
    LEVELS,
    MAX_ENERGY,
    InterModel,
    inter_base,
    inter_widths,
    motion_row,
)
from lumefield.codecs.neural._latents import Coded, code_latents
from lumefield.codecs.neural._levels import MAX_LANES, Level, pyramid
from lumefield.codecs.neural._model import CONTEXT_WIDTHS, ImageModel, Widths
from lumefield.codecs.neural._motion import KINDS, MOTION_LEVELS, PLANES, motion_sizes, reference
from lumefield.codecs.neural._order import Role, needed, roles
from lumefield.codecs.neural._parameters import (
    CONTEXT_GROUPS,
    PICTURE_GROUPS,
    read_groups,
    write_groups,
)
from lumefield.codecs.neural._rans import LOW, payload_of, read_states, write_states
from lumefield.errors import FormatError

INTER_CONTEXT = (*CONTEXT_GROUPS, ("E",))
INTER_PICTURE = (*PICTURE_GROUPS, ("gains",), ("units",))
_VARIANT = 0
_ENERGIES = LEVELS + PLANES
_MAX_PARAMETER_BYTES = 1 << 16
"""More than the parameters and states of any group take."""
_DAMAGED = "the file is cut off or damaged"


@dataclass(frozen=True)
class CodedFrame:
    """Latents of an inter frame as they will be decoded, and their symbols."""

    role: Role
    energies: tuple[int, ...]
    """Of the residual's levels, then of the planes of motion."""
    residual: Coded
    motion: list[Coded]

    @property
    def bits(self) -> float:
        """Ideal bits of all latents."""
        return sum(self.residual.bits) + sum(sum(plane.bits) for plane in self.motion)

    @property
    def frame(self) -> Frame:
        """What its picture is made from."""
        return Frame(self.role, self.residual.latents, [plane.latents for plane in self.motion])


class Intra(NamedTuple):
    """The first frame of a group."""

    model: ImageModel
    coded: Coded
    identity: int
    """Its base model."""


class _Header(NamedTuple):
    order: tuple[Role, ...]
    present: "list[_Present]"
    base: ImageModel
    context: ImageModel
    coded: tuple[bool, ...]
    inter_base: InterModel
    inter: InterModel
    """With the context network of the file."""
    states: NDArray[np.uint32]
    rest: bytes


def code_frame(
    model: InterModel, role: Role, residual: list[NDArray[Any]], motion: list[list[NDArray[Any]]]
) -> CodedFrame:
    """Symbols of an inter frame; latents that cannot be reached are clipped.

    Args:
        model: Shared networks.
        role: Which frame it is.
        residual: Whole numbers, finest level first.
        motion: Five pyramids of whole numbers.
    """
    energies = tuple(energy_of([level]) for level in residual)
    coded = code_latents(model.context_of(0, energies), residual)
    energies = tuple(
        0 if part is None else energy for part, energy in zip(coded.symbols, energies, strict=True)
    )
    moved, planes = list[int](), list[Coded]()
    for kind, plane in zip(KINDS, motion, strict=True):
        energy = energy_of(plane)
        network = model.context_of(motion_row(kind), (energy,) * MOTION_LEVELS)
        planes.append(code_latents(network, plane))
        moved.append(energy if any(part is not None for part in planes[-1].symbols) else 0)
    return CodedFrame(role, (*energies, *moved), coded, planes)


def energy_of(levels: list[NDArray[Any]]) -> int:
    """15 + 2 log2 of the mean size, 1 to 15; 0 where all is zero."""
    total = sum(int(np.abs(level.astype(np.int64)).sum()) for level in levels)
    if not total:
        return 0
    mean = total / sum(level.size for level in levels)
    return int(np.clip(np.rint(MAX_ENERGY + 2 * np.log2(mean)), 1, MAX_ENERGY))


def group_chunk(intra: Intra, model: InterModel, frames: list[CodedFrame], anchor: int) -> bytes:
    """The chunk of a group.

    Args:
        intra: Its first frame.
        model: Networks that the others share.
        frames: The others, in coding order.
        anchor: Structure that gives that order.
    """
    widths, base = intra.model.widths, base_model(intra.identity, intra.model.widths)
    shared = inter_base(model.widths)
    later = BitWriter()
    write_groups(later, PICTURE_GROUPS, intra.model, base)
    if frames:
        write_groups(later, INTER_PICTURE, model, shared)
    tail = later.bits()
    rows, columns = intra.coded.latents[0].shape
    size = (rows, columns)
    lanes = fitting_lanes(len(tail), min(size[0], -(-size[1] // 3)))
    writer = BitWriter()
    for value, width in (
        *((_VARIANT, 3), (len(frames), 10), (anchor, 6)),
        (model.widths.synthesis - 1, 5),
        *((intra.identity, 8), (widths.levels - 1, 3)),
        (CONTEXT_WIDTHS.index(widths.context), 4),
        *((widths.synthesis - 1, 5), (lanes.bit_length() - 1, 4)),
    ):
        writer.put(value, width)
    writer.put(np.array([part is not None for part in intra.coded.symbols], np.int64), 1)
    _write_energies(writer, frames)
    pyramids = [(intra.coded.symbols, pyramid(*size, widths.levels, lanes))]
    for frame in frames:
        moved = _motion_levels(size, lanes)
        pyramids += [(plane.symbols, moved) for plane in frame.motion]
        pyramids.append((frame.residual.symbols, pyramid(*size, LEVELS, lanes)))
    write_groups(writer, CONTEXT_GROUPS, intra.model, base)
    if frames:
        write_groups(writer, INTER_CONTEXT, model, shared)
    code = np.zeros(0, np.uint8)
    if any(part is not None for symbols, _ in pyramids for part in symbols):
        states, code, carried = coded_stream(pyramids, lanes, tail)
        tail = tail[carried:]
    else:
        states = np.full(lanes, 1 << LOW, np.uint64)
    write_states(writer, states)
    front = np.packbits(writer.bits()).tobytes()
    return front + code.tobytes() + np.packbits(tail).tobytes()


def decode_group(
    chunk: bytes, picture: Picture, frames: int, backend: Backend, wanted: set[int] | None = None
) -> dict[int, Planes]:
    """Pictures of a group by their place.

    Args:
        chunk: Its data.
        picture: What the file says of the video.
        frames: Frames of the group, by the index of the file.
        backend: Which decoder.
        wanted: Places of the frames to return; None: all. Only what they need is drawn.

    Raises:
        FormatError: If the chunk is not intact.
    """
    backends = decoders(backend)
    head = _header(chunk, picture)
    if len(head.order) + 1 != frames:
        raise FormatError(f"a group of {len(head.order) + 1} frames, the index says {frames}")
    latents, coded, tail = _all_latents(head, picture, backends)
    bits = BitReader(tail)
    widths = head.base.widths
    first = head.context.replace(**read_groups(bits, PICTURE_GROUPS, head.base, widths))
    model = head.inter
    if coded:
        shared = read_groups(bits, INTER_PICTURE, head.inter_base, head.inter.widths)
        model = dataclasses.replace(head.inter, **shared)
    keep = set(range(frames)) if wanted is None else wanted
    needs = needed(head.order, keep)
    planes = backends.planes(first, latents, picture.bits, picture.subsampled)
    found = {0: planes} if 0 in keep else {}
    references = {0: reference(planes, picture.bits)}
    paint = painter(backend)
    for i, frame in enumerate(coded):
        role = frame.role
        if role.place not in needs:
            continue
        both = (references[role.first], references[role.second])
        planes = paint(model, frame, both, picture.bits, picture.subsampled)
        if role.place in keep:
            found[role.place] = planes
        used = {place for later in coded[i + 1 :] for place in later.role[1:3]}
        references = {place: r for place, r in references.items() if place in used}
        if role.place in used:
            references[role.place] = reference(planes, picture.bits)
    return found


def _motion_levels(size: tuple[int, int], lanes: int) -> tuple[Level, ...]:
    rows, columns = motion_sizes(*size)[0]
    return pyramid(rows, columns, MOTION_LEVELS, lanes)


def _write_energies(writer: BitWriter, frames: list[CodedFrame]) -> None:
    last = dict[int, NDArray[np.int64]]()
    for frame in frames:
        layer, energies = frame.role.layer, np.array(frame.energies, np.int64)
        change = energies - last.get(layer, np.zeros(_ENERGIES, np.int64))
        last[layer] = energies
        for i in range(_ENERGIES):
            writer.put_golomb(change[i : i + 1], 0)
            if i >= LEVELS and energies[i]:
                flags = [part is not None for part in frame.motion[i - LEVELS].symbols]
                writer.put(np.array(flags, np.int64), 1)


class _Present(NamedTuple):
    """What of an inter frame is in the stream."""

    energies: tuple[int, ...]
    motion: tuple[tuple[bool, ...], ...]
    """By plane and level."""


def _read_energies(reader: BitReader, order: tuple[Role, ...]) -> list[_Present]:
    last, found = dict[int, list[int]](), list[_Present]()
    for role in order:
        before = last.get(role.layer, [0] * _ENERGIES)
        energies, motion = list[int](), list[tuple[bool, ...]]()
        for i in range(_ENERGIES):
            energies.append(before[i] + int(reader.take_golomb(1, 0)[0]))
            if not 0 <= energies[i] <= MAX_ENERGY:
                raise FormatError(f"an energy of {energies[i]}, expected 0 to 15; {_DAMAGED}")
            if i >= LEVELS:
                flags = reader.take(MOTION_LEVELS) if energies[i] else 0
                motion.append(tuple(bool(flags >> k & 1) for k in reversed(range(MOTION_LEVELS))))
        last[role.layer] = energies
        found.append(_Present(tuple(energies), tuple(motion)))
    return found


def _header(chunk: bytes, picture: Picture) -> _Header:
    reader = BitReader(np.unpackbits(np.frombuffer(chunk[:_MAX_PARAMETER_BYTES], np.uint8)))
    variant, count, anchor = reader.take(3), reader.take(10), reader.take(6)
    if variant != _VARIANT:
        raise FormatError(f"variant {variant} of groups is not known; update lumefield to read it")
    if picture.channels != CHANNELS:
        raise FormatError(f"a video of {picture.channels} channels, expected 3; {_DAMAGED}")
    synthesis, identity = reader.take(5) + 1, reader.take(8)
    levels, context = reader.take(3) + 1, CONTEXT_WIDTHS[reader.take(4)]
    hidden = reader.take(5) + 1
    widths = Widths(levels, context, hidden, picture.channels)
    lanes = 1 << reader.take(4)
    try:
        widths.check()
        base = base_model(identity, widths)
    except (KeyError, OSError, ValueError):
        raise FormatError(
            f"base model {identity} with {widths.levels} levels is not known; update lumefield to "
            "read it"
        ) from None
    if lanes > MAX_LANES:
        raise FormatError(f"{lanes} coder lanes, expected at most {MAX_LANES}; {_DAMAGED}")
    coded = tuple(bool(reader.take(1)) for _ in range(widths.levels))
    order = roles(count + 1, anchor)
    present = _read_energies(reader, order)
    arrays = read_groups(reader, CONTEXT_GROUPS, base, widths)
    shared = model = inter_base(inter_widths(synthesis))
    if order:
        more = read_groups(reader, INTER_CONTEXT, shared, shared.widths)
        model = dataclasses.replace(shared, **more)
    return _Header(
        order=order,
        present=present,
        base=base,
        context=base.replace(**arrays),
        coded=coded,
        inter_base=shared,
        inter=model,
        states=read_states(reader, lanes),
        rest=chunk[-(-reader.position // 8) :],
    )


class _Stream:
    """Decodes one pyramid after another from the stream of a group."""

    def __init__(self, head: _Header, backends: Decoders) -> None:
        self._backends, self._head = backends, head
        self.states, self.taken = head.states, 0

    def next(
        self, context: ImageModel, levels: tuple[Level, ...], coded: tuple[bool, ...]
    ) -> Latents:
        """Latents of a pyramid.

        Raises:
            FormatError: If the stream ends before.
        """
        if not any(coded):
            return [np.zeros((level.rows, level.columns), np.int8) for level in levels]
        rest = self._head.rest[self.taken :]
        parts = Parts(
            base=self._head.base,
            context=context,
            widths=context.widths,
            levels=levels,
            coded=coded,
            lanes=len(self.states),
            states=self.states,
            rest=rest,
        )
        found = self._backends.latents(parts)
        if found.taken > len(rest):
            raise FormatError(f"ends inside the latents; {_DAMAGED}")
        self.states, self.taken = np.asarray(found.states), self.taken + found.taken
        return found.latents


def _all_latents(
    head: _Header, picture: Picture, backends: Decoders
) -> tuple[Latents, list[Frame], NDArray[np.uint8]]:
    """Latents of the first frame and of the others, and the bits that follow."""
    stream, size, lanes = _Stream(head, backends), (picture.rows, picture.columns), len(head.states)
    intra = stream.next(head.context, pyramid(*size, len(head.coded), lanes), head.coded)
    frames = list[Frame]()
    for role, present in zip(head.order, head.present, strict=True):
        motion = list[Latents]()
        for plane, (kind, coded) in enumerate(zip(KINDS, present.motion, strict=True)):
            energy = present.energies[LEVELS + plane]
            context = head.inter.context_of(motion_row(kind), (energy,) * MOTION_LEVELS)
            motion.append(stream.next(context, _motion_levels(size, lanes), coded))
        energies = present.energies[:LEVELS]
        residual = stream.next(
            head.inter.context_of(0, energies),
            pyramid(*size, LEVELS, lanes),
            tuple(energy > 0 for energy in energies),
        )
        frames.append(Frame(role, residual, motion))
    tail = head.rest[stream.taken : stream.taken + _MAX_PARAMETER_BYTES]
    bits = np.unpackbits(np.frombuffer(tail, np.uint8))
    return intra, frames, np.concatenate([payload_of(stream.states), bits])
