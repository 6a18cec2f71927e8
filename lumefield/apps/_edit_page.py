"""The report of an edit: pictures before and after, what was removed, and the record."""

import base64
import dataclasses
import html
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._edit_scene import Floats, Outcome, Removed, Subject, Tones
from lumefield.apps._report_style import CSS, SCRIPT
from lumefield.apps._scene_io import make_draw, to_bytes
from lumefield.apps._views import Views

if TYPE_CHECKING:
    from lumefield.codecs.formats import Splats

VIEWS = 6
"""Views shown, evenly chosen over all."""
SIDE = 480
"""Longest side of a picture, pixels."""
_C0 = 0.28209479177387814
_MARK = (1.0, 0.0, 0.6)
"""Display sRGB of what was removed."""
_DIMMED = 0.45
"""What stays is drawn in grey of this strength where removed Gaussians are shown."""


def page_of(subject: Subject, outcome: Outcome, record: dict[str, Any]) -> bytes:
    """One HTML page that opens from disk: no script but a wipe, no other file, no network."""
    title = f"{record['recipe']} · {subject.path.resolve().name}"
    before, after = record["gaussians"]
    cards = [("Gaussians before", f"{before:,}"), ("Gaussians after", f"{after:,}")]
    if outcome.removed:
        cards += [(text, f"{n:,}") for text, n in outcome.removed.counts().items()]
    shown = "".join(
        f"<div class=card><b>{value}</b><span>{html.escape(label)}</span></div>"
        for label, value in cards
    )
    told = "".join(f"<li>{html.escape(line)}</li>" for line in outcome.told)
    rows = "".join(
        f"<tr><th>{html.escape(k)}</th><td>{html.escape(_text(v))}</td></tr>"
        for k, v in record.items()
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{CSS}</style></head><body><main>"
        f"<header><h1>{html.escape(title)}</h1><p>lumefield edit</p>"
        f"<div class=cards>{shown}</div></header>"
        "<section><h2>Before and after</h2><p class=hint>Drag across the picture in the middle to "
        f"wipe the one before in.</p>{_views(subject, outcome)}</section>"
        f"<section><h2>What was found</h2><div class=panel><ul>{told}</ul></div></section>"
        f"<section><h2>Record</h2><div class=panel><table>{rows}</table></div></section>"
        "<footer>Written by lumefield. The scene that was edited is as it was.</footer>"
        f"</main><script>{SCRIPT}</script></body></html>\n"
    ).encode()


def _views(subject: Subject, outcome: Outcome) -> str:
    views = subject.views if subject.views is not None else subject.looks()
    chosen = np.unique(np.linspace(0, len(views) - 1, min(VIEWS, len(views))).round())
    views = _small(views.pick(chosen.astype(np.intp)))
    draw = make_draw(subject.splats, background=subject.background)
    draw_after = make_draw(outcome.splats, background=_behind(subject, outcome.tones))
    marked = outcome.removed and make_draw(_marked(subject.splats, outcome.removed))
    there = outcome.moved.views(views)
    parts: list[str] = []
    for k, name in enumerate(views.names):
        title, here = html.escape(name), views.pick([k])
        before = _address(to_bytes(draw(here).rgb))
        after = _address(to_bytes(draw_after(there.pick([k])).rgb))
        third = ""
        if marked:
            picture = _address(to_bytes(marked(here).rgb))
            third = (
                f'<figure><img src="{picture}" alt="removed in {title}">'
                "<figcaption>removed, in pink</figcaption></figure>"
            )
        parts.append(
            f"<div class=view><h3>{title}</h3><div class=trio>"
            f'<figure><img class=truth src="{before}" alt="{title} before">'
            "<figcaption>before</figcaption></figure>"
            f'<figure><div class=wipe><img src="{after}" alt="{title} after">'
            '<img class=over alt=""><input type=range min=0 max=100 step=0.5 value=0 '
            f'aria-label="wipe between after and before of {title}"></div>'
            f"<figcaption>after</figcaption></figure>{third}</div></div>"
        )
    return "".join(parts)


def _marked(splats: "Splats", removed: Removed) -> "Splats":
    """What stays in dim grey, what goes in one bright colour, neither changing with the view."""
    grey = 0.5 + _C0 * splats.sh[:, 0].astype(np.float64).mean(1, keepdims=True)
    colour: Floats = np.where(
        removed.kept[:, None], np.clip(grey, 0, 1) * _DIMMED, np.array([_MARK])
    )
    sh = ((colour - 0.5) / _C0).astype(np.float32)[:, None]
    return dataclasses.replace(splats, sh=sh)


def _behind(subject: Subject, tones: Tones | None) -> tuple[float, float, float]:
    if tones is None:
        return subject.background
    x, y, z = np.clip(tones(np.array(subject.background)), 0, 1).tolist()
    return (x, y, z)


def _small(views: Views) -> Views:
    """All at the size of the first, at most ``SIDE`` pixels a side."""
    width, height = (int(v) for v in views.size[0])
    factor = min(1.0, SIDE / max(width, height))
    return views.resized(max(1, round(width * factor)), max(1, round(height * factor)))


def _address(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=88, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
