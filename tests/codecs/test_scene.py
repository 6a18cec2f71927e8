"""Scenes to bytes and back: exact, small, and safe against damaged files."""

import base64
import dataclasses
import zlib

import numpy as np
import pytest

from lumefield.codecs.formats import Splats
from lumefield.codecs.neural._bits import BitReader, BitWriter
from lumefield.codecs.neural._container import unpack
from lumefield.codecs.scene import (
    Canonical,
    _stream,
    _tree,
    _twin,
    canonical,
    decode_scene,
    encode_scene,
    kept,
    red_first,
)
from lumefield.codecs.scene._canonical import full_quaternions, grey_first
from lumefield.codecs.scene._encode import splats_of
from lumefield.codecs.scene._model import read_model, write_model
from lumefield.errors import FormatError

PRICE = 1e-9


def scene(count: int, degree: int = 1, seed: int = 0) -> Splats:
    """Gaussians on a bent sheet, whose numbers change slowly along it, with noise."""
    rng, f32 = np.random.default_rng(seed), np.float32
    u, v = rng.uniform(-1, 1, (2, count))
    k = (degree + 1) ** 2
    sh = 0.05 * rng.normal(size=(count, k, 3))
    sh[:, 0] += np.stack([u, v, u * v], -1)
    return Splats(
        means=np.stack([u, v, 0.3 * np.sin(3 * u)], -1).astype(f32),
        quats_wxyz=rng.normal(size=(count, 4)).astype(f32),
        log_scales=(-3 + 0.5 * rng.normal(size=(count, 3))).astype(f32),
        logit_opacities=(u + rng.normal(size=count)).astype(f32),
        sh=sh.astype(f32),
    )


def costs(splats: Splats) -> Canonical:
    """What a picture of a thousand pixels might say."""
    n, k = splats.sh.shape[:2]
    rng = np.random.default_rng(1)
    weight = np.exp(rng.normal(size=n)) * 1e-6
    shape = np.ones((n, 3)) * weight[:, None]
    colours = np.broadcast_to(weight[:, None, None], (n, k, 3)).copy()
    return Canonical(1e3 * shape, 0.3 * shape, shape, 0.1 * weight, colours)


def covariances(splats: Splats) -> np.ndarray:
    q = splats.quats_wxyz.astype(np.float64)
    w, x, y, z = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    ).transpose(2, 0, 1)
    half = turn * np.exp(splats.log_scales.astype(np.float64))[:, None]
    return half @ half.transpose(0, 2, 1)


def matched(back: Splats, splats: Splats) -> Splats:
    """The decoded Gaussians in the order of the given ones: each the nearest centre."""
    gap = np.square(back.means[:, None].astype(np.float64) - splats.means[None]).sum(2)
    at = gap.argmin(0)
    assert len(set(at.tolist())) == len(splats.means)
    return back.taken(at)


def test_the_canonical_form_is_the_same_gaussian():
    splats = scene(200, 3)
    form = canonical(splats)
    again = dataclasses.replace(
        splats,
        quats_wxyz=full_quaternions(form.turns).astype(np.float32),
        log_scales=form.log_scales.astype(np.float32),
    )
    np.testing.assert_allclose(covariances(again), covariances(splats), rtol=2e-4, atol=1e-7)
    assert (np.diff(form.log_scales, axis=1) <= 0).all()
    assert (np.abs(form.turns).max(1) <= full_quaternions(form.turns)[:, 0] + 1e-9).all()
    np.testing.assert_allclose(red_first(form.colours), splats.sh, atol=1e-6)


def test_colours_turn_without_change_of_length():
    rgb = np.random.default_rng(0).normal(size=(50, 3))
    np.testing.assert_allclose(np.square(grey_first(rgb)).sum(1), np.square(rgb).sum(1))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 17, 600])
@pytest.mark.parametrize("depth", [1, 9])
def test_the_tree_gives_every_cell_back(count: int, depth: int):
    rng = np.random.default_rng(count)
    cells = (rng.uniform(size=(count, 3)) ** 3 * 2**depth).astype(np.int64)
    cells = cells[np.argsort(_tree.woven(cells, depth), kind="stable")]
    levels = _tree.splits(cells, depth)
    assert len(levels) == 3 * depth
    lower = iter(levels)
    np.testing.assert_array_equal(_tree.grow(count, depth, lambda *_: next(lower).lower), cells)
    for split in levels:
        many = split.counts > 1
        n, k = split.counts[many], split.lower[many]
        symbol = _tree.symbols_of(n, k)
        low, high = _tree.ranges(n, symbol)
        large = n >= _tree.PARTS
        assert ((low <= k) & (k <= high))[large].all()
        assert (high - low < 2 ** _tree.spare_bits(low, high))[large].all()


