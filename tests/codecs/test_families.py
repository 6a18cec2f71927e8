"""Every family of the table keeps the contract of a codec: real bytes, exact pixels."""

import dataclasses
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lumefield.codecs.families import METHODS, Family, Layout, compress_network
from lumefield.codecs.families._compress import psnr_of
from lumefield.codecs.families._decode import network_planes, planes_of, whole_of
from lumefield.codecs.families._float import FloatOps
from lumefield.codecs.families._ops import Whole
from lumefield.codecs.families._stream import Network, network_chunk, read_network
from lumefield.codecs.families._tensors import code_of
from lumefield.codecs.neural import Picture, decode_image, decode_video
from lumefield.codecs.neural._container import IMAGE, NETWORK_CHUNK, Chunk, pack, unpack
from lumefield.codecs.neural._decoders import Backend, Planes
from lumefield.errors import FormatError, InputError, RunError
from tests.codecs.families_cases import BYTES, brief, fitted, frames_of, picture_of

ROOT = Path(__file__).parents[2]
NAMES = sorted(METHODS)
LIKE_NERV = ("e-nerv", "ps-nerv", "hnerv")  # their layers are those of nerv and hinerv
SOME = [pytest.param(n, marks=[pytest.mark.slow] * (n in LIKE_NERV)) for n in NAMES]


def decoded(family: Family, data: bytes, backend: Backend = "auto") -> list[Planes]:
    if family.content == "image":
        return [decode_image(data, backend)[0]]
    return list(decode_video(data, backend=backend))


def chunk_of(data: bytes) -> bytes:
    return next(unpack(data).all(NETWORK_CHUNK))


def md5(frames: list[Planes]) -> str:
    return hashlib.md5(b"".join(p.tobytes() for planes in frames for p in planes)).hexdigest()


@pytest.mark.parametrize("name", NAMES)
def test_a_file_decodes_to_the_stated_quality_and_size(name: str):
    family, found = METHODS[name], fitted(name)
    picture = picture_of(family)
    frames = decoded(family, found.data)
    pairs = zip(frames, frames_of(family), strict=True)
    assert np.mean([psnr_of(a, b, picture) for a, b in pairs]) == found.psnr
    assert len(found.data) <= 1.02 * BYTES[family.content] + 64
    pixels = picture.rows * picture.columns * picture.frames
    assert found.bits_per_pixel == 8 * len(found.data) / pixels
    assert unpack(found.data).name() == "a"
    assert unpack(found.data).picture == picture


@pytest.mark.parametrize("name", NAMES)
def test_numpy_and_xla_decode_the_same_pixels(name: str):
    family, found = METHODS[name], fitted(name)
    assert md5(decoded(family, found.data, "twin")) == md5(decoded(family, found.data, "xla"))


@pytest.mark.parametrize("name", SOME)
def test_exact_layers_are_the_float_layers_up_to_rounding(name: str):
    network = read_network(chunk_of(fitted(name).data), picture_of(METHODS[name]))
    family, layout, picture = network.family, network.layout, network.layout.picture
    every = {**family.fixed(layout), **network.tensors}
    floats = {key: jnp.asarray(whole.floats()) for key, whole in every.items()}
    inputs = family.inputs(layout)
    values = jax.jit(lambda p: family.forward(FloatOps(), p, layout, inputs))(floats)
    near = np.clip(np.asarray(values, np.float64), 0, 1) * 255
    near = near.reshape(-1, picture.rows, picture.columns, picture.channels)
    for value, planes in zip(near, network_planes(network), strict=True):
        exact = whole_of(planes)[..., 0].astype(np.float64)
        assert np.abs(value[..., 0] - exact).max() < 0.6


@pytest.mark.parametrize("name", NAMES)
def test_layout_and_tensors_survive_the_file(name: str):
    chunk = chunk_of(fitted(name).data)
    network = read_network(chunk, picture_of(METHODS[name]))
    assert network.layout.numbers == fitted(name).layout
    assert network_chunk(*network) == chunk
    shapes = network.family.shapes(network.layout)
    assert {key: whole.values.shape for key, whole in network.tensors.items()} == shapes


@pytest.mark.parametrize("name", NAMES)
def test_damaged_chunks_give_a_clean_error_or_pixels_of_the_right_size(name: str):
    """The checksums are bypassed: what a hostile encoder could write."""
    family, rng = METHODS[name], np.random.default_rng(0)
    chunk, picture, errors = chunk_of(fitted(name).data), picture_of(METHODS[name]), 0
    for i in range(60):
        bad = np.frombuffer(chunk, np.uint8).copy()
        at = rng.integers(0, min(len(bad), 40 if i % 2 else len(bad)), 2)
        bad[at] ^= (1 << rng.integers(0, 8, 2)).astype(np.uint8)
        data = bad.tobytes()[: len(bad) if i % 3 else int(rng.integers(len(bad)))]
        try:
            network = read_network(data, picture)
        except FormatError:
            errors += 1
            continue
        if family.count(network.layout) < 20_000 and i % 5 == 0:
            planes = next(network_planes(network))
            assert planes[0].shape == (picture.rows, picture.columns)
    assert errors > 5


