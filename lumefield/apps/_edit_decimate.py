"""``lumefield edit SCENE decimate``: fewer Gaussians, by leaving out or by melting together."""

import dataclasses
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._edit_scene import Floats, Outcome, Removed, Subject, Tell, opacity_of, without
from lumefield.errors import InputError

if TYPE_CHECKING:
    from lumefield.codecs.formats import Splats

_NEIGHBOURS = 6
_ROUNDS = 40
_SHARE = 0.5
"""Most of the missing pairs that one round melts: costs are measured anew after it."""
_COLOUR = 2.0
"""A difference of colour of 1 costs as much as this many standard deviations of distance."""
_C0 = 0.28209479177387814
_MOST = 0.99


@dataclasses.dataclass(frozen=True)
class Decimate:
    """Keep a number of Gaussians, chosen by what they contribute to the pictures."""

    to: int
    """How many Gaussians stay."""
    by: Literal["merge", "drop"] = "merge"
    """Melt neighbours that look alike into one, or leave out what contributes least."""


def decimate(subject: Subject, wish: Decimate, tell: Tell) -> Outcome:
    """At most ``wish.to`` Gaussians.

    Raises:
        InputError: If the number is not between 1 and what there is.
    """
    from lumefield.apps._export_prune import contributions, strongest

    splats, total = subject.splats, len(subject.splats.means)
    if not 1 <= wish.to < total:
        raise InputError(f"--to {wish.to:,}: expected 1 to {total - 1:,}, the scene has {total:,}")
    weight = contributions(splats, subject.looks(), tell)
    if wish.by == "merge":
        small = melted(splats, weight, wish.to, tell)
        line = f"melted {total:,} Gaussians into {len(small.means):,}"
        return Outcome(small, told=(line,), facts={"of": total, "left": len(small.means)})
    # What leaving one out costs is the sum of its squared weights, about their sum times opacity.
    kept, _ = strongest(weight * opacity_of(splats), wish.to)
    why = np.zeros(total, np.int64)
    why[kept] = -1
    share = float(weight[kept].sum() / max(weight.sum(), 1e-300))
    made = without(subject, Removed(why, ("contributes least",)))
    line = f"what stays makes up {100 * share:.2f} % of what the views show"
    return dataclasses.replace(
        made, told=(*made.told, line), facts={**made.facts, "share": round(share, 6)}
    )


def melted(splats: "Splats", weight: Floats, to: int, tell: Tell) -> "Splats":
    """Pairs of neighbours become one Gaussian of the same mass, mean and covariance, until few.

    Moment matching as in Kerbl et al., "A Hierarchical 3D Gaussian Representation", 2024, section
    4: means and covariances are averaged with the weights, the spread of the means added. Unlike
    there pairs are mutual nearest neighbours in place and colour, not siblings of a tree, and
    weights are measured in pictures. What is never seen goes first.

    Args:
        splats: N Gaussians.
        weight: (N,) what each contributes, in pixels.
        to: How many to leave, at least 1.
        tell: Progress.
    """
    order = np.argsort(-weight, kind="stable")[: max(to, int((weight > 0).sum()))]
    kept = np.sort(order)
    now, weight = splats.taken(kept), weight[kept] + 1e-9
    for _ in range(_ROUNDS):
        over = len(now.means) - to
        if over <= 0:
            break
        one, other = _pairs(now, weight, max(1, int(_SHARE * over)) if over > 8 else over)
        if not len(one):
            break
        now, weight = _joined(now, weight, one, other)
        tell("melting", 1 - (len(now.means) - to) / max(len(kept) - to, 1))
    if len(now.means) > to:
        keep = np.sort(np.argsort(-weight, kind="stable")[:to])
        now = now.taken(keep)
    return now


