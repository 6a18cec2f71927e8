"""The multiresolution hash encoding as a function, with exact derivatives of every order.

Müller, Evans, Schied, Keller, "Instant Neural Graphics Primitives with a Multiresolution Hash
Encoding", 2022, Sec. 3. Letters: L levels, F features, d coordinates, n samples, e(T, x) the
encoding (n, L F) of points x by the table T.

e is linear in T, and three functions are closed under differentiation:

    gather(T, x, v...)      e, differentiated along directions v (n, d), each linear
    scatter(x, g, v...)     the transpose of gather in T:  d<gather, g> / dT
    slope(T, x, g, v...)    d<gather, g> / dx

They are jax primitives with rules for forward mode, reverse mode and ``vmap`` in terms of each
other. With zero or one direction the C++ or Warp kernels do the work, which covers values,
gradients and the gradients of gradients (eikonal terms, Hessians); beyond that, and wherever the
kernels are not, the plain jnp twin below does.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Float

from lumefield import native
from lumefield.fields.networks import _hashgrid_native

PRIMES = (1, 2654435761, 805459861, 3674653429)
"""Of the hash: paper, Eq. 4; the fourth is the next of tiny-cuda-nn's list."""


@dataclass(frozen=True)
class Levels:
    """The shape of a multiresolution grid on [-1, 1]^d; static, hashable."""

    d: int
    """Coordinates, 1 to 4."""
    cells: tuple[int, ...]
    """Cells per axis of each level, coarse to fine."""
    entries: int
    """Most entries of a level, a power of two: coarser levels are dense, finer ones hashed."""
    features: int = 2
    """Numbers per entry."""

    def __post_init__(self) -> None:
        """Refuse shapes that the hash or the kernels cannot do."""
        if not 1 <= self.d <= len(PRIMES):
            raise ValueError(f"d={self.d}, expected 1 to {len(PRIMES)} coordinates")
        if not self.cells or min(self.cells) < 1 or self.features < 1:
            raise ValueError(
                f"{len(self.cells)} levels of {self.cells} cells, features={self.features}, "
                "expected at least 1 of each"
            )
        if self.entries not in (1 << k for k in range(1, 29)):
            raise ValueError(f"entries={self.entries}, expected a power of two from 2 to 2**28")

    @classmethod
    def geometric(
        cls,
        d: int,
        *,
        levels: int = 16,
        coarsest: int = 16,
        finest: int = 512,
        log2_entries: int = 15,
        features: int = 2,
    ) -> "Levels":
        """Levels of floor(N_min b^l) cells, b = (N_max / N_min)^(1 / (L - 1)); paper, Eq. 2-3.

        Args:
            d: Coordinates, 1 to 4.
            levels: L.
            coarsest: N_min, cells per axis of the first level.
            finest: N_max, cells per axis of the last one.
            log2_entries: log2 of the most entries of a level, T; at most 28.
            features: F.

        Raises:
            ValueError: If a number is out of its range.
        """
        if not 1 <= coarsest <= finest <= 1 << 20:
            raise ValueError(
                f"coarsest={coarsest}, finest={finest}, expected 1 <= coarsest <= finest <= 2**20"
            )
        if not 1 <= log2_entries <= 28:
            raise ValueError(f"log2_entries={log2_entries}, expected 1 to 28")
        if levels < 1:
            raise ValueError(f"levels={levels}, expected at least 1")
        growth = (finest / coarsest) ** (1 / max(levels - 1, 1))
        # The nudge keeps the last level at N_max when the power falls just short of it.
        cells = tuple(math.floor(coarsest * growth**l + 1e-6) for l in range(levels))
        return cls(d, cells, 1 << log2_entries, features)

    def dense(self, level: int) -> bool:
        """Whether every vertex of the level has an entry of its own."""
        return (self.cells[level] + 1) ** self.d <= self.entries

    def sizes(self) -> tuple[int, ...]:
        """Entries of each level."""
        return tuple(min((n + 1) ** self.d, self.entries) for n in self.cells)

    @property
    def rows(self) -> int:
        """Rows of the table: all entries, coarse to fine."""
        return sum(self.sizes())

    @property
    def width(self) -> int:
        """Numbers that a point is encoded to: L F."""
        return len(self.cells) * self.features


