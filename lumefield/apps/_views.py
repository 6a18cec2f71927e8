"""Views: named pinhole cameras as plain NumPy, as runs store and camera paths make them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lumefield.errors import RunError

if TYPE_CHECKING:
    from lumefield.apps._capture_type import Capture
    from lumefield.render import Cameras


@dataclass(frozen=True)
class Views:
    """``n`` pinhole views in one world frame; OpenCV camera axes, pixel corners at integers."""

    names: tuple[str, ...]
    """File names of the photos, or frame numbers of a path."""
    world_from_cam: NDArray[np.float64]
    """(n, 3, 4) poses, world units."""
    focal: NDArray[np.float64]
    """(n, 2) fx, fy in pixels."""
    centre: NDArray[np.float64]
    """(n, 2) cx, cy in pixels."""
    size: NDArray[np.int64]
    """(n, 2) width, height in pixels."""
    held_out: tuple[bool, ...]
    """Whether a view was kept from training."""

    def __len__(self) -> int:
        """Number of views."""
        return len(self.names)

    def pick(self, indices: NDArray[np.intp] | list[int]) -> Views:
        """The views at ``indices``, in that order."""
        at = [int(i) for i in indices]
        return Views(
            names=tuple(self.names[i] for i in at),
            world_from_cam=self.world_from_cam[at],
            focal=self.focal[at],
            centre=self.centre[at],
            size=self.size[at],
            held_out=tuple(self.held_out[i] for i in at),
        )

    def test(self) -> Views:
        """The held-out views."""
        return self.pick([i for i, held in enumerate(self.held_out) if held])

    def resized(self, width: int, height: int) -> Views:
        """The same poses on ``width`` x ``height`` pixels; nothing that was in view is lost."""
        factor = np.minimum(width / self.size[:, :1], height / self.size[:, 1:])
        offset = self.centre - self.size / 2
        return Views(
            names=self.names,
            world_from_cam=self.world_from_cam,
            focal=self.focal * factor,
            centre=np.array([width, height]) / 2 + offset * factor,
            size=np.broadcast_to(np.array([width, height]), (len(self), 2)).copy(),
            held_out=self.held_out,
        )


def load_views(path: Path) -> Views:
    """Read the ``capture/cameras.json`` of a run.

    Raises:
        RunError: If the file is absent, is not JSON, or a camera in it is incomplete.
    """
    try:
        record = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path}: not found; train the run again to write its cameras") from None
    except (ValueError, OSError) as error:
        raise RunError(f"{path}: cannot be read as JSON ({error}); train the run again") from None
    cameras: list[Any] = record.get("cameras", []) if isinstance(record, dict) else []
    if not cameras:
        raise RunError(f"{path}: holds no cameras; train the run again to write them")
    try:
        views = Views(
            names=tuple(str(c["name"]) for c in cameras),
            world_from_cam=np.array([c["world_from_cam"] for c in cameras], np.float64)[:, :3],
            focal=np.array([c["focal"] for c in cameras], np.float64),
            centre=np.array([c["centre"] for c in cameras], np.float64),
            size=np.array([[c["width"], c["height"]] for c in cameras], np.int64),
            held_out=tuple(bool(c.get("held_out", False)) for c in cameras),
        )
        wanted = ((views.world_from_cam, (3, 4)), (views.focal, (2,)), (views.centre, (2,)))
        for value, shape in wanted:
            if value.shape != (len(cameras), *shape) or not np.isfinite(value).all():
                raise ValueError(f"shape {value.shape[1:]}, expected finite {shape}")
        if (views.size < 1).any() or (views.focal <= 0).any():
            raise ValueError("a size or focal length is not positive")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{path}: a camera is damaged ({error}); train the run again") from None
    return views


def camera_at(views: Views, k: int = 0) -> Cameras:
    """View ``k`` as the renderer wants it."""
    import jax.numpy as jnp

    from lumefield.render import Cameras

    return Cameras.from_pinhole(
        jnp.asarray(views.world_from_cam[k], jnp.float32),
        jnp.asarray(views.focal[k], jnp.float32),
        jnp.asarray(views.centre[k], jnp.float32),
        width=int(views.size[k, 0]),
        height=int(views.size[k, 1]),
    )


def capture_views(photos: Capture) -> Views:
    """The cameras of a capture."""
    held = set(photos.held_out)
    return Views(
        names=photos.names,
        world_from_cam=photos.world_from_cam,
        focal=photos.focal,
        centre=photos.centre,
        size=photos.sizes,
        held_out=tuple(i in held for i in range(len(photos.names))),
    )
