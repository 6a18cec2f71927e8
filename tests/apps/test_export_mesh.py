"""Meshes: depth fused into a surface, the surface of a density, and files that others can read."""

import json
import struct
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from lumefield.apps._bake_views import look_all
from lumefield.apps._export_job import write_mesh
from lumefield.apps._export_settings import Export
from lumefield.apps._marching import Mesh
from lumefield.apps._mesh import Meshing, box_of, draw_targets, fused, largest, meshed, simplified
from lumefield.apps._mesh_density import occupied_at, of_density
from lumefield.apps._mesh_files import glb, upright, write_coloured
from lumefield.apps._mesh_tsdf import Coloured, Grid, fuse, surface
from lumefield.apps._scene_io import Scene
from lumefield.errors import RunError
from tests.apps.bake_cases import around_painted, ball, cameras, colour, painted

KINDS = {5123: ("<u2", 2), 5125: ("<u4", 4), 5126: ("<f4", 4)}
COLUMNS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}


def quiet(what: str, share: float) -> None:
    """Nothing to tell."""


@pytest.fixture(scope="module")
def targets():
    return look_all(ball(scale=10, offset=5), cameras(16, scale=10, offset=5), quiet)


@pytest.fixture(scope="module")
def made(targets) -> Coloured:
    grid = Grid.of_box(np.full(3, -7.0), np.full(3, 17.0), 40)
    return surface(fuse(targets, grid))


def box_mesh() -> Coloured:
    box = trimesh.creation.box(extents=(1, 2, 3))
    faces = np.asarray(box.faces, np.int64)
    colours = np.linspace(0, 1, 24).reshape(8, 3)
    return Coloured(Mesh(np.asarray(box.vertices, np.float64), faces), colours)


