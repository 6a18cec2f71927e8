"""Ours gives the numbers of an independent program, gsplat: see ``tests/data/README.md``.

Letters: u, v, w the triangular factor of the inverse 2D covariance, a, b, c that matrix itself.
Gradients of poses are compared along the six motions of the camera, because the two programs
extend a pose differently to matrices that are no motion.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lumefield import native, render

DATA = Path(__file__).parents[1] / "data"
TOLERANCE = 1e-5
EXACT = 1e-9  # in float64, where nothing but rounding differs
ROUTES = [
    ("reference", "float64"),
    ("xla", "float64"),
    ("xla", "float32"),
    ("native", "float32"),
    ("warp", "float32"),
]
GAUSSIANS = ("means", "quats", "scales", "opacities", "sh")
Arrays = dict[str, Any]


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def load(name: str) -> Arrays:
    return dict(np.load(DATA / f"gsplat_{name}.npz"))


def needs(backend: str) -> None:
    if backend == "native" and not native.load():
        pytest.skip("no native kernels: see `lumefield doctor`")
    if backend == "warp" and not native.warp_available():
        pytest.skip(native.warp_missing())


def assert_close(ours: Any, theirs: Any, tolerance: float = TOLERANCE) -> None:
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    assert error <= tolerance, f"relative error {error:.1e}"


def assert_rows_close(ours: Any, theirs: Any, tolerance: float) -> None:
    """Each Gaussian on its own scale, so that a few steep ones do not hide the others."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    axes = tuple(range(1, theirs.ndim))
    scale = np.abs(theirs).max(axes) + 1e-3 * np.median(np.abs(theirs).max(axes))
    error = (np.abs(ours - theirs).max(axes) / scale).max()
    assert error <= tolerance, f"relative error {error:.1e}"


def camera_of(a: Arrays, dtype: str, model: Any = "pinhole") -> render.Cameras:
    pose, focal, centre = (jnp.asarray(a[k], dtype) for k in ("world_from_cam", "focal", "centre"))
    height, width = (int(n) for n in a["size"])
    return render.Cameras.from_pinhole(pose, focal, centre, height=height, width=width, model=model)


def motions() -> np.ndarray:
    """The six 4x4 generators of camera motions, in camera axes."""
    out = np.zeros((6, 4, 4))
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        out[i, i, 3] = out[3 + i, k, j] = 1
        out[3 + i, j, k] = -1
    return out


def camera_gradients(grad: render.Cameras, a: Arrays) -> tuple[np.ndarray, np.ndarray, Any, Any]:
    """(motion, intrinsics) of ours, then of gsplat, for world_from_cam @ exp(motion)."""
    pose = np.concatenate([a["world_from_cam"], [[0, 0, 0, 1]]])
    ours = np.einsum("kij,ij->k", (pose @ motions())[:, :3], np.asarray(grad.world_from_cam))
    theirs = np.einsum("kij,ij->k", -motions() @ np.linalg.inv(pose), a["grad_view"])
    lens = np.concatenate([np.asarray(grad.focal), np.asarray(grad.centre)])
    k = a["grad_k"]
    return ours, lens, theirs, np.array([k[0, 0], k[1, 1], k[0, 2], k[1, 2]])


@pytest.mark.parametrize("model", ["pinhole", "ortho", "fisheye"])
@pytest.mark.parametrize(("backend", "dtype"), ROUTES)
def test_projection_and_its_gradients_agree(model: str, backend: Any, dtype: str):
    needs(backend)
    a = load(f"projection_{model}")
    valid, n = a["valid"], len(a["means"])
    options = render.SplatOptions(antialiased=True, backend=backend)
    names = ("xy", "depth", "conic", "compensation")
    weights = [(a[f"weights_{k}"].T * valid).T.astype(dtype) for k in names]

    def total(means: jax.Array, quats: jax.Array, scales: jax.Array, camera: render.Cameras):
        p = render.project_gaussians(
            means,
            quats,
            scales,
            jnp.ones(n, means.dtype),
            jnp.zeros((n, 1, 3), means.dtype),
            camera=camera,
            options=options,
        )
        u, v, w = (p.factor[:, i] for i in range(3))
        outputs = (p.xy, p.depth, jnp.stack([u * u, u * v, v * v + w * w], -1), p.opacities)
        return sum(jnp.vdot(*pair) for pair in zip(weights, outputs, strict=True)), outputs

    inputs = [jnp.asarray(a[k], dtype) for k in GAUSSIANS[:3]]
    run = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2, 3), has_aux=True))
    (_, outputs), grads = run(*inputs, camera_of(a, dtype, model))
    # float64 shows the formulas; fisheye keeps 1e-5, as gsplat adds 1e-7 to squared distances
    exact = dtype == "float64" and model != "fisheye"
    for name, value in zip(names, outputs, strict=True):
        assert_close(np.asarray(value)[valid], a[name][valid], EXACT if exact else TOLERANCE)
    for name, grad in zip(GAUSSIANS, grads[:3], strict=False):
        assert_close(grad, a[f"grad_{name}"], EXACT if exact else TOLERANCE)
        if dtype == "float64":
            assert_rows_close(grad, a[f"grad_{name}"], 1e-7 if exact else 1e-4)
    motion, lens, their_motion, their_lens = camera_gradients(grads[3], a)
    assert_close(motion, their_motion)
    assert_close(lens, their_lens)


