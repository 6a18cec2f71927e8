"""How much more or less one codec needs for the quality of another."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def bd_rate(anchor: ArrayLike, curve: ArrayLike) -> float:
    """Mean difference of rate at equal quality, percent; negative: ``curve`` is smaller.

    Bjontegaard, "Calculation of average PSNR differences between RD-curves", VCEG-M33, 2001, with
    the piecewise cubic Hermite interpolation of log rate over quality that JVET uses now (the
    original fits one cubic), over the range of quality that both curves have.

    Args:
        anchor: (n, 2) points (rate, quality), in any order, n >= 2; any unit of rate, any measure
            of quality that grows. Of points with equal quality the first counts.
        curve: (m, 2) points of the other codec.

    Returns:
        Percent; NaN where the curves share no range of quality.

    Raises:
        ValueError: If a curve has fewer than two different qualities, or a rate is not above 0.
    """
    from scipy.interpolate import PchipInterpolator

    fits = [PchipInterpolator(*_points(points)) for points in (anchor, curve)]
    low = max(float(fit.x[0]) for fit in fits)
    high = min(float(fit.x[-1]) for fit in fits)
    if high <= low:
        return math.nan
    areas = [float(fit.integrate(low, high)) for fit in fits]
    return 100 * math.expm1((areas[1] - areas[0]) / (high - low))


def _points(points: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Increasing qualities and the logarithms of their rates."""
    array = np.asarray(points, np.float64)
    if array.ndim != 2 or array.shape[1] != 2 or not np.isfinite(array).all():
        raise ValueError(f"a curve of shape {array.shape}, expected (n, 2): rate and quality")
    if (array[:, 0] <= 0).any():
        raise ValueError(f"a rate of {array[:, 0].min():g}, expected rates above 0")
    quality, first = np.unique(array[:, 1], return_index=True)
    if len(quality) < 2:
        raise ValueError(f"{len(quality)} different qualities, expected at least 2")
    return quality, np.log(array[first, 0])
