"""LLFF folders, and which camera file a folder is taken for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lumefield.codecs.formats import detect_posed, load_posed_images, photos_in
from lumefield.errors import FormatError, InputError


def photo(path: Path, size: tuple[int, int] = (8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (10, 200, 30)).save(path)
    return path


def write_llff(root: Path, rows: np.ndarray, names: list[str], size: tuple[int, int]) -> None:
    for name in names:
        photo(root / "images" / name, size)
    np.save(root / "poses_bounds.npy", rows)


def llff_row(down: Any, right: Any, back: Any, position: Any, hwf: Any) -> list[float]:
    matrix = np.stack([down, right, back, position, hwf], 1)
    return [*matrix.ravel().tolist(), 1.0, 9.0]


def test_llff_columns_are_down_right_back_and_focal_scales_with_the_photo(tmp_path):
    row = llff_row([0, 0, -1], [1, 0, 0], [0, -1, 0], [1, 2, 3], [12, 16, 10])
    write_llff(tmp_path, np.array([row, row]), ["b.png", "a.png"], (8, 6))
    assert detect_posed(tmp_path) == "llff"
    for path in (tmp_path, tmp_path / "poses_bounds.npy"):
        posed = load_posed_images(path)
        assert [p.name for p in posed.paths] == ["a.png", "b.png"]
        right, down, forward, centre = posed.world_from_cam[0].T
        np.testing.assert_array_equal(right, [1, 0, 0])
        np.testing.assert_array_equal(down, [0, 0, -1])
        np.testing.assert_array_equal(forward, [0, 1, 0])
        np.testing.assert_array_equal(centre, [1, 2, 3])
        np.testing.assert_array_equal(posed.focal[0], [5, 5])
        np.testing.assert_array_equal(posed.centre[0], [4, 3])


def test_bad_llff_says_why(tmp_path):
    row = llff_row([0, 0, -1], [1, 0, 0], [0, -1, 0], [1, 2, 3], [12, 16, 10])
    write_llff(tmp_path, np.array([row, row]), ["a.png"], (8, 6))
    with pytest.raises(FormatError, match=r"has 2 rows but .*images has 1 photos"):
        load_posed_images(tmp_path)
    np.save(tmp_path / "poses_bounds.npy", np.zeros((1, 17)))
    with pytest.raises(FormatError, match=r"height, width, focal of a.png are"):
        load_posed_images(tmp_path)
    np.save(tmp_path / "poses_bounds.npy", np.zeros((1, 15)))
    with pytest.raises(FormatError, match=r"is not a NumPy file of shape \(n, 17\)"):
        load_posed_images(tmp_path)
    np.save(tmp_path / "poses_bounds.npy", np.array([row]))
    data = (tmp_path / "poses_bounds.npy").read_bytes()
    (tmp_path / "poses_bounds.npy").write_bytes(data[:-1])
    with pytest.raises(FormatError, match="promises 1 rows of 17 numbers, holds fewer"):
        load_posed_images(tmp_path)
    np.save(tmp_path / "poses_bounds.npy", np.array([row]))
    (tmp_path / "images/a.png").write_text("no image")
    with pytest.raises(FormatError, match="none of its 1 images exists"):
        load_posed_images(tmp_path)


def test_duck_queen_has_14_views_that_look_at_the_table(data_dir):
    """The point with the least squared distance to all optical axes is in front of every camera."""
    posed = load_posed_images(data_dir / "scenes/duck_queen_llff")
    assert len(posed.paths) == 14
    np.testing.assert_array_equal(posed.size, [[1200, 900]] * 14)
    d, c = posed.world_from_cam[:, :, 2], posed.world_from_cam[:, :, 3]
    m = np.eye(3) - d[:, :, None] * d[:, None, :]
    target = np.linalg.solve(m.sum(0), np.einsum("nij,nj->i", m, c))
    assert (((target - c) * d).sum(1) > 0).all()


def test_detection_prefers_sparse_then_transforms_then_nerfstudios_colmap(tmp_path):
    def touch(name: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    assert detect_posed(tmp_path) is None
    assert detect_posed(tmp_path / "none") is None
    touch("poses_bounds.npy")
    assert detect_posed(tmp_path) == "llff"
    for file in ("cameras.bin", "images.bin"):
        touch(f"colmap/sparse/0/{file}")
    assert detect_posed(tmp_path) == "colmap"
    touch("transforms.json")
    assert detect_posed(tmp_path) == "transforms"
    assert detect_posed(tmp_path / "transforms.json") == "transforms"
    for file in ("cameras.txt", "images.txt"):
        touch(f"sparse/0/{file}")
    for folder in (".", "sparse", "sparse/0"):
        assert detect_posed(tmp_path / folder) == "colmap"


def test_a_folder_without_camera_file_says_what_was_expected(tmp_path):
    with pytest.raises(InputError, match="no camera file found, expected a COLMAP model"):
        load_posed_images(tmp_path)


def test_photos_are_listed_by_name_without_hidden_and_other_files(tmp_path):
    for name in ("b.JPG", "a.png", ".c.png"):
        photo(tmp_path / name)
    (tmp_path / "notes.txt").write_text("")
    assert [p.name for p in photos_in(tmp_path)] == ["a.png", "b.JPG"]
    assert photos_in(tmp_path / "none") == []
