"""The decoder in C++ (``lumefield/native/codec_*.cc``), called without jax."""

import ctypes
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield import native
from lumefield.codecs.neural._laplace import symbol_tables
from lumefield.codecs.neural._levels import Level
from lumefield.codecs.neural._model import ImageModel
from lumefield.codecs.neural._motion import CELL_BITS, PLANES, TAPS
from lumefield.codecs.neural._twin import ONE

_CONTEXT = ("W1", "W2", "W3", "V", "b1", "b2", "b3")
_SYNTHESIS = ("u", "X1", "c1", "X2", "Y", "c2", "G", "g")


def decode_latents(
    model: ImageModel,
    levels: tuple[Level, ...],
    coded: tuple[bool, ...],
    states: NDArray[np.uint32],
    code: NDArray[np.uint8],
) -> tuple[list[NDArray[np.int8]], NDArray[np.uint32], int]:
    """Latents of all levels, finest first, the last states, and the number of bytes read.

    See ``_wavefront.decode_latents``.
    """
    found = [np.zeros((level.rows, level.columns), np.int8) for level in levels]
    last, code = states.copy(), np.ascontiguousarray(code)
    sizes = np.array([(v.rows, v.columns, v.slots) for v in levels], np.int32)
    flags = np.array(coded, np.uint8)
    tables = symbol_tables()
    parameters = _arrays(model, _CONTEXT)
    function = _library().lumefield_decode_latents
    function.restype = ctypes.c_int64
    taken = function(
        ctypes.c_int32(len(levels)),
        _pointer(sizes),
        _pointer(flags),
        ctypes.c_int32(model.widths.context),
        _pointers(parameters),
        _pointer(tables.sums),
        _pointer(tables.starts),
        ctypes.c_int32(len(last)),
        _pointer(last),
        _pointer(code),
        ctypes.c_int64(len(code)),
        _pointers(found),
    )
    return found, last, int(taken)


def synthesise(
    model: ImageModel,
    latents: list[NDArray[np.int8]],
    bits: int,
    subsampled: bool,
    gain: int = ONE,
    added: NDArray[np.int32] | None = None,
) -> tuple[NDArray[np.unsignedinteger[Any]], ...]:
    """Planes of the picture; see the twin's ``synthesise``.

    Args:
        model: Parameters.
        latents: The pyramid, finest first.
        bits: Bits per sample.
        subsampled: Whether channels 1 and 2 are chroma of half the size.
        gain: Value of a latent of 1.
        added: (k, rows, columns) inputs of the synthesis after the levels.
    """
    rows, columns = latents[0].shape
    more = np.zeros((0, rows, columns), np.int32) if added is None else added
    more = np.ascontiguousarray(more, np.int32)
    kind = np.uint8 if bits == 8 else np.uint16
    halves = [2 if subsampled and c in (1, 2) else 1 for c in range(model.widths.channels)]
    planes = tuple(np.empty((-(-rows // n), -(-columns // n)), kind) for n in halves)
    sizes = np.array([level.shape for level in latents], np.int32)
    parameters = _arrays(model, _SYNTHESIS)
    whole = [np.ascontiguousarray(level) for level in latents]
    function = _library().lumefield_synthesise
    function.restype = None
    function(
        ctypes.c_int32(len(latents)),
        _pointer(sizes),
        _pointers(whole),
        ctypes.c_int32(model.widths.synthesis),
        ctypes.c_int32(model.widths.channels),
        _pointers(parameters),
        ctypes.c_int32(bits),
        ctypes.c_int32(subsampled),
        ctypes.c_int32(gain),
        ctypes.c_int32(len(more)),
        _pointer(more),
        _pointers(planes),
        ctypes.c_int32(_threads()),
    )
    return planes


def motion_planes(cells: NDArray[np.integer[Any]], size: tuple[int, int]) -> NDArray[np.int32]:
    """(5, h, w) sums of motion of every pixel from those of the cells; see ``_motion``."""
    planes = np.ascontiguousarray(cells, np.int32)
    function = _library().lumefield_doubled
    function.restype = None
    for k in reversed(range(CELL_BITS)):
        found = np.empty((PLANES, -(-size[0] // 2**k), -(-size[1] // 2**k)), np.int32)
        function(
            *(ctypes.c_int32(n) for n in (*planes.shape, *found.shape[1:])),
            _pointer(planes),
            _pointer(found),
            ctypes.c_int32(_threads()),
        )
        planes = found
    return planes


def predicted(
    first: NDArray[np.int32],
    second: NDArray[np.int32],
    planes: NDArray[np.int32],
    ratio: int,
) -> NDArray[np.int32]:
    """(c, h, w) blend of two displaced references; see ``_motion``."""
    _, rows, columns = planes.shape
    found = np.empty((len(first), rows, columns), np.int32)
    function = _library().lumefield_predict
    function.restype = None
    function(
        *(ctypes.c_int32(n) for n in found.shape[1:]),
        _pointer(first),
        _pointer(second),
        _pointer(planes),
        ctypes.c_int32(ratio),
        _pointer(TAPS),
        _pointer(found),
        ctypes.c_int32(_threads()),
    )
    return found


def _threads() -> int:
    return native.threads() or os.cpu_count() or 1


def _library() -> ctypes.CDLL:
    found = native.library()
    if found is None:
        raise RuntimeError(f"no native decoder: {native.status().reason}")
    return found


def _arrays(model: ImageModel, names: tuple[str, ...]) -> list[NDArray[np.int32]]:
    return [np.ascontiguousarray(getattr(model, name), np.int32) for name in names]


def _pointer(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _pointers(arrays: list[NDArray[Any]] | tuple[NDArray[Any], ...]) -> "ctypes.Array[Any]":
    return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
