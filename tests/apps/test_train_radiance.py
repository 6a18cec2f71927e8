"""Radiance fields through ``train``: run folder, exact resume, the other commands, errors."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lumefield.apps import _cli, _radiance_plan
from lumefield.apps._capture_type import Capture
from lumefield.apps._field_file import read_field, read_surface
from lumefield.apps._frame import WorldFrame
from lumefield.apps._inspect import describe, facts
from lumefield.apps._poses import preconditioners, refined_pose
from lumefield.apps._rays import RayBatches, seen_points
from lumefield.apps._scene_io import load_scene, scene_draw
from lumefield.errors import FormatError, InputError, RunError
from tests.apps.train_cases import Capsys, contents, only_line, posed_room, train_here

METHODS = ("nerf", "mipnerf360", "ngp", "zipnerf", "kplanes")


TINY: dict[str, dict[str, Any]] = {
    "nerf": {"width": 16, "depth": 2, "degrees": 3},
    "mipnerf360": {"width": 16, "depth": 2, "degrees": 3, "proposal_width": 16},
    "ngp": {"levels": 4, "coarsest": 8, "finest": 64, "log2_entries": 10, "width": 16},
    "kplanes": {"sizes": (8, 16), "features": 4, "width": 16, "proposal_size": 8},
    "zipnerf": {
        "levels": 4,
        "coarsest": 8,
        "finest": 64,
        "log2_entries": 10,
        "width": 16,
        "proposal_levels": 3,
        "proposal_finest": 32,
        "proposal_log2_entries": 10,
        "proposal_width": 8,
    },
}


def shrink(patch: pytest.MonkeyPatch) -> None:
    """Few cells, few rays, tiny networks: compiling is most of what is left."""
    patch.setattr("lumefield.apps._radiance_job._CELLS", 32)
    patch.setattr("lumefield.apps._radiance_draw._BLOCK", 512)
    patch.setattr("lumefield.apps._radiance_io._SURFACE", 500)
    for method, options in TINY.items():
        patch.setitem(_radiance_plan.METHODS, method, small_plan(method, options))


def small_plan(method: str, options: dict[str, Any]) -> Any:
    make = _radiance_plan.METHODS[method]

    def plan(*words: Any) -> Any:
        recipe = make(*words)
        sampling = dataclasses.replace(
            recipe.sampling,
            counts=(16, 8),
            capacity=1 << 13,
            kept=1 << 12,
            step=1 / 32,
            cone=1 / 32,
        )
        return dataclasses.replace(
            recipe, chunk=20, rays=256, sampling=sampling, options=tuple(options.items())
        )

    return plan


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return posed_room(tmp_path_factory.mktemp("radiance") / "room")


def log(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def trained(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ``ngp``, 60 steps in one go; copy it before changing it."""
    return tiny_ngp(place, tmp_path_factory.mktemp("trained") / "run")


