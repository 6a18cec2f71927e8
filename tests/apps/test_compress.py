"""``compress`` and ``decompress``: real files, exact pixels, wanted quality, clear refusals."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lumefield.apps._cli import main
from lumefield.apps._compress import Compress, compress, linear_light
from lumefield.apps._decompress import Decompress, decompress
from lumefield.codecs import overfit as encoder
from lumefield.codecs.formats import load_picture, save_picture
from lumefield.codecs.neural import Picture, Widths, base_model, decode_image, encode_image


def waves(rows: int = 40, columns: int = 56, channels: int = 3) -> np.ndarray:
    """A smooth picture with an edge, in [0, 1]."""
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    base = 0.5 + 0.3 * np.sin(x / 9 + y / 14) + 0.15 * (x > y)
    return np.stack([np.clip(base * (0.7 + 0.1 * c), 0, 1) for c in range(channels)], -1)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits of few steps."""
    quick = replace(encoder.EFFORTS["fast"], steps=250, hard_steps=20, finish_steps=30)
    monkeypatch.setitem(encoder.EFFORTS, "fast", quick)


def there_and_back(folder: Path, values: np.ndarray, bits: int = 8, **flags: object) -> np.ndarray:
    save_picture(folder / "in.png", values, bits=bits)
    out = folder / "a.lume"
    compress(Compress(folder / "in.png", out, effort="fast", **flags))  # pyright: ignore[reportArgumentType]
    decompress(Decompress(out, folder / "out.png"))
    return load_picture(folder / "out.png").values


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a.astype(np.float64) - b) ** 2)))


@pytest.mark.parametrize(("channels", "bits"), [(1, 8), (3, 8), (4, 8), (3, 16)])
def test_a_picture_comes_back_alike_in_fewer_bytes(tmp_path: Path, channels: int, bits: int):
    values = waves(channels=channels)
    back = there_and_back(tmp_path, values, bits)
    assert back.shape == values.shape
    assert psnr(back, values) > 28
    assert (tmp_path / "a.lume").stat().st_size < values.size


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (13, 7)])
def test_odd_sizes_come_back(tmp_path: Path, size: tuple[int, int]):
    assert there_and_back(tmp_path, waves(*size)).shape == (*size, 3)


def test_every_backend_gives_the_same_file_of_pixels(tmp_path: Path):
    there_and_back(tmp_path, waves())
    wanted = (tmp_path / "out.png").read_bytes()
    for backend in ("xla", "twin"):
        out = tmp_path / f"{backend}.png"
        decompress(Decompress(tmp_path / "a.lume", out, backend=backend))
        assert out.read_bytes() == wanted


def test_a_smaller_lambda_is_better_and_larger(tmp_path: Path):
    found = []
    for number, wanted in enumerate((1e-2, 1e-4)):
        (folder := tmp_path / str(number)).mkdir()
        back = there_and_back(folder, waves(), lambda_=wanted)
        found.append((psnr(back, waves()), (folder / "a.lume").stat().st_size))
    assert found[0] < found[1]
    assert found[0][1] < found[1][1]


def test_white_of_the_mask_is_kept_better(tmp_path: Path):
    rng = np.random.default_rng(0)
    values = np.clip(waves(48, 64) + rng.normal(size=(48, 64, 3), scale=0.1), 0, 1)
    values = np.rint(values * 255).astype(np.float32) / 255
    mask = np.zeros((48, 64, 1), np.float32)
    mask[:, :32] = 1
    save_picture(tmp_path / "mask.png", mask)
    back = there_and_back(tmp_path, values, roi=tmp_path / "mask.png", lambda_=3e-4)
    assert psnr(back[:, :32], values[:, :32]) > psnr(back[:, 32:], values[:, 32:]) + 0.5


def test_linear_light_comes_back_over_a_large_range(tmp_path: Path):
    values = (10.0 ** (3 * waves() - 1)).astype(np.float32)
    save_picture(tmp_path / "in.exr", values)
    compress(Compress(tmp_path / "in.exr", tmp_path / "a.lume", effort="fast"))
    decompress(Decompress(tmp_path / "a.lume", tmp_path / "out.exr"))
    back = load_picture(tmp_path / "out.exr").values
    assert np.median(np.abs(np.log(back / values))) < 0.1


