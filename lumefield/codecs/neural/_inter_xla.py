"""Inter frames in XLA, whole frames at once, int32 throughout: any device, compiled once a size."""

import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from lumefield.codecs.neural._inter_model import InterModel
from lumefield.codecs.neural._model import (
    FULL_BITS,
    MAX_HIDDEN,
    MAX_RESIDUAL,
    MAX_UPSAMPLED,
    MAX_VALUE,
)
from lumefield.codecs.neural._motion import (
    CELL_BITS,
    FRACTION,
    PAD,
    PHASES,
    RATIO_BITS,
    REACH,
    TAPS,
    cell_planes,
)

if TYPE_CHECKING:
    from lumefield.codecs.neural._decoders import Planes
    from lumefield.codecs.neural._inter import Frame

_ARRAYS = ("u", "X1", "c1", "X2", "Y", "c2", "G", "g")
_MIDDLE = 1 << 11


def paint(
    model: InterModel,
    frame: "Frame",
    references: tuple[NDArray[np.int32], NDArray[np.int32]],
    bits: int,
    subsampled: bool,
) -> "Planes":
    """Planes of a frame; see ``_inter.Painter``."""
    arrays = {name: jnp.asarray(getattr(model, name), jnp.int32) for name in _ARRAYS}
    cells = jnp.asarray(cell_planes(frame.motion, model.units), jnp.int32)
    latents = tuple(jnp.asarray(level, jnp.int32) for level in frame.residual)
    numbers = jnp.asarray([frame.role.ratio, model.gains[frame.role.layer]], jnp.int32)
    first, second = (jnp.asarray(r, jnp.int32) for r in references)
    found = _paint(arrays, latents, cells, first, second, numbers, bits, subsampled)
    kind = np.uint8 if bits == 8 else np.uint16
    return tuple(np.asarray(plane).astype(kind) for plane in found)


