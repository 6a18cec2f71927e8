"""transforms.json: every dialect gives the same kind of PosedImages."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lumefield.codecs.formats import PosedImages, Splats, load_posed_images, save_splats
from lumefield.errors import FormatError


def photo(path: Path, size: tuple[int, int] = (8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (10, 200, 30)).save(path)
    return path


def nearest_to_all_axes(posed: PosedImages) -> np.ndarray:
    """The point with the least squared distance to all optical axes."""
    d = posed.world_from_cam[:, :, 2]
    c = posed.world_from_cam[:, :, 3]
    m = np.eye(3) - d[:, :, None] * d[:, None, :]
    return np.linalg.solve(m.sum(0), np.einsum("nij,nj->i", m, c))


def project(posed: PosedImages, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (without distortion) and depths of one world point in every camera."""
    r, c = posed.world_from_cam[:, :, :3], posed.world_from_cam[:, :, 3]
    x = np.einsum("nji,nj->ni", r, point - c)
    return x[:, :2] / x[:, 2:] * posed.focal + posed.centre, x[:, 2]


def camera_matrix(position: tuple[float, float, float] = (0.0, 0.0, 4.0)) -> list[list[float]]:
    """OpenGL camera at ``position`` looking along -z."""
    m = np.eye(4)
    m[:3, 3] = position
    return m.tolist()


def write_transforms(path: Path, frames: list[Any], **meta: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**meta, "frames": frames}))
    return path


def frame(name: str, **more: Any) -> dict[str, Any]:
    return {"file_path": name, "transform_matrix": camera_matrix(), **more}


def test_opengl_axes_become_opencv_axes(tmp_path):
    photo(tmp_path / "a.png")
    write_transforms(tmp_path / "transforms.json", [frame("a.png")], fl_x=5)
    posed = load_posed_images(tmp_path)
    right, down, forward, centre = posed.world_from_cam[0].T
    np.testing.assert_array_equal(right, [1, 0, 0])
    np.testing.assert_array_equal(down, [0, -1, 0])
    np.testing.assert_array_equal(forward, [0, 0, -1])
    np.testing.assert_array_equal(centre, [0, 0, 4])


def test_nerfstudio_dialect(tmp_path):
    for i in range(3):
        photo(tmp_path / f"images/f{i}.png")
    photo(tmp_path / "masks/f0.png")
    n = 4
    cloud = Splats(
        means=np.arange(12, dtype=np.float32).reshape(n, 3),
        quats_wxyz=np.ones((n, 4), np.float32),
        log_scales=np.zeros((n, 3), np.float32),
        logit_opacities=np.zeros(n, np.float32),
        sh=np.zeros((n, 1, 3), np.float32),
    )
    save_splats(cloud, tmp_path / "sparse_pc.ply")
    frames = [
        frame("images/f2.png", fl_x=7.0, w=16, k1=0.5),
        frame("images/f0.png", mask_path="masks/f0.png"),
        frame("images/f1.png", mask_path="masks/none.png"),
    ]
    write_transforms(
        tmp_path / "transforms.json",
        frames,
        camera_model="OPENCV",
        **{"fl_x": 5, "fl_y": 6, "cx": 4.5, "cy": 3.5, "w": 8, "h": 6},
        **{"k1": 0.1, "k2": 0.2, "p1": 0.3, "p2": 0.4, "k3": 0.5},
        ply_file_path="sparse_pc.ply",
        applied_transform=[[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]],
        test_filenames=["./images/f1.png"],
        train_filenames=["images/f0.png", "images/f2.png"],
    )
    posed = load_posed_images(tmp_path)
    assert [p.name for p in posed.paths] == ["f0.png", "f1.png", "f2.png"]
    np.testing.assert_array_equal(posed.focal, [[5, 6], [5, 6], [7, 6]])
    np.testing.assert_array_equal(posed.size, [[8, 6], [8, 6], [16, 6]])
    np.testing.assert_array_equal(posed.distortion[0], [0.1, 0.2, 0.3, 0.4, 0.5, 0, 0, 0])
    assert posed.distortion[2, 0] == 0.5
    assert posed.masks == (tmp_path / "masks/f0.png", None, None)
    np.testing.assert_array_equal(posed.points, np.arange(12).reshape(n, 3))
    assert posed.held_out == (1,)
    assert any("1 masks do not exist" in note for note in posed.notes)
    assert any("applied_transform" in note for note in posed.notes)


def test_instant_ngp_dialect(tmp_path):
    photo(tmp_path / "images/a.jpg")
    write_transforms(
        tmp_path / "transforms.json",
        [frame("./images\\a.jpg", sharpness=3.0)],
        aabb_scale=4,
        **{"camera_angle_x": 0.7, "fl_x": 5, "fl_y": 6, "w": 8.0, "h": 6.0, "k1": 0.0},
    )
    posed = load_posed_images(tmp_path)
    assert posed.model == ("pinhole",)
    np.testing.assert_array_equal(posed.size, [[8, 6]])
    np.testing.assert_array_equal(posed.centre, [[4, 3]])
    write_transforms(
        tmp_path / "transforms.json",
        [frame("images/a.jpg")],
        **{"is_fisheye": True, "camera_angle_x": 1.0, "camera_angle_y": 0.5, "k1": 0.1},
    )
    posed = load_posed_images(tmp_path)
    assert posed.model == ("fisheye",)
    np.testing.assert_allclose(posed.focal, [[4 / math.tan(0.5), 3 / math.tan(0.25)]])


