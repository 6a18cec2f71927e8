"""Y'CbCr of 4:2:0 as people see it: chroma at half the size, doubled, in RGB; differentiable.

The float twin of ``neural/_colour``, for narrow range and BT.601, which is what is fitted.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lumefield.fields.latent import RANGE

RGB = np.array(
    [[1.0, 0.0, 1.402], [1.0, -0.344136, -0.714136], [1.0, 1.772, 0.0]], np.float32
) * np.array([255 / 219, 255 / 224, 255 / 224], np.float32)
"""Display RGB from narrow-range Y'CbCr of BT.601, without the offsets."""
_ZERO = np.array([16, 128, 128], np.float32) * np.float32(RANGE / 255)
"""Black and grey of 8 bits, full range 16."""


@functools.cache
def doubling(n: int, doubled: int) -> np.ndarray:
    """(doubled, n) bilinear doubling along an axis, edges repeated."""
    at = np.arange(doubled)
    matrix = np.zeros((doubled, n), np.float32)
    near, beside = at // 2, np.clip(at // 2 + np.where(at % 2, 1, -1), 0, n - 1)
    matrix[at, near] += 0.75
    matrix[at, beside] += 0.25
    return matrix


def halved(planes: Array) -> Array:
    """(..., h, w) -> half of it, rounded up: means of 2 x 2, edges repeated."""
    h, w = planes.shape[-2:]
    pad = [(0, 0)] * (planes.ndim - 2) + [(0, h % 2), (0, w % 2)]
    even = jnp.pad(planes, pad, mode="edge")
    quad = [even[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]
    return (quad[0] + quad[1] + quad[2] + quad[3]) / 4


def shown(frame: Float[Array, "3 h w"]) -> Float[Array, "3 h w"]:
    """Differences of RGB, full range 1, from those of Y'CbCr in [0, 16] after 4:2:0.

    Linear: of differences it makes differences, and of ``frame - grey`` the colours.
    """
    h, w = frame.shape[1:]
    down, across = (doubling(-(-n // 2), n) for n in (h, w))
    chroma = jnp.einsum("yh,chw,xw->cyx", jnp.asarray(down), halved(frame[1:]), jnp.asarray(across))
    both = jnp.concatenate([frame[:1], chroma]) / RANGE
    return jnp.tensordot(jnp.asarray(RGB), both, 1)


def rgb_of(frame: Float[Array, "3 h w"]) -> Float[Array, "3 h w"]:
    """RGB in [0, 1] of Y'CbCr in [0, 16]."""
    return shown(frame - jnp.asarray(_ZERO)[:, None, None])


def colour_error(frame: Array, target: Array) -> Array:
    """Mean squared error in RGB, full range 1, of Y'CbCr in [0, 16] shown as 4:2:0.

    Args:
        frame: (3, h, w).
        target: The same; its chroma is that of halved pictures, repeated.
    """
    return jnp.square(shown(frame - target)).mean()
