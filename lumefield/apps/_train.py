"""``lumefield train``: from what a person has to a run folder with a scene and a report."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from lumefield.apps._train_settings import Train as Train
from lumefield.apps._train_settings import check

if TYPE_CHECKING:
    from lumefield.apps._live import Live


def train(settings: Train) -> Path:
    """Capture, train, score and report.

    Ctrl-C while training saves a checkpoint and the scene so far, and ends normally.

    Args:
        settings: What to train and where to put it.

    Returns:
        The folder of the run.

    Raises:
        InputError: If the input or an option cannot be used; an existing run is left as it is.
        RunError: If the run cannot be continued, or the viewer of --view was not built.
    """
    check(settings)
    from lumefield.apps._capture import check_input
    from lumefield.apps._run import Run

    with Run.open(settings.out, resume=settings.resume, overwrite=settings.overwrite) as run:
        settings = run.stored(settings) if settings.resume else settings
        check_input(settings.input)
        with _live(settings) as live:
            from lumefield.apps._train_run import Session  # loads jax: after what needs none

            session = Session.prepare(settings, run, live)
            session.fit()
            session.finish()
    return settings.out


def _live(settings: Train) -> "AbstractContextManager[Live | None]":
    """The live view, where it is asked for."""
    if not settings.view:
        return nullcontext()
    from lumefield.apps._live import Live
    from lumefield.apps._progress import Say

    return Live.open(settings, Say())
