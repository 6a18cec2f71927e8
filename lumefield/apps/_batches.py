"""Photos as batches: a pure function of the step, so that a resumed run sees the same photos."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._capture_type import Capture
from lumefield.apps._frame import WorldFrame


class Batch(NamedTuple):
    """Photos of one step: NumPy on the way in, traced arrays inside the loss.

    Leading axis: cameras per step; stacked once more by ``fit``.
    """

    index: Any
    """int32 position among the training photos."""
    image: Any
    """(H, W, 3) uint8."""
    weight: Any
    """(H, W) or (1, 1) uint8."""
    alpha: Any
    """(H, W) or (1, 1) uint8."""
    world_from_cam: Any
    """(3, 4) float32, training frame."""
    focal: Any
    """(2,) float32, pixels."""
    centre: Any
    """(2,) float32, pixels."""


@dataclass(frozen=True)
class Views:
    """The photos of a capture at ``1 / factor`` of the training size, in the training frame."""

    height: int
    width: int
    image: NDArray[np.uint8]
    weight: NDArray[np.uint8]
    alpha: NDArray[np.uint8]
    world_from_cam: NDArray[np.float32]
    focal: NDArray[np.float32]
    centre: NDArray[np.float32]

    @classmethod
    def of(
        cls, capture: Capture, frame: WorldFrame, which: tuple[int, ...], factor: int = 1
    ) -> "Views":
        """The chosen photos, area-averaged; the last incomplete rows and columns are left out."""
        rows = list(which)
        h, w = capture.height // factor, capture.width // factor

        def shrink(x: NDArray[np.uint8]) -> NDArray[np.uint8]:
            if factor == 1 or x.shape[1] == 1:
                return x
            out = np.empty((len(x), h, w, *x.shape[3:]), np.uint8)
            for i, one in enumerate(x):
                crop = one[: h * factor, : w * factor]
                blocks = crop.reshape(h, factor, w, factor, *x.shape[3:])
                out[i] = np.round(blocks.mean((1, 3), dtype=np.float32))
            return out

        return cls(
            height=h,
            width=w,
            image=shrink(capture.images[rows]),
            weight=shrink(capture.weights[rows]),
            alpha=shrink(capture.alphas[rows]),
            world_from_cam=frame.inward(capture.world_from_cam[rows]).astype(np.float32),
            focal=(capture.focal[rows] / factor).astype(np.float32),
            centre=(capture.centre[rows] / factor).astype(np.float32),
        )

    def batch(self, index: NDArray[np.int64]) -> Batch:
        """The photos at ``index`` (any shape); every leaf has that shape first."""
        return Batch(
            index.astype(np.int32),
            self.image[index],
            self.weight[index],
            self.alpha[index],
            self.world_from_cam[index],
            self.focal[index],
            self.centre[index],
        )


def shuffled(seed: int, n: int, first: int, count: int) -> NDArray[np.int64]:
    """Items ``first ... first + count - 1`` of endless shuffled epochs of 0 ... n - 1."""
    out = np.empty(count, np.int64)
    done = 0
    while done < count:
        epoch, start = divmod(first + done, n)
        order = np.random.default_rng((seed, epoch)).permutation(n)
        take = min(count - done, n - start)
        out[done : done + take] = order[start : start + take]
        done += take
    return out
