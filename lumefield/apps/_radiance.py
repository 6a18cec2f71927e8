"""Radiance fields from photos: what is trained, the loss of a batch of rays, the learning rates."""

import typing
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx, struct
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from lumefield.apps._poses import refined_pose
from lumefield.apps._radiance_rays import Rays, Sampling, Seen, cone_radius
from lumefield.apps._radiance_trace import trace
from lumefield.apps._rays import Cameras, RayBatch
from lumefield.fields.radiance import RADIANCE_FIELDS
from lumefield.fit import scaled_adam


@typing.no_type_check
@struct.dataclass
class RadianceScene:
    """Everything the optimizer moves. Absent parts have no rows."""

    field: Any
    """A ``RadianceField``."""
    exposure: Float[Array, "n 3 2"]
    """Per training photo and channel: log gain and offset; n = 0 without compensation."""
    pose: Float[Array, "n 6"]
    """Per training photo: preconditioned twist in the camera frame; n = 0 without."""
    look: Float[Array, "n a"]
    """Per training photo: code of its appearance; n = 0 without."""


@dataclass(frozen=True)
class Recipe:
    """Numbers of a run; ``_radiance_plan.py`` chooses them."""

    method: str
    steps: int
    chunk: int
    """Steps per jitted call; the occupancy is brought up to date after each."""
    rays: int
    """Per step; marched rays that find no room among the samples wait for another step."""
    sampling: Sampling
    rate: float
    """Learning rate of the field after warming up."""
    rate_end: float
    options: tuple[tuple[str, Any], ...] = ()
    """Keyword arguments of the field."""
    look: int = 0
    background: Literal["black", "white", "random"] = "black"
    carve: bool = False
    depth_cost: float = 0.0
    distortion: float = 0.0
    distortion_falls: float = 1.0
    """By this factor in all, as the learning rate does: a cloud has to become a surface early, and
    the errors that the distortion is weighed against are small at the end."""
    prior: float = 0.0
    """Weight of the prior that the field brings (smooth planes)."""
    factors: tuple[int, ...] = (1,)
    """Rays come from copies of the photos that are smaller by these factors."""
    shares: tuple[float, ...] = (1.0,)


def new_scene(
    recipe: Recipe, key: PRNGKeyArray, *, photos: int, exposure: bool, poses: bool
) -> RadianceScene:
    """What training starts from."""
    field = RADIANCE_FIELDS[recipe.method](
        rngs=nnx.Rngs(key), look=recipe.look, **dict(recipe.options)
    )
    return RadianceScene(
        field=field,
        exposure=jnp.zeros((photos if exposure else 0, 3, 2)),
        pose=jnp.zeros((photos if poses else 0, 6)),
        look=jnp.zeros((photos if recipe.look else 0, recipe.look)),
    )


def rates(recipe: Recipe, step: Array) -> RadianceScene:
    """Learning rates: 1 % of the steps to warm up, then an exponential decay."""
    done = step.astype(jnp.float32)
    t = jnp.clip(done / recipe.steps, 0, 1)
    warm = jnp.clip((done + 1) / max(1.0, min(100.0, 0.02 * recipe.steps)), 0, 1)
    decay = jnp.exp(t * float(np.log(recipe.rate_end / recipe.rate)))
    return RadianceScene(
        field=recipe.rate * warm * decay,
        exposure=1e-3 * decay,
        pose=0.02 * warm * decay,
        look=1e-3 * warm * decay,
    )


def optimizer(recipe: Recipe, scene: RadianceScene) -> optax.GradientTransformation:
    """Adam with the numbers of Instant-NGP (Sec. 4): b2 = 0.99, eps = 1e-15."""
    del scene
    return scaled_adam(partial(rates, recipe), b2=0.99, eps=1e-15)


def batch_rays(
    cameras: Cameras, scene: RadianceScene, batch: RayBatch, precondition: Array | None
) -> Rays:
    """Rays through the pixels of a batch; differentiable in the poses and looks of the scene."""
    poses = jnp.asarray(cameras.world_from_cam)
    if scene.pose.shape[0]:
        twist = scene.pose
        if precondition is not None:
            twist = jnp.einsum("nij,nj->ni", precondition, twist)
        poses = jax.vmap(refined_pose)(poses, twist)
    pose = poses[batch.index]
    local = _local(cameras, batch)
    length = jnp.linalg.norm(local, axis=-1)
    direction = jnp.einsum("rij,rj->ri", pose[:, :, :3], local / length[:, None])
    focal = jnp.asarray(cameras.focal)[batch.index]
    radius = batch.side * cone_radius(jnp.mean(focal, -1) * length)
    look = scene.look[batch.index] if scene.look.shape[0] else None
    return Rays(pose[:, :, 3], direction, radius, look)


