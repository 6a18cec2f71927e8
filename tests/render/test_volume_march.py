"""Marching and the occupancy grid: plain stepping in NumPy is the twin of every backend."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from lumefield import native
from lumefield.render import volume

BACKENDS = ("xla", "native", "warp")
STEP = 0.02


def needs(backend: str) -> None:
    if backend == "native" and not native.load():
        pytest.skip(f"no native kernels here: {native.status().reason}")
    if backend == "warp" and not native.warp_available():
        pytest.skip(native.warp_missing())


class Scene(NamedTuple):
    occupied: Array
    origin: Array
    direction: Array
    near: Array
    far: Array
    edges: np.ndarray


def scene(seed: int, *, n: int = 16, levels: int = 3, rays: int = 50, cone: float = 0.05) -> Scene:
    rng = np.random.default_rng(seed)
    cells = jnp.asarray(rng.uniform(size=(levels, n, n, n)) < 0.1)
    grid = volume.Occupancy.full(n, levels).without(~cells)
    half = 2.0 ** (levels - 1)
    origin = rng.normal(size=(rays, 3)) * half
    direction = rng.normal(size=(rays, 3)) * half / 2 - origin
    direction[0], origin[0] = (0, 0, 1), (0.1, 0.2, -9)  # along an axis
    direction[1] = -direction[1]  # away
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    o, d = jnp.asarray(origin, jnp.float32), jnp.asarray(direction, jnp.float32)
    near, far = volume.ray_box(o, d, half)
    edges = volume.step_edges(STEP, 8 * half, cone=cone, longest=half / 8)
    return Scene(grid.occupied, o, d, near, far, edges)


def doubled(s: Scene) -> Scene:
    origin, direction, near, far = (jnp.asarray(x, jnp.float64) for x in s[1:5])
    return Scene(s.occupied, origin, direction, near, far, s.edges)


def stepped(s: Scene, jitter: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(R, K) which steps are kept, by looking at each; and which are too near a face to tell."""
    levels, n = s.occupied.shape[:2]
    length = np.diff(s.edges)
    t = s.edges[:-1] + jitter[:, None] * length
    x = np.asarray(s.origin)[:, None] + t[..., None] * np.asarray(s.direction)[:, None]
    level = np.zeros(t.shape, int)
    for i in range(levels - 1):
        level += np.abs(x).max(-1) >= 2.0**i
    coarse = sum((length > 2 ** (i + 1) / n * 1.00001).astype(int) for i in range(levels - 1))
    level = np.maximum(level, coarse)
    cell = (x / 2.0 ** level[..., None] + 1) * n / 2
    i = np.floor(cell).astype(int)
    inside = ((i >= 0) & (i < n)).all(-1)
    i = i.clip(0, n - 1)
    found = np.asarray(s.occupied)[level, i[..., 0], i[..., 1], i[..., 2]] > 0
    near, far = np.asarray(s.near)[:, None], np.asarray(s.far)[:, None]
    unsure = (np.abs(cell - np.round(cell)) < 1e-4).any(-1)
    unsure |= (np.abs(t - near) < 1e-5) | (np.abs(t - far) < 1e-5)
    return found & inside & (t >= near) & (t < far), unsure


def marched(s: Scene, capacity: int = 1 << 14, **options: Any) -> volume.Packed:
    return volume.march(*s, capacity=capacity, **options)


quickly = jax.jit(marched, static_argnames=("capacity", "limit", "backend"))


