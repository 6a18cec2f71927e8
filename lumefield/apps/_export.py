"""``lumefield export``: a scene as a file that viewers open."""

from pathlib import Path
from typing import TYPE_CHECKING

from lumefield.apps._export_settings import Export as Export
from lumefield.apps._export_settings import check

if TYPE_CHECKING:
    from lumefield.codecs.formats import Splats


def export(settings: Export) -> Path:
    """Convert, bake or mesh a scene and write it in the user's world frame.

    A file at ``--out`` is replaced, whole or not at all.

    Args:
        settings: What to write and where to.

    Returns:
        The file.

    Raises:
        InputError: If the scene, an option or the output cannot be used.
        RunError: If the run is incomplete or damaged.
        FormatError: If a file of the scene is damaged.
    """
    kind = check(settings)
    from lumefield.apps._scene_io import load_scene

    scene = load_scene(settings.scene)
    if kind == "splats" and scene.field is None:
        return _converted(settings, scene.splats)
    from lumefield.apps._export_job import write_baked, write_mesh  # loads jax

    return write_mesh(settings, scene) if kind == "mesh" else write_baked(settings, scene)


def _converted(settings: Export, splats: "Splats") -> Path:
    from lumefield.apps._progress import Say
    from lumefield.codecs.formats import save_splats

    save_splats(splats, settings.out)
    size = settings.out.stat().st_size / 1e6
    Say().line(f"wrote {len(splats.means):,} Gaussians to {settings.out}, {size:.1f} MB")
    return settings.out
