"""Errors a person can act on. Each says what was given, what was expected and what to do next.

The command line prints them as one line and exits with code 2; a bug keeps its traceback.
"""

from collections.abc import Generator
from contextlib import contextmanager


class UserError(Exception):
    """Base of every error whose cause is the input, not the program."""


class InputError(UserError):
    """A capture, a folder or an option cannot be used as given."""


class FormatError(UserError):
    """A file does not hold what its format promises (path, what was found, what was expected)."""


@contextmanager
def format_errors_of(source: str) -> Generator[None, None, None]:
    """Put the name of a source, such as its path, before the message of a ``FormatError``."""
    try:
        yield
    except FormatError as error:
        raise FormatError(f"{source}: {error}") from None


class RunError(UserError):
    """A RUN folder or a checkpoint cannot be read or written."""


class CapacityError(UserError):
    """A fixed-size buffer was too small; the message names the size that would fit."""
