"""Gaussians to ``.lume`` bytes at a price per bit, and back."""

import dataclasses
import functools
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.formats import Splats
from lumefield.codecs.neural._container import (
    METADATA_CHUNK,
    NAME_CHUNK,
    SPLATS,
    SPLATS_CHUNK,
    Chunk,
    Container,
    pack,
    unpack,
)
from lumefield.codecs.neural._laplace import MEANS, cumulative, reach
from lumefield.codecs.neural._levels import MAX_LANES
from lumefield.codecs.neural._model import MAX_LATENT
from lumefield.codecs.scene import _fit, _stream, _tree
from lumefield.codecs.scene._canonical import Canonical, canonical, full_quaternions, red_first
from lumefield.codecs.scene._model import (
    BINS,
    SLOPES,
    Floats,
    GroupModel,
    Ints,
    SceneModel,
    groups_of,
)
from lumefield.codecs.scene._stream import Coded
from lumefield.codecs.scene._walk import rows_of, walk
from lumefield.errors import FormatError, RunError, format_errors_of

_REMOVED = 0.25
"""Mean squared difference between a Gaussian's colour and what is behind it, and more, because the
gaps of neighbours add up."""
_TOGETHER = (4.0, 3.0, 8.0, 12.0, 1.0)
"""Errors of neighbours are alike where they are rounded towards one another, so that they cost more
than by themselves: by these factors for centres, turns, sizes, opacities and colours."""
_HARMONICS = 5.0
"""The same for colours that change with the view."""
_SHORT = 0.01
"""An axis thinner than a pixel costs nothing until it is not: at least this share of the middle."""
_BITS = 90.0
"""Bits of a Gaussian, about."""
_SH_C0 = 0.28209479177387814


def kept(costs: Canonical, price: float) -> NDArray[np.bool_]:
    """Which Gaussians are worth their bits.

    Args:
        costs: What errors of every number cost, see ``encode_scene``.
        price: Squared error that one bit is worth.
    """
    gone = costs.colours[:, 0].sum(1) * (_REMOVED / _SH_C0**2)
    return gone > price * _BITS


