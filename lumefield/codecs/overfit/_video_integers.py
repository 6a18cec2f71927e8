"""The networks that inter frames share, floats to the integers of the file and back."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.neural._bits import BitWriter
from lumefield.codecs.neural._group import INTER_CONTEXT, INTER_PICTURE
from lumefield.codecs.neural._inter_model import INTER_NAMES, InterModel, inter_base
from lumefield.codecs.neural._model import bound
from lumefield.codecs.neural._parameters import write_groups
from lumefield.codecs.overfit._integers import named_parts, parts_of
from lumefield.codecs.overfit._video_model import InterNetworks

GROUPS = INTER_CONTEXT + INTER_PICTURE
_ONE = {**dict.fromkeys(INTER_NAMES, 1024.0), "gains": 256.0, "units": 16.0}
"""Integer of 1.0."""
_FIRST_STEP = 0
_MAX_STEP = 7


def inter_model_of(networks: InterNetworks, steps: tuple[int, ...]) -> InterModel:
    """The networks in integers, multiples of 2^step of their groups, clipped to bounds."""
    named, arrays = _named(networks), dict[str, NDArray[np.int32]]()
    for names, step in zip(GROUPS, steps, strict=True):
        for name in names:
            most = bound(name) >> step
            value = np.rint(np.asarray(named[name]) * (_ONE[name] / (1 << step)))
            arrays[name] = (np.clip(value, -most, most) * (1 << step)).astype(np.int32)
    return InterModel(**arrays).check()


def inter_networks_of(model: InterModel) -> InterNetworks:
    """The float networks with exactly the numbers of a model."""
    named = {
        name: jnp.asarray((getattr(model, name) / _ONE[name]).astype(np.float32))
        for name in INTER_NAMES
    }
    context, synthesis = parts_of(named)
    return InterNetworks(
        context=context,
        energy=named["E"],
        filters=named["u"],
        synthesis=synthesis,
        gains=named["gains"],
        units=named["units"],
    )


def _named(networks: InterNetworks) -> dict[str, Any]:
    return {
        **named_parts(networks.context, networks.synthesis),
        **{"E": networks.energy, "u": networks.filters},
        **{"gains": networks.gains, "units": networks.units},
    }


def inter_bits(model: InterModel) -> int:
    """Bits of the shared networks in the file."""
    writer = BitWriter()
    write_groups(writer, GROUPS, model, inter_base(model.widths))
    return len(writer.bits())


def best_inter_model(
    networks: InterNetworks, bits_of: Callable[[InterNetworks], float]
) -> InterModel:
    """The rounded networks of least cost: one step per group, searched group by group.

    Args:
        networks: As fitted.
        bits_of: Bits of all latents and of the distortion, under given networks.
    """

    def cost(steps: tuple[int, ...]) -> float:
        model = inter_model_of(networks, steps)
        return inter_bits(model) + bits_of(inter_networks_of(model))

    steps = (_FIRST_STEP,) * len(GROUPS)
    best = cost(steps)
    for group in range(len(GROUPS)):
        for way in (1, -1):
            while 0 <= (k := steps[group] + way) <= _MAX_STEP:
                tried = (*steps[:group], k, *steps[group + 1 :])
                if (now := cost(tried)) >= best:
                    break
                steps, best = tried, now
    return inter_model_of(networks, steps)
