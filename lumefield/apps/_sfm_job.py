"""What ``_sfm`` asks of its child process ``_sfm_worker``, and how the child says where it is."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """What the parent asks for; a JSON object on disk (lists in place of arrays)."""

    mode: str
    """``map`` (unknown poses) or ``triangulate`` (known poses)."""
    folder: Path
    """Work folder: ``images/NAME`` in, ``database.db``, ``sparse/0/`` and ``solution.npz`` out."""
    names: list[str]
    """Working image files, in name order."""
    rows: list[int]
    """Which of the parent's photos each one is."""
    unreadable: list[int]
    """The parent's photos that could not be decoded; only passed on."""
    originals: list[str]
    """Names the images have in the exported model."""
    full_size: list[tuple[int, int]]
    """Width and height of the originals."""
    cameras: list[dict[str, Any]]
    """Each: model, width, height, params, prior (is the focal length trusted)."""
    camera_of: list[int]
    """Index into ``cameras`` per image."""
    pairs: list[tuple[int, int]]
    """Image pairs to match; empty: chosen here, by what the photos share."""
    cam_from_world: list[list[list[float]]]
    """(n, 3, 4) poses of ``triangulate``; empty for ``map``."""
    features: int
    """Most SIFT features per image."""
    threads: int
    """Threads of every step."""


def say(stage: str, fraction: float) -> None:
    """Print one JSON line of progress; ``fraction`` of ``stage`` in [0, 1] is done."""
    print(json.dumps({"stage": stage, "fraction": round(fraction, 4)}), flush=True)
