"""Every backend against the dense float64 twin, in value and gradient, 200 scenes and hard ones."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lumefield import native, render
from lumefield.render._composite import choose_backend
from lumefield.render._reference import composite_reference, project_reference
from lumefield.render._warp import composite as composite_warp
from lumefield.render._xla import composite as composite_xla

H, W, N, F = 29, 37, 64, 2
RANDOM = 200
QUICK: dict[str, Any] = {"compiler_options": {"xla_llvm_disable_expensive_passes": True}}
"""For functions that run once: compile fast."""
NAMES = ("means", "quats_wxyz", "scales", "opacities", "sh")
INPUTS = (*NAMES, "world_from_cam", "focal", "centre", "features", "background")
SETTINGS: dict[str, Any] = {
    "height": H,
    "width": W,
    "near": 0.01,
    "antialiased": False,
    "model": "pinhole",
}


@pytest.fixture(params=["xla", "native", "warp"])
def backend(request):
    if request.param == "native" and not native.load():
        pytest.skip(f"native kernels are not available: {native.status().reason}")
    if request.param == "warp" and not native.warp_available():
        pytest.skip(native.warp_missing())
    return request.param


def random_scene(seed) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    tilt = rng.normal(size=3) * 0.2
    motion = render.se3_exp(jnp.asarray(np.r_[rng.normal(size=3) * 0.2, tilt], jnp.float32))
    scene = {
        "means": rng.normal(size=(N, 3)) * [1.0, 0.8, 0.7] + [0, 0, 3],
        "quats_wxyz": rng.normal(size=(N, 4)),
        "scales": np.exp(rng.normal(size=(N, 3)) * 0.6 - 2.2),
        "opacities": 1 / (1 + np.exp(-2 * rng.normal(size=N))),
        "sh": rng.normal(size=(N, 9, 3)) * 0.3,
        "world_from_cam": np.asarray(motion),
        "focal": rng.uniform(30, 50, 2),
        "centre": np.array([W / 2, H / 2]) + rng.normal(size=2),
        "features": rng.normal(size=(N, F)),
        "background": rng.uniform(size=3),
    }
    scene["opacities"][on_the_kink(scene)] = 0
    return scene


def on_the_kink(scene):
    """Gaussians whose linearisation point is about to be clamped: rounding decides (1 of 13000)."""
    cam = (scene["means"] - scene["world_from_cam"][:, 3]) @ scene["world_from_cam"][:, :3]
    slope, size = cam[:, :2] / cam[:, 2:], np.array([W, H])
    margin = 0.15 * size / scene["focal"]
    low = scene["centre"] / scene["focal"] + margin
    high = (size - scene["centre"]) / scene["focal"] + margin
    return ((abs(slope - high) < 1e-5) | (abs(slope + low) < 1e-5)).any(-1)


def hard_scene(name):
    scene, rng = random_scene(1000), np.random.default_rng(1001)
    if name == "nothing visible":
        scene["opacities"] = np.zeros(N)
    if name == "one over the whole screen":
        scene["opacities"] = np.where(np.arange(N) == 7, 0.8, 0.0)
        scene["scales"][7] = 5.0
    if name == "behind the camera":
        scene["means"] = scene["means"] * [1, 1, -1]
    if name == "needles":
        scene["scales"] = np.exp(rng.normal(size=(N, 3)) * 0.2) * [1.5, 2e-3, 1e-3]
        scene["opacities"] = scene["opacities"] * 0.9
    if name == "equal depths":
        scene["world_from_cam"] = np.eye(3, 4)
        scene["means"][:, 2] = np.where(np.arange(N) % 2, 3.0, 2.5)
    if name == "opaque stacks":
        scene["opacities"] = rng.uniform(0.8, 1.0, N)
        scene["scales"] = scene["scales"] * 4
    return scene


HARD = (
    "nothing visible",
    "one over the whole screen",
    "behind the camera",
    "needles",
    "equal depths",
    "opaque stacks",
)


@functools.cache
def scenes() -> dict[str, np.ndarray]:
    """All scenes stacked, float32 values (so that both precisions see the same numbers)."""
    all_of_them = [random_scene(i) for i in range(RANDOM)] + [hard_scene(n) for n in HARD]
    return {k: np.stack([s[k] for s in all_of_them]).astype(np.float32) for k in all_of_them[0]}


@functools.cache
def cotangents() -> dict[str, np.ndarray]:
    rng, n = np.random.default_rng(5), RANDOM + len(HARD)
    shapes = {"rgb": (H, W, 3), "depth": (H, W), "opacity": (H, W), "features": (H, W, F)}
    return {k: rng.normal(size=(n, *s)).astype(np.float32) for k, s in shapes.items()}


def picture(scene, backend):
    camera = render.Cameras(
        scene["world_from_cam"], scene["focal"], scene["centre"], height=H, width=W
    )
    return render.rasterize(
        **{k: scene[k] for k in NAMES},
        camera=camera,
        features=scene["features"],
        background=scene["background"],
        options=render.SplatOptions(backend=backend),
    )


def graded(scene, cot, backend):
    def loss(scene):
        seen = picture(scene, backend)
        # sum w z, not the quotient: dividing by small opacities would amplify rounding by itself
        parts = seen._asdict() | {"depth": seen.depth * jnp.maximum(seen.opacity, 1e-8)}
        return sum((jnp.sum(cot[k] * parts[k]) for k in cot), jnp.zeros((), cot["rgb"].dtype)), seen

    (_, seen), grads = jax.value_and_grad(loss, has_aux=True)(scene)
    return seen, grads


def ambiguous(scene, margin=1e-4):
    inputs: Any = [scene[k] for k in (*NAMES, "world_from_cam", "focal", "centre")]
    p = project_reference(*inputs, **SETTINGS)
    seen = composite_reference(
        p.xy, p.factor, p.opacities, p.depth, p.rgb, height=H, width=W, margin=margin
    )
    return seen.ambiguous


@functools.cache
def twin() -> Any:
    """Rendering, gradients and ambiguous pixels of all scenes in float64."""

    @functools.partial(jax.jit, **QUICK)
    def run(scenes, cots):
        def one(item):
            scene, cot = item
            mask = ambiguous(scene)
            cot = {
                k: jnp.where(mask.reshape(H, W, *[1] * (v.ndim - 2)), 0.0, v)
                for k, v in cot.items()
            }
            return graded(scene, cot, "reference"), mask

        return jax.lax.map(one, (scenes, cots))

    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (scenes(), cotangents()))
        return jax.tree.map(np.asarray, run(*wide))


@functools.cache
def ours(backend: str) -> Any:
    """Rendering and gradients of all scenes in float32, the same pixels left out."""
    mask = twin()[1]
    cots = {
        k: np.where(mask.reshape(*mask.shape, *[1] * (v.ndim - 3)), np.float32(0), v)
        for k, v in cotangents().items()
    }

    @jax.jit
    def run(scenes, cots):
        return jax.lax.map(lambda item: graded(item[0], item[1], backend), (scenes, cots))

    return jax.tree.map(
        np.asarray, run(jax.tree.map(jnp.asarray, scenes()), jax.tree.map(jnp.asarray, cots))
    )


def image_error(backend, which, name):
    (truth, _), mask = twin()
    error = np.abs(getattr(ours(backend)[0], name)[which] - getattr(truth, name)[which])
    scale = np.maximum(1, np.abs(getattr(truth, name)[which]).max())
    keep = ~mask[which].reshape(*error.shape[:3], *[1] * (error.ndim - 3))
    return (error * keep).max() / scale


def gradient_error(backend, which, name):
    """Largest difference over largest entry of all random scenes (one scene's sum may cancel)."""
    truth = twin()[0][1][name]
    scale = max(np.abs(truth[:RANDOM]).max(), np.abs(truth[which]).max())
    return np.abs(ours(backend)[1][name][which] - truth[which]).max() / scale


def test_few_pixels_are_ambiguous():
    assert twin()[1][:RANDOM].mean() < 0.01


@pytest.mark.parametrize("name", ["rgb", "opacity", "features"])
def test_images_of_200_random_scenes_agree_with_the_twin(backend, name):
    assert image_error(backend, slice(0, RANDOM), name) <= 2e-6


@pytest.mark.parametrize("name", INPUTS)
def test_gradients_of_200_random_scenes_agree_with_the_twin(backend, name):
    assert gradient_error(backend, slice(0, RANDOM), name) <= 5e-6
    truth, mine = twin()[0][1][name][:RANDOM], ours(backend)[1][name][:RANDOM]
    axes = tuple(range(1, truth.ndim))
    each = np.abs(mine - truth).max(axes) / np.abs(truth).max(axes)
    assert np.quantile(each, 0.95) <= 7e-6  # the sums over a scene for the two focal lengths cancel


@pytest.mark.parametrize("case", HARD)
def test_hard_scenes_agree_with_the_twin(backend, case):
    i = RANDOM + HARD.index(case)
    assert image_error(backend, slice(i, i + 1), "rgb") <= 2e-6
    errors = {k: gradient_error(backend, slice(i, i + 1), k) for k in INPUTS}
    assert max(errors.values()) <= 5e-6, errors
    if case in ("nothing visible", "behind the camera"):
        assert (ours(backend)[0].opacity[i] == 0).all()
        assert (ours(backend)[0].rgb[i] == scenes()["background"][i]).all()


def test_expected_depth_agrees_where_something_is_seen(backend):
    (truth, _), mask = twin()
    seen = (truth.opacity > 0.05) & ~mask
    assert np.abs(ours(backend)[0].depth - truth.depth)[seen].max() <= 2e-5
    assert (ours(backend)[0].depth[truth.opacity == 0] == 0).all()


def flat(n, height, width, seed=0, opacity=(0.05, 0.95), sigma=(0.6, 3.0)) -> Any:
    """Projected Gaussians of one composite, float32."""
    rng: Any = np.random.default_rng(seed)
    u, w = 1 / rng.uniform(*sigma, n), 1 / rng.uniform(*sigma, n)
    arrays = (
        rng.uniform(-1, 1, (n, 2)) * [width, height] * 0.6 + [width / 2, height / 2],
        np.stack([u, rng.normal(size=n) * 0.2, w], -1),
        rng.uniform(*opacity, n),
        rng.integers(1, max(n // 2, 2), n),
        rng.normal(size=(n, 4)),
    )
    return tuple(np.asarray(a, np.float32) for a in arrays)


def composited(arrays, cot, size, backend, **jit: Any):
    """Image, transmittance and gradients of one composite (``backend`` may be the twin)."""

    def loss(arrays):
        image, t = render.composite_gaussians(*arrays, **size, backend=backend)
        return jnp.sum(image * cot[..., :-1]) + jnp.sum(t * cot[..., -1]), (image, t)

    (_, out), grads = jax.jit(jax.value_and_grad(loss, has_aux=True), **jit)(arrays)
    return out, grads


def compare(arrays, height, width, backend):
    size = {"height": height, "width": width}
    cot = np.random.default_rng(9).normal(size=(height, width, 5)).astype(np.float32)
    with jax.enable_x64(True):
        wide: Any = tuple(jnp.asarray(a, jnp.float64) for a in arrays)
        seen: Any = jax.jit(lambda a: composite_reference(*a, **size), **QUICK)(wide)
        cot = np.where(np.asarray(seen.ambiguous)[..., None], np.float32(0), cot)
        truth = composited(wide, jnp.asarray(cot, jnp.float64), size, "reference", **QUICK)
        truth = jax.tree.map(np.asarray, truth)
    mine = composited(tuple(map(jnp.asarray, arrays)), jnp.asarray(cot), size, backend)
    keep = ~np.asarray(seen.ambiguous)
    assert keep.mean() > 0.97
    for a, b in zip(mine[0], truth[0], strict=True):
        assert np.abs(a - b)[keep].max() <= 2e-6 * max(1, np.abs(b).max())
    for a, b in zip(mine[1], truth[1], strict=True):
        assert np.abs(a - b).max() <= 5e-6 * max(np.abs(b).max(), 1e-30)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 17), (1, 50)])