def test_every_number_below_every_large_count_has_its_symbol():
    for n in (16, 17, 31, 100, 4721):
        k = np.arange(n + 1)
        counts = np.full(n + 1, n)
        low, high = _tree.ranges(counts, _tree.symbols_of(counts, k))
        assert ((low <= k) & (k <= high)).all()


@pytest.mark.parametrize("degree", [0, 2, 4])
def test_a_scene_comes_back_near_and_small(degree: int):
    splats = scene(250, degree)
    data = encode_scene(splats, costs(splats), PRICE, name="sheet.ply")
    back, container = decode_scene(data)
    assert container.name() == "sheet.ply"
    assert back.sh.shape == splats.sh.shape
    assert len(data) < splats.sh.size + 14 * 250
    near = matched(back, splats)
    assert np.abs(near.means - splats.means).max() < 0.02
    assert np.abs(near.sh[:, 0] - splats.sh[:, 0]).mean() < 0.1
    scale = np.abs(covariances(splats)).max((1, 2))
    gap = np.abs(covariances(near) - covariances(splats)).max((1, 2))
    assert float(np.median(gap / scale)) < 0.2


def test_finer_prices_come_nearer_and_take_more():
    splats, sizes, errors = scene(150, 0), list[int](), list[float]()
    for price in (1e-8, 1e-10, 1e-12):
        data = encode_scene(splats, costs(splats), price)
        back, _ = decode_scene(data)
        sizes.append(len(data))
        errors.append(float(np.square(matched(back, splats).means - splats.means).mean()))
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-9


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_tiny_scenes_come_back(count: int):
    splats = scene(count)
    back, _ = decode_scene(encode_scene(splats, costs(splats), PRICE))
    assert back.means.shape == (count, 3)
    if count:
        np.testing.assert_allclose(matched(back, splats).means, splats.means, atol=0.05, rtol=0)


def test_equal_gaussians_in_one_place_are_all_kept():
    one = scene(1)
    splats = one.taken(np.zeros(300, np.int64))
    back, _ = decode_scene(encode_scene(splats, costs(splats), PRICE))
    assert len(back.means) == 300


def test_up_comments_and_antialiasing_travel_along():
    splats = dataclasses.replace(
        scene(3), up=(0.0, -1.0, 0.0), comments=("by hand",), antialiased=True
    )
    back, _ = decode_scene(encode_scene(splats, costs(splats), PRICE))
    assert (back.up, back.comments, back.antialiased) == (splats.up, splats.comments, True)


def test_what_counts_little_is_left_out():
    splats = scene(100)
    c = costs(splats)
    assert kept(c, 1e-30).all()
    assert not kept(c, 1.0).any()
    price = next(p for p in np.geomspace(1e-12, 1, 200) if kept(c, p).sum() <= 50)
    mask = kept(c, float(price))
    assert 20 < mask.sum() <= 50
    assert c.colours[mask, 0, 0].min() > c.colours[~mask, 0, 0].max()


