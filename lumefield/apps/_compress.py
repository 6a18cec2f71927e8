"""``lumefield compress``: a picture, a video or a scene to a ``.lume`` file."""

import dataclasses
import json
import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray

from lumefield.apps._compress_network import OURS, check_method, compress_by_network
from lumefield.apps._compress_scene import check_scene, compress_scene, is_scene
from lumefield.apps._compress_video import check_video, compress_film
from lumefield.errors import InputError

if TYPE_CHECKING:
    from lumefield.apps._progress import StepBar
    from lumefield.codecs.formats import Picture as Photo
    from lumefield.codecs.neural import Picture
    from lumefield.codecs.overfit import Goal

BT601 = (1, 13, 6)
"""H.273 code points of 4:2:0: sRGB primaries and transfer, the matrix of BT.601."""
LAMBDA = 1e-3
"""Exchange rate when nothing is asked for: about 34 to 38 dB for photos."""
_LIMITS = {
    "psnr": (10.0, 70.0),
    "bytes": (100.0, 2.0**31),
    "lambda_": (1e-6, 1.0),
    "psnr_loss": (0.01, 10.0),
}


@dataclass(frozen=True)
class Compress:
    """Compress a picture, a video or a scene, to bytes that decode alike everywhere."""

    input: tyro.conf.Positional[Path]
    """Picture (PNG, JPEG, WebP, TIFF, EXR or HDR; 8 or 16 bit, grey or colour, alpha or not) or
    video (MP4, MOV, MKV, WebM ...; coded in 8 bits 4:2:0, its sound copied), or scene: the folder
    of a run, or a splat file (.ply .spz .sog ...)."""
    out: Path
    """File to write, ending in .lume; it has been decoded and compared when it is there."""
    method: str = OURS
    """This package's codec, or a network of the literature. Pictures: coin, coin++, strumpler;
    videos: nerv, e-nerv, ps-nerv, hnerv, hinerv. They take --bytes; see docs/families.md."""
    effort: Literal["fast", "standard", "best"] = "standard"
    """How long to fit: about 1, 5 or 20 minutes for a 512 x 768 picture on two cores."""
    psnr: float | None = None
    """Wanted quality in dB; pictures hit it within 0.05 dB, videos about (0.8 dB)."""
    bytes: float | None = None
    """Wanted size of the file; pictures hit it within 2 %, videos about (20 %)."""
    psnr_loss: float | None = None
    """Scene: dB that its held-out views may lose; 0.3 when nothing is asked for."""
    lambda_: Annotated[float | None, tyro.conf.arg(name="lambda")] = None
    """Squared error worth one bit per pixel; smaller is better and larger. Default 0.001."""
    chroma: Literal["444", "420"] = "444"
    """Picture: 420 keeps colour at half the size, in Y'CbCr as JPEGs and videos do (8 bits)."""
    roi: Path | None = None
    """Picture of the same size: where it is white, errors count eleven times as much."""
    gop: int = 32
    """Video: frames of a group; a player can begin at any."""
    low_delay: bool = False
    """Video: predict from earlier frames only, so that no frame waits for a later one."""
    jobs: int = 1
    """Video: groups fitted at a time, each by a process of its own."""
    frames: str | None = None
    """Video: FIRST:LAST, the frames to take; the last is not among them."""
    size: str | None = None
    """Video: COLUMNSxROWS to resize to."""
    audio: bool = True
    """Video: keep the sound, as it is."""
    seed: int = 0
    """Same seed, same machine, same file."""
    overwrite: bool = False
    """Replace --out if it exists."""
    threads: int | None = None
    """Threads to use; all cores when not given."""


def compress(settings: Compress) -> Path:
    """Fit, code, verify and write; prints size and quality.

    Raises:
        InputError: If the input or an option cannot be used; an existing file is left as it is.
        FormatError: If the input is damaged.
    """
    from lumefield.apps._video import VIDEO_SUFFIXES

    _check(settings)
    is_film = settings.input.suffix.lower() in VIDEO_SUFFIXES
    scene = not is_film and is_scene(settings.input)
    check_method(settings, "video" if is_film else "scene" if scene else "image")
    if settings.chroma == "420" and (is_film or scene or settings.method != OURS):
        raise InputError(
            "--chroma 420 is for pictures with this package's codec, and videos have it anyway; "
            "leave it out"
        )
    if is_film:
        check_video(settings)
    if scene:
        check_scene(settings)
        return compress_scene(settings)
    if settings.psnr_loss is not None:
        raise InputError("--psnr-loss is for scenes; give --psnr for a picture or video")
    if settings.method != OURS:
        return compress_by_network(settings)
    if is_film:
        return compress_film(settings)
    from lumefield.apps._progress import Say, StepBar
    from lumefield.codecs.formats import load_picture, replacing
    from lumefield.codecs.overfit import EFFORTS, compress_picture

    photo = load_picture(settings.input)
    pixels, picture, metadata = integers_of(photo)
    picture = _subsampled(picture, settings) if settings.chroma == "420" else picture
    weight = _weight(settings.roi, pixels.shape[:2])
    effort, begun = EFFORTS[settings.effort], time.monotonic()
    with StepBar("compress", effort.steps, 0) as bar:
        found = compress_picture(
            pixels,
            picture,
            goal=_goal(settings),
            effort=effort,
            weight=weight,
            name=settings.input.name,
            metadata=metadata,
            seed=settings.seed,
            progress=partial(_show, bar),
        )
    with replacing(settings.out) as file:
        file.write(found.data)
    Say().line(
        f"{settings.out}: {len(found.data):,} bytes, {found.bits_per_pixel:.4f} bpp, "
        f"{found.psnr:.2f} dB, lambda {found.lambda_:.3g}, {time.monotonic() - begun:.0f} s; "
        "decoded and compared"
    )
    return settings.out


