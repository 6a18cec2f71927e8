"""COLMAP models: ours come back, pycolmap reads ours, we read pycolmap's."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lumefield.codecs.formats import PosedImages, detect_posed, load_posed_images, save_colmap
from lumefield.errors import FormatError


def photo(path: Path, size: tuple[int, int] = (8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (10, 200, 30)).save(path)
    return path


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return q * np.linalg.det(q)


def random_posed(root: Path, n: int = 5, stem: str = "photo ") -> PosedImages:
    rng = np.random.default_rng(0)
    models = ("pinhole", "opencv", "fisheye", "opencv", "pinhole")[:n]
    used = {"pinhole": 0, "opencv": 4, "fisheye": 4}
    distortion = np.zeros((n, 8))
    for row, model in zip(distortion, models, strict=True):
        row[: used[model]] = rng.normal(0, 0.1, used[model])
    if n > 3:
        distortion[3] = rng.normal(0, 0.1, 8)
    poses = [np.concatenate([random_rotation(rng), rng.normal(size=(3, 1))], 1) for _ in range(n)]
    return PosedImages(
        paths=tuple(photo(root / "images" / f"{stem}{i}.png") for i in range(n)),
        world_from_cam=np.stack(poses),
        focal=rng.uniform(5, 9, (n, 2)),
        centre=rng.uniform(2, 4, (n, 2)),
        size=np.array([[8, 6]] * n),
        model=models,
        distortion=distortion,
        points=rng.normal(size=(7, 3)),
        colours=rng.integers(0, 256, (7, 3)).astype(np.uint8),
    )


def assert_same_cameras(a: PosedImages, b: PosedImages) -> None:
    assert a.paths == b.paths
    assert a.model == b.model
    np.testing.assert_allclose(a.world_from_cam, b.world_from_cam, atol=1e-12)
    for name in ("focal", "centre", "size", "distortion", "points", "colours"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def project(posed: PosedImages, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (without distortion) and depths of one world point in every camera."""
    r, c = posed.world_from_cam[:, :, :3], posed.world_from_cam[:, :, 3]
    x = np.einsum("nji,nj->ni", r, point - c)
    return x[:, :2] / x[:, 2:] * posed.focal + posed.centre, x[:, 2]


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("place", ["sparse/0", "sparse", "colmap/sparse/0", "."])
def test_colmap_model_returns_what_was_written(tmp_path, text, place):
    posed = random_posed(tmp_path)
    save_colmap(posed, tmp_path / place, text=text)
    assert detect_posed(tmp_path) == "colmap"
    assert_same_cameras(load_posed_images(tmp_path), posed)
    assert_same_cameras(load_posed_images(tmp_path / place), posed)


def test_colmap_photos_are_also_found_in_input_and_in_a_given_folder(tmp_path):
    save_colmap(random_posed(tmp_path), tmp_path / "sparse" / "0")
    (tmp_path / "images").rename(tmp_path / "input")
    assert load_posed_images(tmp_path).paths[0].parent == tmp_path / "input"
    (tmp_path / "input").rename(tmp_path / "elsewhere")
    with pytest.raises(FormatError, match="none of its 5 images exists, the first is"):
        load_posed_images(tmp_path)
    got = load_posed_images(tmp_path, images=tmp_path / "elsewhere")
    assert got.paths[0].parent == tmp_path / "elsewhere"


def test_of_several_models_the_one_with_most_images_wins(tmp_path):
    for text in (False, True):
        base = tmp_path / str(text)
        save_colmap(random_posed(base, n=2), base / "sparse" / "0", text=text)
        save_colmap(random_posed(base, n=4), base / "sparse" / "1", text=text)
        posed = load_posed_images(base)
        assert len(posed.paths) == 4
        assert any("1 smaller models" in note for note in posed.notes)


def test_colmap_images_that_do_not_exist_are_counted(tmp_path):
    save_colmap(random_posed(tmp_path), tmp_path / "sparse" / "0")
    (tmp_path / "images" / "photo 2.png").unlink()
    posed = load_posed_images(tmp_path)
    assert (len(posed.paths), posed.missing) == (4, 1)
    assert any("1 of 5 frames name files that do not exist" in note for note in posed.notes)


