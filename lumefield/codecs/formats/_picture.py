"""Pictures of any depth: 8 bit through Pillow, 16 bit and float through the FFmpeg in PyAV.

PNG, JPEG, WebP, TIFF and BMP hold display-sRGB values; OpenEXR (.exr) and Radiance (.hdr) hold
scene-linear light. Channels are grey, grey and alpha, RGB, or RGB and alpha (1 to 4).
"""

import warnings
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.formats._files import reading, replacing
from lumefield.errors import FormatError, InputError

LINEAR_SUFFIXES = (".exr", ".hdr")
"""Suffixes of files that hold scene-linear light."""
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", *LINEAR_SUFFIXES)
"""Suffixes of pictures that can be read, in lower case."""
WRITTEN_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp", *LINEAR_SUFFIXES)
"""Suffixes of pictures that can be written, in lower case."""
_MAX_PIXELS = 1 << 28
_DEEP = (".png", ".tif", ".tiff")
_BITS_PER_SAMPLE = 258
"""Tag of a TIFF file."""


@dataclass(frozen=True)
class Picture:
    """A picture in memory."""

    values: NDArray[np.float32]
    """[H, W, C], C from 1 to 4; display sRGB in [0, 1], or linear light. Alpha is straight."""
    bits: int
    """Bits per channel of the file: 8, 16 or 32 (float)."""
    linear: bool
    """Whether the values are scene-linear light rather than display sRGB."""


def load_picture(path: Path) -> Picture:
    """Read a picture with the depth its file has; the EXIF orientation is applied.

    Alpha that is 1 everywhere is left out.

    Raises:
        InputError: If the file cannot be opened, or its suffix is not one of a picture.
        FormatError: If it is empty, damaged, too large, or holds NaN or infinity.
    """
    suffix = path.suffix.lower()
    if suffix not in PICTURE_SUFFIXES:
        raise InputError(f"{path}: not a picture; expected one of {' '.join(PICTURE_SUFFIXES)}")
    with reading(path) as file:
        head = file.read(32)
    if not head:
        raise FormatError(f"{path}: an empty file, expected a picture; copy it again")
    linear = suffix in LINEAR_SUFFIXES
    try:
        deep = linear or (suffix in _DEEP and _is_deep(path, head))
        values, bits = _with_ffmpeg(path) if deep else _with_pillow(path)
    except Exception as error:  # Pillow and FFmpeg raise many kinds on damaged files
        raise FormatError(
            f"{path}: cannot be read as a picture ({_line(error)}); expected an intact "
            f"{suffix[1:].upper()} file"
        ) from None
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).any(axis=-1).sum())
        raise FormatError(
            f"{path}: {bad} of {values.shape[0] * values.shape[1]} pixels are NaN or infinite, "
            "expected finite values; repair the picture first"
        )
    if values.shape[-1] in (2, 4) and (values[..., -1] == 1).all():
        values = values[..., :-1]
    return Picture(np.ascontiguousarray(values, np.float32), bits, linear)


def save_picture(path: Path, values: NDArray[Any], *, bits: int = 8) -> None:
    """Write a picture whole or not at all, in the format that the suffix names.

    Args:
        path: Ends in one of ``WRITTEN_SUFFIXES``. EXR keeps float32; HDR shares an exponent.
        values: [H, W, C], C from 1 to 4. Display sRGB in [0, 1] (clipped and rounded), or linear
            light for EXR and HDR.
        bits: 8 or 16; 16 is for PNG and TIFF.

    Raises:
        InputError: If the suffix is unknown, the channels or bits do not fit it, or the folder
            cannot be written.
    """
    suffix, channels = path.suffix.lower(), values.shape[-1]
    if suffix not in WRITTEN_SUFFIXES:
        raise InputError(f"{path}: cannot be written; expected one of {' '.join(WRITTEN_SUFFIXES)}")
    if suffix in (".jpg", ".jpeg", ".hdr") and channels in (2, 4):
        raise InputError(f"{path}: has no alpha channel; write a PNG, TIFF or EXR instead")
    if suffix in LINEAR_SUFFIXES:
        if channels == 2:
            values = np.concatenate([np.repeat(values[..., :1], 3, -1), values[..., 1:]], -1)
        if channels == 1 and suffix == ".hdr":
            values = np.repeat(values, 3, -1)
        data = _encoded(suffix, values.astype(np.float32))
    elif bits == 16 and suffix in _DEEP:
        if channels == 2:
            values = np.concatenate([np.repeat(values[..., :1], 3, -1), values[..., 1:]], -1)
        data = _encoded(suffix, (np.clip(values, 0, 1) * 65535 + 0.5).astype(np.uint16))
    else:
        data = _pillow_bytes(suffix, (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8))
    with replacing(path) as file:
        file.write(data)


