"""Pictures, meshes and sounds as files: what is written is read, and damage is one clear line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from lumefield.apps._marching import Mesh
from lumefield.apps._shape_files import MESH_SUFFIXES, load_shape, save_mesh
from lumefield.apps._sound_files import load_wav, save_wav
from lumefield.codecs.formats import load_picture, save_picture
from lumefield.errors import FormatError, InputError, UserError

TETRAHEDRON = Mesh(
    np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], float),
    np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]),
)


def colours(channels: int, *, most: float = 1.0) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, most, (5, 7, channels)).astype(np.float32)


def read_or_refused(read: Callable[[Path], object], path: Path) -> bool:
    """Whether a file is read, or refused by one line."""
    try:
        read(path)
    except UserError as error:
        return "\n" not in str(error)
    return True


# -- pictures --------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    ("name", "bits", "error"),
    [
        ("a.png", 8, 1 / 255),
        ("a.png", 16, 1 / 65535),
        ("a.tif", 16, 1 / 65535),
        ("a.webp", 8, 1 / 255),
        ("a.tiff", 8, 1 / 255),
        ("a.exr", 8, 0.0),
    ],
)
def test_a_picture_survives_its_file(
    tmp_path: Path, name: str, bits: int, error: float, channels: int
):
    values = colours(channels)
    save_picture(tmp_path / name, values, bits=bits)
    back = load_picture(tmp_path / name)
    if name == "a.webp" and channels == 1:  # WebP has no grey
        values = np.repeat(values, 3, -1)
    assert back.values.shape == values.shape
    assert back.bits == (32 if name == "a.exr" else bits)
    assert back.linear == (name == "a.exr")
    np.testing.assert_allclose(back.values, values, atol=0.51 * error)


def test_grey_with_alpha_survives_a_png(tmp_path: Path):
    save_picture(tmp_path / "a.png", colours(2))
    back = load_picture(tmp_path / "a.png")
    np.testing.assert_allclose(back.values, colours(2), atol=0.51 / 255)


def test_light_beyond_one_survives_exr_exactly_and_hdr_nearly(tmp_path: Path):
    light = colours(3, most=900.0)
    save_picture(tmp_path / "a.exr", light)
    save_picture(tmp_path / "a.hdr", light)
    np.testing.assert_array_equal(load_picture(tmp_path / "a.exr").values, light)
    back = load_picture(tmp_path / "a.hdr").values
    assert (np.abs(back - light) <= light.max(-1, keepdims=True) / 128).all()


def test_other_programs_read_our_exr_and_we_read_theirs(tmp_path: Path):
    openexr = pytest.importorskip("OpenEXR")
    light = colours(3, most=9.0)
    save_picture(tmp_path / "a.exr", light)
    np.testing.assert_array_equal(
        openexr.File(str(tmp_path / "a.exr")).channels()["RGB"].pixels, light
    )
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    for kind in (np.float32, np.float16):
        openexr.File(header, {"RGB": light.astype(kind)}).write(str(tmp_path / "b.exr"))
        back = load_picture(tmp_path / "b.exr")
        np.testing.assert_array_equal(back.values, light.astype(kind).astype(np.float32))


def test_alpha_of_one_everywhere_is_left_out(tmp_path: Path):
    values = colours(4)
    values[..., 3] = 1
    save_picture(tmp_path / "a.png", values)
    assert load_picture(tmp_path / "a.png").values.shape == (5, 7, 3)


def test_sixteen_bits_of_grey_are_kept(tmp_path: Path):
    values = np.arange(35, dtype=np.uint16).reshape(5, 7) * 1871
    Image.fromarray(values).save(tmp_path / "a.png")
    back = load_picture(tmp_path / "a.png")
    np.testing.assert_allclose(back.values[..., 0] * 65535, values, atol=0.01)
    assert back.bits == 16


def test_a_turned_photo_is_upright(tmp_path: Path):
    image = Image.fromarray(np.zeros((4, 8, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    assert load_picture(tmp_path / "a.jpg").values.shape == (8, 4, 3)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif", "a.exr", "a.hdr"])
def test_a_damaged_picture_is_one_clear_line(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(b"")
    with pytest.raises(FormatError, match="an empty file, expected a picture"):
        load_picture(path)
    path.write_text("hello, this is text")
    with pytest.raises(FormatError, match="cannot be read as a picture"):
        load_picture(path)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".exr", ".hdr", ".jpg", ".webp"])
def test_a_cut_or_changed_picture_is_read_or_refused(tmp_path: Path, suffix: str):
    whole, part = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    save_picture(whole, colours(3), bits=16)
    data = whole.read_bytes()
    rng = np.random.default_rng(1)
    for trial in range(30):
        changed = bytearray(data[: len(data) * (trial + 1) // 30])
        for at in rng.integers(0, max(1, len(changed)), 3):
            if changed:
                changed[at] ^= 1 << int(rng.integers(8))
        part.write_bytes(bytes(changed))
        assert read_or_refused(load_picture, part)


def test_pixels_that_are_not_numbers_are_refused(tmp_path: Path):
    values = colours(3)
    values[1, 2, 0] = np.nan
    values[3, 3, :] = np.inf
    save_picture(tmp_path / "a.exr", values)
    with pytest.raises(FormatError, match="2 of 35 pixels are NaN or infinite"):
        load_picture(tmp_path / "a.exr")


def test_a_picture_of_another_kind_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"not a picture; expected one of \.png"):
        load_picture(tmp_path / "a.gif")
    with pytest.raises(InputError, match=r"cannot be written; expected one of \.png"):
        save_picture(tmp_path / "a.gif", colours(3))
    with pytest.raises(InputError, match="has no alpha channel"):
        save_picture(tmp_path / "a.jpg", colours(4))
    with pytest.raises(InputError, match=r"cannot open .*missing\.png"):
        load_picture(tmp_path / "missing.png")


# -- meshes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", MESH_SUFFIXES)
def test_a_mesh_survives_its_file(tmp_path: Path, suffix: str):
    save_mesh(tmp_path / f"a{suffix}", TETRAHEDRON)
    shape = load_shape(tmp_path / f"a{suffix}")
    assert (len(shape.vertices), len(shape.faces), shape.notes) == (4, 4, ())
    a, b, c = np.moveaxis(shape.vertices[shape.faces], 1, 0)
    assert float((a * np.cross(b, c)).sum() / 6) == pytest.approx(1 / 6)


def test_a_mesh_with_a_hole_says_so(tmp_path: Path):
    save_mesh(tmp_path / "a.obj", Mesh(TETRAHEDRON.vertices, TETRAHEDRON.faces[1:]))
    assert load_shape(tmp_path / "a.obj").notes == ("1 holes closed by a fan each",)


def cloud(path: Path, count: int, *, normals: bool) -> None:
    at = np.random.default_rng(0).normal(size=(count, 3))
    at /= np.linalg.norm(at, axis=1, keepdims=True)
    names = ["x", "y", "z"] + (["nx", "ny", "nz"] if normals else [])
    head = "".join(f"property float {n}\n" for n in names)
    rows = np.concatenate([at, at], 1)[:, : len(names)]
    body = "\n".join(" ".join(f"{v:.6f}" for v in row) for row in rows)
    path.write_text(f"ply\nformat ascii 1.0\nelement vertex {count}\n{head}end_header\n{body}\n")


def test_points_with_normals_are_a_shape_and_points_without_are_not(tmp_path: Path):
    cloud(tmp_path / "a.ply", 200, normals=True)
    shape = load_shape(tmp_path / "a.ply")
    assert shape.normals is not None
    np.testing.assert_allclose(shape.normals, shape.vertices, atol=1e-6)
    cloud(tmp_path / "b.ply", 200, normals=False)
    with pytest.raises(FormatError, match="200 points and no faces, expected triangles, or points"):
        load_shape(tmp_path / "b.ply")
    cloud(tmp_path / "c.ply", 20, normals=True)
    with pytest.raises(FormatError, match="20 points with a normal, expected 100 or more"):
        load_shape(tmp_path / "c.ply")


def written(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(text)

    return write


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("a.obj", written(""), "an empty file, expected a mesh"),
        ("a.ply", written("hello"), "cannot be read as a mesh"),
        ("a.glb", written("hello"), "cannot be read as a mesh"),
        ("a.obj", written("v 0 0 0\nv 1 0 0\nv 0 1 0\n"), "points and no faces"),
        ("a.obj", written("v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n"), "no triangle has an area"),
        ("a.obj", written("v 0 0 0\nv nan 0 0\nv 0 1 0\nf 1 2 3\n"), "1 vertices are NaN"),
    ],
)
def test_a_damaged_mesh_is_one_clear_line(
    tmp_path: Path, name: str, make: Callable[[Path], None], message: str
):
    make(tmp_path / name)
    with pytest.raises(FormatError, match=message):
        load_shape(tmp_path / name)


def test_a_mesh_of_another_kind_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="not a shape; expected one of"):
        load_shape(tmp_path / "a.fbx")
    with pytest.raises(InputError, match="not a mesh; expected one of"):
        save_mesh(tmp_path / "a.fbx", TETRAHEDRON)


# -- sounds ----------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize(("bits", "error"), [(8, 1 / 128), (16, 1 / 32768), (24, 0.0), (32, 0.0)])
def test_a_sound_survives_its_file(tmp_path: Path, bits: int, error: float, channels: int):
    values = np.random.default_rng(0).uniform(-0.99, 0.99, (50, channels)).astype(np.float32)
    save_wav(tmp_path / "a.wav", values, 8000, bits)
    back = load_wav(tmp_path / "a.wav")
    assert (back.rate, back.bits) == (8000, min(bits, 16) if bits <= 16 else 32)
    np.testing.assert_allclose(back.values, values, atol=0.51 * error + 1e-7)


def test_damaged_sounds_are_one_clear_line(tmp_path: Path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"")
    with pytest.raises(FormatError, match="an empty file, expected a WAV"):
        load_wav(path)
    path.write_text("hello")
    with pytest.raises(FormatError, match="cannot be read as a WAV"):
        load_wav(path)
    wavfile.write(path, 8000, np.zeros(1, np.int16))
    with pytest.raises(FormatError, match="1 samples, expected a sound of 2 or more"):
        load_wav(path)
    wavfile.write(path, 8000, np.array([0, np.nan, 1], np.float32))
    with pytest.raises(FormatError, match="NaN or infinite"):
        load_wav(path)


def test_a_cut_or_changed_sound_is_read_or_refused(tmp_path: Path):
    whole, part = tmp_path / "a.wav", tmp_path / "b.wav"
    wavfile.write(whole, 8000, np.arange(60, dtype=np.int16).reshape(-1, 2))
    data = whole.read_bytes()
    rng = np.random.default_rng(1)
    for trial in range(60):
        changed = bytearray(data[: 8 + len(data) * trial // 60])
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
        part.write_bytes(bytes(changed))
        assert read_or_refused(load_wav, part)
