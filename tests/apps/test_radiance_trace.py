"""What the samplers of radiance fields must not change: the picture."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lumefield.apps._radiance import RadianceScene, Recipe, batch_rays
from lumefield.apps._radiance_draw import draw_rays, draw_view
from lumefield.apps._radiance_rays import Rays, Sampling, cone_radius
from lumefield.apps._radiance_trace import density_at, quarters, trace
from lumefield.apps._rays import Cameras, RayBatch
from lumefield.render import volume

MARCH = Sampling("marched", 0.05, capacity=1 << 14, kept=1 << 14, levels=2, step=1 / 64, cone=0)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Ball:
    """A soft ball of the training frame, in colours of its direction."""

    radius: float = 0.6
    density_inside: float = 40.0

    def density(self, x: Any, cov: Any = None) -> tuple[Any, Any]:
        del cov
        r = jnp.sqrt(jnp.sum(x * x, -1) + 1e-12) * 2
        return self.density_inside * jax.nn.sigmoid((self.radius - r) * 30), x

    def colour(self, features: Any, d: Any, look: Any = None) -> Any:
        del look
        return jax.nn.sigmoid(features * 3 + d)

    def proposals(self, x: Any, cov: Any, k: int) -> Any:
        del k
        return self.density(x, cov)[0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Fog:
    """One density everywhere, grey."""

    sigma: Any

    def density(self, x: Any, cov: Any = None) -> tuple[Any, Any]:
        del cov
        return jnp.broadcast_to(self.sigma, x.shape[:-1]), x

    def colour(self, features: Any, d: Any, look: Any = None) -> Any:
        del d, look
        return jnp.full_like(features, 0.5)

    def proposals(self, x: Any, cov: Any, k: int) -> Any:
        del k
        return self.density(x, cov)[0]


def rays(n: int = 40) -> Rays:
    rng = np.random.default_rng(0)
    origin = np.tile([0.1, 0.05, -2.0], (n, 1))
    direction = np.concatenate([rng.uniform(-0.3, 0.3, (n, 2)), np.ones((n, 1))], 1)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    o, d = jnp.asarray(origin, jnp.float32), jnp.asarray(direction, jnp.float32)
    return Rays(o, d, jnp.full(n, 1e-3), None)


def everywhere() -> Any:
    return jnp.ones((2, 8, 8, 8), jnp.uint8)


def test_leaving_out_hidden_samples_changes_nothing_but_their_number() -> None:
    field, bundle = Ball(), rays()
    seen = trace(MARCH, field, everywhere(), bundle, None)
    near, far = volume.ray_box(bundle.origin, bundle.direction, 2.0, near=0.05)
    edges = volume.step_edges(1 / 64, 8.0)
    packed = volume.march(
        everywhere(), bundle.origin, bundle.direction, near, far, edges, capacity=1 << 14
    )
    x = packed.points(bundle.origin, bundle.direction)
    sigma = density_at(field, x)
    rgb = field.colour(volume.contract(x) / 2, bundle.direction[packed.ray])
    out, left = volume.composite_packed(sigma * packed.dt, rgb, packed.start)
    np.testing.assert_allclose(seen.rgb, out, atol=1e-6)
    np.testing.assert_allclose(seen.opacity, 1 - left, atol=1e-6)
    assert bool(seen.used.all())
    assert int(seen.samples) < 0.8 * int(packed.total)


@pytest.mark.parametrize("inside", [40.0, 1.5])
def test_drawing_in_rounds_is_drawing_at_once(inside: float, monkeypatch: Any) -> None:
    monkeypatch.setattr("lumefield.apps._radiance_draw._BLOCK", 16)  # 40 rays: three blocks
    field, bundle = Ball(density_inside=inside), rays()
    none = jnp.zeros((0, 6))
    scene = RadianceScene(field=field, exposure=jnp.zeros((0, 3, 2)), pose=none, look=none)
    recipe = Recipe("ngp", steps=1, chunk=1, rays=40, sampling=MARCH, rate=1.0, rate_end=1.0)
    at_once = trace(MARCH, field, everywhere(), bundle, None)
    o, d, r = (np.asarray(a, np.float32) for a in (bundle.origin, bundle.direction, bundle.radius))
    rgb, distance, opacity = draw_rays(recipe, scene, everywhere(), o, d, r)
    np.testing.assert_allclose(rgb, at_once.rgb, atol=2e-4)
    np.testing.assert_allclose(opacity, at_once.opacity, atol=2e-4)
    np.testing.assert_allclose(distance * opacity, at_once.depth, atol=1e-3)


@pytest.mark.parametrize("room", [{"kept": 600}, {"capacity": 4000}])
def test_rays_that_find_no_room_are_the_last_ones_and_say_so(room: dict[str, int]) -> None:
    bundle = rays()
    whole = trace(MARCH, Ball(), everywhere(), bundle, None)
    part = trace(dataclasses.replace(MARCH, **room), Ball(), everywhere(), bundle, None)
    count = int(part.used.sum())
    assert 0 < count < 40
    assert bool(part.used[:count].all())
    np.testing.assert_allclose(part.rgb[:count], whole.rgb[:count], atol=1e-6)
    np.testing.assert_array_equal(part.opacity[count:], 0)


@pytest.mark.parametrize("cones", [False, True])
def test_proposals_find_the_same_ball_as_marching(cones: bool) -> None:
    bundle = rays()
    marched = trace(MARCH, Ball(), everywhere(), bundle, None)
    sampling = Sampling("proposed", 0.5, counts=(128, 128, 64), cones=cones)
    seen = trace(sampling, Ball(), None, bundle, None)
    hit = np.asarray(marched.opacity) > 0.5
    assert 5 < hit.sum() < 40
    np.testing.assert_allclose(seen.opacity, marched.opacity, atol=0.05)
    np.testing.assert_allclose(seen.rgb, marched.rgb, atol=0.05)
    np.testing.assert_allclose(seen.depth[hit], marched.depth[hit], rtol=0.05)


@pytest.mark.parametrize("root", [1, 2, 3])
def test_the_spacing_of_samples_does_not_change_the_picture(root: int) -> None:
    bundle = rays()
    marched = trace(MARCH, Ball(), everywhere(), bundle, None)
    sampling = Sampling("proposed", 0.5, counts=(128, 128, 64), far=50.0, root=root, padding=1e-3)
    seen = trace(sampling, Ball(), None, bundle, None)
    np.testing.assert_allclose(seen.opacity, marched.opacity, atol=0.05)
    np.testing.assert_allclose(seen.rgb, marched.rgb, atol=0.05)


def test_calm_gradients_grow_with_the_square_of_a_near_distance_and_change_no_picture() -> None:
    far = rays(8)
    plain = Sampling("proposed", 0.05, counts=(64, 32), far=2.0)
    calm = dataclasses.replace(plain, calm=True)

    def slope(sampling: Sampling, density: Any, bundle: Rays) -> Any:
        """By the density of all space, which is thin: every sample counts by its length."""

        def seen(density: Any) -> Any:
            return jnp.sum(trace(sampling, Fog(density), None, bundle, None).opacity)

        return jax.value_and_grad(seen)(density)

    (same, by_plain), (value, by_calm) = (slope(s, jnp.float32(0.3), far) for s in (plain, calm))
    assert float(value) == pytest.approx(float(same), rel=1e-6)
    assert 0 < float(by_calm) < float(by_plain)
    # Beyond 1 nothing is scaled.
    beyond = [dataclasses.replace(s, near=1.0) for s in (plain, calm)]
    a, b = (slope(s, jnp.float32(0.3), far)[1] for s in beyond)
    assert float(a) == pytest.approx(float(b), rel=1e-6)


def test_poses_get_gradients_through_marched_samples() -> None:
    bundle = rays()

    def brightness(shift: Any) -> Any:
        moved = bundle._replace(origin=bundle.origin + shift[None])
        return jnp.mean(trace(MARCH, Ball(), everywhere(), moved, None).rgb)

    grad = jax.jit(jax.grad(brightness))(jnp.zeros(3))
    assert bool(jnp.isfinite(grad).all())
    assert float(jnp.abs(grad[:2]).max()) > 1e-4


def test_cones_follow_the_size_of_pixels_in_training_and_in_drawing(monkeypatch: Any) -> None:
    pose = np.eye(3, 4, dtype=np.float32)
    focal, centre = np.array([40.0, 40.0], np.float32), np.array([16.0, 12.0], np.float32)
    drawn: list[Any] = []

    def note(recipe: Any, scene: Any, occupied: Any, o: Any, d: Any, radius: Any) -> Any:
        del recipe, scene, occupied, o
        drawn.append(np.asarray(radius))
        return np.zeros_like(d), np.zeros(len(d), np.float32), np.zeros(len(d), np.float32)

    monkeypatch.setattr("lumefield.apps._radiance_draw.draw_rays", note)
    recipe, scene = Recipe("zipnerf", 1, 1, 1, Sampling("proposed", 0.1), 1.0, 1.0), nothing()
    for factor in (1, 4):
        camera = (pose, focal / factor, centre / factor)
        draw_view(recipe, scene, None, camera, (24 // factor, 32 // factor), (0.0, 0.0, 0.0))
    # A pixel four times as large, around the point between its sixteen parts.
    parts = drawn[0].reshape(6, 4, 8, 4).mean((1, 3))
    np.testing.assert_allclose(drawn[1].reshape(6, 8), 4 * parts, rtol=2e-3)

    cameras = Cameras(pose[None], focal[None], centre[None])
    pixel = np.array([[2.5, 3.5], [2.0, 2.0]], np.float32)
    blank = np.zeros(2, np.uint8)
    side = np.array([1.0, 4.0], np.float32)
    batch = RayBatch(np.zeros(2, np.int32), pixel, side, np.zeros((2, 3)), blank, blank, blank)
    radius = np.asarray(batch_rays(cameras, scene, batch, None).radius)
    want = [drawn[0].reshape(24, 32)[3, 2], drawn[1].reshape(6, 8)[0, 0]]
    np.testing.assert_allclose(radius, want, rtol=1e-5)


QUARTERS = Sampling("proposed", 0.5, (64, 48), far=10.0, cones=True, quarters=True)
WHOLE = dataclasses.replace(QUARTERS, quarters=False)


def test_the_quarters_of_a_cone_have_its_mean_and_its_variance_across() -> None:
    bundle = rays(60)._replace(radius=jnp.linspace(1e-3, 0.1, 60))
    parts = quarters(bundle)
    np.testing.assert_array_equal(parts.origin[60:120], bundle.origin)
    away = np.asarray(parts.direction).reshape(4, 60, 3) - np.asarray(bundle.direction)
    radius = np.asarray(bundle.radius)[:, None]
    np.testing.assert_allclose(away.mean(0), 0, atol=1e-7)
    np.testing.assert_allclose(np.einsum("krc,rc->kr", away, bundle.direction), 0, atol=1e-7)
    between = np.einsum("krc,krd->rcd", away, away) / 4
    across = np.eye(3) - np.einsum("rc,rd->rcd", bundle.direction, bundle.direction)
    # A disc of radius r has the variance r^2 / 4 along each of its axes.
    want = ((radius**2 - (radius / 2) ** 2) / 4)[..., None] * across
    np.testing.assert_allclose(between, want, atol=1e-8)
    np.testing.assert_allclose(parts.radius, np.tile(bundle.radius, 4) / 2)


def test_thin_cones_look_the_same_as_a_whole_and_in_quarters() -> None:
    bundle = rays()._replace(radius=jnp.full(40, 1e-6))
    draw = jax.jit(trace, static_argnums=0)
    whole, parts = (draw(s, Ball(), None, bundle, None) for s in (WHOLE, QUARTERS))
    np.testing.assert_allclose(parts.rgb, whole.rgb, atol=1e-4)
    np.testing.assert_allclose(parts.depth, whole.depth, atol=1e-3)
    np.testing.assert_allclose(parts.opacity, whole.opacity, atol=1e-4)
    assert int(parts.samples) == 4 * int(whole.samples)


def test_cones_no_wider_than_those_of_the_photos_are_drawn_whole() -> None:
    def seen(radius: float, **sampling: Any) -> Any:
        recipe = Recipe(
            method="none",
            steps=1,
            chunk=1,
            rays=1,
            sampling=dataclasses.replace(QUARTERS, **sampling),
            rate=0.0,
            rate_end=0.0,
        )
        none = jnp.zeros((0, 1))
        scene = RadianceScene(field=Ball(), exposure=none, pose=none, look=none)
        o, d = (np.asarray(a) for a in rays()[:2])
        return draw_rays(recipe, scene, None, o, d, np.full(len(o), radius, np.float32))[0]

    adaptive = {"quarters_from": 1.5, "pixel": 0.04}
    np.testing.assert_array_equal(seen(0.05, **adaptive), seen(0.05, quarters=False))
    np.testing.assert_array_equal(seen(0.07, **adaptive), seen(0.07))
    assert np.abs(seen(0.07) - seen(0.07, quarters=False)).max() > 1e-3


def test_quarters_draw_the_edge_of_a_thing_as_the_part_of_the_pixel_that_it_covers() -> None:
    n, side = 41, 0.05  # of a pixel, at a distance of 1
    draw = jax.jit(trace, static_argnums=0)

    def seen(sampling: Sampling, ahead: Any, radius: float) -> Any:
        d = ahead / np.linalg.norm(ahead, axis=-1, keepdims=True)
        o = np.broadcast_to(np.asarray([0.0, 0.0, -2.0]), d.shape)
        o, d, r = (jnp.asarray(a, jnp.float32) for a in (o, d, radius * d[:, 2]))
        field = Ball(density_inside=1000.0)
        return np.asarray(draw(sampling, field, None, Rays(o, d, r, None), None).opacity)

    x = np.linspace(0.2, 0.7, n)
    ahead = np.stack([x, np.zeros(n), np.ones(n)], -1)
    within = side * ((np.arange(16) + 0.5) / 16 - 0.5)
    thin = ahead + np.stack(np.meshgrid(within, within[::4], [0.0]), -1).reshape(-1, 1, 3)
    truth = seen(WHOLE, thin.reshape(-1, 3), 1e-6).reshape(-1, n).mean(0)
    assert np.ptp(truth) > 0.9
    radius = cone_radius(1 / side)
    errors = [np.mean((seen(s, ahead, radius) - truth) ** 2) for s in (WHOLE, QUARTERS)]
    assert errors[1] < 0.4 * errors[0]


def test_training_samples_whole_cones() -> None:
    seen = jax.jit(trace, static_argnums=0)(QUARTERS, Ball(), None, rays(), jax.random.key(0))
    assert int(seen.samples) == 40 * 48


def nothing() -> RadianceScene:
    """A scene of no field and no photos."""
    return RadianceScene(
        field=None, exposure=jnp.zeros((0, 3, 2)), pose=jnp.zeros((0, 6)), look=jnp.zeros((0, 0))
    )
