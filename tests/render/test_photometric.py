"""The training loss against its float64 twin, and SSIM against an independent one."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from lumefield import native, render

SIZES = [(1, 1), (3, 17), (67, 45), (20, 30)]


@pytest.fixture(params=["xla", "native", "warp"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "native" and not native.load():
        pytest.skip(f"native kernels are not available: {native.status().reason}")
    if request.param == "warp" and not native.warp_available():
        pytest.skip(native.warp_missing())
    return request.param


def problem(height: int, width: int, kind: str = "noise", seed: int = 0) -> tuple[Any, Any, Any]:
    """Image (float32), truth and weight (uint8)."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    if kind == "smooth":
        y, x = np.mgrid[:height, :width]
        wave = 0.5 + 0.4 * np.sin(x / 7 + 1)[..., None] * np.cos(y / 5)[..., None]
        truth = np.round(255 * wave * [1, 0.8, 0.6]).astype(np.uint8)
    image = truth / 255 + rng.normal(size=truth.shape) * 0.1
    weight = rng.integers(0, 256, (height, width)).astype(np.uint8)
    weight[rng.uniform(size=weight.shape) < 0.3] = 0
    if kind == "all":
        weight = np.full((1, 1), 255, np.uint8)
    return image.astype(np.float32), truth, weight


QUICK = {"xla_llvm_disable_expensive_passes": True}
"""Compile fast."""


@functools.partial(jax.jit, static_argnums=(3, 4), compiler_options=QUICK)
def value_and_grad(image: Any, truth: Any, weight: Any, dssim: float, backend: str) -> Any:
    def loss(image: Any) -> Any:
        return render.photometric_loss(image, truth, weight, dssim=dssim, backend=backend)

    return jax.value_and_grad(loss)(image)


@functools.cache
def twin(size: tuple[int, int], kind: str) -> tuple[Any, Any]:
    image, truth, weight = problem(*size, kind)
    with jax.enable_x64(True):
        wide = jnp.asarray(image, jnp.float64)
        return jax.tree.map(np.asarray, value_and_grad(wide, truth, weight, 0.2, "xla"))


CASES = [*((s, "noise") for s in SIZES), *((s, "smooth") for s in SIZES), (SIZES[1], "all")]


@pytest.mark.parametrize(("size", "kind"), CASES)
def test_value_and_gradient_agree_with_the_float64_twin(
    size: tuple[int, int], kind: str, backend: str
):
    image, truth, weight = problem(*size, kind)
    value, grad = value_and_grad(image, truth, weight, 0.2, backend)
    expected, slope = twin(size, kind)
    assert abs(float(value) - expected) <= 5e-6
    assert np.abs(np.asarray(grad) - slope).max() <= 5e-6 * np.abs(slope).max()


@pytest.mark.parametrize("dssim", [0.0, 1.0])
def test_the_two_terms_are_right_by_themselves(dssim: float, backend: str):
    image, truth, weight = problem(20, 30, "all")
    value, grad = value_and_grad(image, truth, weight, dssim, backend)
    other = truth / 255
    if dssim:
        assert float(value) == pytest.approx(1 - independent_ssim(image, other), abs=2e-6)
    else:
        assert float(value) == pytest.approx(np.abs(image - other).mean(), rel=1e-5)
        np.testing.assert_allclose(grad, np.sign(image - other) / image.size, rtol=1e-5)


def test_a_pixel_of_weight_0_has_no_influence_and_no_gradient(backend: str):
    image, truth, weight = problem(20, 30)
    gone = weight == 0
    assert gone.any()
    value, grad = value_and_grad(image, truth, weight, 0.2, backend)
    assert (np.asarray(grad)[gone] == 0).all()
    image[gone], truth[gone] = 7.0, 99
    again, slope = value_and_grad(image, truth, weight, 0.2, backend)
    assert np.array_equal(value, again)
    assert np.array_equal(grad, slope)


def test_weight_1_everywhere_is_no_weight(backend: str):
    image, truth, one = problem(20, 30, "all")
    full = np.full((20, 30), 255, np.uint8)
    a = value_and_grad(image, truth, one, 0.2, backend)
    b = value_and_grad(image, truth, full, 0.2, backend)
    np.testing.assert_allclose(a[0], b[0], rtol=1e-6)
    np.testing.assert_allclose(a[1], b[1], atol=1e-9)


