"""The ``.lume`` container: what comes back, what is skipped, what is refused."""

import dataclasses
import struct
import zlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumefield.codecs.neural import Picture, decode_image, encode_image
from lumefield.codecs.neural._container import (
    IMAGE,
    INDEX_CHUNK,
    METADATA_CHUNK,
    NAME_CHUNK,
    PICTURE_CHUNK,
    SPLATS,
    VIDEO,
    Chunk,
    Container,
    locate,
    pack,
    unpack,
    varint,
)
from lumefield.errors import FormatError
from tests.codecs.neural_models import random_case

PICTURE = Picture(8, 9)


def video(frames: int = 30) -> Picture:
    return dataclasses.replace(PICTURE, frames=frames, rate=Fraction(30000, 1001))


def signed(head: bytes) -> bytes:
    """A header with the right checksum."""
    return head + struct.pack("<I", zlib.crc32(head))


pictures = st.builds(
    Picture,
    rows=st.integers(1, 65535),
    columns=st.integers(1, 1024),
    channels=st.just(3),
    bits=st.integers(8, 16),
    subsampled=st.booleans(),
    colour=st.tuples(*[st.integers(0, 255)] * 3),
    full_range=st.booleans(),
)


@given(pictures, st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=5))
def test_what_is_packed_comes_back(picture: Picture, parts: list[tuple[int, bytes]]):
    chunks = [Chunk(kind, data) for kind, data in parts]
    found = unpack(pack(IMAGE, picture, chunks))
    assert found.picture == picture
    assert [(place[0], found.data(place)) for place in found.places] == parts


def test_what_a_file_holds_is_told_by_its_head_whatever_its_version():
    assert Container.holds(pack(IMAGE, PICTURE, [])) == "image"
    assert Container.holds(b"LUME\x07\x02") == "video"
    assert [Container.holds(head) for head in (b"", b"LUME\x02", b"text:\x02", b"LUME\2\x09")] == [
        ""
    ] * 4


def test_a_header_has_19_bytes_and_a_chunk_8_more_than_its_data():
    assert len(pack(IMAGE, Picture(512, 768), [])) == 19
    assert len(pack(IMAGE, Picture(512, 768), [Chunk(PICTURE_CHUNK, bytes(20000))])) == 20027


def test_any_frame_of_a_video_is_found_through_the_index_alone():
    groups = [bytes([i]) * 1000 * (i + 1) for i in range(3)]
    chunks = [Chunk(NAME_CHUNK, b"clip"), *(Chunk(PICTURE_CHUNK, g) for g in groups)]
    file = pack(VIDEO, video(), chunks, (12, 12, 6))
    found = unpack(file)
    assert found.picture == video()
    assert [place[0] for place in found.places].count(INDEX_CHUNK) == 1
    pictures = [place for place in found.places if place[0] == PICTURE_CHUNK]
    for frame, group in ((0, 0), (11, 0), (12, 1), (23, 1), (24, 2), (29, 2)):
        start, first, stop = locate(file[:100], frame)
        assert (start, first, stop) == (12 * group, *pictures[group][1:])
        assert found.data((PICTURE_CHUNK, first, stop)) == groups[group]
    with pytest.raises(FormatError, match="frame 30 is not in"):
        locate(file, 30)


def test_an_index_that_is_missing_or_damaged_is_an_error():
    file = pack(IMAGE, PICTURE, [Chunk(PICTURE_CHUNK, b"x")])
    with pytest.raises(FormatError, match="no index of frames"):
        locate(file, 0)
    file = bytearray(pack(VIDEO, video(1), [Chunk(PICTURE_CHUNK, b"x")], (1,)))
    file[unpack(bytes(file)).places[0][1] + 3] ^= 1
    with pytest.raises(FormatError, match=r"index at byte \d+ is damaged"):
        locate(bytes(file), 0)


def test_splats_have_no_picture():
    found = unpack(pack(SPLATS, None, [Chunk(77, b"data")]))
    assert (found.content, found.picture) == (SPLATS, None)
    with pytest.raises(ValueError, match="images and video have one"):
        pack(SPLATS, PICTURE, [])


def test_a_video_needs_as_many_counts_as_groups():
    chunk = Chunk(PICTURE_CHUNK, b"x")
    with pytest.raises(ValueError, match="1 counts of frames for 2 picture chunks"):
        pack(VIDEO, video(), [chunk, chunk], (30,))
    with pytest.raises(ValueError, match="29 frames in chunks, 30 in the header"):
        pack(VIDEO, video(), [chunk], (29,))


def test_name_and_metadata_come_back_and_unknown_chunks_are_skipped():
    model, latents = random_case(1, 8, 9)
    data = encode_image(
        model, latents, PICTURE, name="näme.png", metadata=b'{"a": [1]}', backend="twin"
    )
    old = unpack(data)
    chunks = [Chunk(place[0], old.data(place)) for place in old.places]
    data = pack(IMAGE, PICTURE, [Chunk(200, b"later"), *chunks, Chunk(201, b"")])
    planes, container = decode_image(data, "twin")
    assert container.name() == "näme.png"
    assert container.metadata() == {"a": [1]}
    assert planes[0].shape == (8, 9)
    bare = unpack(encode_image(model, latents, PICTURE, backend="twin"))
    assert (bare.name(), bare.metadata()) == ("", {})


