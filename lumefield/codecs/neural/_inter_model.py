"""The numbers of the networks that the inter frames of a group share: integers, as ``_model``.

Beside those of a picture (with L = 5 levels of residual, and three channels of prediction after
them in the stack): ``E`` moves the biases of the context network by how much is in a level, which
the file tells (``energy`` 1 to 15; 0: nothing); ``gains`` are the values of a residual latent of 1
by layer of the hierarchy, 8 fractional bits; ``units`` those of a motion latent, 4 fractional bits.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.neural._base import LEARNED, base_model
from lumefield.codecs.neural._context import rshift
from lumefield.codecs.neural._model import FULL_BITS, MAX_BIAS, NAMES, ImageModel, Widths, bound
from lumefield.codecs.neural._motion import MOTION_LEVELS, N_KINDS
from lumefield.codecs.neural._order import LAYERS

LEVELS = 5
"""Levels of residual latents."""
CHANNELS = 3
CONTEXT = 12
"""Width of the context network, that of the shipped picture networks."""
ROWS = LEVELS + N_KINDS * MOTION_LEVELS
"""Biases of the context network: those of the residual, then those of each kind of motion."""
MAX_ENERGY = 15
_MIDDLE, _STEP_BITS = 8, 2
INTER_NAMES = (*NAMES, "E", "gains", "units")


@dataclass(frozen=True)
class InterWidths(Widths):
    """Sizes of the shared networks; only the width of the synthesis is free."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every array."""
        return {
            **super().shapes(),
            **{"b1": (ROWS, self.context), "E": (self.context,)},
            **{"X1": (self.synthesis, LEVELS + CHANNELS), "Y": (CHANNELS, LEVELS + CHANNELS)},
            **{"gains": (LAYERS,), "units": (N_KINDS, MOTION_LEVELS)},
        }


def inter_widths(synthesis: int) -> InterWidths:
    """Sizes for a width of the synthesis."""
    return InterWidths(LEVELS, CONTEXT, synthesis, CHANNELS)


@dataclass(frozen=True)
class InterModel(ImageModel):
    """Integer parameters of the shared networks (int32)."""

    E: NDArray[np.int32]
    """(A,) what a quarter of a step of energy adds to the first bias of the context network."""
    gains: NDArray[np.int32]
    """(8,)"""
    units: NDArray[np.int32]
    """(3, 4)"""

    @property
    def widths(self) -> InterWidths:
        """Sizes, from the shapes."""
        return inter_widths(len(self.c1))

    def check(self) -> "InterModel":
        """The model itself, after checking shapes, types and bounds.

        Raises:
            ValueError: If a shape does not fit the others or the format.
            TypeError: If an array is not int32.
        """
        self.widths.check()
        for name, shape in self.widths.shapes().items():
            value: NDArray[np.int32] = getattr(self, name)
            if value.dtype != np.int32:
                raise TypeError(f"{name} has type {value.dtype}, expected int32; round it first")
            if value.shape != shape or int(np.abs(value).max()) > bound(name):
                raise ValueError(
                    f"{name} has shape {value.shape} and reaches {np.abs(value).max()}, expected "
                    f"{shape} and at most {bound(name)}"
                )
        return self

    def context_of(self, first: int, energies: tuple[int, ...]) -> ImageModel:
        """The context network of a pyramid.

        Args:
            first: Row of ``b1`` of its finest level.
            energies: How much is in each of its levels.
        """
        steps = np.array(energies, np.int64)[:, None] - _MIDDLE
        added = rshift(steps * self.E.astype(np.int64), _STEP_BITS)
        b1 = np.clip(self.b1[first : first + len(energies)] + added, -MAX_BIAS, MAX_BIAS)
        arrays = {name: getattr(self, name) for name in NAMES}
        return ImageModel(**{**arrays, "b1": b1.astype(np.int32)})


def motion_row(kind: int) -> int:
    """Row of ``b1`` of the finest level of a kind of motion."""
    return LEVELS + kind * MOTION_LEVELS


def inter_base(widths: InterWidths) -> InterModel:
    """What files store the shared networks relative to.

    The context network of the shipped picture networks; a synthesis that passes the prediction on
    and adds latents to the luma.
    """
    shipped = base_model(LEARNED, Widths(7, CONTEXT, 32, CHANNELS))
    arrays = {name: np.zeros(shape, np.int32) for name, shape in widths.shapes().items()}
    for name in ("W1", "W2", "W3", "V", "b2", "b3"):
        arrays[name] = getattr(shipped, name)
    motion = [3, 4, 5, 6] * N_KINDS
    arrays["b1"] = shipped.b1[[*range(LEVELS), *motion]]
    arrays["u"] = shipped.u[: LEVELS - 1]
    arrays["Y"][0, :LEVELS] = 360
    arrays["Y"][:, LEVELS:] = 1024 * np.eye(CHANNELS, dtype=np.int32)
    arrays["c2"][:] = 1 << (FULL_BITS - 1)
    arrays["gains"][:] = 512
    arrays["units"][:] = (64, 128, 256, 512)
    arrays["units"][-1] = 512
    return InterModel(**arrays)
