"""Rays: one for each pixel of a camera."""

import typing

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jaxtyping import Float

from lumefield.render._cameras import Cameras


@typing.no_type_check
@struct.dataclass
class Rays:
    """Half lines in the world; any leading axes ``*b`` are batch axes."""

    origin: Float[Array, "*b 3"]
    """World units."""
    direction: Float[Array, "*b 3"]
    """Unit length, so that distances along a ray are in world units."""


def camera_rays(camera: Cameras, pixels: Array | None = None) -> Rays:
    """Rays through pixels; the inverse of the projection of splats. Differentiable in the camera.

    A fisheye ray outside the half space in front (theta > pi/2) points backwards, as the
    equidistant model says; nothing is masked.

    Args:
        camera: One camera, or many with leading axes ``*b``.
        pixels: (*p, 2) coordinates (x, y), the same for all cameras; (0.5, 0.5) is the centre of
            the first pixel. All pixel centres, (H, W, 2), when None.

    Returns:
        Rays with leading axes ``(*b, *p)``.

    Raises:
        ValueError: If ``pixels`` does not end in an axis of 2.

    Example:
        >>> camera = Cameras.from_pinhole(
        ...     jnp.eye(3, 4), jnp.array([8.0, 8.0]), jnp.array([4.0, 3.0]), height=6, width=8)
        >>> camera_rays(camera).direction.shape
        (6, 8, 3)
    """
    if pixels is None:
        x, y = jnp.meshgrid(jnp.arange(camera.width), jnp.arange(camera.height))
        pixels = jnp.stack([x, y], -1).astype(camera.focal.dtype) + 0.5
    if pixels.ndim < 1 or pixels.shape[-1] != 2:
        raise ValueError(f"pixels has shape {pixels.shape}, expected (*p, 2), x first")
    flat = pixels.astype(camera.focal.dtype).reshape(-1, 2)

    def one(camera: Cameras) -> Rays:
        return _rays(camera, flat)

    for _ in camera.focal.shape[:-1]:
        one = jax.vmap(one)
    shape = (*camera.focal.shape[:-1], *pixels.shape[:-1], 3)
    rays = one(camera)
    return Rays(origin=rays.origin.reshape(shape), direction=rays.direction.reshape(shape))


def _rays(camera: Cameras, pixels: Array) -> Rays:
    """(P, 3) rays of one camera through (P, 2) pixels."""
    rotation, position = camera.world_from_cam[:, :3], camera.world_from_cam[:, 3]
    xy = (pixels - camera.centre[None]) / camera.focal[None]
    zero, one = jnp.zeros_like(xy[:, :1]), jnp.ones_like(xy[:, :1])
    local = jnp.zeros_like(xy[:, :1])
    if camera.model == "ortho":
        local, axis = jnp.concatenate([xy, zero], -1), jnp.concatenate([zero, zero, one], -1)
    elif camera.model == "fisheye":
        r2 = jnp.sum(xy * xy, -1, keepdims=True)  # theta = r; sin(r) / r is smooth at 0
        r = jnp.sqrt(jnp.where(r2 > 1e-12, r2, one))
        sinc = jnp.where(r2 > 1e-12, jnp.sin(r) / r, 1 - r2 / 6)
        cosine = jnp.where(r2 > 1e-12, jnp.cos(r), 1 - r2 / 2)
        axis = jnp.concatenate([xy * sinc, cosine], -1)
    else:
        axis = jnp.concatenate([xy, one], -1)
        axis = axis / jnp.linalg.norm(axis, axis=-1, keepdims=True)

    def turn(v: Array) -> Array:
        return jnp.matmul(v, rotation.T, precision="highest")

    origin = jnp.broadcast_to(position[None], (pixels.shape[0], 3))
    if camera.model == "ortho":
        origin = origin + turn(local)
    return Rays(origin=origin, direction=turn(axis))