def _corners(levels: Levels, level: int, x: Array) -> tuple[Array, Array]:
    """Indices (n, 2^d) and weights (n, 2^d) of the corners around x in one level."""
    d, cells = levels.d, levels.cells[level]
    p = (x + 1) * jnp.asarray(cells / 2, x.dtype)
    cell = jnp.clip(jax.lax.stop_gradient(p).astype(jnp.int32), 0, cells - 1)
    f = (p - cell.astype(x.dtype))[:, None, :]
    bits = np.stack([np.arange(1 << d) >> k & 1 for k in range(d)], -1)
    weights = jnp.prod(jnp.where(bits[None] == 1, f, 1 - f), -1)
    corner = (cell[:, None, :] + bits[None].astype(np.int32)).astype(jnp.uint32)
    if levels.dense(level):
        steps = np.asarray([(cells + 1) ** k for k in range(d)], np.uint32)
        index = jnp.sum(corner * steps[None, None], -1, dtype=jnp.uint32)
    else:
        mixed = corner * np.asarray(PRIMES[:d], np.uint32)[None, None]
        index = functools.reduce(jnp.bitwise_xor, [mixed[..., k] for k in range(d)])
        index = index & np.uint32(levels.entries - 1)
    return index.astype(jnp.int32) + np.int32(sum(levels.sizes()[:level])), weights


def encode_reference(levels: Levels, table: Array, x: Array) -> Array:
    """The plain jnp twin of the kernels: gather, interpolate; (n, d) -> (n, L F), any float type.

    A cell's interpolation continues linearly outside of [-1, 1].
    """
    parts: list[Array] = []
    for level in range(len(levels.cells)):
        index, weights = _corners(levels, level, x)
        found = table.at[index].get(mode="promise_in_bounds")
        parts.append(jnp.einsum("nkf,nk->nf", found, weights.astype(table.dtype)))
    return jnp.concatenate(parts, -1)


def _gather_plain(levels: Levels, table: Array, x: Array, *along: Array) -> Array:
    value: Callable[[Array], Array] = functools.partial(encode_reference, levels, table)
    for v in along:
        value = _directional(value, v)
    return value(x)


def _directional(f: Callable[[Array], Array], v: Array) -> Callable[[Array], Array]:
    return lambda x: jax.jvp(f, (x,), (v,))[1]


def _scatter_plain(levels: Levels, x: Array, g: Array, *along: Array) -> Array:
    empty = jax.ShapeDtypeStruct((levels.rows, levels.features), g.dtype)

    def linear(table: Array) -> Array:
        return _gather_plain(levels, table, x, *along)

    return jax.linear_transpose(linear, empty)(g)[0]


def _slope_plain(levels: Levels, table: Array, x: Array, g: Array, *along: Array) -> Array:
    def value(x: Array) -> Array:
        return _gather_plain(levels, table, x, *along)

    return jax.vjp(value, x)[1](g)[0]


def _gather_native(levels: Levels, table: Array, x: Array, *along: Array) -> Array:
    return _hashgrid_native.gather(levels.cells, levels.entries, table, x, *along)


def _scatter_native(levels: Levels, x: Array, g: Array, *along: Array) -> Array:
    return _hashgrid_native.scatter(levels.cells, levels.entries, levels.rows, x, g, *along)


def _slope_native(levels: Levels, table: Array, x: Array, g: Array, *along: Array) -> Array:
    return _hashgrid_native.slope(levels.cells, levels.entries, table, x, g, *along)


def _warp_kernel(name: str) -> Callable[..., Array]:
    from lumefield.fields.networks import _warp_hash  # loads warp

    return _warp_hash.FUNCTIONS[name]


def _fits(levels: Levels, along: int, dtypes: Sequence[Any]) -> bool:
    """Whether there are kernels, of either kind: coordinates, features, directions, types."""
    size = 2 <= levels.d <= 4 and levels.features == 2 and along <= 1
    return size and all(t == jnp.float32 for t in dtypes)


