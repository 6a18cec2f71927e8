"""A picture as a field (x, y) -> channels, of any size and depth.

The longer side spans [-1, 1], the shorter one as much as it is shorter; the centre of pixel (0, 0)
is half a pixel inside. A field draws values in [-1, 1]: twice the *encoded* value, minus one.

Display-sRGB pictures are encoded as they are. Scene-linear light (EXR, HDR) is fitted in a log-like
space, asinh(v / knee) / asinh(peak / knee), odd, linear far below the knee and logarithmic above;
``peak`` is the largest and ``knee`` the median magnitude of the picture. PSNR is that of encoded
values with peak 1, and of display pictures after rounding to the bits of the file. ``psnr_linear``
is that of linear light with the peak of the picture.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lumefield.apps._fit_settings import Fit
from lumefield.apps._signal import Exhibit, Problem, decibels, evaluate, parameters
from lumefield.apps._signal_plan import make_size
from lumefield.codecs.formats import Picture, load_picture, save_picture
from lumefield.errors import InputError, RunError

Floats = NDArray[np.float32]
MAX_SIDE = 32768
"""Longest side of a drawn picture, pixels."""
LINEAR = (".exr", ".hdr")
"""Suffixes of pictures of scene-linear light."""


def prepare(settings: Fit) -> Problem:
    """Make a picture ready to be fitted.

    Raises:
        InputError: If the file or the field cannot be used.
        FormatError: If the file is damaged.
    """
    picture = load_picture(settings.input)
    height, width, channels = picture.values.shape
    if min(height, width) < 2:
        raise InputError(f"{settings.input}: {width}x{height} pixels, expected at least 2x2")
    pixels, side = height * width, max(height, width)
    size = make_size(settings, "image", samples=pixels, side=side, d_in=2)
    facts = encoding_of(picture)
    target = 2 * encode(picture.values, facts) - 1
    seed = settings.seed

    def batches(first: int, count: int) -> Any:  # noqa: ANN401
        draws = [sample(target, size.batch, seed, step) for step in range(first, first + count)]
        return tuple(np.stack(part) for part in zip(*draws, strict=True))

    def finish(field: Any, folder: Path) -> tuple[dict[str, Any], list[Exhibit]]:  # noqa: ANN401
        return _finish(field, folder, picture, facts)

    kind = "scene-linear" if picture.linear else f"{picture.bits}-bit"
    return Problem(
        kind="image",
        d_in=2,
        d_out=channels,
        size=size,
        facts=facts,
        summary=f"{settings.input.name}: {width}x{height} pixels, {channels} channels, {kind}",
        notes=(),
        loss=picture_loss,
        batches=batches,
        unit="dB",
        result=main_file(facts),
        finish=finish,
    )


def picture_loss(
    field: Any,  # noqa: ANN401
    aux: Any,  # noqa: ANN401
    batch: Any,  # noqa: ANN401
    key: jax.Array,
    step: jax.Array,
) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
    """Mean squared error of values in [-1, 1]; ``shown`` is that of encoded values in [0, 1]."""
    del key, step
    points, target = batch
    error = jnp.mean((field(points) - target) ** 2)
    return error, (aux, {"shown": error / 4})


def encoding_of(picture: Picture) -> dict[str, Any]:
    """What it takes to draw the picture again from its field; JSON."""
    height, width, channels = picture.values.shape
    facts: dict[str, Any] = {
        "height": height,
        "width": width,
        "channels": channels,
        "bits": picture.bits,
        "linear": picture.linear,
    }
    if picture.linear:
        magnitude = np.abs(picture.values[..., : 3 if channels > 2 else 1])
        peak = float(magnitude.max()) or 1.0
        lit = magnitude[magnitude > 0]
        knee = float(np.median(lit)) if lit.size else peak
        facts |= {"peak": peak, "knee": max(knee, 1e-6 * peak)}
    return facts


def encode(values: Floats, facts: Mapping[str, Any]) -> Floats:
    """Values of the file to the space they are fitted in; alpha stays."""
    if not facts["linear"]:
        return values
    peak, knee = float(facts["peak"]), float(facts["knee"])
    out = (np.arcsinh(values / knee) / np.arcsinh(peak / knee)).astype(np.float32)
    return _with_alpha(out, values)


def decode(encoded: Floats, facts: Mapping[str, Any]) -> Floats:
    """The inverse of :func:`encode`; display values are clipped to [0, 1]."""
    if not facts["linear"]:
        return np.clip(encoded, 0, 1)
    peak, knee = float(facts["peak"]), float(facts["knee"])
    bounded = np.clip(encoded, -1.5, 1.5)
    out = (knee * np.sinh(bounded * np.arcsinh(peak / knee))).astype(np.float32)
    return _with_alpha(out, np.clip(encoded, 0, 1))


def draw(field: Any, facts: Mapping[str, Any], height: int, width: int) -> Floats:  # noqa: ANN401
    """The picture [H, W, C] of a field at any size, as the values of its file."""
    own = max(int(facts["height"]), int(facts["width"]))
    reach = (int(facts["width"]) / own, int(facts["height"]) / own)
    x = ((np.arange(width) + 0.5) / width * 2 - 1) * reach[0]
    y = ((np.arange(height) + 0.5) / height * 2 - 1) * reach[1]
    rows = max(1, (1 << 22) // width)
    parts: list[Floats] = []
    for start in range(0, height, rows):
        grid = np.stack(np.meshgrid(x, y[start : start + rows]), -1).reshape(-1, 2)
        parts.append(evaluate(field, grid.astype(np.float32)))
    values = np.concatenate(parts).reshape(height, width, -1)
    return decode((values + np.float32(1)) / np.float32(2), facts)


def sample(target: Floats, count: int, seed: int, step: int) -> tuple[Floats, Floats]:
    """Points (n, 2) and the picture there (n, C) for one step, chosen by the step alone.

    All pixels when they are not more than ``count``; else pixels at random. Points are centres of
    pixels only: bilinear values in between would ask for a smoother picture than there is.
    """
    height, width, channels = target.shape
    if height * width <= count:
        chosen = np.arange(height * width)
    else:
        chosen = np.random.default_rng((seed, step)).integers(0, height * width, count)
    row, column = np.divmod(chosen, width)
    at = np.stack([2 * column + 1 - width, 2 * row + 1 - height], -1) / max(height, width)
    return at.astype(np.float32), target.reshape(-1, channels)[chosen]


def main_file(facts: Mapping[str, Any]) -> str:
    """Name of the picture in the run folder: PNG, 16 bits if the input has more than 8; or EXR."""
    return "image.exr" if facts["linear"] else "image.png"


def save(path: Path, values: Floats, facts: Mapping[str, Any]) -> None:
    """Write a drawn picture; display to linear files and back goes through the sRGB curve.

    Raises:
        InputError: If the suffix cannot be written, or has no alpha where there is one.
    """
    to_linear = path.suffix.lower() in LINEAR
    if to_linear and not facts["linear"]:
        values = _with_alpha(srgb_to_linear(values), values)
    if not to_linear and facts["linear"]:
        values = _with_alpha(linear_to_srgb(values), values)
    save_picture(path, values, bits=16 if int(facts["bits"]) > 8 else 8)


def preview(values: Floats, facts: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Three channels of 8 bits, for people; alpha over grey."""
    colour = values[..., :3] if values.shape[-1] > 2 else np.repeat(values[..., :1], 3, -1)
    if facts["linear"]:
        colour = linear_to_srgb(colour)
    if values.shape[-1] in (2, 4):
        alpha = np.clip(values[..., -1:], 0, 1)
        colour = colour * alpha + 0.5 * (1 - alpha)
    return (np.clip(colour, 0, 1) * 255 + 0.5).astype(np.uint8)


