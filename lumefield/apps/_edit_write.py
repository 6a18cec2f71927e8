"""Where an edited scene goes: a new run, a splat file, or only a page to look at."""

import dataclasses
import hashlib
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._edit_recipes import name_of
from lumefield.apps._edit_scene import Outcome, Subject, Tones
from lumefield.apps._run import FORMAT
from lumefield.apps._runtime import writable
from lumefield.apps._views import Views
from lumefield.errors import InputError

if TYPE_CHECKING:
    from lumefield.apps._edit import Edit

Kind = Literal["run", "file", "page"]


def check_out(settings: "Edit") -> Kind:
    """What --out will be; refuses it before anything is read.

    Raises:
        InputError: If it is taken, is (part of) the scene, has a strange suffix or cannot be
            written.
    """
    from lumefield.codecs.formats import SPLAT_SUFFIXES

    out, scene = settings.out, settings.scene
    suffix = out.suffix.lower()
    kind: Kind = "page" if suffix == ".html" else "file" if suffix in SPLAT_SUFFIXES else "run"
    for other in (scene, *getattr(settings.recipe, "with_", ())):
        if not other.exists():
            raise InputError(f"{other}: no such file or folder; give a run folder or a splat file")
        parts = [other, other / "scene.ply"] if other.is_dir() else [other]
        if out.exists() and any(p.exists() and out.samefile(p) for p in parts):
            raise InputError(f"--out {out}: is the scene itself, which stays; give another")
    if out.exists():
        _check_taken(settings, kind)
    place = out.parent
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir() or not writable(place):
        raise InputError(f"--out {out}: {place} cannot be written; choose another folder")
    return kind


def _check_taken(settings: "Edit", kind: Kind) -> None:
    from lumefield.apps._scene_io import read_json

    out = settings.out
    if out.is_dir():
        if kind != "run":
            raise InputError(f"--out {out}: is a folder, expected a file; give a name in it")
        if not any(out.iterdir()):
            return
        if read_json(out / "config.json").get("command") != "edit":
            raise InputError(
                f"--out {out}: holds something that no edit wrote, and it stays; choose a new name"
            )
    elif kind == "run":
        raise InputError(f"--out {out}: is a file, expected a new folder or a known suffix")
    if not settings.overwrite:
        raise InputError(f"--out {out}: exists already; choose another name or give --overwrite")


def write(settings: "Edit", kind: Kind, subject: Subject, outcome: Outcome) -> Path:
    """Write the new scene, whole or not at all.

    Raises:
        InputError: If it cannot be written.
    """
    from lumefield.apps._edit_page import page_of
    from lumefield.codecs.formats import replacing, save_splats

    record = _record(settings, subject, outcome)
    if kind == "page":
        with replacing(settings.out) as file:
            file.write(page_of(subject, outcome, record))
    elif kind == "file":
        settings_text = ", ".join(f"{k} {v}" for k, v in record["settings"].items())
        note = f"edited by lumefield: {record['recipe']} ({settings_text})"
        splats = dataclasses.replace(
            outcome.splats, comments=(*outcome.splats.comments, note[:500])
        )
        save_splats(splats, settings.out)
    else:
        _write_run(settings.out, subject, outcome, record)
    return settings.out


