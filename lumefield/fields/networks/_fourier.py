"""ReLU networks on encoded coordinates.

Tancik et al., "Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional
Domains", 2020, arXiv:2006.10739; Mildenhall et al., "NeRF", 2020, Sec. 5.1.
"""

import jax
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from lumefield.fields.networks._encoding import fourier_features, positional_encoding
from lumefield.fields.networks._mlp import layer_sizes, relu_layers, relu_network


class FourierMlp(nnx.Module):
    """ReLU MLP on sines and cosines of the coordinates, ``i`` in [-1, 1] to ``o`` values.

    By default the frequencies are drawn once and do not train (Tancik et al., Sec. 6). They are a
    leaf like the weights, so that they are saved with them and differ between instances, and get a
    gradient of zero: an optimizer with weight decay must leave ``frequencies`` out. We count them
    in cycles per unit of [-1, 1], so ``scale`` is half of the paper's, whose images span [0, 1].
    With ``degrees`` the encoding is NeRF's octaves per axis, and there is no such leaf. Second
    derivatives exist but for the kinks of the ReLU.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        features: int = 128,
        scale: float = 5.0,
        degrees: int | None = None,
        width: int = 256,
        depth: int = 4,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw frequencies and weights.

        Args:
            d_in: Number of coordinates.
            d_out: Number of values.
            features: Number of random frequencies.
            scale: Their standard deviation, cycles per unit.
            degrees: Octaves per axis of the positional encoding in place of random frequencies.
            width: Units of a hidden layer.
            depth: Number of hidden layers.
            rngs: Where frequencies and weights come from.

        Raises:
            ValueError: If a size is below 1.
        """
        count = features if degrees is None else degrees * d_in
        sizes = layer_sizes(d_in, d_out, width, depth)
        if count < 1:
            raise ValueError(f"features={features}, degrees={degrees}, expected at least 1")
        self.degrees = degrees
        self.layers = relu_layers([2 * count, *sizes[1:]], rngs)
        if degrees is None:
            drawn = scale * jax.random.normal(rngs.params(), (d_in, features))
            self.frequencies = nnx.Param(drawn)

    def __call__(self, x: Float[Array, "*s i"]) -> Float[Array, "*s o"]:
        """Values at ``x``; every leading axis is a batch axis."""
        if self.degrees is not None:
            encoded = positional_encoding(x, self.degrees)
        else:
            encoded = fourier_features(x, lax.stop_gradient(self.frequencies[...]))
        return relu_network(self.layers, encoded)
