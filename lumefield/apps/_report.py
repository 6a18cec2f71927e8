"""``report.html`` of a run: one self-contained page that opens from disk, without any network."""

import base64
import html
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._colours import STOPS, heat
from lumefield.apps._evaluate import image_stems
from lumefield.apps._field_file import FIELD_FILE, read_surface
from lumefield.apps._report_style import CSS, SCRIPT
from lumefield.apps._report_svg import camera_plots, curve
from lumefield.apps._scene_io import read_json
from lumefield.apps._views import load_views
from lumefield.errors import RunError

MAX_VIEWS = 12
"""Held-out views shown as pictures; the table has all."""
MAX_BYTES = 4_500_000
"""Bytes of embedded pictures, before base64; wider pictures are made smaller until they fit."""
ERROR_SCALE = 0.25
"""Mean absolute difference of the channels at the bright end of the error map (1 = full range)."""
MAX_POINTS = 3000
"""Points in the camera plot."""


@dataclass(frozen=True)
class _Trio:
    """Truth and render of one held-out view."""

    name: str
    truth: NDArray[np.uint8]
    render: NDArray[np.uint8]
    note: str


def write_report(run: Path) -> Path:
    """Write ``report.html`` of a run from the files in its folder, whole or not at all.

    Whatever the run does not hold (log, cameras, renders) is left out of the page with a sentence.

    Args:
        run: Folder of a run with at least ``metrics.json``.

    Returns:
        The page.

    Raises:
        RunError: If the folder holds no ``metrics.json``, or a file in it is damaged.
        InputError: If the folder cannot be written.
    """
    from lumefield.codecs.formats import replacing

    metrics = read_json(run / "metrics.json")
    if not metrics:
        raise RunError(f"{run}: holds no metrics.json; expected the folder of a finished run")
    config = read_json(run / "config.json")
    record = read_json(run / "capture" / "cameras.json")
    source = record.get("source")
    source = source if isinstance(source, dict) else {}
    body = [
        _header(run, metrics, source),
        _section("Held-out views", _view_section(run, metrics)),
        _section("Scores", _score_table(metrics)),
        _section("Training", _curves(run, metrics)),
        _section("Cameras", _cameras(run)),
        _section("Time", _timings(metrics)),
        _section("Capture", _notes(source)),
        _section("Settings and versions", _settings(config, metrics)),
    ]
    title = html.escape(f"{run.resolve().name} · lumefield")
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{CSS}</style></head><body><main>{''.join(body)}"
        "<footer>Written by lumefield. Colours are display sRGB; scores are means over the "
        "held-out views at 8 bits, full image; SSIM: 11x11 Gaussian window, sigma 1.5.</footer>"
        f"</main><script>{SCRIPT}</script></body></html>\n"
    )
    path = run / "report.html"
    with replacing(path) as file:
        file.write(page.encode())
    return path


def _header(run: Path, metrics: dict[str, Any], source: dict[str, Any]) -> str:
    facts = (
        ("psnr", "PSNR, held-out views", "{:.2f}", "dB"),
        ("ssim", "SSIM, held-out views", "{:.3f}", ""),
        ("num_gaussians", "Gaussians", "{:,.0f}", ""),
        ("parameters", "parameters of the field", "{:,.0f}", ""),
        ("steps", "steps", "{:,.0f}", ""),
        ("seconds", "training time", "", ""),
        ("peak_rss_mb", "peak memory", "{:,.0f}", "MB"),
    )
    cards: list[str] = []
    for key, label, form, unit in facts:
        value = _number(metrics.get(key))
        if value is None or (key == "num_gaussians" and not value):
            continue
        text = _duration(value) if key == "seconds" else form.format(value)
        small = f"<small>{unit}</small>" if unit else ""
        cards.append(f"<div class=card><b>{text}{small}</b><span>{label}</span></div>")
    words = [str(source.get("summary") or source.get("path") or "")]
    words += [str(metrics.get(key) or "") for key in ("method", "backend")]
    line = " · ".join(html.escape(w) for w in words if w)
    return (
        f"<header><h1>{html.escape(run.resolve().name)}</h1><p>{line}</p>"
        f"<div class=cards>{''.join(cards)}</div></header>"
    )


def _section(title: str, inside: str) -> str:
    return f"<section><h2>{title}</h2>{inside}</section>"


