"""``lumefield train``: from what a person has to a run folder with a scene and a report."""

from pathlib import Path

from lumefield.apps._train_settings import Train as Train
from lumefield.apps._train_settings import check


def train(settings: Train) -> Path:
    """Capture, train, score and report.

    Ctrl-C while training saves a checkpoint and the scene so far, and ends normally.

    Args:
        settings: What to train and where to put it.

    Returns:
        The folder of the run.

    Raises:
        InputError: If the input or an option cannot be used; an existing run is left as it is.
        RunError: If the run cannot be continued.
    """
    check(settings)
    from lumefield.apps._capture import check_input
    from lumefield.apps._run import Run

    with Run.open(settings.out, resume=settings.resume, overwrite=settings.overwrite) as run:
        settings = run.stored(settings) if settings.resume else settings
        check_input(settings.input)
        from lumefield.apps._train_run import Session  # loads jax: after what needs none

        session = Session.prepare(settings, run)
        session.fit()
        session.finish()
    return settings.out
