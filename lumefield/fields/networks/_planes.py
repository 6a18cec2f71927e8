"""Tri-planes and K-Planes: a field factored into feature planes, one per pair of axes.

Chan et al., "Efficient Geometry-aware 3D Generative Adversarial Networks", 2022, Sec. 3.2: three
planes, features added, a small network. Fridovich-Keil et al., "K-Planes: Explicit Radiance Fields
in Space, Time, and Appearance", 2023: any number of coordinates, features multiplied (Eq. 1),
resolutions side by side (Sec. 3.1.1), time planes that start at 1, linear or small network decoders
(Sec. 3.2), and the priors of Sec. 3.3.

Letters: d coordinates, F features, n, m vertices along the axes of a plane.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from lumefield.fields.networks._fused_mlp import mlp
from lumefield.fields.networks._mlp import layer_sizes, relu_layers


class Planes(nnx.Module):
    """Planes from ``i`` coordinates in [-1, 1] (2 to 4) to ``o`` values.

    The plane of axes (a, b), a < b, has vertices on its borders; between them it is bilinear, and
    beyond them constant. Once differentiable inside the cells.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        size: int | Sequence[int] = 64,
        scales: Sequence[int] = (1, 2, 4),
        features: int = 16,
        combine: str = "product",
        hidden: Sequence[int] = (64,),
        time_axis: int | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw the planes: space within 0.1 to 0.5, time at 1; sums start within 0.1 around 0.

        Args:
            d_in: Number of coordinates.
            d_out: Number of values.
            size: Vertices per axis at the coarsest resolution; one number or one per axis.
            scales: Factors of ``size``, one per resolution; time keeps its size in all of them.
            features: F, of every plane.
            combine: "product" (K-Planes) or "sum" (tri-planes): how the planes of a scale meet.
            hidden: Units of the hidden layers of the decoder; none make it linear.
            time_axis: Which coordinate is time; None for none (with 4 coordinates: the last).
            rngs: Where the numbers come from.

        Raises:
            ValueError: If a number is out of its range.
        """
        sizes = _sizes(d_in, size)
        if combine not in ("product", "sum"):
            raise ValueError(f"combine={combine!r}, expected product or sum")
        if not scales or min(scales) < 1 or features < 1:
            raise ValueError(
                f"scales={tuple(scales)}, features={features}, expected numbers of at least 1"
            )
        self.time_axis = checked_time_axis(d_in, time_axis)
        self.combine = combine
        self.shapes = tuple(_scaled(sizes, scale, self.time_axis) for scale in scales)
        self.planes = nnx.List(
            nnx.Param(self._start(shape, pair, features, rngs))
            for shape in self.shapes
            for pair in pairs(d_in)
        )
        self.layers = decoder(features * len(scales), d_out, hidden, rngs)

    def _start(
        self, shape: Sequence[int], pair: tuple[int, int], features: int, rngs: nnx.Rngs
    ) -> Array:
        full = (shape[pair[0]], shape[pair[1]], features)
        if self.combine == "sum":
            return jax.random.uniform(rngs.params(), full, minval=-0.1, maxval=0.1)
        if self.time_axis in pair:
            return jnp.ones(full)
        return jax.random.uniform(rngs.params(), full, minval=0.1, maxval=0.5)

    def features(self, x: Float[Array, "*s i"]) -> Float[Array, "*s f"]:
        """Features of all resolutions at ``x``, coarse first."""
        axes = pairs(x.shape[-1])
        if len(axes) * len(self.shapes) != len(self.planes):
            raise ValueError(f"x has shape {x.shape}, expected (*s, {len(self.shapes[0])})")
        planes = [p[...] for p in self.planes]
        per = len(axes)
        parts = [
            product_or_sum(planes[k * per : (k + 1) * per], x, self.combine)
            for k in range(len(self.shapes))
        ]
        return jnp.concatenate(parts, -1)

    def __call__(self, x: Float[Array, "*s i"]) -> Float[Array, "*s o"]:
        """Values at ``x``; every leading axis is a batch axis."""
        return decode(self.layers, self.features(x))


def pairs(d: int) -> tuple[tuple[int, int], ...]:
    """The axes of every plane, in order: d (d - 1) / 2 of them."""
    return tuple(itertools.combinations(range(d), 2))


def checked_time_axis(d_in: int, time_axis: int | None) -> int | None:
    """The time axis, the last one of four when not given.

    Raises:
        ValueError: If it is not an axis.
    """
    if time_axis is None:
        return 3 if d_in == 4 else None
    if not 0 <= time_axis < d_in:
        raise ValueError(f"time_axis={time_axis}, expected 0 to {d_in - 1}, or None")
    return time_axis


def _sizes(d_in: int, size: int | Sequence[int]) -> tuple[int, ...]:
    if not 2 <= d_in <= 4:
        raise ValueError(f"d_in={d_in}, expected 2 to 4 coordinates: planes have two")
    sizes = (size,) * d_in if isinstance(size, int) else tuple(size)
    if len(sizes) != d_in or min(sizes) < 2:
        raise ValueError(f"size={size}, expected one number of at least 2, or {d_in} of them")
    return sizes


def _scaled(sizes: Sequence[int], scale: int, time_axis: int | None) -> tuple[int, ...]:
    return tuple(n if k == time_axis else n * scale for k, n in enumerate(sizes))


def decoder(width: int, d_out: int, hidden: Sequence[int], rngs: nnx.Rngs) -> Any:  # noqa: ANN401
    """Layers from features to values; a linear decoder when ``hidden`` is empty."""
    for units in hidden:
        layer_sizes(width, d_out, units, 1)  # checks
    return relu_layers([width, *hidden, d_out], rngs)


def decode(layers: Sequence[nnx.Linear], features: Float[Array, "*s f"]) -> Float[Array, "*s o"]:
    """Run the decoder: one fused kernel where there is one."""
    weights = [layer.kernel[...] for layer in layers]
    biases = [layer.bias[...] for layer in layers if layer.bias is not None]
    return mlp(features, weights, biases)


def product_or_sum(
    planes: Sequence[Float[Array, "_ _ f"]], x: Float[Array, "*s d"], combine: str
) -> Float[Array, "*s f"]:
    """The planes' features at ``x``, multiplied (K-Planes, Eq. 1) or added (Chan et al.)."""
    total: Array | None = None
    for plane, (a, b) in zip(planes, pairs(x.shape[-1]), strict=True):
        found = sample_plane(plane, x[..., np.array([a, b])])
        if total is None:
            total = found
        else:
            total = total * found if combine == "product" else total + found
    assert total is not None, "two coordinates make one plane"
    return total


