"""Where splat training starts: Gaussians on the points, or at random where the cameras look."""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lumefield.apps import _splat
from lumefield.apps._capture_type import Capture
from lumefield.apps._frame import WorldFrame
from lumefield.apps._plan import START_SHARE
from lumefield.apps._train_settings import Train
from lumefield.fields import Gaussians, Stats
from lumefield.fit import TrainState

MIN_POINTS = 100
"""With fewer points than this, Gaussians start at random."""


def start_state(
    settings: Train, photos: Capture, recipe: _splat.Recipe, frame: WorldFrame
) -> TrainState:
    """The state before the first step: Gaussians on the points, or at random in a ball."""
    key = jax.random.key(settings.seed)
    points, colours = frame.inward_points(photos.points), photos.colours / 255
    if len(points) < MIN_POINTS:
        points, colours = random_points(photos, frame, settings.seed)
    elif (more := int(recipe.limit * START_SHARE) - len(points)) > 0:
        extra, tints = points_between(photos, frame, more, settings.seed)
        points, colours = np.concatenate([points, extra]), np.concatenate([colours, tints])
    if len(points) > recipe.limit:
        some = np.random.default_rng(settings.seed).permutation(len(points))[: recipe.limit]
        points, colours = points[some], colours[some]
    g = Gaussians.from_points(points, colours, key=key)
    used, n = g.count, len(photos.train)
    scene = _splat.SplatScene(
        gaussians=g.padded(recipe.limit),
        exposure=jnp.zeros((n if settings.exposure else 0, 3, 2)),
        pose=jnp.zeros((n if settings.refine_poses else 0, 6)),
        probe=jnp.zeros((recipe.limit if recipe.densify == "adc" else 0, 2)),
    )
    stats = Stats.start(used, recipe.limit)
    return TrainState.start(scene, _splat.optimizer(recipe, scene), key, stats)


def random_points(
    photos: Capture, frame: WorldFrame, seed: int, count: int = 5_000
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points where the cameras look: in a ball around the point nearest to all their axes."""
    poses = frame.inward(photos.world_from_cam)
    eye, axis = poses[:, :, 3], poses[:, :, 2]
    across = np.eye(3) - axis[:, :, None] * axis[:, None, :]
    target = np.linalg.lstsq(across.sum(0), (across @ eye[..., None]).sum(0)[:, 0], rcond=None)[0]
    ahead = np.sum((target - eye) * axis, 1)
    if np.median(ahead) <= 0.1:  # parallel or outward cameras: a shell around them
        target = (eye + axis).mean(0)
    radius = max(1e-2, 0.6 * float(np.median(np.linalg.norm(eye - target, axis=1))))
    rng = np.random.default_rng(seed)
    ball = rng.normal(size=(count, 3))
    ball *= (rng.uniform(size=count) ** (1 / 3) / np.linalg.norm(ball, axis=1))[:, None]
    return target + radius * ball, np.full((count, 3), 0.5)


def points_between(
    photos: Capture, frame: WorldFrame, count: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixels of the training photos put at the depth of the sparse points seen near them.

    Structure from motion leaves smooth surfaces empty; this fills them roughly, in their own
    colours. The depth of a pixel is the geometric mean over its 4 nearest projected points,
    weighted by 1 / distance.

    Args:
        photos: The capture; held-out photos are not looked at.
        frame: The training frame.
        count: About how many points (photos that see fewer than 8 sparse points give none).
        seed: Draws the pixels.

    Returns:
        (m, 3) points in the training frame and their colours in [0, 1].
    """
    from scipy.spatial import KDTree

    rng = np.random.default_rng((seed, 1))
    sparse, poses = frame.inward_points(photos.points), frame.inward(photos.world_from_cam)
    each = -(-count // len(photos.train))
    points: list[NDArray[np.float64]] = [np.zeros((0, 3))]
    colours: list[NDArray[np.float64]] = [np.zeros((0, 3))]
    for i in photos.train:
        rotation, eye = poses[i, :, :3], poses[i, :, 3]
        focal, centre, size = photos.focal[i], photos.centre[i], photos.sizes[i]
        seen = (sparse - eye) @ rotation
        seen = seen[seen[:, 2] > 0.02]
        at = seen[:, :2] / seen[:, 2:] * focal + centre
        inside = np.all((at >= 0) & (at < size), 1)
        if inside.sum() < 8:
            continue
        pixel = rng.uniform(size=(each, 2)) * size
        distance, near = KDTree(at[inside]).query(pixel, k=4)
        weight = 1 / (np.asarray(distance) + 1)
        depths = np.log(seen[inside, 2])[np.asarray(near)]
        depth = np.exp((weight * depths).sum(1) / weight.sum(1))[:, None]
        x, y = pixel.astype(int).T
        counts = photos.weights[i][y % photos.weights.shape[1], x % photos.weights.shape[2]] > 127
        counts &= photos.alphas[i][y % photos.alphas.shape[1], x % photos.alphas.shape[2]] > 127
        ray = np.concatenate([(pixel - centre) / focal, np.ones((each, 1))], 1)
        points.append((eye + (ray * depth) @ rotation.T)[counts])
        colours.append(photos.images[i][y, x][counts] / 255)
    return np.concatenate(points), np.concatenate(colours)
