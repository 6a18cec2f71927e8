"""Checkpoints of a run: one safetensors file and its seal, written whole, the last two kept."""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.errors import RunError

KEPT = 2
"""Checkpoints kept; when the newest is damaged the one before is used."""


class Checkpoint(NamedTuple):
    """A loaded checkpoint."""

    step: int
    arrays: dict[str, NDArray[Any]]
    """The numbers of ``TrainState`` by path."""
    facts: dict[str, Any]
    """What was noted beside them, such as the seconds spent."""
    skipped: tuple[str, ...]
    """Newer checkpoints that are damaged, with the reason."""


def save_checkpoint(
    folder: Path, step: int, arrays: dict[str, NDArray[Any]], facts: dict[str, Any]
) -> Path:
    """Write ``step-N.safetensors`` and its seal ``step-N.json``, then drop all but the last two.

    The seal (size and SHA-256) is written last: a file without a seal does not count. Checkpoints
    of later steps are dropped too: a run that writes step N went on from an earlier one.

    Raises:
        InputError: If the folder cannot be written.
    """
    from safetensors.numpy import save

    from lumefield.codecs.formats import replacing

    # Not np.ascontiguousarray: it makes (1,) of ().
    data = save({name: np.asarray(value, order="C") for name, value in arrays.items()})
    path = folder / f"step-{step:08d}.safetensors"
    seal = {
        "step": step,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "facts": facts,
    }
    with replacing(path) as file:
        file.write(data)
    with replacing(path.with_suffix(".json")) as file:
        file.write(json.dumps(seal).encode())
    kept = [path, *(p for p in _newest_first(folder) if p.name < path.name)][:KEPT]
    for old in folder.glob("step-*.safetensors"):
        if old not in kept:
            old.with_suffix(".json").unlink(missing_ok=True)
            old.unlink(missing_ok=True)
    return path


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; None when there is none at all.

    What was killed before its seal was written is no checkpoint.

    Raises:
        RunError: If there are checkpoints and every one is damaged.
    """
    skipped: list[str] = []
    for path in _newest_first(folder):
        try:
            return _load(path, tuple(skipped))
        except (OSError, ValueError, KeyError, TypeError) as error:
            skipped.append(f"{path.name}: {error}")
    if skipped:
        raise RunError(
            f"{folder}: every checkpoint is damaged ({skipped[0]}); "
            "train again with --overwrite, the capture is kept"
        )
    return None


def _load(path: Path, skipped: tuple[str, ...]) -> Checkpoint:
    from safetensors.numpy import load

    seal = json.loads(path.with_suffix(".json").read_text("utf-8"))
    if path.stat().st_size != seal["bytes"]:
        raise ValueError(f"{path.stat().st_size} bytes, expected {seal['bytes']}")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != seal["sha256"]:
        raise ValueError("its SHA-256 does not match")
    return Checkpoint(int(seal["step"]), load(data), dict(seal["facts"]), skipped)


def _newest_first(folder: Path) -> list[Path]:
    sealed = (p for p in folder.glob("step-*.safetensors") if p.with_suffix(".json").exists())
    return sorted(sealed, reverse=True)
