"""Parameters of a model to and from bits, relative to a base model.

Groups of the file: the arrays of the context network (needed before the latents), then filters
and the arrays of the synthesis (needed after them). Each group: 4 bits of step k (all its numbers
are multiples of 2^k), 4 bits of code, then every number (value - base) / 2^k; the base is first
rounded to multiples of 2^k itself. Codes 0 to 9 are Exp-Golomb of that order; 10 to 15 are a bit
that says whether the number is zero, and Exp-Golomb of order 0 to 5 where it is not.
"""

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.neural._bits import BitReader, BitWriter, golomb_lengths, sparse_lengths
from lumefield.codecs.neural._model import ImageModel, Widths, bound
from lumefield.errors import FormatError

CONTEXT_GROUPS = (("W1",), ("W2",), ("W3",), ("V",), ("b1",), ("b2", "b3"))
PICTURE_GROUPS = (("u",), ("X1",), ("X2",), ("Y",), ("G",), ("c1",), ("c2", "g"))
MAX_STEP = 10
_STEP_BITS, _CODE_BITS = 4, 4
_SPARSE = 10
"""The first code of numbers that are often zero."""


def write_groups(
    writer: BitWriter, groups: tuple[tuple[str, ...], ...], model: ImageModel, base: ImageModel
) -> None:
    """Append the groups in the shortest form: the largest step that fits, the best order."""
    for names in groups:
        step, _, numbers = in_steps(model, base, names)
        code = best_code(numbers)
        writer.put(step, _STEP_BITS)
        writer.put(code, _CODE_BITS)
        if code < _SPARSE:
            writer.put_golomb(numbers, code)
        else:
            writer.put_sparse(numbers, code - _SPARSE)


def read_groups(
    reader: BitReader, groups: tuple[tuple[str, ...], ...], base: ImageModel, widths: Widths
) -> dict[str, NDArray[np.int32]]:
    """The arrays of the groups.

    Raises:
        FormatError: If the bits end early, or a number is out of bounds.
    """
    shapes, arrays = widths.shapes(), dict[str, NDArray[np.int32]]()
    for names in groups:
        step, code = reader.take(_STEP_BITS), reader.take(_CODE_BITS)
        start = _rounded(_flat(base, names), step)
        value, at = start + (_numbers(reader, len(start), code) << step), 0
        for name in names:
            size = int(np.prod(shapes[name]))
            part = value[at : at + size].reshape(shapes[name])
            if size and int(np.abs(part).max()) > bound(name):
                raise FormatError(
                    f"parameter {name} of {int(np.abs(part).max())}, expected at most "
                    f"{bound(name)} in size; the file is damaged"
                )
            arrays[name] = part.astype(np.int32)
            at += size
    return arrays


def parameter_bits(model: ImageModel, base: ImageModel) -> int:
    """Bits of all parameters in the file."""
    writer = BitWriter()
    write_groups(writer, CONTEXT_GROUPS + PICTURE_GROUPS, model, base)
    return len(writer.bits())


def in_steps(
    model: ImageModel, base: ImageModel, names: tuple[str, ...]
) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    """A group as it is written: log2 of its step, its base in whole steps, and steps from there."""
    value = _flat(model, names)
    step = _step(value)
    start = _rounded(_flat(base, names), step)
    return step, start, value - start >> step


def best_code(numbers: NDArray[np.int64]) -> int:
    """The code that takes the fewest bits."""
    return min(range(1 << _CODE_BITS), key=lambda code: code_lengths(numbers, code).sum())


def code_lengths(numbers: NDArray[np.int64], code: int) -> NDArray[np.int64]:
    """Bits of each number."""
    if code < _SPARSE:
        return golomb_lengths(numbers, code)
    return sparse_lengths(numbers, code - _SPARSE)


def _numbers(reader: BitReader, count: int, code: int) -> NDArray[np.int64]:
    if code < _SPARSE:
        return reader.take_golomb(count, code)
    return reader.take_sparse(count, code - _SPARSE)


def _flat(model: ImageModel, names: tuple[str, ...]) -> NDArray[np.int64]:
    return np.concatenate([getattr(model, name).ravel() for name in names]).astype(np.int64)


def _step(values: NDArray[np.int64]) -> int:
    """Largest k <= MAX_STEP for which all values are multiples of 2^k."""
    low = int(np.bitwise_or.reduce(values, initial=1 << MAX_STEP))
    return (low & -low).bit_length() - 1


def _rounded(values: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    return values + (1 << step >> 1) >> step << step
