"""Single numbers of rounded networks, moved by a step wherever that pays for itself.

Rounding to the nearest multiple knows nothing of what the numbers do together. Here every one in
turn tries its neighbours, those towards its base first, and keeps what lowers the bits of the
parameters, the bits of the latents and the distortion in all (as Cool-chic 5.0.1 does after its
search of steps, ``coolchic/nnquant/rdoq.py``; we stop at the first way that helps).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.neural._model import NAMES, ImageModel, bound
from lumefield.codecs.neural._parameters import (
    CONTEXT_GROUPS,
    best_code,
    code_lengths,
    in_steps,
)
from lumefield.codecs.overfit._integers import GROUPS, networks_of
from lumefield.fields.latent import Networks


@dataclass(frozen=True)
class Costs:
    """What networks cost beside their own bits."""

    latents: Callable[[Networks], float]
    """Bits of the latents; asked of the context network."""
    distortion: Callable[[Networks], float]
    """Distortion in bits; asked of filters and synthesis."""


def refined(
    model: ImageModel, base: ImageModel, costs: Costs, on_share: Callable[[float], None]
) -> ImageModel:
    """The model after each of its numbers has tried its neighbours once.

    Args:
        model: Rounded networks.
        base: What the parameters are stored relative to.
        costs: Of a candidate, in bits.
        on_share: Told which share of the numbers has been tried now.
    """
    sizes = {name: getattr(model, name).size for name in NAMES}
    for names in GROUPS:
        cost = costs.latents if names in CONTEXT_GROUPS else costs.distortion
        model = _group(model, base, names, cost)
        on_share(sum(sizes[name] for name in names) / sum(sizes.values()))
    return model.check()


def _group(
    model: ImageModel,
    base: ImageModel,
    names: tuple[str, ...],
    cost: Callable[[Networks], float],
) -> ImageModel:
    step, start, numbers = in_steps(model, base, names)
    code, most = best_code(numbers), min(bound(name) for name in names)

    def tried(numbers: NDArray[np.int64]) -> ImageModel:
        return model.replace(**_arrays(model, names, start + (numbers << step)))

    def price(number: int) -> int:
        return int(code_lengths(np.array([number]), code)[0])

    best = cost(networks_of(model))
    for i in range(len(numbers)):
        for way in (1, -1) if numbers[i] < 0 else (-1, 1):
            before = int(numbers[i])
            while abs(start[i] + ((new := int(numbers[i]) + way) << step)) <= most:
                old, numbers[i] = int(numbers[i]), new
                now = cost(networks_of(tried(numbers)))
                if now + price(new) >= best + price(old):
                    numbers[i] = old
                    break
                best = now
            if numbers[i] != before:
                break
    return tried(numbers)


def _arrays(
    model: ImageModel, names: tuple[str, ...], values: NDArray[np.int64]
) -> dict[str, NDArray[np.int32]]:
    arrays, at = dict[str, NDArray[np.int32]](), 0
    for name in names:
        like: NDArray[np.int32] = getattr(model, name)
        arrays[name] = values[at : at + like.size].reshape(like.shape).astype(np.int32)
        at += like.size
    return arrays
