"""COIN: a picture is the weights of one small SIREN.

Dupont, Golinski, Alizadeh, Teh and Doucet, "COIN: COmpression with Implicit Neural
representations", 2021, arXiv:2103.03123. Sizes follow its Table 1 (5 layers below about 0.2 bits
per pixel, 10 above); Adam on the mean squared error of all pixels. We differ: weights go through
the quantiser and entropy coder of this package instead of being stored as 16-bit floats, and steps
see random pixels instead of all of them.
"""

from lumefield.codecs.families._family import Family, Layout, Number, Recipe, searched
from lumefield.codecs.families._ops import Ops, Parameters, Shapes, Tensor
from lumefield.codecs.families._siren import (
    pixels_of,
    siren_forward,
    siren_macs,
    siren_shapes,
    siren_sizes,
    siren_start,
)
from lumefield.codecs.neural._container import Picture

MAX_WIDTH = 128
_SHALLOW, _DEEP = 5, 10
_DEEP_FROM = 6000
"""Parameters from which ten layers are taken."""


def _sizes(layout: Layout) -> list[int]:
    depth, width = layout.numbers
    return siren_sizes(layout.picture.channels, depth, width)


def _shapes(layout: Layout) -> Shapes:
    return siren_shapes(_sizes(layout))


def _start(key: Tensor, layout: Layout) -> dict[str, Tensor]:
    return siren_start(key, _sizes(layout))


def _forward(ops: Ops, parameters: Parameters, layout: Layout, inputs: Tensor) -> Tensor:
    return siren_forward(ops, parameters, layout.numbers[0], ops.input(inputs))


def _macs(layout: Layout) -> float:
    return siren_macs(_sizes(layout))


def _layout(picture: Picture, size: float) -> Layout:
    wanted = 8 * size / RECIPE.bits
    depth = _DEEP if wanted > _DEEP_FROM else _SHALLOW
    widths = [(depth, width) for width in range(4, MAX_WIDTH + 1)]
    return searched(picture, widths, wanted, COIN.count)


RECIPE = Recipe(rate=4e-3, batch=1 << 14, probe=1 << 15, steps=3000, bits=8.0)

COIN = Family(
    name="coin",
    content="image",
    source="Dupont et al. 2021, arXiv:2103.03123",
    identity=1,
    numbers=(Number("depth", 1, 16), Number("width", 1, MAX_WIDTH)),
    layout=_layout,
    shapes=_shapes,
    start=_start,
    inputs=pixels_of,
    forward=_forward,
    macs=_macs,
    recipe=RECIPE,
)