@pytest.mark.parametrize("text", [b"[1]", b"{", b"\xff", b"[" * 100000])
def test_metadata_that_is_no_object_is_an_error(text: bytes):
    with pytest.raises(FormatError, match="metadata is not"):
        unpack(pack(IMAGE, PICTURE, [Chunk(METADATA_CHUNK, text)])).metadata()


def test_a_name_is_not_longer_than_a_megabyte():
    with pytest.raises(FormatError, match="name of 1048577 bytes, expected at most"):
        unpack(pack(IMAGE, PICTURE, [Chunk(NAME_CHUNK, b"a" * (2**20 + 1))])).name()


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"", "does not begin with LUME"),
        (b"hello, this is text", "does not begin with LUME"),
        (b"LUME\x02", "ends inside the header"),
        (b"LUME\x03\x01" + bytes(30), "is .lume version 3, expected 2; update lumefield"),
        (b"LUME\x01\x01" + bytes(30), "is .lume version 1, expected 2; compress it again"),
        (b"LUME\x02\x01" + bytes(30), "header has a wrong checksum"),
        (b"LUME\x02\x01" + b"\x08\x0a\x01\x0d\x00" + b"\xff" * 9, "number at byte 11 does not end"),
        (signed(b"LUME\x02\x09") + bytes(9), "content 9 is not known"),
        (signed(b"LUME\x02\x01\x08\x0a\x01\x0d\x00\x00\x01"), "picture of 0 x 1, expected sides"),
        (
            signed(b"LUME\x02\x01\x08\x0a\x01\x0d\x00" + varint(65535) * 2),
            "picture of 65535 x 65535 x 3 samples, expected at most 2\\^28",
        ),
        (signed(b"LUME\x02\x01\x07\x0a\x01\x0d\x00\x01\x01"), "7 bits per sample"),
        (signed(b"LUME\x02\x01\x08\x0f\x01\x0d\x00\x01\x01"), "4:2:0 with 4 channels"),
        (signed(b"LUME\x02\x01\x08\xfa\x01\x0d\x00\x01\x01"), "reserved bits"),
        (signed(b"LUME\x02\x02\x08\x0a\x01\x0d\x00\x01\x01\x01\x01\x00"), "rate over zero"),
        (signed(b"LUME\x02\x02\x08\x0a\x01\x0d\x00\x01\x01\x00\x01\x01"), "0 frames at 1 per"),
        (pack(IMAGE, PICTURE, [Chunk(1, b"1234567")])[:-1], "needs 1 bytes more"),
        (pack(IMAGE, PICTURE, []) + b"\x01\xff\xff\xff\xff\x7f", "bytes more; the file is cut"),
    ],
)
def test_a_header_that_cannot_be_is_refused(file: bytes, message: str):
    with pytest.raises(FormatError, match=message):
        unpack(file)


def test_a_header_that_cannot_be_is_not_written():
    with pytest.raises(ValueError, match="5 channels"):
        Picture(1, 1, 5).check()
    with pytest.raises(ValueError, match=r"H\.273 code points"):
        Picture(1, 1, colour=(1, 300, 0)).check()


def test_a_flipped_bit_in_a_chunk_is_noticed():
    file = bytearray(pack(IMAGE, PICTURE, [Chunk(PICTURE_CHUNK, b"1234567")]))
    file[-7] ^= 16
    with pytest.raises(FormatError, match="chunk at byte 17 has a wrong checksum"):
        list(unpack(bytes(file)).all(PICTURE_CHUNK))


def test_errors_of_decoding_name_the_source():
    with pytest.raises(FormatError, match=r"^a\.lume: does not begin with LUME"):
        decode_image(b"text", source="a.lume")
    with pytest.raises(FormatError, match="has no picture chunk"):
        decode_image(pack(IMAGE, PICTURE, []))
    with pytest.raises(FormatError, match="holds content 3, expected an image"):
        decode_image(pack(SPLATS, None, []))


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        ([1] * 8 + [0] * 100, "base model 255 with 1 levels is not known"),
        ([0] * 8 + [1] * 3 + [0] * 100, "base model 0 with 8 levels is not known"),
        ([0] * 20 + [1, 1, 1, 1] + [0] * 100, "32768 coder lanes, expected at most 1024"),
        ([0] * 12, "ends inside the parameters"),
        ([0] * 2000, "code does not end"),
    ],
)
def test_a_picture_chunk_that_cannot_be_is_refused(bits: list[int], message: str):
    chunk = np.packbits(np.array(bits, np.uint8)).tobytes()
    with pytest.raises(FormatError, match=message):
        decode_image(pack(IMAGE, PICTURE, [Chunk(PICTURE_CHUNK, chunk)]), "twin")
