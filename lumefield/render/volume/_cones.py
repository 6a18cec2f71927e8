"""Conical frustums of rays as Gaussians.

Barron et al., "Mip-NeRF: A Multiscale Representation for Anti-Aliasing Neural Radiance Fields",
2021. Letters: m middle and h half width of an interval of t, r radius of the cone at t = 1.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


def cone_gaussians(
    origin: Array, direction: Array, t_edges: Array, radius: Array
) -> tuple[Float[Array, "s r 3"], Float[Array, "s r 3 3"]]:
    """Mean and covariance of the points of a cone between consecutive edges.

    Eq. 7-8 in the form that stays stable for thin intervals far away; Eq. 16 for the covariance in
    space. Differentiable in all arguments.

    Args:
        origin: (R, 3) in world units.
        direction: (R, 3); t is measured in its length (1 in ``camera_rays``).
        t_edges: (S+1, R), increasing along the first axis, >= 0.
        radius: (R,) of the cone at t = 1. For a pixel of a pinhole camera 2 / sqrt(12) / focal has
            the variance of the pixel's square.

    Returns:
        (S, R, 3) means and (S, R, 3, 3) covariances.

    Raises:
        ValueError: If the shapes do not fit.
    """
    rays = origin.shape[:1]
    if origin.shape != (*rays, 3) or direction.shape != origin.shape:
        raise ValueError(
            f"origin has shape {origin.shape}, direction {direction.shape}, expected (R, 3) both"
        )
    if t_edges.ndim != 2 or t_edges.shape[1:] != rays or radius.shape != rays:
        raise ValueError(
            f"t_edges has shape {t_edges.shape}, radius {radius.shape}, expected "
            f"(S+1, {rays[0]}) and {rays}; samples first, rays second"
        )
    m, h = (t_edges[1:] + t_edges[:-1]) / 2, (t_edges[1:] - t_edges[:-1]) / 2
    m2, h2 = m * m, h * h
    below = 1 / jnp.maximum(3 * m2 + h2, jnp.finfo(m.dtype).tiny)
    ratio = h2 * below
    t_mean = m + 2 * m * ratio
    t_var = h2 / 3 - (4 / 15) * ratio * ratio * (12 * m2 - h2)
    r_var = (radius * radius)[None] * (m2 / 4 + (5 / 12) * h2 - (4 / 15) * h2 * ratio)

    outer = direction[:, :, None] * direction[:, None, :]
    length2 = jnp.sum(direction * direction, -1)[:, None, None]
    across = jnp.eye(3, dtype=origin.dtype)[None] - outer / length2
    mean = origin[None] + t_mean[..., None] * direction[None]
    cov = t_var[..., None, None] * outer[None] + r_var[..., None, None] * across[None]
    return mean, cov
