"""PSNR of luma and chroma, and the 6:1:1 mean that video codecs are compared by."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

_RGB_TO_YCBCR = (
    (0.299, 0.587, 0.114),
    (-0.168735891647856, -0.331264108352144, 0.5),
    (0.5, -0.418687589158345, -0.081312410841655),
)
"""ITU-R BT.601, full range; chroma without its offset of 1/2."""


def ycbcr(rgb: Float[Array, "*b 3"]) -> Float[Array, "*b 3"]:
    """Luma in [0, 1] and chroma in [-1/2, 1/2] of display colours (ITU-R BT.601, full range)."""
    return jnp.einsum("ij,...j->...i", jnp.asarray(_RGB_TO_YCBCR, rgb.dtype), rgb)


def plane_psnr(a: Float[Array, "h w"], b: Float[Array, "h w"]) -> Float[Array, ""]:
    """Peak signal-to-noise ratio of one plane in dB for a peak of 1; infinite for equal planes."""
    return -10 * jnp.log10(jnp.mean((a - b) ** 2))


def yuv_psnr(
    a: tuple[Float[Array, "h w"], Float[Array, "i j"], Float[Array, "i j"]],
    b: tuple[Float[Array, "h w"], Float[Array, "i j"], Float[Array, "i j"]],
) -> Float[Array, ""]:
    """PSNR in dB of the mean squared errors of Y, U and V weighted 6:1:1, for a peak of 1.

    Args:
        a: Planes; chroma may be smaller than luma.
        b: Planes of the same sizes.
    """
    errors = [jnp.mean((x - y) ** 2) for x, y in zip(a, b, strict=True)]
    return -10 * jnp.log10((6 * errors[0] + errors[1] + errors[2]) / 8)
