"""Opening and writing files: one-line errors, and a file is either whole or not there at all."""

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lumefield.errors import FormatError, InputError

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".heic", ".heif", ".tif", ".tiff", ".bmp")
"""Suffixes taken for photos, in lower case."""


def is_file(path: Path) -> bool:
    """Whether ``path`` is a file that can be named at all (too long or odd names are not)."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def shown(name: str) -> str:
    """A name out of a file as it may be printed: one line, printable, not too long."""
    name = name if name.isprintable() else ascii(name)
    return name if len(name) <= 200 else f"{name[:120]}...{name[-60:]}"


def photos_in(folder: Path) -> list[Path]:
    """The photos directly inside ``folder``, sorted by name; empty when there is no such folder."""
    try:
        found = [p for p in folder.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES and is_file(p)]
    except (OSError, ValueError):
        return []
    return sorted(p for p in found if not p.name.startswith("."))


@contextmanager
def reading(path: Path) -> Generator[BinaryIO]:
    """Open ``path`` for reading bytes.

    Raises:
        InputError: If it does not exist, is a folder or must not be read.
    """
    try:
        file = path.open("rb")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot open {path}: {reason}; check the path") from error
    with file:
        yield file


def read_bytes(path: Path) -> bytes:
    """The whole file.

    Raises:
        InputError: If it cannot be opened.
    """
    with reading(path) as file:
        return file.read()


def image_size(path: Path) -> tuple[int, int] | None:
    """Stored (width, height) from the header of an image file, or None if it is not an image.

    The EXIF orientation is not applied: camera files refer to the pixels as they are stored.
    """
    import warnings

    from PIL import Image

    if path.suffix.lower() in (".heic", ".heif"):
        import pillow_heif

        pillow_heif.register_heif_opener()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path) as image:
                return image.size
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None


@contextmanager
def replacing(path: Path) -> Generator[BinaryIO]:
    """Write a file whole or not at all: a temporary name in the same folder, then ``os.replace``.

    Missing parent folders are made. On any failure ``path`` is left as it was.

    Raises:
        InputError: If the folder cannot be written, or the disk is full.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"cannot write {path}: {reason}; free some space or choose another folder"
        ) from error
    finally:
        if is_file(part):
            part.unlink(missing_ok=True)


class Cursor:
    """Little-endian reader over bytes that checks every length before it reads."""

    def __init__(self, data: bytes, path: Path) -> None:
        self.data = data
        self.path = path
        self.at = 0

    def need(self, count: int, what: str) -> int:
        """Advance over ``count`` bytes of ``what``; returns where they start.

        Raises:
            FormatError: If the file ends before.
        """
        start, left = self.at, len(self.data) - self.at
        if count > left:
            raise FormatError(
                f"{self.path}: {what} at byte {start} needs {count} bytes, {left} are left; "
                "the file is cut off or damaged, copy it again"
            )
        self.at = start + count
        return start
