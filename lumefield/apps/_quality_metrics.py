"""What ``lumefield quality`` can measure of a pair of frames."""

import importlib
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._evaluate import PSNR_OF_EQUAL
from lumefield.apps._quality_frames import Pair
from lumefield.errors import InputError

Measure = Callable[[Pair], dict[str, float]]
SHOWN = 4
"""Worst frames that are kept for the page."""


@dataclass(frozen=True)
class Column:
    """How a number is shown."""

    label: str
    digits: int
    unit: str = ""
    higher: bool = True
    """Whether a higher value is better."""

    def text(self, value: float) -> str:
        """The value with its unit."""
        return f"{value:.{self.digits}f}{' ' if self.unit else ''}{self.unit}"


COLUMNS = {
    "psnr": Column("PSNR, RGB", 3, "dB"),
    "psnr_y": Column("PSNR, Y", 3, "dB"),
    "psnr_u": Column("PSNR, U", 3, "dB"),
    "psnr_v": Column("PSNR, V", 3, "dB"),
    "psnr_yuv": Column("PSNR, YUV 6:1:1", 3, "dB"),
    "ssim": Column("SSIM", 5),
    "ms_ssim": Column("MS-SSIM", 5),
    "vmaf": Column("VMAF", 2),
    "flip": Column("FLIP, lower is better", 4, higher=False),
    "ssimulacra2": Column("SSIMULACRA2", 2),
}
"""Every column that a table can have."""


@dataclass
class Worst:
    """The frames of lowest quality by the first column, as bytes; all others are let go."""

    _kept: "list[tuple[float, dict[str, Any], NDArray[np.uint8], NDArray[np.uint8]]]"

    def __init__(self) -> None:
        self._kept = []

    def see(self, pair: Pair, row: dict[str, Any]) -> None:
        """Take a frame into account."""
        key = next((k for k in row if k not in ("frame", "name")), "frame")
        rank = row[key] * (1 if key not in COLUMNS or COLUMNS[key].higher else -1)
        both = [np.rint(x * 255).astype(np.uint8) for x in (pair.reference, pair.distorted)]
        self._kept.append((rank, row, both[0], both[1]))
        self._kept = sorted(self._kept, key=lambda kept: (kept[0], kept[1]["frame"]))[:SHOWN]

    def frames(self) -> list[tuple[dict[str, Any], NDArray[np.uint8], NDArray[np.uint8]]]:
        """Row, reference and distorted of the worst frames, worst first."""
        return [kept[1:] for kept in self._kept]


def chosen(names: Sequence[str], pair: Pair) -> tuple[list[Measure], list[str]]:
    """The functions of the wanted metrics, and what was left out and why.

    Args:
        names: As asked for; when empty, those of ``psnr yuv ssim ms-ssim`` that fit the size.
        pair: The first pair.

    Raises:
        InputError: If a metric that was asked for does not fit the size, or needs a package that
            is not installed.
    """
    from lumefield.render import quality

    side, notes = min(pair.reference.shape[:2]), list[str]()
    wanted = list(dict.fromkeys(names or ("psnr", "yuv", "ssim", "ms-ssim")))
    for name, least in (("ssim", quality.SSIM_SIDE), ("ms-ssim", quality.MS_SSIM_SIDE)):
        if name in wanted and side < least:
            text = f"{name} needs {least} pixels a side, the shorter one has {side}"
            if names:
                raise InputError(f"--metric {text}; leave it out")
            wanted.remove(name)
            notes.append(text)
    table: dict[str, Callable[[], Measure]] = {
        "psnr": lambda: _psnr,
        "yuv": lambda: _yuv,
        "ssim": lambda: _similarity("ssim"),
        "ms-ssim": lambda: _similarity("ms_ssim"),
        "flip": _flip,
        "ssimulacra2": _ssimulacra2,
    }
    if "vmaf" in wanted:
        from lumefield.apps._quality_vmaf import find_ffmpeg

        find_ffmpeg()  # said before minutes of decoding
    return [table[name]() for name in wanted if name != "vmaf"], notes


def decibels(mse: float) -> float:
    """PSNR for a peak of 1, dB; 100 for equal pictures."""
    return PSNR_OF_EQUAL if mse == 0 else -10 * math.log10(mse)


def yuv_errors(pair: Pair) -> list[float]:
    """Mean squared errors of Y, U, V: of the planes of videos, else of BT.601 at full size."""
    if pair.planes is not None:
        return [_mse(a, b) for a, b in zip(*pair.planes, strict=True)]
    import jax.numpy as jnp

    from lumefield.render import quality

    gap = np.asarray(quality.ycbcr(jnp.asarray(pair.reference - pair.distorted)), np.float64)
    return [float(np.square(gap[..., k]).mean()) for k in range(3)]


def _mse(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.square(a.astype(np.float64) - b).mean())


def _psnr(pair: Pair) -> dict[str, float]:
    return {"psnr": decibels(_mse(pair.reference, pair.distorted))}


def _yuv(pair: Pair) -> dict[str, float]:
    y, u, v = yuv_errors(pair)
    names = ("psnr_y", "psnr_u", "psnr_v", "psnr_yuv")
    values = (y, u, v, (6 * y + u + v) / 8)
    return {name: decibels(value) for name, value in zip(names, values, strict=True)}


def _similarity(name: str) -> Measure:
    """Of luma for videos, as is usual; else the mean over red, green and blue."""
    import jax

    from lumefield.render import quality

    function = jax.jit({"ssim": quality.ssim, "ms_ssim": quality.ms_ssim}[name])

    def measure(pair: Pair) -> dict[str, float]:
        two = (pair.reference, pair.distorted)
        if pair.planes is not None:
            two = tuple(planes[0][..., None] for planes in pair.planes)
        return {name: min(float(function(*two)), 1.0)}  # of equal pictures, rounding goes above

    return measure


def package(metric: str, name: str) -> Any:  # noqa: ANN401
    """The module of an optional package that a metric needs.

    Raises:
        InputError: If it is not installed.
    """
    try:
        return importlib.import_module(name.replace("-", "_"))
    except ImportError:
        raise InputError(
            f"--metric {metric}: {name} is not installed; pip install lumefield[quality]"
        ) from None


def _flip() -> Measure:
    """Andersson et al., "FLIP: A Difference Evaluator for Alternating Images", 2020; 67 ppd."""
    flip = package("flip", "flip-evaluator")

    def measure(pair: Pair) -> dict[str, float]:
        two = [np.ascontiguousarray(x) for x in (pair.reference, pair.distorted)]
        return {"flip": float(flip.evaluate(*two, "LDR", applyMagma=False)[1])}

    return measure


def _ssimulacra2() -> Measure:
    """Sneyers, "SSIMULACRA 2", Cloudinary, 2022: 100 equal, 90 not seen, 70 high quality."""
    compute = package("ssimulacra2", "ssimulacra2").compute_ssimulacra2

    def measure(pair: Pair) -> dict[str, float]:
        from PIL import Image

        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / name for name in ("reference.png", "distorted.png")]
            for path, values in zip(paths, (pair.reference, pair.distorted), strict=True):
                Image.fromarray(np.rint(values * 255).astype(np.uint8)).save(path)
            return {"ssimulacra2": float(compute(*map(str, paths)))}

    return measure