def psnr_of(ours: Floats, truth: Floats, facts: Mapping[str, Any]) -> float:
    """PSNR in dB as the head of this file defines it; of values as a file holds them."""
    a, b = encode(ours, facts), encode(truth, facts)
    if not facts["linear"]:
        steps = (1 << min(16, int(facts["bits"]))) - 1
        a = np.round(a * steps) / steps
    return decibels(float(np.mean((a.astype(np.float64) - b) ** 2)))


def linear_to_srgb(v: Floats) -> Floats:
    """IEC 61966-2-1; light outside [0, 1] is clipped."""
    v = np.clip(v, 0, 1)
    return np.where(v <= 0.0031308, 12.92 * v, 1.055 * v ** (1 / 2.4) - 0.055).astype(np.float32)


def srgb_to_linear(v: Floats) -> Floats:
    """The inverse of :func:`linear_to_srgb`."""
    v = np.clip(v, 0, 1)
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4).astype(np.float32)


def baseline(encoded: Floats, numbers: int) -> Floats | None:
    """The plain way to say a picture with so many numbers: fewer pixels, and bicubic between them.

    None where the numbers are enough for all pixels.
    """
    from PIL import Image

    height, width, channels = encoded.shape
    shrink = (numbers / channels / (height * width)) ** 0.5
    if shrink >= 1:
        return None
    small = (max(1, int(width * shrink)), max(1, int(height * shrink)))
    out: list[Any] = []
    for c in range(channels):
        plane = Image.fromarray(np.ascontiguousarray(encoded[..., c], np.float32))
        reduced = plane.resize(small, Image.Resampling.LANCZOS)
        out.append(np.asarray(reduced.resize((width, height), Image.Resampling.BICUBIC)))
    return np.stack(out, -1)


