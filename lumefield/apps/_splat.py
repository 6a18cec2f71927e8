"""The splat method: what is trained, its loss, its learning rates, its densification."""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, PRNGKeyArray

from lumefield import fields, render
from lumefield.apps._batches import Batch
from lumefield.apps._devices import mean_over_cameras
from lumefield.apps._poses import refined_pose
from lumefield.fields import Gaussians, Splatting, Stats
from lumefield.fit import (
    Batches,
    Optimizer,
    Stage,
    TrainState,
    forget,
    permuted,
    reordered,
    row_adam,
    scaled_adam,
)

Densify = Literal["mcmc", "adc"]


@typing.no_type_check
@struct.dataclass
class SplatScene:
    """Everything the optimizer moves. Absent parts have no rows."""

    gaussians: Gaussians
    exposure: Float[Array, "n 3 2"]
    """Per training photo and channel: log gain and offset; n = 0 without compensation."""
    pose: Float[Array, "n 6"]
    """Per training photo: twist (translation, rotation) in the camera frame; n = 0 without."""
    probe: Float[Array, "m 2"]
    """Zeros whose gradient is the AbsGS statistic; m = 0 for relocation."""


class _Drawn(NamedTuple):
    """What a camera sees of a scene: Gaussians ready to be drawn, and the rest as it is."""

    gaussians: Splatting
    exposure: Array
    pose: Array
    probe: Array


@dataclass(frozen=True)
class Recipe:
    """Numbers of the method; ``apps/_plan.py`` chooses them from the quality dial and the data."""

    steps: int
    limit: int
    """Most Gaussians."""
    densify: Densify = "mcmc"
    degree: int = 3
    antialiased: bool = False
    background: Literal["black", "white", "random"] = "black"
    carve: bool = False
    dssim: float = 0.2
    opacity_cost: float = 0.01
    scale_cost: float = 0.01
    rate_means: float = 1.6e-4
    rate_means_end: float = 1.6e-6
    rate_scales: float = 5e-3
    rate_quats: float = 1e-3
    rate_opacities: float = 5e-2
    rate_colour: float = 2.5e-3
    rate_exposure: float = 1e-3
    rate_pose: float = 1e-4
    """Of a twist in the training frame; in pixels when preconditioned."""
    preconditioned: bool = False
    """Whether poses are refined by numbers worth a pixel each (CamP)."""
    sparse: bool = False
    """Whether a step moves only the Gaussians that its photos show."""
    resort: bool = False
    """Whether Gaussians are put in the order of a space-filling curve at each densification.

    Not on CPUs: the scene then depends on the number of threads, for a reason not found yet."""
    noise: float = 5e5
    growth: float = 1.05
    refine_from: int = 500
    refine_until: int = 25_000
    refine_every: int = 100
    reset_every: int = 3_000


def rates(recipe: Recipe, scene: SplatScene, step: Array) -> SplatScene:
    """Learning rate of every leaf; that of the centres decays exponentially (3DGS)."""
    t = jnp.clip(step / recipe.steps, 0, 1)
    ratio = float(np.log(recipe.rate_means_end / recipe.rate_means))
    k = scene.gaussians.sh.shape[-2]
    sh = np.full((k, 1), recipe.rate_colour / 20, np.float32)
    sh[0] = recipe.rate_colour
    return SplatScene(
        gaussians=Gaussians(
            means=recipe.rate_means * jnp.exp(t * ratio),
            quats_wxyz=jnp.float32(recipe.rate_quats),
            log_scales=jnp.float32(recipe.rate_scales),
            logit_opacities=jnp.float32(recipe.rate_opacities),
            sh=jnp.asarray(sh)[None],
        ),
        exposure=jnp.float32(recipe.rate_exposure),
        pose=recipe.rate_pose * jnp.exp(t * float(np.log(0.01))),
        probe=jnp.float32(0),
    )


