"""``lumefield edit SCENE recolour``: exposure, white balance, saturation and gamma.

Letters: ``x`` display sRGB, ``M`` the matrix of all steps that are linear in x. A picture of
Gaussians is a weighted sum of their colours, so M, put on the coefficients of every Gaussian, is M
put on every picture. Gains of light are gains of x under a display of gamma 2.2, which is near
enough to sRGB for a knob. Gamma is not linear: each Gaussian's own colour goes through the curve
and its view-dependent part through the slope there.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._edit_scene import Floats, Outcome, Subject, Tell
from lumefield.errors import InputError

_C0 = 0.28209479177387814
_DISPLAY = 2.2
_LUMA = np.array([0.2126, 0.7152, 0.0722])
_FLOOR = 1e-3
"""Below this display value a curve goes on as a straight line: its slope at 0 can be infinite."""
_RANGES = {
    "exposure": (-8.0, 8.0),
    "temperature": (-1.0, 1.0),
    "tint": (-1.0, 1.0),
    "saturation": (0.0, 4.0),
    "gamma": (0.2, 5.0),
}


@dataclasses.dataclass(frozen=True)
class Recolour:
    """Change the colours of everything, view-dependent parts included."""

    exposure: float = 0.0
    """Stops: 1 is twice the light."""
    temperature: float = 0.0
    """-1 (blue) to 1 (amber): half a stop of red against blue at the ends, each way."""
    tint: float = 0.0
    """-1 (green) to 1 (magenta): half a stop of green."""
    saturation: float = 1.0
    """0 is grey, 1 as it is."""
    gamma: float = 1.0
    """Above 1 lifts the dark tones, below 1 deepens them."""


def recolour(subject: Subject, wish: Recolour, tell: Tell) -> Outcome:
    """The scene in other colours; held-out photos and background go along.

    Raises:
        InputError: If a number is out of range, or nothing would change.
    """
    del tell
    for name, (low, high) in _RANGES.items():
        if not low <= getattr(wish, name) <= high:
            raise InputError(f"--{name} {getattr(wish, name):g}, expected {low:g} to {high:g}")
    if wish == Recolour():
        raise InputError(f"recolour: changes nothing, expected one of --{' --'.join(_RANGES)}")
    matrix = _matrix(wish)
    sh = subject.splats.sh.astype(np.float64) @ matrix.T
    own = (0.5 * matrix).sum(1) + _C0 * sh[:, 0]
    curved, slope = _curve(own, wish.gamma)
    sh[:, 0] = (curved - 0.5) / _C0
    sh[:, 1:] *= slope[:, None]

    def tones(x: Floats) -> Floats:
        return _curve(x @ matrix.T, wish.gamma)[0]

    return Outcome(
        dataclasses.replace(subject.splats, sh=sh.astype(np.float32)),
        tones=tones,
        facts={"matrix": matrix.tolist(), "gamma": wish.gamma},
    )


def _matrix(wish: Recolour) -> Floats:
    """(3, 3) on display sRGB."""
    stops = wish.exposure + 0.5 * np.array([wish.temperature, -wish.tint, -wish.temperature])
    gains = 2.0 ** (stops / _DISPLAY)
    grey = np.tile(_LUMA, (3, 1))
    return (grey + wish.saturation * (np.eye(3) - grey)) * gains


def _curve(x: NDArray[np.float64], gamma: float) -> tuple[Floats, Floats]:
    """x^(1 / gamma) and its slope; a straight line below a small value."""
    held = np.maximum(x, _FLOOR)
    slope = held ** (1 / gamma - 1) / gamma
    return held ** (1 / gamma) + (x - held) * slope, slope
