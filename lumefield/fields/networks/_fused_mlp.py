"""Small multilayer perceptrons over many samples, fused into one native kernel on CPUs.

Müller et al., "Real-time Neural Radiance Caching for Path Tracing", 2021, Sec. 4.3 (fully fused
networks): a block of samples goes through all layers while its activations are in fast memory. Ours
are caches instead of registers and shared memory, and the backward pass computes a block's hidden
activations again instead of reading them back. Where bfloat16 is allowed and the CPU multiplies it
(Intel AMX, AVX512-BF16), factors of products are rounded to it; else all is float32.

Letters: n samples, i inputs, o outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.custom_batching import custom_vmap
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Float

from lumefield import native
from lumefield.fields.networks._blocked import Activation, blocked_mlp

Backend = Literal["auto", "native", "xla"]
"""``auto`` takes the C++ kernel on a CPU where it is there and fits, and blocked XLA elsewhere."""

Precision = Literal["float32", "bfloat16"]
MAX_WIDTH, MAX_WIDE = 128, 512
"""Widest layer, inputs and outputs included, that the kernel takes; and that of bfloat16 tiles."""
MAX_LAYERS = 8
"""Most weight matrices that the kernel takes."""

_Kernel = Literal["relu", "sine", "tiles"]
"""The kernel by its activation, or that of bfloat16 tiles, whose activation is ``relu``."""
_Arrays = tuple[Array, ...]
_Inputs = tuple[Array, _Arrays, _Arrays]


def mlp(
    x: Float[Array, "*s i"],
    weights: Sequence[Array],
    biases: Sequence[Array] | None = None,
    *,
    activation: Activation = "relu",
    precision: Precision = "float32",
    backend: Backend = "auto",
) -> Float[Array, "*s o"]:
    """Evaluate a multilayer perceptron whose last layer is linear.

    Differentiable in ``x``, ``weights`` and ``biases``; gradients that are not asked for are not
    computed, and none depends on the number of threads. With the native backend: reverse mode, any
    number of times (the second derivative runs in XLA); forward mode (``jvp``, ``jacfwd``,
    ``hessian``) raises jax's TypeError, take ``backend="xla"`` there. ``vmap`` over ``x`` alone is
    as fast as one call on all samples; over the weights, networks run one after another.

    Args:
        x: Inputs; every leading axis is a batch axis.
        weights: One (in, out) matrix per layer, one dtype with ``x``.
        biases: One (out,) vector per layer, or None for none.
        activation: Of every layer but the last: ``relu``, or ``sine`` for abs(z) <= 1e4 (a SIREN's
            omega is multiplied into weights and biases).
        precision: With ``bfloat16`` the factors of products may be rounded to 8 bits, in both
            directions; sums stay float32. Done for ``relu`` and at most 512 features where the CPU
            multiplies them (up to five times faster), else it is float32.
        backend: ``auto``, ``native`` (C++, CPU, float32, at most 8 layers of at most 128 features)
            or ``xla``.

    Raises:
        ValueError: If shapes, dtypes or the backend do not fit.

    Example:
        >>> mlp(jnp.ones((5, 2)), [jnp.ones((2, 16)), jnp.ones((16, 3))]).shape
        (5, 3)
    """
    layers, offsets = tuple(weights), tuple(biases or ())
    check(x, layers, offsets, activation, precision)
    rows = x.reshape(-1, x.shape[-1])
    if backend != "xla" and precision == "bfloat16" and activation == "relu" and _tiled(x, layers):
        y: Any = _native(rows, layers, offsets, "tiles")
    elif choose_backend(backend, x, layers) == "native":
        y = _native(rows, layers, offsets, activation)
    else:
        y = blocked_mlp(rows, layers, offsets, activation)
    return y.reshape(*x.shape[:-1], layers[-1].shape[1])


def check(
    x: Array, weights: _Arrays, biases: _Arrays, activation: str, precision: str = "float32"
) -> None:
    """Say what does not fit in a call of :func:`mlp`.

    Raises:
        ValueError: If shapes, dtypes, the activation or the precision do not fit.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision={precision!r}, expected one of {get_args(Precision)}")
    if activation not in get_args(Activation):
        raise ValueError(f"activation={activation!r}, expected one of {get_args(Activation)}")
    if not weights:
        raise ValueError("no weights, expected one matrix per layer")
    if biases and len(biases) != len(weights):
        raise ValueError(
            f"{len(biases)} biases for {len(weights)} weights, expected as many; None for none"
        )
    if x.ndim < 1:
        raise ValueError(f"x has shape {x.shape}, expected (*s, {weights[0].shape[0]})")
    features = x.shape[-1]
    for layer, w in enumerate(weights):
        if w.ndim != 2 or w.shape[0] != features:
            raise ValueError(
                f"weights[{layer}] has shape {w.shape}, expected ({features}, out) to follow "
                f"{f'weights[{layer - 1}]' if layer else f'x {x.shape}'}; transpose it"
            )
        features = w.shape[1]
        if biases and biases[layer].shape != (features,):
            raise ValueError(
                f"biases[{layer}] has shape {biases[layer].shape}, expected ({features},)"
            )
    for name, array in (*(("weights", w) for w in weights), *(("biases", b) for b in biases)):
        if array.dtype != x.dtype or not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(
                f"{name} are {array.dtype} and x {x.dtype}, expected one float type; use astype"
            )


