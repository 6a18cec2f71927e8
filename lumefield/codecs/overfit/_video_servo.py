"""Steering lambda of a group of pictures to a wanted PSNR or size, within the one fit."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from lumefield.codecs.overfit._image_fit import Goal
from lumefield.codecs.overfit._video_model import References

_NETWORKS = 7000.0
"""Bits of shared networks, until they are known."""


class Servo:
    """Moves lambda towards the wanted PSNR or size of a group.

    It knows of each frame what it has now, and of those that are finished what they have for good;
    what finishing did to these is expected of the others. Slopes as those of the picture's servo.
    """

    def __init__(self, goal: Goal, first: tuple[float, float], frames: int) -> None:
        """For a goal, with squared error and bits of the first frame, and so many others."""
        self._goal, self._first, self._networks = goal, first, _NETWORKS
        self._guess: list[tuple[float, float]] = [first] * frames
        self._final = list[tuple[float, float]]()

    def guess(self, frame: int, mse: float, bits: float) -> None:
        """What a frame has now."""
        self._guess[frame] = (mse, bits)

    def told_networks(self, bits: float) -> None:
        """What the shared networks take."""
        self._networks = bits

    def finished(self, mse: float, bits: float) -> None:
        """What the next frame has for good."""
        self._final.append((mse, bits))

    def begun(self) -> "Servo":
        """The same with no frame finished yet."""
        new = Servo(self._goal, self._first, 0)
        new._guess, new._networks = list(self._guess), self._networks
        return new

    def miss(self) -> float:
        """How far from the goal, in log lambda; 0 where lambda itself is the goal."""
        if self._goal.kind == "lambda":
            return 0.0
        rest = self._guess[len(self._final) :]
        if self._goal.kind == "psnr":
            frames = [self._first, *self._final, *rest]
            return 0.3 * (float(np.mean([_psnr(mse) for mse, _ in frames])) - self._goal.value)
        before = sum(bits for _, bits in self._guess[: len(self._final)])
        done = sum(bits for _, bits in self._final)
        change = done / max(before, 1.0) if self._final else 1.0
        coming = done + change * sum(bits for _, bits in rest)
        wanted = self._goal.value - self._first[1] - self._networks
        return 1.3 * math.log(max(coming, 1.0) / max(wanted, 0.02 * self._goal.value))

    def steered(self, aux: References, gain: float) -> References:
        """With lambda moved by ``gain`` of the miss."""
        if self._goal.kind == "lambda":
            return aux
        rest, miss = self._guess[len(self._final) :], self.miss()
        if self._final and rest:
            miss *= len(self._guess) / len(rest)
        move = gain * max(-1.0, min(1.0, miss))
        return dataclasses.replace(aux, log_lambda=aux.log_lambda + jnp.float32(move))


def _psnr(mse: float) -> float:
    return -10 * math.log10(max(mse, 1e-10))
