"""A picture or a video to the ``.lume`` file of a network: fit, round, finish, code, verify."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.families._decode import decode_planes, network_planes, whole_of
from lumefield.codecs.families._family import Family, Layout
from lumefield.codecs.families._ops import Whole
from lumefield.codecs.families._quantise import Choices, allotted, choices_of, rounded
from lumefield.codecs.families._stream import Network, network_chunk
from lumefield.codecs.neural._container import (
    AUDIO_CHUNK,
    IMAGE,
    METADATA_CHUNK,
    NAME_CHUNK,
    NETWORK_CHUNK,
    VIDEO,
    Chunk,
    Picture,
    pack,
    unpack,
)
from lumefield.codecs.neural._decoders import Planes
from lumefield.errors import FormatError, InputError, RunError

Progress = Callable[[int, int, float], None]
"""(steps done, steps in all, PSNR of the last ones)."""
EFFORTS = {"fast": 0.25, "standard": 1.0, "best": 5.0}
"""Share of the steps of a family's recipe."""
_OVERHEAD = 8 * 40
"""Bits of headers, about."""
_ROOM = 0.985
"""Share of the bytes that is aimed at where fitting goes on afterwards, which adds some."""
_ROUNDS = 6
"""Times that bits are allotted, at most: estimates are off by some bytes."""


@dataclass(frozen=True)
class Fitted:
    """A coded picture or video."""

    data: bytes
    """The ``.lume`` file."""
    psnr: float
    """Of the decoded file, dB; of videos the mean over frames of Y', Cb, Cr with weights 6 1 1."""
    float_psnr: float
    """Of the network before rounding, on the items of the probe."""
    bits_per_pixel: float
    """Of a frame's pixels."""
    parameters: int
    """Numbers in the file."""
    macs: float
    """Multiplications per pixel of a frame."""
    layout: tuple[int, ...]
    seconds: tuple[float, float]
    """Of the encoder and of decoding once."""


def compress_network(
    frames: list[Planes],
    picture: Picture,
    family: Family,
    size: float,
    *,
    effort: float = 1.0,
    layout: Layout | None = None,
    name: str = "",
    metadata: bytes = b"",
    audio: bytes = b"",
    seed: int = 0,
    progress: Progress | None = None,
) -> Fitted:
    """Compress by a network of the literature; what is returned has been decoded and compared.

    Args:
        frames: Planes of the picture, or of every frame.
        picture: Header.
        family: Which network.
        size: Wanted bytes of the file, sound not counted.
        effort: Share of the steps of the family's recipe, see :data:`EFFORTS`.
        layout: Sizes of the network; None: those that fit the bytes.
        name: Name of the original file.
        metadata: JSON object, UTF-8.
        audio: Matroska file with the sound alone.
        seed: Of first values and of the order of pixels or frames.
        progress: Told as it goes.

    Raises:
        InputError: If the family cannot hold such a picture.
        RunError: If the file does not decode to the network's pixels: a bug.
    """
    from lumefield.codecs.families import _fit  # loads jax

    begun = time.monotonic()
    try:
        layout = family.checked(layout or family.layout(picture, size))
    except FormatError as error:
        raise InputError(f"{error}; convert the picture, or take another method") from None
    data = _fit.Data(*_data(frames, layout, family))
    steps = max(1, round(family.recipe.steps * effort))
    plan = _fit.Plan(steps, round(steps * family.recipe.finish), seed, progress)
    state = _fit.fit_network(family, layout, _fit.first_state(family, layout, data, plan), plan)
    error_of = _fit.probe(family, layout, data)
    tensors = _arrays(state.scene, family, layout)
    before = error_of(dict(tensors))
    choices = choices_of(tensors, error_of)
    chunks = [Chunk(NAME_CHUNK, name.encode())] if name else []
    chunks += [Chunk(METADATA_CHUNK, metadata)] if metadata else []

    def packed(wholes: dict[str, Whole], sound: bytes = b"") -> bytes:
        network = Chunk(NETWORK_CHUNK, network_chunk(family, layout, wholes))
        after = [Chunk(AUDIO_CHUNK, sound)] if sound else []
        content = IMAGE if family.content == "image" else VIDEO
        return pack(content, picture, [*chunks, network, *after])

    aim = size * (_ROOM if plan.finish else 1.0)
    fractions = _fractions(choices, tensors, aim, lambda wholes: len(packed(wholes)))
    wholes = {k: rounded(v, fractions[k]) for k, v in tensors.items()}
    if plan.finish:
        state = _fit.fit_rounded(family, layout, state, fractions, plan)
        tensors = _arrays(state.scene, family, layout)
        wholes = {k: rounded(v, fractions[k]) for k, v in tensors.items()}
    file = packed(wholes, audio)
    encoded = time.monotonic() - begun
    decoded, seconds = _verified(file, Network(family, layout, wholes))
    pixels = picture.rows * picture.columns * picture.frames
    return Fitted(
        data=file,
        psnr=float(np.mean([psnr_of(a, b, picture) for a, b in zip(decoded, frames, strict=True)])),
        float_psnr=-10 * float(np.log10(max(before, 1e-12))),
        bits_per_pixel=8 * (len(file) - len(audio)) / pixels,
        parameters=family.count(layout),
        macs=family.macs(layout),
        layout=layout.numbers,
        seconds=(encoded, seconds),
    )