def _widths(x: Array, weights: _Arrays) -> tuple[int, ...]:
    return x.shape[-1], *(w.shape[1] for w in weights)


def _tiled(x: Array, weights: _Arrays) -> bool:
    """Whether the kernel of bfloat16 tiles can do it here."""
    widths = _widths(x, weights)
    fits = len(weights) <= MAX_LAYERS and 1 <= min(widths) and max(widths) <= MAX_WIDE
    able = fits and x.dtype == jnp.float32 and jax.default_backend() == "cpu"
    return able and native.has_tiles() and native.load()


def choose_backend(backend: str, x: Array, weights: _Arrays) -> str:
    """Resolve ``auto`` to ``native`` or ``xla``.

    Raises:
        ValueError: If the backend is unknown, or ``native`` cannot do what is asked.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"backend={backend!r}, expected one of {get_args(Backend)}")
    widths = _widths(x, weights)
    fits = len(weights) <= MAX_LAYERS and 1 <= min(widths) and max(widths) <= MAX_WIDTH
    if backend == "xla":
        return "xla"
    if backend == "auto":
        able = fits and x.dtype == jnp.float32 and jax.default_backend() == "cpu" and native.load()
        return "native" if able else "xla"
    if x.dtype != jnp.float32:
        raise ValueError(f"backend='native' with {x.dtype} arrays, expected float32; use 'xla'")
    if not fits:
        raise ValueError(
            f"backend='native' with layers {widths}, expected at most {MAX_LAYERS} layers of 1 to "
            f"{MAX_WIDTH} features; use 'auto'"
        )
    if not native.load():
        raise ValueError(
            "backend='native', but no native library could be loaded; `lumefield doctor` says why, "
            "or use 'auto'"
        )
    return "native"


@jax.tree_util.register_static
@dataclass(frozen=True)
class _Wanted:
    """Which gradients somebody asked for."""

    x: bool
    weights: bool
    """Biases included."""


def _like(array: Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


def _call(
    way: Literal["Forward", "Backward"],
    kernel: _Kernel,
    out: Any,  # noqa: ANN401
    inputs: _Arrays,
    weights: _Arrays,
    biases: _Arrays,
    **flags: np.bool_,
) -> Any:  # noqa: ANN401
    if kernel != "tiles":
        flags["sine"] = np.bool_(kernel == "sine")
    return native.call(
        f"MlpTiles{way}" if kernel == "tiles" else f"Mlp{way}",
        out,
        *inputs,
        *weights,
        *biases,
        n_threads=np.int64(native.threads()),
        layers=np.int64(len(weights)),
        biased=np.bool_(bool(biases)),
        **flags,
    )


def _batched(tree: Any) -> bool:  # noqa: ANN401
    return any(jax.tree.leaves(tree))


def _axes(batched: Any) -> tuple[Any, ...]:  # noqa: ANN401
    """``in_axes`` of a vmap over what is batched."""

    def axis(one: bool) -> int | None:
        return 0 if one else None

    return jax.tree.map(axis, tuple(batched))


def _folded(array: Array, batched: bool, size: int) -> Array:
    """(size, n, c) or, not batched, (n, c) as (size n, c)."""
    full = array if batched else jnp.broadcast_to(array, (size, *array.shape))
    return full.reshape(-1, full.shape[-1])


def _forward(x: Array, weights: _Arrays, biases: _Arrays, kernel: _Kernel) -> Array:
    """The kernel; ``vmap`` over samples alone makes one call of more samples."""

    def call(x: Array, weights: _Arrays, biases: _Arrays) -> Array:
        out = jax.ShapeDtypeStruct((x.shape[0], weights[-1].shape[1]), x.dtype)
        return _call("Forward", kernel, out, (x,), weights, biases)

    @custom_vmap
    def run(x: Array, weights: _Arrays, biases: _Arrays) -> Array:
        return call(x, weights, biases)

    @run.def_vmap
    def _(size: int, batched: Any, *inputs: Any) -> tuple[Array, bool]:  # noqa: ANN401
        x, weights, biases = inputs
        if _batched(batched[1:]):
            return jax.vmap(call, _axes(batched), axis_size=size)(*inputs), True
        y = run(_folded(x, batched[0], size), weights, biases)
        return y.reshape(size, -1, y.shape[-1]), True

    return run(x, weights, biases)


def _backward(
    x: Array, g: Array, weights: _Arrays, biases: _Arrays, kernel: _Kernel, want: _Wanted
) -> tuple[Array, ...]:
    """The wanted ones of the gradients of x, weights, biases; folds as :func:`_forward` does."""

    def call(x: Array, g: Array, weights: _Arrays, biases: _Arrays) -> tuple[Array, ...]:
        wanted = ([x] if want.x else []) + ([*weights, *biases] if want.weights else [])
        flags = {"want_x": np.bool_(want.x), "want_weights": np.bool_(want.weights)}
        out = [_like(a) for a in wanted]
        return tuple(_call("Backward", kernel, out, (x, g), weights, biases, **flags))

    @custom_vmap
    def run(x: Array, g: Array, weights: _Arrays, biases: _Arrays) -> tuple[Array, ...]:
        return call(x, g, weights, biases)

    @run.def_vmap
    def _(size: int, batched: Any, *inputs: Any) -> tuple[tuple[Array, ...], Any]:  # noqa: ANN401
        x, g, weights, biases = inputs
        if want.weights or _batched(batched[2:]):
            out = jax.vmap(call, _axes(batched), axis_size=size)(*inputs)
            return out, (True,) * len(out)
        rows = _folded(x, batched[0], size), _folded(g, batched[1], size)
        (g_x,) = run(*rows, weights, biases)
        return (g_x.reshape(size, -1, g_x.shape[-1]),), (True,)

    return run(x, g, weights, biases)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _native(x: Array, weights: _Arrays, biases: _Arrays, kernel: _Kernel) -> Array:
    return _forward(x, weights, biases, kernel)


def _native_fwd(x: Any, weights: Any, biases: Any, kernel: _Kernel) -> tuple[Array, Any]:  # noqa: ANN401
    want = _Wanted(x.perturbed, any(a.perturbed for a in (*weights, *biases)))
    inputs = (x.value, tuple(w.value for w in weights), tuple(b.value for b in biases))
    return _native(*inputs, kernel), (inputs, want)


def _native_bwd(kernel: _Kernel, saved: tuple[_Inputs, _Wanted], g: Any) -> Any:  # noqa: ANN401
    (x, weights, biases), want = saved
    if isinstance(g, SymbolicZero):
        g = jnp.zeros((x.shape[0], weights[-1].shape[1]), x.dtype)
    if not (want.x or want.weights):
        return None, None, None
    grads: Any = _gradients(x, g, weights, biases, kernel, want)
    g_x, rest = (grads[0], grads[1:]) if want.x else (None, grads)
    if not want.weights:
        return g_x, None, None
    return g_x, rest[: len(weights)], rest[len(weights) :]


_native.defvjp(_native_fwd, _native_bwd, symbolic_zeros=True)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _gradients(
    x: Array, g: Array, weights: _Arrays, biases: _Arrays, kernel: _Kernel, want: _Wanted
) -> tuple[Array, ...]:
    return _backward(x, g, weights, biases, kernel, want)


def _gradients_fwd(
    x: Array, g: Array, weights: _Arrays, biases: _Arrays, kernel: _Kernel, want: _Wanted
) -> tuple[tuple[Array, ...], Any]:
    inputs = (x, g, weights, biases)
    return _gradients(*inputs, kernel, want), inputs


def _gradients_bwd(kernel: _Kernel, want: _Wanted, inputs: Any, h: Any) -> Any:  # noqa: ANN401
    """The second derivative, in XLA: that of the blocked network's own gradient."""

    def gradients(x: Array, g: Array, weights: _Arrays, biases: _Arrays) -> tuple[Array, ...]:
        def net(x: Array, weights: _Arrays, biases: _Arrays) -> Array:
            return blocked_mlp(x, weights, biases, "sine" if kernel == "sine" else "relu")

        g_x, g_weights, g_biases = jax.vjp(net, x, weights, biases)[1](g)
        return (g_x,) * want.x + (*g_weights, *g_biases) * want.weights

    return jax.vjp(gradients, *inputs)[1](h)


_gradients.defvjp(_gradients_fwd, _gradients_bwd)