@pytest.mark.parametrize("name", [n for n in NAMES if METHODS[n].content == "video"])
def test_any_frame_is_decoded_alone(name: str):
    every = list(decode_video(fitted(name).data))
    (last,) = decode_video(fitted(name).data, 2, 3)
    assert md5([last]) == md5(every[2:])


def test_names_and_numbers_of_families_are_unique():
    assert len({family.identity for family in METHODS.values()}) == len(METHODS)
    assert all(family.name == name for name, family in METHODS.items())


def test_modulations_alone_are_in_a_file_of_coinpp():
    found = fitted("coin++")
    family = METHODS["coin++"]
    network = read_network(chunk_of(found.data), picture_of(family))
    assert all(key.startswith("m") for key in network.tensors)
    assert found.parameters == sum(w.values.size for w in network.tensors.values())
    base = sum(w.values.size for w in family.fixed(network.layout).values())
    assert base > 50_000 > 20 * found.parameters / 10


def test_more_bytes_make_larger_networks():
    for family in METHODS.values():
        rows, columns = 512, 768
        picture = picture_of(family)
        wide = dataclasses.replace(picture, rows=rows, columns=columns)
        counts = [family.count(family.layout(wide, size)) for size in (6e3, 12e3, 40e3)]
        assert counts[0] < counts[1] < counts[2]


@pytest.mark.parametrize("scale", [0.3, 8.0, 100.0, 3000.0])
def test_integers_of_any_spread_cost_what_their_entropy_says(scale: float):
    family = METHODS["coin"]
    layout = Layout(Picture(8, 8), (5, 20))
    rng = np.random.default_rng(0)
    tensors = {
        name: Whole(np.clip(np.rint(rng.laplace(size=shape) * scale), -32767, 32767), 9)
        for name, shape in family.shapes(layout).items()
    }
    chunk = network_chunk(family, layout, tensors)
    found = read_network(chunk, layout.picture).tensors
    for name, whole in tensors.items():
        assert np.array_equal(found[name].values, whole.values)
        assert found[name].bits == 9
    bits = sum(code_of(w.values.ravel().astype(np.int64)).bits for w in tensors.values())
    assert 8 * len(chunk) < 1.01 * bits + 100


GOLDEN = {
    "coin": ((5, 20), "11d824646cbab7e18c9f08bff03b6bbc"),
    "coin++": ((24,), "5f946d5ab512913acc1bf171ee5f1956"),
    "strumpler": ((3, 20), "28b3f201a370272ba695a1fe115212ee"),
}


def drawn(name: str) -> list[Planes]:
    """Pixels of a network with random weights."""
    family = METHODS[name]
    layout, rng = Layout(picture_of(family), GOLDEN[name][0]), np.random.default_rng(0)
    tensors = {
        key: Whole(rng.integers(-200, 201, shape).astype(np.float64), 9)
        for key, shape in family.shapes(layout).items()
    }
    return list(network_planes(Network(family, layout, tensors)))


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_pixels_of_a_network_are_part_of_the_format(name: str):
    assert md5(drawn(name)) == GOLDEN[name][1]


def test_what_no_encoder_writes_is_refused():
    chunk = chunk_of(fitted("coin").data)
    picture = picture_of(METHODS["coin"])
    with pytest.raises(FormatError, match="family 200 of networks is not known"):
        read_network(bytes([200]) + chunk[1:], picture)
    with pytest.raises(FormatError, match=r"coin with depth 65\d+, expected 1 to 16"):
        read_network(chunk[:1] + b"\xff\xff" + chunk[3:], picture)
    with pytest.raises(FormatError, match="holds a image"):
        read_network(chunk, Picture(8, 8, frames=2))
    with pytest.raises(FormatError, match="cut off or damaged"):
        read_network(chunk[:9], picture)
    with pytest.raises(FormatError, match="coder lanes, expected at most 1024"):
        read_network(chunk[:5] + b"\xff" + chunk[6:], picture)
    with pytest.raises(FormatError, match="no picture chunk"):
        decode_image(pack(IMAGE, Picture(8, 8), [Chunk(99, b"")]))


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("coin", (5000, 5000, 1), "5000 x 5000 pixels, expected at most 2\\^24"),
        ("nerv", (40, 40, 40_000), "40000 frames, expected at most 32768"),
        ("nerv", (4000, 4000, 2), "for frames of 4000 x 4000, expected 2\\^27"),
    ],
)
def test_what_no_decoder_could_hold_is_refused(name: str, size: tuple[int, int, int], words: str):
    family = METHODS[name]
    rows, columns, frames = size
    picture = dataclasses.replace(picture_of(family), rows=rows, columns=columns, frames=frames)
    few = tuple(max(number.low, min(number.high, 16)) for number in family.numbers)
    with pytest.raises(FormatError, match=words):
        family.checked(Layout(picture, few))


