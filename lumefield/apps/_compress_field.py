"""``lumefield compress`` of radiance fields: what errors in their numbers cost, and the price."""

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from lumefield.apps._compress_search import BEST, Try, losses, searched
from lumefield.apps._field_file import FIELD_FILE, read_field
from lumefield.apps._progress import CaptureBar, Say
from lumefield.apps._radiance_draw import draw_rays
from lumefield.apps._radiance_io import (
    Radiance,
    pixel_rays,
    radiance_of,
    scene_arrays,
    write_field,
)
from lumefield.apps._radiance_rays import Rays
from lumefield.apps._radiance_trace import proposed_weights, trace
from lumefield.apps._scene_io import Scene, scene_draw
from lumefield.apps._views import Views
from lumefield.codecs.families import decode_field, encode_field
from lumefield.codecs.formats import replacing
from lumefield.errors import InputError, RunError

if TYPE_CHECKING:
    from lumefield.apps._compress import Compress
    from lumefield.apps._decompress import Decompress

_RAYS, _MARCHED = 1024, 2048
"""Of a backward pass."""
_PASSES = 400
_JUDGED = 1 << 15
"""Rays on which an encoding is judged."""
_POINTS = 1000
"""Points of the surface that are kept, for paths and boxes."""
_PLACING = 0.1
"""What errors in the weights that only place samples cost, beside those of colours."""
Floats = NDArray[np.float32]
RayArrays = tuple[Floats, Floats, Floats]


class _Source(NamedTuple):
    """What is encoded."""

    facts: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    costs: dict[str, NDArray[Any]]


def compress_field(settings: "Compress", scene: Scene, field: Radiance) -> Path:
    """Measure, quantise, code, verify and write a radiance field.

    Raises:
        InputError: If the wanted size or quality is out of reach.
        RunError: If the run holds no cameras.
    """
    say, begun = Say(), time.monotonic()
    if scene.views is None or scene.run is None:
        raise RunError(
            f"{settings.input}: has no capture/cameras.json, which says what can be seen; compress "
            "the run that it came from"
        )
    facts, arrays = read_field(scene.run / FIELD_FILE)
    arrays = _thinned(arrays)
    with CaptureBar() as tell:
        costs = field_costs(field, _trained(scene.views), tell)
        source = _Source(facts, arrays, costs)
        found = searched(settings, scene, _attempts(settings, source, field, scene.views), tell)
    with replacing(settings.out) as file:
        file.write(found.data)
    plain = (scene.run / FIELD_FILE).stat().st_size
    say.line(
        f"{settings.out}: {len(found.data):,} bytes, 1/{plain / len(found.data):.1f} of "
        f"{FIELD_FILE}, {found.kept:,} numbers that are not zero, {found.psnr:.2f} dB against the "
        f"scene's own pictures, {time.monotonic() - begun:.0f} s; decoded and compared"
    )
    again = radiance_of(*decode_field(found.data), settings.out)
    draw = scene_draw(dataclasses.replace(scene, content=again))
    for line in losses(scene, scene.views, draw):
        say.line(line)
    return settings.out


def decompress_field(settings: "Decompress", data: bytes) -> Path:
    """Write the field of a ``.lume`` file as the folder of a run, without its photos.

    Raises:
        InputError: If ``--out`` has a suffix: it is to be a folder.
        FormatError: If the file is damaged.
    """
    if settings.out.suffix:
        raise InputError(
            f"--out {settings.out}: {settings.input} holds a radiance field, which becomes the "
            "folder of a run; give a name without suffix"
        )
    facts, arrays = decode_field(data, str(settings.input))
    field = radiance_of(facts, arrays, settings.input)
    settings.out.mkdir(parents=True, exist_ok=True)
    write_field(settings.out / FIELD_FILE, facts, arrays)
    count = sum(value.size for name, value in arrays.items() if name.startswith("scene.field"))
    Say().line(
        f"{settings.out / FIELD_FILE}: {field.recipe.method} of {count:,} numbers, from "
        f"{len(data):,} bytes; `lumefield render {settings.out}` draws it"
    )
    return settings.out