@functools.partial(jax.jit, static_argnums=(6, 7))
def _paint(
    model: dict[str, Array],
    latents: tuple[Array, ...],
    cells: Array,
    first: Array,
    second: Array,
    numbers: Array,
    bits: int,
    subsampled: bool,
) -> tuple[Array, ...]:
    size = latents[0].shape
    planes = cells
    for k in reversed(range(CELL_BITS)):
        planes = _bilinear(planes, (-(-size[0] // 2**k), -(-size[1] // 2**k)))
    prediction = _predicted(first, second, planes, numbers[0])
    stack = _upsampled(latents, model["u"], numbers[1])
    z = _pointwise(model, jnp.concatenate([stack, prediction - _MIDDLE]))
    z = jnp.maximum(_residual(z, model["G"][0], model["g"][0]), 0)
    z = _residual(z, model["G"][1], model["g"][1])
    return tuple(
        _rounded(_halved(plane) if subsampled and c in (1, 2) else plane, bits)
        for c, plane in enumerate(z)
    )


def _rshift(value: Array, n: int) -> Array:
    return (value + (1 << (n - 1))) >> n


def _bilinear(planes: Array, size: tuple[int, int]) -> Array:
    for axis in (2, 1):
        n = planes.shape[axis]
        at = np.arange(size[axis - 1])
        beside = np.clip(at // 2 + np.where(at % 2, 1, -1), 0, n - 1)
        planes = _rshift(3 * jnp.take(planes, at // 2, axis) + jnp.take(planes, beside, axis), 2)
    return planes


def _predicted(first: Array, second: Array, planes: Array, ratio: Array) -> Array:
    moved = planes[:2]
    other = jnp.clip(
        _rshift(moved * ratio, RATIO_BITS) + planes[2:4], -MAX_UPSAMPLED, MAX_UPSAMPLED
    )
    share = jnp.clip(128 + _rshift(planes[4:], FRACTION), 0, 256)
    a = _warped(first, _rshift(moved, FRACTION))
    b = _warped(second, _rshift(other, FRACTION))
    return _rshift(share * a + (256 - share) * b, 8)


def _warped(picture: Array, moved: Array) -> Array:
    h, w = moved.shape[1:]
    cells, phases = list[Array](), list[Array]()
    for axis, size in enumerate((w, h)):
        line = jnp.arange(size, dtype=jnp.int32)
        at = PHASES * (line[None, :] if axis == 0 else line[:, None]) + moved[axis]
        at = jnp.clip(at, -REACH * PHASES, (size - 1 + REACH) * PHASES)
        cells.append((at >> 4) + PAD - 3)
        phases.append(at & 15)
    (column, row), (px, py) = cells, phases
    down, across = (jnp.asarray(TAPS)[p] for p in (py, px))

    def line_of(i: Array, total: Array) -> Array:
        def cell_of(j: Array, total: Array) -> Array:
            return total + across[None, ..., j] * picture[:, row + i, column + j]

        found = jax.lax.fori_loop(0, 8, cell_of, jnp.zeros_like(total))
        return total + down[None, ..., i] * found

    zeros = jnp.zeros((picture.shape[0], h, w), jnp.int32)
    return _rshift(jax.lax.fori_loop(0, 8, line_of, zeros), 14)


def _upsampled(latents: tuple[Array, ...], filters: Array, gain: Array) -> Array:
    stack = latents[-1][None] * gain
    for i in range(len(latents) - 2, -1, -1):
        h, w = latents[i].shape
        stack = _doubled(_doubled(stack, filters[i], 2)[:, :, :w], filters[i], 1)[:, :h]
        stack = jnp.concatenate([latents[i][None] * gain, stack])
    return stack


def _doubled(v: Array, taps: Array, axis: int) -> Array:
    n = v.shape[axis]
    at = [jnp.take(v, np.clip(np.arange(n) + k, 0, n - 1), axis) for k in (-2, -1, 0, 1, 2)]
    even = taps[0] * at[0] + taps[1] * at[1] + taps[2] * at[2] + taps[3] * at[3]
    odd = taps[3] * at[1] + taps[2] * at[2] + taps[1] * at[3] + taps[0] * at[4]
    shape = list(v.shape)
    shape[axis] = 2 * n
    out = jnp.stack([even, odd], axis + 1).reshape(shape)
    return jnp.clip(_rshift(out, 10), -MAX_UPSAMPLED, MAX_UPSAMPLED)


def _product(weights: Array, values: Array) -> Array:
    """A sum of scaled planes: as fast as a matrix product of integers is slow."""
    shape = (-1, *(1,) * (values.ndim - 1))
    return sum(
        (weights[:, k].reshape(shape) * values[k][None] for k in range(1, len(values))),
        start=weights[:, 0].reshape(shape) * values[0][None],
    )


def _pointwise(model: dict[str, Array], stack: Array) -> Array:
    v = jnp.clip(stack, -MAX_VALUE, MAX_VALUE)
    h = _rshift(_product(model["X1"], v), 10) + _rshift(model["c1"], 2)[:, None, None]
    h = jnp.clip(h, 0, MAX_HIDDEN)
    z = _rshift(_product(model["X2"], h), 8) + _rshift(_product(model["Y"], v), 8)
    return jnp.clip(z + model["c2"][:, None, None], -MAX_VALUE, MAX_VALUE)


def _residual(z: Array, kernel: Array, bias: Array) -> Array:
    e = jnp.clip(_rshift(z, 2), -MAX_RESIDUAL, MAX_RESIDUAL)
    padded = jnp.pad(e, ((0, 0), (1, 1), (1, 1)), mode="edge")
    _, h, w = z.shape
    total = jnp.zeros_like(z)
    for i in range(3):
        for j in range(3):
            total = total + _product(kernel[:, :, i, j], padded[:, i : i + h, j : j + w])
    return jnp.clip(z + _rshift(total, 8) + bias[:, None, None], -MAX_VALUE, MAX_VALUE)


def _halved(z: Array) -> Array:
    h, w = z.shape
    even = jnp.pad(z, ((0, h % 2), (0, w % 2)), mode="edge")
    return _rshift(even[::2, ::2] + even[::2, 1::2] + even[1::2, ::2] + even[1::2, 1::2], 2)


def _rounded(z: Array, bits: int) -> Array:
    white = (1 << bits) - 1
    return jnp.clip(_rshift(jnp.clip(z, 0, 1 << FULL_BITS) * white, FULL_BITS), 0, white)
