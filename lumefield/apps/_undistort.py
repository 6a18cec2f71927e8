"""Undistortion of OpenCV and fisheye photos to pinhole photos of the same size.

The focal length grows by as little as leaves no empty pixel at the border (as OpenCV's alpha = 0).

The map goes from the pinhole pixel to the photo's pixel, so only the forward distortion is needed:
OpenCV documentation, "Camera Calibration and 3D Reconstruction" (rational radial + tangential) and
"Fisheye camera model" (Kannala and Brandt 2006, polynomial in the angle). Letters: (x, y)
normalised pinhole coordinates, r their radius, t = atan(r).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FloatArray = NDArray[np.float64]
_Radius = Callable[[_FloatArray], _FloatArray]


def distort(xy: _FloatArray, model: str, distortion: _FloatArray) -> _FloatArray:
    """Where the lens puts the pinhole directions ``xy``.

    Args:
        xy: (..., 2) normalised pinhole coordinates (x / z, y / z).
        model: ``pinhole``, ``opencv`` or ``fisheye``.
        distortion: (8,) numbers in the order of ``PosedImages.distortion``.

    Returns:
        (..., 2) normalised distorted coordinates: pixel = focal * result + centre. NaN where the
        model has no unique answer: beyond the radius where it folds back.

    Raises:
        ValueError: If the model is not known.
    """
    if model == "pinhole":
        return xy.copy()
    x, y = xy[..., 0], xy[..., 1]
    r = np.hypot(x, y)
    d = distortion
    if model == "fisheye":
        t = np.arctan(r)
        bent = _fisheye_radius(t, d)
        scale = np.where(r > 1e-9, bent / np.maximum(r, 1e-9), 1.0)
        out = xy * scale[..., None]
        limit = _fold(np.linspace(0.0, np.pi / 2, 2000), lambda s: _fisheye_radius(s, d))
        return np.where((t <= limit)[..., None], out, np.nan)
    if model != "opencv":
        raise ValueError(f"camera model {model!r}, expected pinhole, opencv or fisheye")
    k1, k2, p1, p2, k3, k4, k5, k6 = d
    r2 = r * r
    with np.errstate(divide="ignore", invalid="ignore"):
        radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        u = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        v = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    far = max(float(r.max(initial=0.0)), 1e-6)
    limit = _fold(np.linspace(0.0, far, 2000), lambda s: _radial_radius(s, d))
    return np.where((r <= limit)[..., None], np.stack([u, v], axis=-1), np.nan)


def _fisheye_radius(t: _FloatArray, d: _FloatArray) -> _FloatArray:
    t2 = t * t
    return t * (1 + t2 * (d[0] + t2 * (d[1] + t2 * (d[2] + t2 * d[3]))))


def _radial_radius(r: _FloatArray, d: _FloatArray) -> _FloatArray:
    r2 = r * r
    over = 1 + r2 * (d[0] + r2 * (d[1] + r2 * d[4]))
    with np.errstate(divide="ignore", invalid="ignore"):
        return r * over / (1 + r2 * (d[5] + r2 * (d[6] + r2 * d[7])))


def _fold(s: _FloatArray, radius: _Radius) -> float:
    """The largest of the samples ``s`` up to which the radius still grows."""
    falls = np.flatnonzero(~(np.diff(radius(s)) > 0))
    return float(s[falls[0]]) if len(falls) else float("inf")


@dataclass(frozen=True)
class Remap:
    """A precomputed bilinear look-up of one photo size; every array has one entry per pixel."""

    index: NDArray[np.int32]
    """(4, P) flat source pixels: top left, top right, bottom left, bottom right."""
    weight: NDArray[np.float32]
    """(4, P, 1) bilinear weights; all 0 where the photo does not reach."""
    valid: NDArray[np.bool_]
    """(H, W) whether the photo reaches the pixel."""

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resample an (H, W, 4) image; pixels beyond the photo become 0."""
        height, width = self.valid.shape
        packed = np.ascontiguousarray(image).view(np.uint32).reshape(-1)
        total = np.full((height * width, 4), 0.5, np.float32)
        for index, weight in zip(self.index, self.weight, strict=True):
            total += packed[index].view(np.uint8).reshape(-1, 4) * weight
        return total.astype(np.uint8).reshape(height, width, 4)


