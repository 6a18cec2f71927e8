"""Few values for many: codebooks of numbers and palettes of vectors, least squares.

Letters: ``n`` things, ``c`` entries, ``d`` length of a vector.
"""

import numpy as np
from numpy.typing import NDArray

_BLOCK = 1 << 14
_COARSE = 64
_SAMPLE = 1 << 14


def codebook(values: NDArray[np.float32], c: int, rounds: int = 60) -> NDArray[np.float32]:
    """The ``c`` numbers (c,), ascending, that stand for many with a small squared error.

    Starts where quantisation theory puts the levels, at density^(1/3) (Panter and Dite 1951), and
    goes on by Lloyd's rounds, exact and cheap on sorted values. Fewer different values than ``c``
    are kept exactly; the last is repeated.
    """
    x = np.sort(values.ravel().astype(np.float64))
    if not len(x):
        return np.zeros(c, np.float32)
    distinct = np.unique(x)
    if len(distinct) <= c:
        return np.pad(distinct, (0, c - len(distinct)), mode="edge").astype(np.float32)
    counts, edges = np.histogram(x, 4096)
    weight = np.concatenate([[0.0], np.cumsum(np.cbrt(counts))])
    book = np.interp((np.arange(c) + 0.5) / c * weight[-1], weight, edges)
    total = np.concatenate([[0.0], np.cumsum(x)])
    for _ in range(rounds):
        ends = np.concatenate([[0], np.searchsorted(x, (book[1:] + book[:-1]) / 2), [len(x)]])
        number = np.diff(ends)
        mean = np.diff(total[ends]) / np.maximum(number, 1)
        book = np.sort(np.where(number > 0, mean, book))
    return book.astype(np.float32)


def nearest(values: NDArray[np.float32], book: NDArray[np.float32]) -> NDArray[np.int64]:
    """Index of the closest number of an ascending codebook, in the shape of ``values``."""
    return np.searchsorted((book[1:] + book[:-1]) / 2, values)


def palette(
    vectors: NDArray[np.float32], c: int, *, rounds: int = 6, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """At most ``c`` vectors (c, d) that stand for many (n, d), and the index (n,) of each.

    k-means in two levels, because one level costs n c d: coarse cells of similar vectors first,
    then each cell gets a share of the palette by its squared error and its own k-means.
    """
    distinct, first = np.unique(vectors, axis=0, return_inverse=True)
    if len(distinct) <= c:
        return distinct, first.reshape(-1)
    rng = np.random.default_rng(seed)
    n = len(vectors)
    sample = vectors[rng.choice(n, min(n, _SAMPLE), replace=False)]
    centres, _ = _k_means(sample, max(1, min(_COARSE, c // 16)), rounds, rng)
    cell = _closest(vectors, centres)
    found: list[NDArray[np.float32]] = []
    index, base = np.empty(n, np.int64), 0
    for rows, share in _shares(vectors, cell, c):
        part, label = _k_means(vectors[rows], share, rounds, rng)
        index[rows] = base + label
        found.append(part)
        base += len(part)
    return np.concatenate(found), index


def _shares(
    vectors: NDArray[np.float32], cell: NDArray[np.int64], c: int
) -> list[tuple[NDArray[np.int64], int]]:
    """Rows of each coarse cell and its number of entries, at least one, ``c`` together at most."""
    order = np.argsort(cell, kind="stable")
    groups = [g for g in np.split(order, np.flatnonzero(np.diff(cell[order])) + 1) if len(g)]
    error = np.array([float(np.sum((vectors[g] - vectors[g].mean(0)) ** 2)) for g in groups])
    size = np.array([len(g) for g in groups], np.float64)
    # Entries of equal use: the error of a cell of m entries falls about as m^(-2/d), d large.
    weight = np.sqrt(error * size)
    left = c - len(groups)
    share = 1 + np.floor(left * weight / max(weight.sum(), 1e-300)).astype(int)
    return [(g, int(min(s, len(g)))) for g, s in zip(groups, share, strict=True)]


def _k_means(
    x: NDArray[np.float32], c: int, rounds: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Lloyd's k-means from a random choice of the vectors; an entry that empties stays."""
    from scipy.sparse import csr_array

    centres = x[rng.choice(len(x), c, replace=False)]
    label = _closest(x, centres)
    for _ in range(rounds):
        member = csr_array((np.ones(len(x), np.float32), label, np.arange(len(x) + 1)), (len(x), c))
        number = np.bincount(label, minlength=c)[:, None]
        mean = np.asarray(member.T @ x, np.float32) / np.maximum(number, 1)
        centres = np.where(number > 0, mean, centres).astype(np.float32)
        label = _closest(x, centres)
    return centres, label


def _closest(x: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.int64]:
    """Index (n,) of the closest centre: |c|^2 / 2 - x c, a matrix product per block."""
    half = 0.5 * (centres**2).sum(1)
    block = max(64, _BLOCK * 64 // len(centres))
    out = np.empty(len(x), np.int64)
    for start in range(0, len(x), block):
        rows = slice(start, start + block)
        out[rows] = (half - x[rows] @ centres.T).argmin(1)
    return out
