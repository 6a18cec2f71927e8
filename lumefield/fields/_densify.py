"""Changing the number of Gaussians without changing a shape: fixed capacity, some slots dead.

Two ways, both ``(Gaussians, Stats, key) -> (Gaussians, Stats, touched)``, where ``touched`` marks
the slots whose optimizer moments must be forgotten:

* :func:`relocate` (the default): Kheradmand et al., "3D Gaussian Splatting as Markov Chain Monte
  Carlo", 2024.
* :func:`clone_split_prune`: Kerbl et al. 2023, Sec. 5.2, with the absolute gradients of Ye et al.,
  "AbsGS", 2024.

:func:`morton_order` puts neighbours in space next to each other in memory again afterwards.
"""

import dataclasses
import typing

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jaxtyping import Bool, Float, Int, PRNGKeyArray

from lumefield.fields._gaussians import DEAD_LOGIT, Gaussians

MIN_OPACITY = 0.005
"""A Gaussian at or below this opacity is dead (both papers)."""
_MAX_COPIES = 51
_SPLIT_SHRINK = 1.6


@typing.no_type_check
@struct.dataclass
class Stats:
    """What densification remembers between its calls."""

    used: Int[Array, ""]
    """Slots in use are 0 ... used - 1 (relocation); the rest have never been filled."""
    gradient: Float[Array, " n"]
    """Sum over steps of the absolute screen gradient of a Gaussian, in half image widths."""
    seen: Float[Array, " n"]
    """Number of steps in which the Gaussian had any gradient."""

    @classmethod
    def start(cls, used: int, capacity: int) -> "Stats":
        """Nothing seen yet."""
        zeros = jnp.zeros(capacity, jnp.float32)
        return cls(used=jnp.asarray(used, jnp.int32), gradient=zeros, seen=zeros)

    def watched(self, probe: Float[Array, "n 2"], height: int, width: int) -> "Stats":
        """Add one step's AbsGS statistic: sum over pixels of |dL/dxy|, in pixels^-1."""
        size = jnp.asarray([width / 2, height / 2], probe.dtype)
        norm = jnp.linalg.norm(probe * size[None], axis=-1)
        return dataclasses.replace(
            self, gradient=self.gradient + norm, seen=self.seen + (norm > 0).astype(norm.dtype)
        )


def _logit(p: Array) -> Array:
    return jnp.log(p) - jnp.log1p(-p)


def _taken(gaussians: Gaussians, slots: Array) -> Gaussians:
    def take(leaf: Array) -> Array:
        return leaf[slots]

    return jax.tree.map(take, gaussians)


