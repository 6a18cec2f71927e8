"""Films whose index is put in front and told about spheres."""

import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lumefield.apps._mp4 import finish, sphere_boxes
from lumefield.errors import FormatError

NAME = Path("film.mp4")


@pytest.fixture(scope="module")
def film() -> bytes:
    """30 frames in several chunks, index behind."""
    file = io.BytesIO()
    rng = np.random.default_rng(0)
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        stream.options = {"crf": "30"}
        for _ in range(30):
            pixels = rng.integers(0, 255, (32, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


def frames(data: bytes) -> list[np.ndarray]:
    with av.open(io.BytesIO(data), "r") as container:
        return [frame.to_ndarray(format="yuv420p") for frame in container.decode(video=0)]


def done(data: bytes, extra: bytes = b"") -> bytes:
    out = io.BytesIO()
    finish(io.BytesIO(data), out, NAME, extra)
    return out.getvalue()


@pytest.mark.parametrize("extra", [b"", sphere_boxes("top-bottom", 360)])
def test_the_index_comes_first_and_every_frame_stays(film: bytes, extra: bytes):
    out = done(film, extra)
    assert film.index(b"mdat") < film.index(b"moov")
    assert out.index(b"moov") < out.index(b"mdat")
    for a, b in zip(frames(film), frames(out), strict=True):
        np.testing.assert_array_equal(a, b)


def test_boxes_are_those_of_the_recommendation(film: bytes):
    boxes = sphere_boxes("side-by-side", 180)
    assert struct.unpack_from(">I4sIB", boxes) == (13, b"st3d", 0, 2)
    size, kind = struct.unpack_from(">I4s", boxes, 13)
    assert (size, kind) == (len(boxes) - 13, b"sv3d")
    at = boxes.index(b"equi")
    assert struct.unpack_from(">5I", boxes, at + 4) == (0, 0, 0, 2**30, 2**30)
    out = done(film, boxes)
    entry = out.index(b"avc1", out.index(b"stsd")) - 4
    length = struct.unpack_from(">I", out, entry)[0]
    assert out[entry : entry + length].endswith(boxes)


def test_doing_it_twice_changes_nothing(film: bytes):
    boxes = sphere_boxes("top-bottom", 360)
    once = done(film, boxes)
    assert done(once, boxes) == once


class Sparse:
    """A film that claims 4.5 GB of media; only the start of them is not zero."""

    hole = 9 * 2**29

    def __init__(self, film: bytes) -> None:
        split = film.index(b"mdat") - 4
        length = struct.unpack_from(">I", film, split)[0]
        head = struct.pack(">I4sQ", 1, b"mdat", length + 8 + self.hole)
        self.front = film[:split] + head + film[split + 8 : split + length]
        self.back = film[split + length :]
        self.at = 0

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self.at = offset + whence // 2 * (len(self.front) + self.hole + len(self.back))
        return self.at

    def read(self, size: int = -1, /) -> bytes:
        start, behind = self.at, len(self.front) + self.hole
        if start >= behind:
            out = self.back[start - behind :][:size]
        else:
            out = self.front[start : start + size] or bytes(min(size, behind - start))
        self.at += len(out)
        return out


class Start(io.BytesIO):
    """Keeps the first bytes."""

    def write(self, data, /) -> int:
        return super().write(data) if self.tell() < 2**16 else len(data)


def test_offsets_beyond_4_gb_get_a_wide_table(film: bytes):
    out = Start()
    finish(Sparse(film), out, NAME)
    data = out.getvalue()
    assert b"stco" not in data[:2000]
    new = struct.unpack_from(">Q", data, data.index(b"co64") + 12)[0]
    old = struct.unpack_from(">I", film, film.index(b"stco") + 12)[0]
    # The longer header of the media moved them by 8 bytes before we did.
    assert data[new + 8 : new + 40] == film[old : old + 32]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: f[:-10], "not a whole MP4 file"),
        (lambda f: b"", "0 moov boxes"),
        (lambda f: f[: f.index(b"moov") - 4], "0 moov boxes"),
        (lambda f: f + f[f.index(b"moov") - 4 :], "2 moov boxes"),
        (lambda f: f.replace(b"vide", b"soun"), "0 video tracks"),
        (lambda f: f[:4], "not a whole MP4 file"),
        (lambda f: _poked(f, b"stco", 8, 1 << 30), "for 1073741824 offsets"),
        (lambda f: _poked(f, b"avc1", -4, 4), "not a whole MP4 file"),
        (lambda f: _poked(f, b"stbl", -4, 1 << 30), "not a whole MP4 file"),
    ],
)
def test_a_damaged_film_is_refused(film: bytes, damage, message):
    with pytest.raises(FormatError, match=message):
        done(damage(film), sphere_boxes("off", 360))


def test_a_film_that_gets_shorter_while_it_is_copied_is_refused(film: bytes):
    class Short(io.BytesIO):
        def read(self, size=-1, /) -> bytes:
            return b"" if self.tell() < 2000 and (size or 0) > 1000 else super().read(size)

    with pytest.raises(FormatError, match=r"ends [0-9]+ bytes early"):
        finish(Short(film), io.BytesIO(), NAME)


def _poked(film: bytes, kind: bytes, offset: int, value: int) -> bytes:
    at = film.rindex(kind) + offset
    return film[:at] + struct.pack(">I", value) + film[at + 4 :]
