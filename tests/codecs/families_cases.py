"""Tiny pictures and clips, and the families of the table with hardly any steps."""

import dataclasses
import functools
from fractions import Fraction

import numpy as np

from lumefield.codecs.families import METHODS, Family, Fitted, compress_network
from lumefield.codecs.neural import Picture, video_picture
from lumefield.codecs.neural._decoders import Planes

SIZE = {"image": (20, 35), "video": (18, 26)}
FRAMES = 3
BYTES = {"image": 900.0, "video": 2500.0}
FINISHED = ("strumpler", "hnerv")
"""Families that go on through rounding here; a second compilation for each of the others."""


def picture_of(family: Family) -> Picture:
    """Header of the case of a family."""
    rows, columns = SIZE[family.content]
    if family.content == "image":
        return Picture(rows, columns)
    return video_picture(rows, columns, FRAMES, Fraction(25))


def frames_of(family: Family) -> list[Planes]:
    """Smooth shapes that move, with an edge."""
    rows, columns = SIZE[family.content]
    y, x = np.mgrid[:rows, :columns]
    count = 1 if family.content == "image" else FRAMES
    found = list[Planes]()
    for t in range(count):
        wave = 127 + 90 * np.sin(x / 6.0 + t) * np.cos(y / 5.0)
        edge = np.where(x + 2 * t > columns // 2, 200, 60)
        planes = [wave, edge, 255 - wave]
        if family.content == "video":
            planes = [wave, *(p[::2, ::2] for p in planes[1:])]
        found.append(tuple(np.ascontiguousarray(p.astype(np.uint8)) for p in planes))
    return found


def brief(family: Family, steps: int = 8) -> Family:
    """The family with next to no fitting."""
    few = min(family.recipe.batch, 256)
    recipe = dataclasses.replace(
        family.recipe,
        steps=steps,
        batch=few,
        probe=min(family.recipe.probe, 2 * few),
        finish=family.recipe.finish if family.name in FINISHED else 0.0,
    )
    return dataclasses.replace(family, recipe=recipe)


@functools.cache
def fitted(name: str) -> Fitted:
    """The file of a case."""
    family = METHODS[name]
    case = frames_of(family), picture_of(family)
    return compress_network(*case, brief(family), BYTES[family.content], name="a")