def encode_scene(splats: Splats, costs: Canonical, price: float, *, name: str = "") -> bytes:
    """A ``.lume`` file of a scene, decoded and compared before it is returned.

    Args:
        splats: N Gaussians; all are kept, in another order.
        costs: Squared error of pictures (mean over pixels) that a squared error of each number of
            ``canonical(splats)`` makes.
        price: Squared error that one bit is worth; smaller is better and larger.
        name: Of the original file, kept in the file where not empty.

    Raises:
        ValueError: If a number is not finite, or the harmonics are above degree 4.
        RunError: If the file does not decode to what was meant: a bug.
    """
    form = canonical(splats)
    if not all(np.isfinite(x).all() for x in (*form, *costs)):
        raise ValueError("a scene with numbers that are not finite; leave those Gaussians out")
    coded, runs = _quantised(form, costs, price)
    coded = coded._replace(antialiased=splats.antialiased)
    lanes = 1 << int(np.clip(len(form.means) // 8, 1, MAX_LANES)).bit_length() - 1
    chunk = _stream.encode_chunk(coded, runs, lanes)
    back = _stream.decode(chunk)
    same = np.array_equal(back.values, coded.values) and np.array_equal(back.below, coded.below)
    if not same or not np.array_equal(back.cells, coded.cells):
        raise RunError("the coded scene does not decode to what was meant; report it")
    facts: dict[str, Any] = {}
    if splats.up is not None:
        facts["up"] = list(splats.up)
    if splats.comments:
        facts["comments"] = list(splats.comments)
    chunks = [Chunk(NAME_CHUNK, name.encode())] if name else []
    chunks += [Chunk(METADATA_CHUNK, json.dumps(facts).encode())] if facts else []
    return pack(SPLATS, None, [*chunks, Chunk(SPLATS_CHUNK, chunk)])


def decode_scene(data: bytes, *, source: str = "the data") -> tuple[Splats, Container]:
    """The Gaussians of a ``.lume`` file and its header; the same bits on every machine.

    Args:
        data: The whole file.
        source: What to call the data in errors, such as the path.

    Raises:
        FormatError: If the data is not an intact scene of this format.
    """
    with format_errors_of(source):
        container = unpack(data, SPLATS)
        chunk = next(container.all(SPLATS_CHUNK), None)
        if chunk is None:
            raise FormatError("has no splats chunk; the file is cut off")
        facts = container.metadata()
        return _dressed(splats_of(_stream.decode(chunk)), facts), container


def splats_of(coded: Coded) -> Splats:
    """Real numbers of integers; sums and products one by one, so that they are exact."""
    groups, finer = groups_of(coded.model.degree), coded.finer()
    real = np.zeros(coded.values.shape)
    for group, part in zip(groups, coded.model.groups, strict=True):
        real[:, group.first : group.stop] = coded.values[:, group.first : group.stop] * part.size()
    whole = (coded.cells << finer[:, None]) + coded.below + 0.5
    share = np.ldexp(whole, -(coded.depth + finer)[:, None])
    means = np.array(coded.corner) + coded.side * share
    form = _fit.form_of(real, means, coded.model.degree)
    return Splats(
        means=form.means.astype(np.float32),
        quats_wxyz=full_quaternions(form.turns).astype(np.float32),
        log_scales=np.clip(form.log_scales, -80, 80).astype(np.float32),
        logit_opacities=np.clip(form.logits, -80, 80).astype(np.float32),
        sh=red_first(form.colours).astype(np.float32),
        antialiased=coded.antialiased,
    )


def _dressed(splats: Splats, facts: dict[str, Any]) -> Splats:
    up, comments = facts.get("up"), facts.get("comments", [])
    if isinstance(up, list) and len(up) == 3 and all(isinstance(v, int | float) for v in up):
        splats = dataclasses.replace(splats, up=(float(up[0]), float(up[1]), float(up[2])))
    if isinstance(comments, list) and all(isinstance(c, str) for c in comments):
        splats = dataclasses.replace(splats, comments=tuple(comments))
    return splats


def _quantised(
    form: Canonical, costs: Canonical, price: float
) -> tuple[Coded, list[tuple[Ints, Ints]]]:
    n, degree = len(form.means), round(form.colours.shape[1] ** 0.5) - 1
    if not n:
        none, groups = np.zeros((0, 3), np.int64), groups_of(degree)
        model = SceneModel(degree, tuple(GroupModel() for _ in groups), (0,) * (SLOPES + 1))
        values = np.zeros((0, groups[-1].stop), np.int32)
        return Coded(model, False, (0.0, 0.0, 0.0), 1.0, 1, none, values, none), []
    corner, side = _cube(form.means)
    depth = int(np.clip(np.ceil(np.log2(n) / 2) + 2, 1, _tree.MAX_DEPTH))
    share = (form.means - np.array(corner)) / side
    cells = np.clip(np.floor(share * 2.0**depth), 0, 2**depth - 1).astype(np.int64)
    order = np.argsort(_tree.woven(cells, depth), kind="stable")
    form, costs = (Canonical(*(x[order] for x in part)) for part in (form, costs))
    cells, share = cells[order], share[order]
    costs = Canonical(*(x * k for x, k in zip(costs, _TOGETHER, strict=True)))
    real, cost = _fit.channels_of(form), _fit.channels_of(costs)
    cost[:, 11:] *= _HARMONICS
    cost[:, 4] = np.maximum(cost[:, 4], _SHORT * cost[:, 3])
    real[:, 0] = _fit.classes(cost)
    models = _fit.fit_shifts(real, cost, price, degree)
    units = _fit.quantisable(real, models, degree)
    model = _fit.fit_predictions(units, cells, models, degree)
    cell = side / 2.0**depth
    finer = _fit.fit_finer(real, costs.means.mean(1), price, cell)
    model = dataclasses.replace(model, finer=finer)
    for _ in range(2):
        chooser = _Chooser(model, real, cost, price)
        values = walk(model, cells, chooser)
        model = _fit.fit_scales(model, chooser.seen, _bit_table())
    chooser = _Chooser(model, real, cost, price)
    values = walk(model, cells, chooser)
    coded = Coded(model, False, corner, side, depth, cells, values, np.zeros((n, 3), np.int64))
    bits = coded.finer()[:, None]
    below = np.floor(share * np.exp2(depth + bits.astype(np.float64))).astype(np.int64)
    below = np.clip(below - (cells << bits), 0, (1 << bits) - 1)
    return coded._replace(below=below), chooser.runs


def _cube(means: Floats) -> tuple[tuple[float, float, float], float]:
    """Corner and side of a cube of float32 numbers around all centres."""
    low = np.nextafter(means.min(0).astype(np.float32), np.float32(-np.inf))
    side = np.float32((means.max(0) - low.astype(np.float64)).max() * (1 + 1e-6) + 1e-30)
    return (float(low[0]), float(low[1]), float(low[2])), float(side)


@functools.cache
def _bit_table() -> Floats:
    """(64, 129) bits of a symbol of size 0 ... 128 at every scale, with sign and excess."""
    rows = cumulative()[:, MEANS // 2].astype(np.float64)
    size = np.arange(MAX_LATENT + 2)
    found = np.zeros((len(rows), len(size)))
    for scale, row in enumerate(rows):
        most = int(reach()[scale])
        at = np.minimum(size, most)
        found[scale] = 16 - np.log2(row[at + MAX_LATENT + 1] - row[at + MAX_LATENT])
        excess = np.maximum(size - most, 0) + 4
        found[scale] += np.where(size >= most, 2 * np.floor(np.log2(excess)) - 1, 0)
    return found


class _Chooser:
    """Chooses symbols: of the nearest value and those towards the prediction, what costs least."""

    def __init__(self, model: SceneModel, real: Floats, cost: Floats, price: float) -> None:
        self.runs = list[tuple[Ints, Ints]]()
        groups = groups_of(model.degree)
        self.seen: list[dict[int, Ints]] = [{} for _ in groups]
        self._group = np.repeat(np.arange(len(groups)), [g.stop - g.first for g in groups])
        self._rows = rows_of(model)
        self._model, self._real, self._cost, self._price = model, real, cost, price

    def __call__(self, targets: Ints, channel: int, guess: Ints, shift: Ints, size: Ints) -> Ints:
        """The symbols of one channel of a block."""
        group, row = int(self._group[channel]), self._rows[channel][size]
        unit = self._model.groups[group].size()
        wanted = self._real[targets, channel] / unit - guess
        step = np.exp2(shift.astype(np.float64))
        near = np.rint(wanted / step)
        best, least = near, np.full(len(near), np.inf)
        cost = self._cost[targets, channel] * unit**2
        bits, scale = _bit_table(), row // MEANS
        for toward in (0, 1, 2, None) if channel else (0,):
            much = np.zeros(len(near)) if toward is None else np.maximum(np.abs(near) - toward, 0)
            rate = bits[scale, np.minimum(much, MAX_LATENT + 1).astype(np.int64)]
            error = wanted - np.sign(near) * much * step
            total = cost * error**2 + self._price * rate
            best = np.where(total < least, np.sign(near) * much, best)
            least = np.minimum(total, least)
        q = best.astype(np.int64)
        self.runs.append((q, row))
        counts = np.zeros((len(BINS) + 1, MAX_LATENT + 2), np.int64)
        np.add.at(counts, (size, np.minimum(np.abs(q), MAX_LATENT + 1)), 1)
        for index in np.flatnonzero(counts.any(1)):
            self.seen[group][int(index)] = self.seen[group].get(int(index), 0) + counts[index]
        return q
