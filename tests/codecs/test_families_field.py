"""Fields as ``.lume`` files: what comes back, what a price buys, hostile bytes."""

import json
import lzma
from typing import Any

import numpy as np
import pytest

from lumefield.codecs.families import decode_field, encode_field
from lumefield.codecs.families._blocks import BLOCK, from_rows, quantised, to_rows
from lumefield.codecs.neural._container import (
    EXACT_CHUNK,
    FIELD,
    FIELD_CHUNK,
    METADATA_CHUNK,
    Chunk,
    pack,
    unpack,
)
from lumefield.errors import FormatError

Arrays = dict[str, np.ndarray]
FACTS = {"format": 1, "recipe": {"method": "ngp", "counts": [1, 2]}, "scale": 0.1}


def arrays_of(seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    rows = np.linspace(0, 1, 24)
    smooth = np.stack([np.outer(rows, rows), np.outer(1 - rows, rows)], -1)
    return {
        "table": rng.normal(0, 0.1, (5000, 2)).astype(np.float32),
        "planes": np.stack([smooth] * 3).astype(np.float32),
        "none": np.zeros((0, 6), np.float32),
        "one": np.array(3.5, np.float32),
        "far": np.array([[5e6, -4e5]], np.float32),
        "bits": rng.integers(0, 256, 300).astype(np.uint8),
        "count": np.array([[-7, 1 << 30]], np.int32),
    }


def costs_of(arrays: Arrays, cost: float = 1e-6) -> Arrays:
    near = [key for key, x in arrays.items() if x.dtype == np.float32 and key != "far"]
    return {key: np.full(arrays[key].shape, cost, np.float32) for key in near}


def error_of(a: Arrays, b: Arrays) -> float:
    return sum(float(np.square(a[key].astype(np.float64) - b[key]).sum()) for key in a)


def test_facts_and_what_has_no_costs_come_back_and_the_rest_nearly() -> None:
    arrays = arrays_of()
    data, held = encode_field(FACTS, arrays, costs_of(arrays), 1e-13, name="a room")
    facts, back = decode_field(data)
    assert facts == FACTS
    assert list(back) == list(arrays)
    for key, value in arrays.items():
        assert (back[key].dtype, back[key].shape) == (value.dtype, value.shape)
        np.testing.assert_array_equal(back[key], held[key])
        np.testing.assert_allclose(back[key], value, rtol=0, atol=2e-3)
    for key in ("far", "bits", "count"):
        np.testing.assert_array_equal(back[key], arrays[key])
    assert unpack(data).name() == "a room"


def test_a_higher_price_makes_files_smaller_and_errors_larger() -> None:
    arrays = arrays_of()
    found = [encode_field({}, arrays, costs_of(arrays), 10.0**-k) for k in (12, 11, 10, 9)]
    sizes, errors = zip(*[(len(d), error_of(h, arrays)) for d, h in found], strict=True)
    assert list(sizes) == sorted(sizes, reverse=True)
    assert list(errors) == sorted(errors)
    assert sizes[0] > 1.5 * sizes[-1]


def test_what_costs_nothing_takes_nothing() -> None:
    arrays = {"table": arrays_of()["table"]}
    costs = costs_of(arrays)
    costs["table"][1000:] = 0
    data, held = encode_field({}, arrays, costs, 1e-13)
    full, _ = encode_field({}, arrays, costs_of(arrays), 1e-13)
    assert not held["table"][3000:].any()
    np.testing.assert_allclose(held["table"][:1000], arrays["table"][:1000], atol=2e-3)
    assert len(data) < 0.4 * len(full)


def test_neighbours_in_space_are_coded_by_their_differences() -> None:
    planes = {"planes": np.repeat(arrays_of()["planes"], 4, 1)}
    mixed = np.random.default_rng(0).permutation(planes["planes"].ravel())
    shuffled = {"planes": mixed.reshape(planes["planes"].shape)}
    sizes = [len(encode_field({}, a, costs_of(a), 1e-13)[0]) for a in (planes, shuffled)]
    assert sizes[0] < 0.75 * sizes[1]
    np.testing.assert_array_equal(
        from_rows([to_rows(planes["planes"])], planes["planes"].shape), planes["planes"]
    )


@pytest.mark.parametrize("price", [1e-9, 1e-8, 1e-7])
def test_no_integer_of_a_block_could_be_chosen_better_alone(price: float) -> None:
    rng = np.random.default_rng(3)
    value, cost = rng.laplace(0, 0.05, BLOCK).astype(np.float32), np.full(BLOCK, 1e-4, np.float32)
    (block,) = quantised(value, cost, price)
    from lumefield.codecs.families._tensors import bits_of, code_of

    q = block.whole.values.astype(np.int64)
    code = code_of(q)
    assert not block.differs

    def total(integers: Any) -> Any:
        error = cost * (value.astype(np.float64) - integers * 2.0**-block.whole.bits) ** 2
        return error + price * bits_of(integers, code)

    better = [np.mean(total(q + step) < total(q) * (1 - 1e-6)) for step in (-1, 1)]
    assert max(better) < 0.01  # the distribution moved a little after the last choice
    plain = np.rint(value.astype(np.float64) * 2.0**block.whole.bits).astype(np.int64)
    assert total(q).sum() < total(plain).sum()


def test_numbers_that_cannot_be_coded_are_refused() -> None:
    for value in (
        np.array([np.nan], np.float32),
        np.zeros(2, np.float64),
        np.array([1e9], np.float32),
    ):
        with pytest.raises(ValueError, match="expected"):
            encode_field({}, {"a": value}, {"a": np.ones(value.shape, np.float32)}, 1e-9)


def test_damaged_files_are_errors_or_the_same_field() -> None:
    arrays = arrays_of()
    data, held = encode_field(FACTS, arrays, costs_of(arrays), 1e-10)
    rng, told = np.random.default_rng(5), list[str]()
    for k in range(150):
        bad = bytearray(data)
        if k % 3 == 0:
            bad = bad[: rng.integers(0, len(bad))]
        elif k % 3 == 1:
            bad[rng.integers(0, len(bad))] ^= 1 << rng.integers(0, 8)
        else:
            bad = bytearray(rng.bytes(int(rng.integers(0, 400))))
        try:
            facts, back = decode_field(bytes(bad), "a.lume")
        except FormatError as error:
            told.append(str(error))
            continue
        assert facts == FACTS
        assert all(np.array_equal(back[key], held[key]) for key in held)
    assert len(told) > 100
    assert all(line.startswith("a.lume: ") for line in told)


def packed(head: Any, integers: bytes = b"", tensors: bytes = b"") -> bytes:
    chunks = [
        Chunk(METADATA_CHUNK, json.dumps(head).encode()),
        Chunk(EXACT_CHUNK, lzma.compress(integers)),
        Chunk(FIELD_CHUNK, tensors),
    ]
    return pack(FIELD, None, chunks)


@pytest.mark.parametrize(
    "rows",
    [
        [["a", "float32", 1 << 24, 1 << 24]],
        [["a", "float32", 1 << 23]],
        [["a", "float32", -1]],
        [["a", "object", 3]],
        [["a", "uint8", 1e400]],
        [["a", "uint8", float("nan")]],
        [["a", "uint8", 3], ["a", "uint8", 3]],
        [["a"]],
        [[]],
        7,
        [["a", "uint8", 10]],
    ],
)
def test_lists_of_arrays_that_no_encoder_writes_are_refused(rows: Any) -> None:
    with pytest.raises(FormatError, match=r"damaged|cut off"):
        decode_field(packed({"facts": {}, "arrays": rows}, b"0" * (1 << 20)))


def test_tensors_that_are_cut_off_are_refused() -> None:
    arrays = arrays_of()
    data, _ = encode_field(FACTS, arrays, costs_of(arrays), 1e-10)
    file = unpack(data)
    head, integers, tensors = (
        next(file.all(kind)) for kind in (METADATA_CHUNK, EXACT_CHUNK, FIELD_CHUNK)
    )
    for length in (0, 1, 5, 40, len(tensors) // 2):
        chunks = [
            Chunk(METADATA_CHUNK, head),
            Chunk(EXACT_CHUNK, integers),
            Chunk(FIELD_CHUNK, tensors[:length]),
        ]
        with pytest.raises(FormatError, match="cut off"):
            decode_field(pack(FIELD, None, chunks))
