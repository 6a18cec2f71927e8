"""The one dial of ``lumefield fit``: size of the field and number of steps by kind and quality."""

from typing import Any

from lumefield.apps._fit_settings import Fit, Kind
from lumefield.apps._signal import Size
from lumefield.errors import InputError

DEFAULT_FIELD: dict[Kind, str] = {
    "image": "hashgrid",
    "sdf": "hashgrid",
    "gradient": "siren",
    "audio": "siren",
}
"""Kind of signal -> field that suits it on a CPU."""
_DIAL = ("draft", "standard", "best")
_STEPS: dict[Kind, tuple[int, int, int]] = {
    "image": (500, 2000, 6000),
    "sdf": (400, 1200, 3000),
    "gradient": (500, 1500, 4000),
    "audio": (500, 2000, 6000),
}
_BATCH: dict[Kind, tuple[int, int, int]] = {
    "image": (1 << 14, 1 << 15, 1 << 16),
    "sdf": (1 << 14, 1 << 14, 1 << 15),
    "gradient": (1 << 11, 1 << 12, 1 << 12),
    "audio": (1 << 13, 1 << 13, 1 << 14),
}
_WIDTH = (64, 128, 256)
_RATES = {
    "hashgrid": 1e-2,
    "pyramid": 1e-2,
    "pixel": 5e-2,
    "voxel": 5e-2,
    "planes": 1e-2,
    "waveplanes": 1e-2,
    "siren": 5e-4,  # at 256 units
    "wire": 5e-3,
    "wire_real": 5e-3,
}
"""Field -> highest learning rate; 1e-3 for those not named."""
_DENSE = {"wire": 0.5, "wire_real": 0.5}
"""Field -> its width as a share of the dial's: complex layers cost more."""
_SLOW = ("siren", "wire", "wire_real", "fourier", "positional", "gaussian", "relu")
"""Networks without a table, whose step costs width squared a point: they get fewer points."""


def make_size(settings: Fit, kind: Kind, *, samples: int, side: int, d_in: int) -> Size:
    """Field, steps and batch of a signal.

    Args:
        settings: What was asked for.
        kind: Kind of the signal.
        samples: Places it is given at, such as pixels.
        side: Samples along its longest axis.
        d_in: Number of its coordinates.

    Raises:
        InputError: If the field is unknown or does not suit the signal.
    """
    from lumefield.apps._signal import field_names

    field = settings.field or DEFAULT_FIELD[kind]
    if field not in field_names():
        raise InputError(f"--field {field}: expected one of {', '.join(field_names())}")
    level = _DIAL.index(settings.quality)
    batch = _BATCH[kind][level]
    if field in _SLOW and kind in ("image", "sdf"):
        batch //= 2
    options = _options(field, level, samples=samples, side=side, d_in=d_in)
    scale = 1.0
    if field == "siren":  # narrow ones bear more; shapes are smoother than pictures
        scale = 256 / options["width"] / (4 if kind == "sdf" else 1)
        options |= {"omega": 10.0 if kind == "sdf" else 30.0}
        if kind in ("image", "audio"):  # the fused kernel has first derivatives only
            options["backend"] = "auto"
    return Size(
        field=field,
        options=options,
        steps=settings.steps or _STEPS[kind][level],
        batch=min(batch, samples),
        rate=_RATES.get(field, 1e-3) * scale,
    )


def _options(field: str, level: int, *, samples: int, side: int, d_in: int) -> dict[str, Any]:
    if field in _SLOW:
        width = int(_WIDTH[level] * _DENSE.get(field, 1.0))
        return {"width": width, "depth": 3}
    if field == "hashgrid":
        # A level holds at most a sixteenth of the samples (standard): a field, not a copy. The
        # samples of a shape are drawn, not given: an eighth.
        share = 5 if d_in == 2 else 4
        entries = max(9, min(19, max(samples, 2).bit_length() - 1 - share + level))
        return {"log2_entries": entries, "coarsest": 16, "finest": min(2048, side), "levels": 12}
    if field == "pyramid":
        return {"size": min(1024, max(16, side))}
    if field in ("pixel", "voxel"):
        most = 512 if field == "pixel" else 128
        return {"size": min(most, max(2, side))}
    return {}
