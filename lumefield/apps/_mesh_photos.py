"""The pictures that a texture is made of: the photos a run was trained on, never those held out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._bake_views import Look, Tell, look_all, one_size
from lumefield.apps._scene_io import Scene, read_json
from lumefield.apps._views import Views
from lumefield.errors import UserError

MOST = 100
"""Most pictures; of more, evenly chosen ones are used."""


@dataclass(frozen=True)
class Pictures:
    """``n`` pictures and their cameras."""

    views: Views
    rgb: NDArray[np.uint8]
    """(n, H, W, 3) display sRGB."""
    counts: NDArray[np.bool_]
    """(n, H, W) whether a pixel may be used."""
    what: str
    """What they are, for people."""


def pictures_of(scene: Scene, look: Look, views: Views, tell: Tell) -> Pictures:
    """The training photos of a run; what ``look`` sees of its cameras where the photos are gone.

    Args:
        scene: The scene.
        look: How it looks.
        views: Cameras to draw from where there are no photos.
        tell: Hears what is done.
    """
    try:
        found = _photos(scene, tell)
    except (UserError, OSError) as error:
        found = None
        why = f" ({error})"
    else:
        why = ""
    if found is not None:
        return found
    kept = _evenly(views.pick([k for k, held in enumerate(views.held_out) if not held]))
    seen = look_all(look, one_size(kept, 2048), tell)
    what = f"{len(kept)} pictures of the scene itself, as there are no photos{why}"
    return Pictures(seen.views, seen.rgb, seen.alpha > 200, what)


def _evenly(views: Views) -> Views:
    return views.pick(np.unique(np.linspace(0, len(views) - 1, MOST).round().astype(np.intp)))


def _photos(scene: Scene, tell: Tell) -> Pictures | None:
    from lumefield.apps._capture import capture

    if scene.run is None or scene.views is None:
        return None
    cameras = read_json(scene.run / "capture" / "cameras.json")
    settings = read_json(scene.run / "config.json").get("settings")
    source: Any = cameras.get("source")
    if not isinstance(settings, dict) or not isinstance(source, dict) or "input" not in settings:
        return None
    taken = capture(
        Path(str(settings["input"])),
        cache=scene.run / "capture",
        downscale=float(source.get("downscale", 1.0)),
        mask_mode=settings.get("mask_mode"),
        progress=tell,
    )
    place = {name: k for k, name in enumerate(taken.names)}
    train = [
        k
        for k, name in enumerate(scene.views.names)
        if not scene.views.held_out[k] and name in place
    ]
    views = _evenly(scene.views.pick(train))
    rows = [place[name] for name in views.names]
    height, width = taken.images.shape[1:3]
    size = np.array([width, height])
    if not rows or (taken.sizes[rows] != views.size).any():
        return None
    counts = np.zeros((len(rows), height, width), bool)
    for k, row in enumerate(rows):
        w, h = taken.sizes[row]
        weight = np.broadcast_to(taken.weights[row], (height, width))
        opaque = np.broadcast_to(taken.alphas[row], (height, width))
        counts[k, :h, :w] = ((weight > 127) & (opaque > 127))[:h, :w]
    padded = Views(
        names=views.names,
        world_from_cam=views.world_from_cam,
        focal=views.focal,
        centre=views.centre,
        size=np.tile(size, (len(rows), 1)),
        held_out=views.held_out,
    )
    return Pictures(padded, taken.images[rows], counts, f"{len(rows)} photos")
