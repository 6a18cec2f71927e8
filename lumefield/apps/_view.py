"""``lumefield view``: a scene in a browser or a headset, or two of them side by side."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from lumefield.apps._compress_scene import holds_scene
from lumefield.errors import InputError

if TYPE_CHECKING:
    from lumefield.apps._view_server import Served

KINDS = {".ply": "ply", ".splat": "splat", ".spz": "spz", ".sog": "sog"}
"""Suffixes that the page reads as they are -> its word for them."""


@dataclasses.dataclass(frozen=True)
class View:
    """Look at a scene in a browser or a headset; two scenes are compared."""

    scene: tyro.conf.Positional[tuple[Path, ...]]
    """Folder of a run, splat file, exported .html, or .lume picture or video; give two runs or
    splat files to compare them."""
    port: int | None = None
    """Port to serve on, 0 for any free one; the first free one from 8400 on when not given."""
    host: str = "127.0.0.1"
    """Address to serve on. Only this machine by default; 0.0.0.0 is every network it is in."""
    https: bool = False
    """Serve over https with a certificate of our own: headsets on the network need it for VR."""
    no_browser: bool = False
    """Do not open a browser."""


def view(settings: View) -> None:
    """Serve scenes until interrupted.

    Raises:
        InputError: If a scene, the address or the port cannot be used.
        RunError: If a run is incomplete or damaged, or the viewer was not built.
        FormatError: If a splat file is damaged.
    """
    _check(settings)
    if settings.scene[0].suffix.lower() == ".html":
        table, told = _finished(settings.scene[0]), settings.scene[0].name
    elif settings.scene[0].suffix.lower() == ".lume" and not holds_scene(settings.scene[0]):
        from lumefield.apps._view_lume import lume_table

        table, told = lume_table(settings.scene[0])
    else:
        away = settings.host not in ("127.0.0.1", "localhost", "::1")
        table, told = scene_table(settings.scene, compact=away)
    from lumefield.apps._view_server import serve

    serve(table, told, settings)


def scene_table(scenes: tuple[Path, ...], *, compact: bool = False) -> tuple["Served", str]:
    """What is served for one or two scenes, and a line that says it.

    Args:
        scenes: Folders of runs or splat files; the first one's cameras are used.
        compact: Whether to send scenes as SPZ, a tenth of a PLY's size, rather than as they are.

    Raises:
        InputError: If a scene is not there, not known, or holds no Gaussians.
        RunError: If a run is incomplete or damaged, or the viewer was not built.
        FormatError: If a splat file is damaged.
    """
    from lumefield.apps._export_html import spz_bytes
    from lumefield.apps._page import Part, asset, scene_stand, served_page, settings
    from lumefield.apps._scene_io import load_scene

    loaded = [load_scene(path) for path in scenes]
    names = [path.resolve().name for path in scenes]
    if len(set(names)) < len(names):
        names = [f"{path.resolve().parent.name}/{path.resolve().name}" for path in scenes]
    parts: list[Part] = []
    table: Served = {}
    for k, (path, scene) in enumerate(zip(scenes, loaded, strict=True)):
        splats = scene.splats
        if not len(splats.means):
            raise InputError(f"{path}: holds no Gaussians, expected at least one")
        file = path / "scene.ply" if path.is_dir() else path
        kind = "spz" if compact else KINDS.get(file.suffix.lower(), "spz")
        as_is = not compact and readable(file)
        body = file.read_bytes() if as_is else spz_bytes(splats)
        kind = kind if as_is else "spz"
        url = f"scene-{k}.{kind}"
        table[f"/{url}"] = ("application/octet-stream", body)
        name = names[k]
        count, soft = len(splats.means), splats.antialiased
        parts.append(Part(name, kind, count, len(body), soft, {"url": url}))
    at, views = scene_stand(loaded[0].splats, loaded[0].views)
    title = " | ".join(part.name for part in parts)
    record = settings(title, parts, at, views, loaded[0].background)
    table["/"] = ("text/html; charset=utf-8", served_page(record))
    table["/bundle.js"] = ("text/javascript; charset=utf-8", asset("bundle.js"))
    told = ", ".join(f"{p.name}: {p.count:,} Gaussians, {p.size / 1e6:.1f} MB" for p in parts)
    return table, told


def readable(file: Path) -> bool:
    """Whether the page can read a file as it is; SPZ 4 is not packed by gzip, and it cannot."""
    if file.suffix.lower() not in KINDS:
        return False
    with file.open("rb") as data:
        start = data.read(2)
    return file.suffix.lower() != ".spz" or start == b"\x1f\x8b"


def _finished(page: Path) -> "Served":
    return {"/": ("text/html; charset=utf-8", page.read_bytes())}


def _check(settings: View) -> None:
    scenes = settings.scene
    if len(scenes) not in (1, 2):
        raise InputError(f"{len(scenes)} scenes, expected one, or two to compare")
    for path in scenes:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder; give a run folder or a splat file")
    for suffix, what in ((".html", "an .html page"), (".lume", "a .lume file")):
        if len(scenes) == 2 and any(path.suffix.lower() == suffix for path in scenes):
            raise InputError(f"{what} cannot be compared; give two runs or splat files")
    if settings.port is not None and not 0 <= settings.port <= 65535:
        raise InputError(f"--port {settings.port}, expected 0 to 65535")
