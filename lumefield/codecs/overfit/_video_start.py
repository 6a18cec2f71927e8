"""What the fit of a group's inter frames begins with: networks, and pictures to predict from."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from lumefield.codecs.neural._decoders import Planes
from lumefield.codecs.neural._inter_model import inter_base, inter_widths
from lumefield.codecs.neural._motion import PICTURE_BITS, RATIO_BITS, reference
from lumefield.codecs.neural._order import Role
from lumefield.codecs.overfit._video_integers import inter_networks_of
from lumefield.codecs.overfit._video_model import InterNetworks, References, padded

SYNTHESIS = 16
"""Width of the shared synthesis."""
WEIGHTS = (1.6, 1.2, 0.9, 0.7, 0.6, 0.55, 0.5, 0.5)
"""How much the squared error of a frame counts, by layer: more where others follow from it."""


def first_networks(lambda_: float, seed: int) -> InterNetworks:
    """Networks under which predictions pass unchanged."""
    networks = inter_networks_of(inter_base(inter_widths(SYNTHESIS)))
    net = networks.synthesis
    # A step of the quantiser near what is best for a Laplace at high rate.
    gain = min(3.9, 73 * math.sqrt(lambda_))
    return dataclasses.replace(
        networks,
        synthesis=dataclasses.replace(
            net,
            # The second layer begins at zero, so that at first the prediction passes unchanged.
            x1=0.1 * jax.random.normal(jax.random.key(seed), net.x1.shape, jnp.float32),
        ),
        gains=jnp.full_like(networks.gains, gain),
    )


def start_references(
    target: np.ndarray, order: tuple[Role, ...], first: Planes, lambda_: float
) -> References:
    """The frames themselves, but for the first, which is decoded; see :func:`fit_inter`."""
    pictures = padded(jnp.asarray(target, jnp.float32))
    return References(
        target=jnp.asarray(target[[role.place for role in order]], jnp.float32),
        pictures=pictures.at[0].set(as_floats(first)),
        first=jnp.asarray([role.first for role in order], jnp.int32),
        second=jnp.asarray([role.second for role in order], jnp.int32),
        ratio=jnp.asarray([role.ratio / (1 << RATIO_BITS) for role in order], jnp.float32),
        layer=jnp.asarray([role.layer for role in order], jnp.int32),
        weight=jnp.asarray([WEIGHTS[role.layer] for role in order], jnp.float32),
        log_lambda=jnp.float32(math.log(lambda_)),
    )


def as_floats(planes: Planes) -> Array:
    """A decoded picture as the float model's predictions read it."""
    return jnp.asarray(reference(planes, 8).astype(np.float32) * (16.0 / (1 << PICTURE_BITS)))
