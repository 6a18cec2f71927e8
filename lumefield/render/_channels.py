"""Any number of channels on kernels that are compiled for a few."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

CHANNELS = (1, 2, 3, 4, 8)
"""Numbers of channels that kernels are compiled for; more are done eight at a time."""


def in_groups(
    composite: Callable[[Array], tuple[Array, Array]], values: Array
) -> tuple[Array, Array]:
    """Composite (N, C) values by a kernel that knows only ``CHANNELS``.

    Args:
        composite: (N, c) values -> (H, W, c) image and (H, W) transmittance, c in ``CHANNELS``.
        values: (N, C), C >= 0.

    Returns:
        (H, W, C) image and (H, W) transmittance.
    """
    channels = values.shape[1]
    images: list[Array] = []
    trans = None
    for first in range(0, max(channels, 1), CHANNELS[-1]):
        part = values[:, first : first + CHANNELS[-1]]
        width_of_part = part.shape[1]
        padded = next(c for c in CHANNELS if c >= width_of_part)
        part = jnp.pad(part, ((0, 0), (0, padded - width_of_part)))
        image, t = composite(part)
        images.append(image[..., :width_of_part])
        # The transmittance of the later groups is the same numbers: one carries the gradient.
        trans = t if trans is None else trans
    assert trans is not None, "the loop runs at least once"
    return (images[0] if len(images) == 1 else jnp.concatenate(images, -1)), trans
