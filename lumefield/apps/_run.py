"""The RUN folder: opening it safely, its settings, its log. Layout: docs/conventions.md."""

import contextlib
import json
import os
import shutil
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lumefield.errors import InputError, RunError

if TYPE_CHECKING:
    from lumefield.apps._train_settings import Train

FORMAT = 1
"""Version of the folder's layout; a run made by a newer one is not touched."""
_OURS = (
    "config.json",
    "metrics.json",
    "report.html",
    "scene.ply",
    "field.safetensors",
    "log.jsonl",
)
_FOLDERS = ("checkpoints", "renders")


class Run:
    """A folder that holds, or will hold, one run."""

    def __init__(self, folder: Path, config: dict[str, Any], *, fresh: bool) -> None:
        self.folder = folder
        self.config: dict[str, Any] = config
        """Content of ``config.json``; empty for a new run."""
        self.fresh = fresh
        """Whether earlier results are to be replaced once training starts."""

    @classmethod
    @contextlib.contextmanager
    def open(cls, folder: Path, *, resume: bool, overwrite: bool) -> "Generator[Run]":
        """Check and lock the folder; nothing in it is changed yet, and it goes if it stays empty.

        Raises:
            InputError: If the folder is taken, or cannot be written.
            RunError: If there is nothing to resume, or it was made by a newer version.
        """
        run = cls(folder, _config(folder, resume=resume, overwrite=overwrite), fresh=not resume)
        made = _make(folder)
        try:
            with _lock(folder):
                run.config = _config(folder, resume=resume, overwrite=overwrite)  # now it stays
                yield run
        finally:
            _remove_empty(folder, made)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.folder / "checkpoints"

    @property
    def cache(self) -> Path:
        """Folder of what was found out about the photos."""
        return self.folder / "capture"

    def stored(self, settings: "Train") -> "Train":
        """The settings that this run was started with.

        Raises:
            InputError: If ``settings`` asks for others.
            RunError: If ``config.json`` is damaged, or the run is one of another command.
        """
        from lumefield.apps._train_settings import restored

        command = self.config.get("command", "train")
        if command != "train":
            raise RunError(f"{self.folder}: was made by `lumefield {command}`; resume it with that")
        return restored(settings, cast("dict[str, object]", self.config["settings"]))

    def check_photos(self, names: Sequence[str]) -> None:
        """Make sure that the photos are those of the run so far, as far as that is known.

        Raises:
            RunError: If photos were added, taken away or renamed.
        """
        from lumefield.apps._scene_io import read_json

        cameras = read_json(self.cache / "cameras.json").get("cameras")
        if not isinstance(cameras, list):
            return
        known = {str(c.get("name")) for c in cast("list[Any]", cameras) if isinstance(c, dict)}
        odd = sorted(known ^ set(names))
        if odd:
            raise RunError(
                f"{self.folder}: was started with {len(known)} photos and there are {len(names)} "
                f"now, {odd[0]} among the difference; bring them back, or train into another --out"
            )

    def begin(self, config: dict[str, Any]) -> None:
        """Drop earlier results, if they are to be replaced, and write ``config.json``."""
        from lumefield.apps._scene_io import write_json

        if self.fresh:
            for name in _OURS:
                (self.folder / name).unlink(missing_ok=True)
            for name in _FOLDERS:
                shutil.rmtree(self.folder / name, ignore_errors=True)
        # What a process left behind that was killed while writing: nobody else holds the lock.
        for place in (self.folder, self.cache, *(self.folder / name for name in _FOLDERS)):
            for part in place.glob(".*.part"):
                part.unlink(missing_ok=True)
        for unfinished in self.cache.glob("*.tmp"):
            shutil.rmtree(unfinished, ignore_errors=True)
        self.config = {"format": FORMAT, **config}
        write_json(self.folder / "config.json", self.config)

    def log(self, line: dict[str, Any]) -> None:
        """Add a line to ``log.jsonl``."""
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def cut_log(self, step: int) -> None:
        """Forget what was logged after ``step``: a resumed run writes it again."""
        from lumefield.codecs.formats import replacing

        path = self.folder / "log.jsonl"
        if not path.is_file():
            return
        kept: list[str] = []
        for line in path.read_text("utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                if json.loads(line)["step"] <= step:
                    kept.append(line)
        with replacing(path) as file:
            file.write("".join(f"{line}\n" for line in kept).encode())


def _config(folder: Path, *, resume: bool, overwrite: bool) -> dict[str, Any]:
    """Content of ``config.json`` when the folder may be used in the way asked for."""
    from lumefield.apps._scene_io import read_json

    path = folder / "config.json"
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder}: is a file, expected a folder; choose another name")
    has_run = path.is_file()
    if resume and not has_run:
        raise RunError(f"{folder}: holds no run to resume; leave --resume out to start one")
    if not has_run:
        others = [p.name for p in folder.iterdir()] if folder.is_dir() else []
        others = [n for n in others if n != "capture" and not n.startswith(".")]
        if others:
            raise InputError(
                f"--out {folder}: holds other files ({others[0]}); choose an empty or new folder"
            )
        return {}
    try:
        config = read_json(path)
    except RunError:
        raise RunError(
            f"{path}: damaged, so nothing in the folder is touched; choose another --out"
        ) from None
    made_by = config.get("format")
    if not isinstance(made_by, int):
        raise InputError(f"--out {folder}: holds something else; choose an empty or new folder")
    if made_by > FORMAT:
        raise RunError(
            f"{folder}: made by a newer lumefield (run format {made_by}, this one knows {FORMAT}); "
            "upgrade lumefield or choose another --out"
        )
    if not (resume or overwrite):
        raise InputError(
            f"--out {folder}: already holds a run; add --resume to continue it, --overwrite to "
            "replace it, or choose another folder"
        )
    if resume and not isinstance(config.get("settings"), dict):
        raise RunError(f"{path}: has no settings; train again with --overwrite")
    return config


def _make(folder: Path) -> list[Path]:
    """Make the folder and its parents; returns those that were not there, deepest first."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    probe = folder / f".write-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(b"\0" * 4096)
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        _remove_empty(folder, missing)
        reason = (error.strerror or str(error)).lower()
        raise InputError(
            f"--out {folder}: cannot be written ({reason}); choose a folder with room that you own"
        ) from None
    return missing


def _remove_empty(folder: Path, made: list[Path]) -> None:
    for path in (folder / "capture", *made):
        with contextlib.suppress(OSError):
            if path != folder / "capture" or not any(path.iterdir()):
                path.rmdir()


@contextlib.contextmanager
def _lock(folder: Path) -> Generator[None]:
    """Keep two processes from training into one folder (where the system has file locks)."""
    try:
        import fcntl
    except ImportError:  # Windows: no lock
        yield
        return
    path = folder / ".lock"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = os.path.samestat(os.fstat(file.fileno()), path.stat())
        except (BlockingIOError, FileNotFoundError):
            free = False  # held by another; or given up by it, and removed, just now
        except OSError:
            free = True  # a file system without locks
        if not free:
            raise InputError(
                f"--out {folder}: another lumefield is training into it; wait or choose another"
            )
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
