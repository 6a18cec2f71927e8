"""The colours of a mesh as a picture: fitted to the photos that see it.

A texel's colour is not picked from one photo but all of them are solved for: the texture whose
pictures, drawn with the z-buffer of the mesh, are nearest to the photos. Drawing is linear in the
texels (bilinear shares A), so from the weighted mean of what is seen (A^T y / A^T 1) each round of
simultaneous iterative reconstruction adds the mean of what is still missing, which sharpens what
averaging has blurred. The weight of a photo falls with distance and angle by itself, since it has
fewer pixels there, and once more with the cosine of the angle. Every photo has a gain per channel,
and pixels that no gain explains (people passing, highlights) count less.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._bake_views import Tell
from lumefield.apps._marching import Mesh
from lumefield.apps._mesh_photos import Pictures
from lumefield.apps._mesh_raster import rasterised
from lumefield.apps._mesh_tsdf import Coloured
from lumefield.apps._mesh_uv import Laid, laid_out
from lumefield.apps._views import Views

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]

_ROUNDS = 5
"""Rounds of the reconstruction."""
_ODD = 0.15
"""A difference to a photo, of full range, at which a pixel counts half."""
_JUMP = 0.03
"""Pixels beside a jump of the depth by this share are not used: their colours are mixed."""
_GAINS = (0.6, 1.6)
"""Least and most gain of a photo."""


class Textured(NamedTuple):
    """A mesh with a picture on it."""

    mesh: Mesh
    """Vertices are split where the picture is cut."""
    uv: Doubles
    """(v, 2) in [0, 1], (0, 0) is the upper left corner."""
    picture: NDArray[np.uint8]
    """(S, S, 3) display sRGB."""
    seen: float
    """Share of the texels that a photo sees."""


class _Sight(NamedTuple):
    """What one photo says."""

    shares: Any
    """(p, S * S) sparse, bilinear."""
    colour: Floats
    """(p, 3) in [0, 1]."""
    weight: Floats
    """(p,)."""


def textured(made: Coloured, pictures: Pictures, size: int, tell: Tell) -> Textured:
    """Put a texture on a mesh.

    Args:
        made: The mesh; its colours fill what no photo sees.
        pictures: The photos.
        size: Texels along a side.
        tell: Hears what is done.
    """
    laid = laid_out(made.mesh, size)
    start, inside = _painted(made, laid, size)
    sights: list[_Sight] = []
    for k in range(len(pictures.views)):
        sights.append(_sight(made.mesh, laid, pictures, k, size))
        tell("looking at the mesh", (k + 1) / len(pictures.views))
    found, touched = _solved(sights, start, size)
    picture = _spread(found.reshape(size, size, 3), inside)
    mesh = Mesh(made.mesh.vertices[laid.vertices], laid.faces)
    share = float((touched & inside.reshape(-1)).sum() / max(1, int(inside.sum())))
    return Textured(mesh, laid.uv, (picture.clip(0, 1) * 255 + 0.5).astype(np.uint8), share)


def _painted(made: Coloured, laid: Laid, size: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Vertex colours on the picture (S * S, 3), and which texels (S, S) lie on a chart."""
    flat = np.concatenate([laid.uv * size, np.ones((len(laid.uv), 1))], 1)
    above = Views(
        names=("",),
        world_from_cam=np.eye(3, 4)[None],
        focal=np.ones((1, 2)),
        centre=np.zeros((1, 2)),
        size=np.array([[size, size]]),
        held_out=(False,),
    )
    drawn = rasterised(Mesh(flat, laid.faces), above)
    colours = np.zeros((size * size, 3), np.float32)
    corners = made.colours[made.mesh.faces[drawn.faces]]
    colours[drawn.pixels] = np.einsum("pc,pcx->px", drawn.shares, corners)
    inside = np.zeros(size * size, bool)
    inside[drawn.pixels] = True
    return colours, inside.reshape(size, size)


