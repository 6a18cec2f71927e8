"""Where the surface is that Gaussians show: the depth at which half of the light is stopped.

The mean depth of a pixel lies behind the surface wherever a little light comes from far behind it
(a thousandth of the weight from a wall 100 times as far moves the mean by a tenth). So the weights
of a pixel are sorted into bins of depth, all bins in one drawing as features, and the mean is
taken of the bin in which half of the weight is reached and its two neighbours only.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lumefield.apps._bake_views import Look, Seen
from lumefield.apps._views import Views, camera_at
from lumefield.codecs.formats import Splats
from lumefield.fields import Gaussians
from lumefield.render import Cameras, SplatOptions, composite_gaussians, project_gaussians

_BINS = 24
"""Bins, even in the logarithm of the depth, between what is nearest and what is farthest."""


def surface_look(splats: Splats) -> Look:
    """How Gaussians look, with the depth of the surface instead of the mean depth."""
    leaves = (splats.means, splats.quats_wxyz, splats.log_scales, splats.logit_opacities)
    arrays = {**Gaussians.from_arrays(*leaves, splats.sh).activate()}
    options = SplatOptions(antialiased=splats.antialiased)

    def look(views: Views) -> Seen:
        camera = camera_at(views)
        rgb, depth, opacity = (np.asarray(v) for v in _drawn(options, arrays, camera))
        return Seen(rgb, np.where(opacity > 1e-3, depth, 0).astype(np.float32), opacity)

    return look


@partial(jax.jit, static_argnums=0)
def _drawn(
    options: SplatOptions, arrays: dict[str, Array], camera: Cameras
) -> tuple[Array, Array, Array]:
    """Colour (H, W, 3), depth of the surface (H, W) and opacity (H, W)."""
    p = project_gaussians(**arrays, camera=camera, options=options)
    seen = p.opacities > 0
    z = jnp.where(seen, p.depth, 1.0)
    log = jnp.log(jnp.maximum(z, 1e-6))
    low, high = (
        jnp.nanquantile(jnp.where(seen, log, jnp.nan), q, method="nearest") for q in (0.005, 0.995)
    )
    low = jnp.where(jnp.isfinite(low), low, 0.0)
    high = jnp.where(jnp.isfinite(high), high, 1.0)
    at = jnp.clip((log - low) / jnp.maximum(high - low, 1e-6), 0, 1) * (_BINS - 1)
    part = jnp.maximum(1 - jnp.abs(at[:, None] - jnp.arange(_BINS, dtype=at.dtype)[None]), 0)
    values = jnp.concatenate([p.rgb, part, part * z[:, None]], 1)
    image, through = composite_gaussians(
        *(p.xy, p.factor, p.opacities, p.depth, values), height=camera.height, width=camera.width
    )
    weight, moment = image[..., 3 : 3 + _BINS], image[..., 3 + _BINS :]
    reached = jnp.cumsum(weight, -1) >= 0.5 * jnp.sum(weight, -1, keepdims=True)
    middle = jnp.argmax(reached, -1)
    near = jnp.abs(jnp.arange(_BINS)[None, None] - middle[..., None]) <= 1
    share = jnp.sum(jnp.where(near, weight, 0.0), -1)
    depth = jnp.sum(jnp.where(near, moment, 0.0), -1) / jnp.maximum(share, 1e-8)
    return image[..., :3], depth, 1 - through