def test_odd_image_sizes_agree_with_the_twin(backend, height, width):
    compare(flat(40, height, width), height, width, backend)


def test_ten_thousand_gaussians_in_one_tile_agree_with_the_twin(backend):
    compare(flat(10_000, 14, 13, opacity=(0.004, 0.02)), 14, 13, backend)


def test_no_gaussians_at_all_show_nothing(backend):
    empty = tuple(jnp.asarray(a[:0]) for a in flat(1, 4, 5))
    image, t = render.composite_gaussians(*empty, height=4, width=5, backend=backend)
    assert image.shape == (4, 5, 4)
    assert (image == 0).all()
    assert (t == 1).all()


@pytest.mark.parametrize("backend", ["xla", "warp"], indirect=True)
def test_gaussians_that_are_not_finite_are_culled(backend):
    arrays = [a.copy() for a in flat(20, 20, 20)]
    arrays[0][3], arrays[1][4], arrays[3][5] = np.nan, np.inf, np.nan
    rest = [np.delete(a, [3, 4, 5], 0) for a in arrays]
    size: dict[str, Any] = {"height": 20, "width": 20, "backend": backend}
    a = render.composite_gaussians(*map(jnp.asarray, arrays), **size)[0]
    b = render.composite_gaussians(*map(jnp.asarray, rest), **size)[0]
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_equal_depths_keep_input_order(backend):
    size: dict[str, Any] = {"height": 1, "width": 1, "backend": backend}
    stack = (
        jnp.full((3, 2), 0.5),
        jnp.tile(jnp.array([[1.0, 0.0, 1.0]]), (3, 1)),
        jnp.full(3, 0.5),
        jnp.ones(3),
        jnp.eye(3),
    )
    image, t = render.composite_gaussians(*stack, **size)
    np.testing.assert_allclose(image[0, 0], [0.5, 0.25, 0.125], rtol=1e-6)
    np.testing.assert_allclose(t[0, 0], 0.125, rtol=1e-6)


