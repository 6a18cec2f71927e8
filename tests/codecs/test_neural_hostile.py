"""Damaged ``.lume`` files: whatever the bytes, a FormatError or exact pixels, in little memory."""

import time
import tracemalloc

import numpy as np
import pytest

from lumefield import native
from lumefield.codecs.neural import Picture, decode_image, encode_image
from lumefield.codecs.neural._container import IMAGE, PICTURE_CHUNK, Chunk, pack, unpack
from lumefield.codecs.neural._decoders import Backend, Planes
from lumefield.errors import FormatError
from tests.codecs.neural_models import random_case

COUNT = 1000
PICTURE = Picture(21, 34)


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """One of: cut off, some bits flipped, some bytes random, a piece doubled, all random."""
    raw, kind = np.frombuffer(data, np.uint8).copy(), rng.integers(5)
    at = int(rng.integers(len(raw)))
    if kind == 0:
        return data[:at]
    if kind == 1:
        raw[rng.integers(0, len(raw), rng.integers(1, 4))] ^= np.uint8(1 << rng.integers(8))
    elif kind == 2:
        raw[at : at + 8] = rng.integers(0, 256, len(raw[at : at + 8]))
    elif kind == 3:
        return data[:at] + data[at // 2 :]
    else:
        return data[: int(rng.integers(12))] + rng.bytes(int(rng.integers(300)))
    return raw.tobytes()


def fallback() -> Backend:
    return "twin" if native.library() is None else "native"


def outcome(data: bytes, backend: Backend) -> Planes | str:
    try:
        return decode_image(data, backend)[0]
    except FormatError as error:
        return str(error)


def test_1000_damaged_files_give_a_clean_error_or_the_exact_pixels():
    model, latents = random_case(1, 21, 34)
    whole = encode_image(model, latents, PICTURE, name="a", backend="twin")
    meant, _ = decode_image(whole, "twin")
    rng, errors = np.random.default_rng(0), 0
    for _ in range(COUNT):
        found = outcome(damaged(whole, rng), fallback())
        if isinstance(found, str):
            errors += 1
            assert "\n" not in found
        else:
            assert all(np.array_equal(a, b) for a, b in zip(meant, found, strict=True))
    assert errors > COUNT * 0.9


def test_1000_damaged_streams_with_right_checksums_give_a_clean_error_or_some_pixels():
    """What a checksum cannot catch, a file made to do harm, ends in an error or a picture."""
    model, latents = random_case(2, 21, 34)
    container = unpack(encode_image(model, latents, PICTURE, backend="twin"))
    chunk = next(container.all(PICTURE_CHUNK))
    rng, errors = np.random.default_rng(1), 0
    begin = time.process_time()
    for i in range(COUNT):
        data = pack(IMAGE, PICTURE, [Chunk(PICTURE_CHUNK, damaged(chunk, rng))])
        found = outcome(data, fallback())
        errors += isinstance(found, str)
        if not isinstance(found, str):
            assert [plane.shape for plane in found] == [(21, 34)] * 3
        if i % 50 == 0:
            twin = outcome(data, "twin")
            if isinstance(twin, str) or isinstance(found, str):
                assert twin == found
            else:
                assert all(np.array_equal(a, b) for a, b in zip(twin, found, strict=True))
    assert time.process_time() - begin < 60
    assert 0 < errors < COUNT


def test_a_stream_that_ends_early_is_an_error():
    model, latents = random_case(3, 21, 34)
    container = unpack(encode_image(model, latents, PICTURE, backend="twin"))
    chunk = next(container.all(PICTURE_CHUNK))
    for cut, message in ((60, "code|parameters"), (len(chunk) - 400, "latents|parameters|code")):
        for backend in ("twin", fallback()):
            data = pack(IMAGE, PICTURE, [Chunk(PICTURE_CHUNK, chunk[:cut])])
            with pytest.raises(FormatError, match=message):
                decode_image(data, backend)


def test_a_large_header_over_a_tiny_stream_allocates_little():
    """16000 x 5592 x 3 samples are promised, and the words end at once."""
    model, latents = random_case(4, 150, 300)
    container = unpack(encode_image(model, latents, Picture(150, 300), backend="auto"))
    chunk = next(container.all(PICTURE_CHUNK))
    data = pack(IMAGE, Picture(16000, 5592), [Chunk(PICTURE_CHUNK, chunk[:3000])])
    tracemalloc.start()
    with pytest.raises(FormatError, match="ends inside the latents"):
        decode_image(data, "native" if native.library() is not None else "xla")
    assert tracemalloc.get_traced_memory()[1] < 2**30
    tracemalloc.stop()
