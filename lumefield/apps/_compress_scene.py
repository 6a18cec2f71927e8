"""``lumefield compress`` of scenes; of Gaussians: how many bits each is worth, by looking."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lumefield.apps._compress_search import BEST, Try, losses, searched
from lumefield.apps._views import Views
from lumefield.errors import InputError

if TYPE_CHECKING:
    from lumefield.apps._compress import Compress
    from lumefield.apps._decompress import Decompress
    from lumefield.apps._scene_io import Scene
    from lumefield.codecs.formats import Splats
    from lumefield.codecs.scene import Canonical

_MOST_VIEWS = 12


def is_scene(path: Path) -> bool:
    """Whether a path is the folder of a run or a splat file, by its name."""
    from lumefield.codecs.formats import SPLAT_SUFFIXES

    return path.is_dir() or path.suffix.lower() in SPLAT_SUFFIXES


def holds_scene(path: Path) -> bool:
    """Whether a ``.lume`` file holds a scene; a file that cannot be opened does not."""
    from lumefield.codecs.neural import Container

    try:
        with path.open("rb") as file:
            return Container.holds(file.read(6)) in ("splats", "field")
    except OSError:
        return False


def check_scene(settings: "Compress") -> None:
    """Complain about what does not fit a scene.

    Raises:
        InputError: If an option is for pictures or videos.
    """
    wrong = {"roi": "--roi", "lambda_": "--lambda", "frames": "--frames", "size": "--size"}
    for name, flag in wrong.items():
        if getattr(settings, name) is not None:
            raise InputError(f"{flag} is for pictures and videos; leave it out for a scene")


def compress_scene(settings: "Compress") -> Path:
    """Measure, prune, quantise, code, verify and write a scene.

    Raises:
        InputError: If the wanted size or quality is out of reach.
        RunError: If the run holds no scene, or its files are damaged.
        FormatError: If the file of the scene is damaged.
    """
    from lumefield.apps._compress_views import sensitivities
    from lumefield.apps._progress import CaptureBar, Say
    from lumefield.apps._scene_io import load_scene
    from lumefield.codecs.formats import replacing
    from lumefield.codecs.scene import canonical

    scene, begun = load_scene(settings.input), time.monotonic()
    if scene.field is not None:
        from lumefield.apps._compress_field import compress_field

        return compress_field(settings, scene, scene.field)
    splats = scene.splats
    if not len(splats.means):
        raise InputError(f"{settings.input}: holds no Gaussians that can be drawn")
    if splats.sh.shape[1] > 25:
        raise InputError(f"{settings.input}: harmonics above degree 4 cannot be coded")
    seen, judged = _cameras(scene)
    with CaptureBar() as tell:
        costs = sensitivities(canonical(splats), seen, antialiased=splats.antialiased, tell=tell)
        found = searched(settings, scene, _attempts(settings, scene, costs, judged), tell)
    with replacing(settings.out) as file:
        file.write(found.data)
    plain = len(splats.means) * 4 * (14 + 3 * splats.sh.shape[1])
    say = Say()
    say.line(
        f"{settings.out}: {len(found.data):,} bytes, 1/{plain / len(found.data):.1f} of a PLY, "
        f"{found.kept:,} of {len(splats.means):,} Gaussians, {found.psnr:.2f} dB against the "
        f"scene's own pictures, {time.monotonic() - begun:.0f} s; decoded and compared"
    )
    if scene.views is not None:
        from lumefield.apps._scene_io import make_draw
        from lumefield.codecs.scene import decode_scene

        draw = make_draw(decode_scene(found.data)[0], background=scene.background)
        for line in losses(scene, scene.views, draw):
            say.line(line)
    return settings.out


def decompress_scene(settings: "Decompress", data: bytes) -> Path:
    """Write the Gaussians of a ``.lume`` file in any splat format.

    Raises:
        InputError: If the suffix of ``--out`` is not one that can be written.
        FormatError: If the file is damaged.
    """
    from lumefield.apps._progress import Say
    from lumefield.codecs.formats import save_splats
    from lumefield.codecs.scene import decode_scene

    splats, _ = decode_scene(data, source=str(settings.input))
    save_splats(splats, settings.out)
    degree = round(splats.sh.shape[1] ** 0.5) - 1
    Say().line(
        f"{settings.out}: {len(splats.means):,} Gaussians, harmonics of degree {degree}, from "
        f"{len(data):,} bytes"
    )
    return settings.out


def _cameras(scene: "Scene") -> tuple[Views, Views]:
    """From where costs are measured, and from where quality is judged; never held-out views."""
    from lumefield.apps._bake_views import between, one_size
    from lumefield.apps._paths import around_points

    if scene.views is None:
        points = scene.surface()
        rounds = (0.35, -0.2, 0.9)
        seen = around_points(*points, 640, 480, turns=16, heights=rounds)
        judged = around_points(*points, 640, 480, turns=5, heights=(0.6, 0.1))
        return seen, judged
    train = [k for k, held in enumerate(scene.views.held_out) if not held]
    seen = scene.views.pick(train or list(range(len(scene.views))))
    judged = between(one_size(seen, 640), _MOST_VIEWS, seed=0)
    return seen, judged if len(judged) else seen


def _attempts(
    settings: "Compress", scene: "Scene", costs: "Canonical", judged: Views
) -> Callable[[float], Try]:
    from lumefield.apps._scene_io import make_draw, to_bytes
    from lumefield.codecs.scene import Canonical, decode_scene, encode_scene, kept

    splats = scene.splats

    def pictures(shown: "Splats") -> list[Any]:
        draw = make_draw(shown, background=scene.background)
        drawn = (draw(judged.pick([k])).rgb for k in range(len(judged)))
        return [to_bytes(rgb).astype(np.float64) for rgb in drawn]

    own = pictures(splats)

    def attempt(price: float) -> Try:
        keep = kept(costs, price)
        keep[np.argmax(costs.colours[:, 0].sum(1))] = True
        part = Canonical(*(x[keep] for x in costs))
        data = encode_scene(splats.taken(keep), part, price, name=settings.input.name)
        errors = [
            float(np.mean((a - b) ** 2))
            for a, b in zip(pictures(decode_scene(data)[0]), own, strict=True)
        ]
        psnr = [10 * math.log10(255**2 / e) if e > 0 else BEST for e in errors]
        return Try(price, data, int(keep.sum()), float(np.mean(np.minimum(psnr, BEST))))

    return attempt
