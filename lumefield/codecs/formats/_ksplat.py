"""mkkellogg's .ksplat, read only: sections of Gaussians in three levels of compression.

Facts from the public readers of the format. A header of 4096 bytes, one of 1024 per section, then
per section: the sizes of its partly filled buckets (u32), the bucket centres (3 floats each), and
the Gaussians, attribute beside attribute: position, scale, rotation w x y z, RGBA, harmonics up to
degree 2 (per degree all of red, then green, then blue). Level 0 holds floats; levels 1 and 2
positions of 16 bits within the bucket, half floats, and (level 2) harmonics of 8 bits between two
ends named in the header. Colours, opacity and frame as in .splat.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.formats._files import Cursor, read_bytes
from lumefield.codecs.formats._splat_rows import SH_C0, cleaned, logits_from_bytes, scales_of
from lumefield.codecs.formats._types import Splats
from lumefield.errors import FormatError

_HEADER, _SECTION = 4096, 1024
_MAIN = np.dtype(
    {
        "names": ["major", "minor", "sections", "n", "level", "low", "high"],
        "formats": ["u1", "u1", "<u4", "<u4", "<u2", "<f4", "<f4"],
        "offsets": [0, 1, 4, 16, 20, 36, 40],
        "itemsize": _HEADER,
    }
)
_PART = np.dtype(
    {
        "names": [
            *("n", "most", "capacity", "buckets", "block", "storage"),
            *("range", "full", "partial", "degree"),
        ],
        "formats": ["<u4", "<u4", "<u4", "<u4", "<f4", "<u2", "<u4", "<u4", "<u4", "<u2"],
        "offsets": [0, 4, 8, 12, 16, 20, 24, 32, 36, 40],
        "itemsize": _SECTION,
    }
)
_RANGE = 32767
_REST = {0: 1, 1: 4, 2: 9, 3: 16}


class _Level(NamedTuple):
    """Types of one level of compression."""

    position: str
    number: str
    harmonic: str

    def row(self, k: int) -> np.dtype[Any]:
        """One Gaussian of K = ``k`` coefficients."""
        return np.dtype(
            [
                *(("xyz", self.position, 3), ("scale", self.number, 3)),
                *(("quat", self.number, 4), ("rgba", "u1", 4)),
                ("rest", self.harmonic, 3 * (k - 1)),
            ]
        )


_LEVELS = (_Level("<f4", "<f4", "<f4"), _Level("<u2", "<f2", "<f2"), _Level("<u2", "<f2", "u1"))


def load_ksplat(path: Path) -> Splats:
    """Read a .ksplat file of version 0.1 or later.

    Raises:
        InputError: If the file cannot be opened.
        FormatError: If it is not such a file, or is damaged or cut off.
    """
    data = read_bytes(path)
    cursor = Cursor(data, path)
    main = np.frombuffer(data, _MAIN, 1, cursor.need(_HEADER, "the .ksplat header"))[0]
    major, minor, level = int(main["major"]), int(main["minor"]), int(main["level"])
    if major != 0 or minor < 1 or level >= len(_LEVELS):
        raise FormatError(
            f"{path}: .ksplat version {major}.{minor} of level {level}, expected 0.1 and 0 to 2; "
            "it is damaged or of another format"
        )
    count = int(main["sections"])
    start = cursor.need(count * _SECTION, f"headers of {count} sections")
    heads = np.frombuffer(data, _PART, count, start)
    ends = (float(main["low"]) or -1.5, float(main["high"]) or 1.5)
    parts = [_section(cursor, head, level, ends) for head in heads]
    if not parts or sum(len(p.means) for p in parts) != int(main["n"]):
        raise FormatError(
            f"{path}: .ksplat promises {int(main['n'])} Gaussians, its sections hold "
            f"{sum(len(p.means) for p in parts)}; the file is damaged"
        )
    k = max(p.sh.shape[1] for p in parts)
    names = ("means", "quats_wxyz", "log_scales", "logit_opacities")
    arrays: dict[str, Any] = {n: np.concatenate([getattr(p, n) for p in parts]) for n in names}
    sh = [np.pad(p.sh, ((0, 0), (0, k - p.sh.shape[1]), (0, 0))) for p in parts]
    return cleaned(
        Splats(
            **arrays,
            sh=np.concatenate(sh),
            source=f".ksplat version {major}.{minor}, level {level}, frame as in a PLY",
        )
    )


def _section(cursor: Cursor, head: Any, level: int, ends: tuple[float, float]) -> Splats:  # noqa: ANN401
    n, degree, data = int(head["n"]), int(head["degree"]), cursor.data
    if degree not in _REST or n > int(head["most"]):
        raise FormatError(
            f"{cursor.path}: .ksplat section of {n} of {int(head['most'])} Gaussians and degree "
            f"{degree}, expected at most 3; the file is damaged"
        )
    k, buckets, partial = _REST[degree], int(head["buckets"]), int(head["partial"])
    row = _LEVELS[level].row(k)
    sizes = np.frombuffer(data, "<u4", partial, cursor.need(4 * partial, "sizes of buckets"))
    start = cursor.need(int(head["storage"]) * buckets, "centres of buckets")
    rows = np.frombuffer(data, row, n, cursor.need(int(head["most"]) * row.itemsize, "Gaussians"))
    with np.errstate(over="ignore", invalid="ignore"):
        means = rows["xyz"].astype(np.float32)
        if level:
            centres = np.frombuffer(data, "<f4", 3 * buckets, start).reshape(-1, 3)
            bucket = _buckets(head, sizes.astype(np.int64), n, cursor)
            half = int(head["range"]) or _RANGE
            means = centres[bucket] + (means - half) * (float(head["block"]) / 2 / half)
        rest = rows["rest"].astype(np.float32)
        if level == 2:
            rest = ends[0] + rest / 255 * (ends[1] - ends[0])
        sh = np.empty((n, k, 3), np.float32)
        sh[:, 0] = (rows["rgba"][:, :3] / 255.0 - 0.5) / SH_C0
        for band in range(1, degree + 1):
            here = slice(band**2, (band + 1) ** 2)
            taken = rest[:, 3 * (here.start - 1) : 3 * (here.stop - 1)]
            sh[:, here] = taken.reshape(n, 3, 2 * band + 1).transpose(0, 2, 1)
        return Splats(
            means=means.astype(np.float32),
            quats_wxyz=rows["quat"].astype(np.float32),
            log_scales=scales_of(rows["scale"].astype(np.float32)),
            logit_opacities=logits_from_bytes(rows["rgba"][:, 3]),
            sh=sh,
        )


def _buckets(head: Any, sizes: NDArray[np.int64], n: int, cursor: Cursor) -> NDArray[np.int64]:  # noqa: ANN401
    """The bucket (n,) of each Gaussian: full ones first, then those whose sizes are listed."""
    full, capacity = int(head["full"]), int(head["capacity"])
    inside = min(n, full * capacity)
    first = np.arange(inside) // max(capacity, 1)
    ends = full * capacity + np.cumsum(sizes)
    bucket = np.concatenate([first, full + np.searchsorted(ends, np.arange(inside, n), "right")])
    storage = int(head["storage"])
    if n and (int(bucket.max()) >= int(head["buckets"]) or storage != 12):
        raise FormatError(
            f"{cursor.path}: .ksplat Gaussian in bucket {int(bucket.max())} of "
            f"{int(head['buckets'])} of {storage} bytes, expected 12; the file is damaged"
        )
    return bucket