def parsed(data: bytes) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The record and the arrays of a GLB, after checking all that the format promises of them."""
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    size, kind = struct.unpack_from("<I4s", data, 12)
    assert kind == b"JSON"
    assert size % 4 == 0
    record = json.loads(data[20 : 20 + size])
    body_size, kind = struct.unpack_from("<I4s", data, 20 + size)
    assert kind == b"BIN\0"
    body = data[28 + size :]
    assert len(body) == body_size == record["buffers"][0]["byteLength"]
    arrays = []
    end = 0
    for accessor in record["accessors"]:
        view = record["bufferViews"][accessor["bufferView"]]
        name, item = KINDS[accessor["componentType"]]
        columns = COLUMNS[accessor["type"]]
        assert view["byteOffset"] % 4 == 0
        assert view["byteOffset"] >= end
        end = view["byteOffset"] + view["byteLength"]
        assert end <= body_size
        assert view["byteLength"] == accessor["count"] * columns * item
        assert columns * item % 4 == 0
        part = np.frombuffer(body[view["byteOffset"] : end], name).reshape(-1, columns)
        if "min" in accessor:
            np.testing.assert_array_equal(np.float32(accessor["min"]), part.min(0))
            np.testing.assert_array_equal(np.float32(accessor["max"]), part.max(0))
        arrays.append(part)
    primitive = record["meshes"][0]["primitives"][0]
    position = record["accessors"][primitive["attributes"]["POSITION"]]
    assert {"min", "max"} <= set(position)
    assert arrays[primitive["indices"]].max() < position["count"]
    assert record["accessors"][primitive["attributes"]["COLOR_0"]]["count"] == position["count"]
    assert set(record["extensionsUsed"]) == set(record["materials"][0]["extensions"])
    return record, arrays


def test_the_fused_surface_is_that_of_the_ball(made: Coloured):
    radius = np.linalg.norm(made.mesh.vertices - 5, axis=1) / 10
    assert len(made.mesh.faces) > 2000
    assert abs(radius - 1).mean() < 0.02
    assert abs(radius - 1).max() < 0.1
    normal = (made.mesh.vertices - 5) / np.linalg.norm(made.mesh.vertices - 5, axis=1)[:, None]
    assert abs(made.colours - colour(normal)).mean() < 0.03


def test_faces_of_the_fused_surface_turn_outwards(made: Coloured):
    a, b, c = np.moveaxis(made.mesh.vertices[made.mesh.faces], 1, 0)
    out = (np.cross(b - a, c - a) * ((a + b + c) / 3 - 5)).sum(1)
    assert (out > 0).mean() > 0.98


def test_where_nothing_was_seen_there_is_no_surface():
    one = look_all(ball(), cameras(16).pick([0]), quiet)
    grid = Grid.of_box(np.full(3, -1.2), np.full(3, 1.2), 32)
    half = surface(fuse(one, grid))
    eye = cameras(16).world_from_cam[0, :, 3]
    assert len(half.mesh.faces) > 200
    facing = half.mesh.vertices @ eye / np.linalg.norm(eye)
    assert facing.min() > 0.0  # a third of the ball hides the rest


def test_the_grid_covers_its_box_with_cells_of_one_size():
    grid = Grid.of_box(np.array([0.0, 0, 0]), np.array([4.0, 2, 1]), 32)
    assert grid.spacing == 4 / 32
    assert grid.shape == (32, 16, 8)
    ends = grid.points(np.array([[0, 0, 0], [31, 15, 7]]))
    np.testing.assert_allclose(ends.mean(0), [2, 1, 0.5])


def test_the_box_holds_what_the_cameras_look_at(targets):
    low, high = box_of(targets)
    assert (low < -4.5).all()
    assert (low > -9).all()
    assert (high > 14.5).all()
    assert (high < 19).all()


def test_small_components_are_left_out():
    one = trimesh.creation.icosphere(subdivisions=3)
    small = trimesh.creation.box(extents=(0.1, 0.1, 0.1)).apply_translation([3, 0, 0])
    both: Any = trimesh.util.concatenate([one, small])
    mesh = Mesh(np.asarray(both.vertices, np.float64), np.asarray(both.faces, np.int64))
    kept = largest(Coloured(mesh, np.asarray(both.vertices, np.float64)))
    assert len(kept.mesh.faces) == len(one.faces)
    np.testing.assert_array_equal(kept.colours, kept.mesh.vertices)
    assert kept.mesh.vertices[:, 0].max() < 2


def test_an_empty_mesh_has_no_components():
    none = Coloured(Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64)), np.zeros((0, 3)))
    assert largest(none) is none


def test_a_limit_of_faces_is_kept(targets):
    at = lambda grid: surface(fuse(targets, grid))  # noqa: E731
    few = meshed(at, box_of(targets), Meshing(resolution=40, faces=700))
    assert 200 < len(few.mesh.faces) <= 700


def test_a_box_without_a_surface_is_an_error(targets):
    at = lambda grid: surface(fuse(targets, grid))  # noqa: E731
    with pytest.raises(RunError, match="no surface was found on a grid of 16 cells"):
        meshed(at, (np.full(3, 30.0), np.full(3, 31.0)), Meshing(resolution=16))


def test_a_scene_that_cannot_be_seen_is_an_error():
    def nothing(views):
        seen = ball()(views)
        return seen._replace(opacity=np.zeros_like(seen.opacity))

    with pytest.raises(RunError, match="no surface to mesh"):
        draw_targets(nothing, cameras(), quiet)


def test_faces_are_simplified_where_that_is_installed(made: Coloured, monkeypatch):
    def simplify(vertices, faces, target_count):
        assert target_count == 9
        return vertices[::2], np.arange(9).reshape(3, 3)

    monkeypatch.setitem(
        sys.modules, "fast_simplification", types.SimpleNamespace(simplify=simplify)
    )
    few = simplified(made, 9)
    assert few is not None
    assert len(few.mesh.faces) == 3
    np.testing.assert_allclose(few.colours, made.colours[:18:2], atol=1e-6)
    monkeypatch.setitem(sys.modules, "fast_simplification", None)
    assert simplified(made, 9) is None


def test_open3d_gives_the_same_surface(targets, made: Coloured):
    pytest.importorskip("open3d", reason="open3d is not installed")
    from lumefield.apps._mesh_open3d import by_open3d

    found = by_open3d(targets, Grid.of_box(np.full(3, -7.0), np.full(3, 17.0), 40))
    radius = np.linalg.norm(found.mesh.vertices - 5, axis=1) / 10
    assert abs(radius - 1).mean() < 0.03
    normal = (found.mesh.vertices - 5) / np.linalg.norm(found.mesh.vertices - 5, axis=1)[:, None]
    assert abs(found.colours - colour(normal)).mean() < 0.05


def test_open3d_is_used_where_it_is_installed(targets, made: Coloured, monkeypatch):
    from lumefield.apps import _mesh_open3d

    monkeypatch.setitem(sys.modules, "open3d", types.SimpleNamespace())
    monkeypatch.setattr(_mesh_open3d, "by_open3d", lambda t, grid: made)
    grid = Grid.of_box(np.zeros(3), np.ones(3), 16)
    assert fused(targets)(grid) is made
    monkeypatch.setitem(sys.modules, "open3d", None)
    assert len(fused(targets)(grid).mesh.faces) == 0


def test_the_density_of_a_ball_has_its_surface():
    field = painted()
    low, high = np.array([-2.0, -1, 0]), np.array([4.0, 5, 6])
    made = of_density(field, Grid.of_box(low, high, 32))
    away = made.mesh.vertices - np.array([1, 2, 3])
    radius = np.linalg.norm(away, axis=1)
    assert abs(radius - 2).max() < 0.2  # a little inside or outside of the soft border
    direction = away / radius[:, None]
    assert abs(made.colours - colour(direction)).mean() < 0.03


def test_points_in_empty_cells_are_not_occupied():
    import jax.numpy as jnp

    bits = np.zeros((2, 4, 4, 4), np.uint8)
    bits[0, 3, 0, 0] = 1  # [0.5, 1] x [-1, -0.5]^2
    bits[1, 3, 3, 3] = 1  # [1, 2]^3
    at = np.array([[0.9, -0.9, -0.9], [0.9, 0.9, 0.9], [1.5, 1.5, 1.5], [3, 0, 0]])
    assert occupied_at(jnp.asarray(bits), at).tolist() == [True, False, True, False]
    assert occupied_at(None, at).all()


def test_a_glb_keeps_what_the_format_promises(made: Coloured):
    _, (faces, positions, colours) = parsed(glb(made, np.array([0, 0, 1.0])))
    np.testing.assert_array_equal(faces.reshape(-1, 3), made.mesh.faces)
    np.testing.assert_allclose(positions, made.mesh.vertices, rtol=1e-6)
    linear = colours[:, :3] / 65535
    srgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(srgb, made.colours, atol=1e-3)
    assert (colours[:, 3] == 65535).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sign", [1, -1])
def test_up_is_y_in_a_glb(axis, sign, tmp_path: Path):
    up = np.full(3, 0.1)
    up[axis] = sign
    x, y, z, w = upright(up)
    turned = trimesh.transformations.quaternion_matrix([w, x, y, z])[:3, :3] @ np.eye(3)[axis]
    np.testing.assert_allclose(turned * sign, [0, 1, 0], atol=1e-12)
    made = box_mesh()
    write_coloured(tmp_path / "a.glb", made, up)
    scene = trimesh.load(tmp_path / "a.glb")
    assert scene.extents[1] == pytest.approx(1 + axis)


@pytest.mark.parametrize("suffix", [".ply", ".obj"])
def test_other_meshes_keep_the_world_frame_and_the_colours(suffix, tmp_path: Path):
    made = box_mesh()
    write_coloured(tmp_path / f"a{suffix}", made, np.array([0, 0, 1.0]))
    found: Any = trimesh.load(tmp_path / f"a{suffix}", force="mesh", process=False)
    np.testing.assert_allclose(found.vertices, made.mesh.vertices, atol=1e-6)
    np.testing.assert_array_equal(found.faces, made.mesh.faces)
    shown = np.asarray(found.visual.vertex_colors)[:, :3]
    np.testing.assert_allclose(shown / 255, made.colours, atol=0.51 / 255 + 1e-6)


@pytest.mark.parametrize("way", ["depth", "density"])
def test_export_meshes_a_field(way, tmp_path: Path, capsys):
    scene = Scene(painted(), around_painted(), tmp_path, (0, 0, 0))
    out = tmp_path / f"{way}.glb"
    write_mesh(Export(tmp_path, out, from_=way, resolution=24, texture=0), scene)
    assert f"triangles to {out}" in capsys.readouterr().out.replace("\n", "")
    record, (_, positions, _) = parsed(out.read_bytes())
    radius = np.linalg.norm(positions - np.array([1, 2, 3]), axis=1)
    assert abs(radius - 2).mean() < 0.15
    assert record["nodes"][0]["rotation"] == upright(np.array([0, 0, 1.0]))
