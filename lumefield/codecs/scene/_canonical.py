"""One form for every Gaussian, so that equal Gaussians have equal numbers.

The same Gaussian can be written in 48 ways: axes in any order, each of them turned around, the
quaternion with either sign. Here the axes are sorted, longest first, and of the four rotations that
remain (half turns about an axis of the Gaussian change nothing) the one nearest to none is taken.
Its quaternion has w >= |x|, |y|, |z|, so x, y, z say all. Colours are turned to a grey part and two
colour differences by an orthonormal matrix, which keeps squared errors.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.formats import Splats

Floats = NDArray[np.floating[Any]]
LARGEST_LOGIT = 8.0
"""Opacities beyond sigmoid(+-8) = 0.9997 cannot be told from it."""
_HALF_TURNS = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
_A, _B, _C = 3**-0.5, 2**-0.5, 6**-0.5


class Canonical(NamedTuple):
    """N Gaussians as they are coded; all float64."""

    means: Floats
    """(N, 3) centres, world units."""
    turns: Floats
    """(N, 3) x, y, z of the unit quaternion; w = sqrt(1 - x^2 - y^2 - z^2)."""
    log_scales: Floats
    """(N, 3) natural logarithms, descending."""
    logits: Floats
    """(N,) opacity before the sigmoid, in [-8, 8]."""
    colours: Floats
    """(N, K, 3) harmonics: grey, red against blue, green against both."""


def canonical(splats: Splats) -> Canonical:
    """The canonical form; lengths of quaternions do not matter, zero ones mean no rotation."""
    from scipy.spatial.transform import Rotation

    n = len(splats.means)
    quats = splats.quats_wxyz.astype(np.float64)
    length = np.linalg.norm(quats, axis=1, keepdims=True)
    quats = np.where(length > 1e-12, quats / np.maximum(length, 1e-12), _HALF_TURNS[0])
    order = np.argsort(-splats.log_scales, axis=1, kind="stable")
    scales = np.take_along_axis(splats.log_scales.astype(np.float64), order, 1)
    if n:
        axes = Rotation.from_quat(quats[:, [1, 2, 3, 0]]).as_matrix()
        axes = np.take_along_axis(axes, order[:, None, :], 2)
        axes[:, :, 2] *= np.linalg.det(axes)[:, None]
        quats = Rotation.from_matrix(axes).as_quat()[:, [3, 0, 1, 2]]
        four = np.stack([product(quats, turn) for turn in _HALF_TURNS], 1)
        quats = four[np.arange(n), np.abs(four[:, :, 0]).argmax(1)]
        quats *= np.where(quats[:, :1] < 0, -1.0, 1.0)
    return Canonical(
        splats.means.astype(np.float64),
        quats[:, 1:],
        scales,
        np.clip(splats.logit_opacities.astype(np.float64), -LARGEST_LOGIT, LARGEST_LOGIT),
        grey_first(splats.sh.astype(np.float64)),
    )


def product(q: Floats, p: Floats) -> Floats:
    """Hamilton product of (N, 4) by (4,), w first."""
    w, x, y, z = q.T
    a, b, c, d = p
    rows = (
        w * a - x * b - y * c - z * d,
        w * b + x * a + y * d - z * c,
        w * c - x * d + y * a + z * b,
        w * d + x * c - y * b + z * a,
    )
    return np.stack(rows, 1)


def full_quaternions(turns: Floats) -> Floats:
    """(N, 4) quaternions, w first, of (N, 3) turns; those too long are shortened."""
    x, y, z = turns[:, 0], turns[:, 1], turns[:, 2]
    square = x * x + y * y + z * z
    shrink = 1.0 / np.sqrt(np.maximum(square, 1.0))
    w = np.sqrt(np.maximum(1.0 - square, 0.0))
    return np.stack([w, x * shrink, y * shrink, z * shrink], 1)


def grey_first(rgb: Floats) -> Floats:
    """(..., 3) red, green, blue to grey, red - blue, green - both."""
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    return np.stack([(r + g + b) * _A, (r - b) * _B, (2 * g - r - b) * _C], -1)


def red_first(grey: Floats) -> Floats:
    """The inverse of :func:`grey_first`; plain sums, so that every machine gives the same bits."""
    y, u, v = grey[..., 0] * _A, grey[..., 1] * _B, grey[..., 2] * _C
    return np.stack([(y + u) - v, y + 2 * v, (y - u) - v], -1)
