"""From a radiance field to Gaussians: discs on its surface, refined against its own pictures.

``bake`` knows nothing of networks: it takes a function that draws views. The refinement is splat
training with relocation, through the same loss and the same loop, in place of photos the field's
pictures at the training cameras and at cameras between them; so it is as good at views that no
photo shows, and what the field made of the photos (their noise averaged, floaters gone) stays.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lumefield.apps import _splat
from lumefield.apps._bake_start import Start, gaussians, surfels, thinned
from lumefield.apps._bake_views import Look, Targets, Tell, between, joined, look_all, one_size
from lumefield.apps._batches import Batch, shuffled
from lumefield.apps._frame import WorldFrame
from lumefield.apps._splat_job import splats_of
from lumefield.apps._views import Views
from lumefield.codecs.formats import Splats
from lumefield.errors import RunError
from lumefield.fields import Gaussians, Stats
from lumefield.fit import Chunk, TrainState, fit

LONGEST = 1280
"""Longest side of the pictures that are baked from, pixels."""
_PER_PIXEL = 0.6
"""Gaussians per pixel of a picture, where --max-splats is not given."""
_START_SHARE = 0.7
"""Share of the Gaussians to start with; relocation adds the others where they are missed."""
_SAMPLES = 12
"""Pixels put on the surface per Gaussian to start with, before they are thinned."""
_MANY = 3_000_000
"""More pixels than this are not put on the surface, unless there are that many Gaussians."""
_EMPTY = 0.02
"""With a larger share of see-through pixels than this, opacity is fitted too."""
_CHUNK = 25


@dataclass(frozen=True)
class Wanted:
    """How to bake."""

    steps: int = 4_000
    limit: int | None = None
    """Most Gaussians; from the size of the pictures when None."""
    degree: Literal[0, 1, 2, 3] = 3
    cameras: int = 80
    """Most cameras of photos to look from, evenly chosen."""
    between: int = 32
    """Most cameras between them."""
    seed: int = 0


def bake(
    look: Look,
    views: Views,
    wanted: Wanted,
    *,
    tell: Tell = lambda what, share: None,
    on_chunk: Callable[[TrainState, Chunk], bool] | None = None,
) -> Splats:
    """Gaussians that look like what ``look`` draws, in the world frame of ``views``.

    Args:
        look: Draws a view: colour, depth and opacity.
        views: Cameras of the training photos; held-out ones are not used.
        wanted: Steps, counts, degree, seed.
        tell: Told how much of the pictures is drawn.
        on_chunk: Told of every chunk of the refinement; returning False ends it.

    Raises:
        RunError: If nothing is seen from the cameras.
    """
    return baked(targets_of(look, views, wanted, tell), wanted, on_chunk)


def targets_of(look: Look, views: Views, wanted: Wanted, tell: Tell) -> Targets:
    """What is baked: pictures from the training cameras and from between them."""
    train = views.pick([i for i, held in enumerate(views.held_out) if not held])
    train = train if len(train) else views
    some = np.unique(np.linspace(0, len(train) - 1, wanted.cameras).round().astype(np.intp))
    train = one_size(train.pick(some), LONGEST)
    return look_all(look, joined(train, between(train, wanted.between, wanted.seed)), tell)


def baked(
    targets: Targets,
    wanted: Wanted,
    on_chunk: Callable[[TrainState, Chunk], bool] | None = None,
) -> Splats:
    """Gaussians that look like the targets, in their world frame.

    Raises:
        RunError: If nothing is seen in them.
    """
    limit = wanted.limit or limit_for(targets.size)
    start = started(targets, limit, wanted)
    frame = WorldFrame.of_cameras(targets.views.world_from_cam)
    recipe = _recipe(targets, limit, wanted)
    state = _state(start, frame, recipe, wanted)
    if wanted.steps:
        state = _refined(state, targets, frame, recipe, wanted, on_chunk)
    return splats_of(state, recipe, frame)


def limit_for(size: tuple[int, int]) -> int:
    """Gaussians for pictures of (H, W) pixels."""
    return max(20_000, min(3_000_000, int(_PER_PIXEL * size[0] * size[1])))


def started(targets: Targets, limit: int, wanted: Wanted) -> Start:
    """Gaussians on the surface, before refinement; world units.

    Raises:
        RunError: If nothing is seen from the cameras.
    """
    count = max(1, int(_START_SHARE * limit)) if wanted.steps else limit
    found = surfels(targets, min(_SAMPLES * count, max(2 * count, _MANY)), wanted.seed)
    if not len(found.points):
        raise RunError(
            "nothing opaque is seen from the cameras, so there is no surface to bake; "
            "train the field longer"
        )
    return gaussians(thinned(found, count), wanted.degree)


def _recipe(targets: Targets, limit: int, wanted: Wanted) -> _splat.Recipe:
    empty = float((targets.alpha < 128).mean())
    every = max(_CHUNK, wanted.steps // 30 // _CHUNK * _CHUNK)
    return _splat.Recipe(
        steps=max(1, wanted.steps),
        limit=limit,
        degree=wanted.degree,
        background="random" if empty > _EMPTY else "black",
        carve=empty > _EMPTY,
        refine_from=every,
        refine_until=int(0.7 * wanted.steps),
        refine_every=every,
        growth=1.06,
    )


def _state(start: Start, frame: WorldFrame, recipe: _splat.Recipe, wanted: Wanted) -> TrainState:
    g = Gaussians.from_arrays(
        means=frame.inward_points(start.means),
        quats_wxyz=start.quats_wxyz,
        log_scales=start.log_scales - np.log(frame.scale),
        logit_opacities=start.logit_opacities,
        sh=start.sh,
    )
    used = g.count
    scene = _splat.SplatScene(
        gaussians=g.padded(max(recipe.limit, used)),
        exposure=jnp.zeros((0, 3, 2)),
        pose=jnp.zeros((0, 6)),
        probe=jnp.zeros((0, 2)),
    )
    stats = Stats.start(used, scene.gaussians.count)
    tx = _splat.optimizer(recipe, scene)
    return TrainState.start(scene, tx, jax.random.key(wanted.seed), stats)


def _refined(
    state: TrainState,
    targets: Targets,
    frame: WorldFrame,
    recipe: _splat.Recipe,
    wanted: Wanted,
    on_chunk: Callable[[TrainState, Chunk], bool] | None,
) -> TrainState:
    height, width = targets.size
    pictures = _Pictures(targets, frame, carve=recipe.carve)

    def batches(first: int, count: int) -> Any:  # noqa: ANN401
        index = shuffled(wanted.seed, len(targets.views), first, count)
        return pictures.batch(index[:, None])

    stage = _splat.make_stage(
        recipe, wanted.steps, batches, height=height, width=width, degree=recipe.degree
    )
    return fit(
        state,
        (stage,),
        _splat.optimizer(recipe, state.scene),
        chunk=_CHUNK,
        after_step=_splat.make_after_step(recipe, height=height, width=width),
        between=_splat.make_between(recipe),
        on_chunk=on_chunk,
    )


class _Pictures:
    """The targets as the batches that the splat loss takes, in the training frame."""

    def __init__(self, targets: Targets, frame: WorldFrame, *, carve: bool) -> None:
        self._image = targets.rgb
        n = len(targets.views)
        full = np.full((n, 1, 1), 255, np.uint8)
        self._weight = full
        self._alpha = targets.alpha if carve else full
        self._pose = frame.inward(targets.views.world_from_cam).astype(np.float32)
        self._focal = targets.views.focal.astype(np.float32)
        self._centre = targets.views.centre.astype(np.float32)

    def batch(self, index: NDArray[np.int64]) -> Batch:
        return Batch(
            index.astype(np.int32),
            self._image[index],
            self._weight[index],
            self._alpha[index],
            self._pose[index],
            self._focal[index],
            self._centre[index],
        )
