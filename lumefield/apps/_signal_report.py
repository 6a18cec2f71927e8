"""``report.html`` of a fitted signal: scores, curve, result beside the truth; one file."""

import base64
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._colours import STOPS, heat
from lumefield.apps._report_style import CSS, SCRIPT
from lumefield.apps._report_svg import curve
from lumefield.apps._scene_io import read_json
from lumefield.apps._signal import Exhibit

MAX_SIDE = 900
"""Longest side of an embedded picture, pixels."""
ERROR_SCALE = 0.25
"""Mean absolute difference of the channels at the bright end of the error map (1 = full range)."""
_CARDS = {
    "psnr": ("PSNR", "{:.2f}", "dB"),
    "snr": ("signal to noise", "{:.2f}", "dB"),
    "iou": ("volume overlap (IoU)", "{:.4f}", ""),
    "chamfer_percent": ("Chamfer, of the box diagonal", "{:.3f}", "%"),
    "parameters": ("parameters", "{:,.0f}", ""),
    "steps": ("steps", "{:,.0f}", ""),
    "seconds": ("fitting time", "{:,.0f}", "s"),
    "peak_rss_mb": ("peak memory", "{:,.0f}", "MB"),
}
_EXPLAINED = {
    "psnr_linear": "PSNR of linear light, peak of the picture [dB]",
    "psnr_fewer_pixels": "for comparison: as many numbers spent on pixels, bicubic [dB]",
    "values": "numbers in the signal",
    "psnr_image": "PSNR over the whole picture [dB]",
    "psnr_paste": "for comparison: pasted without blending [dB]",
    "solver_seconds": "for comparison: direct sparse solution of the Poisson equation [s]",
    "to_truth_percent": "mean distance of the mesh to the truth [% of the diagonal]",
    "from_truth_percent": "mean distance of the truth to the mesh [% of the diagonal]",
    "watertight": "the mesh is closed",
    "faces": "triangles of the mesh",
}


def write_report(run: Path, exhibits: Sequence[Exhibit], summary: str) -> Path:
    """Write ``report.html`` from the files of the run and the pictures given, whole or not at all.

    Raises:
        InputError: If the folder cannot be written.
        RunError: If a file of the run is damaged.
    """
    from lumefield.codecs.formats import replacing

    metrics, config = read_json(run / "metrics.json"), read_json(run / "config.json")
    name = html.escape(run.resolve().name)
    cards = "".join(_card(key, metrics) for key in _CARDS)
    words = (summary, metrics.get("signal"), metrics.get("method"), metrics.get("backend"))
    line = " · ".join(html.escape(str(word)) for word in words if word)
    body = (
        f"<header><h1>{name}</h1><p>{line}</p><div class=cards>{cards}</div></header>"
        f"{pictures_section(exhibits)}<section><h2>Fitting</h2>{_curves(run)}</section>"
        f"<section><h2>Scores</h2>{_table(_scores(metrics))}</section>"
        f"<section><h2>Settings and versions</h2>{_table(_settings(config, metrics))}</section>"
    )
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name} · lumefield</title><style>{CSS}</style></head><body><main>{body}"
        "<footer>Written by lumefield.</footer></main>"
        f"<script>{SCRIPT}</script></body></html>\n"
    )
    path = run / "report.html"
    with replacing(path) as file:
        file.write(page.encode())
    return path


def _card(key: str, metrics: dict[str, Any]) -> str:
    value = metrics.get(key)
    if not isinstance(value, int | float):
        return ""
    label, form, unit = _CARDS[key]
    small = f"<small>{unit}</small>" if unit else ""
    return f"<div class=card><b>{form.format(value)}{small}</b><span>{label}</span></div>"


def pictures_section(
    exhibits: Sequence[Exhibit], title: str = "Result", caption: str = "field"
) -> str:
    """Truth, result and their difference of every exhibit; "" where there is none.

    Args:
        exhibits: What to show.
        title: Of the section.
        caption: Below the results.
    """
    if not exhibits:
        return ""
    ramp = f"linear-gradient(90deg,{','.join(STOPS)})"
    parts = [
        f"<section><h2>{title}</h2><p class=hint>Drag across a result to wipe the truth in.</p>"
        f'<div class=legend>error: 0 <div class=ramp style="background:{ramp}"></div> '
        f"{ERROR_SCALE:.0%} of full range or more (mean over the channels)</div>"
    ]
    for exhibit in exhibits:
        name = html.escape(exhibit.name)
        gap = np.abs(exhibit.truth.astype(np.float32) - exhibit.result).mean(-1) / 255
        error = heat(np.clip(gap / ERROR_SCALE, 0, 1))
        truth, result, wrong = (_uri(p) for p in (exhibit.truth, exhibit.result, error))
        parts.append(
            f"<div class=view><h3>{name}<span>{html.escape(exhibit.note)}</span></h3>"
            f'<div class=trio><figure><img class=truth src="{truth}" alt="truth of {name}">'
            "<figcaption>truth</figcaption></figure><figure><div class=wipe>"
            f'<img src="{result}" alt="result of {name}"><img class=over alt="">'
            f'<input type=range min=0 max=100 value=0 aria-label="wipe the truth of {name} in">'
            f"</div><figcaption>{caption}</figcaption></figure>"
            f'<figure><img src="{wrong}" alt="error of {name}"><figcaption>error</figcaption>'
            "</figure></div></div>"
        )
    return "".join(parts) + "</section>"


def _uri(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=90)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _curves(run: Path) -> str:
    rows: list[dict[str, Any]] = []
    path = run / "log.jsonl"
    text = path.read_text("utf-8", "replace") if path.is_file() else ""
    for line in text.splitlines():
        try:
            row = json.loads(line)
            rows.append({name: float(row[name]) for name in ("step", "loss", "shown")})
        except (ValueError, KeyError, TypeError):
            continue
    if len(rows) < 2:
        return "<p class=hint>The run holds no log.</p>"
    steps = [row["step"] for row in rows]
    logs = [float(np.log10(max(row["loss"], 1e-12))) for row in rows]
    first = curve(steps, [row["shown"] for row in rows])
    return (
        f"<div class=pair><div class=plot><h3>quality of the step's points</h3>{first}</div>"
        f"<div class=plot><h3>loss, log10</h3>{curve(steps, logs)}</div></div>"
    )


def _scores(metrics: dict[str, Any]) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in metrics.items():
        if key not in ("versions", "timings", "signal", "method", "backend"):
            label = _EXPLAINED.get(key) or _CARDS.get(key, (key,))[0]
            rows.append((label, value))
    return rows


def _settings(config: dict[str, Any], metrics: dict[str, Any]) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for part in (config.get("settings"), config.get("size"), config.get("facts")):
        if isinstance(part, dict):
            rows += [(str(k).strip("_"), v) for k, v in part.items() if v is not None]
    for part in (metrics.get("timings"), metrics.get("versions")):
        if isinstance(part, dict):
            rows += list(part.items())
    return rows


def _table(rows: Sequence[tuple[str, Any]]) -> str:
    inside = "".join(
        f"<tr><th>{html.escape(str(k))}</th><td>{html.escape(str(v))}</td></tr>" for k, v in rows
    )
    return f"<div class=panel><table>{inside}</table></div>"
