"""``lumefield decompress``: the picture, video or scene of a ``.lume`` file."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from lumefield.apps._compress_scene import decompress_scene
from lumefield.apps._decompress_video import decompress_film, write_planes
from lumefield.errors import FormatError, InputError


@dataclass(frozen=True)
class Decompress:
    """Decode a .lume file; the pixels are the same on every machine."""

    input: tyro.conf.Positional[Path]
    """The .lume file."""
    out: Path
    """Picture to write: .png, .tif, .jpg, .webp, .exr and .hdr for linear light, or .y4m for the
    planes of one compressed with --chroma 420. Video: .mp4
    (H.264, near lossless), .mkv (FFV1, lossless) or .y4m (raw), or a folder for PNGs. Gaussians:
    a splat file (.ply .spz .sog ...). Radiance field: a folder, which is a SCENE then."""
    frames: str | None = None
    """Video: FIRST:LAST, the frames to write; only the groups that hold them are decoded."""
    overwrite: bool = False
    """Replace --out if it exists."""
    backend: str = "auto"
    """Decoder: auto, native, xla or twin (NumPy, slow). All give the same pixels."""
    threads: int | None = None
    """Threads to use; all cores when not given."""


def decompress(settings: Decompress) -> Path:
    """Decode and write.

    Raises:
        InputError: If a path or option cannot be used.
        FormatError: If the file is damaged or not of this format.
    """
    if settings.backend not in ("auto", "native", "xla", "twin"):
        raise InputError(
            f"--backend {settings.backend}: expected auto, native, xla or twin; leave it out"
        )
    if settings.out.exists() and not settings.overwrite:
        raise InputError(f"{settings.out}: exists already; give --overwrite or another --out")
    from lumefield.apps._compress import linear_light
    from lumefield.apps._progress import Say
    from lumefield.codecs.formats import save_picture
    from lumefield.codecs.neural import Container, decode_image, pixels_of

    data = settings.input.read_bytes()
    holds = Container.holds(data)
    if holds == "video":
        return decompress_film(settings, data)
    if holds == "splats":
        return decompress_scene(settings, data)
    if holds == "field":
        from lumefield.apps._compress_field import decompress_field

        return decompress_field(settings, data)
    if settings.frames is not None:
        raise InputError(f"--frames: {settings.input} is not a video; leave it out")
    planes, container = decode_image(data, settings.backend, source=str(settings.input))
    picture = container.picture
    assert picture is not None
    if settings.out.suffix.lower() == ".y4m":
        return write_planes(settings, planes, picture)
    values = pixels_of(planes, picture).astype(np.float64) / (2**picture.bits - 1)
    peak = _peak(container.metadata())
    if peak is not None and settings.out.suffix.lower() not in (".exr", ".hdr"):
        raise InputError(
            f"--out {settings.out}: {settings.input} holds linear light; write .exr or .hdr"
        )
    if peak is not None:
        values = linear_light(values, peak)
    save_picture(settings.out, values, bits=16 if picture.bits > 8 else 8)
    Say().line(
        f"{settings.out}: {picture.columns} x {picture.rows}, {picture.channels} channels, "
        f"{picture.bits} bits, from {len(data):,} bytes"
    )
    return settings.out


def _peak(facts: dict[str, Any]) -> float | None:
    """Brightest linear light of the file, or None where its values are display colours."""
    if "linear_peak" not in facts:
        return None
    peak = facts["linear_peak"]
    if not isinstance(peak, int | float) or not 0 < peak < math.inf:
        raise FormatError(
            f"linear_peak is {peak!r}, expected a positive number; the file is damaged"
        )
    return float(peak)
