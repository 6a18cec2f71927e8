"""``lumefield compress --method``: a picture or video as a network of the literature."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lumefield.errors import InputError

if TYPE_CHECKING:
    from lumefield.apps._compress import Compress
    from lumefield.codecs.families import Family, Fitted
    from lumefield.codecs.neural import Picture

OURS = "lumefield"
BITS_PER_PIXEL = {"image": 0.2, "video": 0.1}
"""Size when nothing is asked for."""
_A = {"image": "a picture", "video": "a video", "scene": "a scene"}


def check_method(settings: "Compress", content: str) -> None:
    """Complain about what does not fit the method before minutes of fitting.

    Args:
        settings: Of the command.
        content: "image", "video" or "scene": what the input is.

    Raises:
        InputError: If the method is unknown or cannot do what is asked.
    """
    from lumefield.codecs.families import METHODS

    if settings.method == OURS:
        return
    family = METHODS.get(settings.method)
    if family is None:
        raise InputError(
            f"--method {settings.method}: expected {OURS} or one of {', '.join(METHODS)}"
        )
    if family.content != content:
        fitting = [name for name, other in METHODS.items() if other.content == content]
        others = f"one of {', '.join(fitting)}, or leave it out" if fitting else "no --method"
        raise InputError(
            f"--method {settings.method} is for {_A[family.content]}, {settings.input} is "
            f"{_A[content]}; give {others}"
        )
    for flag in ("psnr", "lambda_", "roi"):
        if getattr(settings, flag) is not None:
            raise InputError(
                f"--{flag.strip('_')} with --method {settings.method}: the size of a network "
                "decides; give --bytes"
            )


def compress_by_network(settings: "Compress") -> Path:
    """Fit, code, verify and write by the family that ``--method`` names.

    Raises:
        InputError: If the input cannot be used.
    """
    from lumefield.apps._progress import Say, StepBar
    from lumefield.codecs.families import EFFORTS, METHODS, compress_network
    from lumefield.codecs.formats import replacing

    family, begun = METHODS[settings.method], time.monotonic()
    frames, picture, metadata, sound = _read(settings, family)
    size = (
        settings.bytes
        or picture.rows * picture.columns * picture.frames / 8 * (BITS_PER_PIXEL[family.content])
    )
    effort = EFFORTS[settings.effort]
    steps = max(1, round(family.recipe.steps * effort))
    with StepBar("compress", steps + round(steps * family.recipe.finish), 0) as bar:
        found = compress_network(
            frames,
            picture,
            family,
            size,
            effort=effort,
            name=settings.input.name,
            metadata=metadata,
            audio=sound,
            seed=settings.seed,
            progress=lambda done, _, psnr: bar.update(done, f"{psnr:.2f} dB"),
        )
    with replacing(settings.out) as file:
        file.write(found.data)
    Say().line(_told(settings, found, time.monotonic() - begun))
    return settings.out


def _read(settings: "Compress", family: "Family") -> "tuple[list[Any], Picture, bytes, bytes]":
    """Planes of all frames, header, metadata and sound."""
    if family.content == "image":
        from lumefield.apps._compress import integers_of
        from lumefield.codecs.formats import load_picture

        pixels, picture, metadata = integers_of(load_picture(settings.input))
        planes = tuple(np.ascontiguousarray(pixels[..., c]) for c in range(pixels.shape[-1]))
        return [planes], picture, metadata, b""
    from lumefield.apps._compress_video import read_source

    frames, picture, sound = read_source(settings)
    return list(frames), picture, b"", sound


def _told(settings: "Compress", found: "Fitted", seconds: float) -> str:
    return (
        f"{settings.out}: {settings.method}, {found.parameters:,} parameters, "
        f"{len(found.data):,} bytes, {found.bits_per_pixel:.4f} bpp, {found.psnr:.2f} dB "
        f"(before rounding {found.float_psnr:.2f}), {seconds:.0f} s; decoded and compared"
    )
