"""Dense latent pyramid and a small synthesis network: the field of the image codec.

Ladune et al., "COOL-CHIC: Coordinate-based Low Complexity Hierarchical Image Codec", 2023,
arXiv:2212.05458, Sec. 3: latent images at resolutions 1, 1/2, 1/4 ... of the picture are upsampled
to it, stacked, and turned into values by an MLP that sees one point at a time. We differ in reading
the latents at any point, without upsampling them first, and in leaving quantisation and rate to
``codecs``. Letters: k level, c channels of a level.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lumefield.fields.networks._grids import Interpolation, interpolate
from lumefield.fields.networks._mlp import layer_sizes, relu_layers, relu_network


class LatentPyramid(nnx.Module):
    """Latents at halving resolutions, read at ``x`` in [-1, 1] and mixed by a small ReLU MLP.

    Linear in the latents but for the MLP. With ``cubic`` it is once differentiable in ``x`` but for
    the kinks of the MLP, with ``linear`` continuous. Latents start at zero (no bits), so the field
    starts constant.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        d_out: int,
        *,
        levels: int = 7,
        channels: int = 1,
        interpolation: Interpolation = "cubic",
        width: int = 24,
        depth: int = 2,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw the synthesis; latents are zero.

        Args:
            shape: Cells of the finest level by axis, such as (rows, columns); as many axes as
                coordinates, coordinate 0 (x) being the last.
            d_out: Number of values.
            levels: Number of levels; level k has ceil(shape / 2^k) cells.
            channels: Latents in a cell.
            interpolation: How latents are read between their centres.
            width: Units of a hidden layer of the synthesis.
            depth: Hidden layers of the synthesis.
            rngs: Where the synthesis comes from.

        Raises:
            ValueError: If a size is below 1 or ``interpolation`` is unknown.
        """
        if interpolation not in ("linear", "cubic"):
            raise ValueError(f"interpolation={interpolation!r}, expected 'linear' or 'cubic'")
        if not shape or min(*shape, levels, channels, 1) < 1:
            raise ValueError(
                f"shape={shape}, levels={levels}, channels={channels}, expected at least 1 each"
            )
        self.interpolation: Interpolation = interpolation
        self.latents = nnx.List(
            nnx.Param(jnp.zeros((*(-(-n // 2**k) for n in shape), channels))) for k in range(levels)
        )
        self.layers = relu_layers(layer_sizes(levels * channels, d_out, width, depth), rngs)

    def __call__(self, x: Float[Array, "*s i"]) -> Float[Array, "*s o"]:
        """Values at ``x``; every leading axis is a batch axis."""
        read = [interpolate(latent[...], x, self.interpolation) for latent in self.latents]
        return relu_network(self.layers, jnp.concatenate(read, -1))
