"""Reading ``field.safetensors``, the file of a radiance field, without jax."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.errors import FormatError, RunError

FIELD_FILE = "field.safetensors"
"""What a run of a radiance field leaves in place of scene.ply."""
FORMAT = 1


def read_field(
    path: Path, names: Collection[str] | None = None
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The header and the arrays of the file; ``names`` picks some of them.

    Raises:
        RunError: If there is no such file.
        FormatError: If it is damaged, made by a newer version, or the field of a fitted signal.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise RunError(f"{path}: not found; expected the folder of a finished radiance-field run")
    try:
        with safe_open(path, "numpy") as file:
            header: Mapping[str, str] = file.metadata() or {}
            if "lumefield" not in header:
                raise FormatError(
                    f"{path}: holds no scene; a fitted signal is drawn by `lumefield render`"
                )
            facts: dict[str, Any] = json.loads(header["lumefield"])
            version = int(facts["format"])
            known: list[str] = list(file.keys())
            wanted = known if names is None else [n for n in known if n in names]
            arrays = {name: file.get_tensor(name) for name in wanted}
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise damaged(path, error) from None
    if version > FORMAT:
        raise FormatError(
            f"{path}: made by a newer lumefield (field format {version}, this one knows "
            f"{FORMAT}); upgrade lumefield"
        )
    return facts, arrays


def read_surface(path: Path) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Points (p, 3) of the surface in world units and their colours.

    Raises:
        RunError: If there is no such file.
        FormatError: If it is damaged.
    """
    return surface_of(read_field(path, ("points", "colours"))[1], path)


def surface_of(
    arrays: Mapping[str, NDArray[Any]], path: Path
) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """The same from the arrays of the file.

    Raises:
        FormatError: If they are damaged.
    """
    try:
        points = arrays["points"].astype(np.float64)
        colours = arrays["colours"].astype(np.uint8)
        if points.ndim != 2 or points.shape[1] != 3 or points.shape != colours.shape:
            raise ValueError(f"points {points.shape} and colours {colours.shape} are not (p, 3)")
    except (KeyError, ValueError) as error:
        raise damaged(path, error) from None
    good = np.isfinite(points).all(1)
    return points[good], colours[good]


def damaged(path: Path, error: Exception) -> FormatError:
    """The error for a file that does not hold what it should."""
    return FormatError(
        f"{path}: not a radiance field of lumefield, or damaged ({error}); train the run again"
    )
