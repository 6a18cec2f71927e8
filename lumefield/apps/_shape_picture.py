"""A quick picture of a surface for the report: its points, lit, the nearest one wins."""

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._surface import Surface

SIDE = 360
"""Pixels along a side."""
_POINTS = 400_000


def picture_of(surface: Surface, axis: int) -> NDArray[np.uint8]:
    """The cube [-1, 1]^3 seen along an axis from its high end, orthographic: [SIDE, SIDE, 3].

    Args:
        surface: Within the cube.
        axis: 0, 1 or 2: what the view looks along. The next axis but one is up, or y where that
            can be.
    """
    up = 1 if axis != 1 else 2
    right = 3 - axis - up
    points, normals = surface.sample(_POINTS, np.random.default_rng(3))
    seen = normals[:, axis] > 0
    points, normals = points[seen], normals[seen]
    sign = 1.0 if (right, up, axis) in ((0, 1, 2), (1, 2, 0), (2, 0, 1)) else -1.0
    column = np.clip((sign * points[:, right] + 1) / 2 * SIDE, 0, SIDE - 1).astype(int)
    row = np.clip((1 - points[:, up]) / 2 * SIDE, 0, SIDE - 1).astype(int)
    light = np.zeros(3)
    light[right], light[up], light[axis] = -0.4 * sign, 0.6, 0.7
    shade = 0.25 + 0.75 * np.clip(normals @ (light / np.linalg.norm(light)), 0, 1)
    order = np.argsort(points[:, axis], kind="stable")
    row, column = row[order], column[order]
    near = np.arange(1, len(order) + 1)  # the larger, the nearer
    nearest = np.zeros((SIDE + 1, SIDE + 1), np.int64)
    for down, along in ((0, 0), (0, 1), (1, 0), (1, 1)):  # a point covers 2 x 2 pixels
        np.maximum.at(nearest, (row + down, column + along), near)
    nearest = nearest[:SIDE, :SIDE]
    out = np.full((SIDE, SIDE, 3), 250, np.uint8)
    colour = shade[order, None] * np.array([225, 222, 214])
    out[nearest > 0] = colour[nearest[nearest > 0] - 1].astype(np.uint8)
    return out
