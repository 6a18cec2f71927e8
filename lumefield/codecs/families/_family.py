"""What a family of overfitted networks is: the row of the table that all the machinery reads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.families._ops import Ops, Parameters, Shapes, Tensor, Whole
from lumefield.codecs.neural._container import Picture
from lumefield.errors import FormatError

MAX_PARAMETERS = 1 << 23
"""Of a network."""
MAX_PIXELS, MAX_FRAMES = 1 << 24, 1 << 15
"""Of a picture or frame, and of a video: so that a decoder's memory stays below 1 GB."""
MAX_LOAD = 1 << 27
"""Pixels of a frame times the largest number of a layout, such as channels."""


class Number(NamedTuple):
    """A number of a layout, as the file holds it."""

    name: str
    low: int
    high: int
    wide: bool = True
    """Whether so many values may be held at once for each pixel of a frame."""


class Layout(NamedTuple):
    """The static sizes of a network: all that ``forward`` may know beside its parameters."""

    picture: Picture
    numbers: tuple[int, ...]
    """As many as the family declares, in its order."""


@dataclass(frozen=True)
class Recipe:
    """How a family is fitted."""

    rate: float = 1e-3
    """Adam's largest learning rate; it falls to a hundredth along a cosine."""
    warm: float = 0.0
    """Share of the steps in which the rate rises."""
    batch: int = 1
    """Items (pixels or frames) of a step."""
    steps: int = 1000
    """Of ``--effort standard``; ``fast`` takes a quarter, ``best`` five times as many."""
    finish: float = 0.0
    """Share of the steps, on top, that are fitted through the rounding of the weights."""
    probe: int = 4
    """Items on which the cost of rounding a tensor is measured."""
    bits: float = 8.0
    """Expected bits of a parameter in the file: what ``layout`` may count on."""


def _nothing(_: Layout) -> dict[str, Whole]:
    return {}


def _unseen(_: Layout, __: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    return {}


@dataclass(frozen=True)
class Family:
    """One row of the table: an architecture of the literature."""

    name: str
    content: Literal["image", "video"]
    source: str
    """Paper, and what we do otherwise."""
    identity: int
    """Number in the file; never given again."""
    numbers: tuple[Number, ...]
    """Layout numbers and their bounds: checked before anything is allocated."""
    layout: Callable[[Picture, float], Layout]
    """Of a picture and a number of bytes: the network whose file will have about that size."""
    shapes: Callable[[Layout], Shapes]
    """Tensors of the file by name, in their order."""
    start: Callable[[Tensor, Layout], dict[str, Tensor]]
    """(jax key, layout) -> first float32 values of these tensors."""
    inputs: Callable[[Layout], NDArray[np.float32]]
    """(items, ...): what ``forward`` is given of each pixel or frame."""
    forward: Callable[[Ops, Parameters, Layout, Tensor], Tensor]
    """(ops, parameters, layout, inputs (n, ...)) -> values in [0, 1]: (n, channels) of pixels, or
    (n, rows, columns, channels) of frames."""
    macs: Callable[[Layout], float]
    """Multiplications for one pixel of the decoded picture."""
    recipe: Recipe
    channels: tuple[int, ...] = (1, 2, 3, 4)
    """Numbers of channels that it can hold."""
    fixed: Callable[[Layout], Mapping[str, Whole]] = field(default=_nothing)
    """Parameters that are shipped, not in the file; ``forward`` sees them among the others."""

    seen: Callable[[Layout, NDArray[np.float32]], Mapping[str, NDArray[np.float32]]] = field(
        default=_unseen
    )
    """(layout, targets (items, ..., channels) in [0, 1]) -> better first values of some tensors."""

    def checked(self, layout: Layout) -> Layout:
        """The layout itself, after checking it.

        Raises:
            FormatError: If a number is out of bounds, or the network would be too large.
        """
        for number, value in zip(self.numbers, layout.numbers, strict=True):
            if not number.low <= value <= number.high:
                raise FormatError(
                    f"{self.name} with {number.name} {value}, expected {number.low} to "
                    f"{number.high}; the file is damaged"
                )
        if layout.picture.channels not in self.channels:
            raise FormatError(f"{self.name} with {layout.picture.channels} channels, expected RGB")
        fault = _too_wide(layout.picture) or self._too_large(layout)
        if fault:
            raise FormatError(f"{self.name} of {fault}; make it smaller")
        count = self.count(layout)
        if count > MAX_PARAMETERS:
            raise FormatError(f"{self.name} of {count} parameters, expected at most 2^23")
        return layout

    def count(self, layout: Layout) -> int:
        """Parameters in the file."""
        return sum(int(np.prod(shape, dtype=np.int64)) for shape in self.shapes(layout).values())

    def _too_large(self, layout: Layout) -> str:
        """What of the activations of a frame is too large, or ""; pictures are drawn in parts."""
        picture, pairs = layout.picture, zip(self.numbers, layout.numbers, strict=True)
        most = max(value for number, value in pairs if number.wide)
        if self.content == "image" or picture.rows * picture.columns * most <= MAX_LOAD:
            return ""
        return f"{most} for frames of {picture.columns} x {picture.rows}, expected 2^27 in all"


def _too_wide(picture: Picture) -> str:
    """What of a picture is too large, or ""."""
    if picture.rows * picture.columns > MAX_PIXELS:
        return f"{picture.columns} x {picture.rows} pixels, expected at most 2^24"
    if picture.frames > MAX_FRAMES:
        return f"{picture.frames} frames, expected at most {MAX_FRAMES}"
    return ""


def searched(
    picture: Picture,
    candidates: list[tuple[int, ...]],
    parameters: float,
    count: Callable[[Layout], int],
) -> Layout:
    """The layout among candidates whose number of parameters is nearest to the wanted one."""
    layouts = [Layout(picture, numbers) for numbers in candidates]
    return min(layouts, key=lambda layout: abs(np.log(count(layout) / max(parameters, 1.0))))
