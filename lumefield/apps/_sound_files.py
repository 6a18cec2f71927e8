"""WAV files: PCM of 8 to 32 bits and float, any number of channels, through SciPy."""

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.errors import FormatError

_MAX_BYTES = 1 << 31


@dataclass(frozen=True)
class Sound:
    """A sound in memory."""

    values: NDArray[np.float32]
    """(samples, channels) in [-1, 1]."""
    rate: int
    """Samples a second."""
    bits: int
    """Bits of a sample in the file: 8, 16, 24 or 32."""


def load_wav(path: Path) -> Sound:
    """Read a WAV file.

    Raises:
        FormatError: If it is empty, damaged, compressed, silent in length, or not finite.
    """
    from scipy.io import wavfile

    size = path.stat().st_size
    if not size:
        raise FormatError(f"{path}: an empty file, expected a WAV; copy it again")
    if size > _MAX_BYTES:
        raise FormatError(f"{path}: {size / 1e9:.1f} GB, expected at most 2 GB; cut it")
    data = path.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # chunks that are not sound
            rate, raw = wavfile.read(io.BytesIO(data))
    except Exception as error:
        text = (str(error) or type(error).__name__).splitlines()[0]
        raise FormatError(
            f"{path}: cannot be read as a WAV ({text}); expected PCM or float samples"
        ) from None
    values: NDArray[Any] = raw.reshape(len(raw), -1)
    if len(values) < 2 or not values.size or rate <= 0:
        raise FormatError(f"{path}: {len(values)} samples, expected a sound of 2 or more")
    bits = _bits(data, values.dtype)
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise FormatError(f"{path}: holds samples that are NaN or infinite; repair it first")
        scaled = np.clip(values, -1, 1)
    elif values.dtype == np.uint8:
        scaled = (values.astype(np.float32) - 128) / 128
    else:
        scaled = values.astype(np.float64) / float(1 << (8 * values.dtype.itemsize - 1))
    return Sound(np.ascontiguousarray(scaled, np.float32), int(rate), bits)


def save_wav(path: Path, values: NDArray[np.float32], rate: int, bits: int) -> None:
    """Write (samples, channels) in [-1, 1] as PCM, 24 bits or more as float; whole or not at all.

    Raises:
        InputError: If the folder cannot be written.
    """
    from scipy.io import wavfile

    from lumefield.codecs.formats import replacing

    if bits == 8:
        samples = np.clip(np.round(values * 128) + 128, 0, 255).astype(np.uint8)
    elif bits == 16:
        samples = np.clip(np.round(values * 32768), -32768, 32767).astype(np.int16)
    else:
        samples = values.astype(np.float32)
    buffer = io.BytesIO()
    wavfile.write(buffer, rate, samples if samples.shape[1] > 1 else samples[:, 0])
    with replacing(path) as file:
        file.write(buffer.getvalue())


def _bits(data: bytes, kind: np.dtype[np.generic]) -> int:
    """Bits per sample out of the ``fmt `` chunk; SciPy gives 24 bits as 32."""
    at = data.find(b"fmt ")
    if at >= 0 and len(data) >= at + 24:
        bits = int.from_bytes(data[at + 22 : at + 24], "little")
        if bits in (8, 16, 24, 32):
            return bits
    return 8 * min(kind.itemsize, 4)
