"""The layers of the families: exact ones are the same in NumPy and XLA, and near the float ones."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lumefield.codecs.families import _tables
from lumefield.codecs.families._exact import ExactOps
from lumefield.codecs.families._float import FloatOps
from lumefield.codecs.families._ops import (
    LIMIT,
    ONE,
    Ops,
    Whole,
    encode_position,
    features,
    pixel_grid,
    pixel_shuffle,
)

RNG = np.random.default_rng(0)
X = features(RNG.normal(size=(2, 6, 7, 12)) * 1.5)


def tensor(*shape: int, scale: float = 0.3, bits: int = 11) -> Whole:
    return Whole(np.rint(RNG.normal(size=shape) * scale * 2.0**bits), bits)


W = {
    "w": tensor(12, 8),
    "b": tensor(8, bits=9),
    "wc": tensor(3, 3, 12, 8, scale=0.1),
    "w1": tensor(1, 1, 12, 8),
    "wd": tensor(7, 7, 12, scale=0.1),
    "c": tensor(12, bits=20),
    "g": tensor(12, scale=1.0, bits=6),
    "w2": tensor(8, 8, scale=0.1),  # as in a SIREN: errors do not grow from layer to layer
    "w3": tensor(8, 3),
    "b3": tensor(3),
}
WHOLE, FLOATS = dict(W), {name: jnp.asarray(whole.floats()) for name, whole in W.items()}


def layers(ops: Ops, p: Any, xs: Any = X) -> dict[str, Any]:
    x = ops.input(xs)
    chain = [p["w"], p["w2"], p["w2"], p["w2"], p["w2"], p["w2"], p["w2"], p["w2"], p["w3"]]
    return {
        "linear": ops.linear(x, p["w"], p["b"]),
        "bare": ops.linear(x, p["w"]),
        "conv": ops.conv(x, p["wc"], p["b"]),
        "pointwise": ops.conv(x, p["w1"], p["b"]),
        "depthwise": ops.depthwise(x, p["wd"], p["c"]),
        **{f"resize {r}": ops.resize(x, r) for r in (1, 2, 3, 5)},
        "sin": ops.sin(x),
        "relu": ops.relu(x),
        "gelu": ops.gelu(x),
        "gelu beyond its table": ops.gelu(ops.scale(x, 9.0)),
        "sigmoid": ops.sigmoid(x),
        "products": ops.mul(x, ops.add(x, x)),
        "constants": ops.scale(x, np.array([0.5, 3.0, 0.25, 7.5] * 3, np.float32)),
        "normalise": ops.normalise(x, (-1,)),
        "over the picture": ops.normalise(x, (1, 2)),
        "layer norm": ops.layer_norm(x, p["g"], p["c"]),
        "siren": ops.siren(x, chain, [*[p["b"]] * 8, p["b3"]]),
        "value": ops.value(p["c"]),
        "shuffle": pixel_shuffle(x, 2),
    }


EXACT = layers(ExactOps(), WHOLE)


def test_numpy_and_xla_give_the_same_integers():
    with jax.enable_x64(True):
        found = jax.jit(lambda: layers(ExactOps(jnp), WHOLE))()
        for name, value in found.items():
            assert np.array_equal(np.asarray(value), EXACT[name]), name
    for name, value in EXACT.items():
        assert value.dtype == np.float64
        assert np.array_equal(value, np.floor(value)), name


@pytest.mark.parametrize("name", sorted(EXACT))
def test_exact_layers_are_the_float_layers_up_to_rounding(name: str):
    found = np.asarray(layers(FloatOps(), FLOATS)[name], np.float64)
    bound = {"siren": 1e-3, "resize 5": 2e-4}.get(name, 6e-5)
    assert np.abs(found - EXACT[name] / ONE).max() < bound


def test_nothing_overflows_with_everything_at_its_bound():
    """Sums of integers below 2^53: float64 and Python's integers agree."""
    ops = ExactOps()
    x = np.full((1, 1, 1, 1 << 13), LIMIT)
    w = Whole(np.full((1 << 13, 2), 32767.0), 20)
    b = Whole(np.full(2, 32767.0), 0)
    total = (1 << 13) * int(LIMIT) * 32767 + (int(LIMIT) << 20)  # the bias is clipped
    meant = min(total >> 20, int(LIMIT))
    assert ops.linear(x, w, b)[0, 0, 0, 0] == meant
    assert total < 1 << 53
    with pytest.raises(ValueError, match="a sum of 8193 products"):
        ops.linear(np.zeros((1, 8193)), Whole(np.zeros((8193, 1)), 0))
    with pytest.raises(ValueError, match="normalises 32769 numbers"):
        ops.normalise(np.zeros((1, 32769)), (-1,))


