"""The price of a bit at which a compressed scene has the size or the quality that is wanted."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from lumefield.errors import InputError

if TYPE_CHECKING:
    from lumefield.apps._compress import Compress
    from lumefield.apps._scene_io import Draw, Scene
    from lumefield.apps._views import Views

LOSS = 0.3
"""dB that held-out views may lose when nothing is asked for."""
BEST = 99.0
"""dB, of pictures that are equal."""
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


class Try(NamedTuple):
    """One encoding."""

    price: float
    """Squared error that a bit is worth."""
    data: bytes
    kept: int
    """Gaussians, or numbers that are not zero."""
    psnr: float
    """Against the scene's own pictures, dB."""


def searched(
    settings: "Compress",
    scene: "Scene",
    attempt: Callable[[float], Try],
    tell: Callable[[str, float], None],
) -> Try:
    """The encoding that is wanted, by the secant method over the logarithm of the price.

    Args:
        settings: What was asked for: bytes, PSNR or a loss of it.
        scene: What is compressed.
        attempt: Encodes it at a price per bit.
        tell: Progress.

    Raises:
        InputError: If no price gives the bytes.
    """
    if settings.bytes is None:
        goal, slope = _wanted_psnr(settings, scene), _SLOPE

        def value(made: Try) -> float:
            return made.psnr
    else:
        goal, slope = 100 * math.log(settings.bytes), 100 * _FIRST_SIZE

        def value(made: Try) -> float:
            return 100 * math.log(len(made.data)) + 0.5  # rather a little too small

    near, tried = _NEAR if settings.bytes is None else 1.0, list[Try]()
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


def losses(scene: "Scene", views: "Views", draw: "Draw") -> list[str]:
    """What the held-out views say of a decoded scene, against the scene itself and the photos."""
    from lumefield.apps._export_job import scores

    found = scores(scene, views.test(), draw).lines()
    return [line.replace("field", "scene").replace("splats", "decoded") for line in found]


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
