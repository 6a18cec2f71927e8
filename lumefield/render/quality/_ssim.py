"""SSIM and MS-SSIM as their authors define them: only windows that lie inside the picture.

Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004, and
Wang, Simoncelli, Bovik, "Multi-Scale Structural Similarity for Image Quality Assessment", 2003.
``render.ssim``, the score and loss of 3DGS, pads with zeros instead and differs near the borders.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from lumefield.render import _spec

_REACH = 2 * _spec.SSIM_RADIUS
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, finest first (Wang et al. 2003, Sec. 3.2)."""
SSIM_SIDE = _REACH + 1
"""Shortest side of a picture that SSIM is defined for, pixels."""
MS_SSIM_SIDE = SSIM_SIDE << (len(_WEIGHTS) - 1)
"""Shortest side of a picture that MS-SSIM is defined for, pixels."""
_BLOCK = 128
"""Pixels that one product of matrices blurs."""


def ssim(a: Float[Array, "h w c"], b: Float[Array, "_ _ c"]) -> Float[Array, ""]:
    """Mean structural similarity; 1 for equal pictures. Differentiable in both.

    Gaussian window 11 x 11 of sigma 1.5, C1 = 0.01^2, C2 = 0.03^2, mean over the windows inside
    the picture and over channels: ``skimage.metrics.structural_similarity`` with
    ``gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1``.

    Args:
        a: Values in [0, 1], at least 11 pixels a side.
        b: The other picture.

    Raises:
        ValueError: If the shapes differ or a side is too short.
    """
    _check(a, b, SSIM_SIDE)
    luminance, structure = _parts(a, b)
    return jnp.mean(luminance * structure)


def ms_ssim(a: Float[Array, "h w c"], b: Float[Array, "_ _ c"]) -> Float[Array, ""]:
    """Multi-scale structural similarity, mean over channels; 1 for equal pictures. Differentiable.

    Five scales, each the mean of 2 x 2 pixels of the one before (an odd last row or column is left
    out); the structure term of all, and the luminance term of the coarsest (2003, Eq. 7). A mean
    structure below 0 counts as 0, where the gradient is 0.

    Args:
        a: Values in [0, 1], at least 176 pixels a side.
        b: The other picture.

    Raises:
        ValueError: If the shapes differ or a side is too short.
    """
    _check(a, b, MS_SSIM_SIDE)
    total = jnp.ones((a.shape[-1],), a.dtype)
    for scale, weight in enumerate(_WEIGHTS):
        luminance, structure = _parts(a, b)
        coarsest = scale == len(_WEIGHTS) - 1
        mean = jnp.mean(luminance * structure if coarsest else structure, (0, 1))
        # Twice where: the power has an infinite slope at 0, which would turn 0 * inf into NaN.
        positive = jnp.where(mean > 0, mean, jnp.ones_like(mean))
        total = total * jnp.where(mean > 0, positive**weight, jnp.zeros_like(mean))
        if not coarsest:
            a, b = _halved(a), _halved(b)
    return jnp.mean(total)


def _parts(a: Array, b: Array) -> tuple[Array, Array]:
    """Luminance term, and contrast times structure, of every window and channel."""
    c1, c2 = _spec.SSIM_C1, _spec.SSIM_C2
    ma, mb, aa, bb, ab = _blurred(jnp.stack([a, b, a * a, b * b, a * b]))
    va, vb, cov = aa - ma * ma, bb - mb * mb, ab - ma * mb
    luminance = (2 * ma * mb + c1) / (ma * ma + mb * mb + c1)
    return luminance, (2 * cov + c2) / (va + vb + c2)


def _blurred(x: Array) -> Array:
    """(n, H, W, C) under the window, (n, H - 10, W - 10, C)."""
    return _along(_along(x, 1), 2)


def _along(x: Array, axis: int) -> Array:
    """One axis, in blocks: a product with a banded matrix beats eleven shifted sums on a CPU."""
    n = x.shape[axis] - _REACH
    blocks = -(-n // _BLOCK)
    at = jnp.arange(blocks)[:, None] * _BLOCK + jnp.arange(_BLOCK + _REACH)[None]
    cut = jnp.take(x, jnp.minimum(at, x.shape[axis] - 1), axis=axis)
    cut = jnp.moveaxis(cut, (axis, axis + 1), (0, 1))
    out = jnp.einsum("ok,bk...->bo...", _band(x.dtype), cut, precision="highest")
    return jnp.moveaxis(out.reshape(blocks * _BLOCK, *out.shape[2:])[:n], 0, axis)


def _band(dtype: Any) -> Array:  # noqa: ANN401
    """(block, block + 10): row i is the window over the elements i ... i + 10."""
    window = jnp.asarray(_spec.ssim_window(), dtype)
    apart = jnp.arange(_BLOCK + _REACH)[None] - jnp.arange(_BLOCK)[:, None]
    inside = (apart >= 0) & (apart <= _REACH)
    return jnp.where(inside, window[jnp.clip(apart, 0, _REACH)], jnp.zeros((), dtype))


def _halved(x: Array) -> Array:
    h, w = x.shape[0] // 2 * 2, x.shape[1] // 2 * 2
    x = x[:h, :w]
    return (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4


def _check(a: Array, b: Array, side: int) -> None:
    if a.shape != b.shape:
        raise ValueError(f"pictures of {a.shape} and {b.shape}, expected one shape; resize one")
    if min(a.shape[:2]) < side:
        raise ValueError(f"a picture of {a.shape[:2]}, expected at least {side} pixels a side")