@pytest.mark.parametrize("text", [False, True])
def test_pycolmap_reads_the_model_we_write(tmp_path, text):
    import pycolmap

    posed = random_posed(tmp_path, stem="photo" if text else "photo ")
    save_colmap(posed, tmp_path / "sparse", text=text)
    model = pycolmap.Reconstruction(str(tmp_path / "sparse"))
    assert model.num_points3D() == 7
    images = sorted(model.images.values(), key=lambda image: image.name)
    assert [image.name for image in images] == [p.name for p in posed.paths]
    for i, image in enumerate(images):
        centre = image.projection_center()
        np.testing.assert_allclose(centre, posed.world_from_cam[i, :, 3], atol=1e-9)
        rotation = image.cam_from_world().rotation.matrix()
        np.testing.assert_allclose(rotation.T, posed.world_from_cam[i, :, :3], atol=1e-9)
        camera = model.cameras[image.camera_id]
        np.testing.assert_array_equal(camera.params[:4], [*posed.focal[i], *posed.centre[i]])


@pytest.mark.parametrize("suffix", ["bin", "txt"])
def test_models_that_pycolmap_writes_are_read_with_every_camera_model(tmp_path, suffix):
    import pycolmap

    expected = {
        "SIMPLE_PINHOLE": ("pinhole", []),
        "PINHOLE": ("pinhole", []),
        "SIMPLE_RADIAL": ("opencv", [0.1]),
        "RADIAL": ("opencv", [0.1, 0.2]),
        "OPENCV": ("opencv", [0.1, 0.2, 0.3, 0.4]),
        "FULL_OPENCV": ("opencv", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]),
        "OPENCV_FISHEYE": ("fisheye", [0.1, 0.2, 0.3, 0.4]),
        "SIMPLE_RADIAL_FISHEYE": ("fisheye", [0.1]),
        "RADIAL_FISHEYE": ("fisheye", [0.1, 0.2]),
        "SIMPLE_FISHEYE": ("fisheye", []),
        "FISHEYE": ("fisheye", []),
    }
    model = pycolmap.Reconstruction()
    for i, (name, (_, distortion)) in enumerate(expected.items(), 1):
        kind = pycolmap.CameraModelId.__members__[name]
        camera = pycolmap.Camera.create_from_model_id(i, kind, 7.0, 8, 6)
        start = len(camera.params) - len(distortion)
        camera.params = [*camera.params[:start], *distortion]
        model.add_camera_with_trivial_rig(camera)
        image = pycolmap.Image(f"{i:02d}.png", [], i, i)
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d([0.5, 0.5, 0.5, 0.5]), [1.0, 2.0, i])
        model.add_image_with_trivial_frame(image, pose)
        photo(tmp_path / "images" / f"{i:02d}.png")
    (tmp_path / "sparse").mkdir()
    (model.write_binary if suffix == "bin" else model.write_text)(str(tmp_path / "sparse"))
    posed = load_posed_images(tmp_path)
    assert posed.model == tuple(kind for kind, _ in expected.values())
    for i, (_, distortion) in enumerate(expected.values()):
        wanted = [*distortion, *[0.0] * (8 - len(distortion))]
        np.testing.assert_array_equal(posed.distortion[i], wanted)
        np.testing.assert_array_equal([*posed.focal[i], *posed.centre[i]], [7, 7, 4, 3])
        # cam_from_world maps x to y, y to z, z to x; the centre is -R^T t.
        np.testing.assert_allclose(posed.world_from_cam[i, :, 3], [-2, -(i + 1), -1], atol=1e-12)


def test_camera_models_that_cannot_be_expressed_are_named(tmp_path):
    save_colmap(random_posed(tmp_path), tmp_path / "sparse", text=True)
    cameras = tmp_path / "sparse" / "cameras.txt"
    cameras.write_text("1 THIN_PRISM_FISHEYE 8 6 1 2 3 4 5 6 7 8 9 10 11 12\n")
    with pytest.raises(FormatError, match="THIN_PRISM_FISHEYE is not supported, expected one of"):
        load_posed_images(tmp_path)


