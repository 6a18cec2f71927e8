"""The decoders of the image codec by name: NumPy twin, XLA, C++. All give the same numbers."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield import native
from lumefield.codecs.neural import _twin
from lumefield.codecs.neural._levels import Level
from lumefield.codecs.neural._model import ImageModel, Widths
from lumefield.codecs.neural._rans import Decoder

Backend = Literal["auto", "native", "xla", "twin"]
Latents = list[NDArray[np.int8]]
Planes = _twin.Planes


class Parts(NamedTuple):
    """A picture chunk, taken apart as far as that goes before its latents are decoded."""

    base: ImageModel
    context: ImageModel
    """The base with the context network of the file."""
    widths: Widths
    levels: tuple[Level, ...]
    coded: tuple[bool, ...]
    lanes: int
    states: NDArray[np.uint32]
    rest: bytes
    """Bytes of the coder and what follows them."""

    def code(self) -> NDArray[np.uint8]:
        """The rest as an array."""
        return np.frombuffer(self.rest, np.uint8)


class Stream(NamedTuple):
    """Result of decoding latents."""

    latents: Latents
    states: NDArray[np.uint32]
    taken: int
    """Bytes read."""


class Decoders(NamedTuple):
    """The two halves of a backend."""

    latents: Callable[[Parts], Stream]
    planes: Callable[[ImageModel, Latents, int, bool], Planes]
    """Of model, latents, bits per sample, and whether the chroma is subsampled."""


def _twin_decoders() -> Decoders:
    def latents(parts: Parts) -> Stream:
        decoder = Decoder(parts.states, parts.code())
        found = _twin.decode_latents(parts.context, parts.levels, parts.coded, parts.lanes, decoder)
        return Stream(found, decoder.states.astype(np.uint32), decoder.taken)

    def planes(model: ImageModel, found: Latents, bits: int, subsampled: bool) -> Planes:
        return _twin.synthesise(model, found, bits, subsampled=subsampled)

    return Decoders(latents, planes)


def _xla_decoders() -> Decoders:
    from lumefield.codecs.neural import _tiles, _wavefront

    def latents(parts: Parts) -> Stream:
        return Stream(
            *_wavefront.decode_latents(
                parts.context, parts.levels, parts.coded, parts.states, parts.code()
            )
        )

    return Decoders(latents, _tiles.synthesise)


def _native_decoders() -> Decoders:
    from lumefield.codecs.neural import _native

    def latents(parts: Parts) -> Stream:
        return Stream(
            *_native.decode_latents(
                parts.context, parts.levels, parts.coded, parts.states, parts.code()
            )
        )

    return Decoders(latents, _native.synthesise)


def decoders(name: Backend) -> Decoders:
    """The decoder of a name; "auto": native where it can be had, else xla.

    Raises:
        RuntimeError: If "native" cannot be had here.
    """
    if name == "auto":
        name = "xla" if native.library() is None else "native"
    makers = {"twin": _twin_decoders, "xla": _xla_decoders, "native": _native_decoders}
    return makers[name]()
