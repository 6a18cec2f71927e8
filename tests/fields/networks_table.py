"""The contract table: one row per field of ``FIELDS``, and what the laws need of it.

To add a field, add a row. ``tests/fields/test_networks_contract.py`` holds the laws.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from lumefield.fields.networks import FIELDS, Field

D_OUT = 3


@dataclasses.dataclass(frozen=True)
class Row:
    """A field and its promises."""

    name: str
    """Key in ``FIELDS``."""
    psnr: float
    """Decibels it reaches, at least, on the toy signal."""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    d_in: int = 2
    smooth: int = 0
    """Derivatives in x that exist everywhere: 0 (continuous), 1, or 2 for two and more."""
    rate: float = 1e-2
    """Learning rate of Adam on the toy signal."""
    steps: int = 300
    frozen: tuple[str, ...] = ()
    """Leaves without gradient, by their path's last name."""

    def make(self, key: jax.Array | None = None) -> Any:
        """A small field; by default from a generator that compiles fast."""
        key = jax.random.key(0, impl="unsafe_rbg") if key is None else key
        return FIELDS[self.name](self.d_in, D_OUT, **self.options, rngs=nnx.Rngs(key))

    def lively(self, seed: int = 0) -> Any:
        """The same field with noise in every leaf, so that nothing is zero; compiles nothing."""
        leaves, tree = jax.tree.flatten(jax.eval_shape(self.make))
        rng = np.random.default_rng(seed)
        noise = [jnp.asarray(rng.normal(0, 0.2, leaf.shape), leaf.dtype) for leaf in leaves]
        return jax.tree.unflatten(tree, noise)


GRID = {"levels": 6, "coarsest": 4, "finest": 64, "log2_entries": 10}
SMALL = {"width": 32, "depth": 2}
ROWS = (
    Row("siren", 25.0, SMALL, smooth=2),
    Row("wire", 27.0, SMALL, smooth=2),
    Row("wire_real", 27.0, SMALL, smooth=2),
    Row("fourier", 21.0, {**SMALL, "features": 32, "scale": 2.0}, frozen=("frequencies",)),
    Row("positional", 19.0, {**SMALL, "degrees": 4}),
    Row("gaussian", 23.0, SMALL, smooth=2),
    Row("relu", 14.0, SMALL),
    Row("pyramid", 26.0, {"size": 32, "levels": 3, "width": 16}),
    Row("pixel", 45.0, {"size": 32}, rate=0.1),
    Row("voxel", 45.0, {"size": 10}, d_in=3, rate=0.1),
    Row("hashgrid", 38.0, {**GRID, "width": 32, "depth": 1}, rate=3e-2),
    Row("planes", 20.0, {"size": 10, "scales": (1,), "features": 8, "hidden": (16,)}, d_in=3),
    Row("waveplanes", 30.0, {"size": 32, "levels": 1, "features": 8, "hidden": (16,)}),
)


def toy(d: int) -> tuple[jax.Array, jax.Array]:
    """The toy signal: coordinates of all cells of a 32² image or 10³ volume, values in [0, 1].

    Coloured waves, with an edge along a circle.
    """
    n = 32 if d == 2 else 10
    axis = (np.arange(n) + 0.5) * 2 / n - 1
    x = np.stack(np.meshgrid(*[axis] * d, indexing="ij"), -1).reshape(-1, d)[:, ::-1]
    waves = [0.5 + 0.3 * np.sin((2 + c) * x[:, 0] * 2 + 3 * x[:, -1] - c) for c in range(D_OUT)]
    disc = np.sum(x**2, -1) < 0.4
    y = np.where(disc[:, None], 1 - np.stack(waves, -1), np.stack(waves, -1))
    return jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)


def fitted(field: Any, x: jax.Array, y: jax.Array, rate: float, steps: int) -> tuple[Any, float]:
    """The field after ``steps`` of Adam on all points, in one scan, and its PSNR in decibels."""
    tx = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def loss(field: Field) -> jax.Array:
        return jnp.mean((field(x) - y) ** 2)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        field, opt = carry
        with jax.numpy_dtype_promotion("standard"):  # as in fit.py
            updates, opt = tx.update(jax.grad(loss)(field), opt)
            return (optax.apply_updates(field, updates), opt), None

    @jax.jit
    def run(field: Any) -> tuple[Any, jax.Array]:
        last = jax.lax.scan(step, (field, tx.init(field)), None, length=steps)[0][0]
        return last, -10 * jnp.log10(loss(last))

    last, psnr = run(field)
    return last, float(psnr)


def by_path(field: Any) -> dict[str, jax.Array]:
    """Leaves by path, as they are saved."""
    leaves = jax.tree_util.tree_flatten_with_path(field)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
