"""Interleaved rANS: many coders ("lanes") with states of 32 bits share one stream of bytes.

Duda, "Asymmetric numeral systems", 2013, arXiv:1311.2540; the interleaving is that of Giesen,
"Interleaved entropy coders", 2014, arXiv:1402.3392, with the order of bytes of a wavefront.

States live in [2^24, 2^32). Decoding a symbol of frequency f that starts at c: the low 16 bits v
of the state x choose it (c <= v < c + f), x becomes f (x >> 16) + v - c, and while that is below
2^24 (at most twice) a byte is shifted in. Lanes of a group decode at the same time; bytes are taken
in the order of lanes. (Words of 16 bits and states from 2^16 would save a step, but the coarse
states cost 0.2 to 0.4 % more bits.)

Nothing is lost at the ends. An encoder's first state, which is a decoder's last, is 1 followed by k
payload bits, 24 <= k <= 31: bits that the decoder needs only after all symbols. An encoder's last
state, which is a decoder's first, is stored as flag 1 and the 31 bits below the leading 1 when it
is at least 2^31, else as flag 0, 3 bits of e and 24 + e bits below the leading 1. The encoder
chooses k so that nearly every lane takes the short form.
"""

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.neural._bits import BitReader, BitWriter
from lumefield.codecs.neural._laplace import PRECISION, cumulative

LOW = 24
"""States are at least 2^24."""
TOP = 31
U64 = NDArray[np.uint64]


class Decoder:
    """States and bytes of a stream; the slow twin of the coder inside the fast decoders."""

    def __init__(self, states: NDArray[np.uint32], code: NDArray[np.uint8]) -> None:
        self.states = states.astype(np.int64)
        self._code = code.astype(np.int64)
        self.taken = 0
        """Bytes read so far; more than there are, with zeros in their place, in a bad file."""

    def symbols(self, rows: NDArray[np.int64], lanes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Decode one symbol on each of the lanes (different ones, ascending).

        Args:
            rows: Row of the frequency table of each.
            lanes: Their lanes.

        Returns:
            Index into the row, 0 ... 254 for -127 ... 127.
        """
        table = cumulative().reshape(-1, cumulative().shape[-1])[rows]
        return self.choose(table, lanes)

    def choose(self, table: NDArray[np.integer], lanes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Decode one symbol on each of the lanes by a table of its own.

        Args:
            table: (n, width) per lane the sums of the frequencies before every symbol, 2^16 after
                the last one.
            lanes: Their lanes, ascending.

        Returns:
            Index into the row.
        """
        state = self.states[lanes]
        low = state & 0xFFFF
        if table.ndim == 1:
            index = np.searchsorted(table, low, side="right") - 1
            start, stop = (table[index + k].astype(np.int64) for k in (0, 1))
        else:
            index = (table <= low[:, None]).sum(axis=1) - 1
            start = np.take_along_axis(table, index[:, None], 1)[:, 0].astype(np.int64)
            stop = np.take_along_axis(table, index[:, None] + 1, 1)[:, 0].astype(np.int64)
        state = (stop - start) * (state >> 16) + low - start
        count = (state < 1 << LOW).astype(np.int64) + (state < 1 << (LOW - 8))
        ends = np.cumsum(count)
        code = self._next(int(ends[-1]))
        for i in (0, 1):
            more = count > i
            state[more] = state[more] << 8 | code[(ends - count + i)[more]]
        self.states[lanes] = state
        return index

    def _next(self, count: int) -> NDArray[np.int64]:
        code = self._code[self.taken : self.taken + count]
        self.taken += count
        return np.pad(code, (0, count - len(code)))


def encode(
    starts: U64, sizes: U64, lanes: NDArray[np.int64], groups: NDArray[np.int64], states: U64
) -> tuple[U64, NDArray[np.uint8]]:
    """Encode symbols, last to first.

    Args:
        starts: (n,) sum of the frequencies before each symbol, in the order of decoding.
        sizes: (n,) frequency of each symbol.
        lanes: (n,) lane of each; different inside a group, ascending.
        groups: First symbol of each group, and n at the end.
        states: First state of every lane.

    Returns:
        The last states and the bytes, in the order of decoding.
    """
    states, chunks = states.copy(), list[U64]()
    eight, sixteen, mask = np.uint64(8), np.uint64(16), np.uint64(0xFF)
    bounds = groups.tolist()
    limits = sizes << sixteen
    for first, last in zip(reversed(bounds[:-1]), reversed(bounds[1:]), strict=True):
        at = slice(first, last)
        lane, size = lanes[at], sizes[at]
        state, limit = states[lane], limits[at]
        if (state >= limit).any():
            once = np.where(state >= limit, state >> eight, state)
            twice = np.where(once >= limit, once >> eight, once)
            # The decoder needs the byte that was shed last first.
            shed = np.stack([once >= limit, state >= limit], 1)
            chunks.append((np.stack([once, state], 1) & mask)[shed])
            state = twice
        high = state // size
        states[lane] = (high << sixteen) + (state - high * size) + starts[at]
    code = np.concatenate([*chunks[::-1], np.zeros(0, np.uint64)])
    return states, code.astype(np.uint8)


def loaded_states(payload: NDArray[np.uint8], finals: U64, start: int) -> tuple[U64, int]:
    """First states that carry payload and end near the top of the range.

    Args:
        payload: Bits to carry, one per element; zeros stand in where they run out.
        finals: Last states of a trial run in which every lane began at ``start``.
        start: That state.

    Returns:
        The first states, and how many payload bits they carry.
    """
    states, at = np.zeros(len(finals), np.uint64), 0
    text = (payload + np.uint8(ord("0"))).tobytes().decode("ascii")
    drift = np.log2(finals.astype(np.float64)) - np.log2(float(start))
    for lane, shift in enumerate(drift):
        tries = [int("1" + text[at : at + k].ljust(k, "0"), 2) for k in range(LOW, TOP + 1)]
        # A bit more moves the end by one octave, modulo the 8 octaves of a byte.
        ends = (np.log2(np.array(tries, np.float64)) + shift - LOW) % 8
        best = int(np.argmin(np.abs(ends - (TOP - LOW + 0.5))))
        states[lane] = tries[best]
        at = min(at + LOW + best, len(text))
    return states, at


def payload_of(states: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """The bits that a decoder's last states carry, one per element."""
    text = "".join(format(state, "b")[1:] for state in states.tolist())
    return np.frombuffer(text.encode("ascii"), np.uint8) - np.uint8(ord("0"))


def write_states(writer: BitWriter, states: U64) -> None:
    """Store a decoder's first states."""
    for state in states.tolist():
        octave = state.bit_length() - 1
        if octave == TOP:
            writer.put(1, 1)
        else:
            writer.put(octave - LOW, 4)
        writer.put(state - (1 << octave), octave)


def read_states(reader: BitReader, lanes: int) -> NDArray[np.uint32]:
    """Read what :func:`write_states` stored.

    Raises:
        FormatError: If the bits end before.
    """
    states = np.zeros(lanes, np.uint32)
    for lane in range(lanes):
        octave = TOP if reader.take(1) else LOW + reader.take(3)
        states[lane] = (1 << octave) + reader.take(octave)
    return states


def symbol_bits(sizes: NDArray[np.integer]) -> float:
    """Ideal bits of symbols with these frequencies."""
    return float(PRECISION * sizes.size - np.log2(sizes.astype(np.float64)).sum())
