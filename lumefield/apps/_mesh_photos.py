"""The photos a run was trained on, never those held out: for textures, and to judge a scene by."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._bake_views import Look, Tell, look_all, one_size
from lumefield.apps._scene_io import Scene, read_json
from lumefield.apps._views import Views, capture_views
from lumefield.errors import UserError

if TYPE_CHECKING:
    from lumefield.apps._capture_load import MaskMode

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
        run, own = scene.run, scene.views
        found = None if run is None or own is None else photos_of(run, own, tell)
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


def photos_of(
    run: Path, views: Views, tell: Tell, *, source: Path | None = None
) -> Pictures | None:
    """The training photos of a run, as it was trained on them; None where they do not fit.

    An edited scene has those of the run it comes from, unless its colours were changed or another
    scene was merged into it.

    Args:
        run: Folder of the run.
        views: Its cameras; those that are held out are left out.
        tell: Hears what is done.
        source: Where the photos are; where they were in training when None.

    Raises:
        UserError: If the photos cannot be read any more.
    """
    trained = _trained(run)
    if trained is None:
        return None
    facts = read_json(trained / "capture" / "cameras.json").get("source")
    settings = read_json(trained / "config.json").get("settings")
    if not isinstance(settings, dict) or not isinstance(facts, dict) or "input" not in settings:
        return None
    return captured(
        source or Path(str(settings["input"])),
        trained / "capture",
        tell,
        views=views,
        downscale=float(facts.get("downscale", 1.0)),
        mask_mode=settings.get("mask_mode"),
    )


def captured(
    source: Path,
    cache: Path,
    tell: Tell,
    *,
    views: Views | None = None,
    downscale: float | None = None,
    mask_mode: "MaskMode | None" = None,
) -> Pictures | None:
    """The photos of a capture that are not held out.

    Args:
        source: What a scene is trained from.
        cache: Where structure from motion has left its cameras.
        tell: Hears what is done.
        views: Cameras to use instead of the capture's own: of photos of the same names. None is
            returned where none is left, or their sizes differ.
        downscale: As in ``capture``.
        mask_mode: As in ``capture``.

    Raises:
        UserError: If the photos cannot be read.
    """
    from lumefield.apps._capture import capture

    taken = capture(
        source,
        cache=cache,
        downscale=downscale,
        mask_mode=mask_mode,
        progress=tell,
        points=False,
    )
    views = views or capture_views(taken)
    place = {name: k for k, name in enumerate(taken.names)}
    train = [k for k, name in enumerate(views.names) if not views.held_out[k] and name in place]
    if not train:
        return None
    views = _evenly(views.pick(train))
    rows = [place[name] for name in views.names]
    if (taken.sizes[rows] != views.size).any():
        return None
    height, width = taken.images.shape[1:3]
    counts = np.zeros((len(rows), height, width), bool)
    for k, row in enumerate(rows):
        w, h = taken.sizes[row]
        weight = np.broadcast_to(taken.weights[row], (height, width))
        opaque = np.broadcast_to(taken.alphas[row], (height, width))
        counts[k, :h, :w] = ((weight > 127) & (opaque > 127))[:h, :w]
    padded = dataclasses.replace(views, size=np.tile(np.array([width, height]), (len(rows), 1)))
    return Pictures(padded, taken.images[rows], counts, f"{len(rows)} photos")


def _trained(run: Path) -> Path | None:
    """The run that was trained, of which ``run`` may be an edit; None where photos say nothing."""
    edits = read_json(run / "config.json").get("edits")
    if not isinstance(edits, list) or not edits:
        return run
    records: list[Any] = [edit if isinstance(edit, dict) else {} for edit in edits]
    if any(record.get("recipe") in ("recolour", "merge") for record in records):
        return None
    first = Path(str(records[0].get("source", "")))
    return first if first.is_dir() else None
