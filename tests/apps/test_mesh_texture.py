"""Meshes with a picture on them: what a pixel shows, laying out, colours from photos, files."""

import dataclasses
import io
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from lumefield.apps._bake_views import look_all, splat_look
from lumefield.apps._capture_type import Capture
from lumefield.apps._export_job import write_mesh
from lumefield.apps._export_settings import Export, check
from lumefield.apps._marching import Mesh
from lumefield.apps._mesh_depth import surface_look
from lumefield.apps._mesh_files import write_textured
from lumefield.apps._mesh_holes import closed
from lumefield.apps._mesh_photos import Pictures, pictures_of
from lumefield.apps._mesh_raster import rasterised
from lumefield.apps._mesh_texture import Textured, textured
from lumefield.apps._mesh_tsdf import Coloured
from lumefield.apps._mesh_uv import laid_out
from lumefield.apps._scene_io import Scene
from lumefield.apps._views import Views
from lumefield.codecs.formats import Splats
from lumefield.errors import InputError
from tests.apps.bake_cases import around_painted, ball, cameras, colour, painted

UP = np.array([0.0, 0, 1])
OTHERS = [k for k in range(13) if k != 6]


def quiet(what: str, share: float) -> None:
    """Nothing to tell."""


def ico(level: int = 3) -> Mesh:
    found = trimesh.creation.icosphere(subdivisions=level)
    return Mesh(np.asarray(found.vertices, np.float64), np.asarray(found.faces, np.int64))


def roll() -> Mesh:
    """A sheet rolled up one and a half turns, closer to a spiral than to a chart."""
    turn, along = np.meshgrid(np.linspace(0, 3 * np.pi, 60), np.linspace(0, 2, 20), indexing="ij")
    radius = 1 + turn / 20
    points = np.stack([radius * np.cos(turn), radius * np.sin(turn), along], -1).reshape(-1, 3)
    at = np.arange(1200).reshape(60, 20)
    a, b, c, d = at[:-1, :-1], at[1:, :-1], at[1:, 1:], at[:-1, 1:]
    faces = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (a, c, d))])
    return Mesh(points, faces)


def dense(mesh: Mesh, view: Views) -> tuple[np.ndarray, np.ndarray]:
    """The slow twin: every ray against every triangle (Moeller and Trumbore 1997)."""
    width, height = view.size[0]
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    way = (np.stack([x, y], -1) - view.centre[0]) / view.focal[0]
    way = np.concatenate([way, np.ones((height, width, 1))], -1).reshape(-1, 1, 3)
    local = (mesh.vertices - view.world_from_cam[0, :, 3]) @ view.world_from_cam[0, :, :3]
    a, b, c = np.moveaxis(local[mesh.faces], 1, 0)
    e, f = b - a, c - a
    p = np.cross(way, f)
    det = (p * e).sum(-1)
    u = (p * -a).sum(-1) / det
    q = np.cross(-a, e)
    v = (way * q).sum(-1) / det
    t = (q * f).sum(-1) / det
    hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)
    t = np.where(hit, t, np.inf)
    return t.argmin(1), t.min(1)


