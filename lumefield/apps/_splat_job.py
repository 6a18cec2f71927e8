"""The splat method as a job: its plan, its batches, its file."""

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh
from numpy.typing import NDArray

from lumefield.apps import _devices, _plan, _splat
from lumefield.apps._batches import Views, shuffled
from lumefield.apps._capture_type import Capture
from lumefield.apps._frame import WorldFrame
from lumefield.apps._method import BACKGROUND, Camera, Job
from lumefield.apps._plan import Plan
from lumefield.apps._poses import preconditioners
from lumefield.apps._splat_start import start_state
from lumefield.apps._train_settings import Train
from lumefield.codecs.formats import Splats, save_splats
from lumefield.fit import Stage, TrainState

_RATE_PIXELS = 0.02
"""Learning rate of preconditioned poses, pixels."""


def prepare_splats(settings: Train, photos: Capture, stored: Mapping[str, Any]) -> Job:
    """Gaussians, from the photos and the settings; a resumed run keeps its plan.

    Raises:
        InputError: If that needs more memory than there is.
    """
    mesh = _devices.chosen_mesh(settings)
    plan = _chosen_plan(settings, photos, stored)
    memory = _memory(plan, photos)
    recipe = _recipe(settings, plan, photos)
    # Runs of before there were preconditioners, or another order of Gaussians, keep their meaning.
    old = stored.get("recipe", {})
    on_accelerator = jax.default_backend() != "cpu"
    recipe = dataclasses.replace(recipe, resort=old.get("resort", not stored and on_accelerator))
    if settings.refine_poses and old.get("preconditioned", not stored):
        recipe = dataclasses.replace(recipe, preconditioned=True, rate_pose=_RATE_PIXELS)
    frame = WorldFrame.of_cameras(photos.world_from_cam)
    level = BACKGROUND[recipe.background]

    def stages() -> tuple[Stage, ...]:
        matrices = preconditioners(photos, frame) if recipe.preconditioned else None
        return tuple(
            _stage(settings, photos, frame, recipe, s, matrices, mesh) for s in plan.stages
        )

    def count(state: TrainState) -> int:
        return int(state.aux.used)

    def facts(metrics: Mapping[str, NDArray[Any]], state: TrainState) -> dict[str, Any]:
        del metrics
        return {"gaussians": count(state)}

    def draw(state: TrainState) -> Any:  # noqa: ANN401
        g = _splat.bake(_devices.on_one(state.scene, mesh))

        def one(camera: Camera, size: tuple[int, int]) -> Any:  # noqa: ANN401
            return _splat.draw(g, *camera, level, size, recipe.antialiased)

        return one

    def save(state: TrainState, folder: Path) -> dict[str, Any]:
        splats = splats_of(state, recipe, frame)
        save_splats(splats, folder / "scene.ply")
        return {"num_gaussians": len(splats.means)}

    return Job(
        noun="Gaussians",
        result="scene.ply",
        steps=plan.steps,
        chunk=plan.chunk,
        memory=memory,
        frame=frame,
        record={
            "plan": plan.to_json(),
            "recipe": dataclasses.asdict(recipe),
            "background": [level] * 3,
        },
        carve=recipe.carve,
        watched=8,
        level=level,
        start=partial(start_state, settings, photos, recipe, frame),
        stages=stages,
        optimizer=partial(_splat.optimizer, recipe),
        after_step=_splat.make_after_step(recipe, height=photos.height, width=photos.width),
        between=_splat.make_between(recipe),
        count=count,
        facts=facts,
        draw=draw,
        save=save,
        glimpse=partial(splats_of, recipe=recipe, frame=frame),
        placed=partial(_devices.everywhere, mesh=mesh),
    )


def _memory(plan: Plan, photos: Capture) -> str:
    """What the run needs of the host and, where there is one, of the accelerator."""
    check = partial(
        _plan.check_memory,
        plan,
        photos=len(photos.names),
        height=photos.height,
        width=photos.width,
    )
    host, device = _plan.available_mb(), _devices.free_mb()
    if device is None:
        return check(available_mb=host)
    lines = (
        check(available_mb=host, place="host"),
        check(available_mb=device if math.isfinite(device) else None, place="device"),
    )
    return "\n".join(lines)


def splats_of(state: TrainState, recipe: _splat.Recipe, frame: WorldFrame) -> Splats:
    """The Gaussians as a file holds them: alive ones only, in the user's world frame."""
    g = _splat.bake(state.scene)
    alive = np.asarray(g.alive())
    leaf = {f.name: np.asarray(getattr(g, f.name))[alive] for f in dataclasses.fields(g)}
    quats = leaf["quats_wxyz"]
    return Splats(
        means=frame.outward_points(leaf["means"].astype(np.float64)).astype(np.float32),
        quats_wxyz=quats / np.linalg.norm(quats, axis=1, keepdims=True).clip(1e-12),
        log_scales=leaf["log_scales"] + np.float32(np.log(frame.scale)),
        logit_opacities=leaf["logit_opacities"],
        sh=leaf["sh"],
        antialiased=recipe.antialiased,
    )


def _stage(
    settings: Train,
    photos: Capture,
    frame: WorldFrame,
    recipe: _splat.Recipe,
    stage: _plan.StagePlan,
    precondition: Array | None,
    mesh: Mesh | None,
) -> Stage:
    train = photos.train
    views = Views.of(photos, frame, train, stage.factor)
    cameras, seed = settings.cameras_per_step, settings.seed

    def batches(first: int, count: int) -> Any:  # noqa: ANN401
        index = shuffled(seed, len(train), first * cameras, count * cameras)
        return _devices.divided(views.batch(index.reshape(count, cameras)), mesh)

    return _splat.make_stage(
        recipe,
        stage.until,
        batches,
        height=views.height,
        width=views.width,
        degree=stage.degree,
        precondition=precondition,
        mesh=mesh,
    )


def _chosen_plan(settings: Train, photos: Capture, stored: Mapping[str, Any]) -> Plan:
    old: dict[str, Any] = stored.get("plan", {})
    if old and settings.steps in (None, old["steps"]):
        return Plan.from_json(old)
    plan = _plan.make_plan(
        settings.quality,
        height=photos.height,
        width=photos.width,
        points=len(photos.points),
        steps=settings.steps,
        max_gaussians=settings.max_gaussians,
        cameras_per_step=settings.cameras_per_step,
    )
    # The capacity is the shape of the checkpoint: a longer run keeps it.
    return dataclasses.replace(plan, limit=old["limit"]) if old else plan


def _recipe(settings: Train, plan: Plan, photos: Capture) -> _splat.Recipe:
    return _splat.Recipe(
        steps=plan.steps,
        limit=plan.limit,
        densify=settings.densify,
        antialiased=settings.antialiased,
        sparse=settings.sparse_adam,
        background=settings.background,
        carve=photos.alphas.shape[1:] != (1, 1),
        refine_from=plan.refine_from,
        refine_until=plan.refine_until,
        refine_every=plan.refine_every,
        growth=plan.growth,
    )
