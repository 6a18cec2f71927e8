"""PlayCanvas compressed PLY: chunks of 256 Gaussians, 16 bytes each, harmonics in 8 bits.

Element ``chunk`` holds the least and greatest position, log scale and colour of 256 Gaussians as
floats; element ``vertex`` four words: position and scale 11-10-11 bits within the chunk's range,
rotation 2-10-10-10 (the largest of w x y z is left out, its index first), colour 8-8-8-8 (red,
green and blue within the range, opacity absolute); element ``sh``, where there is one, the
coefficients above degree 0 as bytes over [-4, 4], channel-major. Frame as in the plain PLY. Files
of before 2024 have no colour ranges: then [0, 1] is meant.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.formats._files import replacing
from lumefield.codecs.formats._morton import morton_order
from lumefield.codecs.formats._ply_table import Header, read_columns
from lumefield.codecs.formats._ply_tags import written_tags
from lumefield.codecs.formats._splat_rows import (
    SH_C0,
    checked,
    from_channel_major,
    logits_from_bytes,
    opacities,
    rest_names,
    to_bytes,
    to_channel_major,
    unit_quaternions,
    with_largest,
    without_largest,
)
from lumefield.codecs.formats._types import Splats
from lumefield.errors import FormatError

_CHUNK = 256
_RANGES = {
    "xyz": tuple(f"{end}_{axis}" for end in ("min", "max") for axis in "xyz"),
    "scale": tuple(f"{end}_scale_{axis}" for end in ("min", "max") for axis in "xyz"),
    "rgb": tuple(f"{end}_{axis}" for end in ("min", "max") for axis in "rgb"),
}
_WORDS = ("packed_position", "packed_rotation", "packed_scale", "packed_color")
_REST = {0: 1, 9: 4, 24: 9, 45: 16}
_LOG_SCALE = 20.0
"""Largest absolute log scale that is written."""


def is_packed(header: Header) -> bool:
    """Whether a PLY is of this kind."""
    return "packed_position" in header.vertex.names


def load_packed(header: Header) -> Splats:
    """Read the Gaussians of a compressed PLY; values may be not finite.

    Raises:
        FormatError: If elements are missing, of wrong length or damaged.
    """
    path, n = header.path, header.vertex.count
    chunks = header.element("chunk")
    if chunks.count < -(-n // _CHUNK):
        raise FormatError(
            f"{path}: compressed PLY has {chunks.count} chunks for {n} Gaussians, expected "
            f"{-(-n // _CHUNK)}; the file is damaged"
        )
    coloured = "min_r" in chunks.names
    groups = {key: names for key, names in _RANGES.items() if coloured or key != "rgb"}
    ranges = read_columns(header, groups, np.float32, "chunk")
    words = read_columns(header, {"all": _WORDS}, np.uint32)["all"]
    rows = np.arange(n) // _CHUNK

    def within(key: str, unit: NDArray[np.float32]) -> NDArray[np.float32]:
        low, high = ranges[key][rows, :3], ranges[key][rows, 3:]
        return low * (1 - unit) + high * unit

    with np.errstate(over="ignore", invalid="ignore"):
        colour = _unit(words[:, 3], (8, 8, 8, 8))[:, :3]
        colour = within("rgb", colour) if coloured else colour
        return Splats(
            means=within("xyz", _unit(words[:, 0], (11, 10, 11))),
            quats_wxyz=_rotations(words[:, 1]),
            log_scales=within("scale", _unit(words[:, 2], (11, 10, 11))),
            logit_opacities=logits_from_bytes((words[:, 3] & 255).astype(np.uint8)),
            sh=_harmonics(header, (colour - 0.5) / SH_C0),
        )


def save_packed(splats: Splats, path: Path) -> None:
    """Write a compressed PLY, ordered along a Morton curve; degree 4 does not fit and is lost.

    Raises:
        InputError: If the file cannot be written.
        ValueError: If the arrays do not fit one another.
    """
    splats = checked(splats).cut(3)
    splats = splats.taken(morton_order(splats.means))
    n, k = splats.sh.shape[:2]
    colours = (0.5 + SH_C0 * splats.sh[:, 0]).astype(np.float32)
    scales = np.clip(splats.log_scales, -_LOG_SCALE, _LOG_SCALE)
    words = np.zeros((n, 4), "<u4")
    words[:, 1] = _packed_rotations(unit_quaternions(splats.quats_wxyz))
    ends: list[NDArray[np.float32]] = []
    for column, values in ((0, splats.means), (2, scales), (3, colours)):
        low, high = _extremes(values)
        ends += [low, high]
        unit = (values - low.repeat(_CHUNK, 0)[:n]) / _width(low, high).repeat(_CHUNK, 0)[:n]
        if column == 3:
            unit = np.concatenate([unit, opacities(splats.logit_opacities)[:, None]], 1)
        words[:, column] = _word(unit, (8, 8, 8, 8) if column == 3 else (11, 10, 11))
    rest = np.trunc((to_channel_major(splats.sh[:, 1:]) / 8 + 0.5) * 256)
    lines = ["ply", "format binary_little_endian 1.0"]
    lines += [f"comment {tag}" for tag in written_tags(splats)]
    lines += [f"element chunk {len(ends[0])}"]
    lines += [f"property float {name}" for names in _RANGES.values() for name in names]
    lines += [f"element vertex {n}", *(f"property uint {name}" for name in _WORDS)]
    if k > 1:
        lines += [f"element sh {n}", *(f"property uchar {name}" for name in rest_names(k))]
    with replacing(path) as file:
        file.write("\n".join([*lines, "end_header\n"]).encode("ascii"))
        file.write(np.concatenate(ends, 1, dtype="<f4").tobytes())
        file.write(words.tobytes())
        file.write(to_bytes(rest).tobytes())


def _extremes(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    starts = np.arange(0, len(values), _CHUNK)
    if not len(starts):
        empty = np.zeros((0, 3), np.float32)
        return empty, empty
    return np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)


def _width(low: NDArray[np.float32], high: NDArray[np.float32]) -> NDArray[np.float64]:
    width = high.astype(np.float64) - low
    return np.where(width > 0, width, 1)


def _unit(word: NDArray[np.uint32], bits: tuple[int, ...]) -> NDArray[np.float32]:
    """The fields of a word, high bits first, each as a number from 0 to 1."""
    out = np.empty((len(word), len(bits)), np.float32)
    shift = 32
    for j, width in enumerate(bits):
        shift -= width
        most = (1 << width) - 1
        out[:, j] = ((word >> np.uint32(shift)) & np.uint32(most)) / most
    return out


def _word(unit: NDArray[np.float64], bits: tuple[int, ...]) -> NDArray[np.uint32]:
    """The inverse of :func:`_unit`, rounded and clipped."""
    word = np.zeros(len(unit), np.uint32)
    for j, width in enumerate(bits):
        most = (1 << width) - 1
        level = np.clip(np.floor(unit[:, j] * most + 0.5), 0, most).astype(np.uint32)
        word = (word << np.uint32(width)) | level
    return word


def _rotations(word: NDArray[np.uint32]) -> NDArray[np.float32]:
    largest = (word >> np.uint32(30)).astype(np.int64)
    three = (_unit(word & np.uint32(0x3FFF_FFFF), (2, 10, 10, 10))[:, 1:] - 0.5) * np.sqrt(2)
    return with_largest(three, largest)


def _packed_rotations(quats: NDArray[np.float64]) -> NDArray[np.uint32]:
    three, largest = without_largest(quats)
    word = _word(three / np.sqrt(2) + 0.5, (10, 10, 10))
    return word | (largest.astype(np.uint32) << np.uint32(30))


def _harmonics(header: Header, dc: NDArray[np.float32]) -> NDArray[np.float32]:
    """Coefficients (n, K, 3): those of degree 0, and those of element ``sh``."""
    n = len(dc)
    found = [e for e in header.elements if e.name == "sh"]
    count = sum(1 for name in found[0].names if name.startswith("f_rest_")) if found else 0
    if count not in _REST or (found and found[0].count != n):
        raise FormatError(
            f"{header.path}: compressed PLY has {found[0].count} rows of {count} harmonics for "
            f"{n} Gaussians, expected {n} rows of one of {sorted(_REST)}; the file is damaged"
        )
    if not count:
        return dc[:, None].astype(np.float32)
    level = read_columns(header, {"all": rest_names(_REST[count])}, np.uint8, "sh")["all"]
    # A byte stands for the middle of its cell, except the first and the last.
    value = (level + np.float32(0.5)) / np.float32(256)
    value = np.where(level == 0, np.float32(0), np.where(level == 255, np.float32(1), value))
    rest = from_channel_major((value - np.float32(0.5)) * np.float32(8))
    return np.concatenate([dc[:, None].astype(np.float32), rest], 1)
