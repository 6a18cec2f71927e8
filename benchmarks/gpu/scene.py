"""Synthetic scenes of any number of Gaussians, the same for every contender. NumPy only.

Hills around the origin (60 %), spheres that stand on them (30 %) and a far shell (10 %), as a
trained scene has them: Gaussians lie on surfaces, as large as the gap to their neighbours times
lognormal(0.5) per axis, in random rotations, with logit opacities N(-0.5, 2) and degree-3 spherical
harmonics. The camera stands among the hills; about half of the Gaussians are in view.
"""

from dataclasses import dataclass

import numpy as np

_SPHERES = 24


@dataclass(frozen=True)
class Scene:
    """Gaussians before activation and one pinhole camera, all float32."""

    means: np.ndarray
    """(N, 3), world units."""
    quats_wxyz: np.ndarray
    """(N, 4), unit."""
    log_scales: np.ndarray
    """(N, 3), natural logarithm of world units."""
    logit_opacities: np.ndarray
    """(N,)."""
    sh: np.ndarray
    """(N, 16, 3)."""
    world_from_cam: np.ndarray
    """(3, 4), OpenCV axes."""
    focal: np.ndarray
    """(2,) pixels."""
    centre: np.ndarray
    """(2,) pixels."""
    height: int
    width: int

    @property
    def inputs(self) -> tuple[np.ndarray, ...]:
        """What gradients are taken of: means, quats, log scales, logit opacities, sh."""
        return self.means, self.quats_wxyz, self.log_scales, self.logit_opacities, self.sh

    @property
    def cam_from_world(self) -> np.ndarray:
        """(4, 4), float32."""
        whole = np.vstack([self.world_from_cam.astype(np.float64), [0, 0, 0, 1]])
        return np.linalg.inv(whole).astype(np.float32)

    def cotangent(self) -> np.ndarray:
        """(H, W, 3) weights of the picture in the loss: standard normal, always the same."""
        noise = np.random.default_rng(1).normal(size=(self.height, self.width, 3))
        return noise.astype(np.float32)


def make(n: int, height: int, width: int, *, seed: int = 0) -> Scene:
    """A scene of ``n`` Gaussians seen in an image of this size."""
    rng = np.random.default_rng(seed)
    kinds = np.split(np.arange(n), [int(0.6 * n), int(0.9 * n)])
    means, gap = np.empty((n, 3)), np.empty(n)
    ground, balls, shell = (len(k) for k in kinds)
    xy = 6 * np.sqrt(rng.uniform(size=(ground, 1))) * _circle(rng, ground)
    means[kinds[0]] = np.c_[xy, _hill(xy)]
    gap[kinds[0]] = np.sqrt(np.pi * 36 / max(ground, 1))
    stand = 4 * rng.uniform(-1, 1, (_SPHERES, 2))
    radius = rng.uniform(0.1, 0.5, _SPHERES)
    which = rng.choice(_SPHERES, balls, p=radius**2 / np.sum(radius**2))
    heart = np.c_[stand, _hill(stand) + 0.8 * radius]
    means[kinds[1]] = heart[which] + radius[which, None] * _sphere(rng, balls)
    gap[kinds[1]] = np.sqrt(4 * np.pi * np.sum(radius**2) / max(balls, 1))
    means[kinds[2]] = 20 * _sphere(rng, shell)
    gap[kinds[2]] = np.sqrt(4 * np.pi * 400 / max(shell, 1))
    quats = rng.normal(size=(n, 4))
    sh = np.concatenate([rng.normal(size=(n, 1, 3)), 0.05 * rng.normal(size=(n, 15, 3))], 1)
    floats = (
        means,
        quats / np.linalg.norm(quats, axis=-1, keepdims=True),
        np.log(gap)[:, None] + 0.5 * rng.normal(size=(n, 3)),
        2 * rng.normal(size=n) - 0.5,
        sh,
        _look(np.array([4.5, 0.0, 1.6]), np.array([0.0, 0.0, 0.2])),
        np.full(2, 0.8 * width),
        np.array([width / 2, height / 2]),
    )
    cast = (np.ascontiguousarray(a, np.float32) for a in floats)
    return Scene(*cast, height=height, width=width)


def _hill(xy: np.ndarray) -> np.ndarray:
    return 0.3 * np.sin(1.3 * xy[:, 0]) * np.cos(xy[:, 1])


def _circle(rng: np.random.Generator, n: int) -> np.ndarray:
    turn = 2 * np.pi * rng.uniform(size=n)
    return np.c_[np.cos(turn), np.sin(turn)]


def _sphere(rng: np.random.Generator, n: int) -> np.ndarray:
    x = rng.normal(size=(n, 3))
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _look(eye: np.ndarray, at: np.ndarray) -> np.ndarray:
    """(3, 4) pose of a camera at ``eye``; z is up."""
    forward = (at - eye) / np.linalg.norm(at - eye)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    return np.c_[right, np.cross(forward, right), forward, eye]
