"""Networks that fits start from and that files store theirs relative to.

Identity 0 knows nothing: zeros, bilinear upsampling, mid grey. Identities 1 (12 features in the
context network) and 2 (24 features) are shipped (``base_1.npz``, ``base_2.npz``): fitted by
``benchmarks/codec_base.py`` to a mosaic of photos that no benchmark scores. They are part of the
format: a file that names one needs exactly its numbers, so they never change; a better one gets the
next identity. With 128 added, they are the same networks for pictures in narrow-range Y'CbCr of
BT.601, as videos are; those are computed in integers.
"""

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.neural._model import FULL_BITS, ImageModel, Widths

LEARNED, LEARNED_WIDE = 1, 2
_VIDEO = 128
LEARNED_VIDEO = _VIDEO + LEARNED
_BITS = 14
_TO_VIDEO = ((4207, 8260, 1604), (-2428, -4768, 7196), (7196, -6026, -1170))
"""Y'CbCr of BT.601 in narrow range, less its offsets, from RGB; 14 fractional bits."""
_FROM_VIDEO = ((19077, 0, 26149), (19077, -6419, -13320), (19077, 33050, 0))
_OFFSET = (1028, 8224, 8224)
"""Black and grey of narrow range, 10 fractional bits of full range 16."""


def base_model(identity: int, widths: Widths) -> ImageModel:
    """The parameters that a file's are stored relative to.

    Args:
        identity: 0: nothing learned; 1, 2: shipped networks; 129, 130: those for Y'CbCr.
        widths: Sizes.

    Raises:
        KeyError: If this version ships no such base for these sizes.
    """
    if identity == 0:
        arrays = {name: np.zeros(shape, np.int32) for name, shape in widths.shapes().items()}
        arrays["u"][:] = (0, 256, 768, 0)
        arrays["c2"][:] = 1 << (FULL_BITS - 1)
        return ImageModel(**arrays)
    video = identity >= _VIDEO
    if identity != learned(widths, video=video) or (video and widths.channels != 3):
        raise KeyError(identity)
    shipped = _shipped(identity % _VIDEO)
    arrays = _for_video(shipped) if video else _for_channels(shipped, widths.channels)
    return ImageModel(**arrays).check()


def learned(widths: Widths, *, video: bool = False) -> int:
    """The identity of the shipped base for these sizes and any channels; 0 where there is none."""
    for identity in (LEARNED, LEARNED_WIDE):
        shipped = _shipped(identity)
        sizes = tuple(len(shipped[name]) for name in ("b1", "b2", "c1"))
        if sizes == (widths.levels, widths.context, widths.synthesis):
            return identity + _VIDEO * video
    return 0


@cache
def _shipped(identity: int) -> dict[str, NDArray[np.int32]]:
    path = Path(__file__).with_name(f"base_{identity}.npz")
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name].astype(np.int32) for name in file.files}


def _for_channels(
    colour: dict[str, NDArray[np.int32]], channels: int
) -> dict[str, NDArray[np.int32]]:
    """Networks for grey (mean of red, green and blue) and alpha (opaque), from those for RGB."""
    has_alpha, plain = channels in (2, 4), 1 if channels <= 2 else 3
    out = dict(colour)
    for name, axes in {"X2": (0,), "Y": (0,), "c2": (0,), "g": (1,), "G": (1, 2)}.items():
        value = colour[name]
        for axis in axes:
            summed = axis == 2  # inputs of a convolution: grey stands for all three
            if plain == 1:
                total = value.sum(axis, keepdims=True, dtype=np.int64)
                value = (total if summed else total // 3).astype(np.int32)
            if has_alpha:
                shape = list(value.shape)
                shape[axis] = 1
                value = np.concatenate([value, np.zeros(shape, np.int32)], axis)
        out[name] = value
    if has_alpha:
        out["c2"] = out["c2"].copy()
        out["c2"][-1] = 1 << FULL_BITS
    return out


def _for_video(colour: dict[str, NDArray[np.int32]]) -> dict[str, NDArray[np.int32]]:
    """Networks whose output, and the values between the convolutions, are Y'CbCr."""
    to, back, offset = (np.array(v, np.int64) for v in (_TO_VIDEO, _FROM_VIDEO, _OFFSET))

    def rounded(value: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
        return value + (1 << (bits - 1)) >> bits

    out = {name: value.astype(np.int64) for name, value in colour.items()}
    for name in ("X2", "Y"):
        out[name] = rounded(to @ out[name], _BITS)
    out["c2"] = rounded(to @ out["c2"], _BITS) + offset
    turned = np.einsum("ab,nbcij,cd->nadij", to, out["G"], back)
    out["G"] = rounded(turned, 2 * _BITS)
    constant = np.einsum("nadij,d->na", out["G"], offset)
    out["g"] = rounded(out["g"] @ to.T, _BITS) - rounded(constant, 10)
    return {name: value.astype(np.int32) for name, value in out.items()}
