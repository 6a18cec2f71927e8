"""Which photos are worth matching: those that share enough of their coarsest features.

Wu, "Towards Linear-Time Incremental Structure from Motion", 2013, Sec. 3 ("preemptive feature
matching"): the features of the largest scales are few, match across changes of viewpoint, and tell
cheaply whether two photos overlap. All pairs are tried with them as matrix products; unlike Wu,
each photo keeps its best partners by rank rather than by a fixed number of matches.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

COARSE = 384
"""Features per photo that are compared."""
_RATIO = 0.85


def coarsest(
    descriptors: NDArray[np.uint8], scales: NDArray[np.float32], count: int = COARSE
) -> NDArray[np.float32]:
    """The descriptors of the largest scales, at unit length.

    Args:
        descriptors: (f, d) SIFT descriptors.
        scales: (f,) their scales in pixels.
        count: How many to keep.
    """
    top = np.argsort(-scales, kind="stable")[:count]
    chosen = descriptors[top].astype(np.float32)
    return chosen / np.maximum(np.linalg.norm(chosen, axis=1, keepdims=True), 1e-6)


def shared(a: NDArray[np.float32], b: NDArray[np.float32]) -> int:
    """How many features of two photos are each other's best match, and clearly so."""
    if len(a) < 2 or len(b) < 2:
        return 0
    similarity = a @ b.T
    forth, back = similarity.argmax(axis=1), similarity.argmax(axis=0)
    mutual = back[forth] == np.arange(len(a))
    two = np.partition(similarity, -2, axis=1)[:, -2:]
    first, second = (np.sqrt(np.maximum(2 - 2 * two[:, k], 0)) for k in (1, 0))
    return int(np.count_nonzero(mutual & (first < _RATIO * second)))


def shortlist(
    coarse: Sequence[NDArray[np.float32]], *, partners: int = 14, least: int = 4
) -> list[tuple[int, int]]:
    """Pairs to match in full: each photo's best partners and its neighbours in the list.

    Args:
        coarse: Per photo, its coarsest descriptors.
        partners: Most partners chosen per photo (it may be chosen by more).
        least: Shared features below which a pair is not worth matching.
    """
    n = len(coarse)
    score = np.zeros((n, n), np.int64)
    for i in range(n):
        for j in range(i + 1, n):
            score[i, j] = score[j, i] = shared(coarse[i], coarse[j])
    pairs = {(i, i + step) for step in (1, 2) for i in range(n - step)}
    for i, row in enumerate(score):
        for j in np.argsort(-row, kind="stable")[:partners]:
            if row[j] >= least:
                pairs.add((min(i, int(j)), max(i, int(j))))
    return sorted(pairs)
