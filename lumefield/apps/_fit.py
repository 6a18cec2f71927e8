"""``lumefield fit``: from one signal to a run folder with a field, what it draws, and a report."""

from pathlib import Path

from lumefield.apps._fit_settings import Fit as Fit
from lumefield.apps._fit_settings import check, restored


def fit(settings: Fit) -> Path:
    """Load, fit, score and report.

    Ctrl-C while fitting saves a checkpoint and the field so far, and ends normally.

    Args:
        settings: What to fit and where to put it.

    Returns:
        The folder of the run.

    Raises:
        InputError: If the input or an option cannot be used; an existing run is left as it is.
        FormatError: If the input is damaged.
        RunError: If the run cannot be continued.
    """
    check(settings)
    from lumefield.apps._run import Run

    with Run.open(settings.out, resume=settings.resume, overwrite=settings.overwrite) as run:
        settings = restored(settings, run.config) if settings.resume else settings
        check_files(settings)
        from lumefield.apps._signal_run import Session  # loads jax: after what needs none

        session = Session.prepare(settings, run)
        session.fit()
        session.finish()
    return settings.out


def check_files(settings: Fit) -> None:
    """Refuse an input that is not a file.

    Raises:
        InputError: If a file does not exist or cannot be opened.
    """
    from lumefield.errors import InputError

    for path in (settings.input, settings.source, settings.mask):
        if path is not None and path.is_dir():
            raise InputError(f"{path}: is a folder, expected a file; for photos use `train`")
        if path is not None:
            try:
                with path.open("rb") as file:
                    file.read(1)
            except (OSError, ValueError) as error:
                reason = (getattr(error, "strerror", None) or str(error)).lower()
                raise InputError(f"{path}: {reason}; check the path") from None
