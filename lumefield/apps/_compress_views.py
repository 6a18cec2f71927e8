"""How much pictures change when the numbers of a Gaussian do: what their errors may cost."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lumefield.apps._bake_views import one_size
from lumefield.apps._views import Views

if TYPE_CHECKING:
    from lumefield.codecs.scene import Canonical
    from lumefield.render import SplatOptions

LONGEST, MOST = 640, 60
"""Longest side in pixels, and number, of the views that are looked through."""


def sensitivities(
    form: "Canonical", views: Views, *, antialiased: bool, tell: Callable[[str, float], None]
) -> "Canonical":
    """Sum over pixels and channels of the squared derivatives of all pictures by every number.

    That is the diagonal of the Gauss-Newton matrix, estimated without bias by random signs
    (Hutchinson, 1990): for signs r, E[(J^T r)_i^2] = sum_p J_pi^2. One backward pass per view.

    Args:
        form: N Gaussians.
        views: From where; at most 60 of them, evenly chosen, at up to 640 pixels a side.
        antialiased: How they are drawn.
        tell: Progress.

    Returns:
        Squared error, summed over the views and scaled to one pixel per view, that a unit of error
        of each number makes.
    """
    import jax
    import jax.numpy as jnp

    from lumefield.codecs.scene import Canonical
    from lumefield.render import Cameras, SplatOptions

    chosen = np.unique(np.linspace(0, len(views) - 1, min(MOST, len(views))).round().astype(int))
    views = one_size(views.pick(chosen.astype(np.intp)), LONGEST)
    width, height = (int(v) for v in views.size[0])
    squared = _squared_gradients(form, (height, width), SplatOptions(antialiased=antialiased))
    make: Any = Canonical
    sums = [np.zeros(x.shape) for x in (*form[:4], form.colours[:, 0])]
    for k in range(len(views)):
        camera = Cameras.from_pinhole(
            jnp.asarray(views.world_from_cam[k], jnp.float32),
            jnp.asarray(views.focal[k], jnp.float32),
            jnp.asarray(views.centre[k], jnp.float32),
            width=width,
            height=height,
        )
        for total, part in zip(sums, squared(camera, jax.random.key(k)), strict=True):
            total += np.nan_to_num(np.asarray(part, np.float64))
        tell("measuring what counts", (k + 1) / len(views))
    scale = 1 / (width * height * 3 * len(views))
    # An orthonormal basis: every harmonic costs what the constant one does, on average.
    whole = np.broadcast_to(sums[4].mean(1)[:, None, None] * scale, form.colours.shape)
    return make(*(x * scale for x in sums[:4]), whole)


def _squared_gradients(
    form: "Canonical", size: tuple[int, int], options: "SplatOptions"
) -> Callable[[Any, Any], Any]:
    """A function (camera, key) -> squared gradients of a picture under random signs.

    Its fifth leaf is (N, 3): of the constant colours.
    """
    import jax
    import jax.numpy as jnp

    from lumefield.codecs.scene import Canonical, red_first
    from lumefield.render import Cameras, rasterize_rgb

    make: Any = Canonical  # of arrays of jax here
    own = jnp.asarray(red_first(form.colours), jnp.float32)
    known = make(*(jnp.asarray(x, jnp.float32) for x in (*form[:4], form.colours[:, 0])))

    def drawn(leaves: Any, sh: jax.Array, camera: Cameras) -> jax.Array:  # noqa: ANN401
        v = leaves.turns
        w = jnp.sqrt(jnp.maximum(1 - jnp.sum(v * v, 1, keepdims=True), 1e-6))
        quats, scales = jnp.concatenate([w, v], 1), jnp.exp(leaves.log_scales)
        arrays = (leaves.means, quats, scales, jax.nn.sigmoid(leaves.logits), sh)
        return rasterize_rgb(*arrays, camera=camera, options=options)[0]

    @jax.jit
    def squared(leaves: Any, own: jax.Array, camera: Cameras, key: Any) -> Any:  # noqa: ANN401
        signs = jax.random.rademacher(key, (*size, 3), jnp.float32)

        def total(leaves: Any) -> jax.Array:  # noqa: ANN401
            return jnp.sum(drawn(leaves, own, camera) * signs)

        def of_colour(greys: jax.Array) -> jax.Array:
            # All of one colour: a black Gaussian has no gradient where colours are cut at 0, and
            # would seem worth nothing.
            return jnp.sum(drawn(leaves, greys[:, None], camera) * signs)

        found = jax.grad(total)(leaves)._replace(
            colours=jax.grad(of_colour)(jnp.zeros_like(leaves.colours))
        )
        return jax.tree.map(jnp.square, found)

    return partial(squared, known, own)
