"""Float networks to the integers of the file: the coarsest steps that the picture can bear.

Every group of parameters (``_parameters``) has one step, a power of two. Steps are chosen group by
group for the least bits in all: those of the parameters, of the latents under the rounded context
network, and the added distortion at the exchange rate of lambda (as Cool-chic's search of steps,
Leguay et al. 2023, Sec. III-C, but with all groups revisited).
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.neural._model import ImageModel, bound
from lumefield.codecs.neural._parameters import (
    CONTEXT_GROUPS,
    MAX_STEP,
    PICTURE_GROUPS,
    parameter_bits,
)
from lumefield.fields.latent import ContextModel, Networks, Synthesis

ONE = 1024.0
"""Integer of 1.0."""
GROUPS = CONTEXT_GROUPS + PICTURE_GROUPS

Steps = tuple[int, ...]
"""log2 of the step of every group."""
_THRIFT = 4.0
"""How much more than their bits parameters pay: the latents, finished under rounded networks, take
most of what that costs back."""
_STARTS = (1, 3)
"""Where searches begin: now and then one is caught in a minimum that is up to 10 % of J worse."""


def model_of(networks: Networks, steps: Steps) -> ImageModel:
    """The networks in integers, multiples of the steps of their groups, clipped to bounds."""
    step_of = {name: step for names, step in zip(GROUPS, steps, strict=True) for name in names}

    def rounded(name: str, value: NDArray[np.float32]) -> NDArray[np.int32]:
        step = 1 << step_of[name]
        most = bound(name) // step
        return (np.clip(np.rint(value * (ONE / step)), -most, most) * step).astype(np.int32)

    arrays = {name: np.asarray(value) for name, value in _named(networks).items()}
    return ImageModel(**{name: rounded(name, value) for name, value in arrays.items()}).check()


def networks_of(model: ImageModel) -> Networks:
    """The float networks with exactly the numbers of a model."""

    def floats(values: NDArray[np.int32]) -> "jnp.ndarray":
        return jnp.asarray(values.astype(np.float32) / np.float32(ONE))

    named = {name: floats(getattr(model, name)) for name in vars(model)}
    context, synthesis = parts_of(named)
    return Networks(context=context, filters=named["u"], synthesis=synthesis)


def parts_of(named: dict[str, Any]) -> tuple[ContextModel, Synthesis]:
    """The two networks from arrays by their names in the file."""
    context = ContextModel(
        w1=named["W1"],
        b1=named["b1"],
        w2=named["W2"],
        b2=named["b2"],
        w3=named["W3"],
        linear=named["V"],
        b3=named["b3"],
    )
    synthesis = Synthesis(
        x1=named["X1"],
        c1=named["c1"],
        x2=named["X2"],
        linear=named["Y"],
        c2=named["c2"],
        conv1=named["G"][0],
        g1=named["g"][0],
        conv2=named["G"][1],
        g2=named["g"][1],
    )
    return context, synthesis


def named_parts(c: ContextModel, s: Synthesis) -> dict[str, Any]:
    """The inverse of :func:`parts_of`."""
    return {
        **{"W1": c.w1, "W2": c.w2, "W3": c.w3, "V": c.linear, "b1": c.b1, "b2": c.b2, "b3": c.b3},
        **{"X1": s.x1, "X2": s.x2, "Y": s.linear, "c1": s.c1, "c2": s.c2},
        **{"G": np.stack([s.conv1, s.conv2]), "g": np.stack([s.g1, s.g2])},
    }


def _named(networks: Networks) -> dict[str, Any]:
    return {**named_parts(networks.context, networks.synthesis), "u": networks.filters}


def best_model(
    networks: Networks, base: ImageModel, bits_of: Callable[[Networks], float]
) -> ImageModel:
    """The rounded networks of least cost, from the best of several searches.

    Args:
        networks: As fitted.
        base: What the parameters are stored relative to.
        bits_of: Bits of the latents and the distortion in bits, under given networks.
    """

    def cost(steps: Steps) -> float:
        model = model_of(networks, steps)
        return _THRIFT * parameter_bits(model, base) + bits_of(networks_of(model))

    return model_of(networks, min(_searched(cost, first) for first in _STARTS)[1])


def _searched(cost: Callable[[Steps], float], first: int) -> tuple[float, Steps]:
    """Least cost and its steps, moving one group at a time from ``first`` for all."""
    steps: Steps = (first,) * len(GROUPS)
    best = cost(steps)
    for _ in range(2):
        before = steps
        for group in range(len(GROUPS)):
            for way in (1, -1):
                while 0 <= (k := steps[group] + way) <= MAX_STEP:
                    tried = (*steps[:group], k, *steps[group + 1 :])
                    if (now := cost(tried)) >= best:
                        break
                    steps, best = tried, now
        if steps == before:
            break
    return best, steps
