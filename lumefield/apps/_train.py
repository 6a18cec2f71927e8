"""``lumefield train``: from what a person has to a run folder with a scene and a report."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

METHODS = ("splat",)


@dataclass(frozen=True)
class Train:
    """Train a scene from photos, a video or posed images."""

    input: tyro.conf.Positional[Path]
    """Folder of photos, video file, COLMAP model, transforms.json, or LLFF folder."""
    out: Path
    """Folder of the run: scene, report, checkpoints."""
    method: Literal["splat"] = "splat"
    """What to train."""
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
    antialiased: bool = False
    """The 2D filter of Mip-Splatting; the file says so, and viewers must know it."""
    cameras_per_step: int = 1
    """Photos per step."""
    threads: int | None = None
    """Threads to use; all cores when not given."""


def train(settings: Train) -> Path:
    """Capture, train, score and report.

    Ctrl-C while training saves a checkpoint and the scene so far, and ends normally.

    Args:
        settings: What to train and where to put it.

    Returns:
        The folder of the run.

    Raises:
        InputError: If the input or an option cannot be used; an existing run is left as it is.
        RunError: If the run cannot be continued.
    """
    from lumefield.apps._run import Run
    from lumefield.apps._train_run import Session

    if settings.cameras_per_step < 1:
        from lumefield.errors import InputError

        raise InputError(f"--cameras-per-step {settings.cameras_per_step}, expected at least 1")
    with Run.open(settings.out, resume=settings.resume, overwrite=settings.overwrite) as run:
        settings = run.stored(settings) if settings.resume else settings
        session = Session.prepare(settings, run)
        session.fit()
        session.finish()
    return settings.out


def restored(settings: Train, stored: dict[str, object]) -> Train:
    """The settings a run was started with; steps, threads and the place may be new."""
    names = {f.name for f in dataclasses.fields(Train)}
    old = {k: v for k, v in stored.items() if k in names}
    keep = {
        "input": Path(str(old["input"])) if "input" in old else settings.input,
        "out": settings.out,
        "resume": True,
        "overwrite": False,
        "threads": settings.threads,
        "steps": settings.steps if settings.steps is not None else old.get("steps"),
    }
    return dataclasses.replace(settings, **{**old, **keep})  # pyright: ignore[reportArgumentType]
