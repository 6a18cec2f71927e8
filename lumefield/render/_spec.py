"""The constants that every backend shares: of compositing (docs/render.md) and of the loss."""

import math

ALPHA_MIN = 1 / 255
"""An item of a pixel below this opacity is skipped."""
ALPHA_MAX = 0.999
"""Opacity of one item of a pixel, at most; no gradient where it is reached."""
T_MIN = 1e-4
"""A pixel or ray stops once its transmittance is at or below this; the last item counts in full."""

SSIM_RADIUS = 5
"""Pixels on either side of the middle of SSIM's window."""
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
"""What keeps SSIM finite where images are flat, for values in [0, 1]."""


def ssim_window() -> list[float]:
    """SSIM's window along one axis: Gaussian weights of sigma 1.5, which add up to 1."""
    around = range(-SSIM_RADIUS, SSIM_RADIUS + 1)
    weights = [math.exp(-(i**2) / (2 * 1.5**2)) for i in around]
    return [weight / sum(weights) for weight in weights]
