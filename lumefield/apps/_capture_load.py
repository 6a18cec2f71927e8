"""From posed photo files to arrays at training resolution: average down, undistort, mask, pad."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._photos import READ_ERRORS, PhotoInfo, decode, decode_mask, quietly
from lumefield.apps._sfm import Progress, needs_turn
from lumefield.apps._undistort import Remap, pinhole_focal, undistortion
from lumefield.codecs.formats import PosedImages
from lumefield.errors import InputError

MaskMode = Literal["ignore", "carve"]


@dataclass(frozen=True)
class Loaded:
    """What ``Capture`` holds of the photos that could be decoded, with their row numbers."""

    kept: tuple[int, ...]
    """Rows of the ``PosedImages`` that were decoded."""
    images: NDArray[np.uint8]
    """(n, H, W, 3) sRGB, padded with 0 at the right and the bottom."""
    weights: NDArray[np.uint8]
    """(n, H, W), or (n, 1, 1) full of 255."""
    alphas: NDArray[np.uint8]
    """(n, H, W), or (n, 1, 1) full of 255."""
    focal: NDArray[np.float64]
    """(n, 2) pixels of the training size."""
    centre: NDArray[np.float64]
    """(n, 2) pixels of the training size."""
    sizes: NDArray[np.int64]
    """(n, 2) width and height inside the padding."""
    notes: tuple[str, ...]
    """What a person should know."""


@dataclass(frozen=True)
class _Plan:
    """How one photo is loaded."""

    info: PhotoInfo
    size: tuple[int, int]
    """Width and height at training resolution."""
    upright: bool
    lens_focal: NDArray[np.float64]
    """Focal length of the distorted photo, pixels of the training size."""
    focal: NDArray[np.float64]
    """Focal length after undistortion."""
    centre: NDArray[np.float64]
    model: str
    distortion: NDArray[np.float64]
    mask: Path | None

    def remap(self) -> Remap | None:
        """The undistortion look-up, shared by photos of one camera."""
        numbers = (*self.lens_focal, *self.centre, *self.focal, *self.distortion)
        return _remap(self.size, self.model, tuple(float(v) for v in numbers))


@lru_cache(maxsize=2)
def _remap(size: tuple[int, int], model: str, numbers: tuple[float, ...]) -> Remap | None:
    values = np.array(numbers)
    return undistortion(size, values[:2], values[2:4], model, values[6:], values[4:6])


@lru_cache(maxsize=256)
def _pinhole(size: tuple[int, int], model: str, numbers: tuple[float, ...]) -> tuple[float, float]:
    """Focal length after undistortion, worked out once per camera."""
    values = np.array(numbers)
    fx, fy = pinhole_focal(size, values[:2], values[2:4], model, values[4:])
    return float(fx), float(fy)


def choose_factor(longest: int, downscale: float | None, max_side: int) -> tuple[float, str]:
    """The factor to divide the photos' sides by, and a line that says so (or nothing).

    Args:
        longest: Longest side of any photo, pixels.
        downscale: What the user asked for, >= 1; None chooses the smallest whole factor that
            brings the longest side down to ``max_side``.
        max_side: Pixels.

    Raises:
        InputError: If ``downscale`` is below 1 or leaves less than 16 pixels.
    """
    if downscale is None:
        factor = max(1, math.ceil(longest / max_side))
        said = f"photos averaged down {factor}x to at most {max_side} pixels a side"
        return float(factor), said if factor > 1 else ""
    if not (math.isfinite(downscale) and downscale >= 1):
        raise InputError(
            f"downscale {downscale:g}, expected 1 or more: it divides the photos' sides"
        )
    if longest / downscale < 16:
        raise InputError(
            f"downscale {downscale:g} leaves {longest / downscale:.0f} pixels of {longest}; "
            "choose a smaller one"
        )
    return float(downscale), ""


def load_views(
    posed: PosedImages,
    infos: Sequence[PhotoInfo],
    *,
    factor: float,
    mask_mode: MaskMode | None,
    threads: int,
    progress: Progress,
) -> Loaded:
    """Load all photos, one at a time per thread.

    Args:
        posed: Cameras, mask files.
        infos: Headers of the same photos.
        factor: Divides the sides of the photos as they are stored.
        mask_mode: ``ignore``: what is masked out, or transparent, has weight 0. ``carve``: it is
            a target opacity of 0, and colours are multiplied by it (over black). None: carve for
            photos with transparency, ignore for mask files.
        threads: Photos decoded at the same time.
        progress: Called with ``load photos`` and the share that is done.

    Raises:
        InputError: If a photo does not have the shape its camera says, or none can be decoded.
    """
    masks = posed.masks or (None,) * len(infos)
    plans = [_plan(posed, i, info, factor, masks[i]) for i, info in enumerate(infos)]
    width, height = (max(p.size[k] for p in plans) for k in (0, 1))
    count = len(plans)
    images = np.zeros((count, height, width, 3), np.uint8)
    weights = np.zeros((count, height, width), np.uint8)
    alphas: list[NDArray[np.uint8] | None] = [None] * count

    def load(i: int) -> str:
        try:
            image, weight, alpha = _load(plans[i], mask_mode)
        except READ_ERRORS as error:
            return f"{plans[i].info.path.name} ({_short(error)})"
        h, w = weight.shape
        images[i, :h, :w], weights[i, :h, :w] = image, weight
        alphas[i] = alpha
        return ""

    failures: list[str] = []
    kept: list[int] = []
    plans[0].remap()  # so that threads do not make the same one
    with quietly(), ThreadPoolExecutor(max(1, min(threads, 4))) as pool:
        for i, failure in enumerate(pool.map(load, range(count))):
            progress("load photos", (i + 1) / count)
            if failure:
                failures.append(failure)
            else:
                kept.append(i)
    if not kept:
        raise InputError(
            f"none of the {count} photos can be decoded, first {failures[0]}; "
            "export them again as JPEG or PNG"
        )
    if failures:
        images, weights = images[kept], weights[kept]
    return Loaded(
        kept=tuple(kept),
        images=images,
        weights=weights if weights.min() < 255 else np.full((len(kept), 1, 1), 255, np.uint8),
        alphas=_stack([alphas[i] for i in kept], height, width),
        focal=np.array([plans[i].focal for i in kept]),
        centre=np.array([plans[i].centre for i in kept]),
        sizes=np.array([plans[i].size for i in kept], np.int64),
        notes=_notes([plans[i] for i in kept], failures, [alphas[i] for i in kept]),
    )


def _short(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]


def _notes(
    plans: Sequence[_Plan], failures: Sequence[str], alphas: Sequence[NDArray[np.uint8] | None]
) -> tuple[str, ...]:
    notes: list[str] = []
    if failures:
        listed = ", ".join(failures[:5]) + (", ..." if len(failures) > 5 else "")
        notes.append(f"skipped {len(failures)} photos that cannot be decoded: {listed}")
    sizes = sorted({p.size for p in plans})
    if len(sizes) > 1:
        told = ", ".join(f"{w}x{h}" for w, h in sizes[:4]) + (", ..." if len(sizes) > 4 else "")
        notes.append(f"photos of {len(sizes)} sizes ({told}) padded at the right and bottom")
    bent = sum(p.model != "pinhole" and bool(np.any(p.distortion)) for p in plans)
    if bent:
        notes.append(f"{bent} photos undistorted to pinhole")
    carved = sum(a is not None for a in alphas)
    if carved:
        notes.append(f"carve: {carved} photos with a target opacity, colours over black")
    masked = sum(p.mask is not None for p in plans)
    if masked:
        notes.append(f"{masked} mask files used")
    return tuple(notes)


def _stack(
    alphas: Sequence[NDArray[np.uint8] | None], height: int, width: int
) -> NDArray[np.uint8]:
    if all(a is None for a in alphas):
        return np.full((len(alphas), 1, 1), 255, np.uint8)
    out = np.full((len(alphas), height, width), 255, np.uint8)
    for row, alpha in zip(out, alphas, strict=True):
        if alpha is not None:
            row[: alpha.shape[0], : alpha.shape[1]] = alpha
    return out


def _plan(posed: PosedImages, i: int, info: PhotoInfo, factor: float, mask: Path | None) -> _Plan:
    upright = needs_turn(info, posed.size[i])
    stored = info.upright if upright else info.size
    given = posed.size[i]
    if abs(stored[0] * given[1] - stored[1] * given[0]) > 0.02 * given[0] * given[1]:
        raise InputError(
            f"{info.path}: the photo is {stored[0]}x{stored[1]} but its camera is for "
            f"{given[0]}x{given[1]}; use the photos the cameras were made with"
        )
    size = (max(1, round(stored[0] / factor)), max(1, round(stored[1] / factor)))
    scale = np.array(size) / given
    focal, centre = posed.focal[i] * scale, posed.centre[i] * scale
    model, distortion = posed.model[i], posed.distortion[i]
    return _Plan(
        info=info,
        size=size,
        upright=upright,
        lens_focal=focal,
        focal=np.array(_pinhole(size, model, (*focal, *centre, *distortion))),
        centre=centre,
        model=model,
        distortion=distortion,
        mask=mask,
    )


def _load(
    plan: _Plan, mask_mode: MaskMode | None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Image, weight, and target opacity (None where there is none)."""
    pixels, transparent = decode(
        plan.info, plan.size, upright=plan.upright, premultiplied=mask_mode != "ignore"
    )
    carve = transparent and mask_mode != "ignore"
    if plan.mask is not None:
        pixels, carve = _apply_mask(pixels, decode_mask(plan.mask, plan.size), mask_mode)
    reached = np.full(pixels.shape[:2], 255, np.uint8)
    remap = plan.remap()
    if remap is not None:
        pixels = remap(pixels)
        reached = remap.valid.astype(np.uint8) * np.uint8(255)
    rgb, last = pixels[..., :3], pixels[..., 3]
    return (rgb, reached, last) if carve else (rgb, last, None)


def _apply_mask(
    pixels: NDArray[np.uint8], mask: NDArray[np.uint8], mask_mode: MaskMode | None
) -> tuple[NDArray[np.uint8], bool]:
    """Put a mask file in the last channel, in place of any transparency; says whether to carve."""
    pixels = np.concatenate([pixels[..., :3], mask[..., None]], axis=2)
    if mask_mode != "carve":
        return pixels, False
    product = pixels[..., :3].astype(np.uint16) * mask[..., None]
    pixels[..., :3] = ((product + 127) // 255).astype(np.uint8)
    return pixels, True
