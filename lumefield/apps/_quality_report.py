"""The page of ``lumefield quality``: scores, curves, worst frames side by side; one file."""

import html
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._quality_metrics import COLUMNS
from lumefield.apps._report_style import CSS, SCRIPT
from lumefield.apps._report_svg import curve
from lumefield.apps._signal import Exhibit
from lumefield.apps._signal_report import pictures_section


def write_page(
    path: Path,
    names: tuple[str, str],
    found: dict[str, Any],
    worst: list[tuple[dict[str, Any], NDArray[np.uint8], NDArray[np.uint8]]],
) -> None:
    """Write the page whole or not at all.

    Args:
        path: Where to.
        names: Of reference and distorted.
        found: What ``quality`` returns.
        worst: Row, reference and distorted of the frames to show.

    Raises:
        InputError: If the folder cannot be written.
    """
    from lumefield.codecs.formats import replacing

    reference, distorted = (html.escape(name) for name in names)
    cards = "".join(
        f"<div class=card><b>{mean:.{COLUMNS[key].digits}f}<small>{COLUMNS[key].unit}</small></b>"
        f"<span>{COLUMNS[key].label}</span></div>"
        for key, mean in found["means"].items()
    )
    many = found["frames"] > 1
    shown = [
        Exhibit(row["name"], reference, distorted, _note(row))
        for row, reference, distorted in worst
    ]
    frames = f"{found['frames']} frames; scores are means" if many else "one picture"
    body = (
        f"<header><h1>{distorted}</h1><p>compared with {reference} · {frames}</p>"
        f"<div class=cards>{cards}</div></header>"
        f"{_curves(found) if many else ''}"
        f"{pictures_section(shown, ('Worst frames' if many else 'Difference'), 'distorted')}"
    )
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{distorted} · lumefield quality</title><style>{CSS}</style></head>"
        f"<body><main>{body}<footer>Written by lumefield. Videos: planes as stored, similarity of "
        "luma; pictures: similarity of red, green and blue. Equal frames have a PSNR of 100 dB."
        f"</footer></main><script>{SCRIPT}</script></body></html>\n"
    )
    with replacing(path) as file:
        file.write(page.encode())


def _note(row: dict[str, Any]) -> str:
    return " · ".join(
        f"{COLUMNS[key].label} {COLUMNS[key].text(row[key])}" for key in row if key in COLUMNS
    )


def _curves(found: dict[str, Any]) -> str:
    rows, plots = found["rows"], list[str]()
    for key, mean in found["means"].items():
        values = [row[key] for row in rows]
        drawn = curve([float(row["frame"]) for row in rows], values, mark=mean, label="mean")
        plots.append(f"<div class=plot><h3>{COLUMNS[key].label}</h3>{drawn}</div>")
    return f"<section><h2>Frame by frame</h2><div class=pair>{''.join(plots)}</div></section>"
