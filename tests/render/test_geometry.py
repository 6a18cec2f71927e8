"""Projection, spherical harmonics, rays, rigid motions and samples: laws and twins."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from lumefield import native, render
from lumefield.render._reference import project_reference

NAMES = ("means", "quats_wxyz", "scales", "opacities", "sh")
MODELS = ("pinhole", "ortho", "fisheye")
QUICK: dict[str, Any] = {"compiler_options": {"xla_llvm_disable_expensive_passes": True}}
"""For functions that run once: compile fast."""


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def gaussians(n=50, k=25, dtype: Any = np.float64, seed=0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    arrays = {
        "means": rng.normal(size=(n, 3)) * [1.5, 1.2, 1.0] + [0, 0, 2.5],
        "quats_wxyz": rng.normal(size=(n, 4)),
        "scales": np.exp(rng.normal(size=(n, 3)) - 2),
        "opacities": rng.uniform(0.1, 1, n),
        "sh": rng.normal(size=(n, k, 3)) * 0.2,
    }
    arrays["means"][:6, 2] -= 3.5  # some are behind the camera
    arrays["means"][6] = [1e-9, 0, 2]  # on the axis: the fisheye is smooth there
    return {name: jnp.asarray(a, dtype) for name, a in arrays.items()}


def arrays(g, cam) -> Any:
    """The arguments of the twin in order."""
    return (*(g[k] for k in NAMES), cam.world_from_cam, cam.focal, cam.centre)


def camera(model="pinhole", dtype: Any = np.float64, seed=1) -> render.Cameras:
    tangent = np.random.default_rng(seed).normal(size=6) * 0.1
    tangent = np.zeros(6) if model == "fisheye" else tangent
    return render.Cameras(
        render.se3_exp(jnp.asarray(tangent, dtype)),
        jnp.asarray([40.0, 42.0], dtype),
        jnp.asarray([19.0, 14.0], dtype),
        height=30,
        width=40,
        model=model,
    )


@pytest.mark.parametrize("model", MODELS)
def test_projection_agrees_with_the_matrix_twin(x64, model):
    g, cam = gaussians(), camera(model)
    options = render.SplatOptions(antialiased=True, backend="xla")
    rng = np.random.default_rng(2)

    def ours(g, cam):
        return render.project_gaussians(**g, camera=cam, options=options)

    def twin(g, cam):
        static = {"height": 30, "width": 40, "near": 0.01, "model": model}
        return project_reference(*arrays(g, cam), antialiased=True, **static)

    shapes = jax.eval_shape(ours, g, cam)
    cot = [jnp.asarray(rng.normal(size=s.shape)) for s in shapes]

    def graded(f):
        def loss(g, cam):
            p = f(g, cam)
            front = (p.depth > 0.01).astype(p.depth.dtype)  # what is culled has no meaning
            terms = [
                jnp.sum(c * x * front.reshape(-1, *[1] * (x.ndim - 1)))
                for c, x in zip(cot, p, strict=True)
            ]
            return sum(terms, jnp.zeros(())), p

        (_, p), grads = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True), **QUICK)(g, cam)
        return p, grads

    (mine, mine_grads), (truth, truth_grads) = graded(ours), graded(twin)
    front = np.asarray(truth.depth > 0.01)
    assert 0 < (~front).sum() < len(front)
    assert (mine.opacities[~front] == 0).all()
    for a, b in zip(mine, truth, strict=True):
        np.testing.assert_allclose(a[front], b[front], rtol=1e-8, atol=1e-9)
    for a, b in zip(jax.tree.leaves(mine_grads), jax.tree.leaves(truth_grads), strict=True):
        assert np.abs(a - b).max() <= 1e-8 * np.abs(b).max()


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("backend", ["xla", "native"])
def test_single_precision_projection_agrees_with_double(backend, antialiased):
    if backend == "native" and not native.load():
        pytest.skip(f"native kernels are not available: {native.status().reason}")
    with jax.enable_x64(True):
        static = {"height": 30, "width": 40, "near": 0.01, "model": "pinhole"}
        g32, cam32 = gaussians(k=16, dtype=np.float32), camera(dtype=np.float32)
        g, cam = jax.tree.map(lambda x: x.astype(jnp.float64), (g32, cam32))
        truth = project_reference(*arrays(g, cam), antialiased=antialiased, **static)
        truth = jax.tree.map(np.asarray, truth)
    options = render.SplatOptions(antialiased=antialiased, backend=backend)
    mine = jax.jit(lambda g, c: render.project_gaussians(**g, camera=c, options=options))(
        g32, cam32
    )
    front = truth.depth > 0.01
    for a, b in zip(mine, truth, strict=True):
        assert np.abs(np.asarray(a) - b)[front].max() <= 2e-6 * np.abs(b[front]).max()


def test_needles_keep_their_width_in_single_precision():
    # 1000 px long, 0.05 px thin, at 33 degrees: a c - b^2 would be lost to rounding
    turn = np.deg2rad(33.0) / 2
    means = jnp.array([[0.0, 0.0, 1.0]])
    quats = jnp.asarray([[np.cos(turn), 0, 0, np.sin(turn)]], jnp.float32)
    scales = jnp.array([[10.0, 5e-4, 5e-4]])
    cam = render.Cameras(
        jnp.eye(3, 4), jnp.full(2, 100.0), jnp.full(2, 50.0), height=100, width=100
    )
    p = render.project_gaussians(
        means,
        quats,
        scales,
        jnp.ones(1),
        jnp.zeros((1, 1, 3)),
        camera=cam,
        options=render.SplatOptions(backend="xla"),
    )
    u, v, w = np.asarray(p.factor[0], np.float64)
    thin = np.sqrt(np.linalg.eigvalsh(np.linalg.inv([[u * u, u * v], [u * v, v * v + w * w]]))[0])
    np.testing.assert_allclose(thin, np.sqrt(0.3 + 0.05**2), rtol=1e-4)


def test_near_and_behind_are_culled_and_gradients_stay_finite():
    g = gaussians(k=1, dtype=np.float32)
    g["means"] = g["means"].at[:5, 2].set(jnp.array([0.0, -1.0, 0.01, 1e-6, 0.02]))
    cam = render.Cameras(jnp.eye(3, 4), jnp.full(2, 40.0), jnp.full(2, 20.0), height=40, width=40)

    def loss(g, cam):
        p = render.project_gaussians(**g, camera=cam, options=render.SplatOptions(backend="xla"))
        return sum(jnp.sum(x) for x in p), p.opacities

    grads, opacities = jax.jit(jax.grad(loss, (0, 1), has_aux=True), **QUICK)(g, cam)
    np.testing.assert_array_equal(opacities[:5] > 0, [False, False, False, False, True])
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(grads))


def sphere(n=40_000):
    z = 1 - (2 * np.arange(n) + 1) / n
    angle = np.arange(n) * np.pi * (3 - np.sqrt(5))
    r = np.sqrt(1 - z * z)
    return np.stack([r * np.cos(angle), r * np.sin(angle), z], -1)


def random_rotation(seed):
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def test_spherical_harmonics_are_orthonormal(x64):
    basis = render.sh_basis(jnp.asarray(sphere()), 4)
    gram = 4 * np.pi * np.asarray(basis.T @ basis) / len(basis)
    np.testing.assert_allclose(gram, np.eye(25), atol=1e-5)


def test_degree_one_has_the_signs_of_3dgs():
    d = jnp.array([[0.6, 0.0, 0.8]])
    c = np.sqrt(3 / (4 * np.pi))
    np.testing.assert_allclose(
        render.sh_basis(d, 1)[0], [0.28209479, 0, 0.8 * c, -0.6 * c], atol=1e-6
    )


@pytest.mark.parametrize("k", [1, 4, 9, 16, 25])
def test_rotated_coefficients_give_the_rotated_colours(x64, k):
    rng = np.random.default_rng(k)
    sh, rotation = jnp.asarray(rng.normal(size=(5, k, 3))), jnp.asarray(random_rotation(k))
    degree = int(k**0.5) - 1
    d = jnp.asarray(sphere(50))
    turned = render.rotate_sh(sh, rotation)
    np.testing.assert_allclose(
        jnp.einsum("dk,nkc->dnc", render.sh_basis(d @ rotation.T, degree), turned),
        jnp.einsum("dk,nkc->dnc", render.sh_basis(d, degree), sh),
        atol=1e-12,
    )
    back = render.rotate_sh(turned, rotation.T)
    np.testing.assert_allclose(back, sh, atol=1e-12)


def test_the_colour_of_a_turned_scene_is_the_same_picture(x64):
    g, cam = gaussians(k=16), camera()
    motion = render.se3_exp(jnp.asarray([0.3, -0.2, 0.5, 0.4, -0.7, 0.2]))
    r, t = motion[:, :3], motion[:, 3]
    turn = render.Cameras(
        jnp.concatenate(
            [r @ cam.world_from_cam[:, :3], (r @ cam.world_from_cam[:, 3:]) + t[:, None]], 1
        ),
        cam.focal,
        cam.centre,
        height=30,
        width=40,
    )
    half = render.se3_log(motion)[3:]
    angle = jnp.linalg.norm(half)
    a = jnp.concatenate([jnp.cos(angle / 2)[None], jnp.sin(angle / 2) * half / angle])
    b = g["quats_wxyz"]
    w = a[0] * b[:, 0] - b[:, 1:] @ a[1:]
    v = a[0] * b[:, 1:] + b[:, :1] * a[None, 1:] + jnp.cross(a[None, 1:], b[:, 1:])
    moved: dict[str, Any] = g | {
        "means": g["means"] @ r.T + t[None],
        "quats_wxyz": jnp.concatenate([w[:, None], v], -1),
        "sh": render.rotate_sh(g["sh"], r),
    }
    picture = jax.jit(lambda g, camera: render.rasterize_rgb(**g, camera=camera), **QUICK)
    before, after = picture(g, cam), picture(moved, turn)
    np.testing.assert_allclose(after[0], before[0], atol=1e-9)


@pytest.mark.parametrize("model", MODELS)
def test_rays_are_the_inverse_of_projection(x64, model):
    cam = camera(model)
    rays = render.camera_rays(cam)
    assert rays.direction.shape == (30, 40, 3)
    np.testing.assert_allclose(jnp.linalg.norm(rays.direction, axis=-1), 1, atol=1e-12)
    n = 30 * 40
    points = (rays.origin + 2.5 * rays.direction).reshape(n, 3)
    p = render.project_gaussians(
        points, jnp.ones((n, 4)), jnp.ones((n, 3)), jnp.ones(n), jnp.zeros((n, 1, 3)), camera=cam
    )
    x, y = np.meshgrid(np.arange(40) + 0.5, np.arange(30) + 0.5)
    np.testing.assert_allclose(p.xy, np.stack([x, y], -1).reshape(n, 2), atol=1e-9)


def test_rays_of_many_cameras_and_of_chosen_pixels():
    one = camera(dtype=np.float32)
    many = jax.tree.map(lambda x: jnp.stack([x, x]), one)
    pixels = jnp.array([[0.5, 0.5], [3.5, 2.5]])
    rays = render.camera_rays(many, pixels)
    assert rays.origin.shape == (2, 2, 3)
    np.testing.assert_allclose(
        rays.direction[1, 1], render.camera_rays(one).direction[2, 3], atol=1e-6
    )
    with pytest.raises(ValueError, match=r"pixels has shape \(3,\), expected \(\*p, 2\)"):
        render.camera_rays(one, jnp.zeros(3))


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-7, 1e-4, 0.09, 0.11, 1.0, 3.0, 3.14159])
def test_exponential_and_logarithm_are_inverse(x64, angle):
    rng = np.random.default_rng(3)
    axis = rng.normal(size=3)
    tangent = jnp.asarray(np.r_[rng.normal(size=3), angle * axis / np.linalg.norm(axis)])
    motion = render.se3_exp(tangent)
    np.testing.assert_allclose(motion[:, :3] @ motion[:, :3].T, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(render.se3_log(motion), tangent, atol=1e-8)


def test_exponential_and_logarithm_near_identity_in_single_precision():
    tangent = jnp.asarray(np.random.default_rng(4).normal(size=(100, 6)) * 1e-3, jnp.float32)
    np.testing.assert_allclose(render.se3_log(render.se3_exp(tangent)), tangent, atol=1e-7)


def test_exponential_is_the_matrix_exponential_and_smooth_at_zero(x64):
    tangent = jnp.asarray(np.random.default_rng(5).normal(size=6))
    rho, (a, b, c) = tangent[:3], tangent[3:]
    generator = np.zeros((4, 4))
    generator[:3, 3], generator[:3, :3] = rho, [[0, -c, b], [c, 0, -a], [-b, a, 0]]
    np.testing.assert_allclose(
        render.se3_exp(tangent), scipy.linalg.expm(generator)[:3], atol=1e-12
    )
    at_zero = jax.jit(jax.jacrev(render.se3_exp), **QUICK)(jnp.zeros(6))
    assert jnp.isfinite(at_zero).all()
    np.testing.assert_allclose(at_zero[:, 3, :3], np.eye(3))
    both = jax.jit(jax.jacrev(lambda x: render.se3_log(render.se3_exp(x))), **QUICK)
    np.testing.assert_allclose(both(jnp.zeros(6)), np.eye(6), atol=1e-12)
    np.testing.assert_allclose(both(tangent), np.eye(6), atol=1e-9)


def dense_samples(tau, values):
    t = jnp.exp(-jnp.cumsum(tau, 0))
    before = jnp.concatenate([jnp.ones_like(t[:1]), t[:-1]])
    live = before > 1e-4
    weight = jnp.where(live, before * -jnp.expm1(-tau), 0.0)
    final = jnp.exp(-jnp.sum(jnp.where(live, tau, 0.0), 0))
    return jnp.einsum("sr,src->rc", weight, values), final


@pytest.mark.parametrize("backend", ["xla", "warp"])
@pytest.mark.parametrize("scale", [1e-6, 0.05, 2.0])
def test_composited_samples_agree_with_the_twin(scale, backend):
    if backend == "warp" and not native.warp_available():
        pytest.skip(native.warp_missing())
    rng = np.random.default_rng(6)
    tau = (rng.exponential(size=(30, 50)) * scale).astype(np.float32)
    tau[:, 0] = 0
    values = rng.normal(size=(30, 50, 3)).astype(np.float32)
    cot, cot_t = rng.normal(size=(50, 3)), rng.normal(size=50)

    def graded(f, tau, values, cot, cot_t):
        def loss(tau, values):
            out, t = f(tau, values)
            return jnp.sum(out * cot) + jnp.sum(t * cot_t), (out, t)

        return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(tau, values)

    with jax.enable_x64(True):
        wide = (jnp.asarray(a, jnp.float64) for a in (tau, values, cot, cot_t))
        (_, truth), truth_grads = jax.tree.map(np.asarray, graded(dense_samples, *wide))
    narrow = (jnp.asarray(a, jnp.float32) for a in (tau, values, cot, cot_t))
    (_, mine), mine_grads = graded(partial(render.composite_samples, backend=backend), *narrow)
    for a, b in zip(mine, truth, strict=True):
        assert np.abs(a - b).max() <= 2e-6
    for a, b in zip(mine_grads, truth_grads, strict=True):
        assert np.abs(a - b).max() <= 5e-6 * np.abs(b).max()


@pytest.mark.parametrize("backend", ["auto", "warp"])
def test_samples_batch_by_vmap_as_in_a_loop(backend):
    if backend == "warp" and not native.warp_available():
        pytest.skip(native.warp_missing())
    rng = np.random.default_rng(7)
    tau = jnp.asarray(rng.exponential(size=(3, 8, 5)), jnp.float32)
    values = jnp.asarray(rng.normal(size=(3, 8, 5, 2)), jnp.float32)
    composite = partial(render.composite_samples, backend=backend)
    batch = jax.vmap(composite)(tau, values)
    for i in range(3):
        one = composite(tau[i], values[i])
        np.testing.assert_allclose(batch[0][i], one[0], atol=1e-6)


@pytest.mark.parametrize(
    ("match", "call"),
    [
        ("degree=5, expected 0 to 4", lambda: render.sh_basis(jnp.zeros((2, 3)), 5)),
        (r"directions has shape \(3, 2\)", lambda: render.sh_basis(jnp.zeros((3, 2)), 1)),
        (r"sh has shape \(4, 3\)", lambda: render.rotate_sh(jnp.zeros((4, 3)), jnp.eye(3))),
        ("sh has 5 coefficients", lambda: render.rotate_sh(jnp.zeros((2, 5, 3)), jnp.eye(3))),
        (
            r"rotation has shape \(3, 4\)",
            lambda: render.rotate_sh(jnp.zeros((2, 4, 3)), jnp.eye(3, 4)),
        ),
        (r"tangent has shape \(3,\)", lambda: render.se3_exp(jnp.zeros(3))),
        (r"motion has shape \(4, 4\)", lambda: render.se3_log(jnp.eye(4))),
        (
            r"tau has shape \(4,\)",
            lambda: render.composite_samples(jnp.zeros(4), jnp.zeros((4, 3))),
        ),
        (
            "backend='native', expected auto, warp or xla",
            lambda: render.composite_samples(
                jnp.zeros((2, 1)), jnp.zeros((2, 1, 3)), backend="native"
            ),
        ),
        (
            "tau is float32, values float16",
            lambda: render.composite_samples(jnp.zeros((2, 1)), jnp.zeros((2, 1, 3), jnp.float16)),
        ),
    ],
)
def test_errors_name_given_and_expected(match, call):
    with pytest.raises(ValueError, match=match):
        call()