@jax.jit
def sample_plane(plane: Float[Array, "n m f"], x: Float[Array, "*s 2"]) -> Float[Array, "*s f"]:
    """Bilinear interpolation; -1 and 1 are the first and the last vertex, beyond it is constant."""
    n, m, features = plane.shape
    rows = plane.reshape(-1, features)
    i, f = _cell(x[..., 0], n)
    j, g = _cell(x[..., 1], m)
    first = i * m + j
    a, b, c, e = (rows.at[first + k].get(mode="promise_in_bounds") for k in (0, 1, m, m + 1))
    f, g = f[..., None], g[..., None]
    top, bottom = a + g * (b - a), c + g * (e - c)
    return top + f * (bottom - top)


def _cell(x: Float[Array, "*s"], n: int) -> tuple[Array, Array]:
    """Lower vertex of the cell and place in it."""
    at = jnp.clip((x + 1) * ((n - 1) / 2), 0, n - 1)
    low = jnp.clip(jax.lax.stop_gradient(at).astype(jnp.int32), 0, n - 2)
    return low, at - low.astype(at.dtype)


def _named(field: Planes) -> list[tuple[tuple[int, int], Array]]:
    axes = pairs(len(field.shapes[0])) * len(field.shapes)
    return [(pair, plane[...]) for pair, plane in zip(axes, field.planes, strict=True)]


def total_variation(field: Planes) -> Float[Array, ""]:
    """Mean squared difference of neighbours in space, summed over planes: K-Planes, Eq. 5.

    Along both axes of space planes, along the space axis of time planes.
    """
    total = jnp.zeros((), field.planes[0][...].dtype)
    for pair, plane in _named(field):
        for axis in (0, 1):
            if pair[axis] != field.time_axis:
                total = total + jnp.mean(jnp.diff(plane, axis=axis) ** 2)
    return total


def time_smoothness(field: Planes) -> Float[Array, ""]:
    """Mean squared second difference along time, summed over the time planes: K-Planes, Eq. 6.

    0 for a field without time, and for planes with fewer than three moments.
    """
    total = jnp.zeros((), field.planes[0][...].dtype)
    for pair, plane in _named(field):
        if field.time_axis in pair and plane.shape[pair.index(field.time_axis)] > 2:
            second = jnp.diff(plane, 2, axis=pair.index(field.time_axis))
            total = total + jnp.mean(second**2)
    return total


def time_sparsity(field: Planes) -> Float[Array, ""]:
    """Mean |1 - P| over each time plane, summed: K-Planes, Eq. 7. What is static stays at 1."""
    total = jnp.zeros((), field.planes[0][...].dtype)
    for pair, plane in _named(field):
        if field.time_axis in pair:
            total = total + jnp.mean(jnp.abs(1 - plane))
    return total


def parameters(field: object) -> int:
    """How many numbers a field learns: the sizes of its leaves, summed."""
    return sum(int(np.prod(np.shape(leaf))) for leaf in jax.tree.leaves(field))


def dense_parameters(field: Planes) -> int:
    """How many numbers a dense grid of the finest resolution and as many features would have."""
    vertices = max(int(np.prod(shape, dtype=np.int64)) for shape in field.shapes)
    return vertices * field.planes[0].shape[-1]