def test_blender_dialect_takes_test_views_as_held_out(tmp_path):
    for part, count in (("train", 3), ("test", 2), ("val", 1)):
        frames = [frame(f"./{part}/r_{i}") for i in range(count)]
        for i in range(count):
            photo(tmp_path / part / f"r_{i}.png")
        write_transforms(tmp_path / f"transforms_{part}.json", frames, camera_angle_x=0.69)
    posed = load_posed_images(tmp_path)
    assert [p.parent.name for p in posed.paths] == ["test"] * 2 + ["train"] * 3
    assert posed.held_out == (0, 1)
    np.testing.assert_allclose(posed.focal, 4 / math.tan(0.345))
    assert any("transforms_test.json" in note for note in posed.notes)
    assert len(load_posed_images(tmp_path / "transforms_val.json").paths) == 1
    (tmp_path / "transforms_test.json").unlink()
    assert load_posed_images(tmp_path).held_out == (3,)


def test_d_nerf_dialect_has_times(tmp_path):
    for i in range(2):
        photo(tmp_path / f"train/r_{i}.jpg")
    frames = [frame("./train/r_1", time=0.75), frame("./train/r_0", time=0.25)]
    path = write_transforms(tmp_path / "transforms_train.json", frames, camera_angle_x=0.7)
    np.testing.assert_array_equal(load_posed_images(tmp_path).times, [0.25, 0.75])
    del frames[0]["time"]
    write_transforms(path, frames, camera_angle_x=0.7)
    posed = load_posed_images(tmp_path)
    assert posed.times.shape == (0,)
    assert any("1 frames have no time" in note for note in posed.notes)


@pytest.mark.parametrize(
    "name",
    [
        "images/a.jpg",
        "./images/a.jpg",
        "images\\a.jpg",
        ".\\images\\a.jpg",
        "/home/somebody/scene/images/a.jpg",
        "C:\\scenes\\fox\\images\\a.jpg",
        "../../other/images/a.jpg",
        "/gone/a.jpg",
        "images/a",
    ],
)
def test_file_paths_of_other_machines_are_found(tmp_path, name):
    photo(tmp_path / "scene/images/a.jpg")
    write_transforms(tmp_path / "scene/transforms.json", [frame(name)], fl_x=5)
    assert load_posed_images(tmp_path / "scene").paths[0].name == "a.jpg"


def test_full_opencv_keeps_the_rational_terms(tmp_path):
    photo(tmp_path / "a.png")
    meta = {"camera_model": "FULL_OPENCV", "fl_x": 5, "k3": 3, "k4": 4, "k5": 5, "k6": 6}
    write_transforms(tmp_path / "transforms.json", [frame("a.png")], **meta)
    np.testing.assert_array_equal(
        load_posed_images(tmp_path).distortion, [[0, 0, 0, 0, 3, 4, 5, 6]]
    )


def test_almost_rigid_poses_are_made_exactly_rigid(tmp_path):
    photo(tmp_path / "a.png")
    matrix = np.array(camera_matrix())
    matrix[:3, :3] += np.random.default_rng(0).normal(0, 1e-4, (3, 3))
    entry = {"file_path": "a.png", "transform_matrix": matrix.tolist()}
    write_transforms(tmp_path / "transforms.json", [entry], fl_x=5)
    r = load_posed_images(tmp_path).world_from_cam[0, :, :3]
    np.testing.assert_allclose(r.T @ r, np.eye(3), atol=1e-14)


