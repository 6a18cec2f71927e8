"""What can be asked of ``lumefield fit``, and what of it a resumed run keeps."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from lumefield.errors import InputError, RunError

Kind = Literal["image", "sdf", "gradient", "audio"]

KINDS: dict[str, tuple[str, ...]] = {
    "image": (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".exr", ".hdr"),
    "sdf": (".glb", ".gltf", ".obj", ".ply", ".stl", ".off"),
    "audio": (".wav",),
}
"""Kind of signal -> suffixes that mean it."""
COMMAND = "fit"
"""``command`` in the ``config.json`` of such a run."""


@dataclass(frozen=True)
class Fit:
    """Fit a field to a picture, a shape, a gradient or a sound."""

    input: tyro.conf.Positional[Path]
    """Picture (PNG, JPEG, WebP, TIFF, EXR, HDR), mesh or points (GLB, OBJ, PLY, STL), or WAV."""
    out: Path
    """Folder of the run: field, picture or mesh or sound, report, checkpoints."""
    as_: Annotated[Kind | None, tyro.conf.arg(name="as")] = None
    """Kind of signal; by the suffix of the input when not given."""
    field: str | None = None
    """Network: hashgrid, siren, wire, fourier, ...; what suits the signal when not given."""
    quality: Literal["draft", "standard", "best"] = "standard"
    """The one dial: time, size and fidelity follow from it."""
    steps: int | None = None
    """Steps of fitting, in place of the dial's."""
    seed: int = 0
    """Same seed, same machine, same result, bit by bit."""
    resume: bool = False
    """Continue the run in --out exactly where its last checkpoint left it."""
    overwrite: bool = False
    """Replace the run in --out."""
    source: Path | None = None
    """Picture to clone into the input seamlessly: only its gradient is used (Poisson editing)."""
    mask: Path | None = None
    """What of --source to clone: a picture of its size, white counts."""
    at: str | None = None
    """Column and row of the input, such as 120,80, where the corner of --source goes."""
    threads: int | None = None
    """Threads to use; all cores when not given."""


def check(settings: Fit) -> None:
    """Refuse what no file could make right, before anything is read or written.

    Raises:
        InputError: If a number is outside its range, or flags do not go together.
    """
    if settings.resume and settings.overwrite:
        raise InputError("--resume continues a run and --overwrite replaces it; give one of them")
    for name, (low, high) in {"steps": (1, 10_000_000), "seed": (0, 2**32 - 1)}.items():
        value = getattr(settings, name)
        if value is not None and not low <= value <= high:
            raise InputError(f"--{name} {value}, expected {low} to {high}")
    if settings.resume:
        return
    kind = kind_of(settings)
    given = [f"--{n}" for n in ("source", "mask", "at") if getattr(settings, n) is not None]
    if kind != "gradient" and given:
        raise InputError(f"{given[0]}: belongs to a gradient, not to {kind}; leave it out")
    if kind == "gradient" and (settings.source is None or settings.mask is None):
        raise InputError("--as gradient: needs --source and --mask; give both")
    corner(settings.at)


def kind_of(settings: Fit) -> Kind:
    """The kind of signal that is asked for.

    Raises:
        InputError: If the suffix of the input means none.
    """
    if settings.as_ is not None:
        return settings.as_
    if settings.source is not None:
        return "gradient"
    suffix = settings.input.suffix.lower()
    for kind, suffixes in KINDS.items():
        if suffix in suffixes:
            return kind  # pyright: ignore[reportReturnType]
    known = " ".join(s for suffixes in KINDS.values() for s in suffixes)
    raise InputError(
        f"{settings.input}: cannot tell what kind of signal this is; expected one of {known}, or "
        "say --as image, sdf, gradient or audio"
    )


def corner(at: str | None) -> tuple[int, int] | None:
    """Column and row out of ``120,80``.

    Raises:
        InputError: If it is anything else.
    """
    if at is None:
        return None
    parts = at.replace(" ", "").split(",")
    if len(parts) != 2 or not all(p.lstrip("-").isdecimal() for p in parts):
        raise InputError(f"--at {at}: expected a column and a row, such as 120,80")
    return int(parts[0]), int(parts[1])


def restored(settings: Fit, config: Mapping[str, Any]) -> Fit:
    """The settings a run was started with; steps and threads may be new, and the place of files.

    Args:
        settings: What was asked for now.
        config: Content of the run's ``config.json``.

    Raises:
        InputError: If another value of a setting was asked for.
        RunError: If the run is not one of ``lumefield fit``.
    """
    if config.get("command") != COMMAND:
        raise RunError(f"{settings.out}: was made by `lumefield train`; resume it with that")
    stored: dict[str, Any] = dict(config["settings"])
    old = {k: v for k, v in stored.items() if k in _KEPT}
    for name, value in old.items():
        now = getattr(settings, name)
        if now not in (value, _KEPT[name]):
            flag = "--" + name.strip("_")
            raise InputError(
                f"{flag} {now}: the run in {settings.out} was started with {value}, and --resume "
                f"continues it with that; leave {flag} out, or choose another --out"
            )
    for name in ("source", "mask"):
        if getattr(settings, name) is None and stored.get(name) is not None:
            old[name] = Path(str(stored[name]))
    steps = stored.get("steps") if settings.steps is None else settings.steps
    return dataclasses.replace(settings, **old, steps=steps)


_KEPT: dict[str, Any] = {"as_": None, "field": None, "quality": "standard", "seed": 0, "at": None}
"""Settings that a resumed run keeps -> their default."""
