"""One inter frame from its latents and two decoded pictures, by each backend; all alike."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield import native
from lumefield.codecs.neural import _twin
from lumefield.codecs.neural._decoders import Backend, Latents, Planes
from lumefield.codecs.neural._inter_model import InterModel
from lumefield.codecs.neural._motion import (
    PICTURE_BITS,
    cell_planes,
    flows,
    motion_planes,
    predicted,
)
from lumefield.codecs.neural._order import Role

MIDDLE = 1 << (PICTURE_BITS - 1)
"""Predictions enter the synthesis less this: half of the full range."""


class Frame(NamedTuple):
    """What is decoded of an inter frame before its pixels."""

    role: Role
    residual: Latents
    """Finest first."""
    motion: list[Latents]
    """Five pyramids."""


Painter = Callable[
    [InterModel, Frame, tuple[NDArray[np.int32], NDArray[np.int32]], int, bool], Planes
]
"""Planes of a frame, of model, latents, both references (``_motion.reference``), bits and 4:2:0."""


def painter(name: Backend) -> Painter:
    """The function of a backend; see ``_decoders.decoders``."""
    if name == "auto":
        name = "xla" if native.library() is None else "native"
    if name == "twin":
        return _by_twin
    if name == "native":
        return _by_native
    from lumefield.codecs.neural import _inter_xla

    return _inter_xla.paint


def _by_twin(
    model: InterModel,
    frame: Frame,
    references: tuple[NDArray[np.int32], NDArray[np.int32]],
    bits: int,
    subsampled: bool,
) -> Planes:
    size = frame.residual[0].shape
    planes = motion_planes(frame.motion, model.units, (size[0], size[1]))
    prediction = predicted(*references, *flows(planes, frame.role.ratio))
    stack = _twin.upsample(frame.residual, model.u, int(model.gains[frame.role.layer]))
    both = np.concatenate([stack, prediction - MIDDLE])
    return _twin.painted(model, both, bits, subsampled=subsampled)


def _by_native(
    model: InterModel,
    frame: Frame,
    references: tuple[NDArray[np.int32], NDArray[np.int32]],
    bits: int,
    subsampled: bool,
) -> Planes:
    from lumefield.codecs.neural import _native

    rows, columns = frame.residual[0].shape
    planes = _native.motion_planes(cell_planes(frame.motion, model.units), (rows, columns))
    prediction = _native.predicted(*references, planes, frame.role.ratio)
    gain = int(model.gains[frame.role.layer])
    return _native.synthesise(
        model, frame.residual, bits, subsampled, gain, prediction - np.int32(MIDDLE)
    )
