"""Contraction, cones, boxes and the preconditioner of poses: laws in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from lumefield import render
from lumefield.render import volume
from lumefield.render.volume._contract import uncontract


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def points(seed: int, n: int = 64, spread: float = 3.0) -> Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, 3)) * spread)


def test_contraction_is_the_identity_inside_the_unit_ball_and_stays_below_two():
    x = points(0, spread=0.3)
    x = x[jnp.linalg.norm(x, axis=-1) < 1]
    np.testing.assert_allclose(volume.contract(x), x, rtol=1e-15)
    far = volume.contract(points(1) * 1e9)
    assert jnp.all(jnp.linalg.norm(far, axis=-1) < 2)


def test_uncontract_undoes_contraction():
    x = points(2, spread=5.0)
    np.testing.assert_allclose(uncontract(volume.contract(x)), x, rtol=1e-9)


def test_contraction_of_a_gaussian_is_that_of_its_jacobian():
    mean = jnp.concatenate([points(3, 16), points(4, 16, 0.2)])
    root = jnp.asarray(np.random.default_rng(5).normal(size=(32, 3, 3)))
    cov = root @ jnp.swapaxes(root, -1, -2)
    got, squeezed = volume.contract_gaussians(mean, cov)
    np.testing.assert_allclose(got, volume.contract(mean), rtol=1e-12)
    jac = jax.vmap(jax.jacfwd(volume.contract))(mean)
    np.testing.assert_allclose(
        squeezed, jac @ cov @ jnp.swapaxes(jac, -1, -2), rtol=1e-9, atol=1e-12
    )


def test_contraction_has_finite_slopes_at_zero_one_and_far_away():
    for scale in (0.0, 1e-10, 1.0, 1e10):
        x = jnp.array([scale, 0.0, 0.0])
        jac = jax.jacrev(volume.contract)(x)
        assert jnp.all(jnp.isfinite(jac))


def test_cone_gaussians_are_the_moments_of_a_cone():
    rng = np.random.default_rng(6)
    t0, t1, radius = 1.0, 2.0, 0.3
    # uniform in the volume of the frustum: t with density ~ t^2
    t = (t0**3 + rng.uniform(size=400_000) * (t1**3 - t0**3)) ** (1 / 3)
    angle, r = rng.uniform(0, 2 * np.pi, t.size), radius * t * np.sqrt(rng.uniform(size=t.size))
    cloud = np.stack([r * np.cos(angle), r * np.sin(angle), t], -1)
    mean, cov = volume.cone_gaussians(
        jnp.zeros((1, 3)),
        jnp.array([[0.0, 0.0, 1.0]]),
        jnp.array([[t0], [t1]]),
        jnp.array([radius]),
    )
    np.testing.assert_allclose(mean[0, 0], cloud.mean(0), atol=2e-3)
    np.testing.assert_allclose(cov[0, 0], np.cov(cloud.T), atol=2e-3)


def test_cone_gaussians_turn_with_their_ray():
    d = jnp.array([[0.6, 0.0, 0.8]])
    turn = jnp.array([[0.8, 0.0, 0.6], [0.0, 1.0, 0.0], [-0.6, 0.0, 0.8]])
    edges, radius = jnp.array([[0.5], [1.5], [4.0]]), jnp.array([0.1])
    ahead = jnp.array([[0.0, 0.0, 1.0]])
    mean, cov = volume.cone_gaussians(jnp.zeros((1, 3)), ahead, edges, radius)
    turned, turned_cov = volume.cone_gaussians(jnp.ones((1, 3)), d, edges, radius)
    np.testing.assert_allclose(turned, 1 + mean @ turn.T, atol=1e-12)
    np.testing.assert_allclose(turned_cov, turn @ cov @ turn.T, atol=1e-12)


def test_thin_cones_far_away_keep_their_shape_in_float32():
    with jax.enable_x64(False):
        edges = jnp.array([[1000.0], [1000.01]], jnp.float32)
        ahead = jnp.array([[0.0, 0.0, 1.0]], jnp.float32)
        _, cov = volume.cone_gaussians(
            jnp.zeros((1, 3), jnp.float32), ahead, edges, jnp.full((1,), 1e-3, jnp.float32)
        )
        width = float(edges[1, 0] - edges[0, 0])
    np.testing.assert_allclose(cov[0, 0, 2, 2], width**2 / 12, rtol=1e-4)
    np.testing.assert_allclose(cov[0, 0, 0, 0], 0.25, rtol=1e-4)


def test_a_box_is_entered_and_left_at_its_faces():
    origin = jnp.array([[0.0, 0.0, -3.0], [0.0, 0.5, 0.0], [5.0, 0.0, 0.0], [0.0, 5.0, -3.0]])
    direction = jnp.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    near, far = volume.ray_box(origin, direction, 2.0, near=0.1)
    np.testing.assert_allclose(near, [1.0, 0.1, 0.1, 0.1])
    np.testing.assert_allclose(far, [5.0, 2.0, 0.1, 0.1])


def camera(model: str = "pinhole") -> render.Cameras:
    motion = render.se3_exp(jnp.array([0.1, -0.2, 0.3, 0.2, 0.4, -0.1]))
    return render.Cameras(
        world_from_cam=motion, focal=jnp.array([300.0, 320.0]), centre=jnp.array([160.0, 120.0]),
        height=240, width=320, model=model,
    )  # fmt: skip


def frustum(cam: render.Cameras, n: int = 200) -> Array:
    rng = np.random.default_rng(8)
    local = jnp.asarray(rng.uniform([-1, -0.8, 2], [1, 0.8, 6], (n, 3)))
    return local @ cam.world_from_cam[:, :3].T + cam.world_from_cam[None, :, 3]


def pixels(cam: render.Cameras, twist: Array, world: Array) -> Array:
    delta = render.se3_exp(twist)
    r, t = cam.world_from_cam[:, :3], cam.world_from_cam[:, 3]
    rotation, position = r @ delta[:, :3], r @ delta[:, 3] + t
    x = (world - position[None]) @ rotation
    return x[:, :2] / x[:, 2:] * cam.focal[None] + cam.centre[None]


def test_a_preconditioned_twist_moves_pixels_evenly_in_all_directions():
    cam = camera()
    world = frustum(cam)
    p = volume.pose_preconditioner(cam, world, damping=0.0)
    jac = jax.jacfwd(lambda z: pixels(cam, p @ z, world))(jnp.zeros(6)).reshape(-1, 6)
    np.testing.assert_allclose(jac.T @ jac / len(world), jnp.eye(6), atol=1e-5)
    np.testing.assert_allclose(p, p.T, atol=1e-12)


def test_damping_bends_the_preconditioner_towards_a_scaling_per_parameter():
    cam = camera()
    world = frustum(cam)
    p = volume.pose_preconditioner(cam, world, damping=1e4)
    off = p - jnp.diag(jnp.diag(p))
    assert jnp.max(jnp.abs(off)) < 1e-3 * jnp.max(jnp.diag(p))


@pytest.mark.parametrize("model", ["pinhole", "fisheye", "ortho"])
def test_preconditioners_are_finite_for_every_lens_and_batch(model: str):
    cams = jax.tree.map(lambda x: jnp.stack([x, x]), camera(model))
    p = volume.pose_preconditioner(cams, frustum(camera(model)))
    assert p.shape == (2, 6, 6)
    assert jnp.all(jnp.isfinite(p))
    own = volume.pose_preconditioner(cams, jnp.stack([frustum(camera(model))] * 2))
    np.testing.assert_allclose(p, own, rtol=1e-6)


def test_without_points_in_front_the_preconditioner_is_the_identity():
    cam = camera()
    behind = jnp.stack([cam.world_from_cam[:, 3] - cam.world_from_cam[:, 2]] * 4)
    np.testing.assert_allclose(volume.pose_preconditioner(cam, behind), jnp.eye(6))


def test_shapes_that_do_not_fit_are_refused():
    three = jnp.zeros((4, 3))
    with pytest.raises(ValueError, match=r"x has shape \(4, 2\), expected \(\*s, 3\)"):
        volume.contract(three[:, :2])
    with pytest.raises(ValueError, match=r"cov has shape \(4, 3\)"):
        volume.contract_gaussians(three, three)
    with pytest.raises(ValueError, match=r"direction \(3, 3\), expected \(R, 3\) both"):
        volume.cone_gaussians(three, three[:3], jnp.zeros((2, 4)), jnp.zeros(4))
    with pytest.raises(ValueError, match=r"t_edges has shape \(4, 2\)"):
        volume.cone_gaussians(three, three, jnp.zeros((4, 2)), jnp.zeros(4))
    with pytest.raises(ValueError, match=r"expected \(\*r, 3\) both"):
        volume.ray_box(three, three[:3])
    with pytest.raises(ValueError, match=r"points has shape \(3,\)"):
        volume.pose_preconditioner(camera(), jnp.zeros(3))
