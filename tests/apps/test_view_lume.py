"""``view`` of ``.lume`` files: a page with a film or a picture that browsers can show."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lumefield.apps._view_lume import lume_table
from lumefield.codecs.neural import Picture, Widths, base_model, decode_image, encode_image
from lumefield.codecs.neural._levels import level_sizes
from lumefield.errors import FormatError
from tests.codecs.video_models import random_video

av = pytest.importorskip("av")


def test_a_video_is_served_as_a_page_and_a_playable_film(tmp_path: Path):
    path = tmp_path / "a & b.lume"
    path.write_bytes(random_video())
    table, told = lume_table(path)
    assert "7 frames, 25 a second" in told
    page = table["/"][1].decode()
    assert "a &amp; b.lume" in page
    assert 'fetch("film.mp4")' in page
    kind, film = table["/film.mp4"]
    assert kind == "video/mp4"
    with av.open(io.BytesIO(film)) as file:
        stream = file.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert len(list(file.decode(stream))) == 7


def test_a_picture_is_served_with_its_own_pixels(tmp_path: Path):
    rng = np.random.default_rng(0)
    latents = [np.rint(rng.normal(0, 1, size)).astype(np.int32) for size in level_sizes(9, 14, 7)]
    path = tmp_path / "a.lume"
    path.write_bytes(encode_image(base_model(1, Widths(7, 12, 32, 3)), latents, Picture(9, 14)))
    table, _ = lume_table(path)
    shown = np.asarray(Image.open(io.BytesIO(table["/picture.png"][1])))
    np.testing.assert_array_equal(shown, np.stack(decode_image(path.read_bytes())[0], -1))


def test_damaged_files_are_refused(tmp_path: Path):
    path = tmp_path / "a.lume"
    path.write_bytes(random_video()[:-300])
    with pytest.raises(FormatError, match=r"a\.lume"):
        lume_table(path)