def test_tensors_that_do_not_fit_are_refused():
    network = read_network(chunk_of(fitted("coin").data), picture_of(METHODS["coin"]))
    tensors = dict(network.tensors)
    with pytest.raises(ValueError, match="w0 has shape"):
        network_chunk(network.family, network.layout, {**tensors, "w0": tensors["b0"]})
    large = Whole(tensors["w0"].values * 0 + 40_000, 3)
    with pytest.raises(ValueError, match="w0 reaches 40000"):
        network_chunk(network.family, network.layout, {**tensors, "w0": large})


def test_a_picture_that_a_family_cannot_hold_is_refused():
    planes = tuple(np.zeros((8, 8), np.uint8) for _ in range(4))
    with pytest.raises(InputError, match="4 channels, expected RGB"):
        compress_network([planes], Picture(8, 8, 4), METHODS["coin++"], 900.0)


def test_depth_and_alpha_survive():
    rng = np.random.default_rng(0)
    planes = tuple(np.full((9, 11), 15_000 * (c + 1), np.uint16) for c in range(4))
    planes = tuple((p + rng.integers(0, 99, p.shape)).astype(np.uint16) for p in planes)
    picture = Picture(9, 11, 4, 16)
    data = compress_network([planes], picture, brief(METHODS["coin"], 200), 1500.0).data
    found, container = decode_image(data)
    assert container.picture == picture
    for a, b in zip(found, planes, strict=True):
        assert a.dtype == np.uint16
        assert abs(float(a.mean()) - float(b.mean())) < 3000


def test_a_file_that_decodes_otherwise_is_not_returned(monkeypatch: pytest.MonkeyPatch):
    family = METHODS["coin"]
    monkeypatch.setattr(
        "lumefield.codecs.families._compress.decode_planes",
        lambda *_: iter([tuple(np.zeros((20, 35), np.uint8) for _ in range(3))]),
    )
    with pytest.raises(RunError, match="does not decode to its own pixels"):
        compress_network(frames_of(family), picture_of(family), brief(family, 1), 900.0)


def test_planes_and_whole_pictures_are_inverse_and_chroma_is_the_mean():
    pixels = np.arange(5 * 7 * 3.0).reshape(5, 7, 3)
    full = planes_of(pixels, Picture(5, 7))
    assert np.array_equal(whole_of(full), pixels)
    half = planes_of(pixels, Picture(5, 7, subsampled=True))
    assert [p.shape for p in half] == [(5, 7), (3, 4), (3, 4)]
    assert half[1][0, 0] == np.floor(pixels[:2, :2, 1].mean() + 0.5)
    assert half[1][2, 3] == pixels[4, 6, 1]
    assert whole_of(half).shape == (5, 7, 3)


def test_decoding_loads_no_jax(tmp_path: Path):
    (tmp_path / "a.lume").write_bytes(fitted("coin").data)
    code = (
        "import sys\nfrom lumefield.codecs.neural import decode_image\n"
        "decode_image(open(sys.argv[1], 'rb').read())\nprint('jax' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.lume")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False"]


@pytest.mark.slow
@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_number_of_threads_changes_no_pixel(tmp_path: Path, threads: str):
    for name in NAMES:
        (tmp_path / f"{name}.lume").write_bytes(fitted(name).data)
    code = (
        "import hashlib, os, sys; os.sched_setaffinity(0, eval(sys.argv[2]))\n"
        "from tests.codecs.test_families import METHODS, NAMES, decoded, md5\n"
        "for name in NAMES:\n"
        "    data = open(f'{sys.argv[1]}/{name}.lume', 'rb').read()\n"
        "    print(*(md5(decoded(METHODS[name], data, b)) for b in ('twin', 'xla')))"
    )
    cores = sorted(os.sched_getaffinity(0))[: int(threads)]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(cores)],
        env={**os.environ, "OPENBLAS_NUM_THREADS": threads, "JAX_PLATFORMS": "cpu"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    meant = [md5(decoded(METHODS[name], fitted(name).data)) for name in NAMES]
    assert done.stdout.split() == [m for m in meant for _ in range(2)]


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_decodes_the_pixels_of_numpy(name: str):
    family, found = METHODS[name], fitted(name)
    assert md5(decoded(family, found.data, "twin")) == md5(decoded(family, found.data, "xla"))
