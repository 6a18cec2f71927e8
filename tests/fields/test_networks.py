"""What single networks promise beside the contract, and every error message."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lumefield.fields.networks import (
    FIELDS,
    FourierMlp,
    GaussianMlp,
    LatentPyramid,
    PixelField,
    ReluMlp,
    Siren,
    VoxelField,
    Wire,
)
from lumefield.fields.networks._grids import interpolate

KEY = jax.random.key(0, impl="unsafe_rbg")  # compiles fast
RNGS = nnx.Rngs(KEY)


def test_a_siren_starts_with_the_spread_of_the_paper():
    x = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (4000, 2)), jnp.float32)
    field = Siren(2, 64, width=128, depth=3, rngs=RNGS)
    for layer in field.layers[:-1]:
        x = jnp.sin(30 * layer(x))
        assert 0.6 < float(jnp.std(x)) < 0.8  # arcsine distribution, 1 / sqrt(2) (Theorem 1.8)


def test_a_fused_siren_is_the_plain_one():
    x = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (100, 2)), jnp.float32)
    plain, fused = (
        Siren(2, 3, width=32, depth=2, backend=b, rngs=nnx.Rngs(KEY)) for b in ("xla", "auto")
    )

    @jax.jit
    def values_and_gradients(field: Any) -> Any:
        return field(x), jax.tree.leaves(jax.grad(lambda f: jnp.sum(f(x) ** 2))(field))

    for a, b in zip(
        *(jax.tree.leaves(values_and_gradients(f)) for f in (plain, fused)), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=2e-4 * float(jnp.abs(a).max()))


def test_a_complex_wire_is_one_of_complex_numbers():
    field: Any = Wire(2, 3, width=8, depth=2, omega=7.0, s=3.0, rngs=RNGS)
    x = np.random.default_rng(0).uniform(-1, 1, (5, 2))

    def wavelet(z: Any) -> Any:
        return np.exp(7j * z - np.abs(3 * z) ** 2)

    def array(param: Any) -> np.ndarray:
        return np.asarray(param[...], np.float64)

    z = wavelet(x @ array(field.first.kernel) + array(field.first.bias))
    hidden = field.hidden[0]
    bias = array(hidden.bias)[:8] + 1j * array(hidden.bias)[8:]
    z = wavelet(z @ (array(hidden.re) + 1j * array(hidden.im)) + bias)
    last = array(field.last.kernel)
    wanted = (z @ (last[:8] - 1j * last[8:])).real + array(field.last.bias)
    np.testing.assert_allclose(field(jnp.asarray(x, jnp.float32)), wanted, atol=2e-5)


def test_frequencies_do_not_train():
    field = FourierMlp(2, 1, features=4, width=8, depth=1, rngs=RNGS)
    grads = jax.grad(lambda f: jnp.sum(f(jnp.ones((3, 2)))))(field)
    assert not np.any(grads.frequencies[...])


# arrays


def centres(n: int) -> np.ndarray:
    return (np.arange(n) + 0.5) * 2 / n - 1


@pytest.mark.parametrize("kind", ["linear", "cubic"])
def test_an_array_is_read_exactly_at_the_centres_of_its_cells(kind: Any):
    values = np.random.default_rng(0).normal(size=(4, 5, 6, 2)).astype(np.float32)
    z, y, x = np.meshgrid(centres(4), centres(5), centres(6), indexing="ij")
    at = jnp.asarray(np.stack([x, y, z], -1), jnp.float32)
    np.testing.assert_allclose(interpolate(jnp.asarray(values), at, kind), values, atol=1e-5)


@pytest.mark.parametrize(("kind", "degree"), [("linear", 1), ("cubic", 2)])
def test_interpolation_keeps_polynomials_of_its_degree(kind: Any, degree: int):
    n = 9
    values = jnp.asarray(centres(n) ** degree, jnp.float32)[:, None]
    x = jnp.linspace(-0.6, 0.6, 31)[:, None]
    np.testing.assert_allclose(interpolate(values, x, kind), x**degree, atol=1e-5)


def test_an_array_goes_on_as_a_constant_outside():
    field = PixelField.from_array(np.arange(6.0, dtype=np.float32).reshape(2, 3, 1))
    x = jnp.array([[-1.0, -1.0], [-5.0, -5.0], [1.0, 1.0], [5.0, 5.0], [-5.0, 5.0]])
    np.testing.assert_allclose(field(x)[:, 0], [0, 0, 5, 5, 3])


def test_a_field_of_one_cell_is_constant():
    field = VoxelField.from_array(np.full((1, 1, 1, 2), 3, np.float32))
    assert np.all(np.asarray(field(jnp.zeros((4, 3)))) == 3)


def test_a_pyramid_halves_its_cells_and_starts_without_latents():
    field = LatentPyramid((33, 20), 3, levels=4, rngs=RNGS)
    shapes = [latent[...].shape for latent in field.latents]
    assert shapes == [(33, 20, 1), (17, 10, 1), (9, 5, 1), (5, 3, 1)]
    assert not any(np.any(latent[...]) for latent in field.latents)


# errors


@pytest.mark.parametrize("make", [Siren, Wire, FourierMlp, GaussianMlp, ReluMlp])
@pytest.mark.parametrize("options", [{"width": 0}, {"depth": 0}, {"d_in": 0}, {"d_out": 0}])
def test_sizes_below_one_are_refused(make: Any, options: dict[str, int]):
    name = next(iter(options))
    with pytest.raises(ValueError, match=f"{name}=0, expected at least 1"):
        make(**{"d_in": 2, "d_out": 3, **options}, rngs=RNGS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Siren(2, 3, omega=0, rngs=RNGS), "omega=0, expected a positive factor"),
        (lambda: Siren(2, 3, backend="cuda", rngs=RNGS), "backend='cuda', expected one of|Literal"),  # pyright: ignore
        (lambda: Wire(2, 3, s=-1, rngs=RNGS), "s=-1, expected positive numbers"),
        (lambda: GaussianMlp(2, 3, sigma=0, rngs=RNGS), "sigma=0, expected a positive width"),
        (lambda: FourierMlp(2, 3, features=0, rngs=RNGS), "features=0, degrees=None, expected"),
        (lambda: FourierMlp(2, 3, degrees=0, rngs=RNGS), "degrees=0, expected at least 1"),
        (lambda: PixelField(0, 3, 3), r"shape \(0, 3, 3\), expected sizes of at least 1"),
        (lambda: VoxelField(1, 3, 3, 0), r"shape \(1, 3, 3, 0\), expected sizes"),
        (lambda: PixelField.from_array(np.zeros((3, 4))), r"expected \(h, w, c\); add the chan"),
        (lambda: VoxelField.from_array(np.zeros((3, 4, 1))), r"expected \(d, h, w, c\)"),
        (lambda: LatentPyramid((0, 3), 3, rngs=RNGS), "levels=7, channels=1, expected at least 1"),
        (lambda: LatentPyramid((), 3, rngs=RNGS), r"shape=\(\), levels"),
        (
            lambda: LatentPyramid((4, 4), 3, interpolation="sinc", rngs=RNGS),  # pyright: ignore
            "interpolation='sinc', expected 'linear' or 'cubic'|Literal",
        ),
        (lambda: FIELDS["pixel"](3, 3, rngs=RNGS), "d_in=3, expected 2: pixels"),
        (lambda: FIELDS["voxel"](2, 3, rngs=RNGS), "d_in=2, expected 3: voxels"),
        (lambda: interpolate(jnp.zeros((3, 3)), jnp.zeros((5, 2))), "expected 2 axes and channels"),
    ],
)
def test_wrong_options_are_refused(make: Any, message: str):
    with pytest.raises(Exception, match=message):  # of the type hook where the option is a Literal
        make()
