"""``lumefield quality``: how near one picture, folder of pictures or video is to another."""

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from lumefield.errors import InputError

MetricName = Literal["psnr", "yuv", "ssim", "ms-ssim", "vmaf", "flip", "ssimulacra2"]


@dataclass(frozen=True)
class Quality:
    """Compare a picture, a folder of pictures or a video with its reference, frame by frame."""

    reference: tyro.conf.Positional[Path]
    """The original: picture, .lume picture, folder of pictures, or video."""
    distorted: tyro.conf.Positional[Path]
    """What to judge: as many frames of the same size; pictures of two folders pair by name."""
    metric: tuple[MetricName, ...] = ()
    """What to measure; psnr, yuv, ssim and ms-ssim when not given. vmaf, flip and ssimulacra2 need
    `pip install lumefield[quality]`."""
    out: Path | None = None
    """Page to write, ending in .html: scores, curves, and the worst frames side by side."""
    csv: Path | None = None
    """Table to write, ending in .csv: one row per frame."""
    frames: int | None = None
    """Compare only so many frames, from the first one."""
    overwrite: bool = False
    """Replace --out and --csv if they exist."""
    threads: int | None = None
    """Threads to use; all cores when not given."""


def quality(settings: Quality) -> dict[str, Any]:
    """Measure, print the means and write what was asked for.

    Returns:
        ``{"frames": n, "means": {column: mean}, "rows": [{"frame", "name", column: value}]}``.

    Raises:
        InputError: If an input, an option or a package that a metric needs cannot be had, or sizes
            or numbers of frames differ.
        FormatError: If an input is damaged.
    """
    _check(settings)
    from lumefield.apps._progress import Say
    from lumefield.apps._quality_frames import open_source, paired
    from lumefield.apps._quality_metrics import Worst, chosen
    from lumefield.apps._quality_vmaf import vmaf

    reference, distorted = open_source(settings.reference), open_source(settings.distorted)
    rows, worst = list[dict[str, Any]](), Worst()
    measures = None
    for k, pair in enumerate(paired(reference, distorted, settings.frames)):
        if measures is None:
            measures, notes = chosen(settings.metric, pair)
            for note in notes:
                Say().note(note)
        row: dict[str, Any] = {"frame": k, "name": pair.name}
        for measure in measures:
            row |= measure(pair)
        rows.append(row)
        if settings.out:
            worst.see(pair, row)
    if "vmaf" in settings.metric:
        for row, score in zip(rows, vmaf(reference, distorted, rows), strict=True):
            row["vmaf"] = score
    columns = [key for key in rows[0] if key not in ("frame", "name")]
    means = {key: float(np.mean([row[key] for row in rows])) for key in columns}
    found = {"frames": len(rows), "means": means, "rows": rows}
    Say().show(_table(found))
    if settings.csv:
        _write_csv(settings.csv, rows)
    if settings.out:
        from lumefield.apps._quality_report import write_page

        names = (settings.reference.name, settings.distorted.name)
        write_page(settings.out, names, found, worst.frames())
    return found


def _check(settings: Quality) -> None:
    for flag, path, suffix in (("--out", settings.out, ".html"), ("--csv", settings.csv, ".csv")):
        if path is None:
            continue
        if path.suffix.lower() != suffix:
            raise InputError(f"{flag} {path}: expected a name that ends in {suffix}")
        if path.exists() and not settings.overwrite:
            raise InputError(f"{path}: exists already; give --overwrite or another {flag}")
    if settings.frames is not None and settings.frames < 1:
        raise InputError(f"--frames {settings.frames}, expected at least 1")


def _table(found: dict[str, Any]) -> Any:  # noqa: ANN401
    from rich.table import Table

    from lumefield.apps._quality_metrics import COLUMNS

    table = Table("metric", "mean", box=None)
    many = found["frames"] > 1
    if many:
        table.add_column("worst")
        table.add_column("frame")
    for key, mean in found["means"].items():
        column = COLUMNS[key]
        row = [column.label, column.text(mean)]
        if many:
            pick = min if column.higher else max
            low = pick(found["rows"], key=lambda row, key=key: row[key])
            row += [column.text(low[key]), low["name"]]
        table.add_row(*row)
    return table


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    from lumefield.codecs.formats import replacing

    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(
            {
                k: f"{v:.6g}" if isinstance(v, float) and math.isfinite(v) else v
                for k, v in row.items()
            }
        )
    with replacing(path) as file:
        file.write(text.getvalue().encode())
