"""The lambda that a size asks for, told from how WebP gets by with the same picture.

At the same size kodim05 and kodim23 need lambdas that differ by a factor of 19, and a fit that
begins far off is not steered back in time: one that began at a seventh ended 13 % too large.
"""

import io

import numpy as np
from PIL import Image

_QUALITIES = (0, 5, 20, 45, 75, 92, 100)
_SHARE = 0.55
"""Our lambda over WebP's slope at the same size: 0.27 to 0.97 for five photos of Kodak at 0.24 to 1
bit per pixel (``fast``), a factor that the servo can make up for. 3.3 for one at 0.16."""
_SIDE = 4096
"""Pixels along a side that are looked at, from the middle of the picture."""


def lambda_of_size(picture: np.ndarray, bits: float) -> float:
    """Lambda at which a fit takes about ``bits``.

    Args:
        picture: (c, h, w) in [0, 1]; its first three channels count.
        bits: Of the file.
    """
    wanted = np.log(max(bits, 1.0) / picture[0].size)
    shown = _as_image(picture)
    curve = np.array([_point(shown, quality) for quality in _QUALITIES])
    i = int(np.clip(np.searchsorted(curve[:, 0], wanted), 1, len(curve) - 1))
    (left, worse), (right, better) = curve[i - 1 : i + 1]
    # Near a line in logarithms, also beyond what WebP can do.
    slope = float(np.clip((worse - better) / max(right - left, 1e-3), 0.3, 3.0))
    error = worse - slope * (wanted - left)
    return float(np.clip(_SHARE * slope * np.exp(error - wanted), 1e-6, 1.0))


def _as_image(picture: np.ndarray) -> Image.Image:
    rows, columns = picture.shape[1:]
    top, left = max(0, rows - _SIDE) // 2, max(0, columns - _SIDE) // 2
    some = picture[:3, top : top + _SIDE, left : left + _SIDE]
    colours = some if len(some) == 3 else some[:1].repeat(3, 0)
    return Image.fromarray(np.rint(colours * 255).astype(np.uint8).transpose(1, 2, 0))


def _point(shown: Image.Image, quality: int) -> tuple[float, float]:
    """Logarithms of bits per pixel and squared error (full range is 1)."""
    file = io.BytesIO()
    shown.save(file, "WEBP", quality=quality, method=0)
    with Image.open(file) as image:
        decoded = np.asarray(image.convert("RGB"), np.float64)
    error = np.square(decoded - np.asarray(shown)).mean() / 255**2
    size = 8 * len(file.getvalue()) / (shown.width * shown.height)
    return float(np.log(size)), float(np.log(max(error, 1e-7)))
