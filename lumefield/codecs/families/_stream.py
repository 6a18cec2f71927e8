"""The network chunk of a ``.lume`` file: a family's layout and tensors to bytes and back.

Bits, most significant first::

    8   family
    16  each number of its layout
    ... its tensors, in its order (``_tensors``)
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from lumefield.codecs.families._family import Family, Layout
from lumefield.codecs.families._ops import Whole
from lumefield.codecs.families._table import by_identity
from lumefield.codecs.families._tensors import DAMAGED, packed_tensors, unpacked_tensors
from lumefield.codecs.neural._bits import BitReader, BitWriter
from lumefield.codecs.neural._container import Picture
from lumefield.errors import FormatError

_PER_BYTE = 4096
"""Parameters per byte of a chunk, at most, so that memory stays in proportion."""
_FRONT_BYTES = 1 << 20
"""More than what precedes the coder's bytes takes."""


class Network(NamedTuple):
    """A decoded chunk."""

    family: Family
    layout: Layout
    tensors: dict[str, Whole]


def network_chunk(family: Family, layout: Layout, tensors: Mapping[str, Whole]) -> bytes:
    """The chunk of a network.

    Raises:
        ValueError: If a tensor has another shape than its family says, or is out of bounds.
    """
    front = BitWriter()
    front.put(family.identity, 8)
    front.put(np.array(layout.numbers, np.int64), 16)
    return packed_tensors(front, tensors, family.shapes(layout))


def read_network(chunk: bytes, picture: Picture) -> Network:
    """The network of a chunk.

    Raises:
        FormatError: If the chunk is cut off, or holds what no encoder writes.
    """
    reader = BitReader(np.unpackbits(np.frombuffer(chunk[:_FRONT_BYTES], np.uint8)))
    family, layout = _layout(reader, picture, len(chunk))
    return Network(family, layout, unpacked_tensors(reader, chunk, family.shapes(layout)))


def _layout(reader: BitReader, picture: Picture, size: int) -> tuple[Family, Layout]:
    identity = reader.take(8)
    family = by_identity(identity)
    if family is None:
        raise FormatError(f"family {identity} of networks is not known; update lumefield to read")
    if (family.content == "video") != (picture.frames > 1 or picture.rate != 0):
        raise FormatError(f"{family.name} holds a {family.content}, the header says otherwise")
    layout = Layout(picture, tuple(reader.take(16) for _ in family.numbers))
    family.checked(layout)
    count = family.count(layout)
    if count > _PER_BYTE * size:
        raise FormatError(f"{count} parameters in {size} bytes, expected fewer; {DAMAGED}")
    return family, layout