BAD_TEXT = {
    ("cameras", "CAMERA_ID MODEL WIDTH HEIGHT PARAMS"): "1 PINHOLE 8\n",
    ("cameras", "expected 4 parameters of PINHOLE"): "1 PINHOLE 8 6 1 2 3\n",
    ("cameras", "which is not in the model"): "77 PINHOLE 8 6 1 2 3 4\n",
    ("cameras", "expected positive finite numbers"): "1 PINHOLE 8 6 -1 nan 3 4\n",
    ("images", "IMAGE_ID QW QX"): "1 0 0 zero\n\n",
    ("images", "expected a finite one that is not 0"): "1 0 0 0 0 1 1 1 1 photo 0.png\n\n",
    ("images", "holds NaN or infinity"): "1 1 0 0 0 nan 1 1 1 photo 0.png\n\n",
    ("images", "names no image"): "# nothing\n",
    ("points3D", "POINT3D_ID X Y Z R G B"): "1 2 3\n",
}


@pytest.mark.parametrize(("file", "message"), BAD_TEXT)
def test_bad_colmap_text_says_where(tmp_path, file, message):
    save_colmap(random_posed(tmp_path, n=1), tmp_path / "sparse", text=True)
    (tmp_path / "sparse" / f"{file}.txt").write_text(BAD_TEXT[file, message])
    with pytest.raises(FormatError, match=message):
        load_posed_images(tmp_path)


def test_bad_colmap_binary_says_where(tmp_path):
    sparse = tmp_path / "sparse"
    save_colmap(random_posed(tmp_path, n=2), sparse)
    good = {p.name: p.read_bytes() for p in sparse.iterdir()}

    def fails(name: str, data: bytes, message: str) -> None:
        (sparse / name).write_bytes(data)
        with pytest.raises(FormatError, match=message):
            load_posed_images(tmp_path)
        (sparse / name).write_bytes(good[name])

    fails("images.bin", good["images.bin"][:-3], "observations of photo 1.png|number of observ")
    fails("images.bin", good["images.bin"][:80], "the name of image 1 at byte .* does not end")
    fails("images.bin", b"\xff" * 8, "an image at byte 8 needs 64 bytes, 0 are left")
    fails("points3D.bin", b"\xff" * 8, "a point at byte 8 needs 43 bytes")
    fails("cameras.bin", b"\x01" + bytes(7) + b"\x01\0\0\0\x63" + bytes(19), "has model id 99")
    fails("cameras.bin", b"\x01", "the number of cameras at byte 0 needs 8 bytes")


def test_bust_colmap_has_23_views_that_see_their_points(data_dir):
    posed = load_posed_images(data_dir / "scenes/bust_colmap")
    assert (len(posed.paths), posed.points.shape, posed.missing) == (23, (1443, 3), 0)
    assert set(posed.model) == {"pinhole"}
    inside = 0
    for point in posed.points[::10]:
        xy, depth = project(posed, point)
        inside += int(np.all((xy > 0) & (xy < posed.size) & (depth > 0)[:, None], axis=1).sum())
    assert inside > 0.25 * 23 * len(posed.points[::10])
    _, depth = project(posed, np.median(posed.points, axis=0))
    assert (depth > 0).all()


def test_sceaux_castle_model_of_colmap_4_matches_pycolmap(data_dir):
    import pycolmap

    path = data_dir / "scenes/sceaux_castle/derived_colmap"
    posed = load_posed_images(path)
    model = pycolmap.Reconstruction(str(path / "sparse/0"))
    assert len(posed.paths) == 11
    assert len(posed.points) == model.num_points3D()
    for image in model.images.values():
        i = [p.name for p in posed.paths].index(image.name)
        np.testing.assert_allclose(
            posed.world_from_cam[i, :, 3], image.projection_center(), atol=1e-9
        )
    errors: list[float] = []
    ids = sorted(model.points3D)[:200]
    for number in ids:
        for element in model.points3D[number].track.elements:
            image = model.images[element.image_id]
            i = [p.name for p in posed.paths].index(image.name)
            r, c = posed.world_from_cam[i, :, :3], posed.world_from_cam[i, :, 3]
            x = r.T @ (model.points3D[number].xyz - c)
            u = x[:2] / x[2]
            k = posed.distortion[i, 0]
            xy = u * (1 + k * (u @ u)) * posed.focal[i] + posed.centre[i]
            errors.append(float(np.linalg.norm(xy - image.points2D[element.point2D_idx].xy)))
    assert np.median(errors) < 1.0
