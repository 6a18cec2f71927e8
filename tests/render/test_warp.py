"""The Warp kernels of splats, beside what ``test_backends`` says of every backend."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lumefield import native, render
from lumefield.render._project_warp import project as project_warp
from lumefield.render._reference import project_reference
from lumefield.render._warp import default_capacity

H, W = 29, 37


@pytest.fixture(autouse=True)
def warp():
    if not native.warp_available():
        pytest.skip(native.warp_missing())


def gaussians(coefficients: int = 9, n: int = 40) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    arrays = {
        "means": rng.normal(size=(n, 3)) * [1.0, 0.8, 0.7] + [0, 0, 3],
        "quats_wxyz": rng.normal(size=(n, 4)),
        "scales": np.exp(rng.normal(size=(n, 3)) * 0.6 - 2.2),
        "opacities": rng.uniform(0.1, 0.9, n),
        "sh": rng.normal(size=(n, coefficients, 3)) * 0.3,
    }
    return {k: jnp.asarray(v, jnp.float32) for k, v in arrays.items()}


def camera(model: Any = "pinhole"):
    focal, centre = jnp.array([40.0, 42.0]), jnp.array([W / 2, H / 2])
    pose = jnp.eye(3, 4)
    return render.Cameras.from_pinhole(pose, focal, centre, height=H, width=W, model=model)


def shot(gaussians: dict[str, Any], camera: render.Cameras, backend: Any) -> jax.Array:
    options = render.SplatOptions(backend=backend)
    return render.rasterize_rgb(**gaussians, camera=camera, options=options)[0]


def test_code_for_each_platform_calls_its_own_kernels(monkeypatch):
    if not native.load():
        pytest.skip(f"native kernels are not available: {native.status().reason}")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(native, "warp_on_gpu", native.warp_available)
    g, views = gaussians(), camera()

    def loss(g, views):
        return jnp.sum(shot(g, views, "auto") ** 2)

    traced = jax.jit(jax.grad(loss, (0, 1))).trace(g, views)
    code = {
        name: traced.lower(lowering_platforms=(name,)).as_text() for name in ("cuda", "cpu", "tpu")
    }
    kernels = {
        "warp": [
            *("project_forward", "project_backward", "sh_backward", "camera_partial", "emit"),
            *("composite_forward", "composite_backward", "composite_reduce"),
        ],
        "native": ["ProjectForward", "ProjectBackward", "CompositeForward", "CompositeBackward"],
    }
    for platform, name in (("cuda", "warp"), ("cpu", "native"), ("tpu", "")):
        for other, symbols in kernels.items():
            assert all((symbol in code[platform]) == (other == name) for symbol in symbols)


def test_the_gradient_of_the_camera_is_computed_only_where_it_is_asked_for():
    def loss(g, view):
        return jnp.sum(shot(g, view, "warp") ** 2)

    for asked, there in (((0,), False), ((0, 1), True)):
        compiled = jax.jit(jax.grad(loss, asked)).lower(gaussians(), camera()).compile()
        code = compiled.as_text() or ""
        assert ("camera_partial" in code) == there
        assert "project_backward" in code


@pytest.mark.parametrize("antialiased", [False, True])
def test_a_needle_behind_a_long_lens_projects_as_in_float64(antialiased):
    static: dict[str, Any] = {"height": 600, "width": 900, "near": 0.01, "antialiased": antialiased}
    inputs = (
        np.array([[0.1, 0.05, 3.0], [0.3, -0.1, 4.0], [2.0, 0.0, 3.0], [0.0, 0.0, -1.0]]),
        np.array([[0.9, 0.1, 0.3, -0.2], [1.0, 0.0, 0.0, 0.0], [1.0, 0, 0, 0], [1.0, 0, 0, 0]]),
        np.array([[0.8, 2e-3, 1e-3], [0.01, 0.02, 0.03], [0.5, 0.5, 0.5], [0.1, 0.1, 0.1]]),
        np.array([0.9, 0.5, 0.7, 0.6]),
        np.random.default_rng(4).normal(size=(4, 16, 3)) * 0.3,
        np.eye(3, 4),
        np.array([2000.0, 2100.0]),
        np.array([450.0, 300.0]),
    )
    shapes = ((4, 2), (4, 3), (4,), (4,), (4, 3))
    cot = [np.random.default_rng(5).normal(size=s).astype(np.float32) for s in shapes]
    cot[0][3], cot[1][3], cot[4][3] = 0, 0, 0  # behind the camera only depth has a meaning

    def run(project, dtype):
        def both(inputs, cot):
            out, back = jax.vjp(lambda *x: tuple(project(*x)), *inputs)
            return out, back(tuple(cot))

        cast = [[jnp.asarray(a, np.float32).astype(dtype) for a in x] for x in (inputs, cot)]
        return jax.tree.map(np.asarray, jax.jit(both)(*cast))

    with jax.enable_x64(True):
        truth, back = run(partial(project_reference, model="pinhole", **static), jnp.float64)
    mine, mine_back = run(partial(project_warp, **static), jnp.float32)
    for a, b in zip(mine, truth, strict=True):
        error = np.abs(a - b)[:3] / np.maximum(1, np.abs(b[:3]))
        assert error.max() <= 1e-6
    assert mine[3][3] == 0
    for a, b in zip(mine_back, back, strict=True):
        assert np.abs(a - b).max() <= 5e-6 * np.abs(b).max()


@pytest.mark.parametrize(("model", "degree"), [("fisheye", 2), ("ortho", 2), ("pinhole", 4)])
def test_what_the_warp_projection_does_not_know_is_projected_by_xla(model, degree):
    g, view = gaussians((degree + 1) ** 2), camera(model)
    a, b = (jax.jit(shot, static_argnums=2)(g, view, name) for name in ("warp", "xla"))
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_gaussians_over_dozens_of_tiles_get_the_gradients_of_xla():
    n, height, width = 30, 100, 130  # 63 tiles: more than the threads that add a Gaussian's rows
    rng = np.random.default_rng(3)
    u, w = 1 / rng.uniform(2, 60, n), 1 / rng.uniform(2, 60, n)
    arrays = (
        rng.uniform(0, 1, (n, 2)) * [width, height],
        np.stack([u, rng.normal(size=n) * 0.02, w], -1),
        rng.uniform(0.05, 0.6, n),
        rng.uniform(1, 2, n),
        rng.normal(size=(n, 9)),
    )
    inputs = tuple(jnp.asarray(a, jnp.float32) for a in arrays)
    cot = jnp.asarray(rng.normal(size=(height, width, 9)), jnp.float32)

    def loss(arrays: Any, backend: Any) -> jax.Array:
        image, t = render.composite_gaussians(*arrays, height=height, width=width, backend=backend)
        return jnp.sum(image * cot) + jnp.sum(t * cot[..., 0])

    mine, other = (jax.jit(jax.grad(loss), static_argnums=1)(inputs, b) for b in ("warp", "xla"))
    for a, b in zip(mine, other, strict=True):
        assert np.abs(a - b).max() <= 5e-6 * max(np.abs(b).max(), 1e-30)


def test_a_list_made_once_is_the_same_picture_or_none_and_never_a_question_to_the_host():
    g, view = gaussians(n=1500), camera()  # the usual list might not hold so many
    weight = jnp.asarray(np.random.default_rng(1).normal(size=(H, W, 3)), jnp.float32)

    def step(slots: int | None) -> Any:
        options = render.SplatOptions(backend="warp", slots=slots)

        def loss(g: dict[str, Any]) -> Any:
            rgb, opacity = render.rasterize_rgb(**g, camera=view, options=options)
            return jnp.sum(rgb * weight), (rgb, opacity)

        return jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(g)

    lowered = {slots: step(slots) for slots in (None, 16, 16384)}
    asks = {slots: "stablehlo.while" in code.as_text() for slots, code in lowered.items()}
    assert asks == {None: True, 16: False, 16384: False}
    usual, small, ample = (lowered[slots].compile()(g) for slots in (None, 16, 16384))
    for a, b in zip(jax.tree.leaves(usual), jax.tree.leaves(ample), strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(np.isnan(x).all() for x in small[0][1])
    assert np.isnan(small[0][0])
    assert np.isnan(small[1]["means"]).any()


def test_more_slots_are_asked_for_until_any_number_will_do():
    options = render.SplatOptions().listed(100, 64, 64)
    assert options.slots == default_capacity(100, 64, 64)
    seen = [options.slots]
    while (options := options.wider()).slots:
        seen.append(options.slots)
    assert seen == [seen[0] * 2**i for i in range(len(seen))]
    assert seen[-1] == 2**24
    assert options == render.SplatOptions() == options.wider()


def test_the_capacity_is_a_power_of_two_that_holds_a_slot_for_every_tile():
    for n, height, width in ((1, 1, 1), (1, 4000, 6000), (10, 500, 500), (10**6, 1080, 1920)):
        capacity = default_capacity(n, height, width)
        assert capacity.bit_count() == 1
        assert capacity >= -(-height // 16) * -(-width // 16)
    assert default_capacity(10**9, 1080, 1920) == 2**22


CUDA = """
import json, struct, sys, warp as wp
from pathlib import Path
wp.config.log_level = wp.LOG_WARNING
wp.config.kernel_cache_dir = sys.argv[1]
from lumefield.native import _warp_adam
from lumefield.render import _warp_lists, _warp_photometric, _warp_project, _warp_tiles as tiles

