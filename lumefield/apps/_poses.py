"""Cameras that are adjusted while training."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from lumefield import render
from lumefield.apps._capture_type import Capture
from lumefield.apps._frame import WorldFrame
from lumefield.render.volume import pose_preconditioner

_POINTS = 1024
"""Points that precondition a camera, about."""


def refined_pose(
    world_from_cam: Float[Array, "3 4"], twist: Float[Array, " 6"]
) -> Float[Array, "3 4"]:
    """The camera moved by a small twist in its own frame."""
    delta = render.se3_exp(twist)
    r = world_from_cam[:, :3]
    return jnp.concatenate([r @ delta[:3, :3], r @ delta[:3, 3:] + world_from_cam[:, 3:]], -1)


def preconditioners(photos: Capture, frame: WorldFrame) -> Float[Array, "n 6 6"]:
    """Matrices that make twists of the training photos from numbers worth about a pixel each.

    From the sparse points; where there are none, from points spread over the unit ball's cube.
    See ``pose_preconditioner`` (CamP).
    """
    points = frame.inward_points(photos.points)
    if not len(points):
        points = np.random.default_rng(0).uniform(-1, 1, (_POINTS, 3))
    which = list(photos.train)
    cameras = render.Cameras(
        world_from_cam=jnp.asarray(frame.inward(photos.world_from_cam[which]), jnp.float32),
        focal=jnp.asarray(photos.focal[which], jnp.float32),
        centre=jnp.asarray(photos.centre[which], jnp.float32),
        height=photos.height,
        width=photos.width,
    )
    some = points[:: max(1, len(points) // _POINTS)].astype(np.float32)
    return jax.jit(pose_preconditioner)(cameras, jnp.asarray(some))
