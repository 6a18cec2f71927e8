"""Random integer networks and latents for the tests of the image codec."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.neural import ImageModel, Widths, base_model, levels_for
from lumefield.codecs.neural._levels import level_sizes

# Spread of each parameter: wide enough that every clip of the networks is met.
SPREAD = {
    **{"W1": 60, "W2": 200, "W3": 40, "V": 60, "b1": 300, "b2": 300, "b3": 100, "u": 60},
    **{"X1": 300, "X2": 300, "Y": 100, "G": 80, "c1": 300, "c2": 300, "g": 100},
}


def random_model(seed: int, widths: Widths, *, step: int = 1) -> ImageModel:
    """Parameters around the base, multiples of ``step``."""
    rng = np.random.default_rng(seed)
    base, arrays = base_model(0, widths), dict[str, NDArray[np.int32]]()
    for name, shape in widths.shapes().items():
        noise = np.round(rng.laplace(0, SPREAD[name], shape) / step) * step
        arrays[name] = (getattr(base, name) + noise).astype(np.int32)
    arrays["b3"][1] -= 640 // step * step
    return ImageModel(**arrays).check()


def random_latents(seed: int, rows: int, columns: int, levels: int) -> list[NDArray[Any]]:
    """Sparse at the finest level, large at the coarsest."""
    rng = np.random.default_rng(seed)
    sizes = level_sizes(rows, columns, levels)
    draws = (np.round(rng.laplace(0, 0.4 * 1.8**i, size)) for i, size in enumerate(sizes))
    return [np.clip(draw, -127, 127).astype(np.int8) for draw in draws]


def random_case(
    seed: int, rows: int, columns: int, channels: int = 3, context: int = 12, synthesis: int = 16
) -> tuple[ImageModel, list[NDArray[Any]]]:
    """A model and latents of a picture of this size."""
    levels = levels_for(rows, columns)
    widths = Widths(levels, context, synthesis, channels)
    return random_model(seed, widths), random_latents(seed + 1, rows, columns, levels)


def worst_model(widths: Widths, sign: int = 1) -> ImageModel:
    """Every parameter at its bound: sums as large as they can get."""
    bounds = {"u": 2047, **dict.fromkeys(("b1", "b2", "b3", "c1", "c2", "g"), (1 << 16) - 1)}
    return ImageModel(
        **{
            name: np.full(shape, sign * bounds.get(name, 4095), np.int32)
            for name, shape in widths.shapes().items()
        }
    ).check()
