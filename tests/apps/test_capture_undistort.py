"""Undistorted photos are pinhole photos."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lumefield.apps._capture import capture
from lumefield.apps._undistort import distort, pinhole_focal, undistortion
from tests.apps.posed_folder import write_posed

OPENCV = np.array([0.08, -0.05, 0.002, -0.003, 0.01, 0.0, 0.0, 0.0])
FISHEYE = np.array([0.03, -0.01, 0.004, -0.001, 0.0, 0.0, 0.0, 0.0])
SIZE, FOCAL, CENTRE = (240, 180), np.array([150.0, 152.0]), np.array([121.0, 88.0])


@pytest.mark.parametrize(("model", "numbers"), [("opencv", OPENCV), ("fisheye", FISHEYE)])
def test_distortion_agrees_with_colmap(model: str, numbers: np.ndarray) -> None:
    import pycolmap

    name = "OPENCV_FISHEYE" if model == "fisheye" else "FULL_OPENCV"
    used = numbers[:4] if model == "fisheye" else numbers
    camera = pycolmap.Camera(
        model=name, width=SIZE[0], height=SIZE[1], params=[*FOCAL, *CENTRE, *used]
    )
    xy = np.random.default_rng(0).uniform(-0.7, 0.7, (200, 2))
    theirs = np.array([camera.img_from_cam(np.array([x, y, 1.0])) for x, y in xy])
    np.testing.assert_allclose(distort(xy, model, numbers) * FOCAL + CENTRE, theirs, atol=1e-9)


@pytest.mark.parametrize(("model", "numbers"), [("opencv", OPENCV), ("fisheye", FISHEYE)])
def test_blobs_land_where_the_pinhole_camera_sees_them(model: str, numbers: np.ndarray) -> None:
    """Small blobs drawn through the lens come out within 0.1 pixel of their pinhole places."""
    remap = undistortion(SIZE, FOCAL, CENTRE, model, numbers)
    assert remap is not None
    u, v = np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5)
    for place in [(60.0, 50.0), (180.3, 50.7), (121.0, 88.0), (70.2, 130.9), (190.0, 125.5)]:
        xy = (np.array([place]) - CENTRE) / FOCAL
        seen = (distort(xy, model, numbers) * FOCAL + CENTRE)[0]
        blob = 255 * np.exp(-((u - seen[0]) ** 2 + (v - seen[1]) ** 2) / (2 * 1.5**2))
        photo = np.repeat(blob[..., None], 4, axis=2).astype(np.uint8)
        out = remap(photo)[..., 0].astype(np.float64)
        found = np.array([(out * u).sum(), (out * v).sum()]) / out.sum()
        assert np.abs(found - place).max() < 0.1


def test_pixels_beyond_the_photo_or_the_lens_have_no_weight() -> None:
    # Growing towards the corners: the photo does not reach them.
    remap = undistortion(SIZE, FOCAL, CENTRE, "opencv", OPENCV)
    assert remap is not None
    assert not remap.valid[0, 0]
    assert remap.valid[90, 120]
    white = np.full((SIZE[1], SIZE[0], 4), 255, np.uint8)
    np.testing.assert_array_equal(remap(white)[..., 3], np.where(remap.valid, 255, 0))
    # A strong barrel folds back: beyond the fold no pixel is taken from the wrong side.
    barrel = np.array([-0.3, 0, 0, 0, 0, 0, 0, 0])
    folded = distort(np.array([[0.1, 0.0], [2.0, 0.0]]), "opencv", barrel)
    assert np.isfinite(folded[0]).all()
    assert np.isnan(folded[1]).all()


def test_no_distortion_needs_no_look_up() -> None:
    assert undistortion(SIZE, FOCAL, CENTRE, "opencv", np.zeros(8)) is None
    assert undistortion(SIZE, FOCAL, CENTRE, "pinhole", np.zeros(8)) is None


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ValueError, match="expected pinhole, opencv or fisheye"):
        distort(np.zeros((1, 2)), "equirectangular", np.zeros(8))


def test_capture_undistorts_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    paths = [tmp_path / "images" / f"{i}.png" for i in range(2)]
    for path in paths:
        Image.new("RGB", SIZE, (200, 100, 50)).save(path)
    write_posed(tmp_path, paths, SIZE, model="opencv", distortion=[0.2, 0, 0, 0, 0, 0, 0, 0])
    made = capture(tmp_path, cache=tmp_path / "cache", downscale=2)
    # The focal length grows until the photo fills the frame: no empty corner.
    assert made.weights.shape == (2, 1, 1)
    assert np.all(made.focal > 120.0)
    assert np.all(made.images == np.array([200, 100, 50]))
    assert any("undistorted" in note for note in made.source["notes"])


@pytest.mark.parametrize(("model", "numbers"), [("opencv", OPENCV), ("fisheye", FISHEYE)])
def test_the_pinhole_focal_length_is_the_smallest_without_a_hole(
    model: str, numbers: np.ndarray
) -> None:
    pinhole = pinhole_focal(SIZE, FOCAL, CENTRE, model, numbers)
    assert np.all(pinhole >= FOCAL)
    whole = undistortion(SIZE, FOCAL, CENTRE, model, numbers, pinhole)
    assert whole is not None
    assert whole.valid.all()
    if np.any(pinhole > FOCAL):
        less = undistortion(SIZE, FOCAL, CENTRE, model, numbers, pinhole * 0.999)
        assert less is not None
        assert not less.valid.all()
