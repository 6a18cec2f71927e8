"""What a run of ``lumefield fit`` draws afterwards: picture, mesh or sound at any resolution."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lumefield.errors import InputError, RunError

SUFFIXES: dict[str, tuple[str, ...]] = {
    "image": (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp", ".exr", ".hdr"),
    "gradient": (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp"),
    "sdf": (".glb", ".ply", ".obj", ".stl"),
    "audio": (".wav",),
}
"""Kind of signal -> files that can be written."""
RESOLUTIONS = (8, 1024)
"""Fewest and most cells of a mesh along the cube."""


def signal_config(run: Path) -> dict[str, Any] | None:
    """``config.json`` of a run of ``lumefield fit``; None for anything else.

    Raises:
        RunError: If the file is damaged.
    """
    from lumefield.apps._fit_settings import COMMAND
    from lumefield.apps._scene_io import read_json

    config = read_json(run / "config.json") if run.is_dir() else {}
    return config if config.get("command") == COMMAND else None


def render_signal(
    run: Path,
    out: Path,
    *,
    size: tuple[int | None, int | None] = (None, None),
    resolution: int | None = None,
    rate: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Draw the field of a run into a file.

    Args:
        run: Folder of a run of ``lumefield fit``.
        out: Picture, mesh or sound, as the signal is.
        size: Columns and rows of a picture; what is None follows from the other, or the input.
        resolution: Cells of a mesh along the cube of the field.
        rate: Samples a second of a sound.
        overwrite: Whether to write over a file that is there.

    Raises:
        InputError: If the output or an option does not suit the signal.
        RunError: If the run is incomplete or damaged.
    """
    config = signal_config(run)
    if config is None:
        raise RunError(f"{run}: is not a run of `lumefield fit`")
    kind, facts = config.get("signal"), config.get("facts")
    if kind not in SUFFIXES or not isinstance(facts, dict):
        raise RunError(f"{run / 'config.json'}: does not tell its signal; fit it again")
    _check(kind, out, size, resolution, rate, overwrite=overwrite)
    from lumefield.apps._signal import load_field

    if kind == "gradient":
        raise InputError(f"{run}: a clone has the pixels of its target; take {run / 'image.png'}")
    field = load_field(run, config)
    try:
        _write(kind, field, facts, out, size, resolution, rate)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{run / 'config.json'}: damaged ({error}); fit it again") from None
    return out


def _write(
    kind: str,
    field: Any,  # noqa: ANN401
    facts: Mapping[str, Any],
    out: Path,
    size: tuple[int | None, int | None],
    resolution: int | None,
    rate: int | None,
) -> None:
    if kind == "image":
        from lumefield.apps import _signal_image

        height, width = _signal_image.size_of(facts, *size)
        _signal_image.save(out, _signal_image.draw(field, facts, height, width), facts)
    elif kind == "sdf":
        from lumefield.apps import _shape_files, _signal_sdf

        mesh = _signal_sdf.extract(field, facts, resolution or int(facts["resolution"]))
        _shape_files.save_mesh(out, mesh)
    else:
        from lumefield.apps import _signal_audio, _sound_files

        sound = _signal_audio.draw(field, facts, rate)
        _sound_files.save_wav(out, sound, rate or int(facts["rate"]), int(facts["bits"]))


def _check(
    kind: str,
    out: Path,
    size: tuple[int | None, int | None],
    resolution: int | None,
    rate: int | None,
    *,
    overwrite: bool,
) -> None:
    if out.suffix.lower() not in SUFFIXES[kind]:
        known = " ".join(SUFFIXES[kind])
        raise InputError(f"--out {out}: the run holds a signal of kind {kind}; expected {known}")
    if out.is_dir():
        raise InputError(f"--out {out}: is a folder; give another name")
    if out.exists() and not overwrite:
        raise InputError(f"--out {out}: exists already; give another name or add --overwrite")
    given = {
        "width": (size[0], "image"),
        "height": (size[1], "image"),
        "resolution": (resolution, "sdf"),
        "rate": (rate, "audio"),
    }
    for name, (value, wanted) in given.items():
        if value is not None and kind != wanted:
            raise InputError(
                f"--{name}: belongs to runs of kind {wanted}, not {kind}; leave it out"
            )
    if resolution is not None and not RESOLUTIONS[0] <= resolution <= RESOLUTIONS[1]:
        raise InputError(
            f"--resolution {resolution}: expected {RESOLUTIONS[0]} to {RESOLUTIONS[1]} cells"
        )
