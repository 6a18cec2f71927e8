"""``compress`` and ``decompress`` of videos: files of every kind, sound, ranges, refusals."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from lumefield.apps._cli import main
from lumefield.apps._compress import Compress, compress
from lumefield.apps._compress_video import frame_range, frame_size
from lumefield.apps._decompress import Decompress, decompress
from lumefield.apps._video_files import read_film, sound_of, write_film
from lumefield.codecs import overfit as encoder
from lumefield.codecs.neural import decode_video, open_video, sound_of_video, video_picture
from lumefield.errors import InputError
from tests.codecs.video_models import random_video

av = pytest.importorskip("av")
Planes = tuple[np.ndarray, ...]


def film(path: Path, frames: int = 6, *, sound: bool = True) -> list[Planes]:
    """A small film without loss, with a tone; what is in it."""
    rng = np.random.default_rng(0)
    seen = [
        tuple(
            np.kron(rng.integers(60, 180, (n, m)), np.ones((4, 4))).astype(np.uint8)
            for n, m in ((6, 8), (3, 4), (3, 4))
        )
        for _ in range(frames)
    ]
    tone = path.with_suffix(".mka")
    if sound:
        with av.open(str(tone), "w", format="matroska") as target:
            stream = target.add_stream("aac", rate=16000)
            for k in range(0, 16000 * frames // 25 + 1024, 1024):
                wave = np.sin(np.arange(k, k + 1024) / 9).astype(np.float32)[None]
                block = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
                block.sample_rate, block.pts = 16000, k
                target.mux(stream.encode(block))
            target.mux(stream.encode(None))
    with path.open("wb") as file:
        like = video_picture(24, 32, frames, Fraction(25))
        write_film(file, ".mkv", seen, like, tone.read_bytes() if sound else b"")
    return seen


def shown(path: Path) -> list[Planes]:
    """The planes of a video file."""
    return list(read_film(path, None, 0, None).frames)


def same(a: list[Planes], b: list[Planes]) -> bool:
    """Whether two films are the same to the bit."""
    return len(a) == len(b) and all(
        np.array_equal(x, y) for f, g in zip(a, b, strict=True) for x, y in zip(f, g, strict=True)
    )


@pytest.fixture
def coded(tmp_path: Path) -> Path:
    """A file of two groups with four and three frames."""
    path = tmp_path / "a.lume"
    path.write_bytes(random_video())
    return path


def test_lossless_films_are_read_as_they_were_written(tmp_path: Path):
    seen = film(tmp_path / "a.mkv")
    assert same(shown(tmp_path / "a.mkv"), seen)
    some = read_film(tmp_path / "a.mkv", None, 2, 4)
    assert same(some.frames, seen[2:4])
    assert (some.rate, some.start, some.seconds) == (25, Fraction(2, 25), Fraction(2, 25))
    small = read_film(tmp_path / "a.mkv", (16, 12), 0, 1)
    assert [p.shape for p in small.frames[0]] == [(12, 16), (6, 8), (6, 8)]


@pytest.mark.parametrize("suffix", [".mkv", ".y4m"])
def test_lossless_outputs_hold_the_decoded_planes(tmp_path: Path, coded: Path, suffix: str):
    out = tmp_path / f"out{suffix}"
    decompress(Decompress(coded, out))
    assert same(shown(out), list(decode_video(coded.read_bytes())))


def test_a_playable_film_is_near_the_decoded_planes(tmp_path: Path, coded: Path):
    decompress(Decompress(coded, tmp_path / "out.mp4"))
    pairs = zip(shown(tmp_path / "out.mp4"), decode_video(coded.read_bytes()), strict=True)
    for a, b in pairs:
        assert a[0].shape == (22, 34)  # even sides
        assert np.abs(a[0][:21] - b[0].astype(float)).mean() < 6


def test_a_folder_gets_one_picture_a_frame_named_by_number(tmp_path: Path, coded: Path):
    decompress(Decompress(coded, tmp_path / "out", frames="3:5"))
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["frame_000003.png", "frame_000004.png"]


def test_a_range_is_the_range_of_the_whole(tmp_path: Path, coded: Path):
    decompress(Decompress(coded, tmp_path / "some.y4m", frames="3:6"))
    assert same(shown(tmp_path / "some.y4m"), list(decode_video(coded.read_bytes()))[3:6])


def test_a_film_comes_back_with_its_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    quick = encoder.VideoEffort(intra=30, passes=6)
    monkeypatch.setitem(encoder.VIDEO_EFFORTS, "fast", quick)
    seen = film(tmp_path / "in.mkv", 4)
    out = tmp_path / "a.lume"
    compress(Compress(tmp_path / "in.mkv", out, effort="fast", frames="1:4"))
    container, picture = open_video(out.read_bytes())
    assert (picture.frames, picture.rate, picture.rows, picture.columns) == (3, 25, 24, 32)
    assert container.name() == "in.mkv"
    assert sound_of_video(container)
    decompress(Decompress(out, tmp_path / "b.mkv"))
    assert len(shown(tmp_path / "b.mkv")) == 3
    error = np.mean(
        [
            np.abs(a[0] - b[0].astype(float)).mean()
            for a, b in zip(shown(tmp_path / "b.mkv"), seen[1:], strict=True)
        ]
    )
    assert error < 40
    with av.open(str(tmp_path / "b.mkv")) as file:
        seconds = sum(f.samples for f in file.decode(file.streams.audio[0])) / 16000
    assert 0.04 < seconds < 0.3


def test_sound_is_copied_packet_for_packet(tmp_path: Path):
    film(tmp_path / "a.mkv", 25)
    copied = tmp_path / "sound.mka"
    copied.write_bytes(sound_of(tmp_path / "a.mkv", Fraction(0), Fraction(1)))

    def packets(path: Path) -> list[bytes]:
        with av.open(str(path)) as file:
            return [bytes(p) for p in file.demux(file.streams.audio[0]) if p.size]

    whole = packets(tmp_path / "a.mkv")
    found = packets(copied)
    assert found == whole[: len(found)]
    assert len(found) >= len(whole) - 2
    film(tmp_path / "silent.mkv", 2, sound=False)
    assert sound_of(tmp_path / "silent.mkv", Fraction(0), Fraction(1)) == b""


@pytest.mark.parametrize(
    ("words", "found"), [(None, (0, None)), ("40:48", (40, 48)), (":9", (0, 9)), ("7:", (7, None))]
)
def test_ranges(words: str | None, found: tuple[int, int | None]):
    assert frame_range(words) == found


@pytest.mark.parametrize("words", ["", "5", "9:9", "9:3", "a:b", "-4:2"])
def test_other_ranges_are_refused(words: str):
    with pytest.raises(InputError, match="FIRST:LAST"):
        frame_range(words)


def test_sizes():
    assert frame_size(None) is None
    assert frame_size("480x272") == (480, 272)
    for words in ("480", "0x9", "x9", "ax9", "4x-1"):
        with pytest.raises(InputError, match="COLUMNSxROWS"):
            frame_size(words)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--gop", "0"], "--gop 0, expected 1 to 1024 frames"),
        (["--jobs", "0"], "--jobs 0, expected at least 1"),
        (["--frames", "9:12"], "none of those asked for"),
        (["--frames", "x"], "expected FIRST:LAST"),
        (["--size", "9"], "expected COLUMNSxROWS"),
        (["--roi", "a.png"], "--roi is for pictures"),
        (["--psnr", "300"], "--psnr 300, expected 10 to 70"),
    ],
)
def test_wrong_flags_are_one_line_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], words: str
):
    film(tmp_path / "in.mkv", 2, sound=False)
    out = tmp_path / "a.lume"
    assert main(["compress", str(tmp_path / "in.mkv"), "--out", str(out), *flags]) == 2
    assert words in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("content", [b"", b"this is text\n" * 40])
def test_text_as_video_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
):
    (tmp_path / "in.mp4").write_bytes(content)
    out = tmp_path / "a.lume"
    assert main(["compress", str(tmp_path / "in.mp4"), "--out", str(out)]) == 2
    assert "cannot be decoded as a video" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("out", "flags", "words"),
    [
        ("b.avi", [], "expected a name ending in .mp4, .mkv, .y4m"),
        ("b.mkv", ["--frames", "7:9"], "has 7 frames"),
        ("a.lume", [], "exists already"),
    ],
)
def test_decompress_says_what_it_cannot_do(
    tmp_path: Path,
    coded: Path,
    capsys: pytest.CaptureFixture[str],
    out: str,
    flags: list[str],
    words: str,
):
    assert main(["decompress", str(coded), "--out", str(tmp_path / out), *flags]) == 2
    assert words in capsys.readouterr().err


def test_damaged_videos_leave_nothing_half_written(
    tmp_path: Path, coded: Path, capsys: pytest.CaptureFixture[str]
):
    bad = bytearray(coded.read_bytes())
    bad[-200] ^= 1  # in the second group
    coded.write_bytes(bytes(bad))
    for name in ("b.mkv", "b"):
        assert main(["decompress", str(coded), "--out", str(tmp_path / name)]) == 2
        assert "wrong checksum" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["a.lume"]


def test_ranges_are_for_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.lume").write_bytes(b"LUME\1\1rest")
    flags = ["--out", str(tmp_path / "b.png"), "--frames", "1:2"]
    assert main(["decompress", str(tmp_path / "a.lume"), *flags]) == 2
    assert "is not a video" in capsys.readouterr().err
