"""Cameras: one or many calibrated views, as plain arrays.

Letters: X, Y, Z are camera coordinates (OpenCV: x right, y down, z forward), (x, y) pixels with
the corner of the first pixel at (0, 0), so that its centre is (0.5, 0.5).
"""

import dataclasses
import typing
from typing import Literal

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

Model = Literal["pinhole", "ortho", "fisheye"]
"""Projections that splats and rays know; lens distortion is removed when photos are loaded."""


@typing.no_type_check
@struct.dataclass
class Cameras:
    """One or many cameras: any leading axes ``*b`` are batch axes."""

    world_from_cam: Float[Array, "*b 3 4"]
    """Pose, OpenCV axes (x right, y down, z forward); world units."""
    focal: Float[Array, "*b 2"]
    """(fx, fy) in pixels; for ``ortho`` in pixels per world unit."""
    centre: Float[Array, "*b 2"]
    """Principal point (cx, cy) in pixels; (0, 0) is the corner of the first pixel."""
    height: int = struct.field(pytree_node=False)
    width: int = struct.field(pytree_node=False)
    model: str = struct.field(pytree_node=False, default="pinhole")

    @classmethod
    def from_pinhole(
        cls,
        world_from_cam: Float[Array, "*b 3 4"],
        focal: Float[Array, "*b 2"],
        centre: Float[Array, "*b 2"],
        *,
        height: int,
        width: int,
        model: Model = "pinhole",
    ) -> "Cameras":
        """Build cameras after checking shapes.

        Raises:
            ValueError: If the last axes or the leading axes do not fit, or a size is not positive.
        """
        if world_from_cam.shape[-2:] != (3, 4):
            raise ValueError(
                f"world_from_cam has shape {world_from_cam.shape}, expected (*b, 3, 4); "
                "drop the last row of a 4x4 matrix"
            )
        b = world_from_cam.shape[:-2]
        for name, v in (("focal", focal), ("centre", centre)):
            if v.shape != (*b, 2):
                raise ValueError(
                    f"{name} has shape {v.shape}, expected {(*b, 2)}; broadcast it over the cameras"
                )
        if height < 1 or width < 1:
            raise ValueError(f"height={height}, width={width}, expected at least one pixel")
        if model not in typing.get_args(Model):
            raise ValueError(f"model={model!r}, expected one of {typing.get_args(Model)}")
        return cls(
            world_from_cam=jnp.asarray(world_from_cam),
            focal=jnp.asarray(focal),
            centre=jnp.asarray(centre),
            height=height,
            width=width,
            model=model,
        )

    def __getitem__(self, index: typing.Any) -> "Cameras":  # noqa: ANN401
        """Index or slice the batch axes."""
        return dataclasses.replace(
            self,
            world_from_cam=self.world_from_cam[index],
            focal=self.focal[index],
            centre=self.centre[index],
        )

    def scaled(self, factor: float, *, height: int, width: int) -> "Cameras":
        """The same views with ``factor`` times the pixels per axis, on a new image size."""
        return dataclasses.replace(
            self,
            focal=self.focal * factor,
            centre=self.centre * factor,
            height=height,
            width=width,
        )

    def cam_from_world(self) -> Float[Array, "*b 3 4"]:
        """The inverse pose: rotation R and translation t with X_cam = R X_world + t."""
        r = jnp.swapaxes(self.world_from_cam[..., :3], -1, -2)
        t = -jnp.einsum("...ij,...j->...i", r, self.world_from_cam[..., 3])
        return jnp.concatenate([r, t[..., None]], -1)
