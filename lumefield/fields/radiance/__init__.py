"""Radiance fields: density and colour of points and directions, each method as in its paper.

In: points of [-1, 1]^3 (who renders has contracted space into it), unit directions, codes of
photos. Out: densities, features and display-sRGB colours. Every field is a pytree of floating-point
arrays. Imports only ``native`` and this room. Oracle: the contract table in
``tests/fields/test_radiance.py``.
"""

from collections.abc import Callable

from lumefield.fields.radiance._kplanes import KPlanes as KPlanes
from lumefield.fields.radiance._mipnerf360 import MipNerf360 as MipNerf360
from lumefield.fields.radiance._nerf import Nerf as Nerf
from lumefield.fields.radiance._ngp import Ngp as Ngp
from lumefield.fields.radiance._protocol import RadianceField as RadianceField
from lumefield.fields.radiance._zipnerf import ZipNerf as ZipNerf

RADIANCE_FIELDS: dict[str, Callable[..., RadianceField]] = {
    "nerf": Nerf,
    "mipnerf360": MipNerf360,
    "ngp": Ngp,
    "kplanes": KPlanes,
    "zipnerf": ZipNerf,
}
"""Word of ``--method`` -> constructor ``(*, rngs, look=0, **options)``; options are the class's."""
