"""Seamless cloning as a field: the gradient of one picture inside the frame of another.

Perez et al., "Poisson Image Editing", 2003: in the masked region the result has the gradient of the
source, on its border the values of the target. Here the unknown is a field Φ, and the two are the
residuals of F(x, Φ, ∇Φ) = 0: ∇Φ - ∇s at points anywhere in the mask (s is the cubic spline through
the pixels of the source) and Φ - t at the target's pixels around it. No value of the source is ever
seen. The honest baseline is the direct solution of the discrete equation (five-point stencil), that
every run computes as well, and that PSNR is taken against.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lumefield.apps._fit_settings import Fit, corner
from lumefield.apps._signal import Exhibit, Problem, decibels, evaluate
from lumefield.apps._signal_plan import make_size
from lumefield.codecs.formats import load_picture, save_picture
from lumefield.errors import FormatError, InputError

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]

POOL = 1 << 17
_RIM = 2
"""Pixels of the target around the mask that are taken as the border."""
_RIM_WEIGHT = 20.0
"""Weight of the border; gradients are counted per pixel, so they are small numbers."""
_RIM_SHARE = 4
"""One in so many points of a step lies on the border."""


@dataclass(frozen=True)
class Clone:
    """A cloning task, cut to the mask's surroundings; all arrays [H, W, ...]."""

    target: Floats
    """Channels of the target, display sRGB."""
    source: Floats
    """The source moved to its place; zero where it does not reach."""
    mask: Bools
    """Pixels to be drawn."""
    rim: Bools
    """Pixels of the target around them."""