def _primitive(
    name: str, plain: Callable[..., Array], by_native: Callable[..., Array]
) -> Primitive:
    """A primitive of three ways to compute it; which one, is known when it is lowered."""
    p = Primitive(f"hash_{name}")

    def lowered(platform: str, *args: Array, levels: Levels, backend: str) -> Array:
        along = len(args) - (3 if p is slope_p else 2)
        if _fits(levels, along, [a.dtype for a in args]) and args[0].size:
            at = native.backend_on(platform) if backend == "auto" else backend
            if at == "native" and platform == "cpu" and native.load():
                return by_native(levels, *args)
            small = levels.rows < 1 << 31  # Warp's indices
            if at == "warp" and small and platform and native.warp_available():
                return _warp_kernel(name)(levels, *args)
        return plain(levels, *args)

    @functools.partial(jax.jit, static_argnames=("levels", "backend"))
    def eager(*args: Array, levels: Levels, backend: str) -> Array:
        return p.bind(*args, levels=levels, backend=backend)

    def shape(*args: Any, levels: Levels, backend: str) -> ShapedArray:  # noqa: ANN401
        del backend
        n, dtype = args[1 if p is not scatter_p else 0].shape[0], args[0].dtype
        if p is gather_p:
            return ShapedArray((n, levels.width), dtype)
        if p is scatter_p:
            return ShapedArray((levels.rows, levels.features), args[1].dtype)
        return ShapedArray((n, levels.d), args[1].dtype)

    p.def_impl(eager)
    p.def_abstract_eval(shape)
    for platform in (None, "cpu", "cuda"):
        rule = mlir.lower_fun(functools.partial(lowered, platform or ""), multiple_results=False)
        mlir.register_lowering(p, rule, platform=platform)
    return p


gather_p = _primitive("gather", _gather_plain, _gather_native)
scatter_p = _primitive("scatter", _scatter_plain, _scatter_native)
slope_p = _primitive("slope", _slope_plain, _slope_native)


def _jvp_rule(p: Primitive, x_at: int) -> Callable[..., tuple[Array, Any]]:
    """Every argument but x is linear; the derivative along dx is one more direction."""

    def rule(primals: Sequence[Array], tangents: Sequence[Any], **params: Any) -> tuple[Array, Any]:  # noqa: ANN401
        total: Any = None
        for i, t in enumerate(tangents):
            if type(t) is ad.Zero:
                continue
            args = (*primals, t) if i == x_at else (*primals[:i], t, *primals[i + 1 :])
            part = p.bind(*args, **params)
            total = part if total is None else total + part
        out = p.bind(*primals, **params)
        return out, ad.Zero(jax.typeof(out)) if total is None else total

    return rule


def _gather_transpose(ct: Any, table: Any, x: Array, *along: Any, **params: Any) -> list[Any]:  # noqa: ANN401
    if ad.is_undefined_primal(table):
        return [scatter_p.bind(x, ct, *along, **params), None, *[None] * len(along)]
    i = _undefined(along)
    return [None, None, *_at(i, slope_p.bind(table, x, ct, *_but(i, along), **params), along)]


def _scatter_transpose(ct: Any, x: Array, g: Any, *along: Any, **params: Any) -> list[Any]:  # noqa: ANN401
    if ad.is_undefined_primal(g):
        return [None, gather_p.bind(ct, x, *along, **params), *[None] * len(along)]
    i = _undefined(along)
    return [None, None, *_at(i, slope_p.bind(ct, x, g, *_but(i, along), **params), along)]


def _slope_transpose(
    ct: Any,  # noqa: ANN401
    table: Any,  # noqa: ANN401
    x: Array,
    g: Any,  # noqa: ANN401
    *along: Any,  # noqa: ANN401
    **params: Any,  # noqa: ANN401
) -> list[Any]:
    none = [None] * len(along)
    if ad.is_undefined_primal(table):
        return [scatter_p.bind(x, g, *along, ct, **params), None, None, *none]
    if ad.is_undefined_primal(g):
        return [None, None, gather_p.bind(table, x, *along, ct, **params), *none]
    i = _undefined(along)
    part = slope_p.bind(table, x, g, *_but(i, along), ct, **params)
    return [None, None, None, *_at(i, part, along)]


def _undefined(along: Sequence[Any]) -> int:
    return [ad.is_undefined_primal(v) for v in along].index(True)


def _but(i: int, along: Sequence[Any]) -> list[Any]:
    return [*along[:i], *along[i + 1 :]]


def _at(i: int, part: Array, along: Sequence[Any]) -> list[Any]:
    return [part if j == i else None for j in range(len(along))]


