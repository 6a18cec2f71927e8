"""SOAP for the networks of a codec beside Adam for its latents.

Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", 2024 (arXiv:2409.11321),
Algorithm 3: Adam in the eigenbases of the mean squares of a matrix's gradient, from both sides.
These networks have a few hundred numbers and stand for hundreds of thousands of latents, so a
better step of theirs is nearly free: at equal steps J falls by 3 %, and by 6 % at three times the
rates, which it bears (Cool-chic 5.0 does so too). We differ in keeping the first moment
unrotated, which is the same; in whole eigendecompositions instead of orthogonal iterations (faster
for matrices this small, and to compile); in taking a convolution for a matrix of its outputs by
all else; and in padding all matrices to one size, since a hundred small products took 6 ms. The
first steps are short: all numbers at once one rate away from where they were learned cost 5 % of J
on one photo, and left another with a dead colour.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array, lax
from jaxtyping import Float

_B1 = _B2 = 0.95
_EPS = 1e-8
_MOST = 1.0
"""Of a move, as a share of the rate. In one basis no mean over the root of its mean square is
larger, as both decays are equal (Cauchy-Schwarz). Where directions change ranks as bases are looked
at anew, a mean meets another's square: one such step of 5 913 rates took a fit from 36 to 11 dB."""
RAMP = 30
"""Steps until networks move at their full rates."""
EVERY = 10
"""Steps between looks at the bases."""


@struct.dataclass
class _Moments:
    """Of networks: their matrices, n of them in s rows and columns, and all other numbers."""

    mean: tuple[Array, ...]
    square: tuple[Array, ...]
    """Mean squares of turned gradients."""
    sides: Float[Array, "2 n s s"]
    """Means of G G^T and of G^T G; at first -1 where padded, so that this does not mix with
    directions that have no gradient yet."""
    bases: Float[Array, "2 n s s"]
    """Their eigenvectors of some steps ago, in columns."""


@struct.dataclass
class SoapState:
    """Of all latents and networks."""

    count: Array
    mu: Any
    """First moments, as the scene but without ``networks``."""
    nu: Any
    """Second moments, likewise."""
    networks: _Moments


def scaled_soap(rates: Callable[[Array], Any], *, b2: float) -> optax.GradientTransformation:
    """Adam for the latents of a scene and SOAP for its ``networks``, with rates of their own.

    Args:
        rates: Step -> pytree like the scene, or a prefix of it: learning rates.
        b2: Decay of the second moments of latents.
    """
    adam: Any = optax.scale_by_adam(b2=b2, eps=1e-15)

    def init(scene: Any) -> Any:  # noqa: ANN401
        parts = _parts(scene.networks)
        one = jnp.eye(parts[0].shape[-1], dtype=parts[0].dtype)
        bases = jnp.broadcast_to(one, (2, *parts[0].shape))
        zeros = tuple(jnp.zeros_like(part) for part in parts)
        moments = _Moments(zeros, zeros, -bases * _padding(scene.networks), bases)
        latents = adam.init(scene.replace(networks=None))
        return SoapState(latents.count, latents.mu, latents.nu, moments)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:  # noqa: ANN401
        others = optax.ScaleByAdamState(state.count, state.mu, state.nu)
        moves, others = adam.update(updates.replace(networks=None), others)
        parts, moments = _moved(_parts(updates.networks), state.networks, state.count)
        moves = moves.replace(networks=_whole(parts, updates.networks))
        moved = jax.tree.map(_scaled, rates(state.count), moves)
        return moved, SoapState(others.count, others.mu, others.nu, moments)

    soap: Any = optax.GradientTransformation
    return soap(init, update)


def _scaled(rate: Any, below: Any) -> Any:  # noqa: ANN401
    def times(move: Array) -> Array:
        return -rate * move

    return jax.tree.map(times, below)


def _sizes(leaf: Array) -> tuple[int, int]:
    return leaf.shape[0], math.prod(leaf.shape[1:])


def _parts(networks: Any) -> tuple[Array, ...]:  # noqa: ANN401
    """Matrices, padded with zeros to the size of the largest, and a vector of all that is none."""
    leaves = jax.tree.leaves(networks)
    matrices = [leaf.reshape(_sizes(leaf)) for leaf in leaves if leaf.ndim > 1]
    most = max(max(m.shape) for m in matrices)
    padded = [jnp.pad(m, ((0, most - m.shape[0]), (0, most - m.shape[1]))) for m in matrices]
    others = [jnp.zeros(0, leaves[0].dtype), *(leaf.ravel() for leaf in leaves if leaf.ndim < 2)]
    return jnp.stack(padded), jnp.concatenate(others)


def _padding(networks: Any) -> Array:  # noqa: ANN401
    """1 at padding, of rows and of columns of the matrices: (2, n, 1, s)."""
    filled = jax.tree.map(jnp.ones_like, networks)
    used = _parts(filled)[0]
    return 1 - jnp.stack([used.max(2), used.max(1)])[:, :, None]


def _whole(parts: tuple[Array, ...], like: Any) -> Any:  # noqa: ANN401
    """The inverse of :func:`_parts`."""
    matrices, at, leaves = iter(parts[0]), 0, []
    for leaf in jax.tree.leaves(like):
        if leaf.ndim > 1:
            rows, columns = _sizes(leaf)
            leaves.append(next(matrices)[:rows, :columns].reshape(leaf.shape))
        else:
            leaves.append(parts[1][at : at + leaf.size].reshape(leaf.shape))
            at += leaf.size
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _moved(
    grads: tuple[Array, ...], old: _Moments, count: Array
) -> tuple[tuple[Array, ...], _Moments]:
    """What to take times the rate from all numbers, and the new moments."""
    g = grads[0]
    left, right = old.bases
    seen = (left.mT @ g @ right, grads[1])
    mean = tuple(_B1 * m + (1 - _B1) * x for m, x in zip(old.mean, grads, strict=True))
    square = tuple(_B2 * v + (1 - _B2) * x * x for v, x in zip(old.square, seen, strict=True))
    t = (count + 1).astype(g.dtype)
    small, large = (1 - b**t for b in (_B1, _B2))
    moves = (left.mT @ mean[0] @ right, mean[1])
    moves = [m / small / (jnp.sqrt(v / large) + _EPS) for m, v in zip(moves, square, strict=True)]
    turned = jnp.clip(moves[0], -_MOST, _MOST)
    move = (left @ turned @ right.mT, moves[1])
    sides = _B2 * old.sides + (1 - _B2) * jnp.stack([g @ g.mT, g.mT @ g])
    # By falling eigenvalue, padding last: so the squares stay with columns of their rank.
    bases = lax.cond(count % EVERY == 0, _eigenvectors, partial(_same, old.bases), sides)
    share = jnp.minimum(count.astype(g.dtype) / RAMP, 1)
    return (share * move[0], share * move[1]), _Moments(mean, square, sides, bases)


def _same(bases: Array, _sides: Array) -> Array:
    return bases


def _eigenvectors(sides: Array) -> Array:
    return jnp.linalg.eigh(sides, symmetrize_input=False)[1][..., ::-1]
