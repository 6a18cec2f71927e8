"""A method at work: all that a training session knows of what it trains."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._capture_type import Capture
from lumefield.apps._frame import WorldFrame
from lumefield.apps._train_settings import Train
from lumefield.codecs.formats import Splats
from lumefield.fit import AfterStep, Optimizer, Stage, TrainState

BACKGROUND = {"black": 0.0, "white": 1.0, "random": 0.0}
"""Word of ``--background`` -> grey level that pictures are drawn over."""

Camera = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
"""Pose (3, 4) in the training frame, focal length (2,) and centre (2,) in pixels."""


@dataclass(frozen=True)
class Job:
    """One method, set to work on one capture.

    ``fit`` gets the state and the functions; the session keeps the run folder, clock and Ctrl-C.
    """

    noun: str
    """What ``count`` counts, such as Gaussians."""
    result: str
    """Name of the file in the run folder that ``save`` writes."""
    steps: int
    chunk: int
    """Steps per jitted call."""
    memory: str
    """A line on what the run needs."""
    frame: WorldFrame
    """What is trained lives in this frame."""
    record: Mapping[str, Any]
    """Entries of ``config.json``: ``plan``, ``recipe``, and what else a reader needs."""
    carve: bool
    """Whether pixels have a target opacity."""
    level: float
    """Grey behind drawn pictures."""
    watched: int
    """Held-out views scored while training; all are scored at the end."""
    start: Callable[[], TrainState]
    """The state before the first step."""
    stages: Callable[[], tuple[Stage, ...]]
    optimizer: Callable[[Any], Optimizer]
    """Scene -> optimizer."""
    after_step: AfterStep | None
    between: Callable[[TrainState], TrainState] | None
    count: Callable[[TrainState], int]
    facts: Callable[[Mapping[str, NDArray[Any]], TrainState], dict[str, Any]]
    """Metrics of a chunk and the state after it -> further entries of a line of the log."""
    draw: Callable[[TrainState], Callable[[Camera, tuple[int, int]], Any]]
    """State -> (camera, (height, width)) -> (height, width, 3) display sRGB over ``level``."""
    save: Callable[[TrainState, Path], dict[str, Any]]
    """Write ``result`` into the run folder; gives entries of ``metrics.json``."""
    glimpse: Callable[[TrainState], Splats]
    """State -> Gaussians in the user's world that show, cheaply, how far it is; maybe none. It is
    called from another thread while the fit goes on."""
    placed: Callable[[TrainState], TrainState] = lambda state: state
    """The state on the devices that train; where it is already, when there is one."""


Prepare = Callable[[Train, Capture, Mapping[str, Any]], Job]
"""(settings, photos, stored) -> job; ``stored`` is the config of the run to resume, else empty.

Raises:
    InputError: If the settings ask for what cannot be, or for more memory than there is.
"""
