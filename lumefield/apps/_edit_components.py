"""``lumefield edit SCENE components``: the largest connected pieces of a scene."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._edit_scene import Floats, Outcome, Removed, Subject, Tell, opacity_of, without
from lumefield.errors import InputError

_NEIGHBOURS = 12
_SHOWN = 10
_FAINT = 0.02


@dataclasses.dataclass(frozen=True)
class Components:
    """Keep the largest connected pieces; lists them first."""

    keep: int = 1
    """How many pieces stay, the largest first."""
    reach: float = 3.0
    """Gaussians touch when their centres are nearer than this many of their standard deviations,
    the largest of one plus the largest of the other."""


def components(subject: Subject, wish: Components, tell: Tell) -> Outcome:
    """The pieces of most opacity.

    Raises:
        InputError: If a number is out of range.
    """
    if wish.keep < 1 or not 0.1 <= wish.reach <= 100:
        raise InputError(
            f"--keep {wish.keep} --reach {wish.reach:g}: expected at least 1, and 0.1 to 100"
        )
    tell("finding pieces", 0.1)
    splats, opacity = subject.splats, opacity_of(subject.splats)
    size = np.exp(np.clip(splats.log_scales.astype(np.float64).max(1), -80, 80))
    points = splats.means.astype(np.float64)
    label = pieces(points, size, opacity > _FAINT, wish.reach)
    mass = np.bincount(label, opacity)
    order = np.argsort(-mass, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    told = [f"{len(mass):,} pieces"]
    listed: list[dict[str, object]] = []
    for k, piece in enumerate(order[:_SHOWN]):
        mine = label == piece
        box = np.stack([points[mine].min(0), points[mine].max(0)]).round(4).tolist()
        share = float(mass[piece] / max(mass.sum(), 1e-300))
        listed.append({"gaussians": int(mine.sum()), "share": round(share, 6), "box": box})
        told.append(
            f"{k + 1:>4}: {int(mine.sum()):>9,} Gaussians, {100 * share:6.2f} % of all opacity, "
            f"{box[0]} to {box[1]}" + ("  kept" if k < wish.keep else "")
        )
    removed = Removed(np.where(rank[label] < wish.keep, -1, 0), ("smaller pieces",))
    made = without(subject, removed, tuple(told))
    return dataclasses.replace(made, facts={**made.facts, "pieces": len(mass), "largest": listed})


def pieces(
    points: Floats, size: Floats, links: NDArray[np.bool_], reach: float
) -> NDArray[np.int64]:
    """Label (N,) of the connected piece that each Gaussian belongs to.

    Args:
        points: (N, 3) centres.
        size: (N,) standard deviations along the longest axis.
        links: (N,) which Gaussians connect others; the rest belong to what they touch.
        reach: Distance at which two touch, in units of the sum of their sizes.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    n = len(points)
    if n < 2:
        return np.zeros(n, np.int64)
    found = KDTree(points).query(points, k=min(_NEIGHBOURS + 1, n))
    near, other = (np.asarray(v) for v in found)
    one = np.repeat(np.arange(n), near.shape[1] - 1)
    other, near = other[:, 1:].ravel(), near[:, 1:].ravel()
    touch = (near <= reach * (size[one] + size[other])) & (links[one] | links[other])
    graph = coo_matrix((np.ones(int(touch.sum()), bool), (one[touch], other[touch])), (n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)