def is_pinhole(model: str, distortion: _FloatArray) -> bool:
    """Whether there is nothing to undistort."""
    return model == "pinhole" or (model == "opencv" and not np.any(distortion))


def pinhole_focal(
    size: tuple[int, int],
    focal: _FloatArray,
    centre: _FloatArray,
    model: str,
    distortion: _FloatArray,
) -> _FloatArray:
    """Focal length of the undistorted photo: the smallest, from the lens's own on, without a hole.

    A photo that would need more than twice its focal length keeps its own, and has empty pixels.

    Args:
        size: Width and height of photo and result, pixels.
        focal: (2,) pixels, of the photo.
        centre: (2,) pixels, of photo and result.
        model: ``pinhole``, ``opencv`` or ``fisheye``.
        distortion: (8,) as in ``PosedImages.distortion``.

    Returns:
        (2,) pixels.
    """
    if is_pinhole(model, distortion):
        return focal
    width, height = size
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    sides = [(x, x * 0 + v) for v in (0.5, height - 0.5)]
    sides += [(y * 0 + v, y) for v in (0.5, width - 0.5)]
    border = np.concatenate([np.stack(side, -1) for side in sides]) - centre

    def whole(zoom: float) -> bool:
        s = distort(border / (focal * zoom), model, distortion) * focal + centre - 0.5
        return bool(np.all(_inside(s, width, height)))

    if whole(1.0) or not whole(2.0):
        return focal
    low, high = 1.0, 2.0
    while high - low > 1e-5:
        middle = (low + high) / 2
        low, high = (low, middle) if whole(middle) else (middle, high)
    return focal * high


def _inside(s: _FloatArray, width: int, height: int) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return np.all((s >= -0.5) & (s <= np.array([width, height]) - 0.5), axis=-1)


def undistortion(
    size: tuple[int, int],
    focal: _FloatArray,
    centre: _FloatArray,
    model: str,
    distortion: _FloatArray,
    pinhole: _FloatArray | None = None,
) -> Remap | None:
    """The look-up that turns a distorted photo into a pinhole one; None if there is nothing to do.

    Args:
        size: Width and height, of photo and result, in pixels.
        focal: (2,) pixels, of the photo.
        centre: (2,) pixels, of photo and result; (0, 0) is the corner of the first pixel.
        model: ``pinhole``, ``opencv`` or ``fisheye``.
        distortion: (8,) as in ``PosedImages.distortion``.
        pinhole: (2,) focal length of the result, pixels; that of the photo when None.
    """
    if is_pinhole(model, distortion):
        return None
    width, height = size
    u, v = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    xy = (np.stack([u, v], axis=-1) - centre) / (focal if pinhole is None else pinhole)
    # From pixel corners to sample positions: the first pixel's centre is 0.
    s = distort(xy, model, distortion) * focal + centre - 0.5
    limit = np.array([width, height], np.float64)
    valid = _inside(s, width, height)
    s = np.clip(np.where(valid[..., None], s, 0.0), 0.0, limit - 1).reshape(-1, 2)
    low = np.minimum(np.floor(s), np.maximum(limit - 2, 0)).astype(np.int32)
    fx, fy = (s - low).T.astype(np.float32)
    x0, y0 = low.T
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    index = np.stack([y0 * width + x0, y0 * width + x1, y1 * width + x0, y1 * width + x1])
    weight = np.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy])
    weight *= valid.reshape(-1)
    return Remap(index.astype(np.int32), weight[..., None], valid)
