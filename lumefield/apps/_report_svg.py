"""Curves and camera plots as inline SVG; colours come from the classes of ``_report_style.CSS``."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._paths import look_centre, world_up
from lumefield.apps._views import Views

Doubles = NDArray[np.float64]

WIDTH, HEIGHT = 400, 210
LEFT, RIGHT, TOP, BOTTOM = 52, 20, 12, 28
PLOT = 520
"""Width of a camera plot."""


def curve(
    steps: Sequence[float], values: Sequence[float], *, mark: float | None = None, label: str = ""
) -> str:
    """A curve over training steps: the values thin, their running mean bold.

    Args:
        steps: Training steps, increasing.
        values: As many values.
        mark: A level to draw as a dashed line.
        label: What the level is.
    """
    x, y = _thinned(np.asarray(steps, np.float64), np.asarray(values, np.float64))
    if len(x) < 2:
        return "<p class=hint>too few values to draw</p>"
    levels = np.append(y, mark) if mark is not None else y
    ticks_y, ticks_x = ticks(float(levels.min()), float(levels.max())), ticks(0, float(x.max()))
    low, high = min(ticks_y[0], levels.min()), max(ticks_y[-1], levels.max())
    span = (high - low) or 1.0

    def at(px: float, py: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * px / max(float(x.max()), 1e-9)
        return across, TOP + (HEIGHT - TOP - BOTTOM) * (1 - (py - low) / span)

    parts: list[str] = []
    for t in ticks_y:
        _, v = at(0, t)
        parts.append(f'<line class=grid x1={LEFT} x2={WIDTH - RIGHT} y1="{v:.1f}" y2="{v:.1f}"/>')
        parts.append(f'<text x={LEFT - 7} y="{v + 4:.1f}" text-anchor=end>{t:g}</text>')
    for t in ticks_x:
        u, _ = at(t, low)
        if u <= WIDTH - RIGHT + 1:
            parts.append(f'<text x="{u:.1f}" y={HEIGHT - 10} text-anchor=middle>{t:g}</text>')
    for name, line in (("raw", y), ("smooth", _smooth(y))):
        points = " ".join("{:.1f},{:.1f}".format(*at(a, b)) for a, b in zip(x, line, strict=True))
        parts.append(f'<polyline class={name} points="{points}"/>')
    if mark is not None:
        _, v = at(0, mark)
        parts.append(f'<line class=mark x1={LEFT} x2={WIDTH - RIGHT} y1="{v:.1f}" y2="{v:.1f}"/>')
        parts.append(
            f'<text class=marktext x={WIDTH - RIGHT - 4} y="{v - 5:.1f}" text-anchor=end>'
            f"{label}</text>"
        )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role=img>{"".join(parts)}</svg>'


def camera_plots(views: Views, points: Doubles, colours: NDArray[np.uint8]) -> tuple[str, str]:
    """The cameras and the scene from above and from the side, up as the photographers held it.

    Args:
        views: Cameras of the capture.
        points: (p, 3) positions of the scene; p may be 0.
        colours: (p, 3) their sRGB colours.
    """
    up, centre = world_up(views), look_centre(views, points)
    east = views.world_from_cam[0, :, 0]
    east = east - (east @ up) * up
    east = east / max(float(np.linalg.norm(east)), 1e-9)
    north = np.cross(up, east)
    basis = np.stack([east, north, up])
    eyes = (views.world_from_cam[:, :, 3] - centre) @ basis.T
    reach = max(float(np.linalg.norm(eyes, axis=1).max()), 1e-9)
    seen = (points - centre) @ basis.T if len(points) else np.zeros((0, 3))
    near = np.linalg.norm(seen, axis=1) < 1.15 * reach
    seen, paint = seen[near], colours[near]
    corners = _corners(views, 0.13 * reach)
    corners = (corners - centre) @ basis.T
    plots = [_plot(eyes, corners, seen, paint, views, axes) for axes in ((0, 1), (0, 2))]
    return plots[0], plots[1]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round numbers from just below ``low`` to just above ``high``."""
    span = high - low
    if not math.isfinite(span) or span <= 0:
        span = max(abs(low), 1.0) * 0.1
        low, high = low - span / 2, high + span / 2
    raw = span / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 2.5, 5, 10) if m * unit >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _thinned(x: Doubles, y: Doubles, most: int = 300) -> tuple[Doubles, Doubles]:
    """Means over bins where there are more than ``most`` values; values not finite are left out."""
    good = np.isfinite(x) & np.isfinite(y)
    x, y = x[good], y[good]
    if len(x) <= most:
        return x, y
    edges = np.linspace(0, len(x), most + 1).astype(int)
    counts = np.diff(edges)
    return np.add.reduceat(x, edges[:-1]) / counts, np.add.reduceat(y, edges[:-1]) / counts


