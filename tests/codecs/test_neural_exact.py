"""Every decoder of the image codec gives the same numbers, and files are as small as promised."""

import copy
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lumefield import native
from lumefield.codecs.neural import (
    ImageModel,
    Picture,
    Widths,
    decode_image,
    encode_image,
    image_cost,
    levels_for,
    pixels_of,
)
from lumefield.codecs.neural._chunk import decode_chunk, picture_chunk, taken_apart
from lumefield.codecs.neural._decoders import Backend, decoders
from lumefield.codecs.neural._latents import code_latents
from lumefield.codecs.neural._levels import Level, level_sizes, places, pyramid
from lumefield.codecs.neural._model import CONTEXT_WIDTHS
from lumefield.codecs.neural._twin import upsample
from lumefield.errors import FormatError, RunError
from tests.codecs.neural_models import random_case, random_latents, random_model, worst_model

ROOT = Path(__file__).parents[2]
FAST: list[Backend] = ["xla", "native"]
# rows, columns, channels, bits, 4:2:0
SHAPES = [(1, 9, 3, 8, False), (37, 61, 3, 10, True)]
MORE = [(1, 1, 3, 16, False), (70, 2, 3, 8, False), (131, 7, 1, 16, False), (3, 259, 4, 12, False)]
slow = pytest.mark.slow
CASES = [
    *(pytest.param(*shape, name) for shape in SHAPES for name in FAST),
    *(pytest.param(*shape, "native") for shape in MORE),
    *(pytest.param(*shape, "xla", marks=slow) for shape in MORE),  # each compiles for seconds
]


def skip_without(backend: Backend):
    if backend == "native" and native.library() is None:
        pytest.skip(f"no native decoder: {native.status().reason}")