def test_the_last_entry_of_a_pixel_counts_in_full(backend):
    n = 6
    stack = (
        jnp.full((n, 2), 0.5),
        jnp.tile(jnp.array([[1.0, 0.0, 1.0]]), (n, 1)),
        jnp.full(n, 0.95),
        jnp.arange(n, dtype=jnp.float32),
        jnp.eye(n),
    )
    image, t = render.composite_gaussians(*stack, height=1, width=1, backend=backend)
    # T: 1, 0.05, 2.5e-3, 1.25e-4, 6.25e-6: the fourth entry is the last one, applied in full
    np.testing.assert_allclose(image[0, 0, :4], 0.95 * 0.05 ** np.arange(4), rtol=1e-5)
    assert (image[0, 0, 4:] == 0).all()
    np.testing.assert_allclose(t[0, 0], 0.05**4, rtol=1e-4)


@pytest.mark.parametrize("backend", ["xla", "warp"], indirect=True)
def test_a_small_capacity_takes_more_passes_and_changes_nothing(backend):
    composite: Any = {"xla": composite_xla, "warp": composite_warp}[backend]
    arrays = tuple(map(jnp.asarray, flat(300, 45, 50, sigma=(1.0, 9.0))))
    cot = jnp.asarray(np.random.default_rng(2).normal(size=(45, 50, 4)), jnp.float32)

    def run(capacity):
        def loss(arrays):
            image, t = composite(*arrays, height=45, width=50, capacity=capacity)
            return jnp.sum(image * cot) + jnp.sum(t), (image, t)

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(arrays)

    (_, small), small_grads = run(1)  # rounded up to the 12 tiles: dozens of passes
    (_, large), large_grads = run(2**14)
    for a, b in zip(small, large, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
    for a, b in zip(small_grads, large_grads, strict=True):
        np.testing.assert_allclose(a, b, atol=5e-6 * float(jnp.abs(b).max()))


def test_the_probe_returns_the_sum_of_absolute_gradients(backend):
    height, width, n = 6, 7, 5
    arrays = tuple(map(jnp.asarray, flat(n, height, width)))
    cot = jnp.asarray(np.random.default_rng(3).normal(size=(height, width, 4)), jnp.float32)
    size: dict[str, Any] = {"height": height, "width": width}

    def pixels(xy):
        seen = composite_reference(xy, arrays[1], arrays[2], arrays[3], arrays[4], **size)
        return jnp.sum(seen.image * cot, -1).reshape(-1)

    def probed(probe):
        image, _ = render.composite_gaussians(*arrays, **size, probe=probe, backend=backend)
        return jnp.sum(image * cot)

    expected = jnp.abs(jax.jacrev(pixels)(arrays[0])).sum(0)
    got = jax.jit(jax.grad(probed))(jnp.zeros((n, 2)))
    np.testing.assert_allclose(got, expected, atol=1e-5 * float(expected.max()))


@pytest.mark.parametrize("backend", ["auto", "xla", "reference"])
def test_a_probe_beside_more_than_eight_channels_is_refused(backend):
    arrays: Any = (*map(jnp.asarray, flat(5, 6, 7)[:4]), jnp.ones((5, 9)))
    size: dict[str, Any] = {"height": 6, "width": 7, "backend": backend}
    assert render.composite_gaussians(*arrays, **size)[0].shape == (6, 7, 9)
    with pytest.raises(ValueError, match="9 channels beside a probe, expected at most 8; compos"):
        render.composite_gaussians(*arrays, **size, probe=jnp.zeros((5, 2)))


def one_scene() -> dict[str, Any]:
    return {k: jnp.asarray(v[0]) for k, v in scenes().items()}


def cameras(count):
    batch = {k: jnp.asarray(v[:count]) for k, v in scenes().items()}
    return render.Cameras(
        batch["world_from_cam"], batch["focal"], batch["centre"], height=H, width=W
    )


def shot(gaussians, camera, backend):
    options = render.SplatOptions(backend=backend)
    return render.rasterize_rgb(**gaussians, camera=camera, options=options)[0]


def test_jit_equals_eager_and_cameras_batch_as_in_a_loop(backend):
    g = {k: one_scene()[k] for k in NAMES}
    views = cameras(3)
    jitted = jax.jit(shot, static_argnums=2)
    loop = jnp.stack([jitted(g, views[i], backend) for i in range(3)])
    batch = jitted(g, views, backend)
    mapped = jax.jit(jax.vmap(lambda c: shot(g, c, backend)))(views)
    eager = shot(g, views[0], backend)
    for a, b in ((batch, loop), (mapped, loop), (eager, loop[0])):
        error = np.abs(np.asarray(a - b))  # the 1/255 cut may flip: quantile, not maximum
        assert np.quantile(error, 0.999) <= 2e-6
        assert error.max() <= 1 / 255


def test_gradients_through_vmap_are_the_sum_over_cameras_and_repeat_exactly(backend):
    g = {k: one_scene()[k] for k in NAMES}
    views = cameras(3)

    def loss(g, views):
        return jnp.sum(shot(g, views, backend) ** 2)

    one = jax.jit(jax.grad(loss))
    many = jax.jit(jax.grad(lambda g: jnp.sum(jax.vmap(loss, (None, 0))(g, views))))
    first, second = many(g), many(g)
    parts = [one(g, views[i]) for i in range(3)]
    for k in g:
        assert (first[k] == second[k]).all()
        total = sum(p[k] for p in parts)
        assert np.abs(first[k] - total).max() <= 2e-5 * np.abs(total).max()


def test_pose_and_lens_gradients_are_those_of_finite_differences():
    with jax.enable_x64(True):
        scene = {k: jnp.asarray(v[0], jnp.float64) for k, v in scenes().items()}
        cot = jnp.asarray(cotangents()["rgb"][0], jnp.float64)
        pose = scene["world_from_cam"]

        @jax.jit
        def loss(x):
            turn = render.se3_exp(x[:6])
            moved = turn[:, :3] @ pose + jnp.pad(turn[:, 3:], ((0, 0), (3, 0)))
            lens = {"focal": scene["focal"] + x[6:8], "centre": scene["centre"] + x[8:]}
            return jnp.sum(picture(scene | lens | {"world_from_cam": moved}, "reference").rgb * cot)

        x = jnp.zeros(10)
        slope, step = jax.jit(jax.grad(loss))(x), 1e-6
        for i in range(10):
            difference = (loss(x.at[i].set(step)) - loss(x.at[i].set(-step))) / (2 * step)
            np.testing.assert_allclose(slope[i], difference, rtol=1e-5, atol=1e-5)


def test_on_a_machine_with_an_accelerator_each_platform_gets_its_own_branch(monkeypatch):
    if not native.load():
        pytest.skip("native kernels are not available")
    arrays = tuple(map(jnp.asarray, flat(12, 9, 9)))
    size: dict[str, Any] = {"height": 9, "width": 9}
    expected = render.composite_gaussians(*arrays, **size, backend="native")[0]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(native, "warp_on_gpu", native.warp_available)
    got = jax.jit(lambda *a: render.composite_gaussians(*a, **size)[0])(*arrays)
    np.testing.assert_array_equal(got, expected)


def test_errors_name_given_expected_and_remedy(monkeypatch):
    arrays = list(map(jnp.asarray, flat(3, 4, 4)))
    size: dict[str, Any] = {"height": 4, "width": 4}
    wrong: list[tuple[str, dict[int, Any], dict[str, Any]]] = [
        (r"xy has shape \(3,\)", {0: jnp.zeros(3)}, {}),
        (r"factor has shape \(3, 2\), expected \(3, 3\)", {1: jnp.zeros((3, 2))}, {}),
        ("opacities is float16 and xy float32", {2: jnp.zeros(3, jnp.float16)}, {}),
        ("height=0", {}, {"height": 0}),
    ]
    for match, changed, extra in wrong:
        inputs = [changed.get(i, a) for i, a in enumerate(arrays)]
        with pytest.raises(ValueError, match=match):
            render.composite_gaussians(*inputs, **(size | extra))
    with pytest.raises(ValueError, match="backend='cuda', expected one of"):
        choose_backend("cuda", jnp.float32)
    monkeypatch.setattr("lumefield.render._native.available", lambda: False)
    with pytest.raises(ValueError, match="no native library could be loaded"):
        render.composite_gaussians(*arrays, **size, backend="native")
    monkeypatch.setattr("lumefield.render._native.available", lambda: True)
    for name in ("native", "warp"):
        with pytest.raises(
            ValueError, match=f"backend='{name}' with .*, expected float32; use 'xl"
        ):
            choose_backend(name, jnp.float64)
    monkeypatch.setattr(native, "warp_available", lambda: False)
    monkeypatch.setattr(native, "warp_missing", lambda: "warp-lang is not there; get it")
    with pytest.raises(
        ValueError, match="'warp', but warp-lang is not there; get it, or use 'auto"
    ):
        render.composite_gaussians(*arrays, **size, backend="warp")


def test_rasterize_errors_name_given_and_expected():
    scene = one_scene()
    good: dict[str, Any] = {k: scene[k] for k in NAMES} | {"camera": cameras(1)[0]}
    wrong: list[tuple[str, dict[str, Any]]] = [
        (r"means has shape \(2, 64, 3\)", {"means": jnp.zeros((2, N, 3))}),
        (r"sh has shape \(64, 3\)", {"sh": jnp.zeros((N, 3))}),
        ("sh has 5 coefficients", {"sh": jnp.zeros((N, 5, 3))}),
        (r"scales has shape \(64, 2\), expected \(64, 3\)", {"scales": jnp.zeros((N, 2))}),
        ("scales is int32", {"scales": jnp.ones((N, 3), jnp.int32)}),
        (r"background has shape \(4,\)", {"background": jnp.zeros(4)}),
        (r"features has shape \(3, 2\)", {"features": jnp.zeros((3, 2))}),
    ]
    for match, changed in wrong:
        with pytest.raises(ValueError, match=match):
            render.rasterize(**(good | changed))
