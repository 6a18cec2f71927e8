"""WavePlanes: feature planes that are stored as wavelet coefficients.

Azzarelli, Anantrasirichai, Bull, "WavePlanes: A compact Wavelet representation for Dynamic Neural
Radiance Fields", 2023, arXiv:2312.02218: every plane is the inverse discrete wavelet transform of
learned coefficients, planes of space and time are 1 plus theirs (so that zero means static), scales
come from stopping the transform early, and small coefficients are cut to make files small.

The wavelet is CDF 9/7 (bior4.4) in the four lifting steps of Daubechies and Sweldens, "Factoring
Wavelet Transforms into Lifting Steps", 1998, Sec. 7.7, mirrored at the ends, and scaled so that a
constant keeps its value in the low band. Each step is undone exactly by its opposite.

Letters: F features, J levels of the transform, n, m vertices along the axes of a plane; s, d the
low and the high band of a line.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from lumefield.fields.networks._planes import (
    checked_time_axis,
    decode,
    decoder,
    pairs,
    product_or_sum,
)

_STEPS = (-1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971)
"""alpha, beta, gamma, delta: predict, update, predict, update."""
_LOW = 1.230174104914001
"""The low band's gain for a constant after the four steps; we divide by it."""


def _neighbours_of_high(s: Array) -> Array:
    """For every d[k]: s[k] + s[k + 1], mirrored at the end; along axis 0."""
    return s + jnp.concatenate([s[1:], s[-1:]])


def _neighbours_of_low(d: Array) -> Array:
    """For every s[k]: d[k - 1] + d[k], mirrored at the start; along axis 0."""
    return d + jnp.concatenate([d[:1], d[:-1]])


def split(x: Float[Array, "n *r"]) -> tuple[Array, Array]:
    """One level of the transform along the first axis: low and high band, n / 2 each.

    Args:
        x: An even number of values along the first axis.

    Raises:
        ValueError: If their number is odd.
    """
    if x.shape[0] % 2:
        raise ValueError(f"x has {x.shape[0]} values along its first axis, expected an even number")
    s, d = x[0::2], x[1::2]
    for k, step in enumerate(_STEPS):
        if k % 2 == 0:
            d = d + step * _neighbours_of_high(s)
        else:
            s = s + step * _neighbours_of_low(d)
    return s / _LOW, d * _LOW


def join(s: Float[Array, "n *r"], d: Float[Array, "n *r"]) -> Float[Array, "_ *r"]:
    """The inverse of :func:`split`."""
    s, d = s * _LOW, d / _LOW
    for k, step in reversed(list(enumerate(_STEPS))):
        if k % 2 == 0:
            d = d - step * _neighbours_of_high(s)
        else:
            s = s - step * _neighbours_of_low(d)
    return jnp.stack([s, d], 1).reshape(2 * s.shape[0], *s.shape[1:])


def split_plane(x: Float[Array, "n m f"]) -> tuple[Array, Array]:
    """One level in two dimensions: (n/2, m/2, F) low band, (3, n/2, m/2, F) others.

    The others: high along axis 1, along axis 0, along both.
    """
    low, high = split(x)
    ll, lh = _along_second(low)
    hl, hh = _along_second(high)
    return ll, jnp.stack([lh, hl, hh])


def _along_second(x: Array) -> tuple[Array, Array]:
    s, d = split(jnp.moveaxis(x, 1, 0))
    return jnp.moveaxis(s, 0, 1), jnp.moveaxis(d, 0, 1)


@jax.jit
def join_plane(low: Float[Array, "n m f"], others: Float[Array, "3 n m f"]) -> Array:
    """The inverse of :func:`split_plane`."""

    def second(s: Array, d: Array) -> Array:
        return jnp.moveaxis(join(jnp.moveaxis(s, 1, 0), jnp.moveaxis(d, 1, 0)), 0, 1)

    return join(second(low, others[0]), second(others[1], others[2]))