@pytest.mark.parametrize(("rows", "columns", "channels", "bits", "half", "backend"), CASES)
def test_backends_decode_the_pixels_of_the_twin(
    rows: int, columns: int, channels: int, bits: int, half: bool, backend: Backend
):
    skip_without(backend)
    model, latents = random_case(rows + columns, rows, columns, channels)
    picture = Picture(rows, columns, channels, bits, half)
    data = encode_image(model, latents, picture, backend="twin")
    meant, _ = decode_image(data, "twin")
    found, container = decode_image(data, backend)
    assert container.picture == picture
    assert len(found) == channels
    for a, b, c in zip(meant, found, range(channels), strict=True):
        n = 2 if half and c else 1
        assert b.shape == (-(-rows // n), -(-columns // n))
        assert b.dtype == (np.uint8 if bits == 8 else np.uint16)
        assert np.array_equal(a, b)


@pytest.mark.parametrize("seed", range(12))
def test_native_decodes_the_pixels_of_the_twin_for_networks_of_any_width(seed: int):
    skip_without("native")
    rng = np.random.default_rng(seed)
    rows, columns = (int(v) for v in rng.integers(1, 100, 2))
    channels, context = int(rng.integers(1, 5)), CONTEXT_WIDTHS[-1 - seed]
    model, latents = random_case(
        seed, rows, columns, channels, context, synthesis=int(rng.integers(1, 33))
    )
    picture = Picture(rows, columns, channels, int(rng.integers(8, 17)), channels == 3)
    data = encode_image(model, latents, picture, backend="twin")
    meant, found = (decode_image(data, backend)[0] for backend in ("twin", "native"))
    assert all(np.array_equal(a, b) for a, b in zip(meant, found, strict=True))


@pytest.mark.parametrize(
    ("backend", "sign"),
    [("native", 1), ("native", -1), ("xla", 1), pytest.param("xla", -1, marks=slow)],
)
def test_nothing_overflows_with_every_parameter_at_its_bound(backend: Backend, sign: int):
    """The twin asserts that its int64 sums fit int32; the others must agree with it."""
    skip_without(backend)
    rows, columns = 37, 61
    widths = Widths(levels_for(rows, columns), 24, 32, 4)
    model = worst_model(widths, sign)
    latents = [np.full(size, 127, np.int8) for size in level_sizes(rows, columns, widths.levels)]
    latents[0][::2] = -127
    chunk = picture_chunk(model, code_latents(model, latents), 0)
    picture = Picture(rows, columns, 4, 16)
    meant, found = (decode_chunk(chunk, picture, name) for name in ("twin", backend))
    assert all(np.array_equal(a, b) for a, b in zip(meant.latents, found.latents, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(meant.planes, found.planes, strict=True))


@pytest.mark.parametrize("backend", FAST)
def test_a_garbled_stream_is_decoded_to_the_same_garbage(backend: Backend):
    """Backends agree on streams that no encoder writes, too."""
    skip_without(backend)
    model, latents = random_case(3, 37, 61)
    chunk = bytearray(picture_chunk(model, code_latents(model, latents), 0))
    garbled = np.random.default_rng(0).integers(0, 256, 900).astype(np.uint8)
    chunk[-900:] = garbled.tobytes()
    picture = Picture(37, 61)
    parts = taken_apart(bytes(chunk) + bytes(4000), picture)
    a, b = (decoders(name).latents(parts) for name in ("twin", backend))
    assert a.taken == b.taken
    assert np.array_equal(a.states, b.states)
    assert all(np.array_equal(x, y) for x, y in zip(a.latents, b.latents, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("flags", ["", "--xla_cpu_multi_thread_eigen=false"])
@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_number_of_threads_changes_no_pixel(tmp_path: Path, flags: str, threads: str):
    model, latents = random_case(4, 150, 300)
    data = encode_image(model, latents, Picture(150, 300), backend="twin")
    planes, _ = decode_image(data, "twin")
    (tmp_path / "a.lume").write_bytes(data)
    code = (
        "import hashlib, os, sys; os.sched_setaffinity(0, eval(sys.argv[2]))\n"
        "from lumefield.codecs.neural import decode_image\n"
        "data = open(sys.argv[1], 'rb').read()\n"
        "for name in ('xla', 'native'):\n"
        "    planes, _ = decode_image(data, name)\n"
        "    print(hashlib.md5(b''.join(p.tobytes() for p in planes)).hexdigest())"
    )
    env = {**os.environ, "XLA_FLAGS": flags, "LUMEFIELD_THREADS": threads, "JAX_PLATFORMS": "cpu"}
    cores = sorted(os.sched_getaffinity(0))[: int(threads)]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.lume"), str(cores)],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    meant = hashlib.md5(b"".join(p.tobytes() for p in planes)).hexdigest()
    assert done.stdout.split() == [meant, meant]


@pytest.mark.gpu
def test_a_gpu_decodes_the_pixels_of_the_twin():
    model, latents = random_case(5, 150, 300)
    data = encode_image(model, latents, Picture(150, 300), backend="twin")
    meant, found = (decode_image(data, name)[0] for name in ("twin", "xla"))
    assert all(np.array_equal(a, b) for a, b in zip(meant, found, strict=True))


@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (61, 97), (150, 40)])
def test_a_file_is_as_small_as_its_cost(rows: int, columns: int):
    model, latents = random_case(rows, rows, columns)
    data = encode_image(model, latents, Picture(rows, columns), backend="auto")
    bits = image_cost(model, latents).bits
    assert 8 * len(data) <= 1.005 * bits + 8 * 64


def test_latents_come_back_exactly():
    model, latents = random_case(6, 61, 97)
    coded = code_latents(model, latents)
    found = decode_chunk(picture_chunk(model, coded, 0), Picture(61, 97), "auto")
    assert all(np.array_equal(a, b) for a, b in zip(found.latents, coded.latents, strict=True))
    changed = [(a != b).mean() for a, b in zip(found.latents, latents, strict=True)]
    assert changed[0] < 0.01  # what was out of reach


def test_latents_out_of_reach_are_clipped_once_and_for_all():
    model = random_model(7, Widths(4, 12, 16, 3))
    latents = random_latents(8, 40, 50, 4)
    for level in latents:
        level[::5, ::7] = 120
    coded = code_latents(model, latents)
    assert any((a != b).any() for a, b in zip(coded.latents, latents, strict=True))
    again = code_latents(model, coded.latents)
    assert all(np.array_equal(a, b) for a, b in zip(coded.latents, again.latents, strict=True))
    data = encode_image(model, latents, Picture(40, 50), backend="twin")
    assert data == encode_image(model, coded.latents, Picture(40, 50), backend="twin")


def test_a_picture_without_latents_has_no_context_network_in_its_file():
    model, latents = random_case(9, 40, 50)
    zeros = [np.zeros_like(level) for level in latents]
    data = encode_image(model, zeros, Picture(40, 50), backend="twin")
    assert len(data) < image_cost(model, zeros).bits / 8
    planes, _ = decode_image(data, "twin")
    assert all((plane == plane[20, 20]).all() for plane in planes)


def test_fixed_costs_of_an_image_are_under_60_bytes():
    model, latents = random_case(10, 512, 768)
    zeros = [np.zeros_like(level) for level in latents]
    chunk = picture_chunk(model, code_latents(model, zeros), 0)
    data = encode_image(model, zeros, Picture(512, 768), backend="auto")
    assert len(data) - len(chunk) <= 30


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 7), (33, 50), (64, 192), (5, 300)])
@pytest.mark.parametrize("lanes", [1, 8])
def test_every_latent_has_one_place_and_its_context_comes_before_it(
    size: tuple[int, int], lanes: int
):
    for level in pyramid(*size, 3, lanes):
        where = places(level, 0, level.steps)
        step = np.full((level.rows, level.columns), -1)
        times, slots = np.nonzero(where.active)
        row, column = where.row[times, slots], where.column[times, slots]
        assert len(times) == level.rows * level.columns
        step[row, column] = times
        assert (step >= 0).all()
        assert (step[1:, :-2] > step[:-1, 2:]).all()
        assert (step[:, 1:] > step[:, :-1]).all()
        assert (slots == row % level.slots).all()
        assert level.slots % lanes == 0


