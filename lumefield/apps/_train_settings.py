"""What can be asked of ``lumefield train``, and what of it a resumed run keeps."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from lumefield.errors import InputError

LOCAL = "127.0.0.1"


@dataclass(frozen=True)
class Train:
    """Train a scene from photos, a video or posed images."""

    input: tyro.conf.Positional[Path]
    """Folder of photos, video file, COLMAP model, transforms.json, or LLFF folder."""
    out: Path
    """Folder of the run: scene, report, checkpoints."""
    method: Literal["splat", "nerf", "mipnerf360", "ngp", "zipnerf", "kplanes"] = "splat"
    """What to train: Gaussians, or a radiance field of this kind."""
    quality: Literal["draft", "standard", "best"] = "standard"
    """The one dial: time, size and fidelity follow from it."""
    steps: int | None = None
    """Steps of training, in place of the dial's."""
    downscale: float | None = None
    """Divide the photos' sides by this; chosen by their size when not given."""
    seed: int = 0
    """Same seed, same machine, same result, bit by bit."""
    max_gaussians: int | None = None
    """Most Gaussians, in place of the dial's."""
    resume: bool = False
    """Continue the run in --out exactly where its last checkpoint left it."""
    overwrite: bool = False
    """Replace the run in --out (what was found out about the photos is kept)."""
    densify: Literal["mcmc", "adc"] = "mcmc"
    """Relocation at fixed capacity, or gradient-driven clone, split and prune."""
    background: Literal["black", "white", "random"] = "black"
    """Behind the scene. Random keeps photos with transparency from leaving haze."""
    mask_mode: Literal["ignore", "carve"] | None = None
    """Masked-out pixels do not count, or are to be empty; by the kind of mask when not given."""
    refine_poses: bool = False
    """Also adjust the cameras of the training photos."""
    exposure: bool = False
    """Fit gain and offset per photo; their mean is baked into the scene."""
    appearance: bool = False
    """Fit a code per photo that colours depend on; new views get the mean (radiance fields)."""
    depth_weight: float = 0.0
    """Weight of the depth of the sparse points, such as 0.1 (radiance fields)."""
    antialiased: bool = False
    """The 2D filter of Mip-Splatting; the file says so, and viewers must know it."""
    sparse_adam: bool = False
    """A step moves only the Gaussians that its photos show, as 3DGS' sparse Adam does."""
    cameras_per_step: int = 1
    """Photos per step."""
    devices: int | None = None
    """Divide the photos of a step among so many devices; all accelerators when not given."""
    threads: int | None = None
    """Threads to use; all cores when not given."""
    view: bool = False
    """Show the training in a browser: dashboard, and the scene so far as `view` shows it."""
    host: str = LOCAL
    """Address that --view serves on. Only this machine by default; 0.0.0.0 is every network."""
    port: int | None = None
    """Port of the dashboard of --view; the first free one from 8400 on when not given."""


def check(settings: Train) -> None:
    """Refuse what no photos could make right, before anything is read or written.

    Raises:
        InputError: If a number is outside its range, or two flags exclude each other.
    """
    if settings.resume and settings.overwrite:
        raise InputError("--resume continues a run and --overwrite replaces it; give one of them")
    for name in () if settings.view else ("host", "port"):
        if getattr(settings, name) != _DEFAULTS[name]:
            raise InputError(f"--{name} does nothing without --view; leave it out, or add --view")
    splat = settings.method == "splat"
    for name in _RADIANCE_ONLY if splat else _SPLAT_ONLY:
        if getattr(settings, name) != _DEFAULTS[name]:
            flag = "--" + name.replace("_", "-")
            fit = "a radiance field such as --method ngp" if splat else "--method splat"
            raise InputError(
                f"{flag} does nothing for --method {settings.method}; leave it out, or use {fit}"
            )
    for name, (low, high) in _RANGES.items():
        value = getattr(settings, name)
        if value is not None and not low <= value <= high:
            flag = "--" + name.replace("_", "-")
            raise InputError(f"{flag} {value}, expected {low} to {high}")


def restored(settings: Train, stored: Mapping[str, object]) -> Train:
    """The settings a run was started with; steps, threads, the place and moved photos may be new.

    Args:
        settings: What was asked for now.
        stored: ``settings`` of the run's ``config.json``.

    Raises:
        InputError: If another input or another value of a setting was asked for.
    """
    old: dict[str, Any] = {k: v for k, v in stored.items() if k in _KEPT}
    for name, value in old.items():
        now = getattr(settings, name)
        if now not in (value, _KEPT[name]):
            flag = "--" + name.replace("_", "-")
            raise InputError(
                f"{flag} {now}: the run in {settings.out} was started with {value}, and --resume "
                f"continues it with that; leave {flag} out, or choose another --out"
            )
    place = Path(str(stored.get("input", settings.input)))
    if place.exists() and place != settings.input.resolve():
        raise InputError(
            f"{settings.input}: the run in {settings.out} was started with {place}, and --resume "
            "continues it with that; give it again, or choose another --out"
        )
    steps = stored.get("steps") if settings.steps is None else settings.steps
    return dataclasses.replace(settings, **old, steps=steps)


_DEFAULTS = {f.name: f.default for f in dataclasses.fields(Train)}
_SPLAT_ONLY = (
    "max_gaussians",
    "densify",
    "antialiased",
    "sparse_adam",
    "cameras_per_step",
    "devices",
)
_RADIANCE_ONLY = ("appearance", "depth_weight")
_RANGES = {
    "steps": (1, 10_000_000),
    "max_gaussians": (1, 100_000_000),
    "cameras_per_step": (1, 64),
    "devices": (1, 64),
    "seed": (0, 2**32 - 1),
    "depth_weight": (0.0, 1e3),
    "port": (0, 65535),
}
"""Flag -> least and most."""
OF_THE_CALL = ("out", "resume", "overwrite", "threads", "devices", "view", "host", "port")
"""Settings that belong to one call of the command, not to the run."""
_FREE = ("input", "steps", *OF_THE_CALL)
_KEPT = {f.name: f.default for f in dataclasses.fields(Train) if f.name not in _FREE}
"""Settings that a resumed run keeps -> their default."""
