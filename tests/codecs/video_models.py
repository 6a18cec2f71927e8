"""Random groups of pictures for tests: networks, latents and their chunk."""

import dataclasses
from fractions import Fraction

import numpy as np

from lumefield.codecs.neural import Picture, Widths, base_model
from lumefield.codecs.neural._group import CodedFrame, Intra, code_frame, group_chunk
from lumefield.codecs.neural._inter_model import InterModel, inter_base, inter_widths
from lumefield.codecs.neural._latents import code_latents
from lumefield.codecs.neural._levels import level_sizes
from lumefield.codecs.neural._motion import PLANES, motion_sizes
from lumefield.codecs.neural._order import roles
from lumefield.codecs.neural._video import video_file, video_picture

Levels = list[np.ndarray]


def whole(rng: np.random.Generator, size: tuple[int, int], spread: float) -> np.ndarray:
    """Whole numbers around zero."""
    return np.rint(rng.normal(0, spread, size)).astype(np.int32)


def random_networks(rng: np.random.Generator, synthesis: int = 16) -> InterModel:
    """Shared networks in which every parameter does something."""
    model = inter_base(inter_widths(synthesis))

    def near(value: np.ndarray, spread: int) -> np.ndarray:
        return (value + rng.integers(-spread, spread, value.shape)).astype(np.int32)

    spreads = {"X1": 300, "X2": 60, "G": 60, "g": 60, "E": 60, "u": 40, "b1": 60, "units": 30}
    changed = {name: near(getattr(model, name), most) for name, most in spreads.items()}
    return dataclasses.replace(model, **changed).check()


def random_latents(
    rng: np.random.Generator, size: tuple[int, int], layer: int
) -> tuple[Levels, list[Levels]]:
    """Residual and motion of a frame; the higher the layer, the emptier."""
    residual = [whole(rng, s, 0.6 / (1 + layer)) for s in level_sizes(*size, 5)]
    if layer == 1:
        residual[0][:] = 0
    motion = [[whole(rng, s, 2.0) for s in motion_sizes(*size)] for _ in range(PLANES)]
    if layer == 2:
        for level in motion[3]:
            level[:] = 0
        motion[4][0][:] = 0
    return residual, motion


def random_group(
    size: tuple[int, int] = (37, 53), frames: int = 5, anchor: int = 8, seed: int = 0
) -> tuple[bytes, list[CodedFrame]]:
    """A chunk and what is in it."""
    rng = np.random.default_rng(seed)
    first = base_model(1, Widths(7, 12, 32, 3))
    latents = [whole(rng, s, 0.5) for s in level_sizes(*size, 7)]
    intra = Intra(first, code_latents(first, latents), 1)
    model = random_networks(rng)
    coded = [
        code_frame(model, role, *random_latents(rng, size, role.layer))
        for role in roles(frames, anchor)
    ]
    return group_chunk(intra, model, coded, anchor), coded


def header(size: tuple[int, int], frames: int) -> Picture:
    """The header of such a video."""
    return video_picture(*size, frames, Fraction(25))


def random_video(
    size: tuple[int, int] = (21, 34), groups: tuple[int, ...] = (4, 3), anchor: int = 8
) -> bytes:
    """A file of several groups."""
    chunks = [
        (frames, random_group(size, frames, anchor, seed)[0]) for seed, frames in enumerate(groups)
    ]
    return video_file(header(size, sum(groups)), chunks, name="clip.mp4")
