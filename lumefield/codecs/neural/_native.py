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
    model: ImageModel, latents: list[NDArray[np.int8]], bits: int, subsampled: bool
) -> tuple[NDArray[np.unsignedinteger[Any]], ...]:
    """Planes of the picture; see the twin's ``synthesise``."""
    rows, columns = latents[0].shape
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
        _pointers(planes),
        ctypes.c_int32(native.threads() or os.cpu_count() or 1),
    )
    return planes


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