@pytest.mark.parametrize("model", ["pinhole", "ortho", "fisheye"])
def test_gaussians_not_in_front_of_the_camera_are_culled(model: str):
    a = load(f"projection_{model}")
    n = len(a["means"])
    means, quats, scales = (jnp.asarray(a[k]) for k in GAUSSIANS[:3])
    p = render.project_gaussians(
        means,
        quats,
        scales,
        jnp.ones(n),
        jnp.zeros((n, 1, 3)),
        camera=camera_of(a, "float64", model),
        options=render.SplatOptions(),
    )
    behind = a["depth"] <= 0.01
    assert behind.any()
    assert not np.asarray(p.opacities)[behind].any()
    assert np.asarray(p.opacities)[a["valid"]].all()


@pytest.mark.parametrize("degree", range(5))
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_spherical_harmonics_and_their_gradients_agree(degree: int, dtype: str):
    a = load("sh")
    tolerance = 1e-12 if dtype == "float64" else TOLERANCE
    k = (degree + 1) ** 2

    def total(directions: jax.Array, coefficients: jax.Array):
        unit = directions / jnp.linalg.norm(directions, axis=-1, keepdims=True)
        values = jnp.einsum("nk,nkc->nc", render.sh_basis(unit, degree), coefficients)
        return jnp.vdot(jnp.asarray(a["weights"], dtype), values), values

    inputs = jnp.asarray(a["directions"], dtype), jnp.asarray(a["coefficients"][:, :k], dtype)
    (_, values), grads = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(*inputs)
    assert_close(values, a[f"values_{degree}"], tolerance)
    assert_close(grads[1][..., 0], a[f"grad_coefficients_{degree}"], tolerance)
    if degree:
        assert_close(grads[0], a[f"grad_directions_{degree}"], tolerance)
    else:
        assert not np.asarray(grads[0]).any()


def by_rasterize(splats: Arrays, camera: render.Cameras, options: render.SplatOptions):
    out = render.rasterize(**splats, camera=camera, options=options)
    depth = out.depth * out.opacity  # gsplat's is not divided by the opacity
    return jnp.concatenate([out.rgb, depth[..., None]], -1), out.opacity


def by_projection_and_composite(
    splats: Arrays, camera: render.Cameras, options: render.SplatOptions
):
    p = render.project_gaussians(**splats, camera=camera, options=options)
    image, transmittance = render.composite_gaussians(
        p.xy,
        p.factor,
        p.opacities,
        p.depth,
        jnp.concatenate([p.rgb, p.depth[:, None]], -1),
        height=camera.height,
        width=camera.width,
        backend=options.backend,
    )
    return image, 1 - transmittance


@functools.cache  # scenes of one shape share their compiled function
def compiled(way: Callable[..., Any], options: render.SplatOptions) -> Callable[..., Any]:
    def total(splats: Arrays, camera: render.Cameras, weights: tuple[jax.Array, jax.Array]):
        outputs = way(splats, camera, options)
        return sum(jnp.vdot(*pair) for pair in zip(weights, outputs, strict=True)), outputs

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))


def assert_image_agrees(scene: int, backend: Any, dtype: str, way: Callable[..., Any]) -> None:
    needs(backend)
    a = load(f"image_{scene}")
    run = compiled(way, render.SplatOptions(antialiased=bool(a["antialiased"]), backend=backend))
    weights = [jnp.asarray(a[f"weights_{k}"] / 100.0, dtype) for k in ("image", "alpha")]
    splats = {k: jnp.asarray(a[k], dtype) for k in GAUSSIANS}
    splats["quats_wxyz"] = splats.pop("quats")
    (_, (image, alpha)), (grads, grad_camera) = run(splats, camera_of(a, dtype), tuple(weights))
    tolerance = EXACT if dtype == "float64" else TOLERANCE
    assert_close(image, a["image"], tolerance)
    assert_close(alpha, a["alpha"], tolerance)
    grads["quats"] = grads.pop("quats_wxyz")
    for name in GAUSSIANS:
        assert_close(grads[name], a[f"grad_{name}"], tolerance)
    motion, lens, their_motion, their_lens = camera_gradients(grad_camera, a)
    assert_close(motion, their_motion)
    assert_close(lens, their_lens)


@pytest.mark.parametrize(("backend", "dtype"), ROUTES)
@pytest.mark.parametrize("scene", range(3))
def test_images_and_their_gradients_agree(scene: int, backend: Any, dtype: str):
    assert_image_agrees(scene, backend, dtype, by_rasterize)


@pytest.mark.parametrize(("backend", "dtype"), ROUTES)
def test_projecting_and_then_compositing_agrees_too(backend: Any, dtype: str):
    assert_image_agrees(0, backend, dtype, by_projection_and_composite)


def test_vectors_hold_the_hard_cases_they_promise():
    sizes = [path.stat().st_size for path in DATA.glob("gsplat_*.npz")]
    assert sum(sizes) < 1_000_000
    a = load("projection_pinhole")
    inside = (a["xy"] > 0).all(-1) & (a["xy"] < a["size"][::-1]).all(-1)
    assert (a["valid"] & ~inside).sum() > 10  # centres off the screen, shape on it
    assert (a["depth"][a["valid"]] < 0.1).any()
    for scene in range(3):
        a = load(f"image_{scene}")
        assert 1 - a["alpha"].max() > 1e-4  # gsplat drops the entry that ends a ray, ours counts
        assert a["max_alpha"] == 0.999
