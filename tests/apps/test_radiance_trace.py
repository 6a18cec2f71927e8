"""What the samplers of radiance fields must not change: the picture."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lumefield.apps._radiance import RadianceScene, Recipe
from lumefield.apps._radiance_draw import draw_rays
from lumefield.apps._radiance_trace import Rays, Sampling, density_at, trace
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


def test_poses_get_gradients_through_marched_samples() -> None:
    bundle = rays()

    def brightness(shift: Any) -> Any:
        moved = bundle._replace(origin=bundle.origin + shift[None])
        return jnp.mean(trace(MARCH, Ball(), everywhere(), moved, None).rgb)

    grad = jax.jit(jax.grad(brightness))(jnp.zeros(3))
    assert bool(jnp.isfinite(grad).all())
    assert float(jnp.abs(grad[:2]).max()) > 1e-4
