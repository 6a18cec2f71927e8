"""``lumefield compress`` of Gaussians: how many bits each is worth, found by looking."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lumefield.apps._views import Views
from lumefield.errors import InputError

if TYPE_CHECKING:
    from lumefield.apps._compress import Compress
    from lumefield.apps._decompress import Decompress
    from lumefield.apps._scene_io import Scene
    from lumefield.codecs.formats import Splats
    from lumefield.codecs.scene import Canonical

LOSS = 0.3
"""dB that held-out views may lose when nothing is asked for."""
_ASSUMED = 32.0
"""PSNR of a scene against photos, dB, where no run says it."""
_FIRST_PRICE, _SLOPE = 1e-11, -4.4
"""Squared error per bit to begin with, and dB per e-fold of it, about."""
_FIRST_SIZE = -0.3
"""Logarithm of bytes per e-fold of the price, about."""
_TRIES = 9
_NEAR = 0.02
"""dB, or 1 % of the bytes, that are near enough."""
_REACH = 0.1
"""Share by which a file may be smaller than asked for, as in scenes of a few Gaussians."""
_MOST_VIEWS = 12
_BEST = 99.0


class _Try(NamedTuple):
    """One encoding."""

    price: float
    data: bytes
    kept: int
    psnr: float
    """Against the scene's own pictures, mean over the views, dB."""


def is_scene(path: Path) -> bool:
    """Whether a path is the folder of a run or a splat file, by its name."""
    from lumefield.codecs.formats import SPLAT_SUFFIXES

    return path.is_dir() or path.suffix.lower() in SPLAT_SUFFIXES


def holds_scene(path: Path) -> bool:
    """Whether a ``.lume`` file holds Gaussians; a file that cannot be opened does not."""
    from lumefield.codecs.neural import Container

    try:
        with path.open("rb") as file:
            return Container.holds(file.read(6)) == "splats"
    except OSError:
        return False


def check_scene(settings: "Compress") -> None:
    """Complain about what does not fit a scene.

    Raises:
        InputError: If an option is for pictures or videos.
    """
    wrong = {"roi": "--roi", "lambda_": "--lambda", "frames": "--frames", "size": "--size"}
    for name, flag in wrong.items():
        if getattr(settings, name) is not None:
            raise InputError(f"{flag} is for pictures and videos; leave it out for a scene")


def compress_scene(settings: "Compress") -> Path:
    """Measure, prune, quantise, code, verify and write a scene of Gaussians.

    Raises:
        InputError: If the scene is a radiance field, or the wanted size or quality is out of reach.
        RunError: If the run holds no scene, or its files are damaged.
        FormatError: If the file of the scene is damaged.
    """
    from lumefield.apps._compress_views import sensitivities
    from lumefield.apps._progress import CaptureBar, Say
    from lumefield.apps._scene_io import load_scene
    from lumefield.codecs.formats import replacing
    from lumefield.codecs.scene import canonical

    scene, begun = load_scene(settings.input), time.monotonic()
    splats = scene.splats
    if not len(splats.means):
        raise InputError(f"{settings.input}: holds no Gaussians that can be drawn")
    if splats.sh.shape[1] > 25:
        raise InputError(f"{settings.input}: harmonics above degree 4 cannot be coded")
    seen, judged = _cameras(scene)
    with CaptureBar() as tell:
        costs = sensitivities(canonical(splats), seen, antialiased=splats.antialiased, tell=tell)
        found = _searched(settings, scene, costs, judged, tell)
    with replacing(settings.out) as file:
        file.write(found.data)
    plain = len(splats.means) * 4 * (14 + 3 * splats.sh.shape[1])
    say = Say()
    say.line(
        f"{settings.out}: {len(found.data):,} bytes, 1/{plain / len(found.data):.1f} of a PLY, "
        f"{found.kept:,} of {len(splats.means):,} Gaussians, {found.psnr:.2f} dB against the "
        f"scene's own pictures, {time.monotonic() - begun:.0f} s; decoded and compared"
    )
    if scene.views is not None:
        from lumefield.apps._export_job import scores
        from lumefield.codecs.scene import decode_scene

        for line in scores(scene, scene.views.test(), decode_scene(found.data)[0]).lines():
            say.line(line.replace("field", "scene").replace("splats", "decoded"))
    return settings.out


def decompress_scene(settings: "Decompress", data: bytes) -> Path:
    """Write the Gaussians of a ``.lume`` file in any splat format.

    Raises:
        InputError: If the suffix of ``--out`` is not one that can be written.
        FormatError: If the file is damaged.
    """
    from lumefield.apps._progress import Say
    from lumefield.codecs.formats import save_splats
    from lumefield.codecs.scene import decode_scene

    splats, _ = decode_scene(data, source=str(settings.input))
    save_splats(splats, settings.out)
    degree = round(splats.sh.shape[1] ** 0.5) - 1
    Say().line(
        f"{settings.out}: {len(splats.means):,} Gaussians, harmonics of degree {degree}, from "
        f"{len(data):,} bytes"
    )
    return settings.out


