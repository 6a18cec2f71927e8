"""What the file formats exchange: plain NumPy records, so that reading a file never needs jax."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CAMERA_MODELS = ("pinhole", "opencv", "fisheye")


@dataclass(frozen=True)
class Splats:
    """Gaussians as files hold them: unconstrained values, 3DGS conventions, the file's own frame.

    ``N`` Gaussians, ``K`` = (degree + 1)^2 spherical-harmonics coefficients.
    """

    means: NDArray[np.float32]
    """(N, 3) centres, world units."""
    quats_wxyz: NDArray[np.float32]
    """(N, 4) rotations, w first, not necessarily of unit length."""
    log_scales: NDArray[np.float32]
    """(N, 3) natural logarithm of the standard deviations, world units."""
    logit_opacities: NDArray[np.float32]
    """(N,) opacity before the sigmoid."""
    sh: NDArray[np.float32]
    """(N, K, 3) coefficients, basis-major, rgb last; colour = max(0, 0.5 + sum) in display sRGB."""
    antialiased: bool = False
    """Whether the file was trained with the Mip-Splatting 2D filter."""
    comments: tuple[str, ...] = ()
    """Free text lines kept from the header."""
    up: tuple[float, float, float] | None = None
    """Direction against gravity in the frame of the arrays, where the file says it."""
    source: str = ""
    """What was read, in words: format, version, the frame it is stored in. Never written."""

    def taken(self, rows: NDArray[np.bool_] | NDArray[np.integer]) -> "Splats":
        """Only some Gaussians: a mask (N,) or indices, whose order is kept."""
        names = ("means", "quats_wxyz", "log_scales", "logit_opacities", "sh")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def cut(self, degree: int) -> "Splats":
        """View-dependent colour up to ``degree`` only; what is above is dropped."""
        return replace(self, sh=self.sh[:, : (degree + 1) ** 2])

    def moved(
        self,
        rotation: NDArray[np.floating],
        translation: NDArray[np.floating] | tuple[float, float, float] = (0.0, 0.0, 0.0),
        scale: float = 1.0,
    ) -> "Splats":
        """The same scene in another frame: x' = scale * rotation x + translation.

        Centres, orientations, sizes, view-dependent colours and ``up`` all move along.

        Args:
            rotation: (3, 3) new_from_old, orthonormal, determinant 1.
            translation: (3,) in units of the new frame.
            scale: New units per old unit, > 0.

        Raises:
            ValueError: If ``rotation`` is not a rotation, or ``scale`` is not positive.
        """
        from lumefield.codecs.formats._turn import moved

        return moved(self, rotation, translation, scale)


@dataclass(frozen=True)
class PosedImages:
    """Photos with cameras, as a camera file describes them. ``n`` images, OpenCV camera axes.

    OpenCV axes: x right, y down, z forward. Pixel (0, 0) has its centre at (0.5, 0.5).
    """

    paths: tuple[Path, ...]
    """Image files that exist, in name order."""
    world_from_cam: NDArray[np.float64]
    """(n, 3, 4) poses in the file's own world frame."""
    focal: NDArray[np.float64]
    """(n, 2) fx, fy in pixels of the size below."""
    centre: NDArray[np.float64]
    """(n, 2) cx, cy in pixels."""
    size: NDArray[np.int64]
    """(n, 2) width, height that the intrinsics refer to."""
    model: tuple[str, ...]
    """One of CAMERA_MODELS per image."""
    distortion: NDArray[np.float64]
    """(n, 8): opencv = k1 k2 p1 p2 k3 k4 k5 k6 (OpenCV order); fisheye = k1 k2 k3 k4 0 0 0 0."""
    points: NDArray[np.float64]
    """(p, 3) sparse points in the same frame; p may be 0."""
    colours: NDArray[np.uint8]
    """(p, 3) their sRGB colours."""
    masks: tuple[Path | None, ...] = ()
    """Mask file per image (white = counts), or empty when the file names none."""
    times: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """(n,) time stamps of a dynamic scene, or empty."""
    held_out: tuple[int, ...] | None = None
    """Indices the file names as test views; None when it names no split."""
    missing: int = 0
    """How many frames the file names whose image does not exist (they are left out)."""
    notes: tuple[str, ...] = ()
    """What a person should know: models found, transforms applied, frames left out."""
