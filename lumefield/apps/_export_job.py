"""What ``lumefield export`` does once jax may be loaded: bake, mesh, score, write."""

import dataclasses
import time
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._bake import Wanted, baked, targets_of
from lumefield.apps._bake_views import Look, field_look
from lumefield.apps._evaluate import image_stems, score_views
from lumefield.apps._export_place import Place
from lumefield.apps._export_settings import Export, suffix_of, texture_of
from lumefield.apps._export_splats import write_splats
from lumefield.apps._mesh import Meshing, box_of, draw_targets, fused, meshed
from lumefield.apps._mesh_depth import surface_look
from lumefield.apps._mesh_files import write_coloured, write_textured
from lumefield.apps._mesh_photos import pictures_of
from lumefield.apps._mesh_texture import textured
from lumefield.apps._paths import around_points, world_up
from lumefield.apps._progress import CaptureBar, Say, StepBar
from lumefield.apps._scene_io import Draw, Scene, make_draw, scene_draw, to_bytes
from lumefield.apps._views import Views
from lumefield.codecs.formats import Splats, load_splats
from lumefield.errors import RunError
from lumefield.fit import Chunk, TrainState

Images = list[NDArray[np.uint8]]


def write_baked(settings: Export, scene: Scene) -> Path:
    """Bake a radiance field, write it and say what was lost.

    Raises:
        RunError: If the run holds no cameras, or they see nothing.
        InputError: If the file cannot be written.
    """
    say, start = Say(), time.perf_counter()
    views, field = _cameras(scene), scene.field
    assert field is not None, "only radiance fields are baked"
    wanted = Wanted(
        steps=settings.steps,
        limit=settings.max_splats,
        degree=3 if settings.sh_degree is None else settings.sh_degree,
        seed=settings.seed,
    )
    splats = _baked(field_look(field), views, wanted)
    write_splats(settings, splats, views, scene.background)
    took = time.perf_counter() - start
    say.line(f"baked {len(splats.means):,} Gaussians of {field.recipe.method}, {took:.0f} s")
    as_is = settings.place == Place() and suffix_of(settings) != ".html"
    written = load_splats(settings.out) if as_is else splats
    drawn = make_draw(written, background=scene.background)
    for line in scores(scene, views.test(), drawn).lines():
        say.line(line)
    return settings.out


def _baked(look: Look, views: Views, wanted: Wanted) -> Splats:
    with CaptureBar() as tell:
        targets = targets_of(look, views, wanted, tell)
    with StepBar("bake", max(1, wanted.steps), 0) as bar:

        def on_chunk(state: TrainState, chunk: Chunk) -> bool:
            psnr = float(np.mean(chunk.metrics["psnr"]))
            bar.update(chunk.step, f"{psnr:.2f} dB  {int(state.aux.used):,} Gaussians")
            return True

        return baked(targets, wanted, on_chunk)


@dataclasses.dataclass(frozen=True)
class Scores:
    """PSNR over the held-out views, dB; None where there is nothing to compare with."""

    views: int
    field: float | None
    """Field against photos."""
    splats: float | None
    """Splats against photos."""
    faithful: float | None
    """Splats against field."""

    def lines(self) -> list[str]:
        """What a person is told."""
        if self.faithful is None:
            return ["no held-out views, so nothing was scored"]
        found = [f"{self.views} held-out views: splats against field {self.faithful:.2f} dB"]
        if self.field is not None and self.splats is not None:
            loss = self.field - self.splats
            found.append(
                f"against the photos: field {self.field:.2f} dB, splats {self.splats:.2f} dB "
                f"({loss:.2f} dB lost)"
            )
        return found


def scores(scene: Scene, views: Views, other: Draw) -> Scores:
    """Score what a file holds against the scene and the photos it was made from."""
    if not len(views):
        return Scores(0, None, None, None)
    own = scene_draw(scene)
    drawn = [to_bytes(own(views.pick([k])).rgb) for k in range(len(views))]
    baked = [to_bytes(other(views.pick([k])).rgb) for k in range(len(views))]
    faithful = score_views(baked, drawn, views.names)["psnr"]
    truths = _truths(scene, views)
    if truths is None:
        return Scores(len(views), None, None, faithful)
    return Scores(
        len(views),
        score_views(drawn, truths, views.names)["psnr"],
        score_views(baked, truths, views.names)["psnr"],
        faithful,
    )


def _truths(scene: Scene, views: Views) -> Images | None:
    """The held-out photos that the run keeps, or None where one is missing or of another size."""
    from PIL import Image

    assert scene.run is not None, "a scene with cameras is a run"
    found: Images = []
    for k, stem in enumerate(image_stems(views.names)):
        path = scene.run / "renders" / f"{stem}.truth.png"
        try:
            with Image.open(path) as image:
                found.append(np.asarray(image.convert("RGB")))
        except (OSError, ValueError, SyntaxError):
            return None
        if found[-1].shape[:2] != (views.size[k, 1], views.size[k, 0]):
            return None
    return found


def _cameras(scene: Scene) -> Views:
    if scene.views is None:
        raise RunError(
            f"{scene.run}: holds no capture/cameras.json, which says from where to look; "
            "train the run again"
        )
    return scene.views


def write_mesh(settings: Export, scene: Scene) -> Path:
    """Mesh a scene and write it; bare splat files are looked at from all around.

    Raises:
        RunError: If nothing is seen, or no surface is found.
        InputError: If the file cannot be written.
    """
    say, start = Say(), time.perf_counter()
    field, views = scene.field, scene.views
    if views is None:
        views = around_points(*scene.surface(), 640, 480)
    look = surface_look(scene.splats) if field is None else field_look(field)
    with CaptureBar() as tell:
        targets = draw_targets(look, views, tell)
    at = fused(targets)
    if settings.from_ == "density":
        from lumefield.apps._mesh_density import of_density

        assert field is not None, "only radiance fields have a density"
        at = partial(of_density, field)
    wanted = Meshing(resolution=settings.resolution, faces=settings.faces)
    made = meshed(at, box_of(targets), wanted)
    side = texture_of(settings)
    if side:
        with CaptureBar() as tell:
            pictures = pictures_of(scene, look, views, tell)
            found = textured(made, pictures, side, tell)
        write_textured(settings.out, found, world_up(views))
        say.line(f"texture {side}x{side} of {pictures.what}; {found.seen:.0%} of it is seen by one")
    else:
        write_coloured(settings.out, made, world_up(views))
    size = settings.out.stat().st_size / 1e6
    took = time.perf_counter() - start
    say.line(
        f"wrote {len(made.mesh.faces):,} triangles to {settings.out}, {size:.1f} MB, {took:.0f} s"
    )
    return settings.out
