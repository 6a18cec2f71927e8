"""Bits, most significant first, and Exp-Golomb codes: for headers and a few thousand parameters."""

import numpy as np
from numpy.typing import NDArray

from lumefield.errors import FormatError

_LONGEST = 24
"""Zeros before an Exp-Golomb code that any of ours can have."""


class BitWriter:
    """Collects numbers of given widths."""

    def __init__(self) -> None:
        self._values: list[NDArray[np.uint64]] = []
        self._widths: list[NDArray[np.int64]] = []

    def put(self, values: NDArray[np.integer] | int, widths: NDArray[np.integer] | int) -> None:
        """Append numbers >= 0 of ``widths`` bits each (at most 63)."""
        value, width = np.broadcast_arrays(np.asarray(values), np.asarray(widths))
        self._values.append(value.ravel().astype(np.uint64))
        self._widths.append(width.ravel().astype(np.int64))

    def put_golomb(self, values: NDArray[np.integer], order: int) -> None:
        """Append signed numbers: zig-zag (0 -1 1 -2 ...), then Exp-Golomb of ``order``."""
        self.put(*_golomb(values, order))

    def put_sparse(self, values: NDArray[np.integer], order: int) -> None:
        """Append signed numbers, many of them zero: a bit that says so, else its code less one."""
        self.put(*_sparse(values, order))

    def bits(self) -> NDArray[np.uint8]:
        """All bits so far, one per element."""
        values = np.concatenate([np.zeros(0, np.uint64), *self._values])
        widths = np.concatenate([np.zeros(0, np.int64), *self._widths])
        shift = np.repeat(np.cumsum(widths), widths) - 1 - np.arange(widths.sum())
        return (np.repeat(values, widths) >> shift.astype(np.uint64) & np.uint64(1)).astype(
            np.uint8
        )


class BitReader:
    """Reads what :class:`BitWriter` wrote."""

    def __init__(self, bits: NDArray[np.uint8]) -> None:
        """Read from ``bits``, one per element."""
        self._text = (bits + np.uint8(ord("0"))).tobytes().decode("ascii")
        self.position = 0

    def take(self, width: int) -> int:
        """The next number of ``width`` bits.

        Raises:
            FormatError: If the bits end before.
        """
        end = self.position + width
        if end > len(self._text):
            raise FormatError("ends inside the parameters; the file is cut off or damaged")
        value = int(self._text[self.position : end] or "0", 2)
        self.position = end
        return value

    def take_bits(self, count: int) -> NDArray[np.int64]:
        """The next ``count`` bits.

        Raises:
            FormatError: If the bits end before.
        """
        end = self.position + count
        if end > len(self._text):
            raise FormatError("ends inside the parameters; the file is cut off or damaged")
        text = self._text[self.position : end].encode("ascii")
        self.position = end
        return np.frombuffer(text, np.uint8).astype(np.int64) - ord("0")

    def take_golomb(self, count: int, order: int) -> NDArray[np.int64]:
        """The next ``count`` signed numbers.

        Raises:
            FormatError: If the bits end before, or a code is longer than any that is written.
        """
        found = np.array([self._take_code(order) for _ in range(count)], np.int64)
        return _signed(found)

    def take_sparse(self, count: int, order: int) -> NDArray[np.int64]:
        """The next ``count`` signed numbers of :meth:`BitWriter.put_sparse`.

        Raises:
            FormatError: If the bits end before, or a code is longer than any that is written.
        """
        found = [self._take_code(order) + 1 if self.take(1) else 0 for _ in range(count)]
        return _signed(np.array(found, np.int64))

    def _take_code(self, order: int) -> int:
        one = self._text.find("1", self.position, self.position + _LONGEST + 1)
        if one < 0:
            raise FormatError("a parameter's code does not end; the file is cut off or damaged")
        width = one - self.position + order + 1
        self.position = one
        return self.take(width) - (1 << order)


def golomb_lengths(values: NDArray[np.integer], order: int) -> NDArray[np.int64]:
    """Bits of each number in :meth:`BitWriter.put_golomb`."""
    return _golomb(values, order)[1]


def sparse_lengths(values: NDArray[np.integer], order: int) -> NDArray[np.int64]:
    """Bits of each number in :meth:`BitWriter.put_sparse`."""
    return _sparse(values, order)[1]


def _unsigned(values: NDArray[np.integer]) -> NDArray[np.int64]:
    signed = np.asarray(values).ravel().astype(np.int64)
    return np.where(signed < 0, -2 * signed - 1, 2 * signed)


def _signed(found: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where(found & 1, -(found + 1) // 2, found // 2)


def _golomb(values: NDArray[np.integer], order: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return _code(_unsigned(values), order)


def _sparse(values: NDArray[np.integer], order: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    found = _unsigned(values)
    number, length = _code(np.maximum(found - 1, 0), order)
    is_zero = found == 0
    return np.where(is_zero, 0, number + (1 << length)), np.where(is_zero, 1, length + 1)


def _code(found: NDArray[np.int64], order: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    number = found + (1 << order)
    length = np.frexp(number.astype(np.float64))[1].astype(np.int64)
    return number, 2 * length - 1 - order