def _view_section(run: Path, metrics: dict[str, Any]) -> str:
    trios, total = _load_views(run, metrics)
    if not trios:
        return "<p class=hint>The run holds no pictures of held-out views.</p>"
    pictures = _embedded(trios)
    ramp = f"linear-gradient(90deg,{','.join(STOPS)})"
    shown = f" Shown: {len(trios)} of {total}, from worst to best." if total > len(trios) else ""
    parts = [
        f"<p class=hint>Drag across a render to wipe the truth in.{shown}</p>"
        f'<div class=legend>error: 0 <div class=ramp style="background:{ramp}"></div> '
        f"{ERROR_SCALE:.0%} of full range or more (mean over the channels)</div>"
    ]
    for trio, (truth, render, error) in zip(trios, pictures, strict=True):
        name = html.escape(trio.name)
        parts.append(
            f"<div class=view><h3>{name}<span>{trio.note}</span></h3><div class=trio>"
            f'<figure><img class=truth src="{truth}" alt="truth of {name}">'
            "<figcaption>truth</figcaption></figure>"
            f'<figure><div class=wipe><img src="{render}" alt="render of {name}">'
            '<img class=over alt=""><input type=range min=0 max=100 step=0.5 value=0 '
            f'aria-label="wipe between render and truth of {name}"></div>'
            "<figcaption>render</figcaption></figure>"
            f'<figure><img src="{error}" alt="error of {name}">'
            "<figcaption>error</figcaption></figure></div></div>"
        )
    return "".join(parts)


def _load_views(run: Path, metrics: dict[str, Any]) -> tuple[list[_Trio], int]:
    """Pictures of at most ``MAX_VIEWS`` views (evenly over the scores), and how many there are."""
    views = _scored(metrics)
    stems = image_stems([str(v.get("name", "")) for v in views])
    folder = run / "renders"
    have = [
        (view, stem)
        for view, stem in zip(views, stems, strict=True)
        if (folder / f"{stem}.png").is_file() and (folder / f"{stem}.truth.png").is_file()
    ]
    total = len(have)
    if total > MAX_VIEWS:
        have.sort(key=lambda item: _number(item[0].get("psnr")) or 0.0)
        have = [have[i] for i in np.linspace(0, total - 1, MAX_VIEWS).round().astype(int)]
    trios: list[_Trio] = []
    for view, stem in have:
        truth, render = _pixels(folder / f"{stem}.truth.png"), _pixels(folder / f"{stem}.png")
        if truth.shape != render.shape:
            raise RunError(f"{folder}: {stem}.png and its truth differ in size; run `evaluate`")
        psnr, ssim = _number(view.get("psnr")), _number(view.get("ssim"))
        note = f"{_score(psnr, 2)} dB · SSIM {_score(ssim, 3)}"
        trios.append(_Trio(str(view.get("name", stem)), truth, render, note))
    return trios, total


def _embedded(trios: list[_Trio]) -> list[tuple[str, str, str]]:
    """Data addresses of (truth, render, error) of every view, together below ``MAX_BYTES``."""
    for width in (960, 800, 640, 520, 420, 320, 240, 160):
        made: list[tuple[str, str, str]] = []
        for trio in trios:
            apart = np.abs(trio.truth.astype(np.float32) - trio.render).mean(-1) / 255
            error = heat(apart / ERROR_SCALE)
            truth, render, colours = (
                _address(image, width) for image in (trio.truth, trio.render, error)
            )
            made.append((truth, render, colours))
        if sum(len(a) for row in made for a in row) * 3 / 4 <= MAX_BYTES:
            return made
    return made


def _address(pixels: NDArray[np.uint8], width: int) -> str:
    from PIL import Image

    image = Image.fromarray(pixels)
    if image.width > width:
        height = max(1, round(image.height * width / image.width))
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=88, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def _score_table(metrics: dict[str, Any]) -> str:
    rows = [
        (str(v.get("name", "")), _number(v.get("psnr")), _number(v.get("ssim")))
        for v in _scored(metrics)
    ]
    if not rows:
        return "<p class=hint>No held-out views were scored.</p>"
    best = max([p or 0.0 for _, p, _ in rows] + [1.0])
    lines = [
        f"<tr><td>{html.escape(name)}</td><td class=n>{_score(psnr, 2)}</td>"
        f"<td class=n>{_score(ssim, 4)}</td><td class=meter>"
        f'<div style="width:{100 * max(psnr or 0, 0) / best:.1f}%"></div></td></tr>'
        for name, psnr, ssim in rows
    ]
    lines.append(
        f"<tr class=total><td>mean</td><td class=n>{_score(_number(metrics.get('psnr')), 2)}</td>"
        f"<td class=n>{_score(_number(metrics.get('ssim')), 4)}</td><td></td></tr>"
    )
    head = "<tr><th>view<th class=n>PSNR, dB<th class=n>SSIM<th></tr>"
    return f"<div class=panel><table>{head}{''.join(lines)}</table></div>"


def _curves(run: Path, metrics: dict[str, Any]) -> str:
    rows = _log(run / "log.jsonl")
    plots: list[str] = []
    for key, title in (
        ("loss", "loss"),
        ("psnr", "PSNR of training views, dB"),
        ("gaussians", "Gaussians"),
        ("rays", "rays per step"),
    ):
        pairs = [(_number(r.get("step")), _number(r.get(key))) for r in rows]
        known = [(s, v) for s, v in pairs if s is not None and v is not None]
        if len(known) < 2:
            continue
        mark = _number(metrics.get("psnr")) if key == "psnr" else None
        drawing = curve(
            [s for s, _ in known], [v for _, v in known], mark=mark, label="held-out views"
        )
        plots.append(f"<div class=plot><h3>{title}</h3>{drawing}</div>")
    if not plots:
        return "<p class=hint>The run holds no training log.</p>"
    return f"<div class=pair>{''.join(plots)}</div>"


