"""``lumefield compress --method``: files of networks, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lumefield.apps._compress import Compress, compress
from lumefield.apps._decompress import Decompress, decompress
from lumefield.apps._inspect import describe, facts
from lumefield.apps._view_lume import lume_table
from lumefield.errors import FormatError, InputError

METHODS = ("coin", "coin++", "strumpler", "nerv", "e-nerv", "ps-nerv", "hnerv", "hinerv")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    y, x = np.mgrid[:20, :35]
    pixels = np.stack([x * 7, y * 12, 255 - x * 7], -1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch):
    """Hardly any steps."""
    monkeypatch.setattr("lumefield.codecs.families.EFFORTS", {"standard": 0.01})


@pytest.mark.usefixtures("hasty")
def test_a_picture_goes_through_a_network_and_back(photo: Path):
    out = photo.with_name("a.lume")
    compress(Compress(photo, out, method="coin", bytes=900))
    assert 600 < out.stat().st_size <= 920
    png = photo.with_name("back.png")
    decompress(Decompress(out, png))
    with Image.open(png) as file:
        assert file.size == (35, 20)
    found = facts(out)
    assert found["method"] == "coin"
    assert found["name"] == "photo.png"
    assert set(found["layout"]) == {"depth", "width"}
    text = describe(found)
    assert "35 x 20" in text
    assert "arXiv:2103.03123" in text
    table, told = lume_table(out)
    assert "/picture.png" in table
    assert "35 x 20" in told


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "nope"}, "--method nope: expected lumefield or one of coin"),
        ({"method": "nerv"}, "--method nerv is for a video, .* is a picture; give one of coin"),
        ({"method": "coin", "psnr": 30.0}, "--psnr with --method coin: .* give --bytes"),
        ({"method": "coin", "lambda_": 1e-3}, "--lambda with --method coin"),
    ],
)
def test_what_a_method_cannot_do_is_refused(photo: Path, options: dict[str, object], words: str):
    out = photo.with_name("a.lume")
    with pytest.raises(InputError, match=words):
        compress(Compress(photo, out, **options))  # pyright: ignore[reportArgumentType]
    assert not out.exists()


def test_a_method_for_pictures_refuses_a_video_and_a_scene(tmp_path: Path):
    for name, words in (("a.mp4", "is a video; give one of nerv"), ("a.ply", "is a scene")):
        settings = Compress(tmp_path / name, tmp_path / "a.lume", method="coin")
        with pytest.raises(InputError, match=words):
            compress(settings)


def test_a_damaged_file_is_not_inspected(tmp_path: Path):
    (tmp_path / "a.lume").write_bytes(b"LUME\1\1")
    with pytest.raises(FormatError, match=r"a\.lume: ends inside the header"):
        facts(tmp_path / "a.lume")
    (tmp_path / "b.lume").write_bytes(b"nothing of the kind")
    with pytest.raises(FormatError, match="does not begin with LUME"):
        facts(tmp_path / "b.lume")


def test_the_help_names_every_method():
    from lumefield.codecs.families import METHODS as ROWS

    assert sorted(ROWS) == sorted(METHODS)
    text = (Path(__file__).parents[2] / "lumefield/apps/_compress.py").read_text("utf-8")
    assert all(name in text for name in METHODS)
