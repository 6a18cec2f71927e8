"""Values out of a JSON file that may hold anything: each is checked, each error names the place."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.formats._files import read_bytes
from lumefield.errors import FormatError


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        InputError: If it cannot be opened.
        FormatError: If it is not JSON, or not an object.
    """
    return parse_json(read_bytes(path), path)


def parse_json(data: bytes, path: Path) -> dict[str, Any]:
    """The object in JSON text, which came from ``path``.

    Raises:
        FormatError: If it is not JSON, or not an object.
    """
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: is not JSON ({error}); correct the file") from error
    if not isinstance(value, dict):
        raise FormatError(f"{path}: holds {_kind(value)}, expected an object; correct the file")
    return cast("dict[str, Any]", value)


def number(table: Mapping[str, Any], key: str, where: str, path: Path) -> float | None:
    """The finite number under ``key``, or None when there is none (or null).

    Raises:
        FormatError: If it is something else.
    """
    value = table.get(key)
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            if math.isfinite(value):
                return float(value)
        except OverflowError:
            pass
    raise FormatError(f"{path}: {key} of {where} is {_kind(value)}, expected a finite number")


def text(table: Mapping[str, Any], key: str, where: str, path: Path) -> str | None:
    """The non-empty string under ``key``, or None when there is none (or null).

    Raises:
        FormatError: If it is something else.
    """
    value = table.get(key)
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    raise FormatError(f"{path}: {key} of {where} is {_kind(value)}, expected a string")


def rows(table: Mapping[str, Any], key: str, where: str, path: Path) -> list[Any]:
    """The list under ``key``.

    Raises:
        FormatError: If it is missing or something else.
    """
    value = table.get(key)
    if isinstance(value, list):
        return cast("list[Any]", value)
    raise FormatError(f"{path}: {key} of {where} is {_kind(value)}, expected a list")


def pose(table: Mapping[str, Any], key: str, where: str, path: Path) -> NDArray[np.float64]:
    """The first three rows (3, 4) of a 4x4 or 3x4 matrix of numbers; NaN is let through.

    Raises:
        FormatError: If it is something else.
    """
    value = rows(table, key, where, path)
    flat: list[Any] = []
    for row in value:
        flat += cast("list[Any]", row) if isinstance(row, list) else [row]
    fine = all(isinstance(v, int | float) and not isinstance(v, bool) for v in flat)
    if not fine or len(flat) not in (12, 16) or len(value) not in (3, 4, 12, 16):
        raise FormatError(f"{path}: {key} of {where} is not a 4x4 or 3x4 matrix of numbers")
    try:
        return np.array([float(v) for v in flat], np.float64).reshape(-1, 4)[:3]
    except OverflowError as error:
        raise FormatError(f"{path}: {key} of {where} holds a number too large") from error


def _kind(value: object) -> str:
    if value is None:
        return "missing"
    if isinstance(value, bool | int | float | str):
        return repr(value)[:40]
    return "a list" if isinstance(value, list) else "an object"
