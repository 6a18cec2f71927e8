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

    It knows what each frame has now. Slopes as those of the picture's servo.
    """

    def __init__(self, goal: Goal, first: tuple[float, float], frames: int) -> None:
        """For a goal, with squared error and bits of the first frame, and so many others."""
        self._goal, self._first, self._networks = goal, first, _NETWORKS
        self._frames: list[tuple[float, float]] = [first] * frames

    def told(self, frame: int, mse: float, bits: float) -> None:
        """What a frame has now."""
        self._frames[frame] = (mse, bits)

    def told_networks(self, bits: float) -> None:
        """What the shared networks take."""
        self._networks = bits

    def cost(self, prices: list[float]) -> float:
        """Bits of frames and networks, and of squared errors at a price for each frame."""
        errors = sum(p * mse for p, (mse, _) in zip(prices, self._frames, strict=True))
        return self._networks + sum(bits for _, bits in self._frames) + errors

    def miss(self) -> float:
        """How far from the goal, in log lambda; 0 where lambda itself is the goal."""
        if self._goal.kind == "lambda":
            return 0.0
        if self._goal.kind == "psnr":
            quality = [_psnr(mse) for mse, _ in (self._first, *self._frames)]
            return 0.3 * (float(np.mean(quality)) - self._goal.value)
        have = sum(bits for _, bits in self._frames)
        wanted = self._goal.value - self._first[1] - self._networks
        return 1.3 * math.log(max(have, 1.0) / max(wanted, 0.02 * self._goal.value))

    def steered(self, aux: References, gain: float) -> References:
        """With lambda moved by ``gain`` of the miss."""
        if self._goal.kind == "lambda":
            return aux
        move = gain * max(-1.0, min(1.0, self.miss()))
        return dataclasses.replace(aux, log_lambda=aux.log_lambda + jnp.float32(move))


def _psnr(mse: float) -> float:
    return -10 * math.log10(max(mse, 1e-10))
