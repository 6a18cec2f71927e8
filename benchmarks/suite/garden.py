"""The scene of the kernel workloads: a real point cloud as Gaussians, seen by a real camera.

The points of gsplat's garden file with 3DGS sizes (mean distance to the 3 nearest neighbours)
times lognormal(0.5) per axis, random rotations, logit opacity N(-0.5, 2) and degree-3 spherical
harmonics, seen by the file's first camera in 16:9. About half of the Gaussians are in view.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import scipy.spatial

from benchmarks.suite.metrics import ROOT

SIZES = {"270p": (270, 480), "540p": (540, 960), "1080p": (1080, 1920)}
"""Height and width by name."""

_FILE_SIZE = (420, 648)
_CUT = 1 / 255
_SH_C0 = 0.28209479177387814


@dataclass(frozen=True)
class Garden:
    """Gaussians before activation and one pinhole camera, all float32."""

    means: np.ndarray
    """(N, 3), world units."""
    quats_wxyz: np.ndarray
    """(N, 4), any length."""
    log_scales: np.ndarray
    """(N, 3), natural logarithm of world units."""
    logit_opacities: np.ndarray
    """(N,)."""
    sh: np.ndarray
    """(N, 16, 3)."""
    cam_from_world: np.ndarray
    """(4, 4), OpenCV axes."""
    focal: np.ndarray
    """(2,) pixels."""
    centre: np.ndarray
    """(2,) pixels."""
    height: int
    width: int

    @property
    def world_from_cam(self) -> np.ndarray:
        """(3, 4) pose of the camera, float32."""
        return np.linalg.inv(self.cam_from_world.astype(np.float64))[:3].astype(np.float32)


def path() -> Path:
    """The garden file in the folder that ``LUMEFIELD_DATA`` names (default ``../shared/data``)."""
    data = Path(os.environ.get("LUMEFIELD_DATA", ROOT.parent / "shared" / "data"))
    return data / "scenes" / "garden_npz" / "test_garden.npz"


def make(n: int, size: str = "540p", *, seed: int = 0) -> Garden:
    """The first camera's view of ``n`` Gaussians; beyond the file's points, of jittered clones.

    Args:
        n: Number of Gaussians.
        size: One of ``SIZES``.
        seed: Of every random choice.

    Raises:
        FileNotFoundError: If the garden file is not there.
    """
    if not path().exists():
        raise FileNotFoundError(f"no {path()}; set LUMEFIELD_DATA to the folder of the test data")
    with np.load(path()) as file:
        data: dict[str, Any] = {k: file[k] for k in ("means3d", "colors", "viewmats", "Ks")}
    rng = np.random.default_rng(seed)
    points = np.asarray(data["means3d"], np.float64)
    chosen = rng.choice(len(points), n, replace=n > len(points))
    means = points[chosen]
    if n > len(points):
        means = means + 0.7 * _spacing(points)[chosen, None] * rng.normal(size=(n, 3))
    gap = np.maximum(_spacing(means), 1e-7)
    gap = np.minimum(gap, np.quantile(gap, 0.99))
    log_scales = np.log(gap)[:, None] + 0.5 * rng.normal(size=(n, 3))
    quats = rng.normal(size=(n, 4))
    logits = 2 * rng.normal(size=n) - 0.5
    sh = np.empty((n, 16, 3))
    sh[:, 0] = (data["colors"][chosen] / 255 - 0.5) / _SH_C0
    sh[:, 1:] = 0.05 * rng.normal(size=(n, 15, 3))

    height, width = SIZES[size]
    zoom = width / _FILE_SIZE[1]
    k = np.asarray(data["Ks"][0], np.float64) * zoom
    crop = np.array([0, (_FILE_SIZE[0] * zoom - height) / 2])  # rows cut off at the top
    arrays = (means, quats, log_scales, logits, sh, data["viewmats"][0])
    pinhole = (k[[0, 1], [0, 1]], k[:2, 2] - crop)
    floats = (np.ascontiguousarray(a, np.float32) for a in (*arrays, *pinhole))
    return Garden(*floats, height=height, width=width)


class Sized(Protocol):
    """A scene with an image size."""

    @property
    def height(self) -> int: ...  # noqa: D102
    @property
    def width(self) -> int: ...  # noqa: D102


def visible(opacities: np.ndarray, xy: np.ndarray, factor: np.ndarray, scene: Sized) -> np.ndarray:
    """Which projected Gaussians reach the image: opacity at least 1/255 and extent inside it.

    The extent is that of sigma = log(255 opacity); sigma = ((u dx + v dy)^2 + (w dy)^2) / 2.
    """
    reach = np.sqrt(2 * np.log(np.maximum(255 * opacities.astype(np.float64), 1)))
    u, v, w = factor.astype(np.float64).T
    half = np.stack([reach * np.hypot(v, w) / (u * w), reach / w], -1)
    inside = (xy + half > 0) & (xy - half < np.array([scene.width, scene.height]))
    return (opacities >= _CUT) & inside.all(-1)


def _spacing(points: np.ndarray) -> np.ndarray:
    """Mean distance of each point to its three nearest neighbours."""
    spatial: Any = scipy.spatial
    tree = spatial.cKDTree(points)
    return np.asarray(tree.query(points, k=4)[0])[:, 1:].mean(-1)
