"""Video groups: one meaning in every backend, random access, and the bits that are promised."""

import hashlib
import itertools

import numpy as np
import pytest

from lumefield import native
from lumefield.codecs.neural import (
    Picture,
    Widths,
    _group,
    _video,
    base_model,
    decode_video,
    encode_image,
)
from lumefield.codecs.neural._container import INDEX_CHUNK, PICTURE_CHUNK, VIDEO, Chunk, pack
from lumefield.codecs.neural._group import decode_group, energy_of
from lumefield.codecs.neural._levels import level_sizes
from lumefield.codecs.neural._motion import (
    PAD,
    TAPS,
    doubled,
    flows,
    motion_planes,
    motion_sizes,
    predicted,
    reference,
    warped,
)
from lumefield.codecs.neural._order import LOW_DELAY, needed, roles
from lumefield.errors import FormatError
from tests.codecs.video_models import header, random_group, random_video

needs_native = pytest.mark.skipif(native.library() is None, reason="no native library here")


def digest(pictures: dict[int, tuple[np.ndarray, ...]]) -> str:
    """One checksum of all pictures in order."""
    found = hashlib.md5(usedforsecurity=False)
    for place in sorted(pictures):
        for plane in pictures[place]:
            found.update(np.ascontiguousarray(plane).tobytes())
    return found.hexdigest()


@needs_native
@pytest.mark.parametrize(
    ("size", "frames", "anchor"), [((37, 53), 5, 4), ((16, 9), 4, LOW_DELAY), ((1, 1), 3, 2)]
)
def test_native_frames_are_the_twins(size: tuple[int, int], frames: int, anchor: int):
    chunk, _ = random_group(size, frames, anchor)
    found = [decode_group(chunk, header(size, frames), frames, b) for b in ("native", "twin")]
    assert digest(found[0]) == digest(found[1])


@pytest.mark.slow
@pytest.mark.parametrize("anchor", [LOW_DELAY, 4])
def test_xla_frames_are_the_twins(anchor: int):
    size, frames = (37, 53), 4
    chunk, _ = random_group(size, frames, anchor)
    found = [decode_group(chunk, header(size, frames), frames, b) for b in ("xla", "twin")]
    assert digest(found[0]) == digest(found[1])


@needs_native
def test_decoded_latents_are_the_coded_ones_and_the_file_is_no_longer_than_their_bits():
    chunk, coded = random_group((64, 80), 6)
    backends = _group.decoders("native")
    head = _group._header(chunk, header((64, 80), 6))  # pyright: ignore[reportPrivateUsage]
    intra, frames, _ = _group._all_latents(  # pyright: ignore[reportPrivateUsage]
        head, header((64, 80), 6), backends
    )
    assert len(intra) == 7
    for frame, meant in zip(frames, coded, strict=True):
        for a, b in zip(frame.residual, meant.residual.latents, strict=True):
            np.testing.assert_array_equal(a, b)
        for plane, wanted in zip(frame.motion, meant.motion, strict=True):
            for a, b in zip(plane, wanted.latents, strict=True):
                np.testing.assert_array_equal(a, b)
    more, _ = random_group((64, 80), 1)
    extra = 8 * (len(chunk) - len(more)) - sum(frame.bits for frame in coded)
    assert extra < 8 * 1200  # the shared networks, random here, and the energies


@pytest.mark.parametrize("anchor", [LOW_DELAY, 1, 4, 8])
@pytest.mark.parametrize("frames", [1, 2, 9, 32])
def test_every_frame_is_coded_once_and_after_its_references(frames: int, anchor: int):
    known = {0}
    for role in roles(frames, anchor):
        assert {role.first, role.second} <= known
        assert role.place not in known
        assert anchor != LOW_DELAY or max(role.first, role.second) < role.place
        known.add(role.place)
    assert known == set(range(frames))


def test_the_chain_of_low_delay_is_a_fourth_as_long_as_the_group():
    away = {0: 0}
    for role in roles(32, LOW_DELAY):
        away[role.place] = away[role.first] + 1
    assert max(away.values()) == 7 + 2


def test_steady_motion_to_the_second_reference_is_told_by_the_ratio():
    role = next(r for r in roles(9, 8) if r.place == 4)
    assert (role.first, role.second, role.ratio) == (0, 8, -256)
    later = next(r for r in roles(17, 8) if r.place == 16)
    assert (later.first, later.second, later.ratio) == (8, 0, 512)