def _local(cameras: Cameras, batch: RayBatch) -> Float[Array, "r 3"]:
    """Directions in the camera frame, 1 long along the view axis."""
    focal, centre = jnp.asarray(cameras.focal), jnp.asarray(cameras.centre)
    xy = (batch.pixel - centre[batch.index]) / focal[batch.index]
    return jnp.concatenate([xy, jnp.ones_like(xy[:, :1])], -1)


def make_loss(recipe: Recipe, cameras: Cameras, precondition: Array | None) -> Any:  # noqa: ANN401
    """The loss of a batch of rays, in the form ``fit`` wants."""

    def loss(
        scene: RadianceScene,
        aux: Any,  # noqa: ANN401
        batch: RayBatch,
        key: PRNGKeyArray,
        step: Array,
    ) -> tuple[Array, tuple[Any, dict[str, Array]]]:
        for_samples, for_ground = jax.random.split(key)
        rays = batch_rays(cameras, scene, batch, precondition)
        x = jnp.clip(step.astype(jnp.float32) / (0.05 * recipe.steps), 0, 1)
        occupied = aux.occupied if recipe.sampling.way == "marched" else None
        seen = trace(
            recipe.sampling,
            scene.field,
            occupied,
            rays,
            for_samples,
            anneal=10 * x / (9 * x + 1),
            distortion=_distortion(recipe, step),
        )
        ground, truth = _ground(recipe, batch, for_ground)
        weight = batch.weight.astype(jnp.float32) * jnp.float32(1 / 255)
        weight = jnp.where(seen.used, weight, 0.0)
        share = weight / jnp.maximum(jnp.sum(weight), 1.0)
        rgb = seen.rgb + (1 - seen.opacity)[:, None] * ground
        if scene.exposure.shape[0]:
            tone = scene.exposure[batch.index]
            rgb = rgb * jnp.exp(tone[..., 0]) + tone[..., 1]
        error = jnp.sum((rgb - truth) ** 2, -1) / 3
        value = jnp.sum(share * error) + seen.cost
        if seen.coarse is not None:
            first = seen.coarse[:, :3] + (1 - seen.coarse[:, 3:]) * ground
            value = value + jnp.sum(share * jnp.sum((first - truth) ** 2, -1) / 3)
        value = value + _priors(recipe, scene, batch, seen, cameras)
        mse = jax.lax.stop_gradient(jnp.sum(share * error))
        metrics = {
            "psnr": -10 * jnp.log10(jnp.maximum(mse, 1e-10)),
            "rays": jnp.sum(seen.used, dtype=jnp.int32),
            "samples": seen.samples,
        }
        return value, (aux, metrics)

    return loss


def _distortion(recipe: Recipe, step: Array) -> Array | None:
    if not recipe.distortion:
        return None
    done = jnp.clip(step.astype(jnp.float32) / recipe.steps, 0, 1)
    return recipe.distortion * jnp.exp(done * float(np.log(recipe.distortion_falls)))


def _priors(
    recipe: Recipe, scene: RadianceScene, batch: RayBatch, seen: Seen, cameras: Cameras
) -> Array:
    """Target opacity, depth of sparse points, and what the field itself asks for."""
    value = jnp.zeros((), jnp.float32)
    count = jnp.maximum(jnp.sum(seen.used), 1).astype(jnp.float32)
    if recipe.carve:
        want = batch.alpha.astype(jnp.float32) * jnp.float32(1 / 255)
        value = (
            value + 0.1 * jnp.sum(jnp.where(seen.used, jnp.abs(seen.opacity - want), 0.0)) / count
        )
    if recipe.depth_cost:
        known = (batch.depth > 0) & seen.used
        along = jnp.where(known, batch.depth, 1.0) * jnp.linalg.norm(
            _local(cameras, batch), axis=-1
        )
        off = (seen.depth - along * seen.opacity) / along
        value = value + recipe.depth_cost * jnp.sum(jnp.where(known, off**2, 0.0)) / count
    if recipe.prior:
        value = value + recipe.prior * scene.field.prior()
    return value


def _ground(recipe: Recipe, batch: RayBatch, key: PRNGKeyArray) -> tuple[Array, Array]:
    """Background of every ray, and the truth over it where the photo is transparent.

    Opaque photos get a random background, so that nothing of it may shine through.
    """
    if recipe.carve and recipe.background != "random":
        ground = jnp.full(batch.rgb.shape, 1.0 if recipe.background == "white" else 0.0)
    else:
        ground = jax.random.uniform(key, batch.rgb.shape)
    truth = batch.rgb.astype(jnp.float32) * jnp.float32(1 / 255)
    if recipe.carve:
        empty = 1 - batch.alpha.astype(jnp.float32)[:, None] * jnp.float32(1 / 255)
        truth = truth + empty * ground
    return ground, truth