def _finish(
    field: Any,  # noqa: ANN401
    folder: Path,
    picture: Picture,
    facts: dict[str, Any],
) -> tuple[dict[str, Any], list[Exhibit]]:
    truth = picture.values
    ours = draw(field, facts, *truth.shape[:2])
    save(folder / main_file(facts), ours, facts)
    score = psnr_of(ours, truth, facts)
    grey = truth.shape[-1] == 3 and bool((truth == truth[..., :1]).all())
    own = truth[..., :1] if grey else truth  # three equal channels are one
    metrics: dict[str, Any] = {"psnr": round(score, 4), "values": int(own.size)}
    if facts["linear"]:
        error = float(np.mean((ours.astype(np.float64) - truth) ** 2)) / facts["peak"] ** 2
        metrics["psnr_linear"] = round(decibels(error), 4)
    plain = baseline(encode(own, facts), parameters(field))
    if plain is not None:
        score_of_plain = psnr_of(decode(plain, facts), own, facts)
        metrics["psnr_fewer_pixels"] = round(score_of_plain, 4)
    note = f"{score:.2f} dB"
    return metrics, [Exhibit("picture", preview(truth, facts), preview(ours, facts), note)]


def _with_alpha(out: Floats, alpha: Floats) -> Floats:
    if alpha.shape[-1] in (2, 4):
        out[..., -1] = alpha[..., -1]
    return out


def size_of(facts: Mapping[str, Any], width: int | None, height: int | None) -> tuple[int, int]:
    """Rows and columns to draw; one of them alone keeps the shape of the picture.

    Raises:
        InputError: If a side is outside 1 to ``MAX_SIDE``.
        RunError: If the facts are damaged.
    """
    try:
        own_h, own_w = int(facts["height"]), int(facts["width"])
    except (KeyError, TypeError, ValueError):
        raise RunError("config.json does not tell the size of the picture; fit it again") from None
    if width is None and height is None:
        width, height = own_w, own_h
    elif width is None:
        width = max(1, round((height or 1) * own_w / own_h))
    elif height is None:
        height = max(1, round(width * own_h / own_w))
    for name, side in (("width", width), ("height", height)):
        if not 1 <= (side or 0) <= MAX_SIDE:
            raise InputError(f"--{name} {side}: expected 1 to {MAX_SIDE} pixels")
    assert height is not None
    return height, width
