"""Photo files: headers, EXIF, decoding at the training size, masks. One photo at a time, 8 bit.

A photo is decoded to an (H, W, 4) array: sRGB and one more channel, which holds the photo's own
alpha, or its mask, or 255.
"""

import math
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

READ_ERRORS = (OSError, ValueError, SyntaxError, EOFError, MemoryError)
"""What Pillow raises on damaged files; PIL.UnidentifiedImageError is an OSError."""
_ORIENTATION, _MAKE, _MODEL, _TAKEN = 0x0112, 0x010F, 0x0110, 0x9003
_FOCAL, _FOCAL_35, _EXIF_IFD = 0x920A, 0xA405, 0x8769
_PLANE_X, _PLANE_UNIT, _EXIF_WIDTH = 0xA20E, 0xA210, 0xA002
_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}


@dataclass(frozen=True)
class PhotoInfo:
    """What a photo's header says."""

    path: Path
    size: tuple[int, int]
    """Width and height as stored, pixels."""
    orientation: int
    """EXIF orientation, 1 to 8; 5 to 8 swap width and height."""
    focal: float
    """Focal length in pixels from EXIF, or 0 where EXIF does not tell."""
    camera: str
    """Maker and model of the camera, or empty."""
    taken: str
    """EXIF time the photo was taken at, or empty."""

    @property
    def upright(self) -> tuple[int, int]:
        """Width and height after the EXIF orientation is applied."""
        w, h = self.size
        return (h, w) if self.orientation >= 5 else (w, h)


