"""Plain arrays as fields: the honest baseline of every network.

Letters: d coordinates, n cells of an axis, c channels. The domain [-1, 1] spans the array from edge
to edge: cell k of n has its centre at 2 (k + 1/2) / n - 1. Outside the outermost centres the values
continue as constants. Coordinate 0 is x, the *last* axis of the array before the channels (columns
of an image), coordinate 1 is y, the axis before it.
"""

from typing import Literal

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, ArrayLike, Float

Interpolation = Literal["linear", "cubic"]
"""``linear``: continuous; ``cubic`` (Catmull and Rom, 1974): once differentiable. Both pass through
the values."""


class PixelField(nnx.Module):
    """An image as a field of (x, y): bilinear interpolation of ``values``, its only leaf."""

    def __init__(
        self, height: int, width: int, d_out: int, *, rngs: nnx.Rngs | None = None
    ) -> None:
        """A black image.

        Args:
            height: Rows.
            width: Columns.
            d_out: Channels.
            rngs: Not used; every field has it.

        Raises:
            ValueError: If a size is below 1.
        """
        del rngs
        self.values = _zeros(height, width, d_out)

    @classmethod
    def from_array(cls, values: ArrayLike) -> "PixelField":
        """The field of an image, (rows, columns, channels).

        Raises:
            ValueError: If ``values`` has not three axes.
        """
        array = _with_axes(values, 3, "(h, w, c)")
        field = cls(*array.shape)
        field.values = nnx.Param(array)
        return field

    def __call__(self, x: Float[Array, "*s 2"]) -> Float[Array, "*s o"]:
        """Values at ``x``; every leading axis is a batch axis."""
        return interpolate(self.values[...], x)


class VoxelField(nnx.Module):
    """A volume as a field of (x, y, z): trilinear interpolation of ``values``, its only leaf."""

    def __init__(
        self, depth: int, height: int, width: int, d_out: int, *, rngs: nnx.Rngs | None = None
    ) -> None:
        """An empty volume.

        Args:
            depth: Cells along z, the first axis.
            height: Cells along y.
            width: Cells along x.
            d_out: Channels.
            rngs: Not used; every field has it.

        Raises:
            ValueError: If a size is below 1.
        """
        del rngs
        self.values = _zeros(depth, height, width, d_out)

    @classmethod
    def from_array(cls, values: ArrayLike) -> "VoxelField":
        """The field of a volume, (z, y, x, channels).

        Raises:
            ValueError: If ``values`` has not four axes.
        """
        array = _with_axes(values, 4, "(d, h, w, c)")
        field = cls(*array.shape)
        field.values = nnx.Param(array)
        return field

    def __call__(self, x: Float[Array, "*s 3"]) -> Float[Array, "*s o"]:
        """Values at ``x``; every leading axis is a batch axis."""
        return interpolate(self.values[...], x)


def interpolate(
    values: Float[Array, "*n c"], x: Float[Array, "*s d"], kind: Interpolation = "linear"
) -> Float[Array, "*s c"]:
    """Read an array at points, see the top of the file for the frame.

    A sum over the 2^d (linear) or 4^d (cubic) cells around a point. Differentiable in ``values``
    and ``x``.

    Args:
        values: Array of d axes and channels.
        x: Coordinates in [-1, 1].
        kind: Interpolation between the centres of cells.

    Returns:
        The values at the points, dtype of ``values``.

    Raises:
        ValueError: If ``values`` has not as many axes as ``x`` has coordinates.
    """
    d = x.shape[-1]
    if values.ndim != d + 1:
        raise ValueError(f"values has shape {values.shape}, expected {d} axes and channels")
    index = jnp.zeros((*x.shape[:-1], 1), jnp.int32)
    weight = jnp.ones((*x.shape[:-1], 1), x.dtype)
    for k in reversed(range(d)):  # all cells around a point, on one axis more per round
        n = values.shape[d - 1 - k]
        rows, weights = _neighbours(x[..., k, None], n, kind)
        count = index.shape[-1] * rows.shape[-1]
        index = (index[..., :, None] * n + rows[..., None, :]).reshape(*x.shape[:-1], count)
        weight = (weight[..., :, None] * weights[..., None, :]).reshape(index.shape)
    cells = values.reshape(-1, values.shape[-1])[index]
    return jnp.sum(weight[..., None] * cells, -2)


def _neighbours(x: Array, n: int, kind: Interpolation) -> tuple[Array, Array]:
    """Rows around ``x`` (*s, 1) on an axis of ``n`` cells, and their weights, (*s, 2 or 4) each."""
    at = jnp.clip((x + 1) * (n / 2) - 0.5, 0, n - 1)
    low = jnp.clip(jnp.floor(at), 0, max(n - 2, 0))
    f = at - low
    if kind == "linear":
        offsets, weights = (0, 1), (1 - f, f)
    else:
        offsets, weights = (-1, 0, 1, 2), _catmull_rom(f)
    row = low.astype(jnp.int32)
    rows = jnp.concatenate([row + k for k in offsets], -1)
    return jnp.clip(rows, 0, n - 1), jnp.concatenate(weights, -1)


def _catmull_rom(f: Array) -> tuple[Array, ...]:
    return (
        ((2 - f) * f - 1) * f / 2,
        ((3 * f - 5) * f * f + 2) / 2,
        ((4 - 3 * f) * f + 1) * f / 2,
        (f - 1) * f * f / 2,
    )


def _zeros(*shape: int) -> nnx.Param[Array]:
    if min(shape) < 1:
        raise ValueError(f"shape {shape}, expected sizes of at least 1")
    return nnx.Param(jnp.zeros(shape))


def _with_axes(values: ArrayLike, axes: int, expected: str) -> Array:
    array = jnp.asarray(values)
    if array.ndim != axes:
        raise ValueError(f"values has shape {array.shape}, expected {expected}; add the channels")
    return array