def test_the_logarithm_of_light_has_its_inverse():
    light = np.array([0, 1e-3, 0.5, 20.0])
    code = np.log1p(light * (4095 / 20)) / np.log1p(4095)
    np.testing.assert_allclose(linear_light(code, 20.0), light, rtol=1e-9)


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main([str(word) for word in words]) == 2
    return capsys.readouterr().err


def test_what_cannot_be_done_is_one_line_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    photo, out = tmp_path / "in.png", tmp_path / "a.lume"
    save_picture(photo, waves())
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "kept.lume").write_bytes(b"kept")
    save_picture(tmp_path / "mask.png", waves(9, 9, 1))
    cases = {
        "ends in .lume": ("compress", photo, "--out", tmp_path / "a.png"),
        "--overwrite": ("compress", photo, "--out", tmp_path / "kept.lume"),
        "cannot be written to": ("compress", photo, "--out", photo / "a.lume"),
        "exclude": ("compress", photo, "--out", out, "--psnr", 30, "--bytes", 900),
        "expected 10 to 70": ("compress", photo, "--out", out, "--psnr", 99),
        "intact PNG": ("compress", tmp_path / "text.png", "--out", out),
        "no such file": ("compress", tmp_path / "none.png", "--out", out),
        "expected 56 x 40": ("compress", photo, "--out", out, "--roi", tmp_path / "mask.png"),
        "LUME": ("decompress", photo, "--out", tmp_path / "b.png"),
        "expected auto": ("decompress", photo, "--out", tmp_path / "b.png", "--backend", "x"),
        "No such file": ("decompress", tmp_path / "none.lume", "--out", tmp_path / "b.png"),
    }
    for expected, words in cases.items():
        line = refusal(capsys, *words)
        assert expected.lower() in line.lower()
        assert line.count("\n") == 1
    assert not out.exists()
    assert not (tmp_path / "b.png").exists()
    assert (tmp_path / "kept.lume").read_bytes() == b"kept"


@pytest.mark.parametrize("size", [(40, 56), (13, 7), (1, 1)])
def test_chroma_of_half_the_size_comes_back_in_colour(tmp_path: Path, size: tuple[int, int]):
    values = waves(*size)
    values[..., 0] *= 0.6
    back = there_and_back(tmp_path, values, chroma="420")
    assert back.shape == values.shape
    if size == (40, 56):
        assert psnr(back, values) > 28
    out = tmp_path / "planes.y4m"
    decompress(Decompress(tmp_path / "a.lume", out))
    planes, container = decode_image((tmp_path / "a.lume").read_bytes())
    assert container.picture
    assert container.picture.subsampled
    head, raw = out.read_bytes().split(b"FRAME\n")
    assert f"W{size[1]} H{size[0]}".encode() in head
    assert b"C420" in head
    assert raw == b"".join(p.tobytes() for p in planes)


def test_what_cannot_have_half_the_chroma_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    grey, photo, out = (tmp_path / name for name in ("grey.png", "in.png", "a.lume"))
    save_picture(grey, waves(channels=1))
    save_picture(photo, waves())
    line = refusal(capsys, "compress", grey, "--out", out, "--chroma", "420")
    assert "has 1 channels of 8 bits, expected 3 of 8" in line
    words = ("compress", photo, "--out", out, "--chroma", "420", "--method", "coin")
    assert "--chroma 420 is for pictures with this package's codec" in refusal(capsys, *words)
    there_and_back(tmp_path, waves())
    assert "no 4:2:0 picture" in refusal(capsys, "decompress", out, "--out", tmp_path / "b.y4m")


def test_subsampled_planes_of_an_unknown_matrix_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    widths = Widths(3, 4, 4, 3)
    latents = [np.zeros(size, np.int8) for size in ((6, 8), (3, 4), (2, 2))]
    data = encode_image(base_model(0, widths), latents, Picture(6, 8, subsampled=True))
    (tmp_path / "a.lume").write_bytes(data)
    line = refusal(capsys, "decompress", tmp_path / "a.lume", "--out", tmp_path / "b.png")
    assert "matrix coefficients 0" in line


def test_linear_light_needs_a_file_that_can_hold_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    save_picture(tmp_path / "in.exr", waves())
    compress(Compress(tmp_path / "in.exr", tmp_path / "a.lume", effort="fast"))
    line = refusal(capsys, "decompress", tmp_path / "a.lume", "--out", tmp_path / "b.png")
    assert "linear light" in line