def tiny_ngp(place: Path, out: Path) -> Path:
    """A run of 60 steps."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        assert train_here(place, "--out", out, "--method", "ngp", "--steps", 60) == 0
    return out


def test_a_run_holds_its_field_its_metrics_and_a_report(trained: Path) -> None:
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["method"] == "ngp"
    assert metrics["num_gaussians"] == 0
    assert metrics["parameters"] > 1000
    assert len(metrics["views"]) == 2
    assert np.isfinite(metrics["psnr"])
    assert not (trained / "scene.ply").exists()
    assert "parameters of the field" in (trained / "report.html").read_text()
    lines = log(trained)
    assert [line["step"] for line in lines] == [20, 40, 60]
    assert lines[-1]["psnr"] > lines[0]["psnr"]
    assert all(line["rays"] > 0 and line["samples"] > 0 for line in lines)
    assert "held_out_psnr" in lines[-1]


def test_a_stopped_ngp_run_ends_in_the_same_bytes(
    trained: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    from tests.apps.test_train_resume import interrupt_at

    with monkeypatch.context() as patch:
        interrupt_at(20, patch)
        words = ("--out", tmp_path / "parts", "--method", "ngp", "--steps", 60)
        assert train_here(place, *words) == 0
    assert "stopped after 20 of 60 steps" in capsys.readouterr().out
    assert (tmp_path / "parts" / "field.safetensors").is_file()
    assert train_here(place, "--out", tmp_path / "parts", "--resume") == 0
    same = "field.safetensors"
    assert (tmp_path / "parts" / same).read_bytes() == (trained / same).read_bytes()
    assert log(tmp_path / "parts") == log(trained)


def test_the_field_is_read_back_as_it_was_drawn(trained: Path) -> None:
    scene = load_scene(trained)
    assert scene.field is not None
    assert scene.views is not None
    view = scene.views.test().pick([0])
    picture = scene_draw(scene)(view)
    stem = Path(view.names[0]).stem
    with Image.open(trained / "renders" / f"{stem}.png") as image:
        stored = np.asarray(image)
    drawn = np.clip(picture.rgb, 0, 1) * 255
    assert np.abs(drawn - stored).max() < 1.01
    assert picture.depth.shape == stored.shape[:2]
    points, weights = scene.surface()
    assert len(points) == len(weights)
    x = jnp.zeros((4, 3))
    assert scene.field.density(x).shape == (4,)
    assert scene.field.colour(x, jnp.eye(4, 3)).shape == (4, 3)
    with pytest.raises(InputError, match="holds a radiance field"):
        _ = scene.splats


def test_evaluate_render_and_inspect_know_fields(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    before = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").unlink()
    assert _cli.main(["evaluate", str(run)]) == 0
    after = json.loads((run / "metrics.json").read_text())
    assert after["psnr"] == pytest.approx(before["psnr"], abs=0.01)
    words = ["render", str(run), "--path", "orbit", "--frames", "2", "--width", "20"]
    assert _cli.main([*words, "--out", str(tmp_path / "frames")]) == 0
    assert len(list((tmp_path / "frames").glob("*.png"))) == 2
    assert _cli.main([*words, "--depth", "--out", str(tmp_path / "depth")]) == 0
    assert (tmp_path / "depth" / "depth.json").is_file()
    found = facts(run)
    assert found["method"] == "ngp"
    assert found["parameters"] == before["parameters"]
    assert "ngp" in describe(found)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "ngp"])
def test_every_method_trains_and_is_read_back(method: str, place: Path, tmp_path: Path) -> None:
    words = ("--out", tmp_path / "run", "--method", method, "--steps", 40)
    assert train_here(place, *words) == 0
    lines = log(tmp_path / "run")
    assert lines[-1]["psnr"] > lines[0]["psnr"]
    assert load_scene(tmp_path / "run").field is not None


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_option_together_resumes_exactly(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.apps.test_train_resume import interrupt_at

    room = posed_room(tmp_path / "room", transparent=True)
    words = ("--method", method, "--steps", 40, "--appearance", "--exposure", "--refine-poses")
    words = (*words, "--depth-weight", 0.1, "--background", "random")
    assert train_here(room, "--out", tmp_path / "whole", *words) == 0
    with monkeypatch.context() as patch:
        interrupt_at(20, patch)
        assert train_here(room, "--out", tmp_path / "parts", *words) == 0
    assert train_here(room, "--out", tmp_path / "parts", "--resume") == 0
    same = "field.safetensors"
    whole, parts = ((tmp_path / name / same).read_bytes() for name in ("whole", "parts"))
    assert whole == parts
    _, arrays = read_field(tmp_path / "whole" / same)
    assert np.abs(arrays["scene.pose"]).max() > 0
    assert np.abs(arrays["scene.exposure"]).max() > 0


WRONG = [
    (("--method", "ngp", "--max-gaussians", 100), "--max-gaussians does nothing for --method ngp"),
    (("--method", "nerf", "--densify", "adc"), "--densify does nothing for --method nerf"),
    (("--appearance",), "--appearance does nothing for --method splat"),
    (("--method", "ngp", "--depth-weight", -1), "--depth-weight -1.0, expected 0.0 to"),
]


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_options_of_another_method_are_refused_in_one_line(
    words: tuple[object, ...], message: str, tmp_path: Path, capsys: Capsys
) -> None:
    assert train_here(tmp_path, "--out", tmp_path / "out", *words) == 2
    assert message in only_line(capsys)
    assert not (tmp_path / "out").exists()


def test_an_unknown_method_names_the_known_ones(tmp_path: Path, capsys: Capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        train_here(tmp_path, "--out", tmp_path / "out", "--method", "gauss")
    assert ended.value.code == 2
    assert "ngp" in capsys.readouterr().err


def test_another_method_cannot_resume(trained: Path, place: Path, capsys: Capsys) -> None:
    before = contents(trained)
    assert train_here(place, "--out", trained, "--resume", "--method", "nerf") == 2
    assert "was started with ngp" in only_line(capsys)
    assert contents(trained) == before


def test_damaged_field_files_raise(trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    file = run / "field.safetensors"
    data = file.read_bytes()
    for bad in (b"", data[:100], data[: len(data) // 2], b"\xff" * 200):
        file.write_bytes(bad)
        with pytest.raises(FormatError, match=r"field\.safetensors: not a radiance field"):
            load_scene(run)
        with pytest.raises(FormatError, match="not a radiance field"):
            read_surface(file)
    file.write_bytes(data.replace(b'\\"format\\": 1', b'\\"format\\": 9'))
    with pytest.raises(FormatError, match="made by a newer lumefield"):
        load_scene(run)
    file.unlink()
    with pytest.raises(RunError, match="not found"):
        read_field(file)


# -- batches, frame, points ------------------------------------------------------------------


def tiny_capture(n: int = 3) -> Capture:
    rng = np.random.default_rng(0)
    poses = np.tile(np.eye(3, 4), (n, 1, 1))
    poses[:, 2, 3] = -3
    poses[:, 0, 3] = np.linspace(-0.5, 0.5, n)
    points = rng.uniform(-1, 1, (400, 3))
    return Capture(
        names=tuple(f"{i}.png" for i in range(n)),
        images=rng.integers(0, 255, (n, 8, 12, 3)).astype(np.uint8),
        weights=np.full((n, 1, 1), 255, np.uint8),
        alphas=np.full((n, 1, 1), 255, np.uint8),
        world_from_cam=poses,
        focal=np.full((n, 2), 10.0),
        centre=np.tile([6.0, 4.0], (n, 1)),
        sizes=np.tile(np.array([12, 8]), (n, 1)),
        points=points,
        colours=np.zeros((400, 3), np.uint8),
        held_out=(0,),
    )


def test_batches_are_a_function_of_the_step() -> None:
    capture, frame = tiny_capture(), WorldFrame(1.0, (0.0, 0.0, 0.0))
    batches = RayBatches(capture, frame, rays=64, seed=1, factors=(1, 2), shares=(0.75, 0.25))
    whole, parts = batches(0, 4), (batches(0, 2), batches(2, 2))
    for k, leaf in enumerate(whole):
        np.testing.assert_array_equal(leaf, np.concatenate([parts[0][k], parts[1][k]]))
    assert whole.index.shape == (4, 64)
    assert set(np.unique(whole.side)) == {1.0, 2.0}
    assert (whole.side == 2).sum() == 4 * 16
    one = whole.side == 1
    x, y = (whole.pixel[one] - 0.5).astype(int).T
    photos = capture.images[list(capture.train)]
    np.testing.assert_array_equal(whole.rgb[one], photos[whole.index[one], y, x])


def test_anchored_rays_look_at_their_points() -> None:
    capture, frame = tiny_capture(), WorldFrame(1.0, (0.0, 0.0, 0.0))
    anchors = seen_points(capture, frame)
    assert anchors is not None
    batch = RayBatches(capture, frame, rays=64, seed=0, anchors=anchors)(0, 1)
    assert (batch.depth > 0).sum() == 8
    assert batch.depth.max() < 4.1
    assert seen_points(tiny_capture(1), frame) is None


def test_the_focus_frame_holds_what_the_photos_look_at() -> None:
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    eye = 4 * np.stack([np.cos(turn), np.sin(turn), 0 * turn], -1) + [1, 2, 3]
    z = -(eye - [1, 2, 3]) / 4
    x = np.cross(z, [0, 0, 1.0])
    poses = np.stack([x, np.cross(z, x), z, eye], -1)
    frame = WorldFrame.of_focus(poses, np.zeros((0, 3)))
    np.testing.assert_allclose(frame.offset, (1, 2, 3), atol=1e-9)
    assert frame.scale == pytest.approx(2.4)
    cloud = np.random.default_rng(0).normal([1, 2, 3], 1, (500, 3))
    assert 1.2 < WorldFrame.of_focus(poses, cloud).scale < 4
    outward = poses * [1, 1, -1, 1]
    assert WorldFrame.of_focus(outward, np.zeros((0, 3))).scale > 0


def test_a_preconditioned_number_moves_the_points_by_about_a_pixel() -> None:
    capture, frame = tiny_capture(), WorldFrame(1.0, (0.0, 0.0, 0.0))
    matrices = preconditioners(capture, frame)
    assert matrices.shape == (2, 6, 6)
    points = jnp.asarray(capture.points, jnp.float32)
    pose = jnp.asarray(capture.world_from_cam[1], jnp.float32)

    def pixels(pose: jnp.ndarray) -> jnp.ndarray:
        local = (points - pose[None, :, 3]) @ pose[:, :3]
        return 10 * local[:, :2] / local[:, 2:]

    for k in range(6):
        twist = matrices[0] @ (jnp.eye(6)[k] * 0.01)
        moved = pixels(refined_pose(pose, twist)) - pixels(pose)
        root = float(jnp.sqrt(jnp.mean(jnp.sum(moved**2, -1))))
        assert 0.002 < root < 0.02
