"""How rounding is softened while latents are fitted: the schedule of all codecs here."""

from jax import Array

_TEMPERATURES = (0.35, 0.08)
"""Of the soft rounding, first and last."""
_DEVIATIONS = (0.22, 0.15)
"""Of the noise, in cells, first and last (as in Cool-chic 5.0)."""


def annealed(share: Array) -> tuple[Array, Array]:
    """Temperature and deviation after a share of the fit."""
    temperature, deviation = (a + (b - a) * share for a, b in (_TEMPERATURES, _DEVIATIONS))
    return temperature, deviation


def again(share: Array, first: float) -> Array:
    """The share of the fit whose noise is that of a share of the finish, which begins at ``first``.

    Latents are finished under integer networks. Under the noise of the end, those that are whole
    have hardly a slope, and what the networks' rounding does wrong would stay.
    """
    return first + (1 - first) * share
