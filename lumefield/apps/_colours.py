"""A perceptual colour map for error and depth pictures."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

STOPS = (
    "#000004", "#1b0c41", "#4a0c6b", "#781c6d", "#a52c60", "#cf4446", "#ed6925", "#fb9b06",
    "#f7d13d", "#fcffa4",
)  # fmt: skip
"""Ten even steps of "inferno" (S. van der Walt and N. Smith, CC0): lightness rises evenly."""


def heat(value: NDArray[Any]) -> NDArray[np.uint8]:
    """Colours [*b, 3] of values [*b] in [0, 1]: black over purple and orange to pale yellow."""
    anchors = np.array([[int(s[i : i + 2], 16) for i in (1, 3, 5)] for s in STOPS], np.float64)
    at = np.clip(np.nan_to_num(value), 0, 1) * (len(STOPS) - 1)
    channels = [np.interp(at, np.arange(len(STOPS)), anchors[:, c]) for c in range(3)]
    return (np.stack(channels, -1) + 0.5).astype(np.uint8)
