"""Encodings of coordinates: positional, Fourier, and integrated over a Gaussian.

Letters: L degrees (octaves), K directions of the basis, B frequency matrix.

* positional: Mildenhall et al., "NeRF", 2020, Eq. 4;
* Fourier features: Tancik et al., "Fourier Features Let Networks Learn High Frequency Functions in
  Low Dimensional Domains", 2020, Eq. 5;
* integrated: Barron et al., "Mip-NeRF", 2021, Eq. 13-14, with the off-axis basis of "Mip-NeRF 360",
  2022, Sec. 2 and appendix.
"""

import functools
import itertools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lumefield.fields.networks._trig import cos, sin

_LIVE = 30.0


def positional_encoding(x: Float[Array, "*s i"], degrees: int) -> Float[Array, "*s f"]:
    """Sines and cosines of ``pi 2^l x`` for l = 0 ... L-1 (NeRF, Eq. 4).

    Args:
        x: Coordinates, one period of the lowest octave is [-1, 1].
        degrees: L, number of octaves.

    Returns:
        f = 2 L i features, all sines before all cosines, octaves slowest.
    """
    angle = _product(x, _octaves(np.eye(x.shape[-1]), np.pi * 2.0 ** np.arange(degrees)))
    return jnp.concatenate([sin(angle), cos(angle)], -1)


def fourier_features(
    x: Float[Array, "*s i"], frequencies: Float[Array, "i k"]
) -> Float[Array, "*s f"]:
    """Sines and cosines of ``2 pi x B`` (Tancik et al., Eq. 5).

    Args:
        x: Coordinates.
        frequencies: B, one frequency vector per column, cycles per unit.

    Returns:
        f = 2k features, all sines before all cosines.
    """
    angle = 2 * np.pi * jnp.matmul(x, frequencies, precision="highest")
    return jnp.concatenate([sin(angle), cos(angle)], -1)


def integrated_encoding(
    mean: Float[Array, "*s 3"],
    cov: Float[Array, "*s 3 3"],
    basis: Float[Array, "k 3"] | np.ndarray,
    degrees: int,
) -> Float[Array, "*s f"]:
    """Expected positional encoding of a point that is distributed as a Gaussian.

    Mip-NeRF, Eq. 13-14: ``E[sin(a.x)] = sin(a.mean) exp(-a.cov.a / 2)`` with ``a = 2^l p`` for
    every direction p of the basis and l = 0 ... L-1, so that what is finer than the cone fades.
    Differentiable in ``mean`` and ``cov``; finite for every covariance that is not negative.
    Frequencies have no factor pi, as there.

    Args:
        mean: Mean, any frame.
        cov: Covariance, positive semi-definite.
        basis: One direction per row: ``np.eye(3)``, or :func:`off_axis_basis`.
        degrees: L, number of octaves.

    Returns:
        f = 2 L K features in [-1, 1], all sines before all cosines, octaves slowest.
    """
    p = np.asarray(basis, np.float64)
    squares = (p[:, :, None] * p[:, None, :]).reshape(len(p), 9)
    # Octaves of the basis, not of the angles: XLA is five times slower at reshaping those.
    waves = _octaves(p, 2.0 ** np.arange(degrees))
    spread = _octaves(0.5 * squares, 4.0 ** np.arange(degrees))
    angle = _product(mean, waves)
    half = _product(cov.reshape(*cov.shape[:-2], 9), spread)
    # The exponent is bounded so that its gradient stays a number, and the angle is dropped where
    # nothing of its wave is left, so that far points stay within the domain of `sin`.
    fade = jnp.exp(-jnp.minimum(half, _LIVE))
    angle = jnp.where(half < _LIVE, angle, 0)
    return jnp.concatenate([sin(angle) * fade, cos(angle) * fade], -1)


@functools.cache
def off_axis_basis() -> np.ndarray:
    """Directions of mip-NeRF 360's integrated encoding: half of a twice-tessellated icosahedron.

    The 12 corners and the 30 midpoints of the edges of an icosahedron, on the unit sphere; of every
    pair of opposite ones the first is kept.

    Returns:
        (21, 3) unit vectors, float64, read-only.
    """
    golden = (1 + 5**0.5) / 2
    signs = itertools.product((-1.0, 1.0), (-golden, golden))
    corners = [np.roll((0.0, a, b), k) for a, b in signs for k in range(3)]
    edges = [
        (a + b) / 2
        for a, b in itertools.combinations(corners, 2)
        if np.linalg.norm(a - b) < 2.1  # edges have length 2
    ]
    kept: list[np.ndarray] = []
    for point in (p / np.linalg.norm(p) for p in [*corners, *edges]):
        if not any(np.linalg.norm(point + other) < 1e-6 for other in kept):
            kept.append(point)
    basis = np.stack(kept)
    basis.flags.writeable = False
    return basis


def _octaves(rows: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """(k, i) times each of L factors -> (L k, i), factors slowest."""
    return (factors[:, None, None] * rows).reshape(-1, rows.shape[1])


def _product(x: Array, rows: np.ndarray) -> Array:
    """(*s, k) products of ``x`` (*s, i) with k rows."""
    return jnp.matmul(x, jnp.asarray(rows.T, x.dtype), precision="highest")