def optimizer(recipe: Recipe, scene: SplatScene) -> Optimizer:
    """Adam with the learning rates above."""
    rate = partial(rates, recipe, scene)
    return row_adam(rate, shown) if recipe.sparse else scaled_adam(rate)


def shown(grads: SplatScene) -> SplatScene:
    """Which rows of the scene a step moves where Gaussians that nobody sees are left alone.

    Those whose centre or colour has a gradient: only pictures give them one. 3DGS asks instead
    whether the radius in pixels is positive, so that it also moves what lies hidden in full.
    """
    g = grads.gaussians
    # All bands of a colour's gradient are multiples of the same three numbers: the first will do.
    return _rows(jnp.any(g.means != 0, -1) | jnp.any(g.sh[:, 0] != 0, -1))


def make_loss(
    recipe: Recipe,
    *,
    height: int,
    width: int,
    degree: int,
    precondition: Array | None = None,
    mesh: Mesh | None = None,
    options: render.SplatOptions | None = None,
) -> Any:  # noqa: ANN401
    """The loss of a batch of photos at one size and SH degree, in the form ``fit`` wants.

    Args:
        recipe: Numbers of the method.
        height: Rows of the photos.
        width: Columns.
        degree: Of the spherical harmonics.
        precondition: (n, 6, 6) from the numbers of the scene to twists of the training photos.
        mesh: Devices among which the cameras of a batch are divided; None for one.
        options: How Gaussians are drawn; as the recipe says when None. With a number of slots, the
            metric "crowded" is above 0 where they did not suffice: such a step does not count.
    """
    k = (degree + 1) ** 2
    drawing = options or render.SplatOptions(antialiased=recipe.antialiased)

    def one(scene: _Drawn, batch: Batch, key: PRNGKeyArray) -> tuple[Array, ...]:
        pose = batch.world_from_cam
        if scene.pose.shape[0]:
            twist = scene.pose[batch.index]
            if precondition is not None:
                twist = precondition[batch.index] @ twist
            pose = refined_pose(pose, twist)
        camera = render.Cameras(
            world_from_cam=pose, focal=batch.focal, centre=batch.centre, height=height, width=width
        )
        ground, truth = _background(recipe, batch, key)
        probe = scene.probe if scene.probe.shape[0] else None
        rgb, opacity = render.rasterize_rgb(
            **scene.gaussians, camera=camera, background=ground, options=drawing, probe=probe
        )
        # Nothing else makes it NaN: Gaussians that are not finite are not drawn.
        crowded = () if drawing.slots is None else (jnp.isnan(opacity[0, 0]).astype(jnp.float32),)
        if scene.exposure.shape[0]:
            tone = scene.exposure[batch.index]
            rgb = rgb * jnp.exp(tone[:, 0])[None, None] + tone[:, 1][None, None]
        value = render.photometric_loss(rgb, truth, batch.weight, dssim=recipe.dssim)
        if recipe.carve:
            want = batch.alpha.astype(jnp.float32) * jnp.float32(1 / 255)
            value = value + 0.1 * jnp.mean(jnp.abs(opacity - want))
        error = rgb - truth.astype(jnp.float32) * jnp.float32(1 / 255)
        weight = (batch.weight.astype(jnp.float32) * jnp.float32(1 / 255))[..., None]
        mse = jnp.mean(jax.lax.stop_gradient(weight * error**2))
        return value, mse, *crowded

    mean = mean_over_cameras(one, mesh)

    def loss(
        scene: SplatScene, aux: Stats, batch: Batch, key: PRNGKeyArray, step: Array
    ) -> tuple[Array, tuple[Stats, dict[str, Array]]]:
        del step
        g = scene.gaussians.activate()
        g["sh"] = g["sh"][:, :k]
        drawn = _Drawn(g, scene.exposure, scene.pose, scene.probe)
        value, mse, *crowded = mean(drawn, batch, jax.random.split(key, batch.index.shape[0]))
        if recipe.densify == "mcmc":
            used = jnp.maximum(aux.used, 1).astype(jnp.float32)
            g = scene.gaussians
            slots = jnp.arange(g.count) < aux.used
            opacity = jnp.where(slots, jax.nn.sigmoid(g.logit_opacities), 0.0)
            size = jnp.where(slots[:, None], jnp.exp(g.log_scales), 0.0)
            value = value + recipe.opacity_cost * jnp.sum(opacity) / used
            value = value + recipe.scale_cost * jnp.sum(size) / (3 * used)
        metrics = {"psnr": -10 * jnp.log10(mse)} | dict(zip(("crowded",), crowded, strict=False))
        return value, (aux, metrics)

    return loss


