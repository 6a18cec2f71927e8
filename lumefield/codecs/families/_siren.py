"""What the families of SIRENs share: tensors, first values, pixels as items.

Sitzmann et al., "Implicit Neural Representations with Periodic Activation Functions", 2020,
arXiv:2006.09661. The sine takes turns, not radians, so omega / (2 pi) is part of the weights; a
pixel's value is one half plus the network's.
"""

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.families._family import Layout
from lumefield.codecs.families._ops import Ops, Parameters, Shapes, Tensor, pixel_grid

OMEGA = 30.0


def siren_sizes(outputs: int, depth: int, width: int, inputs: int = 2) -> list[int]:
    """Units from the inputs through ``depth`` sine layers to the outputs."""
    return [inputs, *[width] * depth, outputs]


def siren_shapes(sizes: list[int]) -> Shapes:
    """Matrices w0 w1 ... and vectors b0 b1 ..."""
    found: Shapes = {}
    for i, (n, m) in enumerate(itertools.pairwise(sizes)):
        found[f"w{i}"], found[f"b{i}"] = (n, m), (m,)
    return found


def siren_start(key: Tensor, sizes: list[int], first: float = 1.0) -> dict[str, Tensor]:
    """Weights uniform in +-1/n (first layer) or +-sqrt(6/n)/omega; biases in +-1/sqrt(n).

    Args:
        key: jax key.
        sizes: Units of all layers.
        first: Factor of the first layer's weights.
    """
    import jax
    import jax.numpy as jnp

    found, last = dict[str, Tensor](), len(sizes) - 2
    for i, (name, shape) in enumerate(siren_shapes(sizes).items()):
        layer, n = i // 2, sizes[i // 2]
        most = n**-0.5 if name[0] == "b" else first / n if layer == 0 else (6 / n) ** 0.5 / OMEGA
        turns = 1.0 if layer == last else OMEGA / (2 * math.pi)
        draw = jax.random.uniform(jax.random.fold_in(key, i), shape, jnp.float32, -1.0, 1.0)
        found[name] = draw * np.float32(most * turns)
    return found


def pixels_of(layout: Layout) -> NDArray[np.float32]:
    """(rows columns, 2) inputs, in reading order."""
    return pixel_grid(layout.picture.rows, layout.picture.columns)


def siren_macs(sizes: list[int]) -> float:
    """Multiplications per pixel."""
    return float(sum(n * m for n, m in itertools.pairwise(sizes)))


def siren_forward(ops: Ops, parameters: Parameters, depth: int, x: Tensor) -> Tensor:
    """Values of (n, inputs) activations."""
    weights = [parameters[f"w{i}"] for i in range(depth + 1)]
    biases = [parameters[f"b{i}"] for i in range(depth + 1)]
    half = np.float32(0.5)
    value = ops.siren(x, weights, biases)
    return ops.add(value, ops.input(np.full(1, half)))
