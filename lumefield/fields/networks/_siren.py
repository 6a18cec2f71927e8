"""SIREN: an MLP whose activation is a sine.

Sitzmann et al., "Implicit Neural Representations with Periodic Activation Functions", 2020,
arXiv:2006.09661. Letters: omega the frequency factor of Sec. 3.2, n inputs of a layer.
"""

from typing import get_args

from flax import nnx
from jaxtyping import Array, Float

from lumefield.fields.networks._fused_mlp import Backend, mlp
from lumefield.fields.networks._mlp import layer_sizes, linear_layers
from lumefield.fields.networks._trig import sin


class Siren(nnx.Module):
    """Sinusoidal MLP from ``i`` coordinates in [-1, 1] to ``o`` values; smooth of every order.

    Layers are ``sin(omega (W x + b))`` (Sec. 3.2); the last one is linear. Weights start uniform
    within +-1/n in the first layer and +-sqrt(6/n)/omega in the others (Theorem 1.8), biases within
    +-1/sqrt(n) as in the authors' program: the paper leaves them open, and with zero biases the
    network would start as an odd function. The sine is the engine's own, see
    :func:`lumefield.fields.networks.sin`.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        width: int = 256,
        depth: int = 4,
        omega: float = 30.0,
        backend: Backend = "xla",
        rngs: nnx.Rngs,
    ) -> None:
        """Draw the weights.

        Args:
            d_in: Number of coordinates.
            d_out: Number of values.
            width: Units of a hidden layer.
            depth: Number of hidden (sine) layers.
            omega: Frequency factor; the first layer spans about +-omega radians per unit. Static.
            backend: ``xla`` goes through every jax transform. ``auto`` takes the fused native
                kernel on a CPU where it fits (float32, at most 128 units), nearly twice as fast to
                train; forward mode (``jvp``, ``jacfwd``, ``hessian``) then raises jax's TypeError.
                Static.
            rngs: Where the weights come from.

        Raises:
            ValueError: If ``depth`` or ``width`` is below 1, ``omega`` is not positive, or
                ``backend`` is unknown.
        """
        if omega <= 0:
            raise ValueError(f"omega={omega}, expected a positive factor such as 30")
        if backend not in get_args(Backend):
            raise ValueError(f"backend={backend!r}, expected one of {get_args(Backend)}")
        self.omega = omega
        self.backend: Backend = backend
        sizes = layer_sizes(d_in, d_out, width, depth)
        kernels = [1 / d_in] + [(6 / n) ** 0.5 / omega for n in sizes[1:-1]]
        self.layers = linear_layers(sizes, kernels, [n**-0.5 for n in sizes[:-1]], rngs)

    def __call__(self, x: Float[Array, "*s i"]) -> Float[Array, "*s o"]:
        """Values at ``x``; every leading axis is a batch axis."""
        if self.backend != "xla":
            return self._fused(x)
        for layer in self.layers[:-1]:
            x = sin(self.omega * layer(x))
        return self.layers[-1](x)

    def _fused(self, x: Array) -> Array:
        factors = [self.omega] * (len(self.layers) - 1) + [1.0]
        pairs = list(zip(factors, self.layers, strict=True))
        weights = [c * layer.kernel[...] for c, layer in pairs]
        biases = [c * layer.bias[...] for c, layer in pairs if layer.bias is not None]
        return mlp(x, weights, biases, activation="sine", backend=self.backend)