def test_points_and_images_that_do_not_exist_are_noted(tmp_path):
    photo(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no image")
    frames = [frame("a.png"), frame("b.png"), frame("c.png")]
    write_transforms(tmp_path / "transforms.json", frames, fl_x=5, ply_file_path="x.ply")
    posed = load_posed_images(tmp_path)
    assert (len(posed.paths), posed.missing) == (1, 2)
    assert any("2 of 3 frames name files that do not exist" in n for n in posed.notes)
    assert any("1 images could not be read to learn their size" in n for n in posed.notes)
    assert any("ply_file_path x.ply does not exist" in n for n in posed.notes)


SCALED = (2 * np.eye(4)).tolist()
MIRRORED = np.diag([1.0, 1.0, -1.0, 1.0]).tolist()
BAD_JSON: dict[str, Any] = {
    "is not JSON": "{",
    "holds a list, expected an object": "[]",
    "frames of the file is missing, expected a list": "{}",
    "frame 0 is not an object": {"frames": [1]},
    "frame 0 has no file_path": {"frames": [{}]},
    "file_path of frame 0 is 7, expected a string": {"frames": [{"file_path": 7}]},
    "names no image": {"frames": []},
    "none of its 1 images exists, the first is .*gone.png": {"frames": [{"file_path": "gone.png"}]},
    "fl_x of the file is 'five', expected a finite number": {
        "frames": [frame("a.png")],
        "fl_x": "five",
    },
    "fl_y of a.png is inf, expected a finite": {"frames": [frame("a.png", fl_y=1e999)], "fl_x": 5},
    "w of a.png is True": {"frames": [frame("a.png", w=True)], "fl_x": 5},
    "w or h of a.png is 0": {"frames": [frame("a.png", w=0, h=3)], "fl_x": 5},
    "has neither fl_x nor camera_angle_x": {"frames": [frame("a.png")]},
    "camera_angle_x of a.png is 7": {"frames": [frame("a.png")], "camera_angle_x": 7},
    "expected positive finite numbers": {"frames": [frame("a.png")], "fl_x": -5},
    "camera_model SPHERICAL of a.png is not": {
        "frames": [frame("a.png")],
        "camera_model": "spherical",
        "fl_x": 5,
    },
    "a.png has k4 = 0.1 with camera_model OPENCV": {
        "frames": [frame("a.png")],
        "k4": 0.1,
        "fl_x": 5,
    },
    "transform_matrix of a.png is missing": {"frames": [{"file_path": "a.png"}], "fl_x": 5},
    "transform_matrix of a.png is not a 4x4": {
        "frames": [{"file_path": "a.png", "transform_matrix": [[1, 2], "x"]}],
        "fl_x": 5,
    },
    "holds a number too large": {
        "frames": [{"file_path": "a.png", "transform_matrix": [[10**400] * 4] * 4}],
        "fl_x": 5,
    },
    "pose of a.png holds NaN or infinity": {
        "frames": [{"file_path": "a.png", "transform_matrix": [[math.nan] * 4] * 4}],
        "fl_x": 5,
    },
    "pose of a.png is not a rotation and a translation": {
        "frames": [{"file_path": "a.png", "transform_matrix": SCALED}],
        "fl_x": 5,
    },
    "right-handed orthonormal": {
        "frames": [{"file_path": "a.png", "transform_matrix": MIRRORED}],
        "fl_x": 5,
    },
    "test_filenames of the file is 3, expected a list": {
        "frames": [frame("a.png")],
        "fl_x": 5,
        "test_filenames": 3,
    },
}


@pytest.mark.parametrize("message", BAD_JSON)
def test_bad_transforms_say_frame_and_value(tmp_path, message):
    photo(tmp_path / "a.png")
    value = BAD_JSON[message]
    (tmp_path / "transforms.json").write_text(
        value if isinstance(value, str) else json.dumps(value)
    )
    with pytest.raises(FormatError, match=message) as error:
        load_posed_images(tmp_path)
    assert "transforms.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_names_out_of_a_file_are_printed_on_one_line(tmp_path):
    entry = frame("two\nlines\ud800.png" + "x" * 900)
    write_transforms(tmp_path / "transforms.json", [entry], fl_x=5)
    with pytest.raises(FormatError, match="none of its 1 images exists") as error:
        load_posed_images(tmp_path)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 600


def test_fox_has_50_views_that_look_at_one_region(data_dir):
    """The point nearest to all optical axes is in front of every camera and inside every photo."""
    posed = load_posed_images(data_dir / "scenes/fox")
    assert (len(posed.paths), posed.missing, posed.held_out) == (50, 0, None)
    assert set(posed.model) == {"opencv"}
    np.testing.assert_array_equal(
        posed.distortion[0, :4], [0.0578421, -0.0805099, -0.000980296, 0.00015575]
    )
    target = nearest_to_all_axes(posed)
    xy, depth = project(posed, target)
    assert (depth > 0).all()
    assert ((xy > 0) & (xy < posed.size)).all()


def test_upstream_fox_counts_its_17_missing_files(data_dir):
    posed = load_posed_images(data_dir / "scenes/fox/upstream_transforms.json")
    assert (len(posed.paths), posed.missing) == (50, 17)
    assert any("17 of 67 frames name files that do not exist" in note for note in posed.notes)
    kept = load_posed_images(data_dir / "scenes/fox")
    np.testing.assert_array_equal(posed.world_from_cam, kept.world_from_cam)


def test_dnerf_lego_has_34_views_with_times(data_dir):
    posed = load_posed_images(data_dir / "dynamic/dnerf_lego")
    assert len(posed.paths) == 34
    assert posed.times.shape == (34,)
    assert posed.times.min() == pytest.approx(0.1616, abs=1e-4)
    np.testing.assert_allclose(posed.focal, 400 / math.tan(0.6911112070083618 / 2))
    xy, depth = project(posed, np.zeros(3))  # the model stands at the origin
    assert (depth > 0).all()
    assert (np.abs(xy - 400) < 100).all()