def frames(path):
    "Bytes of local memory of each function in a cubin (attribute 0x11 of its .nv.info)."
    d = path.read_bytes()
    (table,) = struct.unpack_from("<Q", d, 40)
    size, count, names = struct.unpack_from("<HHH", d, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", d, table + i * size) for i in range(count)]
    for s in sections:
        at = sections[names][4] + s[0]
        if d[at : d.index(0, at)] != b".nv.info":
            continue
        at, end = s[4], s[4] + s[5]
        while at < end:
            form, attribute, length = struct.unpack_from("<BBH", d, at)
            if form == 4 and attribute == 0x11:
                yield struct.unpack_from("<II", d, at + 4)[1]
            at += 4 + (length if form == 4 else 0)

found = {}
for block, names in (
    (tiles.BLOCK, [tiles.forward(3), tiles.backward(3, False), tiles.backward(3, True)]),
    (tiles.BLOCK, [tiles.reduce(3, False)]),
    (256, [_warp_lists.emit, _warp_project.project_forward, _warp_adam.adam_rows]),
    (_warp_photometric.BLOCK, [_warp_photometric.photometric_value]),
    (_warp_project.CAMERA_BLOCK, [_warp_project.camera_partial]),
):
    for kernel in names:
        module = kernel.module
        module.options["block_dim"] = block
        folder = f"{sys.argv[1]}/{kernel.key}-{len(found)}"
        (path,) = wp.compile_aot_module(module, arch=[86], use_ptx=False, module_dir=folder)
        found[f"{kernel.key} {len(found)}"] = list(frames(Path(path)))
print(json.dumps(found))
"""


@pytest.mark.slow
def test_the_kernels_compile_for_cuda_and_tiles_stay_in_registers(tmp_path: Path):
    env = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(__file__).parents[2])}
    run = [sys.executable, "-c", CUDA, str(tmp_path)]
    done = subprocess.run(run, env=env, capture_output=True, text=True, check=False)
    if "NVRTC" in done.stderr and "not" in done.stderr:
        pytest.skip(f"this Warp cannot compile for CUDA: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 9
    assert all(found.values())
    for name, frames in found.items():
        if "composite" in name or "photometric" in name:
            assert max(frames) == 0, name
