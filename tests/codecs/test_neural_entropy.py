"""The entropy coder of the neural codecs: table, bits, parameters, rANS."""

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumefield.codecs.neural import Widths, base_model
from lumefield.codecs.neural._bits import BitReader, BitWriter, golomb_lengths, sparse_lengths
from lumefield.codecs.neural._laplace import (
    BUCKET_SYMBOLS,
    bucket_starts,
    cumulative,
    reach,
    scales,
    symbol_tables,
)
from lumefield.codecs.neural._parameters import (
    CONTEXT_GROUPS,
    PICTURE_GROUPS,
    parameter_bits,
    read_groups,
    write_groups,
)
from lumefield.codecs.neural._rans import (
    Decoder,
    encode,
    loaded_states,
    payload_of,
    read_states,
    symbol_bits,
    write_states,
)
from lumefield.errors import FormatError
from tests.codecs.neural_models import random_model

TABLE_SHA256 = "986b202d63c0e489e08951e77aa12a570070d3c61dfa0e4516b61c89c8350b29"


def test_the_table_is_the_same_bits_everywhere():
    digest = hashlib.sha256(cumulative().astype("<i4").tobytes()).hexdigest()
    assert digest == TABLE_SHA256


def test_every_row_of_the_table_sums_to_2_to_the_16_over_its_reach():
    table, r = cumulative(), reach()
    sizes = np.diff(table, axis=-1)
    q = np.abs(np.arange(-127, 128))
    inside = np.broadcast_to(q <= r[:, None, None], sizes.shape)
    assert (sizes[inside] >= 1).all()
    assert (sizes[~inside] == 0).all()
    assert (table[..., 0] == 0).all()
    assert (table[..., -1] == 1 << 16).all()


def test_frequencies_cost_at_most_a_hundredth_of_a_bit_more_than_the_laplace():
    """Kullback-Leibler divergence of each row from the distribution it stands for."""
    edges = np.arange(-127, 129) - 0.5
    mean = (np.arange(16) - 8) / 16
    z = (edges - mean[:, None])[None] / scales()[:, None, None]
    half = 0.5 * np.exp(-np.abs(z))
    sums = np.where(z < 0, half, 1 - half)
    sums[..., 0], sums[..., -1] = 0, 1
    p = np.diff(sums, axis=-1)
    q = np.diff(cumulative(), axis=-1) / 65536
    inside = (q > 0) & (p > 0)
    ratio = np.log2(p / np.where(q > 0, q, 1), where=inside, out=np.zeros_like(p))
    loss = np.where(inside, p * ratio, 0).sum(-1)
    # The widest rows are cut at 127: their tails cannot be told from a narrower distribution's.
    assert loss[reach() < 127].max() < 0.01


def test_a_search_from_the_bucket_finds_every_symbol():
    table, starts = cumulative().reshape(1024, -1), bucket_starts().reshape(1024, -1)
    v = np.arange(1 << 16)
    near = np.minimum(v, 65535 - v) + 1
    key = (near.astype(np.float32).view(np.int32) >> 19) - (127 << 4) + (v >> 15) * 256
    for row in range(0, 1024, 37):
        symbol = np.searchsorted(table[row], v, side="right") - 1
        begin = starts[row][key].astype(int)
        assert (begin <= symbol).all()
        assert (symbol < begin + BUCKET_SYMBOLS).all()
    assert symbol_tables().sums.reshape(1024, -1)[:, 256:].min() > 1 << 16


@given(st.lists(st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 63)), max_size=50))
def test_bits_come_back(numbers: list[tuple[int, int]]):
    writer = BitWriter()
    for value, width in numbers:
        writer.put(value & ((1 << width) - 1), width)
    reader = BitReader(writer.bits())
    assert [reader.take(width) for _, width in numbers] == [
        value & ((1 << width) - 1) for value, width in numbers
    ]
    with pytest.raises(FormatError, match="ends inside the parameters"):
        reader.take(1)


@given(st.lists(st.integers(-131070, 131070), max_size=40), st.integers(0, 15))
def test_exp_golomb_numbers_come_back_in_the_bits_that_were_promised(values: list[int], order: int):
    numbers = np.array(values, np.int64)
    writer = BitWriter()
    writer.put_golomb(numbers, order)
    bits = writer.bits()
    assert len(bits) == golomb_lengths(numbers, order).sum()
    assert (BitReader(bits).take_golomb(len(numbers), order) == numbers).all()


@given(st.lists(st.integers(-131070, 131070), max_size=40), st.integers(0, 3))
def test_sparse_numbers_come_back_in_the_bits_that_were_promised(values: list[int], order: int):
    numbers = np.array([value * (value % 3 == 0) for value in values], np.int64)
    writer = BitWriter()
    writer.put_sparse(numbers, order)
    bits = writer.bits()
    assert len(bits) == sparse_lengths(numbers, order).sum()
    assert (BitReader(bits).take_sparse(len(numbers), order) == numbers).all()


def test_zeros_among_large_numbers_cost_a_bit_each():
    numbers = np.array([0] * 90 + [9, -12] * 5, np.int64)
    plain = min(golomb_lengths(numbers, order).sum() for order in range(12))
    sparse = min(sparse_lengths(numbers, order).sum() for order in range(4))
    assert sparse < plain
    assert sparse == 90 + 10 * (1 + 6)


