"""From the quality dial and the photos to the recipe of a radiance field, and what it will need."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._capture_type import Capture
from lumefield.apps._frame import WorldFrame
from lumefield.apps._plan import available_mb
from lumefield.apps._radiance import Recipe
from lumefield.apps._radiance_rays import Sampling, cone_radius
from lumefield.apps._train_settings import Train
from lumefield.errors import InputError

_BASE_MB = 650
LOOK = 8
"""Numbers in the code of a photo, with ``--appearance``."""


def make_recipe(settings: Train, photos: Capture, frame: WorldFrame) -> Recipe:
    """Everything that follows from the method, the dial and the photos."""
    near, levels = _extent(photos, frame)
    recipe = METHODS[settings.method](settings.quality, near, levels)
    rays = min(recipe.rays, max(256, photos.height * photos.width))
    capacity = min(recipe.sampling.capacity, 64 * rays)
    kept = min(recipe.sampling.kept, capacity)
    return dataclasses.replace(
        recipe,
        rays=rays,
        sampling=dataclasses.replace(
            recipe.sampling,
            capacity=capacity,
            kept=kept,
            pixel=cone_radius(float(np.median(photos.focal))),
        ),
        steps=settings.steps or recipe.steps,
        look=LOOK if settings.appearance else 0,
        background=settings.background,
        carve=photos.alphas.shape[1:] != (1, 1),
        depth_cost=settings.depth_weight,
    )


def recipe_from(record: Mapping[str, Any]) -> Recipe:
    """The inverse of ``dataclasses.asdict``, from JSON.

    Raises:
        KeyError: If an entry is missing.
        TypeError: If there is an unknown one, or one of another kind.
    """
    entries: dict[str, Any] = dict(record)
    sampling: dict[str, Any] = dict(entries["sampling"])
    sampling["counts"] = tuple(int(n) for n in sampling["counts"])
    entries["sampling"] = Sampling(**sampling)
    entries["factors"] = tuple(int(n) for n in entries["factors"])
    entries["shares"] = tuple(float(x) for x in entries["shares"])
    entries["options"] = tuple(
        (str(k), tuple(v) if isinstance(v, list) else v) for k, v in entries["options"]
    )
    return Recipe(**entries)


def _ngp(quality: str, near: float, levels: int) -> Recipe:
    steps, table = {"draft": (1_500, 16), "standard": (8_000, 17), "best": (12_000, 18)}[quality]
    return Recipe(
        method="ngp",
        steps=steps,
        chunk=20,
        rays=2048,
        sampling=Sampling("marched", near, levels=levels, cone=1 / 128),
        rate=1e-2,
        rate_end=1e-4,
        options=(("log2_entries", table),),
    )


def _nerf(quality: str, near: float, levels: int) -> Recipe:
    """Few rays a step: 500 000 rays in batches of 256 score 3.8 dB above batches of 1024."""
    del levels
    steps = {"draft": 6_000, "standard": 20_000, "best": 80_000}[quality]
    return Recipe(
        method="nerf",
        steps=steps,
        chunk=50,
        rays=256,
        sampling=Sampling("hierarchical", near, counts=(48, 48)),
        rate=4e-3,
        rate_end=5e-5,
    )


def _mipnerf360(quality: str, near: float, levels: int) -> Recipe:
    """Few rays a step: in 85 s 128 score 3.4 dB above 1024, and at four times the rate 1.5 more.

    Width 256 is 1 dB above 128 after 14 000 steps, drawing quarters 0.6 dB above whole cones.
    (Fox at 1/4 size, drawn at a quarter of that.)
    """
    del levels
    steps = {"draft": 5_000, "standard": 22_000, "best": 90_000}[quality]
    width = {"draft": 192, "standard": 256, "best": 384}[quality]
    return Recipe(
        method="mipnerf360",
        steps=steps,
        chunk=100,
        rays=128,
        sampling=Sampling(
            "proposed", near, counts=(48, 32), cones=True, quarters=True, quarters_from=1.5
        ),
        rate=6e-3 if width < 384 else 4e-3,
        rate_end=5e-5,
        options=(("width", width),),
        distortion=0.003,
        factors=(1, 2, 4),
        shares=(0.5, 0.3, 0.2),
    )


def _zipnerf(quality: str, near: float, levels: int) -> Recipe:
    del levels
    steps, table = {"draft": (1_000, 16), "standard": (6_000, 17), "best": (12_000, 18)}[quality]
    return Recipe(
        method="zipnerf",
        steps=steps,
        chunk=20,
        rays=2048,
        sampling=Sampling(
            "proposed",
            near,
            counts=(64, 32),
            far=100.0,
            root=2,
            padding=1e-3,
            cones=True,
            quarters=True,
            calm=True,
        ),
        rate=1e-2,
        rate_end=2e-4,
        options=(("log2_entries", table),),
        distortion=0.1,
        distortion_falls=0.1,
        prior=0.01,
        factors=(1, 2, 4),
        shares=(0.7, 0.2, 0.1),
    )


def _kplanes(quality: str, near: float, levels: int) -> Recipe:
    del levels
    steps = {"draft": 1_500, "standard": 5_000, "best": 15_000}[quality]
    return Recipe(
        method="kplanes",
        steps=steps,
        chunk=20,
        rays=1024,
        sampling=Sampling("proposed", near, counts=(64, 32)),
        rate=1e-2,
        rate_end=2e-4,
        distortion=0.003,
        prior=1e-3,
    )


METHODS: dict[str, Callable[[str, float, int], Recipe]] = {
    "nerf": _nerf,
    "mipnerf360": _mipnerf360,
    "ngp": _ngp,
    "zipnerf": _zipnerf,
    "kplanes": _kplanes,
}
"""Word of ``--method`` -> recipe from the dial, the nearest distance and the levels."""


def _extent(photos: Capture, frame: WorldFrame) -> tuple[float, int]:
    """Nearest distance to a camera, and levels of the cascade, from the sparse points."""
    points, poses = frame.inward_points(photos.points), frame.inward(photos.world_from_cam)
    depths: list[NDArray[np.float64]] = []
    for i in photos.train:
        seen = (points - poses[i, :, 3]) @ poses[i, :, :3]
        seen = seen[seen[:, 2] > 1e-3]
        at = seen[:, :2] / seen[:, 2:] * photos.focal[i] + photos.centre[i]
        depths.append(seen[np.all((at >= 0) & (at < photos.sizes[i]), 1), 2])
    known = np.concatenate(depths) if depths else np.zeros(0)
    eyes = float(np.linalg.norm(poses[:, :, 3], axis=1).max())
    if len(known) < 100:
        return 0.1, _levels(max(eyes, 4.0))
    near = float(np.clip(0.5 * np.percentile(known, 0.5), 0.02, 0.5))
    reach = float(np.percentile(np.linalg.norm(points, axis=1), 99))
    return round(near, 4), _levels(max(1.5 * reach, 1.2 * eyes))


def _levels(reach: float) -> int:
    return int(np.clip(np.ceil(np.log2(max(reach, 1.0))) + 1, 2, 6))


def memory_line(recipe: Recipe, photos: Capture) -> str:
    """A line that says what the run needs.

    Raises:
        InputError: If that is more than there is.
    """
    stored = photos.images.size * (1 + sum(f**-2 for f in recipe.factors)) * 1.3
    marched = recipe.sampling.way == "marched"
    samples = recipe.sampling.capacity if marched else recipe.rays * sum(recipe.sampling.counts)
    need = round(_BASE_MB + (stored + samples * 6_000) / 1e6)
    free = available_mb()
    line = f"memory: about {need:,} MB for {recipe.rays:,} rays per step"
    if free is None:
        return line.replace(",", " ")
    if need > 0.9 * free:
        raise InputError(
            f"the run needs about {need} MB of memory and {free:.0f} MB are free; "
            "use a larger --downscale"
        )
    return f"{line} of {free:,.0f} MB free".replace(",", " ")
