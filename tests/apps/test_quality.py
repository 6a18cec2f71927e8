"""``lumefield quality``: right numbers, frames paired by order, clear refusals."""

import csv
import importlib.util
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lumefield import native
from lumefield.apps._cli import main
from lumefield.apps._decompress import Decompress, decompress
from lumefield.apps._quality import Quality, quality
from lumefield.apps._quality_frames import as_rgb, open_source
from lumefield.apps._quality_vmaf import vmaf
from lumefield.codecs.formats import save_picture
from lumefield.errors import InputError, RunError
from tests.codecs.video_models import random_video

OPTIONAL = {"vmaf": "imageio_ffmpeg", "flip": "flip_evaluator", "ssimulacra2": "ssimulacra2"}


def picture(rows: int = 24, columns: int = 32, shift: float = 0.0) -> np.ndarray:
    y, x = np.mgrid[0:rows, 0:columns]
    one = 0.5 + 0.3 * np.sin(x / 5 + shift) * np.cos(y / 7 + shift)
    return np.stack([one, one[::-1], one[:, ::-1]], -1)


def film(path: Path, count: int, codec: str, crf: str = "0", size: tuple[int, int] = (48, 64)):
    """A moving picture, every frame of its own."""
    rows, columns = size
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=24)
        stream.width, stream.height, stream.pix_fmt = columns, rows, "yuv420p"  # pyright: ignore
        stream.options = {"crf": crf} if codec == "libx264" else {}
        for k in range(count):
            values = (picture(rows, columns, k / 2) * 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(values, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 24)
            out.mux(stream.encode(frame))  # pyright: ignore
        out.mux(stream.encode())  # pyright: ignore
    return path


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """A picture and one that is 0.1 brighter in a half."""
    a = np.full((24, 32, 3), 0.4)
    b = a.copy()
    b[:12] += 0.2
    save_picture(tmp_path / "a.png", a, bits=16)
    save_picture(tmp_path / "b.png", b, bits=16)
    return tmp_path / "a.png", tmp_path / "b.png"


def test_psnr_is_that_of_the_definition_and_grey_errors_are_errors_of_luma(two: tuple[Path, Path]):
    found = quality(Quality(*two, metric=("psnr", "yuv")))
    decibels = -10 * np.log10(0.2**2 / 2)
    assert found["means"]["psnr"] == pytest.approx(decibels, abs=1e-3)
    assert found["means"]["psnr_y"] == pytest.approx(decibels, abs=1e-3)
    assert found["means"]["psnr_u"] > 90
    assert found["means"]["psnr_yuv"] == pytest.approx(decibels + 10 * np.log10(8 / 6), abs=1e-3)


def test_what_does_not_fit_the_size_is_left_out_unless_it_was_asked_for(
    two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
):
    assert "ms_ssim" not in quality(Quality(*two))["means"]
    assert "176 pixels" in capsys.readouterr().out
    with pytest.raises(InputError, match="ms-ssim needs 176 pixels"):
        quality(Quality(*two, metric=("ms-ssim",)))


def test_equal_pictures_score_100_db(two: tuple[Path, Path]):
    found = quality(Quality(two[0], two[0], metric=("psnr", "ssim")))
    assert found["means"] == {"psnr": 100.0, "ssim": pytest.approx(1, abs=1e-5)}


def test_folders_pair_by_name_and_page_and_table_are_written(tmp_path: Path):
    for folder, noise in (("ref", 0.0), ("dist", 0.05)):
        (tmp_path / folder).mkdir()
        for k in range(6):
            values = np.clip(picture(shift=k) + noise * k, 0, 1)
            save_picture(tmp_path / folder / f"{k}.png", values)
    out, table = tmp_path / "q.html", tmp_path / "q.csv"
    found = quality(Quality(tmp_path / "ref", tmp_path / "dist", out=out, csv=table))
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list("012345")
    assert rows[0]["psnr"] == "100"
    assert float(rows[5]["psnr"]) == pytest.approx(found["rows"][5]["psnr"], rel=1e-5)
    page = out.read_text()
    assert page.count("<div class=view>") == 4
    assert page.index("<h3>5<") < page.index("<h3>4<") < page.index("<h3>2<")
    assert "<h3>1<" not in page
    with pytest.raises(InputError, match=r"q\.html: exists already"):
        quality(Quality(tmp_path / "ref", tmp_path / "dist", out=out))


def test_frames_of_videos_pair_by_order_in_every_container(tmp_path: Path):
    one = film(tmp_path / "a.mkv", 9, "ffv1")
    two = film(tmp_path / "b.mp4", 9, "libx264")
    found = quality(Quality(one, two, metric=("psnr", "yuv")))
    assert found["frames"] == 9
    assert min(row["psnr"] for row in found["rows"]) > 60
    assert len(quality(Quality(one, two, metric=("psnr",), frames=4))["rows"]) == 4


@pytest.mark.skipif(native.library() is None, reason="decoding by XLA takes long to compile")
def test_videos_and_pictures_in_lume_files_are_compared_as_they_decode(tmp_path: Path):
    path = tmp_path / "a.lume"
    path.write_bytes(random_video(groups=(2, 1)))
    decompress(Decompress(path, tmp_path / "a.y4m"))
    found = quality(Quality(path, tmp_path / "a.y4m", metric=("yuv",)))
    assert found["frames"] == 3
    assert found["means"]["psnr_yuv"] == 100.0
    frames = [frame for _, frame in open_source(path).frames()]
    assert as_rgb(frames[0]).shape == (21, 34, 3)


@pytest.mark.skipif(
    importlib.util.find_spec("imageio_ffmpeg") is None, reason="imageio-ffmpeg is not installed"
)
def test_vmaf_compares_the_same_frames_and_notices_others(tmp_path: Path):
    one = film(tmp_path / "a.mkv", 9, "ffv1", size=(96, 128))
    two = film(tmp_path / "b.mp4", 9, "libx264", size=(96, 128))
    found = quality(Quality(one, two, metric=("yuv", "vmaf")))
    assert min(row["vmaf"] for row in found["rows"]) > 90
    wrong = [{**row, "psnr_y": 20.0} for row in found["rows"]]
    with pytest.raises(RunError, match="compares other frames"):
        vmaf(open_source(one), open_source(two), wrong)
    with pytest.raises(RunError, match=r"found 9 frames, we 12"):
        vmaf(open_source(one), open_source(two), found["rows"] + wrong[:3])


@pytest.mark.parametrize("metric", sorted(OPTIONAL))
def test_metrics_of_other_packages_rank_pictures(metric: str, tmp_path: Path):
    if importlib.util.find_spec(OPTIONAL[metric]) is None:
        pytest.skip(f"{OPTIONAL[metric]} is not installed")
    rng, paths = np.random.default_rng(0), list[Path]()
    noise = rng.normal(size=(192, 192, 3))
    for k, amount in enumerate((0.0, 0.02, 0.2)):
        paths.append(tmp_path / f"{k}.png")
        save_picture(paths[-1], np.clip(picture(192, 192) + amount * noise, 0, 1))
    near, far = (
        quality(Quality(paths[0], path, metric=(metric,)))["means"][metric]  # pyright: ignore[reportArgumentType]
        for path in paths[1:]
    )
    assert near < far if metric == "flip" else near > far


@pytest.mark.parametrize("metric", sorted(OPTIONAL))
def test_a_metric_whose_package_is_missing_says_what_to_install(
    metric: str, two: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, OPTIONAL[metric], None)
    with pytest.raises(InputError, match=r"not installed; pip install lumefield\[quality\]"):
        quality(Quality(*two, metric=(metric,)))  # pyright: ignore[reportArgumentType]


def test_bad_inputs_end_with_one_line_and_code_2(
    tmp_path: Path, two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
):
    save_picture(tmp_path / "small.png", picture(8, 8))
    save_picture(tmp_path / "light.exr", picture())
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty").mkdir()
    for folder, names in (("one", "ab"), ("other", "ac")):
        (tmp_path / folder).mkdir()
        for name in names:
            save_picture(tmp_path / folder / f"{name}.png", picture(8, 8))
    save_picture(tmp_path / "one" / "c.png", picture(8, 8))
    long, short = film(tmp_path / "l.mkv", 3, "ffv1"), film(tmp_path / "s.mkv", 2, "ffv1")
    a, b = two
    cases = [
        ((a, tmp_path / "small.png"), "is 8 x 8, expected 32 x 24"),
        ((a, tmp_path / "none.png"), "no such file"),
        ((a, tmp_path / "light.exr"), "linear light"),
        ((a, tmp_path / "text.mp4"), "cannot be decoded"),
        ((a, tmp_path / "empty"), "no pictures in it"),
        ((tmp_path / "one", tmp_path / "other"), "no partner of the same name, the first is b"),
        ((long, short), "--frames 2"),
        ((a, b, "--out", "q.txt"), "ends in .html"),
        ((a, b, "--csv", "q.txt"), "ends in .csv"),
        ((a, b, "--frames", "0"), "at least 1"),
    ]
    for words, text in cases:
        assert main(["quality", *map(str, words)]) == 2
        said = capsys.readouterr().err
        assert text in said
        assert said.count("\n") == 1
    save_picture(tmp_path / "one" / "b.jpg", picture(8, 8))
    assert main(["quality", str(tmp_path / "one"), str(tmp_path / "one")]) == 2
    assert "two pictures are called b" in capsys.readouterr().err
