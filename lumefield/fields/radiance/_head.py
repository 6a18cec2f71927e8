"""The two ends of a radiance field's networks, as most methods share them.

Functions of plain arrays and a ``Stack``, not modules: the names of a field's leaves, which are
those of its file, stay the field's own.
"""

from collections.abc import Sequence

import jax
from flax import nnx
from jaxtyping import Array, Float

from lumefield.fields.networks._fused_mlp import Precision
from lumefield.fields.radiance._directions import SH_TERMS, direction_basis, exp_density, joined
from lumefield.fields.radiance._stack import Stack


def density_and_features(
    y: Float[Array, "*s f"],
) -> tuple[Float[Array, "*s"], Float[Array, "*s f"]]:
    """Density and features from what a trunk gives: the first number is the density's logarithm.

    Instant-NGP, Sec. 5.4. One is taken off it, so that a fresh field is thin.
    """
    return exp_density(y[..., 0] - 1), y


def colour_head(
    features: int,
    hidden: Sequence[int],
    *,
    look: int,
    bias: bool = True,
    precision: Precision = "float32",
    rngs: nnx.Rngs,
) -> Stack:
    """A network for ``colour_of``: features, direction and look to three numbers."""
    sizes = [features + SH_TERMS + look, *hidden, 3]
    return Stack(sizes, bias=bias, precision=precision, rngs=rngs)


def colour_of(
    head: Stack,
    features: Float[Array, "*s f"],
    d: Float[Array, "*d 3"],
    look: Float[Array, "*e a"] | None,
) -> Float[Array, "*s 3"]:
    """Display sRGB in (0, 1), as ``RadianceField.colour`` asks for it."""
    parts = [features, direction_basis(d)]
    return jax.nn.sigmoid(head(joined(parts if look is None else [*parts, look])))