def field_costs(
    field: Radiance, views: Views, tell: Callable[[str, float], None]
) -> dict[str, NDArray[Any]]:
    """Squared error of pictures (mean over pixels) that one of each number of the field makes.

    The diagonal of the Gauss-Newton matrix by random signs, as ``_compress_views.sensitivities``
    has it for Gaussians. Weights of proposals count as colours do, a tenth.

    Args:
        field: What is measured.
        views: From where; random pixels of all of them.
        tell: Progress.

    Returns:
        By the names of ``scene_arrays``.
    """
    recipe, rng, total = field.recipe, np.random.default_rng(0), None
    count = _MARCHED if recipe.sampling.way == "marched" else _RAYS
    squared = _squared_gradients(field)
    for k in range(_PASSES):
        o, d, r = (jnp.asarray(x) for x in _random_rays(field, views, count, rng))
        rays = Rays(o, d, r, None)
        found = squared(field.scene.field, field.occupied, rays, jax.random.key(k))
        total = found if total is None else jax.tree.map(jnp.add, total, found)
        tell("measuring what counts", (k + 1) / _PASSES)
    sums = scene_arrays(dataclasses.replace(field.scene, field=total))
    return {key: x / (3 * count * _PASSES) for key, x in sums.items() if ".field." in key}


def _squared_gradients(field: Radiance) -> Callable[..., Any]:
    """A function (field, occupied, rays, key) -> squared gradients under random signs."""
    sampling = field.recipe.sampling.drawn(field.recipe.sampling.pixel)
    background = jnp.asarray(field.background, jnp.float32)
    codes = field.scene.look
    look = jnp.mean(codes, 0) if codes.shape[0] else None

    def signed(model: Any, occupied: Array | None, rays: Rays, key: Array) -> Array:  # noqa: ANN401
        if look is not None:
            rays = rays._replace(look=jnp.broadcast_to(look, (len(rays.radius), len(look))))
        for_rgb, *for_rounds = jax.random.split(key, 8)
        seen = trace(sampling, model, occupied, rays, None)
        rgb = seen.rgb + (1 - seen.opacity)[:, None] * background[None]
        total = jnp.sum(jnp.where(seen.used[:, None], rgb * _signs(for_rgb, rgb), 0.0))
        placed = proposed_weights(sampling, model, rays)
        for weights, mine in zip(placed, for_rounds, strict=False):
            total = total + _PLACING**0.5 * jnp.sum(weights * _signs(mine, weights))
        return total

    @jax.jit
    def squared(model: Any, occupied: Array | None, rays: Rays, key: Array) -> Any:  # noqa: ANN401
        found = jax.grad(signed)(model, occupied, rays, key)
        return jax.tree.map(jnp.square, found)

    return squared


def _signs(key: Array, like: Array) -> Array:
    return jax.random.rademacher(key, like.shape, like.dtype)


def _random_rays(field: Radiance, views: Views, count: int, rng: np.random.Generator) -> RayArrays:
    which = rng.integers(0, len(views), count)
    pixel = rng.random((count, 2)) * views.size[which]
    poses = field.frame.inward(views.world_from_cam)[which]
    return pixel_rays(poses, views.focal[which], views.centre[which], pixel)


def _attempts(
    settings: "Compress", source: _Source, field: Radiance, views: Views
) -> Callable[[float], Try]:
    rays = _random_rays(field, _trained(views), _JUDGED, np.random.default_rng(1))
    own = _colours(field, rays)

    def attempt(price: float) -> Try:
        data, arrays = encode_field(*source, price, name=settings.input.name)
        again = _colours(radiance_of(source.facts, arrays, settings.out), rays)
        error = float(np.mean((again - own) ** 2))
        kept = sum(
            int(np.count_nonzero(value))
            for key, value in arrays.items()
            if key.startswith("scene.field")
        )
        psnr = min(-10 * math.log10(error), BEST) if error > 0 else BEST
        return Try(price, data, kept, psnr)

    return attempt


def _colours(field: Radiance, rays: RayArrays) -> Floats:
    rgb, _, opacity = draw_rays(field.recipe, field.scene, field.occupied, *rays)
    behind = np.asarray(field.background, np.float32)
    return np.clip(rgb + (1 - opacity)[:, None] * behind, 0, 1).astype(np.float32)


def _trained(views: Views) -> Views:
    """Never held-out views."""
    train = [k for k, held in enumerate(views.held_out) if not held]
    return views.pick(train or list(range(len(views))))


def _thinned(arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Fewer points of the surface."""
    every = max(1, len(arrays["points"]) // _POINTS)
    return {
        **arrays,
        "points": arrays["points"][::every].astype(np.float32),
        "colours": arrays["colours"][::every],
    }
