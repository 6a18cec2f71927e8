"""A video to ``.lume`` bytes: groups of pictures, each fitted alone, so many at a time."""

import dataclasses
import math
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from lumefield.codecs.neural._container import Picture
from lumefield.codecs.neural._decoders import Planes
from lumefield.codecs.neural._group import decode_group, group_chunk
from lumefield.codecs.neural._order import LOW_DELAY, roles
from lumefield.codecs.neural._video import group_fault, video_file
from lumefield.codecs.overfit._image_fit import Goal
from lumefield.codecs.overfit._video_fit import both_ways, fit_inter
from lumefield.codecs.overfit._video_intra import (
    REFINING,
    Tell,
    fit_intra,
    intra_weight,
    tried_intra,
)
from lumefield.errors import InputError, RunError

ANCHOR = 8
"""Frames from one forward-predicted frame to the next."""

_TRIALS = 2
_FIRST_SHARE, _FIRST_BETTER = 0.4, 3.5
"""Share of a group's bits that its first frame takes; dB by which it is above the mean, by log10 of
its weight."""


@dataclass(frozen=True)
class VideoEffort:
    """How long to fit."""

    intra: int
    """Steps of a first frame; a fifth more finish it."""
    passes: int
    """Times that each other frame is looked at; two thirds more finish it."""

    @property
    def intra_finish(self) -> int:
        """Steps of a first frame under integer networks."""
        return max(1, self.intra // 5)

    @property
    def finish(self) -> int:
        """Steps of another frame under integer networks, from what is really decoded of others.

        With a sixth of the passes, frames at the end of a chain of low delay had not taken back
        what those before do wrong: 16 % more bytes at 0.3 dB less (carphone).
        """
        return max(1, 2 * self.passes // 3)


VIDEO_EFFORTS = {
    "fast": VideoEffort(2000, 120),
    "standard": VideoEffort(4000, 400),
    "best": VideoEffort(10_000, 1200),
}
"""The one dial. Times of 32 frames of 240 x 136 are in docs/apps_compress.md."""


@dataclass(frozen=True)
class VideoPlan:
    """How a video is cut and fitted."""

    goal: Goal
    """Lambda (squared error of full range worth one bit per pixel), mean PSNR, or bits."""
    effort: VideoEffort
    gop: int = 32
    """Frames of a group."""
    low_delay: bool = False
    """Predict from earlier frames only."""
    jobs: int = 1
    """Groups fitted at a time, each by a process of its own."""
    seed: int = 0

    def steps(self, frames: int) -> int:
        """Steps of a group."""
        effort, inter = self.effort, frames - 1
        first = effort.intra + REFINING + effort.intra_finish
        more = both_ways(inter, effort.passes, effort.finish) if self.low_delay else 0
        return first + (effort.passes + effort.finish) * inter + more


@dataclass(frozen=True)
class CompressedVideo:
    """A coded video."""

    data: bytes
    """The ``.lume`` file."""
    psnr: float
    """Mean over frames of the PSNR of Y', Cb and Cr together (weights 6 1 1), dB."""
    bits_per_pixel: float


Show = Callable[[int, int, float], None]
"""(steps done, steps in all, PSNR in RGB of the frames as fitted so far)."""


def compress_video(
    frames: list[Planes],
    picture: Picture,
    plan: VideoPlan,
    *,
    name: str = "",
    metadata: bytes = b"",
    audio: bytes = b"",
    progress: Show | None = None,
) -> CompressedVideo:
    """Compress a video; what is returned has been decoded and compared.

    Args:
        frames: Planes Y', Cb, Cr of every frame, uint8, 4:2:0.
        picture: Header, see ``neural.video_picture``.
        plan: How.
        name: Name of the original file.
        metadata: JSON object, UTF-8.
        audio: Matroska file with the sound alone.
        progress: Told as it goes.

    Raises:
        InputError: If groups of that size cannot be held.
    """
    fault = group_fault(picture.rows, picture.columns, min(plan.gop, len(frames)))
    if fault:
        raise InputError(fault)
    cut = [frames[i : i + plan.gop] for i in range(0, len(frames), plan.gop)]
    total, done = sum(plan.steps(len(group)) for group in cut), 0
    chunks = list[tuple[int, bytes]]()
    if plan.jobs == 1 or len(cut) == 1:
        for group in cut:

            def show(step: int, _: int, psnr: float, before: int = done) -> None:
                if progress:
                    progress(before + step, total, psnr)

            mine = _share(plan, len(group), len(frames), _beside(name, metadata, audio))
            chunks.append((len(group), compress_group(group, picture, mine, show)))
            done += plan.steps(len(group))
    else:
        beside = _beside(name, metadata, audio)
        plans = [_share(plan, len(group), len(frames), beside) for group in cut]
        chunks = _in_processes(cut, picture, plans, total, progress)
    data = video_file(picture, chunks, name=name, metadata=metadata, audio=audio)
    quality = list[float]()
    for (count, chunk), group in zip(chunks, cut, strict=True):
        found = decode_group(chunk, picture, count, "auto")
        quality += [_psnr(found[i], planes) for i, planes in enumerate(group)]
    pixels = picture.rows * picture.columns * len(frames)
    return CompressedVideo(data, float(np.mean(quality)), 8 * len(data) / pixels)


def first_lambda(goal: Goal, target: np.ndarray, seed: int = 0) -> float:
    """Lambda at which the first frame, fitted shortly, takes its usual share of the goal.

    Args:
        goal: The goal of a group.
        target: (g, 3, h, w) its frames, Y'CbCr in [0, 16].
        seed: Of the noise.
    """
    if goal.kind == "lambda":
        return goal.value
    pixels = target[:, 0].size
    if goal.kind == "psnr":
        lambda_ = 1.8 * 10 ** (-goal.value / 10)
    else:
        lambda_ = 1e-3 * (0.12 * pixels / max(goal.value, 1.0)) ** 1.3
    share, weight = _FIRST_SHARE if len(target) > 1 else 0.9, intra_weight(len(target))
    better = _FIRST_BETTER * math.log10(weight)
    for _ in range(_TRIALS):
        mse, bits = tried_intra(target[0], lambda_ / weight, seed)
        if goal.kind == "psnr":
            miss = 0.3 * (-10 * math.log10(max(mse, 1e-10)) - goal.value - better)
        else:
            miss = 1.3 * math.log(max(bits, 1.0) / (share * goal.value))
        lambda_ *= math.exp(max(-2.0, min(2.0, miss)))
    return min(max(lambda_, 1e-6), 1.0)


def compress_group(
    frames: list[Planes], picture: Picture, plan: VideoPlan, progress: Show | None = None
) -> bytes:
    """The chunk of a group, decoded and compared.

    Raises:
        RunError: If it does not decode to what was fitted: a bug.
    """
    goal = plan.goal
    anchor = LOW_DELAY if plan.low_delay else ANCHOR
    order, effort = roles(len(frames), anchor), plan.effort
    tell = Tell(plan.steps(len(frames)), progress)
    target = np.stack([_repeated(planes) for planes in frames]).astype(np.float32) * (16 / 255)
    lambda_ = first_lambda(goal, target, plan.seed)
    own = lambda_ / intra_weight(len(frames))
    intra = fit_intra(target[0], own, effort.intra, effort.intra_finish, tell, plan.seed)
    found = fit_inter(
        target, order, intra, goal, lambda_, effort.passes, effort.finish, tell, plan.seed
    )
    chunk = group_chunk(intra, found.model, found.frames, anchor)
    decoded = decode_group(chunk, picture, len(frames), "auto")
    for place, planes in found.planes.items():
        if not all(np.array_equal(a, b) for a, b in zip(planes, decoded[place], strict=True)):
            raise RunError("the coded video does not decode to what was fitted; report it")
    return chunk


def _in_processes(
    cut: list[list[Planes]],
    picture: Picture,
    plans: list[VideoPlan],
    total: int,
    progress: Show | None,
) -> list[tuple[int, bytes]]:
    done, found = 0, dict[int, bytes]()
    # Not forked: jax has threads of its own.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(plans[0].jobs, len(cut)), mp_context=context) as pool:
        jobs = {
            pool.submit(compress_group, group, picture, plan): i
            for i, (group, plan) in enumerate(zip(cut, plans, strict=True))
        }
        for job in as_completed(jobs):
            i = jobs[job]
            found[i] = job.result()
            done += plans[i].steps(len(cut[i]))
            if progress:
                decoded = decode_group(found[i], picture, len(cut[i]), "auto", {0})
                progress(done, total, _psnr(decoded[0], cut[i][0]))
    return [(len(group), found[i]) for i, group in enumerate(cut)]


def _beside(name: str, metadata: bytes, audio: bytes) -> int:
    """Bytes of a file that are no pictures, about."""
    return 40 + len(name.encode()) + len(metadata) + len(audio)


def _share(plan: VideoPlan, frames: int, all_frames: int, beside: int) -> VideoPlan:
    """The plan of a group: bits are shared out by frames."""
    if plan.goal.kind != "bits":
        return plan
    bits = max(0.1 * plan.goal.value, plan.goal.value - 8 * beside) * frames / all_frames
    return dataclasses.replace(plan, goal=Goal("bits", bits))


def _repeated(planes: Planes) -> UInt8[np.ndarray, "3 h w"]:
    h, w = planes[0].shape
    whole: list[NDArray[np.unsignedinteger]] = [planes[0]]
    whole += [p.repeat(2, 0).repeat(2, 1)[:h, :w] for p in planes[1:]]
    return np.stack(whole)


def _psnr(a: Planes, b: Planes) -> float:
    errors = [float(np.square(x.astype(np.float64) - y).mean()) for x, y in zip(a, b, strict=True)]
    mse = (6 * errors[0] + errors[1] + errors[2]) / 8
    return 10 * np.log10(255**2 / max(mse, 1e-3))
