"""Marching cubes, winding numbers and distances to surfaces."""

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from lumefield.apps._marching import Mesh, marching_cubes
from lumefield.apps._surface import Surface, close_holes

Doubles = NDArray[np.float64]


def ball(n: int, radius: float) -> Mesh:
    """A sphere about the origin by marching cubes."""
    axis = np.linspace(-1, 1, n)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    step = 2 / (n - 1)
    values = np.linalg.norm(grid, axis=-1) - radius
    return marching_cubes(values, origin=(-1, -1, -1), spacing=(step, step, step))


def uses(mesh: Mesh) -> Counter[int]:
    """How often each directed edge is used: number of uses -> edges."""
    edges = mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    return Counter(np.unique(edges, axis=0, return_counts=True)[1].tolist())


def volume(mesh: Mesh) -> float:
    """Enclosed volume, positive where faces look outwards."""
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces], 1, 0)
    return float((a * np.cross(b, c)).sum() / 6)


def is_closed(mesh: Mesh) -> bool:
    """Whether every directed edge is used once and so is its opposite."""
    edges = mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    there = {tuple(e) for e in edges.tolist()}
    return set(uses(mesh)) <= {1} and all((b, a) in there for a, b in there)


@pytest.fixture(scope="module")
def sphere() -> Mesh:
    return ball(24, 0.7)


def test_the_mesh_of_a_ball_is_closed_looks_outwards_and_has_its_volume(sphere: Mesh):
    assert is_closed(sphere)
    assert len(sphere.vertices) - len(sphere.faces) / 2 == 2  # Euler: V - E + F, E = 3 F / 2
    assert volume(sphere) == pytest.approx(4 / 3 * np.pi * 0.7**3, rel=0.01)
    np.testing.assert_allclose(np.linalg.norm(sphere.vertices, axis=1), 0.7, atol=0.005)


@pytest.mark.parametrize("seed", range(6))
def test_the_mesh_of_any_values_is_closed_and_two_manifold_along_edges(seed: int):
    values = np.random.default_rng(seed).normal(size=(11, 9, 10))
    mesh = marching_cubes(values, close=True)
    assert is_closed(mesh)
    assert volume(mesh) > 0


def test_every_sign_pattern_of_a_cube_gives_a_closed_mesh():
    for code in range(256):
        values = np.where([code >> c & 1 for c in range(8)], -1.0, 2.0).reshape(2, 2, 2)
        mesh = marching_cubes(values, close=True)
        assert is_closed(mesh), code
        assert (len(mesh.faces) == 0) == (code == 0)


def test_vertices_lie_where_linear_values_pass_the_level():
    values = np.broadcast_to(np.arange(5.0)[:, None, None], (5, 3, 3))
    mesh = marching_cubes(values, level=1.25, origin=(10, 0, 0), spacing=(2, 1, 1))
    np.testing.assert_allclose(mesh.vertices[:, 0], 12.5)


def test_marching_cubes_refuses_what_is_no_grid():
    with pytest.raises(ValueError, match=r"shape \(3, 3\), expected \(nx, ny, nz\)"):
        marching_cubes(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="finite"):
        marching_cubes(np.full((2, 2, 2), np.nan))


def test_distances_to_a_mesh_are_exact(sphere: Mesh):
    surface = Surface.of_mesh(*sphere)
    rng = np.random.default_rng(0)
    queries = rng.uniform(-1, 1, (300, 3))
    dense = rng.dirichlet((1, 1, 1), (len(sphere.faces), 60))
    points = np.einsum("fkc,fcx->fkx", dense, sphere.vertices[sphere.faces]).reshape(-1, 3)
    near = np.array([np.linalg.norm(points - q, axis=1).min() for q in queries])
    distance = surface.distance(queries)
    assert (distance <= near + 1e-12).all()
    np.testing.assert_allclose(distance, near, atol=0.02)
    at, normals = surface.sample(500, rng)
    assert surface.distance(at).max() < 1e-9
    np.testing.assert_allclose(surface.distance(at + 0.02 * normals), 0.02, atol=2e-3)


def test_the_winding_number_is_one_inside_and_zero_outside(sphere: Mesh):
    surface = Surface.of_mesh(*sphere)
    queries = np.random.default_rng(1).uniform(-1, 1, (4000, 3))
    radius = np.linalg.norm(queries, axis=1)
    inside = surface.winding(queries)
    assert np.abs(inside[radius < 0.68] - 1).max() < 0.02
    assert np.abs(inside[radius > 0.72]).max() < 0.02
    signed = surface.signed_distance(queries)
    np.testing.assert_allclose(signed, radius - 0.7, atol=0.01)


def test_points_with_normals_give_nearly_the_distance_of_their_surface(sphere: Mesh):
    at, normals = Surface.of_mesh(*sphere).sample(4000, np.random.default_rng(2))
    cloud = Surface.of_points(at, normals * 3)
    queries = np.random.default_rng(3).uniform(-1, 1, (2000, 3))
    wanted = np.linalg.norm(queries, axis=1) - 0.7
    signed = cloud.signed_distance(queries)
    assert np.abs(signed - wanted).mean() < 0.004
    far = np.abs(wanted) > 0.03
    assert (np.sign(signed[far]) == np.sign(wanted[far])).all()


def test_holes_are_closed_and_do_not_change_the_inside(sphere: Mesh):
    top = sphere.vertices[sphere.faces].mean(1)[:, 2] > 0.6
    left = sphere.faces[~top]
    vertices, faces, closed = close_holes(sphere.vertices, left)
    assert closed == 1
    assert is_closed(Mesh(vertices, faces))
    queries = np.random.default_rng(4).uniform(-1, 1, (2000, 3))
    with_hole = Surface.of_mesh(sphere.vertices, left).winding(queries) > 0.5
    without = Surface.of_mesh(vertices, faces).winding(queries) > 0.5
    assert (with_hole != without).mean() < 0.01


def test_vertices_at_one_place_are_one():
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
    vertices, faces, _ = close_holes(corners, np.array([[0, 1, 2], [3, 4, 5]]))
    assert len(vertices) == 4 + 1
    assert len(faces) == 2 + 4


def test_a_surface_without_area_is_refused():
    with pytest.raises(ValueError, match="no triangle with an area"):
        Surface.of_mesh(np.zeros((3, 3)), np.array([[0, 1, 2]]))
    with pytest.raises(ValueError, match="expected at least 9"):
        Surface.of_points(np.zeros((3, 3)), np.ones((3, 3)))