def _smooth(y: Doubles) -> Doubles:
    """Mean over a window of about a twelfth of the curve, narrower at its ends."""
    half = max(1, len(y) // 24)
    total = np.concatenate([[0.0], np.cumsum(y)])
    at = np.arange(len(y))
    reach = np.minimum(np.minimum(at, len(y) - 1 - at), half)
    return (total[at + reach + 1] - total[at - reach]) / (2 * reach + 1)


def _corners(views: Views, depth: float) -> Doubles:
    """World positions [n, 4, 3] of the image corners at ``depth``."""
    w, h = views.size[:, 0], views.size[:, 1]
    xy = np.stack([np.stack([0 * w, w, w, 0 * w], 1), np.stack([0 * h, 0 * h, h, h], 1)], -1)
    cam = np.concatenate(
        [(xy - views.centre[:, None]) / views.focal[:, None], np.ones((len(views), 4, 1))], -1
    )
    cam = cam * depth
    return (
        np.einsum("nij,nkj->nki", views.world_from_cam[:, :, :3], cam)
        + (views.world_from_cam[:, None, :, 3])
    )


def _plot(
    eyes: Doubles,
    corners: Doubles,
    points: Doubles,
    colours: NDArray[np.uint8],
    views: Views,
    axes: tuple[int, int],
) -> str:
    everything = np.concatenate([eyes, corners.reshape(-1, 3), points])[:, axes]
    low, high = everything.min(0), everything.max(0)
    scale = (PLOT - 20) / max(float(high[0] - low[0]), float(high[1] - low[1]) * 0.9, 1e-9)
    height = max(120, int((high[1] - low[1]) * scale) + 20)
    shift = (PLOT - (low[0] + high[0]) * scale) / 2

    def at(p: Doubles) -> Doubles:
        p = p[..., axes] * scale
        return np.stack([p[..., 0] + shift, height - 10 - (p[..., 1] - low[1] * scale)], -1)

    groups: dict[str, list[str]] = {}
    for (x, y), colour in zip(at(points), colours // 16, strict=True):
        groups.setdefault("#{:x}{:x}{:x}".format(*colour), []).append(f"M{x:.1f} {y:.1f}h0")
    parts = ["<g fill=none stroke-width=2.2 stroke-linecap=round stroke-opacity=.75>"]
    parts += [f'<path stroke="{c}" d="{"".join(d)}"/>' for c, d in groups.items()]
    parts.append("</g>")
    eye_at, corner_at = at(eyes), at(corners)
    for held in (False, True):
        for k in np.flatnonzero(np.array(views.held_out) == held):
            e, frame = eye_at[k], corner_at[k]
            loop = "".join(f"L{x:.1f} {y:.1f}" for x, y in [*frame, frame[0]])
            spokes = "".join(f"M{e[0]:.1f} {e[1]:.1f}L{x:.1f} {y:.1f}" for x, y in frame)
            name = "cam held" if held else "cam"
            parts.append(
                f'<path class="{name}" d="M{frame[0][0]:.1f} {frame[0][1]:.1f}{loop}{spokes}"/>'
            )
    return f'<svg viewBox="0 0 {PLOT} {height}" role=img>{"".join(parts)}</svg>'
