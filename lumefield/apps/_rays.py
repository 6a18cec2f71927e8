"""Random pixels of the training photos as batches: a pure function of the step."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._batches import Views
from lumefield.apps._capture_type import Capture
from lumefield.apps._frame import WorldFrame


class RayBatch(NamedTuple):
    """Pixels of one step, (R,) each; stacked once more by ``fit``. NumPy in, traced in the loss."""

    index: Any
    """int32 position among the training photos."""
    pixel: Any
    """(R, 2) float32 x, y in pixels of the training size."""
    side: Any
    """float32 side of the pixel, in pixels of the training size: 1, or more in smaller copies."""
    rgb: Any
    """(R, 3) uint8."""
    weight: Any
    """uint8; 0 does not count."""
    alpha: Any
    """uint8 target opacity."""
    depth: Any
    """float32 depth along the view axis where a sparse point is seen, else 0; training units."""


@dataclass(frozen=True)
class Cameras:
    """The training cameras as arrays that a loss closes over."""

    world_from_cam: NDArray[np.float32]
    """(n, 3, 4), training frame."""
    focal: NDArray[np.float32]
    """(n, 2) pixels."""
    centre: NDArray[np.float32]
    """(n, 2) pixels."""


@dataclass(frozen=True)
class Anchors:
    """Pixels at which a sparse point is seen."""

    index: NDArray[np.int32]
    """(m,) position among the training photos."""
    pixel: NDArray[np.int32]
    """(m, 2) x, y of the pixel that holds the point."""
    depth: NDArray[np.float32]
    """(m,) along the view axis, training units."""


class RayBatches:
    """Pixels drawn from the training photos and from smaller copies of them."""

    def __init__(
        self,
        capture: Capture,
        frame: WorldFrame,
        *,
        rays: int,
        seed: int,
        factors: tuple[int, ...] = (1,),
        shares: tuple[float, ...] = (1.0,),
        anchors: "Anchors | None" = None,
    ) -> None:
        """Copy the photos, area-averaged by each factor.

        Args:
            capture: The photos; held-out ones are left alone.
            frame: The training frame.
            rays: R, per step.
            seed: Seed of the run.
            factors: Copies to draw from.
            shares: Share of the rays from each copy; they add up to 1.
            anchors: One ray in eight is one of these, when given.
        """
        self.views = [Views.of(capture, frame, capture.train, f) for f in factors]
        self.factors, self.seed, self.anchors = factors, seed, anchors
        ends = np.round(np.cumsum(shares) * rays).astype(int)
        self.counts = np.diff(ends, prepend=0)
        self.sizes = capture.sizes[list(capture.train)]
        full = self.views[0]
        self.cameras = Cameras(full.world_from_cam, full.focal, full.centre)

    def __call__(self, first: int, count: int) -> RayBatch:
        """The batches of steps ``first ... first + count - 1``, stacked."""
        steps = [self.step(first + i) for i in range(count)]
        return RayBatch(*(np.stack(leaf) for leaf in zip(*steps, strict=True)))

    def step(self, step: int) -> RayBatch:
        """The batch of one step; rays of all copies in random order."""
        rng = np.random.default_rng((self.seed, 7, step))
        parts = [
            self._draw(rng, *each)
            for each in zip(self.views, self.factors, self.counts.tolist(), strict=True)
        ]
        if self.anchors is not None:
            parts[0] = self._anchored(rng, parts[0], self.anchors)
        order = rng.permutation(int(self.counts.sum())) if len(parts) > 1 else slice(None)
        return RayBatch(*(np.concatenate(leaf)[order] for leaf in zip(*parts, strict=True)))

    def _draw(self, rng: np.random.Generator, views: Views, factor: int, count: int) -> RayBatch:
        index = rng.integers(0, len(self.sizes), count)
        size = np.maximum(self.sizes[index] // factor, 1)
        at = np.minimum((rng.random((count, 2)) * size).astype(np.int64), size - 1)
        return _pixels(views, index, at, factor)

    def _anchored(self, rng: np.random.Generator, batch: RayBatch, anchors: Anchors) -> RayBatch:
        """Every eighth pixel is replaced by one at which a sparse point is seen."""
        some = np.arange(0, len(batch.index), 8)
        chosen = rng.integers(0, len(anchors.index), len(some))
        at = anchors.pixel[chosen].astype(np.int64)
        fresh = _pixels(self.views[0], anchors.index[chosen], at, 1)
        fresh = fresh._replace(depth=anchors.depth[chosen])
        leaves = [np.array(leaf) for leaf in batch]
        for leaf, new in zip(leaves, fresh, strict=True):
            leaf[some] = new
        return RayBatch(*leaves)


def _pixels(views: Views, index: NDArray[Any], at: NDArray[np.int64], factor: int) -> RayBatch:
    x, y = at[:, 0], at[:, 1]
    count = len(index)

    def mask(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if values.shape[1:] == (1, 1):
            return np.full(count, 255, np.uint8)
        return values[index, y, x]

    return RayBatch(
        index=index.astype(np.int32),
        pixel=((at + 0.5) * factor).astype(np.float32),
        side=np.full(count, factor, np.float32),
        rgb=views.image[index, y, x],
        weight=mask(views.weight),
        alpha=mask(views.alpha),
        depth=np.zeros(count, np.float32),
    )


def seen_points(capture: Capture, frame: WorldFrame) -> Anchors | None:
    """Where the sparse points appear in the training photos, those hidden by nearer ones left out.

    A point counts as hidden when one of the 8 points nearest in the photo, within 5 % of the
    photo's width, is nearer by more than a tenth. None when fewer than 50 are seen in all.
    """
    from scipy.spatial import KDTree

    points, poses = frame.inward_points(capture.points), frame.inward(capture.world_from_cam)
    found: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
    for k, i in enumerate(capture.train):
        seen = (points - poses[i, :, 3]) @ poses[i, :, :3]
        seen = seen[seen[:, 2] > 1e-3]
        at = seen[:, :2] / seen[:, 2:] * capture.focal[i] + capture.centre[i]
        inside = np.all((at >= 0) & (at < capture.sizes[i]), 1)
        at, depth = at[inside], seen[inside, 2]
        if len(at) < 9:
            continue
        away, near = KDTree(at).query(at, k=9)
        close = np.asarray(away) < 0.05 * capture.sizes[i][0]
        front = np.where(close, depth[np.asarray(near)], np.inf).min(1)
        open_ = depth < 1.1 * front
        found.append((np.full(open_.sum(), k), at[open_], depth[open_]))
    if sum(len(f[0]) for f in found) < 50:
        return None
    index, at, depth = (np.concatenate(leaf) for leaf in zip(*found, strict=True))
    return Anchors(index.astype(np.int32), at.astype(np.int32), depth.astype(np.float32))