def shared_shape(
    opacity: Float[Array, " n"], copies: Int[Array, " n"]
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Opacity and scale factor that make ``copies`` Gaussians in one place look like one.

    Kheradmand et al. 2024, Eq. 9: o' = 1 - (1 - o)^(1/n), and the scale shrinks by
    o / sum_i sum_k C(i-1, k) (-1)^k o'^(k+1) / sqrt(k+1).

    Args:
        opacity: In (0, 1).
        copies: Number of Gaussians, 1 to 51 (more count as 51).

    Returns:
        The opacity of each copy, and the factor on its standard deviations.
    """
    copies = jnp.clip(copies, 1, _MAX_COPIES)
    n = copies.astype(opacity.dtype)
    each = -jnp.expm1(jnp.log1p(-opacity) / n)
    # The alternating sum loses all digits in float32 for many copies of an opaque Gaussian, so
    # integrate instead: sum = integral over x of 1 - (1 - o' g(x))^n for a unit Gaussian g, divided
    # by that of g.
    x = jnp.asarray(np.linspace(0, 6, 33), opacity.dtype)
    profile = jnp.exp(-0.5 * x**2)[None]
    cover = -jnp.expm1(n[:, None] * jnp.log1p(-each[:, None] * profile))
    # Trapezoids of one width: the width cancels, and the value at 6 is nothing.
    area = (cover.sum(-1) - cover[:, 0] / 2) / (profile.sum() - 0.5)
    return each, opacity / area


def relocate(
    gaussians: Gaussians, stats: Stats, key: PRNGKeyArray, *, limit: int, growth: float = 1.05
) -> tuple[Gaussians, Stats, Bool[Array, " n"]]:
    """Move dead Gaussians onto live ones and add new ones, keeping the picture.

    Sources are drawn with probability proportional to opacity; a source and its copies share
    opacity and size by :func:`shared_shape`.

    Args:
        gaussians: Unbatched, any capacity.
        stats: Its ``used`` grows by ``growth`` up to ``limit``.
        key: Random key.
        limit: Most slots to use, at most the capacity.
        growth: Factor on the slots in use per call.

    Returns:
        Gaussians, stats, and the slots that changed.
    """
    slot = jnp.arange(gaussians.count)
    opacity = jax.nn.sigmoid(gaussians.logit_opacities)
    grown = jnp.ceil(stats.used.astype(jnp.float32) * growth).astype(jnp.int32)
    used = jnp.minimum(grown, min(limit, gaussians.count))
    used = jnp.maximum(used, stats.used)
    alive = (opacity > MIN_OPACITY) & (slot < stats.used)
    target = ~alive & (slot < used) & jnp.any(alive)
    weight = jnp.cumsum(jnp.where(alive, opacity, 0.0))
    draw = jax.random.uniform(key, (gaussians.count,)) * weight[-1]
    source = jnp.minimum(jnp.searchsorted(weight, draw, side="right"), gaussians.count - 1)
    source = jnp.where(alive[source], source, jnp.argmax(opacity))
    extra = jnp.zeros(gaussians.count, jnp.int32).at[source].add(target.astype(jnp.int32))
    each, shrink = shared_shape(jnp.clip(opacity, MIN_OPACITY, 1 - 1e-6), extra + 1)
    divided = extra > 0
    shared = dataclasses.replace(
        gaussians,
        logit_opacities=jnp.where(
            divided, _logit(jnp.maximum(each, MIN_OPACITY)), gaussians.logit_opacities
        ),
        log_scales=jnp.where(
            divided[:, None], gaussians.log_scales + jnp.log(shrink)[:, None], gaussians.log_scales
        ),
    )
    origin = jnp.where(target, source, slot)
    moved = _taken(shared, origin)
    return moved, dataclasses.replace(stats, used=used), target | divided


def explore(
    gaussians: Gaussians, key: PRNGKeyArray, strength: Float[Array, ""]
) -> Float[Array, "n 3"]:
    """The noise that relocation training adds to the centres; Kheradmand et al. 2024, Eq. 8.

    Strong along the long axes of faint Gaussians, nothing for opaque ones.

    Args:
        gaussians: Unbatched.
        key: Random key.
        strength: 5e5 times the learning rate of the centres in the paper.

    Returns:
        (n, 3) displacements, world units.
    """
    opacity = jax.nn.sigmoid(gaussians.logit_opacities)
    gate = jax.nn.sigmoid(-100 * (opacity - MIN_OPACITY))
    noise = jax.random.normal(key, gaussians.means.shape, gaussians.means.dtype)
    q, s = gaussians.quats_wxyz, jnp.exp(gaussians.log_scales)
    local = rotate(q, noise, inverse=True) * s * s
    return rotate(q, local) * (gate * strength)[:, None]


def rotate(
    quats_wxyz: Float[Array, "*b 4"], v: Float[Array, "*b 3"], *, inverse: bool = False
) -> Float[Array, "*b 3"]:
    """Rotate vectors by quaternions of any length."""
    q = quats_wxyz / jnp.linalg.norm(quats_wxyz, axis=-1, keepdims=True).clip(1e-12)
    w, u = q[..., :1], q[..., 1:] * (-1 if inverse else 1)
    t = 2 * jnp.cross(u, v)
    return v + w * t + jnp.cross(u, t)


def clone_split_prune(
    gaussians: Gaussians,
    stats: Stats,
    key: PRNGKeyArray,
    *,
    limit: int,
    threshold: float = 8e-4,
    extent: float = 1.0,
) -> tuple[Gaussians, Stats, Bool[Array, " n"]]:
    """Prune faint Gaussians, then copy small and split large ones of high screen gradient.

    The copies fill dead slots, the highest gradients first; what finds no slot waits for the next
    call.

    Args:
        gaussians: Unbatched, any capacity.
        stats: ``gradient`` and ``seen`` since the last call; they start again at 0.
        key: Random key.
        limit: Most Gaussians alive at the end, at most the capacity.
        threshold: Mean absolute screen gradient above which a Gaussian is densified (AbsGS: 8e-4).
        extent: Radius of the scene, world units; above 1 % of it a Gaussian is split, not copied,
            and above all of it pruned.

    Returns:
        Gaussians, fresh stats, and the slots that changed: of a copied pair that is the copy only.
    """
    n = gaussians.count
    opacity = jax.nn.sigmoid(gaussians.logit_opacities)
    size = jnp.exp(gaussians.log_scales.max(-1))
    alive = (opacity > MIN_OPACITY) & (size < extent)
    score = jnp.where(alive & (stats.seen > 0), stats.gradient / stats.seen.clip(1), 0.0)
    wanted = score > threshold
    room = jnp.clip(min(limit, n) - alive.sum(), 0)
    by_score = jnp.argsort(-jnp.where(wanted, score, 0.0))
    by_death = jnp.argsort(alive)  # dead slots first, in order
    pairs = jnp.minimum(jnp.minimum(room, wanted.sum()), (~alive).sum())
    taken = jnp.arange(n) < pairs
    nowhere = jnp.full(n, n)
    parent_of = nowhere.at[jnp.where(taken, by_death, n)].set(by_score, mode="drop")
    child = parent_of < n
    origin = jnp.where(child, parent_of, jnp.arange(n))
    parent = jnp.zeros(n, bool).at[jnp.where(taken, by_score, n)].set(True, mode="drop")
    split = (parent | child) & (size[origin] > 0.01 * extent)
    copy = _taken(gaussians, origin)
    offset = rotate(
        copy.quats_wxyz,
        jax.random.normal(key, copy.means.shape, copy.means.dtype) * jnp.exp(copy.log_scales),
    )
    pruned = ~alive & ~child
    grown = dataclasses.replace(
        copy,
        means=copy.means + jnp.where(split[:, None], offset, 0.0),
        log_scales=copy.log_scales - jnp.where(split, float(np.log(_SPLIT_SHRINK)), 0.0)[:, None],
        logit_opacities=jnp.where(pruned, DEAD_LOGIT, copy.logit_opacities),
    )
    zeros = jnp.zeros_like(stats.gradient)
    fresh = Stats(used=(alive | child).sum().astype(jnp.int32), gradient=zeros, seen=zeros)
    return grown, fresh, split | child | (pruned & (gaussians.logit_opacities != DEAD_LOGIT))


def morton_order(points: Float[Array, "n 3"], last: Bool[Array, " n"]) -> Int[Array, " n"]:
    """The order along a space-filling curve (Morton 1966): neighbours in it are near in space.

    Ten bits an axis, of d / (|d| + s) with d the distance from the median and s its median: cells
    are s / 512 wide in the middle of the points, and wider far outside.

    Args:
        points: Centres, any unit; not all of them ``last``.
        last: Those that come at the end instead, in the order they have; they do not count in the
            medians.

    Returns:
        Indices: point ``order[i]`` comes at place i. Points of one cell keep their order.
    """
    # Medians, not means: sums depend in their last bits on the number of threads.
    middle = jnp.maximum(jnp.sum(~last) - 1, 0) // 2

    def median(values: Array) -> Array:
        return jnp.sort(jnp.where(last[:, None], jnp.inf, values), 0)[middle][None]

    away = points - median(points)
    usual = jnp.maximum(median(jnp.abs(away)), jnp.finfo(points.dtype).tiny)
    cell = (512 * (1 + away / (jnp.abs(away) + usual))).astype(jnp.uint32)
    cell = jnp.minimum(cell, jnp.uint32(1023))
    for shift, mask in ((16, 0x030000FF), (8, 0x0300F00F), (4, 0x030C30C3), (2, 0x09249249)):
        cell = (cell | (cell << shift)) & jnp.uint32(mask)  # two empty bits behind each
    key = cell[:, 0] | (cell[:, 1] << 1) | (cell[:, 2] << 2)
    key = jnp.where(last, jnp.uint32(0xFFFFFFFF), key)
    slot = jnp.arange(len(key), dtype=jnp.int32)
    return jax.lax.sort((key, slot), num_keys=1, is_stable=True)[1]


def reset_opacity(gaussians: Gaussians, ceiling: float = 0.01) -> Gaussians:
    """Lower every opacity to at most ``ceiling``: what is needed must earn it again (3DGS)."""
    top = float(np.log(ceiling / (1 - ceiling)))
    return dataclasses.replace(gaussians, logit_opacities=gaussians.logit_opacities.clip(max=top))
