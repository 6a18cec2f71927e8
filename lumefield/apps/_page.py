"""The viewer page: what a browser must know of a scene, and the page around it.

The page's frame is y up, x right, z towards the viewer, as WebGL has it; lengths are the scene's
units. ``viewer/`` at the root of the repository holds the sources, ``make viewer`` builds them into
``lumefield/apps/viewer``. Names that come from files reach the page only as escaped text, and the
page's own policy forbids every script but ours and every address but its own.
"""

import base64
import hashlib
import html
import json
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._paths import around_points, look_centre, world_up
from lumefield.apps._views import Views
from lumefield.errors import RunError

if TYPE_CHECKING:
    from lumefield.codecs.formats import Splats

Doubles = NDArray[np.float64]

MAX_CAMERAS = 400
"""Cameras that the page lists; of more, every so many."""
EYE_HEIGHT = 1.55
"""Metres above the floor at which photographs are assumed to be taken, where no scale is known."""
_FLIP = np.diag([1.0, -1.0, -1.0])


@dataclass(frozen=True)
class Part:
    """A scene of the page."""

    name: str
    """What it is called; may hold any characters."""
    kind: str
    """How its bytes are read: ply, splat, sog (the PLY's axes) or spz (right, up, back)."""
    count: int
    size: int
    """Bytes of the file."""
    antialiased: bool
    place: dict[str, str]
    """Where the bytes are: ``{"url": ...}`` or ``{"element": id}``."""


@dataclass(frozen=True)
class Stand:
    """How a scene stands in the page; lengths in scene units."""

    turn: Doubles
    """(3, 3) page_from_scene."""
    centre: Doubles
    """(3,) what the cameras look at, page frame."""
    radius: float
    """How far from there the cameras are; > 0."""
    floor: float
    """Height of the floor, page frame."""
    metres: float
    """Metres per scene unit, told or guessed."""


def stand(
    points: Doubles,
    weights: Doubles,
    views: Views,
    up: Doubles,
    metres: float | None = None,
) -> Stand:
    """Set a scene upright and guess floor and scale.

    The floor is the lowest of what is seen near the centre. Without ``metres`` the cameras are
    taken to be held at ``EYE_HEIGHT``, or, where that makes no sense, 2.5 m from the centre.

    Args:
        points: (p, 3) points of the scene.
        weights: (p,) >= 0; points of weight 0 do not count.
        views: At least one camera.
        up: (3,) direction against gravity, scene frame.
        metres: Metres per scene unit, where known.
    """
    turn = _upright(up / np.linalg.norm(up))
    seen = points[(weights > 0) & np.isfinite(points).all(1)]
    centre = look_centre(views, seen)
    eyes = views.world_from_cam[:, :, 3] @ turn.T
    middle = turn @ centre
    away = np.linalg.norm(eyes - middle, axis=1)
    radius = float(np.median(away))
    radius = radius if np.isfinite(radius) and radius > 0 else 1.0
    placed = seen @ turn.T
    near = np.hypot(*(placed - middle)[:, [0, 2]].T) < 1.5 * radius
    heights = placed[near, 1] if near.any() else placed[:, 1]
    eye = float(np.median(eyes[:, 1]))
    floor = float(np.percentile(heights, 2)) if len(heights) else eye - 0.6 * radius
    if metres is None:
        rise = eye - floor
        metres = EYE_HEIGHT / rise if 0.15 * radius < rise < 4 * radius else 2.5 / radius
    return Stand(turn, middle, radius, floor, metres)


def settings(
    title: str, parts: list[Part], at: Stand, views: Views, background: tuple[float, ...]
) -> dict[str, Any]:
    """What ``viewer/src/main.js`` reads."""
    return {
        "title": title,
        "scenes": [
            {
                "name": part.name,
                "kind": part.kind,
                "count": part.count,
                "bytes": part.size,
                "antialiased": part.antialiased,
                **part.place,
            }
            for part in parts
        ],
        "background": "#" + "".join(f"{round(255 * min(max(c, 0), 1)):02x}" for c in background),
        "pageFromScene": _short(_quaternion(at.turn)),
        "centre": _short(at.centre),
        "radius": _short(np.array([at.radius]))[0],
        "floor": _short(np.array([at.floor]))[0],
        "metres": _short(np.array([at.metres]))[0],
        "cameras": _cameras(views, at.turn),
    }


def scene_stand(
    splats: "Splats", views: Views | None, metres: float | None = None
) -> tuple[Stand, Views]:
    """How Gaussians stand, and the cameras to look from: the capture's, or eight all around."""
    points = splats.means.astype(np.float64)
    weights = np.where(splats.logit_opacities > -2.2, 1.0, 0.0)
    if views is not None and len(views):
        return stand(points, weights, views, world_up(views), metres), views
    around = around_points(points, weights, 640, 480)
    up = world_up(around) if splats.up is None else np.array(splats.up, np.float64)
    names = tuple(f"view {k + 1}" for k in range(len(around)))
    around = Views(
        names=names,
        world_from_cam=around.world_from_cam,
        focal=around.focal,
        centre=around.centre,
        size=around.size,
        held_out=around.held_out,
    )
    return stand(points, weights, around, up, metres), around


