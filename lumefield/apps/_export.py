"""``lumefield export``: a scene as a file that viewers open."""

from pathlib import Path

from lumefield.apps._export_presets import with_preset
from lumefield.apps._export_settings import Export as Export
from lumefield.apps._export_settings import check


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
    settings = with_preset(settings)
    kind = check(settings)
    from lumefield.apps._scene_io import load_scene

    scene = load_scene(settings.scene)
    if kind == "points":
        from lumefield.apps._export_points import write_points

        return write_points(settings, scene)
    if kind == "splats" and scene.field is None:
        from lumefield.apps._export_splats import write_splats

        return write_splats(settings, scene.splats, scene.views, scene.background)
    from lumefield.apps._export_job import write_baked, write_mesh  # loads jax

    return write_mesh(settings, scene) if kind == "mesh" else write_baked(settings, scene)
