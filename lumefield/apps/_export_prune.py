"""Which Gaussians a scene can do without: by what they contribute to pictures, not by opacity."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._bake_views import one_size
from lumefield.apps._views import Views, camera_at

if TYPE_CHECKING:
    from lumefield.codecs.formats import Splats

LONGEST, MOST = 640, 60
"""Longest side in pixels, and number, of the views that contributions are measured in."""


def contributions(
    splats: "Splats", views: Views, tell: Callable[[str, float], None]
) -> NDArray[np.float64]:
    """What each Gaussian adds to the pictures: its blending weights, summed over all pixels.

    A picture of any quantity is the sum of weight times value, so the gradient of its sum by the
    values is the sum of the weights: one backward pass per view.

    Args:
        splats: N Gaussians.
        views: From where; at most 60 of them are used, evenly chosen, at up to 640 pixels a side.
        tell: Progress.

    Returns:
        (N,) sums of weights, in pixels; 0 for what is never seen.
    """
    import jax
    import jax.numpy as jnp

    from lumefield.fields import Gaussians
    from lumefield.render import Cameras, SplatOptions, rasterize

    views = chosen_views(views)
    leaves = (splats.means, splats.quats_wxyz, splats.log_scales, splats.logit_opacities)
    arrays = Gaussians.from_arrays(*leaves, splats.sh[:, :1]).activate()
    options = SplatOptions(antialiased=splats.antialiased)

    @jax.jit
    def weights(arrays: Any, ones: jax.Array, camera: Cameras) -> jax.Array:  # noqa: ANN401
        def total(values: jax.Array) -> jax.Array:
            return rasterize(
                **arrays, camera=camera, features=values, options=options
            ).features.sum()

        return jax.grad(total)(ones)[:, 0]

    out = np.zeros(len(splats.means))
    ones = jnp.ones((len(splats.means), 1), jnp.float32)
    for k in range(len(views)):
        camera = camera_at(views, k)
        out += np.asarray(weights(arrays, ones, camera), np.float64)
        tell("measuring contributions", (k + 1) / len(views))
    return out


def chosen_views(views: Views) -> Views:
    """At most 60 of the views, evenly chosen, at one size of up to 640 pixels a side."""
    chosen = np.unique(np.linspace(0, len(views) - 1, min(MOST, len(views))).round().astype(int))
    return one_size(views.pick(chosen.astype(np.intp)), LONGEST)


def strongest(weight: NDArray[np.float64], limit: int) -> tuple[NDArray[np.int64], float]:
    """The ``limit`` Gaussians of largest contribution, in their order, and their share of it."""
    kept = np.sort(np.argsort(-weight, kind="stable")[:limit])
    return kept, float(weight[kept].sum() / max(weight.sum(), 1e-300))
