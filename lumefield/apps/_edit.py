"""``lumefield edit``: a new scene out of an old one, which stays as it is."""

import dataclasses
from pathlib import Path

import tyro

from lumefield.apps._edit_recipes import RECIPES, Wish, name_of
from lumefield.apps._edit_scene import STILL, Outcome, Subject


@tyro.conf.configure(
    tyro.conf.CascadeSubcommandArgs, tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes
)
@dataclasses.dataclass(frozen=True)
class Edit:
    """Clean, crop, move, merge, thin out or recolour a scene; the old one stays as it is."""

    scene: tyro.conf.Positional[Path]
    """Folder of a run, or a splat file."""
    recipe: Wish
    """What to do."""
    out: Path
    """New scene: a folder, which becomes a run with the cameras, or a splat file by its suffix
    (.ply .spz .sog ...); with .html only the preview is written."""
    overwrite: bool = False
    """Replace what an earlier edit wrote to --out; a scene that was trained is never replaced."""
    threads: int | None = None
    """Threads to use; all cores when not given."""


def edit(settings: Edit) -> Path:
    """Apply one recipe and write a new scene, whole or not at all, with the edit on its record.

    Args:
        settings: Scene, recipe and where to write.

    Returns:
        The new run, file or page.

    Raises:
        InputError: If the scene, a number or --out cannot be used, or nothing would be left.
        RunError: If the run is incomplete or damaged.
        FormatError: If a file of the scene is damaged.
    """
    from lumefield.apps._edit_write import check_out, write
    from lumefield.apps._progress import CaptureBar, Say
    from lumefield.apps._scene_io import load_scene

    kind = check_out(settings)
    found = load_scene(settings.scene)
    subject = Subject(found.splats, found.views, found.background, settings.scene, found.run)
    with CaptureBar() as tell:
        outcome = RECIPES[type(settings.recipe)](subject, settings.recipe, tell)
    say = Say()
    for line in outcome.told:
        say.line(line)
    if outcome.moved is not STILL and subject.run and kind != "run":
        say.note("the cameras stay behind; give a folder for --out and they move along")
    path = write(settings, kind, subject, outcome)
    say.line(_told(path, kind, subject, outcome, name_of(settings.recipe)))
    return path


def _told(path: Path, kind: str, subject: Subject, outcome: Outcome, name: str) -> str:
    before, after = len(subject.splats.means), len(outcome.splats.means)
    count = f"{after:,} Gaussians" + (f" of {before:,}" if after != before else "")
    if kind == "page":
        return f"{name}: {count}; nothing but the preview {path} was written"
    page = f"\nreport {path / 'report.html'}" if kind == "run" else ""
    return f"{name}: {count} in {path}; {subject.path} is as it was{page}"
