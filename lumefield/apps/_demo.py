"""``lumefield demo``: a photo set of its own, then the same path as a user's photos."""

import dataclasses
import shutil
from pathlib import Path
from typing import Literal

from lumefield.errors import InputError

COUNT, WIDTH, HEIGHT = 40, 480, 360


@dataclasses.dataclass(frozen=True)
class Demo:
    """Make a photo set, train on it and report, with no data of your own."""

    out: Path = Path("lumefield-demo")
    """Folder for photos and runs; photos that are there already are used again."""
    quality: Literal["draft", "standard", "best"] = "draft"
    """The one dial of train: time, size and fidelity follow from it."""
    seed: int = 0
    """Draws the room and the training."""


def demo(settings: Demo) -> Path:
    """Photograph the demo room, train on the photos and print what came out.

    Args:
        settings: Where to and how well.

    Returns:
        The folder of the new run.

    Raises:
        InputError: If ``out/photos`` holds something else, or the folder cannot be written.
    """
    from rich.console import Console

    from lumefield.apps._scene_io import read_json
    from lumefield.apps._train import Train, train

    console = Console()
    photos = demo_photos(settings.out / "photos", seed=settings.seed)
    run = next_run(settings.out)
    train(Train(input=photos, out=run, quality=settings.quality, seed=settings.seed))
    metrics = read_json(run / "metrics.json")
    source = read_json(run / "capture" / "cameras.json").get("source", {})
    console.print(
        f"\n[bold]PSNR {metrics['psnr']:.2f} dB[/] on held-out views, SSIM {metrics['ssim']:.3f}"
    )
    for label, text in (
        ("photos", source.get("summary", f"{COUNT} photos")),
        ("report", run / "report.html"),
        ("scene", run / "scene.ply"),
    ):
        console.print(f"{label:<8} {text}", highlight=False, soft_wrap=True)
    return run


def demo_photos(folder: Path, *, seed: int = 0) -> Path:
    """The folder of the demo's photos, made now unless it is there already.

    Raises:
        InputError: If the folder holds other files, or cannot be written.
    """
    from PIL import Image

    from lumefield.apps._demo_scene import make_photos

    files = sorted(folder.iterdir()) if folder.is_dir() else []
    if not files:
        print(f"photographing the demo room: {COUNT} photos into {folder}", flush=True)
        make_photos(folder, count=COUNT, width=WIDTH, height=HEIGHT, seed=seed)
        return folder
    with_right_names = [f.name for f in files] == [f"photo_{k:03d}.jpg" for k in range(COUNT)]
    try:
        with Image.open(files[0]) as first:
            ours = with_right_names and first.size == (WIDTH, HEIGHT)
    except OSError:
        ours = False
    if not ours:
        raise InputError(
            f"{folder}: holds something else than the demo's photos; give another --out"
        )
    print(f"using the photos in {folder}", flush=True)
    return folder


def next_run(out: Path) -> Path:
    """The next free folder ``run``, ``run-2``, ...; what was found out about the photos is copied.

    The copy (``capture/``) spares a second demo the structure from motion.
    """
    earlier: Path | None = None
    for k in range(1, 10_000):
        run = out / ("run" if k == 1 else f"run-{k}")
        if not run.exists():
            break
        earlier = run
    else:
        raise InputError(f"{out}: holds 9999 runs; delete some or give another --out")
    if earlier is not None and (earlier / "capture").is_dir():
        shutil.copytree(earlier / "capture", run / "capture")
    return run
