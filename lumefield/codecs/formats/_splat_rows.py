"""What every splat format needs: checked arrays, finite rows, unit quaternions, signs of a turn."""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lumefield.codecs.formats._types import Splats

SH_C0 = 0.28209479177387814
"""The constant basis function: colour = 0.5 + SH_C0 * sh[:, 0]."""

TINY = np.float32(1e-30)
"""Standard deviation that stands for 0 in a file of plain scales."""

LOGIT_LIMIT = float(np.log((1 - 1e-4) / 1e-4))
"""Logit that stands for an opacity of exactly 0 or 1 in a file that rounds to 8 bits."""


def rest_names(k: int) -> list[str]:
    """PLY names of the ``3 (k - 1)`` coefficients above degree 0."""
    return [f"f_rest_{i}" for i in range(3 * (k - 1))]


def from_channel_major(rest: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, 3 (K - 1)) with all of red, then green, then blue, as (N, K - 1, 3)."""
    return rest.reshape(len(rest), 3, -1).transpose(0, 2, 1)


def to_channel_major(rest: NDArray[np.float32]) -> NDArray[np.float32]:
    """The inverse of :func:`from_channel_major`."""
    return rest.transpose(0, 2, 1).reshape(len(rest), -1)


def checked(splats: Splats) -> Splats:
    """The same splats as float32.

    Raises:
        ValueError: If a shape does not fit the others.
    """
    n = len(splats.means)
    k = splats.sh.shape[1] if splats.sh.ndim == 3 else 0
    if k not in (1, 4, 9, 16, 25):
        raise ValueError(
            f"sh has shape {splats.sh.shape}, expected (N, K, 3) with K in 1 4 9 16 25"
        )
    wanted = {
        "means": (n, 3),
        "quats_wxyz": (n, 4),
        "log_scales": (n, 3),
        "logit_opacities": (n,),
        "sh": (n, k, 3),
    }
    arrays: dict[str, NDArray[np.float32]] = {}
    for name, shape in wanted.items():
        value = np.asarray(getattr(splats, name), np.float32)
        if value.shape != shape:
            raise ValueError(
                f"{name} has shape {value.shape}, expected {shape}; all arrays share N = {n}"
            )
        arrays[name] = value
    return dataclasses.replace(splats, **arrays)


def cleaned(splats: Splats) -> Splats:
    """Splats with finite values only: others are left out, and a comment says how many.

    An opacity logit of plus or minus infinity means exactly 1 or 0 and is kept, clipped.
    """
    logits = np.where(
        np.isinf(splats.logit_opacities),
        np.copysign(np.float32(LOGIT_LIMIT), splats.logit_opacities),
        splats.logit_opacities,
    )
    splats = dataclasses.replace(splats, logit_opacities=logits)
    keep = np.isfinite(logits)
    for value in (splats.means, splats.quats_wxyz, splats.log_scales):
        keep &= np.isfinite(value).all(1)
    keep &= np.isfinite(splats.sh).all((1, 2))
    if keep.all():
        return splats
    lost = int(len(keep) - keep.sum())
    note = f"left out {lost} of {len(keep)} Gaussians with values that are not finite"
    return dataclasses.replace(splats.taken(keep), comments=(*splats.comments, note))


def unit_quaternions(quats: NDArray[np.float32]) -> NDArray[np.float64]:
    """Quaternions of unit length; one of length 0 becomes the identity (w first)."""
    q = quats.astype(np.float64)
    q = q / np.maximum(np.abs(q).max(1, keepdims=True), 1e-300)  # no overflow in the norm
    length = np.linalg.norm(q, axis=1, keepdims=True)
    identity = np.array([1.0, 0, 0, 0])
    return np.where(length > 0, q / np.maximum(length, 1e-300), identity)


def with_largest(three: NDArray[np.floating], largest: NDArray[np.int64]) -> NDArray[np.float32]:
    """Unit quaternions from three components and the index of the fourth, which is positive."""
    rows = np.arange(len(largest))
    quats = np.empty((len(largest), 4))
    quats[~_is_largest(largest)] = three.ravel()
    quats[rows, largest] = np.sqrt(np.maximum(0, 1 - (three.astype(np.float64) ** 2).sum(1)))
    return quats.astype(np.float32)


def without_largest(quats: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The inverse of :func:`with_largest`."""
    largest = np.abs(quats).argmax(1)
    sign = np.where(quats[np.arange(len(quats)), largest] < 0, -1.0, 1.0)
    return (quats * sign[:, None])[~_is_largest(largest)].reshape(-1, 3), largest


def _is_largest(largest: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.arange(4) == largest[:, None]


def opacities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Sigmoid without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))


def logits_from_bytes(alpha: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Opacity logits of 8-bit opacities; 0 and 255 become finite, at 1e-4 from the ends."""
    p = np.clip(alpha.astype(np.float64) / 255, 1e-4, 1 - 1e-4)
    return np.log(p / (1 - p)).astype(np.float32)


def logits_of(opacity: NDArray[np.floating]) -> NDArray[np.float32]:
    """Opacity logits of opacities in [0, 1]; 0 and 1 become finite, at 1e-4 from the ends.

    What is between keeps its value, however near to the ends.
    """
    p = opacity.astype(np.float64)
    p = np.where(p <= 0, 1e-4, np.where(p >= 1, 1 - 1e-4, p))
    return np.log(p / (1 - p)).astype(np.float32)


def scales_of(scale: NDArray[np.floating]) -> NDArray[np.float32]:
    """Log scales of standard deviations; 0 becomes a very small one."""
    with np.errstate(invalid="ignore"):
        return np.log(np.maximum(scale, TINY)).astype(np.float32)


def to_bytes(values: ArrayLike) -> NDArray[np.uint8]:
    """Round (halves up, as C does) and clip to 0..255."""
    return np.clip(np.floor(np.asarray(values) + 0.5), 0, 255).astype(np.uint8)


def turn_signs(k: int) -> NDArray[np.float32]:
    """Signs (k,) of the coefficients under half a turn about x: (x, y, z) -> (x, -y, -z).

    Real spherical harmonics of order m are odd in y when m < 0, and of parity (-1)^(l - |m|) in z.
    """
    signs: list[float] = []
    for degree in range(round(k**0.5)):
        for m in range(-degree, degree + 1):
            signs.append((-1.0 if m < 0 else 1.0) * (-1.0) ** (degree - abs(m)))
    return np.array(signs, np.float32)


def half_turned(splats: Splats) -> Splats:
    """Half a turn about x, exactly: between right, down, forward and right, up, back."""
    turn = np.array([1, -1, -1], np.float32)
    up = None if splats.up is None else (splats.up[0], -splats.up[1], -splats.up[2])
    with np.errstate(invalid="ignore"):  # out of a damaged file, before it is cleaned
        return dataclasses.replace(
            splats,
            means=splats.means * turn,
            quats_wxyz=splats.quats_wxyz * np.array([1, 1, -1, -1], np.float32),
            sh=splats.sh * turn_signs(splats.sh.shape[1])[:, None],
            up=up,
        )