def whole_page(
    record: dict[str, Any], data: list[tuple[str, bytes]], poster: bytes | None
) -> bytes:
    """One HTML file that needs nothing else.

    Args:
        record: From :func:`settings`; its scenes name elements of ``data``.
        data: (id of the element, bytes of the scene).
        poster: JPEG shown until the scene is drawn, or None.

    Raises:
        RunError: If the viewer was not built into the package.
    """
    script = inline_script(asset("bundle.js").decode())
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    elements = [
        f'<script type="text/plain" id="{key}">{base64.b64encode(raw).decode()}</script>'
        for key, raw in data
    ]
    return _filled(
        record,
        policy=_policy(f"'sha256-{digest}'", "data: blob:"),
        data="\n".join(elements),
        script=f"<script>{script}</script>",
        poster=_poster(poster),
    )


def served_page(record: dict[str, Any]) -> bytes:
    """The page as a server gives it out, with ``bundle.js`` and the scenes beside it.

    Raises:
        RunError: If the viewer was not built into the package.
    """
    return _filled(
        record,
        policy=_policy("'self'", "'self' data: blob:"),
        data="",
        script='<script src="bundle.js"></script>',
        poster="",
    )


def asset(name: str) -> bytes:
    """A file of the built viewer.

    Raises:
        RunError: If the viewer was not built into the package.
    """
    file = resources.files("lumefield.apps").joinpath("viewer", name)
    try:
        return file.read_bytes()
    except OSError:
        raise RunError(
            f"{Path(str(file))}: the viewer page is not built; run `make viewer` in the sources of "
            "lumefield, or install its wheel"
        ) from None


def _filled(record: dict[str, Any], **slots: str) -> bytes:
    """The template with every ``{{slot}}`` filled in one pass, so that no value is read again."""
    slots["title"] = html.escape(str(record["title"]))
    slots["style"] = asset("style.css").decode()
    slots["settings"] = json_text(record)
    template = asset("template.html").decode()
    return re.sub(r"\{\{(\w+)\}\}", lambda found: slots[found[1]], template).encode()


def json_text(record: dict[str, Any]) -> str:
    """JSON that may stand inside an HTML element: no ``<``, ``>`` or ``&``."""
    text = json.dumps(record, allow_nan=False)
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _policy(script: str, connect: str) -> str:
    """Content security policy: our script, its workers and its WebAssembly, and nothing else."""
    return (
        f"default-src 'none'; script-src {script} 'wasm-unsafe-eval'; "
        f"worker-src blob:; connect-src {connect}; img-src data: blob:; "
        "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    )


def inline_script(script: str) -> str:
    """A script that no HTML parser ends early; the two sequences only occur inside strings."""
    script = re.sub(r"</(script)", r"<\\/\1", script, flags=re.IGNORECASE)
    return script.replace("<!--", "<\\!--")


def _poster(jpeg: bytes | None) -> str:
    if jpeg is None:
        return ""
    coded = base64.b64encode(jpeg).decode()
    return f'<img id="poster" alt="" src="data:image/jpeg;base64,{coded}">'


def _cameras(views: Views, turn: Doubles) -> list[dict[str, Any]]:
    step = max(1, -(-len(views) // MAX_CAMERAS))
    found: list[dict[str, Any]] = []
    for k in range(0, len(views), step):
        pose, (width, height) = views.world_from_cam[k], views.size[k]
        found.append(
            {
                "name": views.names[k],
                "position": _short(turn @ pose[:, 3]),
                "rotation": _short(_quaternion(turn @ pose[:, :3] @ _FLIP)),
                "focal": _short(views.focal[k, 1:] / height)[0],
                "aspect": _short(np.array([width / height]))[0],
                "shift": _short(views.centre[k] / views.size[k] - 0.5),
                "heldOut": views.held_out[k],
            }
        )
    return found


def _upright(up: Doubles) -> Doubles:
    """The turn (3, 3) that takes ``up`` to +y: half a turn about x, then the shortest."""
    held = _FLIP @ up
    cosine = held[1]
    if cosine < -1 + 1e-9:
        return np.eye(3)  # +y already is up
    x, _, z = held
    cross = np.array([[0, -x, 0], [x, 0, z], [0, -z, 0]])  # of held x (0, 1, 0)
    return (np.eye(3) + cross + cross @ cross / (1 + cosine)) @ _FLIP


def _quaternion(turn: Doubles) -> Doubles:
    """(4,) xyzw, as three.js has it, of a rotation matrix: Bar-Itzhack, 2000."""
    (a, b, c), (d, e, f), (g, h, i) = turn
    matrix = np.array(
        [
            [a - e - i, b + d, c + g, h - f],
            [b + d, e - a - i, f + h, c - g],
            [c + g, f + h, i - a - e, d - b],
            [h - f, c - g, d - b, a + e + i],
        ]
    )
    return np.linalg.eigh(matrix)[1][:, -1]


def _short(values: Doubles) -> list[float]:
    """Seven digits are more than a browser's float32 holds."""
    return [float(f"{v:.7g}") for v in values]