def _log(path: Path) -> list[dict[str, Any]]:
    """Lines of a training log that can be read; a line cut off by a crash is left out."""
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    rows: list[dict[str, Any]] = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _cameras(run: Path) -> str:
    file = run / "capture" / "cameras.json"
    if not file.is_file():
        return "<p class=hint>The run holds no cameras.</p>"
    views = load_views(file)
    points, colours = _scene_points(run)
    top, side = camera_plots(views, points, colours)
    held = sum(views.held_out)
    key = (
        '<div class="legend key"><span><i style="background:var(--train)"></i>'
        f"{len(views) - held} for training</span><span>"
        f'<i style="background:var(--held)"></i>{held} held out</span></div>'
    )
    return (
        f"{key}<div class=pair><div class=plot><h3>from above</h3>{top}</div>"
        f"<div class=plot><h3>from the side</h3>{side}</div></div>"
    )


def _scene_points(run: Path) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Positions and colours of what is clearly visible, the same ones every time."""
    from lumefield.codecs.formats import load_splats

    scene = run / "scene.ply"
    if (run / FIELD_FILE).is_file():
        points, colours = read_surface(run / FIELD_FILE)
        step = max(1, -(-len(points) // MAX_POINTS))
        return points[::step], colours[::step]
    if not scene.is_file():
        return np.zeros((0, 3)), np.zeros((0, 3), np.uint8)
    splats = load_splats(scene)
    good = (splats.logit_opacities > -0.5) & np.isfinite(splats.means).all(1)
    good &= np.isfinite(splats.sh[:, 0]).all(1)
    chosen = np.flatnonzero(good)
    if len(chosen) > MAX_POINTS:
        chosen = np.sort(np.random.default_rng(0).choice(chosen, MAX_POINTS, replace=False))
    colours = np.clip(0.5 + 0.28209479177387814 * splats.sh[chosen, 0], 0, 1) * 255
    return splats.means[chosen].astype(np.float64), colours.astype(np.uint8)


def _timings(metrics: dict[str, Any]) -> str:
    found = metrics.get("timings")
    spent = {str(k): _number(v) for k, v in found.items()} if isinstance(found, dict) else {}
    if "training" not in spent:
        spent = {"training": _number(metrics.get("seconds")), **spent}
    rows = [(name, seconds) for name, seconds in spent.items() if seconds is not None]
    if not rows:
        return "<p class=hint>No times were recorded.</p>"
    most = max([s for _, s in rows] + [1e-9])
    lines = [
        f"<tr><td>{html.escape(name)}</td><td class=n>{_duration(s)}</td>"
        f'<td class=meter><div style="width:{100 * s / most:.1f}%"></div></td></tr>'
        for name, s in rows
    ]
    return f"<div class=panel><table>{''.join(lines)}</table></div>"


def _notes(source: dict[str, Any]) -> str:
    rows = [(k, v) for k, v in source.items() if k != "notes" and v not in (None, "")]
    notes = source.get("notes")
    notes = [str(n) for n in notes] if isinstance(notes, list) else []
    if not rows and not notes:
        return "<p class=hint>Nothing was noted about the input.</p>"
    items = "".join(f"<li>{html.escape(n)}</li>" for n in notes)
    return f"<div class=panel>{_table(rows)}{f'<ul>{items}</ul>' if items else ''}</div>"


def _settings(config: dict[str, Any], metrics: dict[str, Any]) -> str:
    versions = metrics.get("versions") or config.get("versions")
    settings = [(k, v) for k, v in config.items() if k != "versions"]
    parts = [f"<details open><summary>settings</summary>{_table(settings)}</details>"]
    if isinstance(versions, dict):
        parts.append(
            f"<details><summary>versions</summary>{_table(list(versions.items()))}</details>"
        )
    return f"<div class=panel>{''.join(parts)}</div>"


def _table(rows: list[tuple[str, Any]]) -> str:
    lines = [f"<tr><th>{html.escape(str(k))}</th><td>{_text(v)}</td></tr>" for k, v in rows]
    return f"<table>{''.join(lines)}</table>" if lines else ""


def _text(value: Any) -> str:  # noqa: ANN401
    """A value as escaped text; structures as JSON."""
    plain = isinstance(value, str | int | float) or value is None
    return html.escape(str(value) if plain else json.dumps(value, default=str))


def _scored(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    views = metrics.get("views")
    return [v for v in views if isinstance(v, dict)] if isinstance(views, list) else []


def _number(value: Any) -> float | None:  # noqa: ANN401
    """``value`` when it is a finite number, else None: files may hold anything."""
    good = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if good and math.isfinite(value) else None


def _score(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _pixels(path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise RunError(f"{path}: cannot be read ({error}); run `lumefield evaluate`") from None