@contextmanager
def quietly() -> Generator[None]:
    """Hold back Pillow's warnings (large photos, odd EXIF). Not for use inside a thread."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _open(path: Path) -> "Image.Image":
    """Open a photo lazily; large photos are fine, only absurd ones raise."""
    from PIL import Image

    if path.suffix.lower() in (".heic", ".heif"):
        import pillow_heif

        pillow_heif.register_heif_opener()
    try:
        return Image.open(path)
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error


def read_info(path: Path) -> PhotoInfo:
    """Read a photo's header.

    Raises:
        OSError: If the file is not a photo (or any other of READ_ERRORS).
    """
    with quietly(), _open(path) as image:
        size = (int(image.width), int(image.height))
        exif = image.getexif()
        more = exif.get_ifd(_EXIF_IFD)
        orientation = exif.get(_ORIENTATION, 1)
    if orientation not in range(1, 9):
        orientation = 1
    camera = " ".join(str(exif.get(tag, "")).strip("\0 ") for tag in (_MAKE, _MODEL)).strip()
    return PhotoInfo(
        path=path,
        size=size,
        orientation=int(orientation),
        focal=_focal_pixels(more, size),
        camera=camera,
        taken=str(more.get(_TAKEN, "")),
    )


def _number(value: object) -> float:
    try:
        number = float(cast(Any, value))
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return number if math.isfinite(number) else 0.0


def _focal_pixels(exif: Mapping[int, Any], size: tuple[int, int]) -> float:
    """Focal length in pixels, from the sensor's pixel pitch or the 35 mm equivalent; 0 if unknown.

    The 35 mm equivalent refers to the diagonal, 43.27 mm (CIPA DCG-001).
    """
    pitch = _number(exif.get(_PLANE_X))  # pixels of the original per unit
    unit = _MM_PER_UNIT.get(int(_number(exif.get(_PLANE_UNIT))), 25.4)
    millimetres = _number(exif.get(_FOCAL))
    original = _number(exif.get(_EXIF_WIDTH)) or max(size)
    candidates = [
        _number(exif.get(_FOCAL_35)) * math.hypot(*size) / 43.27,
        millimetres * pitch / unit * max(size) / original,
    ]
    for focal in candidates:
        if 0.3 * max(size) < focal < 20 * max(size):
            return focal
    return 0.0


def _eight_bit(image: "Image.Image") -> "Image.Image":
    """RGB, or RGBa (premultiplied) where the photo has transparency."""
    from PIL import Image

    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        values = np.asarray(image, np.float64)
        values = values / 257.0 if values.max(initial=0.0) > 255.5 else values
        image = Image.fromarray(np.clip(values + 0.5, 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return image.convert("RGBA").convert("RGBa")
    return image.convert("RGB")


def decode(
    info: PhotoInfo, size: tuple[int, int], *, upright: bool, premultiplied: bool = False
) -> tuple[NDArray[np.uint8], bool]:
    """Decode a photo and average it down to ``size``.

    Args:
        info: The photo.
        size: Width and height of the result, pixels.
        upright: Whether to apply the EXIF orientation.
        premultiplied: Whether colours come multiplied by alpha (over black), or plain.

    Returns:
        (height, width, 4) sRGB and alpha, and whether any pixel is not opaque.

    Raises:
        OSError: If the file is damaged (or any other of READ_ERRORS).
    """
    from PIL import Image

    width, height = size if not (upright and info.orientation >= 5) else size[::-1]
    with _open(info.path) as opened:
        # JPEG decodes fast at 1/2, 1/4, 1/8; at three times the size nothing visible is lost.
        opened.draft("RGB", (3 * width, 3 * height))
        image = _eight_bit(opened)
    alpha = image.mode == "RGBa" and bool(np.asarray(image.getchannel("a")).min() < 255)
    if image.size != (width, height):
        whole = image.width % width == 0 and image.height % height == 0
        if whole and image.width // width == image.height // height:
            image = image.reduce(image.width // width)
        else:
            image = image.resize((width, height), Image.Resampling.BOX)
    if image.mode == "RGBa" and not (premultiplied and alpha):
        image = image.convert("RGBA")
    if upright and info.orientation != 1:
        image = _turn(image, info.orientation)
    pixels = np.asarray(image)
    if pixels.shape[2] == 3:
        opaque = np.full((*pixels.shape[:2], 1), 255, np.uint8)
        pixels = np.concatenate([pixels, opaque], axis=2)
    return np.ascontiguousarray(pixels), alpha


def _turn(image: "Image.Image", orientation: int) -> "Image.Image":
    """Apply an EXIF orientation of 2 to 8 (Exif 2.32, tag 0x0112)."""
    from PIL import Image

    method = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }[orientation]
    return image.transpose(method)


def decode_mask(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Read a mask file (white = counts; alpha counts when the file has one), averaged to ``size``.

    Raises:
        OSError: If the file is damaged (or any other of READ_ERRORS).
    """
    from PIL import Image

    with _open(path) as image:
        mask = image.getchannel("A") if image.mode in ("RGBA", "LA") else image.convert("L")
        if mask.getextrema()[0] == 255:
            mask = image.convert("L")
        if mask.getextrema() == (0, 1):  # some tools write 0 and 1
            mask = mask.point(lambda v: 255 * v)
        return np.asarray(mask.resize(size, Image.Resampling.BOX), np.uint8)


def find_masks(photos: Sequence[Path], root: Path) -> list[Path | None]:
    """The mask file of each photo, or None.

    Looked for, with ``NAME`` the photo's name without suffix: ``masks/NAME.png``,
    ``masks/NAME.jpg.png`` (COLMAP's custom) and ``masks/NAME_mask.png`` beside the photo's folder
    or in ``root``, and ``NAME_mask.png`` beside the photo.
    """
    found: list[Path | None] = []
    for photo in photos:
        names = [f"{photo.stem}.png", f"{photo.name}.png", f"{photo.stem}_mask.png"]
        folders = [root / "masks", photo.parent.parent / "masks", photo.parent / "masks"]
        candidates = [folder / name for folder in folders for name in names]
        candidates.append(photo.parent / f"{photo.stem}_mask.png")
        found.append(next((c for c in candidates if c.is_file()), None))
    return found


def without_masks(photos: Sequence[Path]) -> list[Path]:
    """Leave out files named ``NAME_mask.png`` whose photo ``NAME.*`` is in the list too."""
    stems = {p.stem for p in photos}
    return [p for p in photos if not (p.stem.endswith("_mask") and p.stem[:-5] in stems)]