def _sight(mesh: Mesh, laid: Laid, pictures: Pictures, k: int, size: int) -> _Sight:
    from scipy.sparse import csr_array

    view = pictures.views.pick([k])
    width, height = (int(v) for v in view.size[0])
    drawn = rasterised(mesh, view)
    depth = np.zeros(width * height)
    depth[drawn.pixels] = drawn.depth
    good = _even(depth.reshape(height, width)) & pictures.counts[k]
    kept = good.reshape(-1)[drawn.pixels]
    pixels, faces, shares = drawn.pixels[kept], drawn.faces[kept], drawn.shares[kept]
    a, b, c = (mesh.vertices[mesh.faces[faces, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    towards = view.world_from_cam[0, :, 3] - (a + b + c) / 3
    lengths = np.linalg.norm(normal, axis=1) * np.linalg.norm(towards, axis=1)
    cosine = np.abs((normal * towards).sum(1)) / np.maximum(lengths, 1e-30)
    uv = np.einsum("pc,pcx->px", shares, laid.uv[laid.faces[faces]])
    at = (uv * size - 0.5).clip(0, size - 1.001)
    low = np.floor(at).astype(np.int64)
    u, v = (at - low).T
    first = low[:, 1] * size + low[:, 0]
    index = np.stack([first, first + 1, first + size, first + size + 1], 1)
    part = np.stack([(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v], 1)
    ends = np.arange(len(pixels) + 1) * 4
    matrix = csr_array(
        (part.astype(np.float32).reshape(-1), index.astype(np.int32).reshape(-1), ends),
        shape=(len(pixels), size * size),
    )
    colour = pictures.rgb[k].reshape(-1, 3)[pixels].astype(np.float32) / 255
    return _Sight(matrix, colour, cosine.clip(0.05, 1).astype(np.float32))


def _even(depth: Doubles) -> NDArray[np.bool_]:
    """Pixels (H, W) that show the mesh as all their neighbours do, without a jump."""
    good = depth > 0
    for axis in (0, 1):
        for step in (1, -1):
            other = np.roll(depth, step, axis)
            good &= np.abs(other - depth) < _JUMP * depth
    good[[0, -1]] = good[:, [0, -1]] = False
    return good


def _solved(sights: list[_Sight], start: Floats, size: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Texels (S * S, 3), and which of them a photo sees."""
    sights = [sight for sight in sights if len(sight.weight)]
    if not sights:
        return start, np.zeros(len(start), bool)
    found, gains = start.copy(), [np.ones(3, np.float32) for _ in sights]
    touched = np.zeros(len(start), bool)
    for round_ in range(_ROUNDS):
        more, weight = np.zeros_like(found), np.zeros(len(found), np.float32)
        for k, (matrix, colour, angle) in enumerate(sights):
            drawn = matrix @ found
            if round_:
                gains[k] = _gain(colour, drawn, angle)
        middle = np.exp(np.mean(np.log(gains), 0))
        for k, (matrix, colour, angle) in enumerate(sights):
            left = colour / (gains[k] / middle) - (matrix @ found if round_ else 0)
            odd = np.abs(left).max(1) if round_ else np.zeros(len(left), np.float32)
            share = angle / (1 + (odd / np.float32(_ODD)) ** 2)
            more += matrix.T @ (left * share[:, None])
            weight += matrix.T @ share
        if round_:
            step, near = _blurred(more, weight, size, 0.7)
            found = found + step
        else:
            step, near = _blurred(more, weight, size, 1.5)
            found[near] = step[near]
            touched = near
    return found, touched


def _gain(colour: Floats, drawn: Floats, weight: Floats) -> Floats:
    """How much brighter a photo is than the texture, per channel."""
    shown = (colour > 0.05) & (colour < 0.95)
    top = (weight[:, None] * shown * colour * drawn).sum(0)
    bottom = (weight[:, None] * shown * drawn * drawn).sum(0)
    gain = np.where(bottom > 1, top / np.maximum(bottom, 1e-9), 1)
    return gain.clip(*_GAINS).astype(np.float32)


def _blurred(
    more: Floats, weight: Floats, size: int, sigma: float
) -> tuple[Floats, NDArray[np.bool_]]:
    """Means (S * S, 3) of what lies close by, and where there is something."""
    from scipy.ndimage import gaussian_filter

    shape = (size, size)
    below = gaussian_filter(weight.reshape(shape), sigma, truncate=2.5).reshape(-1)
    near = below > 1e-4
    out = np.zeros_like(more)
    for channel in range(3):
        top = gaussian_filter(more[:, channel].reshape(shape), sigma, truncate=2.5).reshape(-1)
        out[:, channel] = np.where(near, top / np.maximum(below, 1e-4), 0)
    return out, near


def _spread(picture: Floats, inside: NDArray[np.bool_]) -> Floats:
    """The picture with the charts' border colours around them."""
    from scipy.ndimage import distance_transform_edt

    if not inside.any():
        return picture
    nearest: Any = distance_transform_edt(~inside, return_distances=False, return_indices=True)
    return picture[tuple(nearest)]