def prepare(settings: Fit) -> Problem:
    """Make a target, a source and its mask ready to be fitted.

    Raises:
        InputError: If files or flags do not fit together.
        FormatError: If a file is damaged.
    """
    target, clone, (top, left) = _load(settings)
    height, width, channels = clone.target.shape
    inside, rim = np.argwhere(clone.mask), np.argwhere(clone.rim)
    size = make_size(
        settings,
        "gradient",
        samples=POOL,
        side=max(height, width),
        d_in=2,
    )
    own = max(height, width)
    points, slopes = _slopes(clone, inside, settings.seed)
    rim_points, rim_values = rim + 0.5, clone.target[tuple(rim.T)] * 2 - 1
    # Pixels from the corner of the cut to [-1, 1] along its longer side; columns first.
    facts: dict[str, Any] = {"height": height, "width": width, "top": top, "left": left}

    def batches(first: int, count: int) -> Any:  # noqa: ANN401
        out: list[tuple[Floats, ...]] = []
        for step in range(first, first + count):
            rng = np.random.default_rng((settings.seed, step))
            a = rng.integers(0, len(points), size.batch)
            b = rng.integers(0, len(rim_points), max(1, size.batch // _RIM_SHARE))
            at = (places(points[a], height, width), places(rim_points[b], height, width))
            out.append((*at, slopes[a], rim_values[b]))
        return tuple(np.stack(part) for part in zip(*out, strict=True))

    def finish(field: Any, folder: Path) -> tuple[dict[str, Any], list[Exhibit]]:  # noqa: ANN401
        return _finish(field, folder, target, clone, facts)

    return Problem(
        kind="gradient",
        d_in=2,
        d_out=channels,
        size=size,
        facts=facts,
        summary=f"{settings.input.name}: {len(inside):,} pixels of {settings.source} cloned in",
        notes=(),
        loss=make_loss(own),
        batches=batches,
        unit="dB",
        result="image.png",
        finish=finish,
    )


def make_loss(own: int) -> Any:  # noqa: ANN401
    """The loss of a cut whose longer side has ``own`` pixels; ``shown`` is that of gradients."""
    from lumefield.fields import value_and_jacobian

    def loss(
        field: Any,  # noqa: ANN401
        aux: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        key: jax.Array,
        step: jax.Array,
    ) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
        del key, step
        points, rim, slopes, values = batch
        jacobian = value_and_jacobian(field, points)[1] * (2.0 / own)  # per pixel
        inner = jnp.mean((jacobian - slopes) ** 2)
        outer = jnp.mean((field(rim) - values) ** 2)
        # In units of encoded values squared: the field draws [-1, 1].
        return own * inner + _RIM_WEIGHT * outer, (aux, {"shown": inner / 4, "rim": outer / 4})

    return loss


def places(rows_columns: NDArray[Any], height: int, width: int) -> Floats:
    """Coordinates (..., 2), columns first, of positions in pixels from the corner of the cut."""
    own = max(height, width)
    y = (2 * rows_columns[..., 0] - height) / own
    x = (2 * rows_columns[..., 1] - width) / own
    return np.stack([x, y], -1).astype(np.float32)


def solve(clone: Clone) -> Floats:
    """The direct solution of the discrete Poisson equation in the mask: [H, W, C].

    Perez et al., Eq. 7 with v = the source's differences: for every pixel of the mask the sum over
    its neighbours q of (f_p - f_q) is that of (s_p - s_q); f is the target's outside.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import splu

    height, width = clone.mask.shape
    rows = np.argwhere(clone.mask)
    number = np.full((height, width), -1)
    number[clone.mask] = np.arange(len(rows))
    diagonal = np.zeros(len(rows))
    right = np.zeros((len(rows), clone.target.shape[-1]))
    at: list[NDArray[np.int64]] = []
    to: list[NDArray[np.int64]] = []
    for step in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        q = rows + step
        there = (q >= 0).all(1) & (q < (height, width)).all(1)
        p, q, own = rows[there], q[there], np.flatnonzero(there)
        diagonal[own] += 1
        right[own] += clone.source[tuple(p.T)] - clone.source[tuple(q.T)]
        other = number[tuple(q.T)]
        known = other < 0
        right[own[known]] += clone.target[tuple(q[known].T)]
        at.append(own[~known])
        to.append(other[~known])
    i = np.concatenate([*at, np.arange(len(rows))])
    j = np.concatenate([*to, np.arange(len(rows))])
    weight = np.concatenate([np.full(sum(map(len, at)), -1.0), diagonal])
    out = clone.target.copy()
    matrix = coo_matrix((weight, (i, j)), (len(rows), len(rows))).tocsc()
    out[clone.mask] = splu(matrix).solve(right).astype(np.float32)
    return out


def paint(field: Any, clone_mask: Bools) -> Floats:  # noqa: ANN401
    """Values (n, C) of a field at the pixels of a mask, display sRGB."""
    height, width = clone_mask.shape
    points = places(np.argwhere(clone_mask) + 0.5, height, width)
    return ((evaluate(field, points) + 1) / 2).astype(np.float32)


def _load(settings: Fit) -> tuple[Floats, Clone, tuple[int, int]]:
    if settings.source is None or settings.mask is None:
        raise InputError("--as gradient: needs --source and --mask; give both")
    pictures = [load_picture(p) for p in (settings.input, settings.source, settings.mask)]
    if pictures[0].linear or pictures[1].linear:
        raise InputError("cloning works on display colours; convert the EXR or HDR to PNG first")
    target, source = (_colour(p.values) for p in pictures[:2])
    if target.shape[-1] != source.shape[-1]:
        target, source = (np.broadcast_to(v, (*v.shape[:2], 3)).copy() for v in (target, source))
    mask = pictures[2].values
    mask = (mask[..., -1] if mask.shape[-1] in (2, 4) else mask.mean(-1)) > 0.5
    if mask.shape != source.shape[:2]:
        raise InputError(
            f"{settings.mask}: {mask.shape[1]}x{mask.shape[0]} pixels, expected the "
            f"{source.shape[1]}x{source.shape[0]} of {settings.source}"
        )
    if not mask.any():
        raise FormatError(f"{settings.mask}: is black all over; paint white what is to be cloned")
    left, top = corner(settings.at) or (0, 0)
    rows, columns = np.nonzero(mask)
    low = np.array([rows.min() + top, columns.min() + left])
    high = np.array([rows.max() + top, columns.max() + left]) + 1
    if (low < 0).any() or (high > target.shape[:2]).any():
        raise InputError(
            f"--at {left},{top}: the masked part would lie at rows {low[0]} to {high[0]} and "
            f"columns {low[1]} to {high[1]}, expected within the {target.shape[1]}x"
            f"{target.shape[0]} pixels of {settings.input}"
        )
    low = np.maximum(low - _RIM - 2, 0)
    high = np.minimum(high + _RIM + 2, target.shape[:2])
    cut = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    moved, moved_mask = np.zeros_like(target), np.zeros(target.shape[:2], bool)
    _paste(moved, source, top, left)
    _paste(moved_mask, mask, top, left)
    small = moved_mask[cut]
    rim = _grown(small, _RIM) & ~small
    if not rim.any():
        raise InputError(f"{settings.mask}: covers all of {settings.input}; leave a border")
    return target, Clone(target[cut], moved[cut], small, rim), (int(low[0]), int(low[1]))


def _slopes(clone: Clone, inside: NDArray[np.int64], seed: int) -> tuple[Doubles, Floats]:
    """Points (n, 2) in the mask, in pixels, and the spline's gradient (n, C, 2), columns first.

    Values are those of the field: twice the display value.
    """
    from scipy.interpolate import RectBivariateSpline

    rng = np.random.default_rng((seed, 1 << 40))
    points = inside[rng.integers(0, len(inside), POOL)] + rng.random((POOL, 2))
    height, width, channels = clone.source.shape
    rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
    at = (points[:, 0].clip(0.5, height - 0.5), points[:, 1].clip(0.5, width - 0.5))
    order = min(3, height - 1, width - 1)
    out = np.empty((POOL, channels, 2), np.float32)
    for c in range(channels):
        spline = RectBivariateSpline(rows, columns, clone.source[..., c], kx=order, ky=order)
        out[:, c, 0] = 2 * spline.ev(*at, dy=1)
        out[:, c, 1] = 2 * spline.ev(*at, dx=1)
    return points, out


def _finish(
    field: Any,  # noqa: ANN401
    folder: Path,
    target: Floats,
    clone: Clone,
    facts: Mapping[str, Any],
) -> tuple[dict[str, Any], list[Exhibit]]:
    start = time.perf_counter()
    direct = solve(clone)
    seconds = time.perf_counter() - start
    ours = clone.target.copy()
    ours[clone.mask] = paint(field, clone.mask)
    pasted = np.where(clone.mask[..., None], clone.source, clone.target)
    whole = {name: _within(target, part, facts) for name, part in (("a", ours), ("b", direct))}
    save_picture(folder / "image.png", whole["a"])
    save_picture(folder / "solver.png", whole["b"])
    np.save(folder / "mask.npy", clone.mask)

    def psnr(a: Floats, b: Floats) -> float:
        gap = np.clip(a, 0, 1).astype(np.float64) - np.clip(b, 0, 1)
        return round(decibels(float(np.mean(gap**2))), 4)

    metrics = {
        "psnr": psnr(ours[clone.mask], direct[clone.mask]),
        "psnr_image": psnr(whole["a"], whole["b"]),
        "psnr_paste": psnr(pasted[clone.mask], direct[clone.mask]),
        "solver_seconds": round(seconds, 4),
        "values": int(clone.mask.sum() * target.shape[-1]),
    }
    shown = [_eight(whole[name]) for name in ("b", "a")]
    note = f"{metrics['psnr']:.2f} dB against the direct solution, within the mask"
    return metrics, [Exhibit("clone", shown[0], shown[1], note)]


def _within(target: Floats, part: Floats, facts: Mapping[str, Any]) -> Floats:
    out = target.copy()
    top, left = int(facts["top"]), int(facts["left"])
    out[top : top + part.shape[0], left : left + part.shape[1]] = part
    return out


def _eight(values: Floats) -> NDArray[np.uint8]:
    rgb = np.broadcast_to(values, (*values.shape[:2], 3))
    return (np.clip(rgb, 0, 1) * 255 + 0.5).astype(np.uint8)


def _colour(values: Floats) -> Floats:
    return values[..., :-1] if values.shape[-1] in (2, 4) else values


def _paste(into: NDArray[Any], part: NDArray[Any], top: int, left: int) -> None:
    """Copy what of ``part`` lies inside, its corner at (top, left)."""
    a, b = max(top, 0), max(left, 0)
    c, d = min(top + part.shape[0], into.shape[0]), min(left + part.shape[1], into.shape[1])
    if a < c and b < d:
        into[a:c, b:d] = part[a - top : c - top, b - left : d - left]


def _grown(mask: Bools, by: int) -> Bools:
    """The mask and all within ``by`` steps to the four sides."""
    for _ in range(by):
        wide = np.pad(mask, 1)
        mask = wide[1:-1, 1:-1] | wide[:-2, 1:-1] | wide[2:, 1:-1]
        mask |= wide[1:-1, :-2] | wide[1:-1, 2:]
    return mask
