"""The constants of compositing that every backend shares (docs/render.md says what they mean)."""

ALPHA_MIN = 1 / 255
"""An item of a pixel below this opacity is skipped."""
ALPHA_MAX = 0.999
"""Opacity of one item of a pixel, at most; no gradient where it is reached."""
T_MIN = 1e-4
"""A pixel or ray stops once its transmittance is at or below this; the last item counts in full."""
