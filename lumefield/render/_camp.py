"""Preconditioners for the refinement of camera poses.

Park et al., "CamP: Camera Preconditioning for Neural Radiance Fields", 2023, Eq. 7-9. We differ in
the parameters (only the pose, as a twist in the camera's own frame) and in the mean over points in
place of their sum, so that a unit step of a preconditioned parameter moves points by about a pixel.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from lumefield.render._cameras import Cameras


def pose_preconditioner(
    camera: Cameras, points: Array, *, damping: float = 0.1, near: float = 1e-3
) -> Float[Array, "*b 6 6"]:
    r"""Matrix P such that the twist P z moves the projections of points evenly in all six z.

    P = (S + damping diag(S) + 1e-8 m I)^(-1/2), symmetric, with S = J^T J / number of points,
    J the derivative of pixels by the twist (rho, phi) of ``se3_exp``, pose <- pose exp(twist), m
    the mean of the diagonal of S. With damping 0 the columns of J P / sqrt(points) are orthonormal.

    Refine z from 0, with one learning rate in pixels, instead of the twist.

    Args:
        camera: One camera, or many with leading axes ``*b``.
        points: (P, 3) world points, or (*b, P, 3) for each camera its own; those not in
            front of it do not count. Points of the scene, or spread over the frustum.
        damping: Share of the diagonal that is added; larger is closer to a scaling per parameter.
        near: Points at Z <= near do not count (except for "ortho").

    Returns:
        (*b, 6, 6); the identity where no point counts.

    Raises:
        ValueError: If the shapes do not fit.
    """
    batch = camera.focal.shape[:-1]
    if points.shape[-1:] != (3,) or points.ndim < 2 or points.shape[:-2] not in ((), batch):
        raise ValueError(
            f"points has shape {points.shape}, expected (P, 3) or {(*batch, 'P', 3)}: world points"
        )
    own = points.ndim > 2

    def one(camera: Cameras, points: Array) -> Array:
        return _preconditioner(camera, points, damping, near)

    for _ in batch:
        one = jax.vmap(one, (0, 0 if own else None))
    return one(camera, points)


def _pixel(x: Array, camera: Cameras) -> Array:
    """(2,) pixel of a point (3,) in camera coordinates, up to the principal point."""
    xy, z = x[:2], x[2]
    if camera.model == "ortho":
        return camera.focal * xy
    if camera.model == "fisheye":
        r = jnp.sqrt(jnp.sum(xy * xy) + 1e-12 * z * z)  # smooth on the axis
        return camera.focal * xy * (jnp.arctan2(r, z) / r)
    return camera.focal * xy / z


def _preconditioner(camera: Cameras, points: Array, damping: float, near: float) -> Array:
    cam = jnp.matmul(
        points - camera.world_from_cam[None, :, 3],
        camera.world_from_cam[:, :3],
        precision="highest",
    )
    ok = (cam[:, 2] > near) | (camera.model == "ortho")
    safe = jnp.where(ok[:, None], cam, jnp.ones((1, 3), cam.dtype))

    def pixel(x: Array) -> Array:
        return _pixel(x, camera)

    by_point = jax.vmap(jax.jacfwd(pixel))(safe)
    # pose exp(twist): the point moves by -rho - phi x X in the camera's frame
    eye = jnp.broadcast_to(-jnp.eye(3, dtype=cam.dtype), (*by_point.shape[:1], 3, 3))
    x, y, z = safe[:, 0], safe[:, 1], safe[:, 2]
    o = jnp.zeros_like(x)
    cross = jnp.stack(
        [jnp.stack(r, -1) for r in ([o, -z, y], [z, o, -x], [-y, x, o])], -2
    )  # X x phi = -(phi x X)
    jacobian = jnp.matmul(by_point, jnp.concatenate([eye, cross], -1), precision="highest")
    jacobian = jnp.where(ok[:, None, None], jacobian, 0.0)
    count = jnp.sum(ok.astype(cam.dtype))
    s = jnp.einsum("pij,pik->jk", jacobian, jacobian, precision="highest")
    s = s / jnp.maximum(count, 1)
    diagonal = jnp.diagonal(s)
    floor = jnp.where(count > 0, 1e-8 * jnp.mean(diagonal), 1.0)
    damped = s + jnp.diag(damping * diagonal + floor)
    value, vector = jnp.linalg.eigh(damped)
    value = jnp.maximum(value, jnp.max(value) * jnp.finfo(s.dtype).eps)
    return jnp.matmul(vector / jnp.sqrt(value)[None], vector.T, precision="highest")