def test_what_a_frame_needs_is_its_references_and_theirs():
    assert needed(roles(9, 8), {1}) == {0, 1, 2, 4, 8}
    assert needed(roles(9, LOW_DELAY), {2}) == {0, 1, 2}


@needs_native
def test_a_frame_alone_is_the_frame_among_all():
    chunk, _ = random_group((21, 34), 9)
    picture = header((21, 34), 9)
    every = decode_group(chunk, picture, 9, "native")
    for place in (0, 3, 8):
        alone = decode_group(chunk, picture, 9, "native", {place})
        assert digest(alone) == digest({place: every[place]})


@needs_native
def test_frames_of_a_range_decode_only_its_groups(monkeypatch: pytest.MonkeyPatch):
    data = random_video(groups=(4, 3, 4))
    every = list(decode_video(data))
    assert len(every) == 11
    calls = list[set[int] | None]()

    def counted(chunk: bytes, picture: object, frames: int, backend: str, wanted: set[int]):
        calls.append(wanted)
        return decode_group(chunk, picture, frames, backend, wanted)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(_video, "decode_group", counted)
    some = list(decode_video(data, 5, 7))
    assert calls == [{1, 2}]
    assert digest(dict(enumerate(some))) == digest(dict(enumerate(every[5:7])))
    calls.clear()
    assert len(list(decode_video(data, 3, 8))) == 5
    assert calls == [{3}, {0, 1, 2}, {0}]


@needs_native
def test_a_group_of_one_frame_is_a_picture():
    data = random_video(groups=(1, 1))
    assert [planes[0].shape for planes in decode_video(data)] == [(21, 34)] * 2


def test_filters_sum_to_one_and_mirror():
    assert (TAPS.sum(1) == 128).all()
    for phase in range(1, 16):
        np.testing.assert_array_equal(TAPS[phase], TAPS[16 - phase][::-1])


def test_whole_displacements_move_the_picture_exactly():
    rng = np.random.default_rng(1)
    planes = (rng.integers(0, 256, (20, 24)).astype(np.uint8),) * 3
    picture = reference(planes, 8)
    inner = picture[:, PAD:-PAD, PAD:-PAD]
    moved = np.zeros((2, 20, 24), np.int64)
    np.testing.assert_array_equal(warped(picture, moved), inner)
    moved[0], moved[1] = 16 * 3, -16 * 2
    np.testing.assert_array_equal(warped(picture, moved)[:, 2:, :-3], inner[:, :-2, 3:])


def test_displacements_far_outside_read_the_edge():
    rng = np.random.default_rng(2)
    picture = reference((rng.integers(0, 256, (8, 8)).astype(np.uint8),) * 3, 8)
    far = warped(picture, np.full((2, 8, 8), 1 << 20, np.int64))
    np.testing.assert_array_equal(far, np.broadcast_to(picture[:, -1:, -1:], far.shape))


def test_a_ramp_is_interpolated_to_a_sixteenth():
    ramp = (np.arange(40, dtype=np.uint16) * 6 + np.zeros((24, 1), np.uint16)).astype(np.uint8)
    picture = reference((ramp,) * 3, 8)
    moved = np.zeros((2, 24, 40), np.int64)
    moved[0] = 5
    found = warped(picture, moved)[0, :, 8:-8]
    want = (ramp[:, 8:-8] + 6 * 5 / 16) * 4096 / 255
    assert np.abs(found - want).max() < 2


def test_steady_motion_needs_one_plane_and_full_blends_read_one_reference():
    size = (16, 24)
    motion = [[np.zeros(s, np.int8) for s in motion_sizes(*size)] for _ in range(5)]
    motion[0][0][:] = 4  # 4 quarters of a pixel
    motion[4][0][:] = 127
    units = np.array([[64] * 4, [64] * 4, [512] * 4])
    both, share = flows(motion_planes(motion, units, size), -256)
    assert (both[0] == 16).all()
    assert (both[2] == -16).all()
    assert (share == 256).all()
    rng = np.random.default_rng(3)
    a, b = (reference((rng.integers(0, 256, size).astype(np.uint8),) * 3, 8) for _ in range(2))
    np.testing.assert_array_equal(predicted(a, b, both, share), warped(a, both[:2]))


