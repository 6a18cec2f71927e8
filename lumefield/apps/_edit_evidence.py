"""What speaks for and against each Gaussian of a scene: how it is seen, and its neighbours.

Letters: ``z`` depth of a Gaussian in a view, ``T`` what light reaches it there, ``a`` its alpha,
``b`` the depth of what is behind it. A picture of depths is Z = sum T a z, and dZ / d ln o, o the
Gaussian's opacity, is the sum over pixels of T a (z - b): the renderer's own gradient says how much
farther one would look without it, for every Gaussian in one backward pass.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._edit_scene import Floats, Tell, opacity_of
from lumefield.apps._export_prune import chosen_views
from lumefield.apps._views import Views, camera_at

if TYPE_CHECKING:
    from lumefield.codecs.formats import Splats

_NEIGHBOURS = 16
_NEAR = 8
_C0 = 0.28209479177387814
_SEEN = 0.02
"""Pixels of weight in a view below which its gap says nothing."""
_THROUGH = 0.1
"""Least opacity behind a Gaussian, in a view, for a gap to be measured against."""
_TINY = 1e-9


class Sight(NamedTuple):
    """How N Gaussians are seen; all (N,)."""

    weight: Floats
    """Blending weights summed over pixels and views."""
    gap: Floats
    """Mean of (b - z) / z over the views, by weight; 0 where nothing is behind."""
    support: Floats
    """Number of views that see it, each counted by its share: (sum w)^2 / sum w^2."""
    largest: Floats
    """Weight in the view that sees most of it, in pixels."""


class Around(NamedTuple):
    """What lies around N Gaussians; all (N,)."""

    reach: Floats
    """Distance to the 8th neighbour, in units of the distance to the nearest camera."""
    spread: Floats
    """The same in units of the largest standard deviation."""
    colour: Floats
    """Distance to the median colour of 8 neighbours, display sRGB."""
    sparse: Floats
    """``reach`` in units of the median of 16 neighbours'."""
    off_plane: Floats
    """Distance from the plane through 16 neighbours, in units of their spread across it."""
    off_centre: Floats
    """Distance from the mean of 16 neighbours, in units of their spread."""
    neighbours: NDArray[np.int64]
    """(N, 16) the nearest first."""


def sight_of(splats: "Splats", views: Views, tell: Tell, stage: str) -> Sight:
    """One forward and two backward passes per view.

    Args:
        splats: N Gaussians.
        views: From where; see ``chosen_views``.
        tell: Progress.
        stage: What to call it.
    """
    import jax
    import jax.numpy as jnp

    from lumefield.fields import Gaussians
    from lumefield.render import Cameras, SplatOptions, rasterize

    views = chosen_views(views)
    leaves = (splats.means, splats.quats_wxyz, splats.log_scales, splats.logit_opacities)
    arrays: Any = Gaussians.from_arrays(*leaves, splats.sh[:, :1]).activate()
    options = SplatOptions(antialiased=splats.antialiased)

    @jax.jit
    def passes(arrays: Any, camera: Cameras) -> tuple[jax.Array, ...]:  # noqa: ANN401
        pose = camera.world_from_cam
        z = (arrays["means"] - pose[None, :, 3]) @ pose[:, 2]

        def picture(opacities: jax.Array, values: jax.Array) -> jax.Array:
            shown = {**arrays, "opacities": opacities}
            return rasterize(**shown, camera=camera, features=values, options=options).features

        values = jnp.stack([jnp.ones_like(z), z], -1)
        out, pull = jax.vjp(picture, arrays["opacities"], values)
        one, other = (jnp.zeros_like(out).at[..., k].set(1) for k in (0, 1))
        (by_opacity, by_value), (by_depth, _) = pull(one), pull(other)
        return by_value[:, 0], by_opacity, by_depth, z

    n, opacity = len(splats.means), opacity_of(splats)
    total, squares, gaps, largest = (np.zeros(n) for _ in range(4))
    for k in range(len(views)):
        seen = (np.asarray(v, np.float64) for v in passes(arrays, camera_at(views, k)))
        weight, by_opacity, by_depth, z = seen
        held = np.maximum(weight, _TINY)
        through = 1 - by_opacity * opacity / held  # opacity of what is behind
        behind = (z - by_depth * opacity / held) / np.maximum(through, 1e-3)
        told = (weight > _SEEN) & (through > _THROUGH)
        gap = np.where(told, np.clip((behind - z) / np.maximum(z, 1e-6), -1, 20), 0)
        total += weight
        squares += weight**2
        gaps += weight * gap
        np.maximum(largest, weight, out=largest)
        tell(stage, (k + 1) / len(views))
    return Sight(
        total, gaps / np.maximum(total, _TINY), total**2 / np.maximum(squares, _TINY), largest
    )


def around(splats: "Splats", views: Views) -> Around:
    """Neighbours in space: how far, how alike, and whether on the surface that they make."""
    from scipy.spatial import KDTree

    points = splats.means.astype(np.float64)
    n = len(points)
    far, near = KDTree(points).query(points, k=min(_NEIGHBOURS + 1, n))
    far, near = far.reshape(n, -1), near.reshape(n, -1)
    short = _NEIGHBOURS + 1 - far.shape[1]
    far, near = (np.pad(v, ((0, 0), (0, short)), mode="edge") for v in (far, near))
    near = near[:, 1:].astype(np.int64)
    eyes = KDTree(views.world_from_cam[:, :, 3]).query(points)[0]
    reach = (far[:, _NEAR] + _TINY) / (np.asarray(eyes) + _TINY)
    size = np.exp(np.clip(splats.log_scales.astype(np.float64).max(1), -80, 80))
    shade = 0.5 + _C0 * splats.sh[:, 0].astype(np.float64)
    others = points[near]
    middle = others.mean(1)
    apart = others - middle[:, None]
    values, vectors = np.linalg.eigh(np.einsum("nki,nkj->nij", apart, apart) / _NEIGHBOURS)
    values = np.maximum(values, 1e-18)
    away = points - middle
    across = np.abs(np.einsum("ni,ni->n", away, vectors[:, :, 0]))
    return Around(
        reach=reach,
        spread=(far[:, _NEAR] + _TINY) / size,
        colour=np.linalg.norm(shade - np.median(shade[near[:, :_NEAR]], axis=1), axis=1),
        sparse=reach / np.exp(np.median(np.log(reach)[near], axis=1)),
        off_plane=across / np.sqrt(values[:, 0]),
        off_centre=np.linalg.norm(away, axis=1) / np.sqrt(values.sum(1)),
        neighbours=near,
    )
