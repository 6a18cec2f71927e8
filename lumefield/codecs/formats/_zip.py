"""Zip archives as hostile bytes: nothing is extracted, and nothing is read larger than promised."""

import io
import zipfile
import zlib
from pathlib import Path
from types import TracebackType

from lumefield.codecs.formats._files import shown
from lumefield.errors import FormatError

_RATIO = 1032
"""Deflate cannot expand by more."""
_ENTRIES = 1 << 16
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)


class Archive:
    """A zip archive in memory.

    Raises:
        FormatError: If the bytes are no zip archive.
    """

    def __init__(self, data: bytes, path: Path) -> None:
        self.path = path
        self.size = len(data)
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, IndexError) as error:
            raise FormatError(
                f"{path}: is not a zip archive ({error}); it is cut off or of another format"
            ) from error
        self.names = self._zip.namelist()
        if len(self.names) > _ENTRIES:
            raise FormatError(f"{path}: zip of {len(self.names)} entries, expected fewer; damaged")

    def __enter__(self) -> "Archive":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._zip.close()

    def folder_of(self, name: str) -> str:
        """The folder, with a slash or empty, of the only entry called ``name``.

        Raises:
            FormatError: If there is no such entry, or more than one.
        """
        found = [n for n in self.names if n == name or n.endswith("/" + name)]
        if len(found) != 1:
            raise FormatError(f"{self.path}: zip has {len(found)} entries {name}, expected one")
        return found[0][: -len(name)]

    def offset(self, name: str) -> int:
        """Where the local header of an entry starts."""
        return self._zip.getinfo(name).header_offset

    def read(self, name: str, most: int | None = None) -> bytes:
        """The bytes of an entry.

        Args:
            name: Name of the entry.
            most: Largest size that is accepted.

        Raises:
            FormatError: If it is missing, damaged, encrypted, or larger than it can honestly be.
        """
        try:
            info = self._zip.getinfo(name)
        except KeyError:
            raise FormatError(f"{self.path}: zip has no entry {shown(name)}") from None
        limit = _RATIO * self.size if most is None else most
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FormatError(
                f"{self.path}: zip entry {shown(name)} is neither stored nor deflated"
            )
        if info.file_size > min(limit, _RATIO * max(info.compress_size, 1)):
            raise FormatError(
                f"{self.path}: zip entry {shown(name)} promises {info.file_size} bytes out of "
                f"{info.compress_size}; the file is damaged or hostile"
            )
        try:
            with self._zip.open(info) as file:
                data = file.read(info.file_size)
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            OSError,
            RuntimeError,
            ValueError,
        ) as error:
            raise FormatError(
                f"{self.path}: zip entry {shown(name)} cannot be read ({error}); copy it again"
            ) from error
        if len(data) != info.file_size:
            raise FormatError(f"{self.path}: zip entry {shown(name)} is cut off; copy it again")
        return data