def _subsampled(picture: "Picture", settings: Compress) -> "Picture":
    """The header of the same picture in 4:2:0."""
    if picture.channels != 3 or picture.bits != 8:
        raise InputError(
            f"--chroma 420: {settings.input} has {picture.channels} channels of {picture.bits} "
            "bits, expected 3 of 8; leave it out"
        )
    return dataclasses.replace(picture, subsampled=True, colour=BT601, full_range=False)


def _check(settings: Compress) -> None:
    if settings.out.suffix.lower() != ".lume":
        raise InputError(f"--out {settings.out}: expected a name that ends in .lume")
    if settings.out.exists() and not settings.overwrite:
        raise InputError(f"{settings.out}: exists already; give --overwrite or another --out")
    there = next(folder for folder in settings.out.absolute().parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):  # said before minutes of fitting
        raise InputError(f"--out {settings.out}: {there} cannot be written to; choose a folder")
    asked = [name for name in _LIMITS if getattr(settings, name) is not None]
    if len(asked) > 1:
        flags = " and ".join("--" + name.strip("_").replace("_", "-") for name in asked)
        raise InputError(f"{flags} exclude each other; give one of them")
    for name in asked:
        low, high = _LIMITS[name]
        if not low <= getattr(settings, name) <= high:
            flag = "--" + name.strip("_").replace("_", "-")
            raise InputError(f"{flag} {getattr(settings, name):g}, expected {low:g} to {high:g}")


def _goal(settings: Compress) -> "Goal":
    from lumefield.codecs.overfit import Goal

    if settings.psnr is not None:
        return Goal("psnr", settings.psnr)
    if settings.bytes is not None:
        return Goal("bits", 8 * settings.bytes)
    return Goal("lambda", settings.lambda_ or LAMBDA)


def _show(bar: "StepBar", done: int, total: int, psnr: float, bpp: float) -> None:
    bar.update(done, f"{psnr:.2f} dB  {bpp:.3f} bpp", total)


def integers_of(photo: "Photo") -> tuple[NDArray[np.unsignedinteger[Any]], Any, bytes]:
    """Pixels as integers, what they mean, and metadata: linear light goes through a logarithm."""
    from lumefield.codecs.neural import Picture

    rows, columns, channels = photo.values.shape
    bits = 8 if photo.bits == 8 else 16
    values, facts = photo.values.astype(np.float64), {}
    if photo.linear:
        peak = float(max(values[..., :3].max(), 1e-6))
        values = np.log1p(np.maximum(values, 0) * (_LOG_GAIN / peak)) / np.log1p(_LOG_GAIN)
        facts = {"linear_peak": peak}
    pixels = np.rint(np.clip(values, 0, 1) * (2**bits - 1))
    picture = Picture(rows, columns, channels, bits)
    metadata = json.dumps(facts).encode() if facts else b""
    return pixels.astype(np.uint8 if bits == 8 else np.uint16), picture, metadata


_LOG_GAIN = 4095.0
"""Linear light v of peak p is coded as log(1 + 4095 v / p) / log 4096."""


def linear_light(values: NDArray[np.float64], peak: float) -> NDArray[np.float64]:
    """The inverse of the logarithm that linear light is coded through."""
    return np.expm1(values * np.log1p(_LOG_GAIN)) * (peak / _LOG_GAIN)


def _weight(path: Path | None, size: tuple[int, ...]) -> NDArray[np.float32] | None:
    if path is None:
        return None
    from lumefield.codecs.formats import load_picture

    mask = load_picture(path).values[..., :3].mean(-1)
    if mask.shape != tuple(size):
        raise InputError(
            f"--roi {path}: is {mask.shape[1]} x {mask.shape[0]}, expected {size[1]} x {size[0]} "
            "as the input"
        )
    return (1.0 + 10.0 * mask).astype(np.float32)