def test_normalising_extremes_is_finite_and_within_bounds():
    ops = ExactOps()
    for value in (0.0, 1.0, -LIMIT, LIMIT):
        x = np.zeros((3, 1 << 15))
        x[:, 0] = value
        y = ops.normalise(x, (-1,))
        assert np.isfinite(y).all()
        assert np.abs(y).max() <= LIMIT


def test_a_conv_of_one_kernel_is_a_window_of_products():
    x, w = RNG.normal(size=(1, 5, 6, 2)), RNG.normal(size=(3, 3, 2, 1))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    meant = (padded[0, 2:5, 3:6] * w[..., 0]).sum()
    found = FloatOps().conv(jnp.asarray(x, jnp.float32), jnp.asarray(w, jnp.float32))
    assert abs(float(found[0, 2, 3, 0]) - meant) < 1e-5


def test_resize_keeps_constants_and_lines():
    ops = ExactOps()
    assert (ops.resize(np.full((1, 3, 4, 1), 777.0), 3) == 777).all()
    ramp = np.broadcast_to(np.arange(8.0)[:, None] * 1024, (1, 5, 8, 1))
    fine = ops.resize(ramp, 2)[0, 4, :, 0]
    assert np.array_equal(np.diff(fine[1:-1]), np.full(13, 512.0))


def test_pixel_shuffle_puts_channels_side_by_side():
    x = np.arange(2 * 3 * 8.0).reshape(1, 2, 3, 8)
    y = pixel_shuffle(x, 2)
    assert y.shape == (1, 4, 6, 2)
    for i, j, c in np.ndindex(2, 2, 2):
        assert y[0, 2 + i, 4 + j, c] == x[0, 1, 2, (2 * i + j) * 2 + c]


def test_positions_are_multiples_of_the_unit_and_near_the_formula():
    t = np.linspace(0, 1, 7)
    found = encode_position(t, 6, 1.25).astype(np.float64)
    angles = np.pi * t[:, None] * 1.25 ** np.arange(6)
    assert np.abs(found - np.concatenate([np.sin(angles), np.cos(angles)], -1)).max() < 7e-5
    grid = pixel_grid(5, 9)
    assert grid.shape == (45, 2)
    assert np.array_equal(grid[0] * 90, np.rint(grid[0] * 90)) or np.abs(grid).max() < 1
    for values in (found, grid):
        assert np.array_equal(values * ONE, np.rint(values * ONE))


@pytest.mark.parametrize(
    ("table", "md5"),
    [
        (_tables.sine, "ddabe68143e50fab9b595d8ec24a1ba2"),
        (_tables.sigmoid, "f3984a53e6d4b33bc97edacd59de92ec"),
        (_tables.gelu, "f3cdbbd567c2d2e9cc6c96e8a400c7cc"),
        (_tables.inverse_roots, "fae32f7982e894add3b0b68e7a1a359e"),
    ],
)
def test_tables_are_part_of_the_format(table: Any, md5: str):
    assert hashlib.md5(table().astype("<i4").tobytes()).hexdigest() == md5


def test_tables_are_the_functions_they_stand_for():
    x = np.arange(-8 * 4096, 8 * 4096 + 1) / 4096
    turns = np.arange(1 << 16) / (1 << 16)
    assert np.abs(_tables.sine() - ONE * np.sin(2 * np.pi * turns)).max() <= 0.5001
    assert np.abs(_tables.sigmoid() - ONE / (1 + np.exp(-x))).max() <= 0.5001
    with jax.enable_x64(True):
        meant = np.asarray(jax.nn.gelu(jnp.asarray(x), approximate=False))
    assert np.abs(_tables.gelu() - ONE * meant).max() <= 0.5001
    roots = 2.0**22 / np.sqrt(1 + np.arange(3 * 1024 + 2) / 1024)
    assert np.abs(_tables.inverse_roots() - roots).max() <= 0.5001
