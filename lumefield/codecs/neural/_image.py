"""One picture to ``.lume`` bytes and back, exactly."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.neural._base import base_model
from lumefield.codecs.neural._chunk import decode_chunk, picture_chunk
from lumefield.codecs.neural._container import (
    IMAGE,
    METADATA_CHUNK,
    NAME_CHUNK,
    NETWORK_CHUNK,
    PICTURE_CHUNK,
    Chunk,
    Container,
    Picture,
    pack,
    unpack,
)
from lumefield.codecs.neural._decoders import Backend, Planes, decoders
from lumefield.codecs.neural._latents import code_latents
from lumefield.codecs.neural._model import ImageModel
from lumefield.codecs.neural._parameters import parameter_bits
from lumefield.errors import FormatError, RunError, format_errors_of


@dataclass(frozen=True)
class Cost:
    """Where the bits of an image go."""

    parameters: int
    """Bits of all parameters, relative to the base."""
    levels: tuple[float, ...]
    """Ideal bits of the latents of each level, finest first."""

    @property
    def bits(self) -> float:
        """All bits but those of headers and rounding to bytes (under 64 bytes in all)."""
        return self.parameters + sum(self.levels)


def image_cost(model: ImageModel, latents: list[NDArray[Any]], base: int = 0) -> Cost:
    """What an image takes, without coding it.

    Args:
        model: Checked parameters.
        latents: Integers, finest level first.
        base: Base model.
    """
    coded = code_latents(model.check(), latents)
    bits = parameter_bits(model, base_model(base, model.widths))
    return Cost(bits, tuple(coded.bits))


def encode_image(
    model: ImageModel,
    latents: list[NDArray[Any]],
    picture: Picture,
    *,
    name: str = "",
    metadata: bytes = b"",
    base: int = 0,
    backend: Backend = "auto",
) -> bytes:
    """A ``.lume`` file of one picture, decoded and compared before it is returned.

    Args:
        model: Its networks.
        latents: Integers in [-127, 127], finest level first. One that its predicted distribution
            cannot reach is clipped to it.
        picture: What it is.
        name: Name of the original file, kept in the file where not empty.
        metadata: A JSON object of further facts, UTF-8, likewise.
        base: Base model that parameters are stored relative to.
        backend: Which decoder checks the result.

    Raises:
        ValueError: If model, latents and picture do not fit one another.
        RunError: If the file does not decode to the picture of the model: a bug.
    """
    model.check()
    picture.check()
    if model.widths.channels != picture.channels:
        raise ValueError(f"model has {model.widths.channels} channels, picture {picture.channels}")
    if latents[0].shape != (picture.rows, picture.columns):
        raise ValueError(
            f"latents of {latents[0].shape}, picture of {(picture.rows, picture.columns)}"
        )
    coded = code_latents(model, latents)
    chunks = [Chunk(NAME_CHUNK, name.encode())] if name else []
    chunks += [Chunk(METADATA_CHUNK, metadata)] if metadata else []
    chunks.append(Chunk(PICTURE_CHUNK, picture_chunk(model, coded, base)))
    data = pack(IMAGE, picture, chunks)
    found = decode_chunk(chunks[-1].data, picture, backend)
    meant = decoders(backend).planes(model, coded.latents, picture.bits, picture.subsampled)
    same = all(np.array_equal(a, b) for a, b in zip(found.latents, coded.latents, strict=True))
    if not same or not all(np.array_equal(a, b) for a, b in zip(found.planes, meant, strict=True)):
        raise RunError("the coded image does not decode to the picture it was made from; report it")
    return data


def decode_image(
    data: bytes, backend: Backend = "auto", *, source: str = "the data"
) -> tuple[Planes, Container]:
    """Planes of the picture in a ``.lume`` file, one per channel, and its header.

    Args:
        data: The whole file.
        backend: "native" (C++), "xla", "twin" (NumPy, slow), or "auto": native where it can be had,
            else xla. The result is the same.
        source: What to call the data in errors, such as the path.

    Returns:
        Planes of uint8 (8 bits) or uint16; rows x columns each, chroma of 4:2:0 half of that.

    Raises:
        FormatError: If the data is not an intact image of this format.
    """
    with format_errors_of(source):
        container = unpack(data, IMAGE)
        assert container.picture is not None, "an image has a picture"
        chunk = next(container.all(PICTURE_CHUNK), None)
        if chunk is None:
            return _of_network(container, container.picture, backend), container
        return decode_chunk(chunk, container.picture, backend).planes, container


def _of_network(container: Container, picture: Picture, backend: Backend) -> Planes:
    """Planes of a file that holds a network instead of a picture chunk."""
    network = next(container.all(NETWORK_CHUNK), None)
    if network is None:
        raise FormatError("has no picture chunk; the file is cut off")
    from lumefield.codecs.families import decode_planes  # which imports this room

    return next(decode_planes(network, picture, backend))
