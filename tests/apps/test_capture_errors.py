"""Every input that cannot be trained on gets one clear line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lumefield.apps import _sfm
from lumefield.apps._capture import capture
from lumefield.errors import InputError, RunError
from tests.apps.posed_folder import texture, write_posed


def empty(folder: Path) -> Path:
    return folder


def missing(folder: Path) -> Path:
    return folder / "absent"


def one_photo_in_a_folder(folder: Path) -> Path:
    Image.new("RGB", (64, 48)).save(folder / "a.jpg")
    return folder


def one_photo(folder: Path) -> Path:
    return one_photo_in_a_folder(folder) / "a.jpg"


def text(folder: Path) -> Path:
    (folder / "notes.txt").write_text("hello")
    return folder / "notes.txt"


def texts_named_jpg(folder: Path) -> Path:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (folder / name).write_text("hello")
    return folder


def truncated(folder: Path) -> Path:
    for name in ("a.jpg", "b.jpg"):
        Image.fromarray(texture(0, 256)).save(folder / name)
        (folder / name).write_bytes((folder / name).read_bytes()[:2000])
    return folder


def text_named_mp4(folder: Path) -> Path:
    (folder / "film.mp4").write_text("hello, I am no film\n" * 50)
    return folder / "film.mp4"


def silent_film(folder: Path) -> Path:
    import av

    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return folder / "sound.mp4"


def still_film(folder: Path) -> Path:
    import av

    with av.open(str(folder / "still.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(texture(0, 64 * 2)[::2, ::2].copy(), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return folder / "still.mp4"


def wrong_shape(folder: Path) -> Path:
    (folder / "images").mkdir()
    paths = [folder / "images" / f"{i}.png" for i in range(2)]
    for path in paths:
        Image.new("RGB", (48, 32)).save(path)
    write_posed(folder, paths, (32, 48))
    return folder


def unreadable_posed(folder: Path) -> Path:
    (folder / "images").mkdir()
    paths = [folder / "images" / f"{i}.png" for i in range(2)]
    for path in paths:
        path.write_text("hello")
    write_posed(folder, paths, (32, 48))
    return folder


CASES = [
    (empty, r"holds no photos; expected a folder of photos"),
    (missing, r"absent does not exist; expected a folder of photos"),
    (one_photo_in_a_folder, r"one photo of 1 can be used, expected at least two"),
    (one_photo, r"a\.jpg is one photo; a scene needs a folder"),
    (text, r"notes\.txt is not an input that can be trained on; expected"),
    (texts_named_jpg, r"no photo of 3 can be used.*skipped 3 files.*a\.jpg"),
    (truncated, r"only 0 of 2 photos can be decoded"),
    (text_named_mp4, r"film\.mp4 cannot be decoded as a video"),
    (silent_film, r"sound\.mp4 has no picture"),
    (still_film, r"5 frames, 1 of them different"),
    (wrong_shape, r"the photo is 48x32 but its camera is for 32x48"),
    (unreadable_posed, r"none of its 2 photos can be read"),
]


@pytest.mark.parametrize(("make", "message"), CASES, ids=[make.__name__ for make, _ in CASES])
def test_a_bad_input_gets_one_line(
    tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with pytest.raises(InputError, match=message) as caught:
        capture(make(folder), cache=tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("cache/*tmp*"))


def test_photos_without_overlap_are_refused_before_training(tmp_path: Path) -> None:
    for i in range(3):
        Image.fromarray(texture(i, 256)).save(tmp_path / f"{i}.jpg")
    with pytest.raises(InputError, match="none of the 3 photos could be placed"):
        capture(tmp_path, cache=tmp_path / "cache")


def test_too_few_registered_photos_stop_with_numbers_and_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(5):
        Image.new("RGB", (64, 48)).save(tmp_path / f"{i}.jpg")

    def two_of_five(*args: object, **kwargs: object) -> _sfm.Solution:
        return _sfm.Solution(
            order=np.array([0, 2]),
            world_from_cam=np.zeros((2, 3, 4)),
            intrinsics=np.ones((2, 12)),
            fisheye=np.zeros(2, np.bool_),
            points=np.zeros((1234, 3)),
            colours=np.zeros((1234, 3), np.uint8),
            error=0.5,
            how="incremental",
            unreadable=np.zeros(0, np.int64),
        )

    monkeypatch.setattr(_sfm, "solve", two_of_five)
    with pytest.raises(InputError, match=r"registered 2 of 5 photos, 1 234 points.*60%.*1\.jpg"):
        capture(tmp_path, cache=tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_a_run_error(tmp_path: Path) -> None:
    for i in range(2):
        Image.new("RGB", (64, 48)).save(tmp_path / f"{i}.jpg")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="cannot write the reconstruction"):
        capture(tmp_path, cache=tmp_path / "file" / "capture")
