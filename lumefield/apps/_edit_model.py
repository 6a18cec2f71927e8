"""How much like a floater a Gaussian is: a logistic model of ten numbers and their products.

The numbers of this file were fitted as ``benchmarks.clean --fit`` does, by its forerunner, whose
random places differ a little: two trained scenes (fox and banana of the test data), 5 % of
floaters planted on top (seeds 0 and 1), before and after a first cleaning, and unplanted; a
Gaussian counts as the root of what it adds to the pictures. Everything is measured in units of the
scene or of its pictures, so neither units nor sizes matter.
"""

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._edit_evidence import Around, Sight
from lumefield.apps._edit_scene import Floats

NUMBERS = (
    *("share", "gap", "reach", "spread", "colour"),
    *("support", "few", "off_plane", "off_centre", "sparse"),
)
"""What the model knows, in the order of its columns; see ``numbers_of``."""
MEANS = np.array(
    [-12.1221, -3.6729, -4.5917, -0.0459, -2.0599, -0.8455, 1.8682, -0.4114, -0.8551, 0.1065]
)
SPREADS = np.array([1.3018, 0.9759, 0.8490, 0.8698, 0.8990, 0.4856, 0.3071, 1.0195, 0.6241, 0.2931])
CONSTANT = -9.8261
LINEAR = np.array(
    [0.9607, 0.9441, 1.2024, 0.4378, 0.9740, -0.3634, -0.3942, 0.0936, -0.0900, 0.1508]
)
PRODUCTS = np.array(
    [
        [0.2625, 0.2240, -0.4014, 0.3217, 0.2952, 0.0225, 0.4112, -0.0627, -0.0290, 0.0147],
        [0.0000, -0.2089, 0.2429, 0.3020, -0.2269, 0.1764, -0.3907, 0.0121, 0.0636, -0.2601],
        [0.0000, 0.0000, -0.6286, 0.3092, 0.3601, -0.3728, 0.5528, 0.0032, -0.0927, 0.1055],
        [0.0000, 0.0000, 0.0000, 0.1880, 0.2698, -0.1567, -0.1463, -0.0184, 0.1164, 0.1094],
        [0.0000, 0.0000, 0.0000, 0.0000, 0.2241, -0.0727, 0.1367, 0.0316, 0.1790, -0.2589],
        [0.0000, 0.0000, 0.0000, 0.0000, 0.0000, -0.1393, 0.0969, 0.1761, 0.1412, -0.0169],
        [0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, -0.0510, -0.0231, -0.2500, 0.1804],
        [0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0669, 0.1645, -0.0180],
        [0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, -0.0724, -0.1133],
        [0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0601],
    ]
)

_FAR, _ALONE, _SURE = 0.1, 8.0, 3.0
"""A Gaussian whose 8th neighbour is farther than this part of its distance to the nearest camera,
and than this many of its standard deviations, has at least these log-odds."""


def numbers_of(sight: Sight, near: Around, views: int, pixels: int) -> Floats:
    """The ten numbers (N, 10) of every Gaussian: logarithms, clipped to where they were measured.

    Args:
        sight: How it is seen.
        near: What is around it.
        views: How many views there are.
        pixels: How many pixels a view has.
    """
    support = np.maximum(sight.support, 1)
    return np.stack(
        [
            np.log(sight.weight / (views * pixels) + 1e-9),
            np.log(np.clip(sight.gap, 1e-2, 10)),
            np.log(near.reach),
            np.log(near.spread),
            np.log(np.clip(near.colour, 0.03, 2)),
            np.log(support / views),
            np.minimum(np.log(support), 2),
            np.log(np.clip(near.off_plane, 0.1, 20)),
            np.log(np.clip(near.off_centre, 0.05, 20)),
            np.log(near.sparse),
        ],
        1,
    )


def terms(numbers: Floats) -> Floats:
    """(N, 10) standardised, at most 4 standard deviations from the mean."""
    return np.clip((numbers - MEANS) / SPREADS, -4, 4)


def log_odds(numbers: Floats) -> NDArray[np.float64]:
    """Log-odds (N,) of being a floater; 0 is as likely as not, were 5 % planted.

    The scenes of the fit fill their pictures. Before an empty background a gap says nothing, so
    what is far from everything by any measure is a floater whatever the model says.
    """
    x = terms(numbers)
    odds = CONSTANT + x @ LINEAR + np.einsum("ni,ij,nj->n", x, PRODUCTS, x)
    reach, spread = (np.exp(numbers[:, NUMBERS.index(name)]) for name in ("reach", "spread"))
    return np.where((reach > _FAR) & (spread > _ALONE), np.maximum(odds, _SURE), odds)
