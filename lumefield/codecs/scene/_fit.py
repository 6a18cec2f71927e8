"""From Gaussians and what their errors cost to a model: units, shifts, predictions, sizes."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.scene._canonical import Canonical
from lumefield.codecs.scene._model import (
    BINS,
    FRACTION,
    LIMIT,
    MOST_CLASS,
    NEAR,
    SLOPES,
    SPREAD_FRACTION,
    Floats,
    Group,
    GroupModel,
    Ints,
    SceneModel,
    facts_of,
    groups_of,
    power,
)
from lumefield.codecs.scene._walk import blocks, neighbours

_RATE_TO_STEP = 6.0 / np.log(2.0)
"""A uniform quantiser of step d has error d^2 / 12; at rate r it falls by 2 ln 2 a bit, so that the
best d^2 is this times (price of a bit) / (cost of squared error)."""
_TINY = 1e-30
_ENOUGH = 50_000
"""Gaussians that a prediction is fitted to, at least, where there are as many."""
_FIRST_SCALES = tuple(
    int(np.clip(np.rint(30 + 5 * np.log2(x / 16)), 4, 63)) for x in (0.7, *(1.2 * b for b in BINS))
)


def channels_of(form: Canonical) -> Floats:
    """(N, C) real numbers in the order of the channels; the class is 0."""
    n = len(form.means)
    parts = [np.zeros((n, 1)), form.logits[:, None], form.log_scales, form.turns]
    parts.append(form.colours[:, 0])
    degree = round(form.colours.shape[1] ** 0.5) - 1
    for band in range(1, degree + 1):
        whole = form.colours[:, band * band : (band + 1) ** 2]
        parts += [whole[:, :, 0], whole[:, :, 1:].reshape(n, 4 * band + 2)]
    return np.concatenate(parts, 1)


def form_of(values: Floats, means: Floats, degree: int) -> Canonical:
    """The inverse of :func:`channels_of`."""
    n = len(values)
    colours = np.zeros((n, (degree + 1) ** 2, 3))
    colours[:, 0], at = values[:, 8:11], 11
    for band in range(1, degree + 1):
        size, bands = 2 * band + 1, slice(band * band, (band + 1) ** 2)
        colours[:, bands, 0] = values[:, at : at + size]
        colours[:, bands, 1:] = values[:, at + size : at + 3 * size].reshape(n, size, 2)
        at += 3 * size
    return Canonical(means, values[:, 5:8], values[:, 2:5], values[:, 1], colours)


def classes(costs: Floats) -> Ints:
    """(N,) classes: octaves by which the square root of a Gaussian's cost is below the largest.

    Args:
        costs: (N, C) cost of squared errors; that of the greys, channel 8, speaks for all.
    """
    levels = 0.5 * np.log2(np.maximum(costs[:, 8], _TINY))
    top = np.quantile(levels, 0.999) if len(levels) else 0.0
    return np.clip(np.rint(top - levels), 0, MOST_CLASS).astype(np.int64)


def fit_shifts(real: Floats, costs: Floats, price: float, degree: int) -> list[GroupModel]:
    """Units and shifts with which steps follow the costs, as far as the decoder can know.

    Args:
        real: (N, C) channels, the class filled in.
        costs: (N, C) squared error of pictures per squared error.
        price: Squared error that one bit is worth.
        degree: Of the harmonics.
    """
    models = list[GroupModel]()
    for index, group in enumerate(groups_of(degree)):
        if not index:
            models.append(GroupModel(unit=0))
            continue
        wanted = _log_step(costs[:, group.first : group.stop].mean(1), price)
        known = min(index, SLOPES)  # class, then logit, then sizes
        facts = _facts(real)[: 1 if group.first >= 8 else known]
        slopes, spread = _line(facts, wanted)
        # Shifts are whole and at least 0: the unit is the finest step that is worth having.
        low = float(np.quantile(spread, 0.002)) if len(spread) else 0.0
        unit = int(np.clip(np.rint(8 * low), -127, 127))
        constant = int(np.clip(np.rint(32 * (slopes[-1] - unit / 8)), -2047, 2047))
        whole = [int(np.clip(np.rint(32 * s), -2047, 2047)) for s in slopes[:-1]]
        whole += [0] * (SLOPES - len(whole))
        models.append(GroupModel(unit=unit, slopes=(*whole, constant)))
    return models


def fit_finer(real: Floats, costs: Floats, price: float, cell: float) -> tuple[int, ...]:
    """Slopes of the bits of positions below their cells of side ``cell``; costs: (N,)."""
    wanted = np.log2(max(cell, 1e-30)) - _log_step(costs, price)
    slopes, _ = _line(_facts(real), wanted)
    # Half a bit more, as bits are whole, and too few hurt more than too many cost.
    return tuple(int(np.clip(np.rint(32 * s), -2047, 2047)) for s in slopes)


def _log_step(costs: Floats, price: float) -> Floats:
    return 0.5 * np.log2(_RATE_TO_STEP * price / np.maximum(costs, _TINY))


def _facts(real: Floats) -> Floats:
    """As ``facts_of`` of the model, of real numbers."""
    return np.stack([real[:, 0], real[:, 1], *(real[:, k] / np.log(2) for k in (2, 3, 4))])


def _line(facts: Floats, wanted: Floats) -> tuple[Floats, Floats]:
    """Least squares: slopes and constant, and the fitted values."""
    x = np.concatenate([facts, np.ones((1, facts.shape[1]))]).T
    ok = wanted < np.median(wanted) + 8 if len(wanted) else np.zeros(0, np.bool_)
    ridge = 1e-3 * max(len(x), 1) * np.eye(x.shape[1])
    slopes = np.linalg.solve(x[ok].T @ x[ok] + ridge, x[ok].T @ wanted[ok])
    return slopes, x @ slopes


def quantisable(real: Floats, models: list[GroupModel], degree: int) -> Ints:
    """Channels in whole units."""
    found = np.zeros(real.shape, np.int64)
    for group, model in zip(groups_of(degree), models, strict=True):
        part = slice(group.first, group.stop)
        found[:, part] = np.clip(np.rint(real[:, part] / power(model.unit)), -LIMIT, LIMIT)
    return found


def fit_predictions(units: Ints, cells: Ints, models: list[GroupModel], degree: int) -> SceneModel:
    """Weights of predictions and of expected sizes, by least squares over all Gaussians.

    Args:
        units: (N, C) channels in units.
        cells: (N, 3).
        models: With units and shifts.
        degree: Of the harmonics.
    """
    near_at = np.zeros((NEAR, len(cells)), np.int64)
    for stride, targets in blocks(len(cells)):
        near_at[:, targets] = neighbours(stride, targets, cells)
    facts = facts_of(units[:, :5], tuple(models))
    found = list[GroupModel]()
    for group, model in zip(groups_of(degree), models, strict=True):
        found.append(_fit_group(group, model, units, near_at, model.shift(facts)))
    return SceneModel(degree, tuple(found), (0,) * (SLOPES + 1))


def _fit_group(
    group: Group, model: GroupModel, units: Ints, near_at: Ints, shift: Ints
) -> GroupModel:
    rows, wanted = list[Floats](), list[Floats]()
    some = slice(None, None, max(1, len(shift) // _ENOUGH))
    near_at, shift, own = near_at[:, some], shift[some], units[some]
    for channel, pair in zip(range(group.first, group.stop), group.inner, strict=True):
        near = units[near_at, channel].astype(np.float64)
        inner = [(units[:, c] - (units[near_at, c].sum(0) >> 2)) * float(c < channel) for c in pair]
        rows.append(np.concatenate([near, np.stack(inner), np.ones((1, len(shift)))]))
        wanted.append(own[:, channel].astype(np.float64))
    step = np.exp2(shift.astype(np.float64))
    x, y = np.concatenate(rows, 1).T, np.concatenate(wanted)
    steps = np.tile(step, len(rows))
    weights = _robust(x, y, steps)
    whole = np.clip(np.rint(weights[:-1] * (1 << FRACTION)), -4095, 4095).astype(np.int64)
    offset = int(np.clip(np.rint(weights[-1]), -LIMIT, LIMIT))
    error = np.abs(y - (x[:, :-1] @ (whole / (1 << FRACTION)) + offset))
    near, inner = x[:, :NEAR], x[:, NEAR:-1]
    spread = np.abs(near - near.mean(1, keepdims=True)).mean(1)
    size = np.stack([steps, np.ones(len(y)), spread, np.abs(inner).sum(1) / 2], 1)
    from scipy.optimize import nnls

    scaled = size / steps[:, None]
    best = nnls(scaled.T @ scaled + 1e-6 * np.eye(4), scaled.T @ np.minimum(error / steps, 60))[0]
    weights = tuple(
        int(np.clip(np.rint(w * (1 << SPREAD_FRACTION)), 0, 4095)) for w in best.tolist()
    )
    return dataclasses.replace(
        model,
        near=tuple(whole[:NEAR].tolist()),
        inner=tuple(whole[NEAR:].tolist()),
        offset=offset,
        spread=weights,
        scales=_FIRST_SCALES,
    )


def _robust(x: Floats, y: Floats, steps: Floats) -> Floats:
    """Least squares in steps, three times over, with less weight on what is far off."""
    trust = 1 / steps**2
    weights = np.zeros(x.shape[1])
    for _ in range(3):
        scale = np.sqrt((trust[:, None] * x * x).mean(0)) + 1e-12
        z = x / scale
        gram = (z * trust[:, None]).T @ z
        ridge = 1e-4 * np.trace(gram) / len(gram) * np.eye(len(gram))
        weights = (
            np.linalg.solve(gram + ridge + 1e-12 * np.eye(len(gram)), (z * trust[:, None]).T @ y)
            / scale
        )
        error = np.abs(y - x @ weights) / steps
        trust = 1 / (steps**2 * np.maximum(error, 1.0))
    return weights


def fit_scales(
    model: SceneModel, seen: list[dict[int, NDArray[np.int64]]], bits: Floats
) -> SceneModel:
    """The scale of every bin with which the symbols seen in it take fewest bits.

    Args:
        model: To be given new scales.
        seen: For every group and bin, how often each |q| <= 128 came (127 and more together).
        bits: (64, 129) bits of a |q| at each scale.
    """
    groups = list[GroupModel]()
    for part, bins in zip(model.groups, seen, strict=True):
        scales, last = list[int](), 30
        for index in range(len(BINS) + 1):
            if index in bins:
                last = int((bits @ bins[index]).argmin())
            scales.append(last)
        groups.append(dataclasses.replace(part, scales=tuple(scales)))
    return dataclasses.replace(model, groups=tuple(groups))