@pytest.mark.parametrize("size", [(5, 7), (6, 8)])
def test_doubling_a_plane_keeps_constants_and_is_cut(size: tuple[int, int]):
    found = doubled(np.full((1, 3, 4), 77, np.int64), size)
    assert found.shape == (1, *size)
    assert (found == 77).all()


def test_energies_are_half_octaves_of_the_mean_size():
    assert energy_of([np.zeros((4, 4), np.int8)]) == 0
    ones = np.ones((4, 4), np.int8)
    assert energy_of([ones]) == 15
    assert energy_of([ones, np.zeros((4, 12), np.int8)]) == 11
    assert energy_of([127 * ones]) == 15


@needs_native
@pytest.mark.parametrize("seed", range(4))
def test_damaged_groups_are_refused_or_decode(seed: int):
    """No hang, no crash: a clear error, or pictures of the right size."""
    chunk, _ = random_group((21, 34), 4)
    picture, rng = header((21, 34), 4), np.random.default_rng(seed)
    for _ in range(25):
        bad = bytearray(chunk)
        for place in rng.integers(0, len(bad), rng.integers(1, 4)):
            bad[place] ^= 1 << int(rng.integers(0, 8))
        cut = len(bad) if rng.random() < 0.6 else int(rng.integers(0, len(bad)))
        try:
            found = decode_group(bytes(bad[:cut]), picture, 4, "native")
        except FormatError:
            continue
        assert all(planes[0].shape == (21, 34) for planes in found.values())


def test_files_cut_anywhere_or_with_flipped_bits_are_refused():
    data = random_video(groups=(2,))
    rng = np.random.default_rng(0)
    for cut in (*range(0, 60, 3), *rng.integers(60, len(data), 20).tolist()):
        with pytest.raises(FormatError):
            list(decode_video(data[:cut]))
    for place, bit in itertools.product(range(0, len(data), 97), (0, 5)):
        bad = bytearray(data)
        bad[place] ^= 1 << bit
        try:
            frames = list(decode_video(bytes(bad)))
        except FormatError:
            continue
        assert len(frames) == 2  # the bit was in the type of a chunk that is skipped


@pytest.mark.parametrize(
    ("size", "frames", "words"),
    [((5000, 5000), 1, "2\\^24"), ((4096, 4096), 17, "2\\^28"), ((8, 8), 1025, "1 to 1024")],
)
def test_groups_that_no_decoder_could_hold_are_refused(
    size: tuple[int, int], frames: int, words: str
):
    data = _video.video_file(header(size, frames), [(frames, b"\0")])
    with pytest.raises(FormatError, match=words):
        list(decode_video(data))


def test_pictures_are_no_videos_and_the_index_must_fit():
    with pytest.raises(FormatError, match=r"clip\.lume: does not begin"):
        list(decode_video(b"RIFF", source="clip.lume"))
    model = base_model(1, Widths(7, 12, 32, 3))
    zeros = [np.zeros(size, np.int32) for size in level_sizes(9, 9, 7)]
    with pytest.raises(FormatError, match="expected a video"):
        list(decode_video(encode_image(model, zeros, Picture(9, 9))))
    chunk, _ = random_group((21, 34), 2)
    lying = Chunk(INDEX_CHUNK, bytes((1, 3, 9)))
    plain = pack(VIDEO, header((21, 34), 2), [Chunk(PICTURE_CHUNK, chunk)], (2,))
    index = pack(VIDEO, header((21, 34), 2), [lying, Chunk(PICTURE_CHUNK, chunk)], (2,))
    assert len(list(decode_video(plain))) == 2
    with pytest.raises(FormatError, match="index of 1 groups with 3 frames"):
        list(decode_video(index))


def test_unknown_variants_and_bases_ask_for_an_update():
    chunk, _ = random_group((21, 34), 2)
    picture = header((21, 34), 2)
    with pytest.raises(FormatError, match="variant 7"):
        decode_group(bytes([chunk[0] | 0xE0]) + chunk[1:], picture, 2, "twin")
    with pytest.raises(FormatError, match="base model"):
        decode_group(chunk[:3] + bytes([0x55]) + chunk[4:], picture, 2, "twin")
    with pytest.raises(FormatError, match="the index says 3"):
        decode_group(chunk, picture, 3, "twin")
