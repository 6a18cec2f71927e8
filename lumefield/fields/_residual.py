"""A field with its derivatives by the coordinates, for residuals F(x, Φ, ∇Φ, ∇²Φ) = 0.

Xie et al., "Neural Fields in Visual Computing and Beyond", 2022, Eq. 3: many problems ask for a
field whose values and derivatives fulfil an equation (a signed distance has |∇Φ| = 1, a seamless
clone has the gradient of its source). Their residual is written with these functions and minimised
by :func:`lumefield.fit.fit` like any loss.

Letters: s points, i coordinates, o values. A field acts on each point by itself, so one reverse
pass over all points gives one row of every Jacobian. All derivatives are taken in reverse mode,
which hand-written rules (``jax.custom_vjp``) support too; d_out passes for the Jacobian, and d_in
further ones for the Hessian.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

PointField = Callable[[Float[Array, "*s i"]], Float[Array, "*s o"]]
"""A function of points that treats each of them by itself."""


def value_and_jacobian(
    field: PointField, x: Float[Array, "*s i"]
) -> tuple[Float[Array, "*s o"], Float[Array, "*s o i"]]:
    """Values Φ(x) and Jacobians ∂Φ_o/∂x_i, in units of the values per unit of the coordinates.

    Differentiable by the leaves of the field as often as the field itself.

    Args:
        field: Acts on each point by itself.
        x: Coordinates; every leading axis is a batch axis.
    """
    values, pull = jax.vjp(field, x)
    rows = [pull(_direction(values, o))[0] for o in range(values.shape[-1])]
    jacobian = jnp.stack(rows, -2) if rows else jnp.zeros((*x.shape[:-1], 0, x.shape[-1]), x.dtype)
    return values, jacobian


def hessian(field: PointField, x: Float[Array, "*s i"]) -> Float[Array, "*s o i i"]:
    """Second derivatives ∂²Φ_o/∂x_i∂x_j at each point, both orders computed.

    Args:
        field: Acts on each point by itself; twice differentiable in reverse mode.
        x: Coordinates; every leading axis is a batch axis.
    """

    def jacobian(points: Float[Array, "*s i"]) -> Float[Array, "*s oi"]:
        rows = value_and_jacobian(field, points)[1]
        return rows.reshape(*rows.shape[:-2], rows.shape[-2] * rows.shape[-1])

    second, d = value_and_jacobian(jacobian, x)[1], x.shape[-1]
    return second.reshape(*x.shape[:-1], second.shape[-2] // max(d, 1), d, d)


def laplacian(field: PointField, x: Float[Array, "*s i"]) -> Float[Array, "*s o"]:
    """The Laplacian Σ_i ∂²Φ_o/∂x_i² at each point.

    Args:
        field: Acts on each point by itself; twice differentiable in reverse mode.
        x: Coordinates; every leading axis is a batch axis.
    """
    return jnp.trace(hessian(field, x), axis1=-2, axis2=-1)


def _direction(values: Float[Array, "*s o"], o: int) -> Float[Array, "*s o"]:
    return jnp.zeros_like(values).at[..., o].set(1)