def test_a_pixel_shows_the_nearest_triangle_through_its_centre():
    mesh = ico(2)
    view = cameras(1).resized(40, 30)
    drawn = rasterised(mesh, view)
    face, depth = dense(mesh, view)
    np.testing.assert_array_equal(drawn.pixels, np.flatnonzero(np.isfinite(depth)))
    np.testing.assert_array_equal(drawn.faces, face[drawn.pixels])
    np.testing.assert_allclose(drawn.depth, depth[drawn.pixels], rtol=1e-9)
    at = np.einsum("pc,pcx->px", drawn.shares, mesh.vertices[mesh.faces[drawn.faces]])
    local = (at - view.world_from_cam[0, :, 3]) @ view.world_from_cam[0, :, :3]
    xy = local[:, :2] / local[:, 2:] * view.focal[0] + view.centre[0]
    np.testing.assert_allclose(xy[:, 0], drawn.pixels % 40 + 0.5, atol=1e-6)
    np.testing.assert_allclose(xy[:, 1], drawn.pixels // 40 + 0.5, atol=1e-6)


def test_what_is_behind_the_camera_is_not_shown(monkeypatch):
    mesh = ico(1)
    behind = Mesh(mesh.vertices - 10 * cameras(1).world_from_cam[0, :, 2], mesh.faces)
    assert not len(rasterised(behind, cameras(1)).pixels)
    whole = rasterised(mesh, cameras(1))
    monkeypatch.setattr("lumefield.apps._mesh_raster._CHUNK", 50)
    parts = rasterised(mesh, cameras(1))
    np.testing.assert_array_equal(whole.faces, parts.faces)


@pytest.mark.parametrize("make", [ico, roll])
def test_no_texel_belongs_to_two_places(make):
    mesh, size = make(), 256
    laid = laid_out(mesh, size)
    np.testing.assert_array_equal(laid.vertices[laid.faces], mesh.faces)
    assert laid.uv.min() > 0
    assert laid.uv.max() < 1
    corners = laid.uv[laid.faces] * size
    owner = np.full((size, size), -1)
    twice = 0
    for k, (a, b, c) in enumerate(corners):
        low = np.floor(np.minimum(np.minimum(a, b), c)).astype(int)
        high = np.ceil(np.maximum(np.maximum(a, b), c)).astype(int)
        x, y = np.meshgrid(np.arange(low[0], high[0]) + 0.5, np.arange(low[1], high[1]) + 0.5)
        whole = (b - a)[0] * (c - a)[1] - (b - a)[1] * (c - a)[0]
        inside = np.ones(x.shape, bool)
        for p, q in ((a, b), (b, c), (c, a)):
            side = (q[0] - p[0]) * (y - p[1]) - (q[1] - p[1]) * (x - p[0])
            inside &= side / whole > 1e-6
        at = (y[inside].astype(int), x[inside].astype(int))
        twice += int((owner[at] >= 0).sum())
        owner[at] = k
    assert (owner >= 0).mean() > 0.15
    assert twice < 0.005 * (owner >= 0).sum()


def test_charts_are_not_mirrored_and_not_squeezed():
    mesh = ico()
    laid = laid_out(mesh, 512)
    a, b, c = np.moveaxis(laid.uv[laid.faces] * 512, 1, 0)
    area = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
    assert (area < 0).all()  # rows go down, so what is counter-clockwise in space is negative
    p, q, r = np.moveaxis(mesh.vertices[mesh.faces], 1, 0)
    real = np.linalg.norm(np.cross(q - p, r - p), axis=1) / 2
    ratio = -area / real
    assert ratio.max() / ratio.min() < 1 / 0.35


def test_a_texture_that_is_too_small_is_refused():
    boxes = [trimesh.creation.box().apply_translation([3 * k, 0, 0]) for k in range(60)]
    both: Any = trimesh.util.concatenate(boxes)
    mesh = Mesh(np.asarray(both.vertices, np.float64), np.asarray(both.faces, np.int64))
    with pytest.raises(InputError, match=r"--texture 64: too small for the [0-9]+ pieces"):
        laid_out(mesh, 64)


def test_small_holes_are_closed_and_large_ones_stay():
    mesh = ico(3)
    gone = (mesh.vertices[:, 2] > 0.9) | (mesh.vertices[:, 2] < -0.3)
    holed = Mesh(mesh.vertices, mesh.faces[~gone[mesh.faces].any(1)])
    found = closed(Coloured(holed, mesh.vertices), 30)
    count = len(found.mesh.vertices) - len(mesh.vertices)
    assert count == 1
    np.testing.assert_allclose(found.mesh.vertices[-1][:2], 0, atol=0.05)
    np.testing.assert_allclose(found.colours[-1], found.mesh.vertices[-1])
    new = found.mesh.faces[len(holed.faces) :]
    a, b, c = (found.mesh.vertices[new[:, k]] for k in range(3))
    assert (np.cross(b - a, c - a)[:, 2] > 0).all()
    whole = closed(found, 1000)
    assert trimesh.Trimesh(*whole.mesh, process=False).is_watertight
    assert closed(whole, 1000) is whole


def grey_ball() -> Coloured:
    mesh = ico(4)
    return Coloured(mesh, np.full((len(mesh.vertices), 3), 0.5))


def photos(views: Views) -> Pictures:
    seen = look_all(ball(), views, quiet)
    return Pictures(seen.views, seen.rgb, np.ones(seen.alpha.shape, bool), "photos")


def shown(found: Textured, views: Views) -> tuple[np.ndarray, np.ndarray]:
    """Colours (p, 3) that the first view shows, by the nearest texel, and places (p, 3)."""
    drawn = rasterised(found.mesh, views)
    corners = found.mesh.faces[drawn.faces]
    uv = np.einsum("pc,pcx->px", drawn.shares, found.uv[corners])
    texel = (uv * len(found.picture)).astype(int)
    at = np.einsum("pc,pcx->px", drawn.shares, found.mesh.vertices[corners])
    return found.picture[texel[:, 1], texel[:, 0]] / 255, at / np.linalg.norm(at, axis=1)[:, None]


def test_the_texture_has_the_colours_of_the_photos():
    train, held_out = photos(cameras(13).pick(OTHERS)), cameras(13).pick([6])
    found = textured(grey_ball(), train, 256, quiet)
    assert found.seen > 0.6
    got, at = shown(found, held_out)
    error = np.abs(got - colour(at))
    assert error.mean() < 0.02
    assert np.percentile(error, 98) < 0.1


def test_what_no_photo_sees_keeps_the_colour_of_the_vertices():
    one = cameras(12).pick([0])
    found = textured(grey_ball(), photos(one), 256, quiet)
    opposite = dataclasses.replace(one, world_from_cam=one.world_from_cam * [[[-1, 1, -1, -1]]])
    got, at = shown(found, opposite)
    eye = one.world_from_cam[0, :, 3]
    hidden = at @ eye / np.linalg.norm(eye) < -0.3
    assert hidden.sum() > 50
    np.testing.assert_allclose(got[hidden], 0.5, atol=0.01)
    assert found.seen < 0.6


def test_exposure_and_passers_by_do_not_show():
    taken, held_out = photos(cameras(13).pick(OTHERS)), cameras(13).pick([6])
    rng = np.random.default_rng(0)
    gain = rng.uniform(0.85, 1.15, (12, 1, 1, 1))
    rgb = (taken.rgb * gain / np.exp(np.log(gain).mean())).clip(0, 255).astype(np.uint8)
    rgb[3, 20:30, 20:30] = 255
    found = textured(grey_ball(), dataclasses.replace(taken, rgb=rgb), 256, quiet)
    got, at = shown(found, held_out)
    error = np.abs(got - colour(at))
    assert error.mean() < 0.03
    assert np.percentile(error, 98) < 0.15


def test_pixels_that_do_not_count_are_not_used():
    taken = photos(cameras(12))
    counts = np.zeros_like(taken.counts)
    found = textured(grey_ball(), dataclasses.replace(taken, counts=counts), 128, quiet)
    assert found.seen == 0
    np.testing.assert_allclose(found.picture, 128, atol=1)


def run_with(folder: Path, names: tuple[str, ...], held_out: tuple[bool, ...]) -> Scene:
    views = dataclasses.replace(around_painted().pick(list(range(4))), names=names)
    views = dataclasses.replace(views, held_out=held_out)
    (folder / "capture").mkdir()
    source = {"downscale": 2.0}
    (folder / "capture" / "cameras.json").write_text(json.dumps({"source": source}))
    (folder / "config.json").write_text(json.dumps({"settings": {"input": str(folder)}}))
    return Scene(painted(), views, folder, (0, 0, 0))


def test_held_out_photos_are_never_used(tmp_path: Path, monkeypatch):
    names = ("a.jpg", "b.jpg", "c.jpg", "d.jpg")
    scene = run_with(tmp_path, names, (True, False, False, True))
    assert scene.views is not None
    width, height = scene.views.size[0]
    images = np.zeros((4, height + 2, width, 3), np.uint8)
    images += np.array([10, 20, 30, 40], np.uint8)[:, None, None, None]
    views = scene.views

    def capture(path, *, cache, downscale, mask_mode, progress, points):
        assert (path, downscale, points) == (tmp_path, 2.0, False)
        return Capture(
            names=names,
            images=images,
            weights=np.full((4, 1, 1), 255, np.uint8),
            alphas=np.full((4, 1, 1), 255, np.uint8),
            world_from_cam=views.world_from_cam,
            focal=views.focal,
            centre=views.centre,
            sizes=views.size,
            points=np.zeros((0, 3)),
            colours=np.zeros((0, 3), np.uint8),
            held_out=(0, 3),
        )

    monkeypatch.setattr("lumefield.apps._capture.capture", capture)
    found = pictures_of(scene, ball(), views, quiet)
    assert found.what == "2 photos"
    assert found.views.names == ("b.jpg", "c.jpg")
    assert found.rgb[:, 0, 0, 0].tolist() == [20, 30]
    assert found.counts[:, :height].all()
    assert not found.counts[:, height:].any()


def test_without_photos_the_scene_itself_is_drawn(tmp_path: Path):
    scene = run_with(tmp_path, ("a", "b", "c", "d"), (True, False, False, False))
    assert scene.views is not None
    found = pictures_of(scene, ball(scale=2, offset=2), scene.views, quiet)
    assert "3 pictures of the scene itself, as there are no photos" in found.what
    assert len(found.rgb) == 3


def test_a_little_light_from_behind_does_not_move_the_surface():
    """A wall of Gaussians at 2, thin, and another at 40 that shines through it."""
    x, y = (v.reshape(-1) for v in np.meshgrid(np.linspace(-2, 2, 41), np.linspace(-2, 2, 41)))
    n, f32 = len(x), np.float32
    near = np.stack([x, y, np.full(n, 2.0)], 1)
    far = np.stack([20 * x, 20 * y, np.full(n, 40.0)], 1)
    quats = np.zeros((2 * n, 4), f32)
    quats[:, 0] = 1
    scales = np.log(np.repeat([[0.1, 0.1, 0.005], [2, 2, 0.1]], n, 0))
    splats = Splats(
        means=np.concatenate([near, far]).astype(f32),
        quats_wxyz=quats,
        log_scales=scales.astype(f32),
        logit_opacities=np.repeat([0.0, 4.0], n).astype(f32),
        sh=np.zeros((2 * n, 1, 3), f32),
    )
    view = Views(
        names=("",),
        world_from_cam=np.eye(3, 4)[None],
        focal=np.full((1, 2), 20.0),
        centre=np.full((1, 2), 8.0),
        size=np.full((1, 2), 16),
        held_out=(False,),
    )
    mean, half = splat_look(splats)(view), surface_look(splats)(view)
    assert np.median(mean.depth) > 2.3
    np.testing.assert_allclose(half.depth[2:-2, 2:-2], 2, rtol=0.02)
    np.testing.assert_allclose(half.rgb, mean.rgb, atol=1e-5)
    np.testing.assert_allclose(half.opacity, mean.opacity, atol=1e-5)


@pytest.fixture(scope="module")
def made() -> Textured:
    return textured(grey_ball(), photos(cameras(12)), 128, quiet)


def test_a_textured_glb_keeps_what_the_format_promises(made: Textured, tmp_path: Path):
    write_textured(tmp_path / "a.glb", made, UP)
    data = (tmp_path / "a.glb").read_bytes()
    size = int.from_bytes(data[12:16], "little")
    record = json.loads(data[20 : 20 + size])
    assert record["extensionsUsed"] == ["KHR_materials_unlit"]
    assert record["materials"][0]["extensions"] == {"KHR_materials_unlit": {}}
    for view in record["bufferViews"]:
        assert view["byteOffset"] % 4 == 0
        assert view["byteOffset"] + view["byteLength"] <= record["buffers"][0]["byteLength"]
    scene: Any = trimesh.load(tmp_path / "a.glb", process=False)
    found = next(iter(scene.geometry.values()))
    np.testing.assert_allclose(found.vertices, made.mesh.vertices, atol=1e-6)
    np.testing.assert_array_equal(found.faces, made.mesh.faces)
    np.testing.assert_allclose(found.visual.uv, made.uv * [1, -1] + [0, 1], atol=1e-6)
    picture = np.asarray(found.visual.material.baseColorTexture.convert("RGB"))
    np.testing.assert_array_equal(picture, made.picture)


def test_a_textured_obj_has_its_picture_beside_it(made: Textured, tmp_path: Path):
    write_textured(tmp_path / "a ball.obj", made, UP)
    assert {f.name for f in tmp_path.iterdir()} == {"a ball.obj", "a_ball.mtl", "a_ball.png"}
    found: Any = trimesh.load(tmp_path / "a ball.obj", process=False, maintain_order=True)
    np.testing.assert_allclose(found.vertices, made.mesh.vertices, atol=1e-6)
    np.testing.assert_allclose(found.visual.uv, made.uv * [1, -1] + [0, 1], atol=1e-6)
    picture = np.asarray(found.visual.material.image.convert("RGB"))
    np.testing.assert_array_equal(picture, made.picture)


def test_a_textured_usdz_holds_the_mesh_and_its_picture(made: Textured, tmp_path: Path):
    pytest.importorskip("pxr", reason="usd-core is not installed")
    from pxr import Usd

    usd: Any = Usd
    write_textured(tmp_path / "a.usdz", made, UP)
    stage = usd.Stage.Open(str(tmp_path / "a.usdz"))
    mesh = stage.GetPrimAtPath("/scene/mesh")
    points = np.asarray(mesh.GetAttribute("points").Get())
    np.testing.assert_allclose(points, made.mesh.vertices, atol=1e-6)
    faces = np.asarray(mesh.GetAttribute("faceVertexIndices").Get()).reshape(-1, 3)
    np.testing.assert_array_equal(faces, made.mesh.faces)
    st = np.asarray(mesh.GetAttribute("primvars:st").Get())
    np.testing.assert_allclose(st, made.uv * [1, -1] + [0, 1], atol=1e-6)
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.usdz") as package:
        name = next(n for n in package.namelist() if n.endswith(".png"))
        picture = np.asarray(Image.open(io.BytesIO(package.read(name))))
    np.testing.assert_array_equal(picture, made.picture)


def test_usdz_without_its_package_says_how_to_get_it(made: Textured, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pxr", None)
    with pytest.raises(InputError, match=r"pip install lumefield\[usd\], or export a \.glb"):
        write_textured(tmp_path / "a.usdz", made, UP)


def test_export_writes_a_texture(tmp_path: Path, capsys):
    scene = Scene(painted(), around_painted(), None, (0, 0, 0))
    out = tmp_path / "a.glb"
    write_mesh(Export(tmp_path, out, resolution=24, texture=128), scene)
    said = capsys.readouterr().out.replace("\n", " ")
    assert "texture 128x128 of 11 pictures of the scene itself" in said
    found: Any = next(iter(trimesh.load(out).geometry.values()))  # type: ignore[union-attr]
    assert found.visual.material.baseColorTexture.size == (128, 128)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out": "a.ply", "mesh": True, "texture": 512}, r"--texture 512: a \.ply mesh has none"),
        ({"out": "a.glb", "texture": 9000}, "--texture 9000, expected 0 to 8192"),
        ({"out": "a.glb", "texture": 9}, "--texture 9, expected 0 or 64 to 8192"),
        ({"out": "a.usdz", "mesh": True, "texture": 0}, "--texture 0, expected 64 to 8192"),
        ({"out": "a.spz", "texture": 512}, "--texture: does nothing for a.spz"),
    ],
)
def test_textures_that_cannot_be_are_refused(run: Path, tmp_path: Path, change, message):
    values: dict[str, Any] = {**change, "out": tmp_path / change["out"]}
    with pytest.raises(InputError, match=message):
        check(Export(run, **values))


@pytest.mark.slow
def test_gltf_validator_finds_no_error_in_a_textured_mesh(made: Textured, tmp_path: Path):
    package = os.environ.get("GLTF_VALIDATOR")
    if not package:
        pytest.skip("gltf-validator is not installed; set GLTF_VALIDATOR to its folder")
    write_textured(tmp_path / "a.glb", made, UP)
    code = (
        "const v=require(process.argv[1]),f=require('fs');"
        "v.validateBytes(new Uint8Array(f.readFileSync(process.argv[2]))).then(r=>"
        "console.log(JSON.stringify(r.issues)))"
    )
    words = ["node", "-e", code, package, str(tmp_path / "a.glb")]
    out = subprocess.run(words, check=True, capture_output=True, text=True, timeout=120).stdout
    issues = json.loads(out)
    assert (issues["numErrors"], issues["numWarnings"]) == (0, 0), issues