def steps_of(p: volume.Packed, s: Scene) -> np.ndarray:
    """(R, K) which steps a result holds."""
    out = np.zeros((s.near.size, len(s.edges) - 1), bool)
    m = int(p.start[-1])
    k = np.searchsorted(s.edges, np.asarray(p.t[:m]), side="right") - 1
    out[np.asarray(p.ray[:m]), k] = True
    return out


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("n", "levels", "cone"), [(16, 3, 0.05), (12, 2, 0.0), (32, 1, 0.0)])
def test_skipping_keeps_exactly_the_steps_that_plain_stepping_finds(
    backend: str, n: int, levels: int, cone: float
):
    needs(backend)
    s = scene(n, n=n, levels=levels, cone=cone)
    p = quickly(s, backend=backend)
    want, unsure = stepped(s, np.full(s.near.size, 0.5))
    got = steps_of(p, s)
    assert want.sum() > 200
    assert not np.any((got != want) & ~unsure)
    assert int(p.total) == int(p.start[-1]) == got.sum()
    assert int(p.rays_used) == s.near.size


@pytest.mark.parametrize("backend", BACKENDS)
def test_samples_are_packed_ray_by_ray_and_the_rest_is_zero(backend: str, key: Array):
    needs(backend)
    s = scene(1)
    p = quickly(s, key=key, backend=backend)
    m = int(p.start[-1])
    counts = np.diff(p.start)
    np.testing.assert_array_equal(p.ray[:m], np.repeat(np.arange(s.near.size), counts))
    for rest in (p.t[m:], p.dt[m:], p.ray[m:]):
        assert not np.any(rest)
    for r in np.flatnonzero(counts):
        t = np.asarray(p.t[p.start[r] : p.start[r + 1]])
        assert np.all(np.diff(t) > 0)
        assert s.near[r] <= t[0] <= t[-1] < s.far[r]
    jitter = jax.random.uniform(key, s.near.shape, jnp.float32)
    want, unsure = stepped(s, np.asarray(jitter))
    assert not np.any((steps_of(p, s) != want) & ~unsure)
    x = p.points(s.origin, s.direction)
    np.testing.assert_allclose(
        x[:m], s.origin[p.ray[:m]] + p.t[:m, None] * s.direction[p.ray[:m]], rtol=1e-6
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_rays_that_do_not_fit_are_dropped_whole_and_counted(backend: str):
    needs(backend)
    s = scene(2)
    whole = quickly(s, backend=backend)
    start = np.asarray(whole.start)
    for capacity in (1, int(start[20]) + 1):
        p = quickly(s, capacity=capacity, backend=backend)
        used = int(p.rays_used)
        assert int(p.total) == start[-1]
        assert start[used] <= capacity
        assert used == s.near.size or start[used + 1] > capacity
        np.testing.assert_array_equal(p.start[: used + 1], start[: used + 1])
        assert np.all(p.start[used:] == start[used])
        np.testing.assert_array_equal(p.t[: start[used]], whole.t[: start[used]])
        np.testing.assert_array_equal(p.reached[used:], s.near[used:])
        np.testing.assert_array_equal(p.used(), np.arange(s.near.size) < used)


@pytest.mark.parametrize("backend", BACKENDS)
def test_marching_in_rounds_gives_the_samples_of_one_march(backend: str):
    needs(backend)
    s = scene(3)
    want = steps_of(quickly(s, backend=backend), s)
    got = np.zeros_like(want)
    near = s.near
    for _ in range(int(want.sum(1).max()) // 8 + 1):
        p = quickly(s._replace(near=near), limit=8, backend=backend)
        assert np.diff(p.start).max() <= 8
        part = steps_of(p, s)
        assert not np.any(got & part)
        got |= part
        near = p.reached
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(near, s.far)


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_backends_agree_to_the_bit_away_from_faces(backend: str, key: Array):
    needs(backend)
    s = scene(4)
    a, b = (quickly(s, key=key, backend=name) for name in ("xla", backend))
    assert abs(int(a.total) - int(b.total)) <= 2
    if jnp.array_equal(a.start, b.start):
        np.testing.assert_allclose(a.t, b.t, rtol=1e-6)
        np.testing.assert_array_equal(a.ray, b.ray)


def test_marching_does_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch):
    needs("native")
    s = scene(5, rays=300)
    results: list[volume.Packed] = []
    for threads in ("1", "2"):
        monkeypatch.setenv("LUMEFIELD_THREADS", threads)
        results.append(marched(s, backend="native"))
    assert all(jax.tree.leaves(jax.tree.map(jnp.array_equal, *results)))


def test_marching_works_in_float64_under_jit_and_vmap():
    s = scene(6, rays=8)
    with jax.enable_x64(True):
        p = quickly(doubled(s))
        assert p.t.dtype == jnp.float64
    single = jax.jit(lambda o, d: marched(s._replace(origin=o, direction=d)))
    pair = jax.vmap(single)(jnp.stack([s.origin] * 2), jnp.stack([s.direction] * 2))
    np.testing.assert_array_equal(pair.t[1], single(s.origin, s.direction).t)


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_marching_under_vmap_is_a_loop(backend: str):
    needs(backend)
    s = scene(9, rays=8)

    def march(origin: Array, near: Array) -> volume.Packed:
        given = s._replace(origin=origin, near=near)
        return marched(given, capacity=1024, backend=backend, limit=9)

    origins, nears = jnp.stack([s.origin, -s.origin]), jnp.stack([s.near, s.near + 0.1])
    pair = jax.jit(jax.vmap(march))(origins, nears)
    for i in range(2):
        one = jax.jit(march)(origins[i], nears[i])
        for a, b in zip(jax.tree.leaves(pair), jax.tree.leaves(one), strict=True):
            np.testing.assert_array_equal(a[i], b)


def test_rays_that_are_not_numbers_march_nowhere_and_leave_the_others_alone():
    needs("warp")
    s = scene(10, rays=8)
    bad = s._replace(origin=s.origin.at[3].set(jnp.nan), direction=s.direction.at[5].set(jnp.nan))
    p, clean = (quickly(given, backend="warp") for given in (bad, s))
    counts = np.diff(p.start)
    assert counts[3] == counts[5] == 0
    others = np.delete(np.arange(8), [3, 5])
    np.testing.assert_array_equal(counts[others], np.diff(clean.start)[others])


def test_step_edges_grow_between_their_limits():
    edges = volume.step_edges(0.1, 10.0, cone=0.1, longest=0.5)
    steps = np.diff(edges)
    assert edges[0] == 0
    assert edges[-2] < 10 <= edges[-1]
    np.testing.assert_allclose(steps, np.clip(0.1 * edges[:-1], 0.1, 0.5), rtol=1e-4)
    assert len(volume.step_edges(0.5, 0.0)) == 2


def sphere(x: Array) -> Array:
    return jnp.where(jnp.linalg.norm(x, axis=-1) < 0.6, 30.0, 0.0)


def swept(updates: int, parts: int = 4) -> volume.Occupancy:
    grid = volume.Occupancy.full(16, 2)
    step = jax.jit(lambda g, k: g.updated(sphere, k, step=STEP, parts=parts, decay=0.8))
    for i in range(updates):
        grid = step(grid, jax.random.key(i))
    return grid


def test_what_was_never_looked_at_stays_occupied():
    assert float(volume.Occupancy.full(8).fraction()) == 1
    assert float(swept(3).fraction()) > 0.24
    assert float(swept(4).fraction()) < 0.1


def test_a_swept_grid_holds_the_sphere_and_little_else():
    grid = swept(24)
    radius = jnp.linalg.norm(grid.centres(), axis=-1)
    cell = jnp.array([2 / 16, 4 / 16])[:, None, None, None]
    occupied = grid.occupied > 0
    assert jnp.all(jnp.where(radius < 0.6 - 0.9 * cell, occupied, True))
    assert not jnp.any(jnp.where(radius > 0.6 + 0.9 * cell, occupied, False))


def test_density_that_goes_away_fades():
    grid = swept(8)
    for i in range(40):
        grid = grid.updated(lambda x: jnp.where(x[:, 0] > 0, sphere(x), 0.0), jax.random.key(i),
            step=STEP, parts=4, decay=0.8,
        )  # fmt: skip
    left = jnp.asarray(grid.centres()[..., 0] < -0.13)
    assert not jnp.any((grid.occupied > 0) & left)
    assert float(grid.fraction()) > 0


def test_a_coarse_cell_is_occupied_where_a_finer_one_is():
    fine = jnp.zeros((2, 16, 16, 16), bool).at[0, 9, 3, 15].set(True)
    grid = volume.Occupancy.full(16, 2).without(~fine)
    assert jnp.argwhere(grid.occupied[1] > 0).tolist() == [[8, 5, 11]]


def test_cells_taken_out_never_come_back():
    gone = volume.Occupancy.full(16, 1).centres()[..., 0] > 0
    grid = volume.Occupancy.full(16, 1).without(gone)
    for i in range(4):
        grid = grid.updated(lambda x: jnp.ones(x.shape[0]), jax.random.key(i), step=STEP, parts=4)
    np.testing.assert_array_equal(grid.occupied, jnp.where(gone, 0, 1))


def test_every_cell_is_looked_at_once_a_sweep_inside_itself():
    seen = np.zeros((2, 16, 16, 16), int)

    def look(x: Array) -> Array:
        for level, half in ((0, 1.0), (1, 2.0)):
            part = np.asarray(x).reshape(2, -1, 3)[level]
            cell = np.floor((part / half + 1) * 8).astype(int)
            np.add.at(seen[level], tuple(cell.T), 1)
        return jnp.ones(x.shape[0])

    grid = volume.Occupancy.full(16, 2)
    for i in range(8):
        grid = grid.updated(look, jax.random.key(i), step=STEP, parts=8)
    assert np.all(seen == 1)
    assert int(grid.updates) == 8


def test_marching_refuses_what_does_not_fit():
    s = scene(7, rays=4)
    with pytest.raises(ValueError, match=r"expected \(L, n, n, n\), n a multiple of 4"):
        marched(s._replace(occupied=s.occupied[:, :6, :6, :6]))
    with pytest.raises(ValueError, match="occupied is bool, expected uint8"):
        marched(s._replace(occupied=s.occupied > 0))
    with pytest.raises(ValueError, match=r"near \(3,\), far \(4,\)"):
        marched(s._replace(near=s.near[:3]))
    with pytest.raises(ValueError, match=r"direction has shape \(3, 3\), expected \(4, 3\)"):
        marched(s._replace(direction=s.direction[:3]))
    with pytest.raises(ValueError, match=r"expected \(K\+1,\) with K >= 1 steps"):
        marched(s._replace(edges=s.edges[:1]))
    with pytest.raises(ValueError, match="capacity=0, limit="):
        marched(s, capacity=0)
    with pytest.raises(ValueError, match="backend='gpu', expected auto, native, warp or xla"):
        marched(s, backend="gpu")
    with pytest.raises(ValueError, match="step=0, reach=1"):
        volume.step_edges(0, 1.0)
    with pytest.raises(ValueError, match="over a million steps"):
        volume.step_edges(1e-7, 1.0)
    with pytest.raises(ValueError, match="n=6, levels=1, expected n a positive multiple of 4"):
        volume.Occupancy.full(6)
    grid = volume.Occupancy.full(8)
    with pytest.raises(ValueError, match="mask has shape"):
        grid.without(jnp.zeros((1, 4, 4, 4), bool))
    with pytest.raises(ValueError, match="parts=3, expected a divisor of n=8"):
        grid.updated(sphere, jax.random.key(0), step=STEP, parts=3)


def test_native_marching_refuses_float64():
    s = scene(8, rays=4)
    with jax.enable_x64(True), pytest.raises(ValueError, match="backend='native' with float64"):
        marched(doubled(s), backend="native")
