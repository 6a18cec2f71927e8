"""How rounding is softened while latents are fitted: the schedule of all codecs here."""

from jax import Array

_TEMPERATURES = (0.35, 0.08)
"""Of the soft rounding, first and last."""
_DEVIATIONS = (0.22, 0.15)
"""Of the noise, in cells, first and last (as in Cool-chic 5.0)."""
_AGAIN = 0.4
"""Share of the fit whose noise latents have when they are finished under integer networks. Under
that of the end, those that are whole have hardly a slope, and what the networks' rounding does
wrong would stay: 0.8 % of J of a picture, 7 % of the bits of inter frames."""


def annealed(share: Array) -> tuple[Array, Array]:
    """Temperature and deviation after a share of the fit."""
    temperature, deviation = (a + (b - a) * share for a, b in (_TEMPERATURES, _DEVIATIONS))
    return temperature, deviation


def again(share: Array) -> Array:
    """The share of the fit that a share of the finish is as good as."""
    return _AGAIN + (1 - _AGAIN) * share