class WavePlanes(nnx.Module):
    """Wavelet planes from ``i`` coordinates in [-1, 1] (2 to 4) to ``o`` values.

    The two finest scales (only one when ``levels`` is 1) of every plane are multiplied over the
    planes as K-Planes do, stand side by side, and go through a small network.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        size: int | Sequence[int] = 128,
        levels: int = 3,
        features: int = 16,
        hidden: Sequence[int] = (64,),
        time_axis: int | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw the coarse bands of space within 0.1 to 0.5; all other coefficients start at 0.

        Args:
            d_in: Number of coordinates.
            d_out: Number of values.
            size: Vertices per axis, multiples of 2^levels; one number or one per axis.
            levels: J, of the transform.
            features: F, of every plane.
            hidden: Units of the hidden layers of the decoder; none make it linear.
            time_axis: Which coordinate is time; None for none (with 4 coordinates: the last).
            rngs: Where the numbers come from.

        Raises:
            ValueError: If a number is out of its range.
        """
        if not 2 <= d_in <= 4:
            raise ValueError(f"d_in={d_in}, expected 2 to 4 coordinates: planes have two")
        if levels < 1 or features < 1:
            raise ValueError(f"levels={levels}, features={features}, expected at least 1 of each")
        sizes = (size,) * d_in if isinstance(size, int) else tuple(size)
        part = 1 << levels
        if len(sizes) != d_in or any(n % part or n < 2 * part for n in sizes):
            raise ValueError(
                f"size={size}, expected multiples of {part}, at least {2 * part}, for "
                f"levels={levels}; one or {d_in} of them"
            )
        self.time_axis = checked_time_axis(d_in, time_axis)
        self.levels = levels
        axes = pairs(d_in)
        grids = [(sizes[a] // part, sizes[b] // part) for a, b in axes]
        self.coarse = nnx.List(
            nnx.Param(
                jnp.zeros((*grid, features))
                if self.time_axis in pair
                else jax.random.uniform(rngs.params(), (*grid, features), minval=0.1, maxval=0.5)
            )
            for grid, pair in zip(grids, axes, strict=True)
        )
        self.details = nnx.List(
            nnx.Param(jnp.zeros((3, grid[0] << j, grid[1] << j, features)))
            for grid in grids
            for j in range(levels)
        )
        self.layers = decoder(features * min(levels, 2), d_out, hidden, rngs)

    def planes(self, d: int) -> list[list[Array]]:
        """The planes of the kept scales, coarse first; each a list over pairs of ``d`` axes."""
        kept: list[list[Array]] = [[] for _ in range(min(self.levels, 2))]
        for k, pair in enumerate(pairs(d)):
            plane = self.coarse[k][...]
            base = 1 if self.time_axis in pair else 0
            for j in range(self.levels):
                plane = join_plane(plane, self.details[k * self.levels + j][...])
                if j >= self.levels - len(kept):
                    kept[j - self.levels + len(kept)].append(base + plane)
        return kept

    def __call__(self, x: Float[Array, "*s i"]) -> Float[Array, "*s o"]:
        """Values at ``x``; every leading axis is a batch axis."""
        if len(pairs(x.shape[-1])) != len(self.coarse):
            raise ValueError(f"x has shape {x.shape}, expected {len(self.coarse)} pairs of axes")
        parts = [product_or_sum(planes, x, "product") for planes in self.planes(x.shape[-1])]
        return decode(self.layers, jnp.concatenate(parts, -1))


def threshold(field: WavePlanes, eps: float) -> tuple[WavePlanes, float]:
    """Set the detail coefficients of magnitude up to ``eps`` to zero.

    Args:
        field: Wavelet planes; not changed.
        eps: In units of the planes' values, >= 0. Coarse bands are kept.

    Returns:
        The new field, and the fraction of zeros among all of its coefficients.

    Raises:
        ValueError: If ``eps`` is negative.
    """
    if eps < 0:
        raise ValueError(f"eps={eps}, expected 0 or more")
    copy = jax.tree.unflatten(jax.tree.structure(field), jax.tree.leaves(field))
    cut = [jnp.where(jnp.abs(p[...]) <= eps, 0, p[...]) for p in field.details]
    copy.details = nnx.List(nnx.Param(c) for c in cut)
    every = [np.asarray(c) for c in (*cut, *(p[...] for p in field.coarse))]
    zeros = sum(int((c == 0).sum()) for c in every)
    return copy, zeros / sum(c.size for c in every)
