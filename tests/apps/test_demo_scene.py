"""The demo's photos: what a camera would write, the same every time, with views that overlap."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lumefield.apps._demo import COUNT, demo_photos, next_run
from lumefield.apps._demo_scene import FOCAL_35MM, build_room, make_photos, take_photo, walk
from lumefield.apps._demo_solids import Solid, chart, hit, surface
from lumefield.errors import InputError


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "photos"
    make_photos(folder, count=4, width=96, height=72)
    return folder


def test_photos_have_the_exif_of_a_camera_and_their_times_increase(photos: Path):
    files = sorted(photos.iterdir())
    assert [f.name for f in files] == [f"photo_{k:03d}.jpg" for k in range(4)]
    times: list[str] = []
    for file in files:
        with Image.open(file) as image:
            assert (image.size, image.format) == ((96, 72), "JPEG")
            exif = image.getexif()
            detail = exif.get_ifd(34665)
            assert np.asarray(image).std() > 20
        assert exif[271]
        assert exif[272]
        assert exif[274] == 1
        assert detail[41989] == FOCAL_35MM
        assert {33434, 34855, 36867, 37386} <= set(detail)
        times.append(detail[36867])
    assert times == sorted(set(times))


def test_photos_are_the_same_every_time(photos: Path):
    focal = 96 * FOCAL_35MM / 36
    again = take_photo(build_room(0), walk(4)[1], focal, 96, 72)
    memory = io.BytesIO()
    Image.fromarray(again).save(memory, "JPEG", quality=95, subsampling=0)
    with Image.open(photos / "photo_001.jpg") as image, Image.open(memory) as expected:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))


def test_neighbouring_photos_see_the_same_table():
    poses = walk(COUNT)
    turn, radius = np.meshgrid(np.linspace(0, 2 * np.pi, 24), np.linspace(0, 0.9, 6))
    table = np.stack([radius * np.cos(turn), radius * np.sin(turn), 0 * turn], -1).reshape(-1, 3)
    seen = []
    for pose in poses:
        r = pose[:, :3]
        np.testing.assert_allclose(r.T @ r, np.eye(3), atol=1e-12)
        x, y, z = r.T @ (table - pose[:, 3]).T
        f = FOCAL_35MM / 36
        seen.append((z > 0) & (np.abs(x / z * f) < 0.5) & (np.abs(y / z * f) < 0.375))
    overlap = [(a & b).mean() for a, b in zip(seen, np.roll(seen, 1, 0), strict=True)]
    assert min(overlap) > 0.6
    step = np.linalg.norm(np.roll(poses[:, :, 3], -1, 0) - poses[:, :, 3], axis=1)
    assert 0.2 < step.min() < step.max() < 1.2


PAPER = np.ones((4, 4, 3), np.float32)
SOLIDS = [
    Solid("sphere", (0.3, -0.2, 0.5), (0.4, 0.4, 0.4), (PAPER,), 0.7),
    Solid("box", (0.3, -0.2, 0.5), (0.4, 0.2, 0.3), (PAPER,) * 6, 0.7),
    Solid("can", (0.3, -0.2, 0.5), (0.4, 0.4, 0.2), (PAPER,) * 3, 0.7),
    Solid("room", (0.3, -0.2, 0.5), (4.0, 4.0, 2.0), (PAPER,) * 2, 0.7),
]


@pytest.mark.parametrize("solid", SOLIDS, ids=lambda s: s.kind)
def test_chart_inverts_surface_and_rays_meet_it(solid: Solid):
    rng = np.random.default_rng(0)
    for face in range(len(solid.faces)):
        u, v = rng.uniform(0.1, 0.9, (2, 50)).astype(np.float32)
        if solid.kind != "sphere" and not (solid.kind == "box" or face == 0):
            u, v = 0.5 + (u - 0.5) * 0.7, 0.5 + (v - 0.5) * 0.7
        points, normals = surface(solid, face, u, v)
        which, u2, v2 = chart(solid, solid.local(points))
        assert (which == face).all()
        np.testing.assert_allclose(np.stack([u2, v2]), np.stack([u, v]), atol=1e-4)
        start = points + 0.5 * normals
        np.testing.assert_allclose(hit(solid, start, -normals), 0.5, atol=1e-3)
        if solid.kind != "room":
            assert np.isinf(hit(solid, start, normals)).all()


def test_making_photos_refuses_a_full_folder_and_leaves_nothing_half_made(tmp_path: Path):
    (tmp_path / "precious.txt").write_text("x")
    with pytest.raises(InputError, match="is not empty"):
        make_photos(tmp_path, count=2, width=16, height=16)
    with pytest.raises(InputError, match="expected at least 2 of 16x16"):
        make_photos(tmp_path / "new", count=1)
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_the_demo_uses_its_photos_again_and_refuses_others(tmp_path: Path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for k in range(COUNT):
        Image.new("RGB", (480, 360)).save(folder / f"photo_{k:03d}.jpg")
    before = {f.name: f.stat().st_mtime_ns for f in folder.iterdir()}
    assert demo_photos(folder) == folder
    assert {f.name: f.stat().st_mtime_ns for f in folder.iterdir()} == before
    (folder / "mine.jpg").write_text("x")
    with pytest.raises(InputError, match="something else than the demo's photos"):
        demo_photos(folder)


def test_a_second_run_keeps_the_first_and_takes_over_what_is_known_of_the_photos(tmp_path: Path):
    assert next_run(tmp_path) == tmp_path / "run"
    (tmp_path / "run" / "capture").mkdir(parents=True)
    (tmp_path / "run" / "capture" / "cameras.json").write_text("{}")
    (tmp_path / "run" / "scene.ply").write_text("x")
    second = next_run(tmp_path)
    assert second == tmp_path / "run-2"
    assert [str(p.relative_to(second)) for p in second.rglob("*.*")] == ["capture/cameras.json"]