def _transpose(rule: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    def checked(ct: Any, *args: Any, **params: Any) -> list[Any]:  # noqa: ANN401
        return [None] * len(args) if type(ct) is ad.Zero else rule(ct, *args, **params)

    return checked


def _batch_rule(p: Primitive, table_at: int | None) -> Callable[..., tuple[Array, int]]:
    """Samples of all examples in one call where they share a table; one example at a time else."""

    def rule(args: Sequence[Array], dims: Sequence[Any], **params: Any) -> tuple[Array, int]:  # noqa: ANN401
        size = next(a.shape[i] for a, i in zip(args, dims, strict=True) if i is not None)
        front = [a if i is None else jnp.moveaxis(a, i, 0) for a, i in zip(args, dims, strict=True)]
        if table_at is None or dims[table_at] is not None:
            each = [a for a, i in zip(front, dims, strict=True) if i is not None]

            def one(given: list[Array]) -> Array:
                rest = iter(given)
                full = [a if i is None else next(rest) for a, i in zip(front, dims, strict=True)]
                return p.bind(*full, **params)

            return jax.lax.map(one, each), 0
        flat: list[Array] = []
        for k, (a, i) in enumerate(zip(front, dims, strict=True)):
            if k != table_at:
                whole = a if i is not None else jnp.broadcast_to(a[None], (size, *a.shape))
                a = whole.reshape(-1, whole.shape[-1])
            flat.append(a)
        out = p.bind(*flat, **params)
        return out.reshape(size, -1, out.shape[-1]), 0

    return rule


for _p, _x_at, _rule in (
    (gather_p, 1, _gather_transpose),
    (scatter_p, 0, _scatter_transpose),
    (slope_p, 1, _slope_transpose),
):
    ad.primitive_jvps[_p] = _jvp_rule(_p, _x_at)
    ad.primitive_transposes[_p] = _transpose(_rule)
    batching.primitive_batchers[_p] = _batch_rule(_p, None if _p is scatter_p else 0)


def encode(
    table: Float[Array, "rows f"],
    x: Float[Array, "*s d"],
    levels: Levels,
    *,
    backend: str = "auto",
) -> Float[Array, "*s lf"]:
    """Multiresolution hash encoding of points (paper, Sec. 3), coarse level first.

    Differentiable in ``table`` and in ``x`` to every order, in forward and reverse mode; inside a
    cell it is multilinear in x, so its slope jumps at cell walls. Unlike tiny-cuda-nn, vertices lie
    at multiples of 1 / N of the box with no half-cell shift, as in the paper's text.

    Args:
        table: ``(levels.rows, levels.features)``; the dtype of the result.
        x: Points in [-1, 1]; beyond, the cells at the border continue linearly.
        levels: The shape of the grid.
        backend: "auto", "native" (C++ on a CPU), "warp" (NVIDIA GPU, and slowly the CPU; its
            gradient of the table differs in its last bits from call to call), both for float32, 2
            to 4 coordinates and 2 features, or "xla".

    Returns:
        L F numbers a point.

    Raises:
        ValueError: If shapes do not fit the levels, or the backend is unknown or cannot do it.
    """
    if table.shape != (levels.rows, levels.features):
        raise ValueError(
            f"table has shape {table.shape}, expected {(levels.rows, levels.features)} of levels"
        )
    if x.shape[-1:] != (levels.d,):
        raise ValueError(
            f"x has shape {x.shape}, expected (*s, {levels.d}): one number a coordinate"
        )
    if backend not in ("auto", "native", "warp", "xla"):
        raise ValueError(f"backend={backend!r}, expected auto, native, warp or xla")
    there = backend in ("auto", "xla") or _fits(levels, 0, (table.dtype, x.dtype))
    if not there or (backend == "native" and not native.load()):
        raise ValueError(
            f"backend={backend!r} with {table.dtype}, {levels.d} coordinates and {levels.features} "
            "features, expected float32, 2 to 4, 2, and a native library; use 'auto'"
        )
    if backend == "warp" and (missing := native.warp_missing()):
        raise ValueError(f"backend='warp', but {missing}, or use 'auto'")
    flat = x.reshape(-1, levels.d)
    out = gather_p.bind(table, flat, levels=levels, backend=backend)
    return out.reshape(*x.shape[:-1], levels.width)
