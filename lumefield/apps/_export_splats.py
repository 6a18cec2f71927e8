"""Gaussians into a file: cropped, melted, moved, written, and looked at again."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lumefield.apps._export_place import Similarity, cropped, similarity
from lumefield.apps._export_presets import PRESETS, expected
from lumefield.apps._export_settings import Export, suffix_of
from lumefield.apps._progress import Say
from lumefield.apps._views import Views
from lumefield.errors import InputError

if TYPE_CHECKING:
    from lumefield.apps._scene_io import Rgb
    from lumefield.codecs.formats import Splats


class Prepared(NamedTuple):
    """What is written."""

    splats: "Splats"
    moved: Similarity
    """From the scene's frame to the file's."""
    melted: int | None
    """How many were melted together to no more than --max-splats; None where none had to be."""


def write_splats(settings: Export, scene: "Splats", views: Views | None, background: "Rgb") -> Path:
    """Write Gaussians as the settings want them, and say what becomes of them.

    Args:
        settings: Checked settings.
        scene: The Gaussians, in their world.
        views: Cameras of the run, or None for a bare file.
        background: Display sRGB behind them.

    Raises:
        InputError: If nothing is left, a wish cannot be met, or the file cannot be written.
        FormatError: If --verify cannot read the file back.
    """
    say, suffix = Say(), suffix_of(settings)
    made = prepared(settings, scene, views, suffix)
    degree = round(made.splats.sh.shape[1] ** 0.5) - 1
    if made.melted is not None:
        say.line(f"melted {made.melted:,} Gaussians into {len(made.splats.means):,}")
    if suffix == ".html":
        _page(settings, made.splats, views, background)
    else:
        from lumefield.codecs.formats import save_splats

        count = len(made.splats.means)
        less = count < len(scene.means) or made.splats.sh.shape[1] < scene.sh.shape[1]
        say.line(expected(suffix, count, degree).line(count, degree, less=less))
        kind = ".glb" if suffix == ".splats.glb" else suffix
        save_splats(made.splats, settings.out, suffix=kind, spz_version=settings.spz_version)
        size = settings.out.stat().st_size / 1e6
        place = f"; for {PRESETS[settings.preset].text}" if settings.preset else ""
        say.line(f"wrote {count:,} Gaussians to {settings.out}, {size:.1f} MB{place}")
    if settings.verify:
        from lumefield.apps._export_verify import verify

        held = None if views is None else views.test()
        verdict = verify(settings.out, suffix, scene, held, made.moved, background)
        say.line(verdict.line(settings.out))
    return settings.out


def prepared(settings: Export, scene: "Splats", views: Views | None, suffix: str) -> Prepared:
    """The scene cropped, melted to --max-splats, cut to --sh-degree and put in its place.

    Raises:
        InputError: If nothing is left, or a wish cannot be met.
    """
    splats = cropped(scene, settings.place)
    moved = similarity(settings.place, splats, views, suffix)
    melted = None
    if settings.max_splats is not None and len(splats.means) > settings.max_splats:
        melted, splats = len(splats.means), _fewer(splats, views, settings.max_splats)
    if settings.sh_degree is not None:
        splats = splats.cut(settings.sh_degree)
    if moved.is_identity:
        return Prepared(splats, moved, melted)
    if suffix == ".html":
        raise InputError(
            "--up, --eye-height and --scale-to-metres: a page holds its scene upright by itself; "
            "leave them out for .html"
        )
    return Prepared(splats.moved(moved.rotation, moved.offset, moved.scale), moved, melted)


def _fewer(splats: "Splats", views: Views | None, limit: int) -> "Splats":
    """At most ``limit`` Gaussians: what is never seen goes, neighbours that look alike melt."""
    from lumefield.apps._edit_decimate import melted
    from lumefield.apps._edit_scene import opacity_of
    from lumefield.apps._export_prune import contributions
    from lumefield.apps._paths import around_points
    from lumefield.apps._progress import CaptureBar

    if views is None:
        views = around_points(splats.means.astype(np.float64), opacity_of(splats), 640, 480)
    else:
        training = [i for i, held in enumerate(views.held_out) if not held]
        views = views.pick(training) if training else views
    with CaptureBar() as tell:
        return melted(splats, contributions(splats, views, tell), limit, tell)


def _page(settings: Export, splats: "Splats", views: Views | None, background: "Rgb") -> None:
    from lumefield.apps._export_html import write_html

    title = settings.scene.resolve().stem
    sizes = write_html(splats, views, settings.out, title=title, background=background)
    Say().line(sizes.line(len(splats.means), settings.out))
