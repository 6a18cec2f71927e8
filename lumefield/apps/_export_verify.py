"""``export --verify``: draw what was written and compare it with the scene's own pictures."""

import struct
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lumefield.apps._export_place import Similarity
from lumefield.apps._paths import around_points
from lumefield.apps._scene_io import Rgb, make_draw, to_bytes
from lumefield.apps._views import Views
from lumefield.errors import FormatError

if TYPE_CHECKING:
    from lumefield.codecs.formats import Splats

_DAMAGE = (ValueError, KeyError, IndexError, struct.error, zlib.error, zipfile.BadZipFile)
_VIEWS = 8
_BEST = 99.0
"""dB that stands for pictures without a difference."""


class Verdict(NamedTuple):
    """How near the pictures of a file are to those of its scene."""

    views: int
    mean: float
    """Mean PSNR, dB."""
    worst: float
    name: str
    """Of the worst view."""
    reader: str
    """What decoded the file."""

    def line(self, path: Path) -> str:
        """What a person is told."""
        if self.worst >= _BEST:
            told = f"{self.views} views, no pixel differs"
        else:
            told = (
                f"{self.mean:.2f} dB against the scene's own pictures of {self.views} views, the "
                f"worst {self.worst:.2f} dB ({self.name})"
            )
        return f"verified {path.name} by {self.reader}: {told}"


def verify(
    path: Path,
    suffix: str,
    scene: "Splats",
    views: Views | None,
    moved: Similarity,
    background: Rgb,
) -> Verdict:
    """Decode the file and compare.

    The file is read back from the disk by a second decoder, written apart from the writer and the
    reader of the format (``_export_reread``); USD by its reader, which is OpenUSD. Where the export
    moved the scene the cameras move along, so a wrong turn of positions, rotations or harmonics
    costs decibels.

    Args:
        path: The written file.
        suffix: Its format.
        scene: What the scene showed before anything was done to it.
        views: Cameras to compare in, in the scene's frame; around a bare file when None.
        moved: How the export moved the scene.
        background: Display sRGB behind both.

    Raises:
        FormatError: If the file cannot be read back.
    """
    written, reader = _decoded(path, suffix)
    if views is None or not len(views):
        opacity = 1 / (1 + np.exp(-np.clip(scene.logit_opacities.astype(np.float64), -50, 50)))
        views = around_points(scene.means.astype(np.float64), opacity, 640, 480)
        views = views.pick(np.linspace(0, len(views) - 1, _VIEWS).round().astype(np.intp))
    before = make_draw(scene, background=background)
    after = make_draw(written, background=background)
    found: list[float] = []
    there = moved.views(views)
    for k in range(len(views)):
        own, other = (
            to_bytes(draw(v.pick([k])).rgb).astype(np.float64)
            for draw, v in ((before, views), (after, there))
        )
        error = float(np.mean((own - other) ** 2))
        found.append(min(_BEST, 10 * np.log10(255**2 / error)) if error > 0 else _BEST)
    worst = int(np.argmin(found))
    return Verdict(len(views), float(np.mean(found)), found[worst], views.names[worst], reader)


def _decoded(path: Path, suffix: str) -> tuple["Splats", str]:
    """The Gaussians of the file, and what read them.

    Raises:
        FormatError: If it cannot be read back.
    """
    from lumefield.apps._export_reread import reread
    from lumefield.codecs.formats import load_splats

    try:
        found = reread(path, suffix)
    except _DAMAGE as error:
        raise FormatError(
            f"{path}: the second decoder cannot read it back ({error}); export it again, and "
            "tell us if that happens twice"
        ) from error
    return (load_splats(path) if found is None else found), reread_by(suffix)


def reread_by(suffix: str) -> str:
    """What decodes a file of this format for --verify."""
    from lumefield.apps._export_reread import has_decoder

    return "a second decoder" if has_decoder(suffix) else "OpenUSD"
