"""Contraction of unbounded space into a ball of radius 2.

Barron et al., "Mip-NeRF 360: Unbounded Anti-Aliased Neural Radiance Fields", 2022, Eq. 9-10.
Letters: r = |x|, u = x / r. Inside the unit ball nothing changes; outside, the radius is 2 - 1/r.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


def contract(x: Array) -> Float[Array, "*s 3"]:
    """Map all of space into the ball of radius 2: (2 - 1/r) u where r > 1, Eq. 10.

    Continuous with its first derivative; differentiable everywhere, finite for |x| up to 1e18.

    Args:
        x: (*s, 3) points; the unit ball is the part of the scene to be seen in full detail.

    Returns:
        (*s, 3) points of norm < 2 (up to rounding). Divide by 2 for a field on [-1, 1]^3.

    Raises:
        ValueError: If the last axis is not 3.

    Example:
        >>> contract(jnp.array([4.0, 0.0, 0.0]))[0]
        Array(1.75, dtype=float32)
    """
    _check("x", x)
    inverse = _inverse_norm(x)
    return x * (inverse * (2 - inverse))


def uncontract(y: Array) -> Float[Array, "*s 3"]:
    """The inverse of ``contract``: y / (|y| (2 - |y|)) where |y| > 1.

    Args:
        y: (*s, 3) points of norm < 2; from 2 on they go to a distance of about 1e6.

    Raises:
        ValueError: If the last axis is not 3.
    """
    _check("y", y)
    norm2 = jnp.sum(y * y, -1, keepdims=True)
    norm = jnp.sqrt(jnp.maximum(norm2, 1))
    return y / (norm * jnp.maximum(2 - norm, 1e-6))


def contract_gaussians(
    mean: Array, cov: Array
) -> tuple[Float[Array, "*s 3"], Float[Array, "*s 3 3"]]:
    r"""Contract Gaussians by the linearisation at their mean, Eq. 9: f(mean), J cov J^T.

    J = a I + (b - a) u u^T with a = (2 r - 1) / r^2 across and b = 1 / r^2 along the radius: no
    3x3 products are needed. Differentiable in both.

    Args:
        mean: (*s, 3).
        cov: (*s, 3, 3), symmetric.

    Raises:
        ValueError: If the shapes do not fit.
    """
    _check("mean", mean)
    if cov.shape != (*mean.shape, 3):
        raise ValueError(
            f"cov has shape {cov.shape}, expected {(*mean.shape, 3)}, that of mean x 3"
        )
    inverse = _inverse_norm(mean)
    u = mean * inverse
    across = inverse * (2 - inverse)
    bend = jnp.where(inverse < 1, inverse * inverse - across, 0.0)
    v = jnp.sum(cov * u[..., None, :], -1)
    s = jnp.sum(u * v, -1, keepdims=True)
    cross = across * bend
    uv = (cross * u)[..., :, None] * v[..., None, :]
    uu = (bend * bend * s * u)[..., :, None] * u[..., None, :]
    squeezed = (across * across)[..., None] * cov + uv + jnp.swapaxes(uv, -1, -2) + uu
    return mean * across, squeezed


def _inverse_norm(x: Array) -> Array:
    """(*s, 1) of 1 / max(|x|, 1), with a finite derivative at 0."""
    return 1 / jnp.sqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), 1))


def _check(name: str, x: Array) -> None:
    if x.ndim < 1 or x.shape[-1] != 3:
        raise ValueError(f"{name} has shape {x.shape}, expected (*s, 3): points")
