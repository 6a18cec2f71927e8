"""Photos on disk become arrays: orientation, formats, alpha, masks, sizes, focal length."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lumefield.apps._capture import capture
from lumefield.apps._capture_load import MaskMode, choose_factor
from lumefield.apps._photos import decode, find_masks, read_info
from lumefield.errors import InputError
from tests.apps.posed_folder import write_posed

SIZE = (48, 32)


def ramp(size: tuple[int, int] = SIZE) -> np.ndarray:
    """A picture that is different in every direction."""
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    return np.stack([x, y, 255 - (x + y) / 2], -1).astype(np.uint8)


def folder_of(tmp_path: Path, images: list[Image.Image], suffix: str = ".png") -> list[Path]:
    (tmp_path / "images").mkdir()
    paths = [tmp_path / "images" / f"p{i}{suffix}" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        image.save(path)
    return paths


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_turns_the_photo_upright(tmp_path: Path, orientation: int) -> None:
    upright = Image.fromarray(ramp())
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = upright if undo is None else upright.transpose(undo)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    stored.save(path, exif=exif)
    info = read_info(path)
    assert info.upright == SIZE
    pixels, transparent = decode(info, SIZE, upright=True)
    assert not transparent
    np.testing.assert_array_equal(pixels[..., :3], ramp())


def test_heic_is_read(tmp_path: Path) -> None:
    import pillow_heif

    pillow_heif.from_pillow(Image.fromarray(ramp((128, 96)))).save(tmp_path / "a.heic", quality=95)
    info = read_info(tmp_path / "a.heic")
    pixels, _ = decode(info, (128, 96), upright=True)
    error = np.abs(pixels[..., :3].astype(int) - ramp((128, 96)))
    assert info.upright == (128, 96)
    assert error.mean() < 4


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, SIZE[0] * SIZE[1]).reshape(SIZE[::-1]).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    pixels, _ = decode(read_info(tmp_path / "a.png"), SIZE, upright=True)
    assert np.abs(pixels[..., 0] - values / 257.0).max() <= 0.51


def test_downscale_averages_areas(tmp_path: Path) -> None:
    fine = np.random.default_rng(0).integers(0, 255, (32, 48, 3)).astype(np.uint8)
    Image.fromarray(fine).save(tmp_path / "a.png")
    pixels, _ = decode(read_info(tmp_path / "a.png"), (12, 8), upright=True)
    mean = fine.reshape(8, 4, 12, 4, 3).mean(axis=(1, 3))
    assert np.abs(pixels[..., :3] - mean).max() <= 0.51


def test_focal_length_comes_from_the_35mm_equivalent(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 36
    Image.fromarray(ramp((300, 200))).save(tmp_path / "a.jpg", exif=exif)
    assert read_info(tmp_path / "a.jpg").focal == pytest.approx(36 * np.hypot(300, 200) / 43.27)


def test_focal_length_comes_from_the_pixel_pitch(tmp_path: Path) -> None:
    exif = Image.Exif()
    ifd = exif.get_ifd(0x8769)
    ifd[0x920A], ifd[0xA20E], ifd[0xA210], ifd[0xA002] = 10.0, 400.0, 3, 1200
    Image.fromarray(ramp((300, 200))).save(tmp_path / "a.jpg", exif=exif)
    # 400 pixels per cm of a 1200 pixel original: 10 mm are 400 of its pixels, 100 of ours.
    assert read_info(tmp_path / "a.jpg").focal == pytest.approx(100.0)


def test_automatic_downscale_is_the_smallest_whole_factor_and_is_told() -> None:
    factor, said = choose_factor(1920, None, 1000)
    assert factor == 2.0
    assert said == "photos averaged down 2x to at most 1000 pixels a side"
    assert choose_factor(1000, None, 1000) == (1.0, "")
    assert choose_factor(1920, 1.5, 1000) == (1.5, "")


@pytest.mark.parametrize("factor", [0.5, -1.0, float("nan"), float("inf")])
def test_downscale_below_one_is_refused(factor: float) -> None:
    with pytest.raises(InputError, match="expected 1 or more"):
        choose_factor(100, factor, 1000)


def test_downscale_to_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="leaves 1 pixels of 100"):
        choose_factor(100, 100, 1000)


def test_known_cameras_are_scaled_with_the_photos(tmp_path: Path) -> None:
    write_posed(tmp_path, folder_of(tmp_path, [Image.fromarray(ramp())] * 9), SIZE)
    made = capture(tmp_path, cache=tmp_path / "cache", downscale=2)
    assert made.images.shape == (9, 16, 24, 3)
    assert made.weights.shape == made.alphas.shape == (9, 1, 1)
    np.testing.assert_allclose(made.focal, 24.0)
    np.testing.assert_allclose(made.centre, np.tile([12.0, 8.0], (9, 1)))
    assert made.names == tuple(f"p{i}.png" for i in range(9))
    assert made.held_out == (0, 8)
    assert len(made.points) == 200
    assert made.source["kind"] == "colmap"
    assert made.source["downscale"] == 2.0
    assert not (tmp_path / "cache").exists()


def test_photos_of_other_sizes_are_padded_at_right_and_bottom(tmp_path: Path) -> None:
    images = [Image.fromarray(ramp()), Image.fromarray(ramp((24, 16)))]
    write_posed(tmp_path, folder_of(tmp_path, images), SIZE)
    made = capture(tmp_path, cache=tmp_path / "cache")
    assert made.images.shape == (2, 32, 48, 3)
    np.testing.assert_array_equal(made.images[1, :16, :24], ramp((24, 16)))
    assert made.weights[0].min() == 255
    assert made.weights[1, :16, :24].min() == 255
    assert made.weights[1, 16:].max() == made.weights[1, :, 24:].max() == 0
    np.testing.assert_allclose(made.focal[1], made.focal[0] / 2)
    assert any("padded" in note for note in made.source["notes"])


def rgba() -> Image.Image:
    alpha = np.zeros(SIZE[::-1], np.uint8)
    alpha[:, 24:] = 255
    return Image.fromarray(np.dstack([ramp(), alpha]))


@pytest.mark.parametrize("mode", [None, "carve"])
def test_transparency_carves_by_default(tmp_path: Path, mode: MaskMode | None) -> None:
    write_posed(tmp_path, folder_of(tmp_path, [rgba()] * 2), SIZE)
    made = capture(tmp_path, cache=tmp_path / "cache", mask_mode=mode)
    assert made.weights.shape == (2, 1, 1)
    assert made.alphas[0, :, :24].max() == 0
    assert made.alphas[0, :, 24:].min() == 255
    assert made.images[0, :, :24].max() == 0
    np.testing.assert_array_equal(made.images[0, :, 24:], ramp()[:, 24:])


def test_transparency_is_ignored_when_told(tmp_path: Path) -> None:
    write_posed(tmp_path, folder_of(tmp_path, [rgba()] * 2), SIZE)
    made = capture(tmp_path, cache=tmp_path / "cache", mask_mode="ignore")
    assert made.alphas.shape == (2, 1, 1)
    assert made.weights[0, :, :24].max() == 0
    assert made.weights[0, :, 24:].min() == 255


@pytest.mark.parametrize("name", ["masks/p0.png", "masks/p0.png.png", "images/p0_mask.png"])
def test_mask_files_are_found_and_ignored_by_default(tmp_path: Path, name: str) -> None:
    paths = folder_of(tmp_path, [Image.fromarray(ramp())] * 2)
    write_posed(tmp_path, paths, SIZE)
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[:16] = 255
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / name)
    assert find_masks(paths, tmp_path) == [tmp_path / name, None]
    made = capture(tmp_path, cache=tmp_path / "cache")
    np.testing.assert_array_equal(made.weights[0], mask)
    assert made.weights[1].min() == 255
    np.testing.assert_array_equal(made.images[0], ramp())
    carved = capture(tmp_path, cache=tmp_path / "cache", mask_mode="carve")
    assert carved.weights.shape == (2, 1, 1)
    np.testing.assert_array_equal(carved.alphas[0], mask)
    assert carved.images[0, 16:].max() == 0


def test_a_damaged_photo_among_good_ones_is_left_out_and_named(tmp_path: Path) -> None:
    paths = folder_of(tmp_path, [Image.fromarray(ramp())] * 4, ".jpg")
    write_posed(tmp_path, paths, SIZE)
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[: len(whole) * 2 // 3])
    made = capture(tmp_path, cache=tmp_path / "cache")
    assert made.names == ("p0.jpg", "p2.jpg", "p3.jpg")
    assert made.images.shape[0] == len(made.world_from_cam) == len(made.focal) == 3
    np.testing.assert_allclose(made.world_from_cam[:, 0, 3], [0.0, 0.2, 0.3])
    assert any("p1.jpg" in note for note in made.source["notes"])


def test_known_cameras_of_the_upright_photo_turn_the_stored_one(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    paths = [tmp_path / "images" / f"p{i}.png" for i in range(2)]
    for path in paths:
        Image.fromarray(ramp()).transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    write_posed(tmp_path, paths, SIZE)  # cameras made by a program that applied the orientation
    made = capture(tmp_path, cache=tmp_path / "cache")
    np.testing.assert_array_equal(made.images[0], ramp())
    write_posed(tmp_path, paths, (32, 48))  # cameras made by a program that did not look at it
    made = capture(tmp_path, cache=tmp_path / "cache")
    assert made.images.shape == (2, 48, 32, 3)