def make_stage(
    recipe: Recipe,
    until: int,
    batches: Batches,
    *,
    height: int,
    width: int,
    options: render.SplatOptions | None = None,
    **of_loss: Any,  # noqa: ANN401
) -> Stage:
    """A stage whose steps are done again, with more slots, where those of its options were full.

    Args:
        recipe: Numbers of the method.
        until: Its last step.
        batches: Photos of a step.
        height: Rows of the photos.
        width: Columns.
        options: How Gaussians are drawn. None: as the recipe says, and on an accelerator with slots
            for a usual picture, since asking the device after each list would hold it up.
        **of_loss: Further arguments of ``make_loss``.
    """
    if options is None:
        options = render.SplatOptions(antialiased=recipe.antialiased)
        if jax.default_backend() != "cpu":
            options = options.listed(recipe.limit, height, width)
    drawing = options
    of_loss |= {"height": height, "width": width}
    loss = make_loss(recipe, options=drawing, **of_loss)

    def redo(metrics: Mapping[str, np.ndarray]) -> Stage | None:
        if not np.any(metrics["crowded"]):
            return None
        return make_stage(recipe, until, batches, options=drawing.wider(), **of_loss)

    return Stage(until, loss, batches, None if drawing.slots is None else redo)


def _background(recipe: Recipe, batch: Batch, key: PRNGKeyArray) -> tuple[Array, Array]:
    """Background colour, and the photo over it where it is transparent."""
    if recipe.background == "random":
        ground = jnp.round(jax.random.uniform(key, (3,)) * 255)
    else:
        ground = jnp.full((3,), 255.0 if recipe.background == "white" else 0.0)
    truth = batch.image
    if recipe.carve and recipe.background != "black":
        empty = (255 - batch.alpha.astype(jnp.float32))[..., None] * jnp.float32(1 / 255)
        truth = jnp.round(truth.astype(jnp.float32) + empty * ground[None, None]).astype(jnp.uint8)
    return ground * jnp.float32(1 / 255), truth


def make_after_step(recipe: Recipe, *, height: int, width: int) -> Any:  # noqa: ANN401
    """What follows each update: exploration noise (relocation) or gradient statistics (ADC)."""

    def noise(
        scene: SplatScene, aux: Stats, grads: SplatScene, key: PRNGKeyArray, step: Array
    ) -> tuple[SplatScene, Stats]:
        del grads
        rate = rates(recipe, scene, step).gaussians.means
        moved = scene.gaussians.means + fields.explore(scene.gaussians, key, recipe.noise * rate)
        gaussians = dataclasses.replace(scene.gaussians, means=moved)
        return dataclasses.replace(scene, gaussians=gaussians), aux

    def watch(
        scene: SplatScene, aux: Stats, grads: SplatScene, key: PRNGKeyArray, step: Array
    ) -> tuple[SplatScene, Stats]:
        del key, step
        return scene, aux.watched(grads.probe, height, width)

    return noise if recipe.densify == "mcmc" else watch


