"""The numbers of an image codec's networks: integers with declared shapes and bounds.

The decoder is exact: every operation is int32 (NumPy twin: int64) and the bounds below keep every
sum inside 32 bits, so the pixels are the same on every machine. The bounds of the sums:

* context hidden 1: 17 * 4095 * 127 + 65535 < 2^24; hidden 2: 24 * 4095 * 16383 + 65535 * 256 < 2^31
* synthesis hidden: 7 * 4095 * 32767 < 2^31; second layer: 32 * 4095 * 16383 + 128 < 2^31
* residual 3x3: 9 * 4 * 4095 * 8191 < 2^31; upsampling: 4 * 2047 * 131071 < 2^31

Letters of all files here: L levels (0 the finest), K = 17 context inputs, A width of the context
network, S width of the synthesis, C channels. Weights have 10 fractional bits (1.0 is 1024).
``rshift(v, n)`` is v / 2^n rounded to the nearest integer, halves up.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NEIGHBOURS = tuple(
    sorted(
        [(dr, dc) for dr in (-2, -1) for dc in range(-2, 3)] + [(0, -2), (0, -1)],
        key=lambda o: (o[0] ** 2 + o[1] ** 2, o),
    )
)
"""(row, column) offsets of the 12 causal neighbours in the order of the context inputs."""
INPUTS = len(NEIGHBOURS) + 5
"""K: the neighbours, four cells of the next coarser level, one of the level after it."""
MAX_LATENT = 127
MAX_WEIGHT = 4095
MAX_BIAS = (1 << 16) - 1
MAX_FILTER = 2047
MAX_LEVELS = 7
CONTEXT_WIDTHS = (*range(1, 16), 24)
"""Features of the context network that 4 bits of the file can say."""
MAX_SYNTHESIS = 32
MAX_CHANNELS = 4
MAX_HIDDEN = (1 << 14) - 1
"""Hidden activations (8 fractional bits) are clipped here: 64.0."""
MAX_VALUE = (1 << 15) - 1
"""Inputs of the synthesis (8 fractional bits) and its outputs (10) are clipped to +- this."""
MAX_UPSAMPLED = (1 << 17) - 1
MAX_GAIN = 1023
"""Largest value of a latent of an inter frame: 127 of them stay below the bound of upsampling."""
MAX_RESIDUAL = (1 << 13) - 1
FULL_BITS = 14
"""Full range of a pixel is 2^14 in the synthesis."""

_BOUNDS = {
    **dict.fromkeys(("W1", "W2", "W3", "V", "X1", "X2", "Y", "G"), MAX_WEIGHT),
    **dict.fromkeys(("b1", "b2", "b3", "c1", "c2", "g"), MAX_BIAS),
    "u": MAX_FILTER,
    **{"E": MAX_BIAS, "gains": MAX_GAIN, "units": MAX_GAIN},
}
NAMES = ("W1", "W2", "W3", "V", "b1", "b2", "b3", "u", "X1", "X2", "Y", "G", "c1", "c2", "g")
"""Every array of a model, in the order of the file."""


@dataclass(frozen=True)
class Widths:
    """The sizes that all shapes of a model follow from."""

    levels: int
    context: int
    synthesis: int
    channels: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every array."""
        n, a, s, c = self.levels, self.context, self.synthesis, self.channels
        return {
            **{"W1": (a, INPUTS), "W2": (a, a), "W3": (2, a), "V": (2, INPUTS)},
            **{"b1": (n, a), "b2": (a,), "b3": (2,), "u": (n - 1, 4)},
            **{"X1": (s, n), "X2": (c, s), "Y": (c, n), "G": (2, c, c, 3, 3)},
            **{"c1": (s,), "c2": (c,), "g": (2, c)},
        }

    def check(self) -> None:
        """Complain about sizes that the format cannot hold.

        Raises:
            ValueError: If one is out of range.
        """
        limits = {"levels": MAX_LEVELS, "synthesis": MAX_SYNTHESIS, "channels": MAX_CHANNELS}
        for name, limit in limits.items():
            if not 1 <= getattr(self, name) <= limit:
                raise ValueError(f"{name}={getattr(self, name)}, expected 1 to {limit}")
        if self.context not in CONTEXT_WIDTHS:
            raise ValueError(f"context={self.context}, expected one of {CONTEXT_WIDTHS}")


@dataclass(frozen=True)
class ImageModel:
    """Integer parameters of one picture's networks (int32, 10 fractional bits)."""

    W1: NDArray[np.int32]
    """(A, K) context network, first layer."""
    W2: NDArray[np.int32]
    """(A, A) its residual layer."""
    W3: NDArray[np.int32]
    """(2, A) its outputs: location, log2 of the scale."""
    V: NDArray[np.int32]
    """(2, K) linear branch from the contexts to the outputs."""
    b1: NDArray[np.int32]
    """(L, A) first bias, one per level."""
    b2: NDArray[np.int32]
    """(A,)"""
    b3: NDArray[np.int32]
    """(2,)"""
    u: NDArray[np.int32]
    """(L - 1, 4) upsampling filters from level i + 1 to level i."""
    X1: NDArray[np.int32]
    """(S, L) synthesis, first layer."""
    X2: NDArray[np.int32]
    """(C, S) second layer."""
    Y: NDArray[np.int32]
    """(C, L) linear branch."""
    G: NDArray[np.int32]
    """(2, C, C, 3, 3) two residual convolutions, [which, out, in, row, column]."""
    c1: NDArray[np.int32]
    """(S,)"""
    c2: NDArray[np.int32]
    """(C,)"""
    g: NDArray[np.int32]
    """(2, C) biases of the convolutions."""

    @property
    def widths(self) -> Widths:
        """Sizes, from the shapes."""
        return Widths(len(self.b1), len(self.b2), len(self.c1), len(self.c2))

    def check(self) -> "ImageModel":
        """The model itself, after checking that shapes, types and bounds are those of the format.

        Raises:
            ValueError: If a shape does not fit the others or the format.
            TypeError: If an array is not int32.
        """
        if any(getattr(self, name).ndim < 1 for name in NAMES):
            raise ValueError("a parameter has no axes; see the shapes in ImageModel's fields")
        widths = self.widths
        widths.check()
        for name, shape in widths.shapes().items():
            value: NDArray[np.int32] = getattr(self, name)
            if value.shape != shape:
                raise ValueError(f"{name} has shape {value.shape}, expected {shape}")
            if value.dtype != np.int32:
                raise TypeError(f"{name} has type {value.dtype}, expected int32; round it first")
            if value.size and max(int(value.max()), -int(value.min())) > _BOUNDS[name]:
                raise ValueError(
                    f"{name} reaches {max(int(value.max()), int(value.min()), key=abs)}, expected "
                    f"at most {_BOUNDS[name]} in size; clip it before quantising"
                )
        return self

    def replace(self, **arrays: NDArray[np.int32]) -> "ImageModel":
        """The same model with some arrays exchanged."""
        return dataclasses.replace(self, **arrays)


def bound(name: str) -> int:
    """Largest size of a parameter of the array ``name``."""
    return _BOUNDS[name]