def test_numbers_that_are_not_finite_are_refused():
    splats = scene(4)
    splats.means[0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        encode_scene(splats, costs(splats), PRICE)


def chunk_of(splats: Splats, price: float = PRICE) -> bytes:
    file = encode_scene(splats, costs(splats), price)
    return next(unpack(file).all(6))


@pytest.mark.parametrize("count", [1, 50])
def test_the_twin_decodes_the_same_numbers(count: int):
    splats = scene(count, 2)
    chunk = chunk_of(splats)
    found = _stream.decode(chunk)
    # What is before the symbols, again: the tree is walked by the fast decoder.
    reader = BitReader(np.unpackbits(np.frombuffer(chunk, np.uint8)))
    reader.take(32 + 3 + 1 + 5)
    lanes = 1 << reader.take(4)
    reader.take(3 + 128)
    front = reader.take(32)
    model, tables = read_model(reader, 2), _tree.read_tables(reader)
    states = _stream.read_states(reader, lanes)
    coder = _twin.OneByOne(states, np.frombuffer(chunk[front:], np.uint8))

    def fill(counts: np.ndarray, alone: np.ndarray) -> np.ndarray:
        """The tree as its documentation has it, box by box."""
        single = counts == 1
        bits = iter([reader.take(1) for _ in range(int(single.sum()))])
        symbols, spare = dict[int, int](), dict[int, int]()
        many = np.flatnonzero(~single).tolist()
        for k, box in enumerate(many):
            table = 2 * (min(int(counts[box]), 16) - 2) + int(alone[box])
            symbols[box] = coder.symbol(k % lanes, tables[table].tolist())
        for box in many:
            n, s = int(counts[box]), symbols[box]
            if n < 16:
                spare[box] = s
            else:
                every = [k for k in range(n + 1) if _tree.symbols_of(np.array(n), np.array(k)) == s]
                width = (len(every) - 1).bit_length()
                spare[box] = every[reader.take(width)]
        return np.array([1 - next(bits) if single[b] else spare[b] for b in range(len(counts))])

    cells = _tree.grow(len(found.cells), found.depth, fill)
    np.testing.assert_array_equal(cells, found.cells)

    class Lazy(list[int]):
        def pop(self, index: int = -1) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
            del index
            signed = int(reader.take_golomb(1, 2)[0])
            return -2 * signed - 1 if signed < 0 else 2 * signed

    excess = Lazy()
    values = _twin.values_of(model, [tuple(c) for c in cells.tolist()], coder, excess)
    np.testing.assert_array_equal(np.array(values), found.values)


def test_a_model_comes_back_as_it_was():
    found = _stream.decode(chunk_of(scene(50, 1))).model
    writer = BitWriter()
    write_model(writer, found)
    assert read_model(BitReader(writer.bits()), 1) == found


def test_the_bytes_and_the_numbers_of_a_fixed_scene_stay_what_they_are():
    """Another checksum of the numbers means that old files read differently: a new version."""
    back = splats_of(_stream.decode(GOLDEN))
    arrays = (back.means, back.quats_wxyz, back.log_scales, back.logit_opacities, back.sh)
    assert [zlib.crc32(np.ascontiguousarray(a).tobytes()) for a in arrays] == GOLDEN_SUMS


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_damaged_chunks_are_refused_or_decode_to_something_finite(seed: int):
    chunk = chunk_of(scene(64, 1, seed))
    rng = np.random.default_rng(seed)
    for k in range(30):
        bad = bytearray(chunk)
        if k % 3 == 0:
            bad = bad[: int(rng.integers(len(bad)))]
        elif k % 3 == 1:
            at = int(rng.integers(len(bad) * 8 if k % 2 else 400))
            bad[at // 8] ^= 1 << at % 8
        else:
            bad[: 60 if k % 2 else None] = rng.bytes(60 if k % 2 else len(bad))
        try:
            found = splats_of(_stream.decode(bytes(bad)))
        except FormatError:
            continue
        assert len(found.means) <= 3 * len(bad)
        assert all(np.isfinite(a).all() for a in (found.means, found.quats_wxyz, found.sh))


def test_damaged_files_are_refused_by_their_checksums():
    data = encode_scene(scene(40), costs(scene(40)), PRICE)
    for at in range(0, len(data), 7):
        bad = bytearray(data)
        bad[at] ^= 4
        with pytest.raises(FormatError):
            decode_scene(bytes(bad), source="x.lume")
    for stop in range(0, len(data), 11):
        with pytest.raises(FormatError, match=r"x\.lume: "):
            decode_scene(data[:stop], source="x.lume")


@pytest.mark.parametrize(
    ("at", "value", "text"),
    [
        (0, b"\xff\xff\xff\xff", "numbers per byte"),
        (4, b"\xff", "expected at most 4"),
        (5, b"\x07", "kept for later"),
        (6, b"\xff\xff\xff\xff", "finite"),
        (22, b"\x7f\xff\xff\xff", "before the coder's"),
    ],
)
def test_numbers_that_no_encoder_writes_are_named(at: int, value: bytes, text: str):
    chunk = bytearray(chunk_of(scene(30)))
    chunk[at : at + len(value)] = value
    with pytest.raises(FormatError, match=text):
        _stream.decode(bytes(chunk))


GOLDEN = base64.b85decode(
    "00005A^^WsCCtA?%*no)m^?qXGerOZ0tkMX2Y#p+eV8DCfCvD92mpWx0D7DNAOQdf06+o&0005t9smFVRTEWJRZ|"
    "2DKm-6l1OPw;be?+i*Pg%v01yBGpiTe)000WAq3WutrC1h!_yB+i0Du^GJ@xOeeTs|#AOG-x000000u@z8QASl&D"
    "nQHqK*Rt*1TjG!(r%M<nY5^!|NiX*KmY&$0IH}os;a7#;8FfyA_O1;9AJ|U*mlFVhK~(@|LlNB0ssI2)E?DPELBx"
    "g1PZ^@1i$PFL!>XD^9PtbwcW!H|Nqco003$L3aY4L1u$5Os-_qgfCvD92mpW=2+hWBGjV_f03ZMXV3Ys=000$LLs"
    "eB(OfW3~5CH%X0RS@Ci-cSv;bArEzyJdS<NyEw04l1g9;&LAAX)$*0stTa03qi2=g&TR2k-fS0001>5dZ)HRZ-#<"
    "RaH{N3qS+_Km-6l1L@&K3Mf%Q-WCu500003Z~y=bs7@BDs;Ynt0Kgak00000000I600000000000000000000000"
    "0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "00000000000000000000yU}}7$P&EM_vkm#aQlPgm*W{<e^ub3q(*sZU^fC`lJ5(R%~o%aZ3BtV(NQZk{3JwH3}C"
    ">Y!nCJ&OUe"
)
GOLDEN_SUMS = [3677373247, 202512880, 563677287, 3946360696, 1508976446]