def test_levels_end_with_one_cell():
    assert [levels_for(1, 1), levels_for(1, 2), levels_for(5, 3), levels_for(900, 900)] == [
        *(1, 2, 4, 7)
    ]
    assert level_sizes(5, 3, 4)[-1] == (1, 1)


def test_the_bilinear_base_keeps_a_constant():
    sizes = level_sizes(21, 34, 5)
    latents = [np.zeros(size, np.int8) for size in sizes]
    latents[-1][:] = 3
    stack = upsample(latents, np.tile(np.array([0, 256, 768, 0], np.int32), (4, 1)))
    assert (stack[-1] == 3 * 256).all()
    assert not stack[:-1].any()


def test_planes_of_one_size_are_put_side_by_side():
    planes = tuple(np.full((2, 3), c, np.uint8) for c in range(3))
    assert np.array_equal(pixels_of(planes, Picture(2, 3))[1, 2], [0, 1, 2])


@pytest.mark.parametrize("matrix", [1, 2, 6])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("bits", [8, 10])
def test_subsampled_planes_become_the_rgb_of_a_float_twin(matrix: int, full: bool, bits: int):
    rng = np.random.default_rng(matrix)
    kind = np.uint8 if bits == 8 else np.uint16
    sizes, top = ((7, 10), (4, 5), (4, 5)), 1 << bits
    planes = tuple(rng.integers(top // 5, 4 * top // 5, s).astype(kind) for s in sizes)
    picture = Picture(7, 10, 3, bits, subsampled=True, colour=(1, 13, matrix), full_range=full)
    found = pixels_of(planes, picture)

    def doubled(x: NDArray[Any], n: int) -> NDArray[Any]:
        places = (np.arange(n) - 0.5) / 2
        return np.stack([np.interp(places, np.arange(len(c)), c) for c in x.T], 1)

    unit, red, blue = top / 256, 0.2126 if matrix == 1 else 0.299, 0.0722 if matrix == 1 else 0.114
    y = (planes[0] - 0.0) / (top - 1) if full else (planes[0] - 16 * unit) / (219 * unit)
    wide = ((doubled(doubled(p.astype(float), 7).T, 10).T - 128 * unit) for p in planes[1:])
    u, v = (c / (top - 1 if full else 224 * unit) for c in wide)
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    g = (y - red * r - blue * b) / (1 - red - blue)
    wanted = np.clip(np.stack([r, g, b], -1), 0, 1) * (top - 1)
    assert found.dtype == kind
    assert np.abs(found - wanted).max() < 0.51


def test_subsampled_planes_of_an_unknown_matrix_are_refused():
    planes = tuple(np.zeros(s, np.uint8) for s in ((2, 2), (1, 1), (1, 1)))
    with pytest.raises(FormatError, match="matrix coefficients 9, expected one of"):
        pixels_of(planes, Picture(2, 2, subsampled=True, colour=(1, 13, 9)))


def broken(model: ImageModel, value: NDArray[Any]) -> ImageModel:
    """The model with an array that its type does not allow."""
    model = copy.copy(model)
    object.__setattr__(model, "X1", value)
    return model


def test_what_does_not_fit_is_refused():
    model, latents = random_case(11, 8, 8)
    with pytest.raises(ValueError, match="model has 3 channels, picture 1"):
        encode_image(model, latents, Picture(8, 8, 1))
    with pytest.raises(ValueError, match=r"latents of \(8, 8\), picture of \(8, 9\)"):
        encode_image(model, latents, Picture(8, 9))
    with pytest.raises(ValueError, match="3 levels of latents, expected the model's 4"):
        encode_image(model, latents[:3], Picture(8, 8))
    with pytest.raises(ValueError, match="latents of level 1 have shape"):
        encode_image(model, [latents[0], *latents[2:], latents[3]], Picture(8, 8))
    with pytest.raises(ValueError, match="latents of level 0 leave"):
        encode_image(model, [latents[0].astype(int) - 128, *latents[1:]], Picture(8, 8))
    with pytest.raises(ValueError, match="X1 reaches -5000, expected at most 4095"):
        encode_image(model.replace(X1=model.X1 * 0 - 5000), latents, Picture(8, 8))
    with pytest.raises(ValueError, match="X1 has shape"):
        encode_image(model.replace(X1=model.X1[:, 1:]), latents, Picture(8, 8))
    with pytest.raises(ValueError, match="a parameter has no axes"):
        broken(model, np.array(1, np.int32)).check()
    with pytest.raises(TypeError, match="X1 has type float64, expected int32"):
        broken(model, model.X1 * 1.0).check()
    with pytest.raises(ValueError, match="synthesis=33, expected 1 to 32"):
        Widths(7, 12, 33, 3).check()
    with pytest.raises(ValueError, match="context=16, expected one of"):
        Widths(7, 16, 32, 3).check()


def test_a_decoder_that_is_wrong_is_noticed_before_the_file_is_written(monkeypatch):
    model, latents = random_case(12, 8, 8)
    twin = decoders("twin")

    def wrong(*args):
        stream = twin.latents(*args)
        stream.latents[0][0, 0] ^= 1
        return stream

    monkeypatch.setattr(
        "lumefield.codecs.neural._chunk.decoders", lambda name: twin._replace(latents=wrong)
    )
    with pytest.raises(RunError, match="does not decode to the picture it was made from"):
        encode_image(model, latents, Picture(8, 8), backend="twin")


def test_steps_of_a_level_end_with_its_last_latent():
    level = Level(3, 5, 3)
    where = places(level, level.steps - 1, 2)
    assert where.active.sum(1).tolist() == [1, 0]