def _write_run(out: Path, subject: Subject, outcome: Outcome, record: dict[str, Any]) -> None:
    """Everything is made in a folder beside it, which then takes the name."""
    part = out.with_name(f".{out.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir(parents=True)
        _fill(part, subject, outcome, record)
        if out.exists():
            old = out.with_name(f".{out.name}.{secrets.token_hex(4)}.old")
            out.rename(old)
            part.rename(out)
            shutil.rmtree(old, ignore_errors=True)
        else:
            part.rename(out)
    except OSError as error:
        raise InputError(
            f"--out {out}: cannot be written ({error.strerror or error}); free some space or "
            "choose another folder"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _fill(folder: Path, subject: Subject, outcome: Outcome, record: dict[str, Any]) -> None:
    from lumefield.apps._edit_page import page_of
    from lumefield.apps._evaluate import Evaluate, evaluate
    from lumefield.apps._loop_keeper import versions
    from lumefield.apps._scene_io import read_json, write_json
    from lumefield.codecs.formats import replacing, save_splats

    save_splats(outcome.splats, folder / "scene.ply")
    old = {} if subject.run is None else read_json(subject.run / "config.json")
    background = np.array(subject.background)
    if outcome.tones:
        background = np.clip(outcome.tones(background), 0, 1)
    edits = old.get("edits")
    write_json(
        folder / "config.json",
        {
            "format": FORMAT,
            "command": "edit",
            "settings": record["settings"],
            "edits": [*(edits if isinstance(edits, list) else []), record],
            "background": background.tolist(),
            "versions": versions(),
        },
    )
    metrics: dict[str, Any] = {"num_gaussians": len(outcome.splats.means), "versions": versions()}
    if subject.run is not None:
        held = ("method", "steps", "seconds", "peak_rss_mb", "backend")
        before = read_json(subject.run / "metrics.json")
        metrics = {**{k: before[k] for k in held if k in before}, **metrics}
    if subject.run is not None and subject.views is not None:
        _write_cameras(folder, subject.run, outcome)
        if _copy_truths(subject.run, folder, subject.views.test(), outcome.tones):
            write_json(folder / "metrics.json", metrics)
            metrics = evaluate(Evaluate(folder))
    write_json(folder / "metrics.json", metrics)
    with replacing(folder / "report.html") as file:
        file.write(page_of(subject, outcome, record))


def _write_cameras(folder: Path, run: Path, outcome: Outcome) -> None:
    """The cameras of the old run, moved along; whatever else the file holds stays."""
    from lumefield.apps._scene_io import read_json, write_json
    from lumefield.apps._views import load_views

    file = run / "capture" / "cameras.json"
    moved, record = outcome.moved.views(load_views(file)), read_json(file)
    for camera, pose in zip(record["cameras"], moved.world_from_cam, strict=True):
        camera["world_from_cam"] = pose.tolist()
    if not outcome.moved.is_identity:
        record["world"] = "moved by lumefield edit"
    (folder / "capture").mkdir()
    write_json(folder / "capture" / "cameras.json", record)


def _copy_truths(run: Path, folder: Path, views: Views, tones: Tones | None) -> bool:
    """Held-out photos, recoloured if the scene is; whether all of them are there."""
    from PIL import Image

    from lumefield.apps._evaluate import image_stems, save_png

    paths = [run / "renders" / f"{stem}.truth.png" for stem in image_stems(views.names)]
    if not paths or not all(path.is_file() for path in paths):
        return False
    for path in paths:
        to = folder / "renders" / path.name
        if tones is None:
            to.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, to)
            continue
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"), np.float64) / 255
        save_png(to, _bytes(tones(pixels)))
    return True


def _record(settings: "Edit", subject: Subject, outcome: Outcome) -> dict[str, Any]:
    """What was done to what, by whom: enough to do it again, or to go back to the source."""
    from lumefield import __version__

    source = subject.path / "scene.ply" if subject.path.is_dir() else subject.path
    wish = {k: _plain(v) for k, v in dataclasses.asdict(settings.recipe).items()}
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "recipe": name_of(settings.recipe),
        "settings": {k.rstrip("_"): v for k, v in wish.items()},
        "source": str(subject.path.resolve()),
        "sha256": digest,
        "gaussians": [len(subject.splats.means), len(outcome.splats.means)],
        "lumefield": __version__,
        "found": outcome.facts,
    }


def _plain(value: Any) -> Any:  # noqa: ANN401
    """A setting as JSON knows it."""
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return str(value.resolve()) if isinstance(value, Path) else value


def _bytes(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)
