"""Small pyramids and networks of the image codec, and how results are compared."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lumefield.fields.latent import ContextModel, Synthesis, level_sizes


def normal(rng, *shape, gain=1.0) -> Any:
    """Rows of about unit length."""
    return np.asarray(rng.normal(size=shape) * gain / np.prod(shape[1:]) ** 0.5, np.float32)


def pyramid(rng, h, w, levels) -> tuple[Any, ...]:
    """Noisy whole numbers: none is at a tie."""
    return tuple(
        np.asarray(np.round(rng.laplace(size=s) * 2) + rng.uniform(-0.4, 0.4, s), np.float32)
        for s in level_sizes(h, w, levels)
    )


def context_model(rng, levels, width) -> Any:
    return ContextModel(
        w1=normal(rng, width, 17),
        b1=normal(rng, levels, width),
        w2=normal(rng, width, width),
        b2=normal(rng, width) * 0.2,
        w3=normal(rng, 2, width),
        linear=normal(rng, 2, 17, gain=0.3),
        b3=normal(rng, 2) * 0.3,
    )


def synthesis_net(rng, levels, hidden, channels) -> Any:
    return Synthesis(
        x1=normal(rng, hidden, levels, gain=2.0),
        c1=normal(rng, hidden),
        x2=normal(rng, channels, hidden),
        linear=normal(rng, channels, levels),
        c2=normal(rng, channels) + 2,
        conv1=normal(rng, channels, channels, 3, 3),
        g1=normal(rng, channels),
        conv2=normal(rng, channels, channels, 3, 3),
        g2=normal(rng, channels),
    )


def on_device(tree, dtype=jnp.float32) -> Any:
    return jax.tree.map(lambda a: jnp.asarray(np.asarray(a), dtype), tree)


def value_and_pull(function):
    """(cotangent, *inputs) -> value and gradients, jitted."""

    def run(g, *inputs):
        y, pull = jax.vjp(function, *inputs)
        return y, pull(g)

    return jax.jit(run)


def exactly(function, *inputs):
    """The same in float64, as NumPy arrays."""
    with jax.enable_x64(True):
        given = [on_device(x, jnp.float64) for x in inputs]
        return jax.device_get(value_and_pull(function)(*given))


def worst(found, wanted):
    """Largest error of any array relative to that array's largest entry."""
    errors = [
        np.abs(np.asarray(a) - b).max() / max(np.abs(b).max(), 1e-30)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
        if np.size(b)
    ]
    return max(errors, default=0.0)
