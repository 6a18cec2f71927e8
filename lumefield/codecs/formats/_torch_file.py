"""Files of ``torch.save`` without torch: a zip of a pickle and raw arrays.

A pickle is a program. Ours may build containers and describe tensors, nothing else: every name it
asks for is looked up in the short list below, and what is not there ends the reading. Arrays are
only read when asked for, each length checked first. Nothing of torch runs, and nothing is executed.
"""

import collections
import io
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.formats._files import read_bytes, shown
from lumefield.codecs.formats._zip import Archive
from lumefield.errors import FormatError

_PICKLE = 1 << 20
_TYPES = {
    **{"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8"},
    **{"IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "i1", "ByteStorage": "u1"},
    **{"BoolStorage": "?", "BFloat16Storage": "bf16"},
}
_REFUSED = {"INST", "OBJ", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER", "PERSID"}
_MEMO = {"PUT", "BINPUT", "LONG_BINPUT"}


class Tensor(NamedTuple):
    """What a pickle says of a tensor: where its numbers lie."""

    key: str
    kind: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Storage(NamedTuple):
    key: str
    kind: str


class TorchFile:
    """The content of a ``torch.save`` file.

    Raises:
        InputError: If the file cannot be opened.
        FormatError: If it is not a zip file of torch, or its pickle does more than describe data.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        data = read_bytes(path)
        if data[:2] == b"\x80\x02":
            raise FormatError(
                f"{path}: is a torch file from before 2020 (no zip), expected a newer one; load "
                "and save it again with torch"
            )
        self._archive = Archive(data, path)
        self._folder = self._archive.folder_of("data.pkl")
        if self._folder + "byteorder" in self._archive.names:
            order = self._archive.read(self._folder + "byteorder", 16)
            if order != b"little":
                raise FormatError(f"{path}: torch file in byte order {order!r}, expected little")
        self.content = _unpickled(self._archive.read(self._folder + "data.pkl", _PICKLE), path)

    def array(self, tensor: Tensor) -> NDArray[Any]:
        """The numbers of a tensor as a new array; bfloat16 as float32.

        Raises:
            FormatError: If they are missing, or fewer than the tensor needs.
        """
        raw = self._archive.read(f"{self._folder}data/{tensor.key}")
        width = 2 if tensor.kind == "bf16" else np.dtype(tensor.kind).itemsize
        count = len(raw) // width
        flat = np.frombuffer(raw, "<u2" if tensor.kind == "bf16" else tensor.kind, count)
        if tensor.kind == "bf16":
            flat = (flat.astype(np.uint32) << np.uint32(16)).view(np.float32)
        pairs = list(zip(tensor.shape, tensor.stride, strict=True))
        last = tensor.offset + sum((n - 1) * s for n, s in pairs)
        size = int(np.prod(tensor.shape, dtype=object)) if tensor.shape else 1
        if size and (last >= count or size > count or any(s < 0 for _, s in pairs)):
            raise FormatError(
                f"{self.path}: a tensor of shape {tensor.shape} needs {last + 1} numbers, the file "
                f"holds {count}; it is cut off or damaged"
            )
        if not size:
            return np.zeros(tensor.shape, flat.dtype)
        strides = tuple(s * flat.itemsize for s in tensor.stride)
        return np.lib.stride_tricks.as_strided(
            flat[tensor.offset :], tensor.shape, strides, writeable=False
        ).copy()


def _unpickled(data: bytes, path: Path) -> Any:  # noqa: ANN401
    _scan(data, path)
    try:
        return _Reader(io.BytesIO(data), path).load()
    except FormatError:
        raise
    except Exception as error:
        # Whatever a damaged pickle makes of the containers it may build.
        raise FormatError(f"{path}: torch file cannot be read ({_line(error)}); damaged") from error


def _scan(data: bytes, path: Path) -> None:
    """Look at every opcode before any is run: no odd ones, no memo index that eats memory."""
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in _REFUSED:
                raise FormatError(f"{path}: pickle opcode {opcode.name} is not allowed; hostile")
            if opcode.name in _MEMO and int(argument or 0) > len(data):
                raise FormatError(f"{path}: pickle memo index {argument}; damaged or hostile")
    except FormatError:
        raise
    except Exception as error:
        raise FormatError(f"{path}: torch file cannot be read ({_line(error)}); damaged") from error


def _line(error: Exception) -> str:
    return shown(" ".join(str(error).split()) or type(error).__name__)


class _Reader(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, path: Path) -> None:
        super().__init__(file, encoding="utf-8")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        found = _ALLOWED.get(f"{module}.{name}")
        if found is None and module in ("torch", "torch.storage") and name in _TYPES:
            return _Kind(_TYPES[name])
        if found is None:
            raise FormatError(
                f"{self._path}: its pickle wants to run {shown(f'{module}.{name}')}, expected "
                "tensors and containers only; do not trust the file"
            )
        return found

    def persistent_load(self, pid: Any) -> _Storage:  # noqa: ANN401
        word, kind, key, *_ = pid
        fine = word == "storage" and isinstance(kind, _Kind) and isinstance(key, str)
        if not fine or not key.isascii() or not key.isalnum():
            raise FormatError(f"{self._path}: torch storage {shown(repr(pid))} is not understood")
        return _Storage(key, kind.dtype)


class _Kind(NamedTuple):
    """Stands for a storage class of torch."""

    dtype: str


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *rest: object) -> Tensor:  # noqa: ANN401
    del rest  # requires_grad, hooks
    if not isinstance(storage, _Storage) or not isinstance(offset, int) or offset < 0:
        raise ValueError("a tensor without a storage")
    sizes, steps = _size(shape), _size(stride)
    if len(sizes) != len(steps):
        raise ValueError(f"a tensor of shape {sizes} and strides {steps}")
    return Tensor(storage.key, storage.kind, offset, sizes, steps)


def _size(values: Any) -> tuple[int, ...]:  # noqa: ANN401
    if len(values) > 8 or not all(isinstance(v, int) and 0 <= v < 1 << 40 for v in values):
        raise ValueError("a shape that is none")
    return tuple(int(v) for v in values)


def _parameter(tensor: object, *rest: object) -> object:
    del rest
    return tensor


class _Blank:
    """Stands for a value that is not looked at, such as a learning rate of NumPy's own type."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Leave out what it would hold."""


def _blank(*arguments: object) -> _Blank:
    del arguments
    return _Blank()


def _ordered() -> dict[Any, Any]:
    return collections.OrderedDict()


def _grouped(*factory: object) -> dict[Any, Any]:
    del factory  # of a defaultdict; it must not be called
    return {}


class _Call(NamedTuple):
    """A function that a pickle may call, and can neither change nor build upon."""

    function: Callable[..., Any]

    def __call__(self, *arguments: object) -> Any:  # noqa: ANN401
        return self.function(*arguments)


_ALLOWED = {
    "torch._utils._rebuild_tensor_v2": _Call(_tensor),
    "torch._utils._rebuild_parameter": _Call(_parameter),
    "torch.Size": _Call(_size),
    "collections.OrderedDict": _Call(_ordered),
    "collections.defaultdict": _Call(_grouped),
    **dict.fromkeys(
        (
            *("torch.device", "torch.float32", "torch.float16", "torch.bfloat16", "_codecs.encode"),
            *("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype"),
            *("builtins.list", "builtins.dict"),
        ),
        _Call(_blank),
    ),
}
"""All names that a pickle may ask for; none copies its arguments, so none can eat memory."""
