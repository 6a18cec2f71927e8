"""The radiance fields as jobs: start, batches, occupancy, file."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lumefield.apps import _radiance
from lumefield.apps._capture_type import Capture
from lumefield.apps._frame import WorldFrame
from lumefield.apps._method import BACKGROUND, Camera, Job
from lumefield.apps._poses import preconditioners
from lumefield.apps._radiance_draw import draw_view
from lumefield.apps._radiance_io import Radiance, save_radiance
from lumefield.apps._radiance_plan import make_recipe, memory_line, recipe_from
from lumefield.apps._radiance_trace import density_at
from lumefield.apps._rays import RayBatches, seen_points
from lumefield.apps._train_settings import Train
from lumefield.codecs.formats import Splats
from lumefield.fit import Stage, TrainState
from lumefield.render.volume import Occupancy

_CELLS = 128
"""Of the occupancy, per axis and level."""
_PARTS = 32
_SWEEPS = (1, 2, 4, 8, 16)
"""Chunks after which all cells are visited."""
_VISITS = 4
"""Parts that are visited after every other chunk."""


def prepare_radiance(settings: Train, photos: Capture, stored: Mapping[str, Any]) -> Job:
    """A radiance field, from the photos and the settings; a resumed run keeps its recipe.

    Raises:
        InputError: If that needs more memory than there is.
    """
    frame = WorldFrame.of_focus(photos.world_from_cam, photos.points)
    recipe = make_recipe(settings, photos, frame)
    if stored.get("recipe"):
        old = recipe_from(stored["recipe"])
        recipe = dataclasses.replace(old, steps=settings.steps or old.steps)
    work = _Work(settings, photos, frame, recipe)
    return Job(
        noun="parameters",
        result="field.safetensors",
        steps=recipe.steps,
        chunk=recipe.chunk,
        memory=memory_line(recipe, photos),
        frame=frame,
        record={"recipe": dataclasses.asdict(recipe), "background": list(work.ground)},
        carve=recipe.carve,
        watched=2,
        level=work.ground[0],
        start=work.start,
        stages=work.stages,
        optimizer=partial(_radiance.optimizer, recipe),
        after_step=None,
        between=_make_between(recipe) if work.marched else None,
        count=count,
        facts=_facts,
        draw=work.draw,
        save=work.save,
        glimpse=work.glimpse,
    )


@dataclasses.dataclass(frozen=True)
class _Work:
    """What the job of one run does with its recipe and its photos."""

    settings: Train
    photos: Capture
    frame: WorldFrame
    recipe: _radiance.Recipe

    @property
    def marched(self) -> bool:
        return self.recipe.sampling.way == "marched"

    @property
    def ground(self) -> tuple[float, float, float]:
        level = BACKGROUND[self.recipe.background]
        return level, level, level

    def start(self) -> TrainState:
        key = jax.random.key(self.settings.seed)
        scene = _radiance.new_scene(
            self.recipe,
            key,
            photos=len(self.photos.train),
            exposure=self.settings.exposure,
            poses=self.settings.refine_poses,
        )
        occupancy: Any = ()
        if self.marched:
            levels, repeat = self.recipe.sampling.levels, _CELLS // 32
            unseen = _unseen(self.photos, self.frame, self.recipe.sampling.near, levels)
            for axis in (1, 2, 3):
                unseen = np.repeat(unseen, repeat, axis)
            occupancy = Occupancy.full(_CELLS, levels).without(jnp.asarray(unseen))
        return TrainState.start(scene, _radiance.optimizer(self.recipe, scene), key, occupancy)

    def stages(self) -> tuple[Stage, ...]:
        recipe, photos, frame = self.recipe, self.photos, self.frame
        batches = RayBatches(
            photos,
            frame,
            rays=recipe.rays,
            seed=self.settings.seed,
            factors=recipe.factors,
            shares=recipe.shares,
            anchors=seen_points(photos, frame) if recipe.depth_cost else None,
        )
        precondition = preconditioners(photos, frame) if self.settings.refine_poses else None
        loss = _radiance.make_loss(recipe, batches.cameras, precondition)
        return (Stage(recipe.steps, loss, batches),)

    def draw(self, state: TrainState) -> Any:  # noqa: ANN401
        occupied = self._occupied(state)

        def one(camera: Camera, size: tuple[int, int]) -> Any:  # noqa: ANN401
            return draw_view(self.recipe, state.scene, occupied, camera, size, self.ground)[0]

        return one

    def save(self, state: TrainState, folder: Path) -> dict[str, Any]:
        path, occupied = folder / "field.safetensors", self._occupied(state)
        save_radiance(
            path, self.recipe, state.scene, occupied, self.frame, self.photos, self.ground
        )
        return {"num_gaussians": 0, "parameters": count(state)}

    def glimpse(self, state: TrainState) -> Splats:
        from lumefield.apps._live_splats import field_splats

        field = Radiance(
            self.recipe,
            state.scene,
            self._occupied(state),
            self.frame,
            self.ground,
            self.photos.points.astype(np.float32),
            self.photos.colours,
        )
        return field_splats(field, self.photos)

    def _occupied(self, state: TrainState) -> Any:  # noqa: ANN401
        return state.aux.occupied if self.marched else None


def _facts(metrics: Mapping[str, NDArray[Any]], state: TrainState) -> dict[str, Any]:
    del state
    return {
        "rays": round(float(np.mean(metrics["rays"]))),
        "samples": round(float(np.mean(metrics["samples"]))),
    }


def count(state: TrainState) -> int:
    """Numbers of the field."""
    return sum(leaf.size for leaf in jax.tree.leaves(state.scene.field))


def _make_between(recipe: _radiance.Recipe) -> Any:  # noqa: ANN401
    """The occupancy is brought up to date between chunks, by the step number alone.

    All cells are visited while little is known, after that a few at a time.
    """
    fold = 0x0CC

    @jax.jit
    def updated(state: TrainState, times: Any) -> TrainState:  # noqa: ANN401
        key = jax.random.fold_in(jax.random.fold_in(state.key, fold), state.step)

        def once(i: jax.Array, aux: Occupancy) -> Occupancy:
            return aux.updated(
                partial(density_at, state.scene.field),
                jax.random.fold_in(key, i),
                step=recipe.sampling.step,
                parts=_PARTS,
            )

        return dataclasses.replace(state, aux=jax.lax.fori_loop(0, times, once, state.aux))

    def between(state: TrainState) -> TrainState:
        number = int(state.step) // recipe.chunk
        return updated(state, _PARTS if number in _SWEEPS else _VISITS)

    return between


def _unseen(
    photos: Capture, frame: WorldFrame, near: float, levels: int, n: int = 32
) -> NDArray[np.bool_]:
    """(levels, n, n, n) cells whose centre, with one cell's margin, no training photo sees."""
    axis = (np.arange(n) + 0.5) * (2 / n) - 1
    unit = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    poses = frame.inward(photos.world_from_cam)
    seen = np.zeros((levels, len(unit)), bool)
    for level in range(levels):
        centres, margin = unit * 2.0**level, 2.0**level * 3 / n
        for i in photos.train:
            local = (centres - poses[i, :, 3]) @ poses[i, :, :3]
            z = np.maximum(local[:, 2], 1e-6)
            slack = margin * photos.focal[i] / z[:, None]
            at = local[:, :2] / z[:, None] * photos.focal[i] + photos.centre[i]
            inside = np.all((at > -slack) & (at < photos.sizes[i] + slack), 1)
            seen[level] |= inside & (local[:, 2] > near - margin)
    return ~seen.reshape(levels, n, n, n)