def _cameras(scene: "Scene") -> tuple[Views, Views]:
    """From where costs are measured, and from where quality is judged; never held-out views."""
    from lumefield.apps._bake_views import between, one_size
    from lumefield.apps._paths import around_points

    if scene.views is None:
        points = scene.surface()
        rounds = (0.35, -0.2, 0.9)
        seen = around_points(*points, 640, 480, turns=16, heights=rounds)
        judged = around_points(*points, 640, 480, turns=5, heights=(0.6, 0.1))
        return seen, judged
    train = [k for k, held in enumerate(scene.views.held_out) if not held]
    seen = scene.views.pick(train or list(range(len(scene.views))))
    judged = between(one_size(seen, 640), _MOST_VIEWS, seed=0)
    return seen, judged if len(judged) else seen


def _searched(
    settings: "Compress",
    scene: "Scene",
    costs: "Canonical",
    judged: Views,
    tell: Callable[[str, float], None],
) -> _Try:
    """The encoding that is wanted, by the secant method over the logarithm of the price."""
    attempt = _attempts(settings, scene, costs, judged)
    if settings.bytes is None:
        goal, slope = _wanted_psnr(settings, scene), _SLOPE

        def value(made: _Try) -> float:
            return made.psnr
    else:
        goal, slope = 100 * math.log(settings.bytes), 100 * _FIRST_SIZE

        def value(made: _Try) -> float:
            return 100 * math.log(len(made.data)) + 0.5  # rather a little too small

    near, tried = _NEAR if settings.bytes is None else 1.0, list[_Try]()
    price = _FIRST_PRICE
    for k in range(_TRIES):
        tell("searching", k / _TRIES)
        tried.append(attempt(price))
        ordered = sorted(tried, key=lambda made: abs(value(made) - goal))
        if abs(value(ordered[0]) - goal) <= near:
            break
        below = [made for made in tried if value(made) > goal]
        above = [made for made in tried if value(made) <= goal]
        if below and above:
            a, b = max(below, key=lambda m: m.price), min(above, key=lambda m: m.price)
            share = (goal - value(a)) / (value(b) - value(a))
            share = min(max(share, 0.05), 0.95)
            price = a.price * (b.price / a.price) ** share
        else:
            step = (goal - value(tried[-1])) / slope
            price = tried[-1].price * math.exp(min(max(step, -4.0), 4.0))
    best = min(tried, key=lambda made: abs(value(made) - goal))
    if settings.bytes is not None:
        fitting = [made for made in tried if len(made.data) <= 1.02 * settings.bytes]
        best = max(fitting or tried[:1], key=lambda made: len(made.data))
    if settings.bytes is not None and abs(len(best.data) / settings.bytes - 1) > _REACH:
        small = min(len(made.data) for made in tried)
        large = max(len(made.data) for made in tried)
        raise InputError(
            f"--bytes {settings.bytes:g}: this scene takes from {small:,} to {large:,} bytes; ask "
            "for a size between"
        )
    return best


def _attempts(
    settings: "Compress", scene: "Scene", costs: "Canonical", judged: Views
) -> Callable[[float], _Try]:
    from lumefield.apps._scene_io import make_draw, to_bytes
    from lumefield.codecs.scene import Canonical, decode_scene, encode_scene, kept

    splats = scene.splats

    def pictures(shown: "Splats") -> list[Any]:
        draw = make_draw(shown, background=scene.background)
        drawn = (draw(judged.pick([k])).rgb for k in range(len(judged)))
        return [to_bytes(rgb).astype(np.float64) for rgb in drawn]

    own = pictures(splats)

    def attempt(price: float) -> _Try:
        keep = kept(costs, price)
        keep[np.argmax(costs.colours[:, 0].sum(1))] = True
        part = Canonical(*(x[keep] for x in costs))
        data = encode_scene(splats.taken(keep), part, price, name=settings.input.name)
        errors = [
            float(np.mean((a - b) ** 2))
            for a, b in zip(pictures(decode_scene(data)[0]), own, strict=True)
        ]
        psnr = [10 * math.log10(255**2 / e) if e > 0 else _BEST for e in errors]
        return _Try(price, data, int(keep.sum()), float(np.mean(np.minimum(psnr, _BEST))))

    return attempt


def _wanted_psnr(settings: "Compress", scene: "Scene") -> float:
    """PSNR against the scene's own pictures, dB.

    Errors of the coding and of the scene are independent, so that squared errors add up.
    """
    from lumefield.apps._scene_io import read_json

    if settings.psnr is not None:
        return settings.psnr
    known = read_json(scene.run / "metrics.json").get("psnr") if scene.run else None
    psnr = float(known) if isinstance(known, int | float) and 5 < known < 60 else _ASSUMED
    loss = LOSS if settings.psnr_loss is None else settings.psnr_loss
    return psnr - 10 * math.log10(10 ** (loss / 10) - 1)