def _is_deep(path: Path, head: bytes) -> bool:
    """Whether a PNG or TIFF has more than 8 bits per channel."""
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return head[24] == 16
    if head[:4] not in (b"II*\0", b"MM\0*"):
        return False
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path) as image:
                depths = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))
                return bool(image.mode != "F" and np.max(depths) == 16)
        except (OSError, ValueError, SyntaxError):  # more than Pillow reads
            return True


def _with_pillow(path: Path) -> tuple[NDArray[np.float32], int]:
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
    alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    grey = image.mode in ("1", "L", "LA", "La", "I", "F", "I;16")
    if image.mode == "F":
        return np.asarray(image, np.float32)[..., None], 32
    image = image.convert(("L" if grey else "RGB") + ("A" if alpha else ""))
    pixels = np.asarray(image, np.float32) / np.float32(255)
    return pixels if pixels.ndim == 3 else pixels[..., None], 8


def _with_ffmpeg(path: Path) -> tuple[NDArray[np.float32], int]:
    import av
    from av import logging

    logging.set_level(logging.PANIC)
    with av.open(str(path)) as container:
        frame = next(iter(container.decode(video=0)), None)
    if frame is None:
        raise ValueError("it holds no picture")
    if frame.width * frame.height > _MAX_PIXELS:
        raise ValueError(f"{frame.width}x{frame.height} pixels are too many")
    name = frame.format.name
    if "f16" in name or "f32" in name:
        return _planes(frame, np.float16 if "f16" in name else np.float32), 32
    if name.startswith(("rgb48", "rgba64", "gray16")):
        values = frame.to_ndarray().astype(np.float32) / np.float32(65535)
        return values if values.ndim == 3 else values[..., None], 16
    if name.startswith("ya16"):
        frame, alpha = frame.reformat(format="rgba64le"), True
    else:
        alpha = "a" in name and not name.startswith("gray")
        frame = frame.reformat(format="rgba64le" if alpha else "rgb48le")
    return frame.to_ndarray().astype(np.float32) / np.float32(65535), 16


def _planes(frame: Any, kind: type[Any]) -> NDArray[np.float32]:  # noqa: ANN401
    """Float planes as [H, W, C]; FFmpeg stores them as G, B, R, A."""
    size = np.dtype(kind).itemsize
    planes = [
        np.frombuffer(plane, kind).reshape(-1, plane.line_size // size)[
            : frame.height, : frame.width
        ]
        for plane in frame.planes
    ]
    order = [2, 0, 1, 3][: len(planes)] if len(planes) >= 3 else range(len(planes))
    return np.stack([planes[k] for k in order], -1).astype(np.float32)


def _encoded(suffix: str, values: NDArray[Any]) -> bytes:
    """The bytes of an EXR, HDR, or 16-bit PNG or TIFF file."""
    import av

    channels = values.shape[-1]
    if values.dtype == np.float32:
        stored = given = {1: "grayf32le", 3: "gbrpf32le", 4: "gbrapf32le"}[channels]
    else:
        given = {1: "gray16le", 3: "rgb48le", 4: "rgba64le"}[channels]
        stored = given.replace("le", "be") if suffix == ".png" else given
    codec = {".exr": "exr", ".hdr": "hdr", ".png": "png"}.get(suffix, "tiff")
    context: Any = av.CodecContext.create(codec, "w")
    context.height, context.width = values.shape[:2]
    context.pix_fmt, context.time_base = stored, Fraction(1, 1)
    array = np.ascontiguousarray(values if channels > 1 else values[..., 0])
    frame = av.VideoFrame.from_ndarray(array, format=given)
    if stored != given:
        frame = frame.reformat(format=stored)
    packets = [*context.encode(frame), *context.encode(None)]
    return b"".join(bytes(packet) for packet in packets)


def _pillow_bytes(suffix: str, pixels: NDArray[np.uint8]) -> bytes:
    import io

    from PIL import Image

    kinds = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".png": "PNG"}
    options: dict[str, Any] = {
        "JPEG": {"quality": 95, "subsampling": 0},
        "WEBP": {"lossless": True},
    }.get(kinds.get(suffix, ""), {})
    buffer = io.BytesIO()
    image = Image.fromarray(pixels if pixels.shape[-1] > 1 else pixels[..., 0])
    image.save(buffer, kinds.get(suffix, "TIFF"), **options)
    return buffer.getvalue()


def _line(error: BaseException) -> str:
    text = str(error).splitlines()
    return text[0] if text else type(error).__name__
