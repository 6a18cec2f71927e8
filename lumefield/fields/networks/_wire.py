"""WIRE: an MLP whose activation is a Gabor wavelet.

Saragadam et al., "WIRE: Wavelet Implicit Neural Representations", 2023, arXiv:2301.05187.
Letters: omega frequency and s inverse width of the wavelet; a complex number z = u + iv.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lumefield.fields.networks._mlp import layer_sizes, symmetric
from lumefield.fields.networks._trig import cos, sin


class Wire(nnx.Module):
    """Gabor-wavelet MLP from ``i`` coordinates in [-1, 1] to ``o`` values; smooth of every order.

    Complex form (the paper's, Eq. 4): ``psi(z) = exp(i omega z - |s z|^2)``, with complex weights
    in all hidden layers but the first; the real part of the last layer is the value. A complex
    number is a pair of reals, real parts before imaginary parts, because every leaf of a field is
    real: the product of a complex vector and matrix is then one real product of twice the size.

    Real form (as in the authors' program): ``psi(a, b) = cos(omega a) exp(-(s b)^2)``, with two
    linear maps a and b in a layer.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        real: bool = False,
        width: int = 128,
        depth: int = 3,
        omega: float = 10.0,
        s: float = 10.0,
        rngs: nnx.Rngs,
    ) -> None:
        """Draw the weights, uniform within +-1/sqrt(n).

        Args:
            d_in: Number of coordinates.
            d_out: Number of values.
            real: Real wavelets in place of complex ones.
            width: Wavelets of a hidden layer; a complex one gives two numbers.
            depth: Number of hidden (wavelet) layers.
            omega: Frequency of the wavelet. Static.
            s: Inverse width of the wavelet. Static.
            rngs: Where the weights come from.

        Raises:
            ValueError: If ``depth`` or ``width`` is below 1, or ``omega`` or ``s`` not positive.
        """
        if omega <= 0 or s <= 0:
            raise ValueError(f"omega={omega}, s={s}, expected positive numbers such as 10")
        layer_sizes(d_in, d_out, width, depth)
        self.real, self.omega, self.s = real, omega, s
        if real:
            self.first = _linear(d_in, 2 * width, rngs)
            self.hidden = nnx.List(_linear(width, 2 * width, rngs) for _ in range(depth - 1))
            self.last = _linear(width, d_out, rngs)
        else:
            self.first = _linear(d_in, width, rngs)
            self.hidden = nnx.List(_ComplexLinear(width, rngs) for _ in range(depth - 1))
            self.last = _linear(2 * width, d_out, rngs)

    def __call__(self, x: Float[Array, "*s i"]) -> Float[Array, "*s o"]:
        """Values at ``x``; every leading axis is a batch axis."""
        wavelet = self._real_wavelet if self.real else self._complex_wavelet
        y = self.first(x)
        x = wavelet(y if self.real else jnp.concatenate([y, jnp.zeros_like(y)], -1))
        for layer in self.hidden:
            x = wavelet(layer(x))
        return self.last(x)

    def _complex_wavelet(self, z: Array) -> Array:
        u, v = jnp.split(z, 2, axis=-1)
        size = jnp.exp(-self.omega * v - self.s**2 * (u * u + v * v))
        return jnp.concatenate([size * cos(self.omega * u), size * sin(self.omega * u)], -1)

    def _real_wavelet(self, z: Array) -> Array:
        a, b = jnp.split(z, 2, axis=-1)
        return cos(self.omega * a) * jnp.exp(-jnp.square(self.s * b))


class _ComplexLinear(nnx.Module):
    """Complex linear map of ``w`` numbers to as many, each number a pair of reals."""

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        draw, n = symmetric(width**-0.5), width
        self.re = nnx.Param(draw(rngs.params(), (n, n)))
        self.im = nnx.Param(draw(rngs.params(), (n, n)))
        self.bias = nnx.Param(draw(rngs.params(), (2 * n,)))

    def __call__(self, z: Float[Array, "*s w2"]) -> Float[Array, "*s w2"]:
        re, im = self.re[...], self.im[...]
        matrix = jnp.block([[re, im], [-im, re]])
        return z @ matrix + self.bias[...].reshape((1,) * (z.ndim - 1) + (-1,))


def _linear(i: int, o: int, rngs: nnx.Rngs) -> nnx.Linear:
    draw = symmetric(i**-0.5)
    return nnx.Linear(i, o, kernel_init=draw, bias_init=draw, rngs=rngs)