def test_a_code_without_end_is_an_error():
    with pytest.raises(FormatError, match="code does not end"):
        BitReader(np.array([1] + [0] * 999, np.uint8)).take_sparse(1, 0)
    with pytest.raises(FormatError, match="code does not end"):
        BitReader(np.zeros(1000, np.uint8)).take_golomb(1, 0)


@pytest.mark.parametrize("step", [1, 4, 128])
def test_parameters_come_back_and_coarse_steps_are_cheaper(step: int):
    widths = Widths(7, 12, 16, 3)
    model, base = random_model(1, widths, step=step), base_model(0, widths)
    writer = BitWriter()
    write_groups(writer, CONTEXT_GROUPS + PICTURE_GROUPS, model, base)
    reader = BitReader(writer.bits())
    found = read_groups(reader, CONTEXT_GROUPS + PICTURE_GROUPS, base, widths)
    assert all((found[name] == getattr(model, name)).all() for name in widths.shapes())
    assert reader.position == parameter_bits(model, base)
    assert parameter_bits(model, base) <= parameter_bits(random_model(1, widths), base)


def test_the_base_itself_costs_two_bits_a_parameter_at_most():
    widths = Widths(7, 12, 16, 3)
    base = base_model(0, widths)
    count = sum(int(np.prod(shape)) for shape in widths.shapes().values())
    assert parameter_bits(base, base) <= count + 13 * 8


def test_a_parameter_out_of_bounds_is_an_error():
    widths = Widths(1, 1, 1, 1)
    base = base_model(0, widths)
    writer = BitWriter()
    writer.put(0, 4)
    writer.put(0, 4)
    writer.put_golomb(np.full(17, 5000), 0)
    with pytest.raises(FormatError, match="parameter W1 of 5000, expected at most 4095"):
        read_groups(BitReader(writer.bits()), CONTEXT_GROUPS, base, widths)


def stream(seed: int, lanes: int, count: int):
    """Random rows and symbols drawn from them; in groups of at most ``lanes``."""
    rng = np.random.default_rng(seed)
    table = cumulative().reshape(1024, -1)
    rows = rng.integers(0, 1024, count)
    symbols = np.array(
        [
            np.searchsorted(table[r], v, side="right") - 1
            for r, v in zip(rows, rng.integers(0, 1 << 16, count), strict=True)
        ]
    )
    starts, stops = table[rows, symbols], table[rows, symbols + 1]
    busy = [np.sort(rng.permutation(lanes)[: rng.integers(1, lanes + 1)]) for _ in range(count)]
    borders = np.minimum(np.cumsum([0, *map(len, busy)]), count)
    groups = borders[: int(np.searchsorted(borders, count)) + 1]
    lane = np.concatenate(busy)[:count]
    return rows, symbols, starts.astype(np.uint64), (stops - starts).astype(np.uint64), lane, groups


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1, 2, 8, 64]), st.integers(1, 600))
def test_symbols_and_the_payload_of_the_states_come_back(seed: int, lanes: int, count: int):
    rows, symbols, starts, sizes, lane, groups = stream(seed, lanes, count)
    payload = np.random.default_rng(seed).integers(0, 2, 25 * lanes).astype(np.uint8)
    ends, _ = encode(starts, sizes, lane, groups, np.full(lanes, 3 << 23, np.uint64))
    first, carried = loaded_states(payload, ends, 3 << 23)
    states, code = encode(starts, sizes, lane, groups, first)
    writer = BitWriter()
    write_states(writer, states)
    stored = read_states(BitReader(writer.bits()), lanes)
    assert (stored == states).all()
    decoder = Decoder(stored, code)
    for a, b in itertools.pairwise(groups):
        assert (decoder.symbols(rows[a:b], lane[a:b]) == symbols[a:b]).all()
    assert decoder.taken == len(code)
    assert (decoder.states == first.astype(np.int64)).all()
    last = payload_of(decoder.states.astype(np.uint32))
    assert (last[:carried] == payload[:carried]).all()
    assert not last[carried:].any()


def test_lanes_cost_two_bits_each():
    """States stored, payload carried and words together exceed the entropy by almost nothing."""
    lanes, count = 64, 20000
    _, _, starts, sizes, lane, groups = stream(5, lanes, count)
    payload = np.random.default_rng(0).integers(0, 2, 40 * lanes).astype(np.uint8)
    ends, _ = encode(starts, sizes, lane, groups, np.full(lanes, 3 << 23, np.uint64))
    first, carried = loaded_states(payload, ends, 3 << 23)
    states, code = encode(starts, sizes, lane, groups, first)
    writer = BitWriter()
    write_states(writer, states)
    total = len(writer.bits()) - carried + 8 * len(code)
    assert total < 1.0005 * symbol_bits(sizes) + 2 * lanes


def test_constriction_needs_as_many_bits_for_the_same_symbols():
    """A second, independent coder over the same integer frequencies."""
    constriction = pytest.importorskip("constriction")
    rows, symbols, _, sizes, _, _ = stream(9, 1, 2000)
    table = cumulative().reshape(1024, -1)
    coder = constriction.stream.queue.RangeEncoder()
    for row, symbol in zip(rows, symbols, strict=True):
        support = np.diff(table[row])
        first = int(np.argmax(support > 0))
        p = support[support > 0] / 65536
        model = constriction.stream.model.Categorical(p.astype(np.float64), perfect=False)
        coder.encode(np.array([symbol - first], np.int32), model)
    assert coder.num_bits() == pytest.approx(symbol_bits(sizes), rel=0.005, abs=64)