def make_between(recipe: Recipe) -> Any:  # noqa: ANN401
    """Densification between chunks, by the step number alone."""
    fold = 0x5EED

    @jax.jit
    def densified(state: TrainState) -> TrainState:
        key = jax.random.fold_in(jax.random.fold_in(state.key, fold), state.step)
        g, stats = state.scene.gaussians, state.aux
        if recipe.densify == "mcmc":
            g, stats, touched = fields.relocate(
                g, stats, key, limit=recipe.limit, growth=recipe.growth
            )
        else:
            g, stats, touched = fields.clone_split_prune(g, stats, key, limit=recipe.limit)
        state = _replaced(state, g, stats, touched)
        return resorted(state, recipe) if recipe.resort else state

    @jax.jit
    def lowered(state: TrainState) -> TrainState:
        g = fields.reset_opacity(state.scene.gaussians)
        return _replaced(state, g, state.aux, jnp.zeros(g.count, bool))

    def between(state: TrainState) -> TrainState:
        step = int(state.step)
        if step % recipe.refine_every == 0 and recipe.refine_from <= step < recipe.refine_until:
            state = densified(state)
        if (
            recipe.densify == "adc"
            and step % recipe.reset_every == 0
            and step < recipe.refine_until
        ):
            state = lowered(state)
        return state

    return between


def _rows(rows: Array) -> Any:  # noqa: ANN401
    """What is said of the Gaussians' rows, as ``fit`` wants it; nothing of the rest."""
    nothing: Any = None
    gaussians = Gaussians(rows, rows, rows, rows, rows)
    return SplatScene(gaussians=gaussians, exposure=nothing, pose=nothing, probe=nothing)


def _replaced(state: TrainState, g: Gaussians, stats: Stats, touched: Array) -> TrainState:
    scene = dataclasses.replace(state.scene, gaussians=g)
    opt = forget(state.opt, scene, _rows(touched))
    return dataclasses.replace(state, scene=scene, opt=opt, aux=stats)


def resorted(state: TrainState, recipe: Recipe) -> TrainState:
    """The same Gaussians, moments and statistics with neighbours in space next to each other."""
    g, stats = state.scene.gaussians, state.aux
    unused = ~g.alive()
    if recipe.densify == "mcmc":  # slots in use stay the first ones
        unused = jnp.arange(g.count) >= stats.used
    order = fields.morton_order(g.means, unused)
    rows = _rows(order)
    stats = dataclasses.replace(stats, gradient=stats.gradient[order], seen=stats.seen[order])
    opt = reordered(state.opt, state.scene, rows)
    return dataclasses.replace(state, scene=permuted(rows, state.scene), opt=opt, aux=stats)


def bake(scene: SplatScene) -> Gaussians:
    """The Gaussians with the mean exposure of the photos in their colours.

    rgb' = a rgb + b per channel, so sh' = a sh and the constant term takes 0.5 (a - 1) + b.
    (What the clamp at 0 removes is not recovered.)
    """
    g = scene.gaussians
    if not scene.exposure.shape[0]:
        return g
    gain = jnp.exp(scene.exposure[..., 0].mean(0))
    offset = scene.exposure[..., 1].mean(0)
    sh = g.sh * gain[None, None]
    sh = sh.at[:, 0].add(((0.5 * (gain - 1) + offset) / fields.SH_C0)[None])
    return dataclasses.replace(g, sh=sh)


@partial(jax.jit, static_argnums=(5, 6))
def draw(
    gaussians: Gaussians,
    world_from_cam: Float[Array, "3 4"],
    focal: Float[Array, " 2"],
    centre: Float[Array, " 2"],
    level: float | Float[Array, ""],
    size: tuple[int, int],
    antialiased: bool,
) -> Float[Array, "h w 3"]:
    """One view of the Gaussians over a grey background of ``level``; ``size`` is (H, W)."""
    camera = render.Cameras(
        world_from_cam=world_from_cam, focal=focal, centre=centre, height=size[0], width=size[1]
    )
    return render.rasterize_rgb(
        **gaussians.activate(),
        camera=camera,
        background=jnp.full((3,), level, jnp.float32),
        options=render.SplatOptions(antialiased=antialiased),
    )[0]
