"""Cameras and points from photos: triangulation, mapping, video frames, the cache."""

import json
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from lumefield.apps import _sfm, _video
from lumefield.apps._capture import capture
from lumefield.apps._sfm import near_pairs
from lumefield.apps._sfm_pairs import coarsest, shared, shortlist
from tests.apps.posed_folder import render_room, room_poses, texture

SIZE, FOCAL, COUNT = (400, 300), 380.0, 8


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of two walls, and a transforms.json with their true cameras and no points."""
    folder = tmp_path_factory.mktemp("room")
    (folder / "images").mkdir()
    frames: list[dict[str, object]] = []
    for i, pose in enumerate(room_poses(COUNT)):
        name = f"images/{i:02d}.png"
        Image.fromarray(render_room(pose, FOCAL, SIZE)).save(folder / name)
        opengl = np.vstack([pose * np.array([1.0, -1.0, -1.0, 1.0]), [0, 0, 0, 1]])
        frames.append({"file_path": name, "transform_matrix": opengl.tolist()})
    lens = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": SIZE[0] / 2, "cy": SIZE[1] / 2}
    size = {"w": SIZE[0], "h": SIZE[1]}
    (folder / "transforms.json").write_text(json.dumps({**lens, **size, "frames": frames}))
    return folder


def test_triangulated_points_lie_on_the_walls_and_are_cached(room: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    made = capture(
        room, cache=tmp_path, threads=2, progress=lambda stage, fraction: stages.append(stage)
    )
    assert made.source["kind"] == "transforms"
    assert len(made.points) > 200
    off = np.minimum(np.abs(made.points[:, 0]), np.abs(made.points[:, 1]))
    assert np.median(off) < 0.0065  # a pixel is 0.009 units on the walls
    assert np.quantile(off, 0.95) < 0.03
    np.testing.assert_allclose(made.world_from_cam, room_poses(COUNT), atol=1e-9)
    for stage in ("read photos", "features", "match", "triangulate", "load photos"):
        assert stage in stages
    stages.clear()
    again = capture(
        room, cache=tmp_path, threads=2, progress=lambda stage, fraction: stages.append(stage)
    )
    assert set(stages) == {"load photos"}
    np.testing.assert_array_equal(made.points, again.points)
    np.testing.assert_array_equal(made.colours, again.colours)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["points"]


def test_a_damaged_cache_is_made_again(room: Path, tmp_path: Path) -> None:
    first = capture(room, cache=tmp_path, threads=1)
    solution = tmp_path / "points" / "solution.npz"
    solution.write_bytes(solution.read_bytes()[:1000])
    again = capture(room, cache=tmp_path, threads=1)
    np.testing.assert_array_equal(first.points, again.points)


def test_unposed_photos_find_the_cameras_up_to_a_similarity(room: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in (room / "images").iterdir():
        (photos / path.name).write_bytes(path.read_bytes())
    (photos / "99.png").write_text("not a photo")
    (photos / "98.png").write_bytes((photos / "00.png").read_bytes()[:5000])
    made = capture(photos, cache=tmp_path / "cache", threads=2)
    assert made.source["given"] == made.source["registered"] == COUNT
    assert "registered 8 of 8 photos" in made.source["summary"]
    assert any("99.png" in note for note in made.source["notes"])
    assert any("98.png" in note for note in made.source["notes"])
    truth = room_poses(COUNT)
    np.testing.assert_allclose(_steps(made.world_from_cam), _steps(truth), atol=0.05)


def _steps(poses: np.ndarray) -> np.ndarray:
    """Distances between successive cameras as shares of their sum: the same after a similarity."""
    step = np.linalg.norm(np.diff(poses[:, :, 3], axis=0), axis=1)
    return step / step.sum()


def test_a_failing_child_is_a_run_error_with_its_last_words(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sfm, "FEATURES", "many")
    with pytest.raises(_sfm.RunError, match=r"structure from motion stopped \(exit 1\): ."):
        capture(room, cache=tmp_path, threads=1)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_ends_the_child_and_leaves_nothing(room: Path, tmp_path: Path) -> None:
    def interrupt(stage: str, fraction: float) -> None:
        if stage == "features":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        capture(room, cache=tmp_path, threads=1, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_near_pairs_are_few_and_look_the_same_way() -> None:
    poses = room_poses(40)
    poses[20:, :, 2] *= -1  # the second half looks away
    pairs = near_pairs(poses, 5)
    assert all((i < 20) == (j < 20) for i, j in pairs)
    assert all(i < j for i, j in pairs)
    assert {i for pair in pairs for i in pair} == set(range(40))
    assert len(pairs) <= 40 * 5


def test_shortlist_finds_the_photos_that_share_features() -> None:
    rng = np.random.default_rng(0)
    places = rng.integers(0, 255, (5, 60, 128)).astype(np.uint8)
    coarse = [coarsest(places[i % 5], rng.random(60).astype(np.float32)) for i in range(15)]
    assert shared(coarse[0], coarse[5]) == 60
    assert shared(coarse[0], coarse[1]) < 4
    pairs = set(shortlist(coarse, partners=2))
    assert {(i, i + 5) for i in range(10)} <= pairs
    assert {(i, i + 1) for i in range(14)} <= pairs


def write_film(path: Path, pictures: list[np.ndarray], hold: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "12"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            for _ in range(hold):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())


def test_held_frames_of_a_film_are_taken_once_and_reused(tmp_path: Path) -> None:
    wide = texture(3)
    pictures = [np.ascontiguousarray(wide[100:196, 30 * i : 30 * i + 128]) for i in range(12)]
    write_film(tmp_path / "film.mp4", pictures, hold=4)
    stages: list[str] = []
    paths = _video.pick_frames(
        tmp_path / "film.mp4", folder=tmp_path / "frames", progress=lambda s, f: stages.append(s)
    )
    numbers = [int(path.stem.split("_")[1]) for path in paths]
    assert [n // 4 for n in numbers] == list(range(12))
    stages.clear()
    again = _video.pick_frames(
        tmp_path / "film.mp4", folder=tmp_path / "frames", progress=lambda s, f: stages.append(s)
    )
    assert again == paths
    assert stages == []


def test_the_sharpest_of_similar_frames_is_taken() -> None:
    thumbnails = np.random.default_rng(0).uniform(0, 255, (3, 32, 32)).astype(np.float32)
    seen = _video.Seen(
        number=np.arange(6),
        sharpness=np.array([1.0, 3.0, 2.0, 5.0, 4.0, 1.0]),
        moved=np.array([0.0, 0.0, 0.1, 0.0, 0.1, 0.0]),
        thumbnails=np.repeat(thumbnails, 2, axis=0),
    )
    assert _video.choose(seen) == [1, 3, 4]


def test_movement_measures_the_shift() -> None:
    wide = texture(1).mean(axis=2).astype(np.float32)[::2, ::2]
    a, b = wide[:64, :64], wide[:64, 6:70]
    assert _video.movement(a, b) == pytest.approx(6 / 64, abs=0.02)
    assert _video.movement(a, a) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize(("scene", "least"), [("banana", 15), ("sceaux_castle", 11)])
def test_real_photos_are_registered_and_the_cache_answers_fast(
    data_dir: Path, tmp_path: Path, scene: str, least: int
) -> None:
    made = capture(data_dir / "scenes" / scene, cache=tmp_path, threads=2)
    assert made.source["kind"] == "photos"
    assert made.source["registered"] >= least
    assert len(made.points) > 3000
    start = time.perf_counter()
    again = capture(data_dir / "scenes" / scene, cache=tmp_path, threads=2)
    assert time.perf_counter() - start < 5
    np.testing.assert_array_equal(made.points, again.points)


@pytest.mark.slow
def test_fox_gets_thousands_of_points_from_its_cameras(data_dir: Path, tmp_path: Path) -> None:
    made = capture(data_dir / "scenes" / "fox", cache=tmp_path, downscale=4)
    assert made.images.shape == (50, 480, 270, 3)
    assert made.held_out == (0, 8, 16, 24, 32, 40, 48)
    assert len(made.points) > 5000