def _fractions(
    choices: Choices,
    tensors: Mapping[str, NDArray[np.float32]],
    size: float,
    size_of: Callable[[dict[str, Whole]], int],
) -> dict[str, int]:
    """Steps of the largest file within ``size`` bytes, or of the smallest where none is."""
    budget, found = 8 * size - _OVERHEAD, list[tuple[bool, float, dict[str, int]]]()
    for _ in range(_ROUNDS):
        fractions = allotted(choices, budget)
        over = size_of({k: rounded(v, fractions[k]) for k, v in tensors.items()}) - size
        found.append((over <= 0, -abs(over), fractions))
        if -0.01 * size <= over <= 0:
            break
        budget -= 8 * over + (64 if over > 0 else 0)
    return max(found, key=lambda row: row[:2])[2]


def channel_weights(picture: Picture) -> NDArray[np.float64]:
    """Importance of the channels; sums to 1. Of 4:2:0: as the video codec counts them."""
    if picture.subsampled:
        return np.array([6, 1, 1]) / 8
    return np.full(picture.channels, 1 / picture.channels)


def psnr_of(a: Planes, b: Planes, picture: Picture) -> float:
    """PSNR of two frames in dB of full range; at most about 125."""
    errors = [float(np.square(x.astype(np.float64) - y).mean()) for x, y in zip(a, b, strict=True)]
    full = float((1 << picture.bits) - 1)
    return float(10 * np.log10(full**2 / max(float(channel_weights(picture) @ errors), 1e-8)))


def _data(
    frames: list[Planes], layout: Layout, family: Family
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Inputs, targets and weights of the channels."""
    picture = layout.picture
    full = np.float32((1 << picture.bits) - 1)
    whole = np.stack([whole_of(planes) for planes in frames]).astype(np.float32) / full
    targets = whole.reshape(-1, picture.channels) if family.content == "image" else whole
    return family.inputs(layout), targets, channel_weights(picture).astype(np.float32)


def _arrays(scene: Any, family: Family, layout: Layout) -> dict[str, NDArray[np.float32]]:  # noqa: ANN401
    return {name: np.asarray(scene[name]) for name in family.shapes(layout)}


def _verified(file: bytes, network: Network) -> tuple[list[Planes], float]:
    """Frames of the file, and the seconds that decoding took.

    Raises:
        RunError: If they are not those of the network.
    """
    begun = time.monotonic()
    chunk = next(unpack(file).all(NETWORK_CHUNK))
    decoded = list(decode_planes(chunk, network.layout.picture, "auto"))
    seconds = time.monotonic() - begun
    meant = network_planes(network)
    for found, planes in zip(decoded, meant, strict=True):
        if not all(np.array_equal(a, b) for a, b in zip(found, planes, strict=True)):
            raise RunError("the coded network does not decode to its own pixels; report it")
    return decoded, seconds