def _pairs(
    splats: "Splats", weight: Floats, most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Disjoint pairs (p,), (p,) that cost least: near and alike, and of little weight."""
    from scipy.spatial import KDTree

    points = splats.means.astype(np.float64)
    n = len(points)
    found = KDTree(points).query(points, k=min(_NEIGHBOURS + 1, n))
    far, near = (np.asarray(v) for v in found)
    one = np.repeat(np.arange(n), near.shape[1] - 1)
    other, far = near[:, 1:].ravel(), far[:, 1:].ravel()
    first = one < other
    size = np.exp(splats.log_scales.astype(np.float64).mean(1))
    shade = _C0 * splats.sh[:, 0].astype(np.float64)
    apart = far / (size[one] + size[other])
    apart += _COLOUR * np.linalg.norm(shade[one] - shade[other], axis=1)
    cost = apart**2 * weight[one] * weight[other] / (weight[one] + weight[other])
    cost = np.where(first, cost, np.inf)
    taken, a, b = np.zeros(n, bool), list[int](), list[int]()
    for k in np.argsort(cost, kind="stable")[: 4 * most]:
        i, j = int(one[k]), int(other[k])
        if taken[i] or taken[j] or not np.isfinite(cost[k]):
            continue
        taken[i] = taken[j] = True
        a.append(i)
        b.append(j)
        if len(a) == most:
            break
    return np.array(a, np.int64), np.array(b, np.int64)


def _joined(
    splats: "Splats", weight: Floats, one: NDArray[np.int64], other: NDArray[np.int64]
) -> tuple["Splats", Floats]:
    """The scene with every pair melted; the new Gaussians take the place of the first of each."""
    share = weight[one] / (weight[one] + weight[other])

    def mean(values: NDArray[np.floating]) -> Floats:
        s = share.reshape(-1, *(1,) * (values.ndim - 1))
        return s * values[one] + (1 - s) * values[other]

    points, cov = splats.means.astype(np.float64), _covariances(splats)
    middle = mean(points)
    apart = points[one] - points[other]
    spread = (share * (1 - share))[:, None, None] * apart[:, :, None] * apart[:, None, :]
    scales, quats = _axes(mean(cov) + spread)
    # What a pair covered, opacity times area, the new one covers too.
    opacity, area = opacity_of(splats), _area(np.exp(splats.log_scales.astype(np.float64)))
    covered = opacity[one] * area[one] + opacity[other] * area[other]
    alpha = np.clip(covered / np.maximum(_area(scales), 1e-300), 1e-4, _MOST)
    new = {
        "means": middle,
        "quats_wxyz": quats,
        "log_scales": np.log(np.maximum(scales, 1e-30)),
        "logit_opacities": np.log(alpha / (1 - alpha)),
        "sh": mean(splats.sh.astype(np.float64)),
    }
    arrays = {name: getattr(splats, name).copy() for name in new}
    for name, value in new.items():
        arrays[name][one] = value
    weight = weight.copy()
    weight[one] += weight[other]
    left = np.ones(len(weight), bool)
    left[other] = False
    return dataclasses.replace(splats, **arrays).taken(left), weight[left]


def _area(scales: Floats) -> Floats:
    """The mean of the areas of the three projections along the axes, up to a factor."""
    x, y, z = scales.T
    return x * y + y * z + z * x


def _covariances(splats: "Splats") -> Floats:
    """(N, 3, 3)."""
    from scipy.spatial.transform import Rotation

    quats = splats.quats_wxyz.astype(np.float64)
    quats = np.where((np.abs(quats).max(1) > 0)[:, None], quats, np.array([1.0, 0, 0, 0]))
    turn = Rotation.from_quat(np.roll(quats, -1, axis=1)).as_matrix()
    half = turn * np.exp(splats.log_scales.astype(np.float64))[:, None, :]
    return half @ half.transpose(0, 2, 1)


def _axes(cov: Floats) -> tuple[Floats, Floats]:
    """Standard deviations (N, 3) and rotations (N, 4), w first, of covariances (N, 3, 3)."""
    from scipy.spatial.transform import Rotation

    values, vectors = np.linalg.eigh(cov)
    vectors[:, :, 0] *= np.sign(np.linalg.det(vectors))[:, None]
    quats = Rotation.from_matrix(vectors).as_quat()
    return np.sqrt(np.maximum(values, 0)), np.roll(quats, 1, axis=1)
