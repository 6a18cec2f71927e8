"""The layers of the families in differentiable float32, for fitting."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lumefield.codecs.families._ops import (
    EPSILON,
    Ops,
    Tensor,
    enlarged_by,
    lifted,
    shifted,
    times_lifted,
)
from lumefield.fields.networks import mlp, sin

_FUSED = 7
"""Layers that one fused kernel takes."""


class FloatOps(Ops):
    """Differentiable float32 layers."""

    def __init__(self) -> None:
        self.xp = jnp

    def input(self, x: Tensor) -> Tensor:
        return self.xp.asarray(x, self.xp.float32)

    def value(self, w: Tensor) -> Tensor:
        return w

    def linear(self, x: Tensor, w: Tensor, b: Tensor = None) -> Tensor:
        return self._plus(x @ w, b)

    def siren(self, x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
        turn = np.float32(2 * math.pi)
        last = len(weights) - 1
        scaled = [w * turn if i < last else w for i, w in enumerate(weights)]
        shifts = [b * turn if i < last else b for i, b in enumerate(biases)]
        for first in range(0, last + 1, _FUSED):
            at = slice(first, first + _FUSED)
            x = mlp(x, scaled[at], shifts[at], activation="sine")
            x = sin(x) if first + _FUSED <= last else x
        return x

    def conv(self, x: Tensor, w: Tensor, b: Tensor = None) -> Tensor:
        # Patches times one matrix: the fastest form to differentiate on a CPU.
        k, _, i, o = w.shape
        patches = self.xp.concatenate(shifted(self.xp, x, k), -1) if k > 1 else x
        return self._plus(patches @ w.reshape(k * k * i, o), b)

    def depthwise(self, x: Tensor, w: Tensor, b: Tensor = None) -> Tensor:
        k = w.shape[0]
        taps = w.reshape(k * k, -1)
        total = sum(times_lifted(part, taps[i]) for i, part in enumerate(shifted(self.xp, x, k)))
        return self._plus(total, b)

    def resize(self, x: Tensor, times: int) -> Tensor:
        return enlarged_by(self.xp, x, times) * np.float32(1 / (4 * times * times))

    def sin(self, x: Tensor) -> Tensor:
        return sin(x * np.float32(2 * math.pi))

    def relu(self, x: Tensor) -> Tensor:
        return self.xp.maximum(x, np.float32(0))

    def gelu(self, x: Tensor) -> Tensor:
        return jax.nn.gelu(x, approximate=False)

    def sigmoid(self, x: Tensor) -> Tensor:
        return jax.nn.sigmoid(x)

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return x + lifted(y, x)

    def mul(self, x: Tensor, y: Tensor) -> Tensor:
        return times_lifted(x, y)

    def scale(self, x: Tensor, factor: Tensor) -> Tensor:
        return times_lifted(x, self.xp.asarray(factor, self.xp.float32))

    def normalise(self, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        d = x - x.mean(axes, keepdims=True)
        variance = (d * d).mean(axes, keepdims=True)
        return d / self.xp.sqrt(variance + np.float32(EPSILON))

    def layer_norm(self, x: Tensor, g: Tensor, b: Tensor) -> Tensor:
        return self._plus(times_lifted(self.normalise(x, (-1,)), g), b)

    def _plus(self, x: Tensor, b: Tensor) -> Tensor:
        return x if b is None else x + lifted(b, x)
