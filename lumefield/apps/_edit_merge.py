"""``lumefield edit SCENE merge``: several scenes as one."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from lumefield.apps._edit_scene import Outcome, Subject, Tell, joined
from lumefield.errors import InputError


@dataclasses.dataclass(frozen=True)
class Merge:
    """Put other scenes into this one, each in its own frame; `transform` them first to fit."""

    with_: Annotated[tuple[Path, ...], tyro.conf.arg(name="with")]
    """Runs or splat files to add; cameras, background and header stay those of SCENE."""


def merge(subject: Subject, wish: Merge, tell: Tell) -> Outcome:
    """All Gaussians of all scenes.

    Raises:
        InputError: If a scene is not there, is no Gaussians, or was trained with another filter.
        RunError: If a run is incomplete or damaged.
        FormatError: If a file is damaged.
    """
    del tell
    from lumefield.apps._scene_io import load_scene

    parts = [subject.splats]
    told = [f"{len(subject.splats.means):,} Gaussians of {subject.path}"]
    for path in wish.with_:
        found = load_scene(path).splats
        if found.antialiased != subject.splats.antialiased:
            one, other = ("", "not ") if subject.splats.antialiased else ("not ", "")
            raise InputError(
                f"{path}: is {other}antialiased and {subject.path} is {one}so; opacities mean "
                "different things, train both alike"
            )
        parts.append(found)
        told.append(f"{len(found.means):,} Gaussians of {path}")
    facts = {"parts": {str(p): len(s.means) for p, s in zip(_paths(subject, wish), parts)}}  # noqa: B905
    return Outcome(joined(parts), told=tuple(told), facts=facts)


def _paths(subject: Subject, wish: Merge) -> list[Path]:
    return [subject.path, *wish.with_]
