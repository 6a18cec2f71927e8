"""Score a textured mesh of a run on its held-out views, beside the run's own Gaussians.

``python -m benchmarks.meshes RUN [RUN ...] [--mesh FILE] [--pictures FOLDER]`` exports RUN as a GLB
(or takes FILE), reads it with trimesh, casts rays with Embree (extra ``mesh``), four a
pixel, and prints for each run the share of pixels that the mesh covers and the PSNR against the
held-out photos on these pixels: of the mesh, of the Gaussians (the run's ``renders``), and of both
after one gain per photo and channel has been fitted, because a texture cannot follow a camera's
automatic exposure as view-dependent colours do. Held-out photos are no part of the texture.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lumefield.apps._bake_views import directions
from lumefield.apps._evaluate import image_stems
from lumefield.apps._views import Views, load_views

Floats = NDArray[np.float64]
_SUB = 2
"""Rays along each side of a pixel."""


def main() -> None:
    """Score the runs and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--mesh", type=Path, help="GLB of the run; exported where not given")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--texture", type=int, default=2048)
    parser.add_argument("--pictures", type=Path, help="folder for photo, Gaussians and mesh beside")
    arguments = parser.parse_args()
    print("| run | triangles | MB | covered | mesh | Gaussians | mesh, gain | Gaussians, gain |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for run in arguments.runs:
        with tempfile.TemporaryDirectory() as folder:
            file = arguments.mesh or Path(folder) / "mesh.glb"
            if arguments.mesh is None:
                export(run, file, arguments.resolution, arguments.texture)
            print(row(run, file, arguments.pictures), flush=True)


def export(run: Path, file: Path, resolution: int, texture: int) -> None:
    """Run the command a user would type."""
    from lumefield.apps._export import Export
    from lumefield.apps._export import export as write

    write(Export(run, file, resolution=resolution, texture=texture))


def row(run: Path, file: Path, pictures: Path | None) -> str:
    """One line of the table."""
    shoot, count = caster(file)
    views = load_views(run / "capture" / "cameras.json").test()
    scores: list[list[float]] = []
    for k, stem in enumerate(image_stems(views.names)):
        photo, splats = (read(run / "renders" / f"{stem}{end}.png") for end in (".truth", ""))
        rgb, cover = drawn(shoot, views.pick([k]))
        full = cover == 1
        scores.append([float(cover.mean())])
        for gained in (False, True):
            for picture in (rgb, splats):
                scores[-1].append(psnr(photo[full], picture[full], gained))
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)
            beside = np.concatenate([photo, splats, rgb], 1).clip(0, 1)
            Image.fromarray((beside * 255 + 0.5).astype(np.uint8)).save(pictures / f"{stem}.png")
    cover, *dbs = np.mean(scores, 0)
    columns = [run.name, f"{count:,}", f"{file.stat().st_size / 1e6:.1f}", f"{cover:.1%}"]
    return "| " + " | ".join(columns + [f"{db:.2f}" for db in dbs]) + " |"


def caster(file: Path) -> tuple[Any, int]:
    """A function from rays to colours and hits, and the number of triangles."""
    import trimesh

    if not trimesh.ray.has_embree:
        raise SystemExit("Embree is missing, which casts the rays; pip install embreex")
    scene: Any = trimesh.load(file, process=False)
    (mesh,) = scene.geometry.values()
    bare = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)  # in the world: no node
    rays: Any = trimesh.ray.ray_pyembree.RayMeshIntersector(bare)
    texture = mesh.visual.material.baseColorTexture
    picture = np.asarray(texture.convert("RGB"), np.float64) / 255 if texture is not None else None
    vertices, faces = np.asarray(bare.vertices), np.asarray(bare.faces)

    def shoot(origin: Floats, way: Floats) -> tuple[Floats, NDArray[np.int64]]:
        found = rays.intersects_id(origin, way, multiple_hits=False, return_locations=True)
        face, hit, place = found
        share = trimesh.triangles.points_to_barycentric(vertices[faces[face]], place)[..., None]
        if picture is None:
            colours = np.asarray(mesh.visual.vertex_attributes["color"], np.float64)[:, :3] / 65535
            linear = (colours[faces[face]] * share).sum(1).clip(0, 1)
            low = linear <= 0.0031308
            return np.where(low, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055), hit
        uv = (np.asarray(mesh.visual.uv)[faces[face]] * share).sum(1)
        return sampled(picture, uv * [1, -1] + [0, 1]), hit

    return shoot, len(faces)


def sampled(picture: Floats, uv: Floats) -> Floats:
    """Bilinear colours (n, 3) at (n, 2), (0, 0) is the upper left corner."""
    height, width = picture.shape[:2]
    at = (uv * [width, height] - 0.5).clip(0, [width - 1.001, height - 1.001])
    low = at.astype(np.int64)
    (x, y), (u, v) = low.T, (at - low).T[..., None]
    top = picture[y, x] * (1 - u) + picture[y, x + 1] * u
    below = picture[y + 1, x] * (1 - u) + picture[y + 1, x + 1] * u
    return top * (1 - v) + below * v


def drawn(shoot: Any, view: Views) -> tuple[Floats, Floats]:
    """Colour (H, W, 3) of the mesh in a view, and the share (H, W) of rays that meet it."""
    width, height = (int(v) for v in view.size[0])
    pose = view.world_from_cam[0]
    rgb, cover = np.zeros((height * width, 3)), np.zeros(height * width)
    for k in range(_SUB**2):
        offset = (np.array([k % _SUB, k // _SUB]) + 0.5) / _SUB - 0.5
        way = directions(view)
        way[..., :2] += offset / view.focal[0]
        way = way.reshape(-1, 3) @ pose[:, :3].T
        colour, hit = shoot(np.broadcast_to(pose[:, 3], way.shape), way)
        rgb[hit] += colour
        cover[hit] += 1
    return rgb.reshape(height, width, 3) / _SUB**2, cover.reshape(height, width) / _SUB**2


def psnr(photo: Floats, picture: Floats, gained: bool) -> float:
    """Of pixels (n, 3) in display sRGB; with a gain per channel fitted to the picture if asked."""
    if gained:
        picture = picture * ((photo * picture).sum(0) / np.maximum((picture**2).sum(0), 1e-9))
    return float(-10 * np.log10(np.mean((photo - picture.clip(0, 1)) ** 2)))


def read(path: Path) -> Floats:
    """A picture in [0, 1]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), np.float64) / 255


if __name__ == "__main__":
    main()