def test_equal_images_cost_nothing(backend: str):
    _, truth, weight = problem(20, 30)
    value, _ = value_and_grad((truth / 255).astype(np.float32), truth, weight, 0.2, backend)
    assert abs(float(value)) <= 1e-6


def test_the_gradient_scales_with_the_cotangent_and_vmap_is_a_loop(backend: str):
    stack = [problem(3, 17, seed=i) for i in range(3)]
    images, truths, weights = (np.stack(x) for x in zip(*stack, strict=True))

    def total(images: Any) -> Any:
        def one(image: Any, truth: Any, weight: Any) -> Any:
            return render.photometric_loss(image, truth, weight, backend=backend)

        return 3 * jnp.sum(jax.vmap(one)(images, truths, weights))

    got = jax.jit(jax.grad(total), compiler_options=QUICK)(jnp.asarray(images))
    for i, (image, truth, weight) in enumerate(stack):
        expected = 3 * value_and_grad(image, truth, weight, 0.2, backend)[1]
        np.testing.assert_allclose(got[i], expected, rtol=1e-5, atol=1e-8)


# psnr and ssim

SSIM = jax.jit(render.ssim, compiler_options=QUICK)


def independent_ssim(a: Any, b: Any) -> float:
    """Wang et al. 2004 by SciPy's filter, all in float64."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)

    def mean(x: Any) -> Any:
        return gaussian_filter(x, 1.5, mode="constant", radius=5, axes=(0, 1))

    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    top = (2 * ma * mb + 1e-4) * (2 * cov + 9e-4)
    return float((top / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))).mean())


@pytest.mark.parametrize("size", SIZES)
def test_ssim_is_that_of_an_independent_implementation(size: tuple[int, int]):
    image, truth, _ = problem(*size)
    a, b = jnp.asarray(image), jnp.asarray(truth / 255, jnp.float32)
    assert float(SSIM(a, b)) == pytest.approx(independent_ssim(a, b), abs=2e-6)


def test_ssim_is_symmetric_at_most_1_and_1_for_equal_images():
    image, truth, _ = problem(20, 30)
    a, b = jnp.asarray(image), jnp.asarray(truth / 255, jnp.float32)
    assert float(SSIM(a, b)) == pytest.approx(float(SSIM(b, a)), abs=1e-7)
    assert float(SSIM(a, b)) < 1
    for same in (a, b, jnp.zeros_like(a), jnp.ones_like(a)):
        assert float(SSIM(same, same)) == pytest.approx(1, abs=1e-6)


def test_psnr_has_its_known_values_and_batches():
    black = jnp.zeros((2, 4, 5, 3))
    other = jnp.stack([jnp.full((4, 5, 3), 0.1), jnp.ones((4, 5, 3))])
    np.testing.assert_allclose(render.psnr(black, other), [20.0, 0.0], atol=1e-5)
    assert float(render.psnr(black[0], black[0])) == np.inf


# errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth": (4, 6, 3)}, r"truth has shape \(4, 6, 3\), expected that of image, \(4, 5, 3\)"),
        ({"weight": (5, 4)}, r"weight has shape \(5, 4\), expected \(1, 1\) or \(4, 5\)"),
        ({"backend": "cuda"}, "backend='cuda', expected auto, native, warp or xla"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(change: dict[str, Any], message: str):
    truth = jnp.zeros(change.get("truth", (4, 5, 3)), jnp.uint8)
    weight = jnp.zeros(change.get("weight", (1, 1)), jnp.uint8)
    with pytest.raises(ValueError, match=message):
        render.photometric_loss(
            jnp.zeros((4, 5, 3)), truth, weight, backend=change.get("backend", "auto")
        )


@pytest.mark.parametrize("backend", ["native", "warp"])
def test_the_kernels_refuse_what_they_cannot_do(backend: str):
    with (
        jax.enable_x64(True),
        pytest.raises(ValueError, match=rf"backend='{backend}' with float64.*use '"),
    ):
        render.photometric_loss(
            jnp.zeros((4, 5, 3), jnp.float64),
            jnp.zeros((4, 5, 3), jnp.uint8),
            jnp.zeros((1, 1), jnp.uint8),
            backend=backend,
        )
