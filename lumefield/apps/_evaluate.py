"""``lumefield evaluate``: score a run again on its held-out views."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

from lumefield.apps._scene_io import Draw, load_scene, read_json, scene_draw, to_bytes, write_json
from lumefield.errors import RunError

Images = Sequence[NDArray[np.uint8]]
Measure = Callable[[NDArray[Any], NDArray[Any]], tuple[float, ...]]

PSNR_OF_EQUAL = 100.0
"""What is written for identical images, whose PSNR is infinite (JSON has no infinity), dB."""


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Score a run again on its held-out views."""

    run: tyro.conf.Positional[Path]
    """Folder of the run."""


def evaluate(settings: Evaluate, *, draw: Draw | None = None) -> dict[str, Any]:
    """Draw the held-out views of a run again, score them and bring ``metrics.json`` up to date.

    The truth is ``renders/NAME.truth.png``; ``renders/NAME.png`` is written anew.

    Args:
        settings: Which run.
        draw: How to draw; the scene of the run with this machine's kernels when None.

    Returns:
        The new content of ``metrics.json``.

    Raises:
        InputError: If the folder does not exist or cannot be written.
        RunError: If the run holds no scene, cameras, held-out views or truth.
    """
    from rich.console import Console

    start = time.perf_counter()
    scene = load_scene(settings.run)
    if scene.run is None or scene.views is None:
        raise RunError(f"{settings.run}: holds no capture/cameras.json; evaluate needs a run")
    views = scene.views.test()
    if not len(views):
        raise RunError(
            f"{settings.run}: has no held-out views to score; train again on more photos"
        )
    stems = image_stems(views.names)
    truths = [_truth(scene.run / "renders" / f"{stem}.truth.png") for stem in stems]
    draw = draw or scene_draw(scene)
    renders: list[NDArray[np.uint8]] = []
    for k, truth in enumerate(truths):
        view = views.pick([k])
        if truth.shape[:2] != (view.size[0, 1], view.size[0, 0]):
            raise RunError(
                f"{scene.run}: {stems[k]}.truth.png is {truth.shape[1]}x{truth.shape[0]}, not "
                f"{view.size[0, 0]}x{view.size[0, 1]} like its camera; train the run again"
            )
        renders.append(to_bytes(draw(view).rgb))
    scores = score_views(renders, truths, views.names)
    metrics = {**read_json(scene.run / "metrics.json"), **scores}
    metrics["num_gaussians"] = 0 if scene.field else len(scene.splats.means)
    save_renders(scene.run, views.names, renders)
    timings = metrics.get("timings")
    spent = round(time.perf_counter() - start, 2)
    metrics["timings"] = {**(timings if isinstance(timings, dict) else {}), "evaluation": spent}
    write_json(scene.run / "metrics.json", metrics)
    Console().print(score_table(scores))
    return metrics


def score_views(renders: Images, truths: Images, names: Sequence[str]) -> dict[str, Any]:
    """PSNR and SSIM of 8-bit images: ``{"psnr", "ssim", "views": [{"name", "psnr", "ssim"}]}``.

    Both over the full image in display sRGB; the totals are means over the views. SSIM as in 3DGS
    evaluation: Gaussian window 11x11 of sigma 1.5, zero padding, mean over pixels and channels
    (Wang et al., "Image Quality Assessment", 2004).

    Args:
        renders: Images [H, W, 3].
        truths: As many images of the same sizes.
        names: What to call them.

    Raises:
        ValueError: If the numbers or sizes of the images differ, or there are none.
    """
    if not len(renders) == len(truths) == len(names) or not renders:
        raise ValueError(
            f"{len(renders)} renders, {len(truths)} truths, {len(names)} names; "
            "expected as many of each, at least one"
        )
    measure = _measures()
    views: list[dict[str, Any]] = []
    for name, render, truth in zip(names, renders, truths, strict=True):
        if render.shape != truth.shape:
            raise ValueError(f"{name}: render {render.shape} and truth {truth.shape} must be equal")
        a, b = (np.asarray(image, np.float32) / np.float32(255) for image in (render, truth))
        decibels, likeness = measure(a, b)
        decibels = PSNR_OF_EQUAL if np.array_equal(render, truth) else decibels
        views.append({"name": name, "psnr": round(decibels, 4), "ssim": round(likeness, 5)})
    mean = {key: float(np.mean([view[key] for view in views])) for key in ("psnr", "ssim")}
    return {"psnr": round(mean["psnr"], 4), "ssim": round(mean["ssim"], 5), "views": views}


def image_stems(names: Sequence[str]) -> tuple[str, ...]:
    """File stems for views: names without folder and suffix, unless two would share one."""
    stems = tuple(Path(name).stem for name in names)
    if len(set(stems)) == len(stems):
        return stems
    return tuple(name.replace("\\", "/").replace("/", "_") for name in names)


def save_renders(
    run: Path, names: Sequence[str], renders: Images, truths: Images | None = None
) -> None:
    """Write ``renders/NAME.png`` (and ``NAME.truth.png``) of a run, each whole or not at all.

    Raises:
        InputError: If the folder cannot be written.
    """
    for k, stem in enumerate(image_stems(names)):
        save_png(run / "renders" / f"{stem}.png", renders[k])
        if truths is not None:
            save_png(run / "renders" / f"{stem}.truth.png", truths[k])


def save_png(path: Path, pixels: NDArray[Any]) -> None:
    """Write an image [H, W, 3] of uint8 or [H, W] of uint16 whole or not at all.

    Raises:
        InputError: If the folder cannot be written.
    """
    from PIL import Image

    from lumefield.codecs.formats import replacing

    with replacing(path) as file:
        Image.fromarray(pixels).save(file, "PNG", compress_level=3)


def score_table(scores: dict[str, Any]) -> Any:  # noqa: ANN401
    """A ``rich`` table of what ``score_views`` returns."""
    from rich.table import Table

    table = Table("view", title="held-out views")
    table.add_column("PSNR [dB]", justify="right")
    table.add_column("SSIM", justify="right")
    for view in scores["views"]:
        table.add_row(str(view["name"]), f"{view['psnr']:.2f}", f"{view['ssim']:.4f}")
    table.add_section()
    table.add_row("mean", f"{scores['psnr']:.2f}", f"{scores['ssim']:.4f}", style="bold")
    return table


def _truth(path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise RunError(
            f"{path}: the truth of this view cannot be read ({error}); train the run again"
        ) from None


def _measures() -> Measure:
    """PSNR and SSIM of two float images, compiled once per size."""
    import jax
    import jax.numpy as jnp

    from lumefield.render import psnr, ssim

    @jax.jit
    def both(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
        return psnr(a, b), ssim(a, b)

    return lambda a, b: tuple(float(value) for value in both(jnp.asarray(a), jnp.asarray(b)))
