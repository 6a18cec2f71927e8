"""One step of Adam for some rows of an array, by XLA or by a Warp kernel that touches no others."""

from functools import partial
from typing import Any

from lumefield.native._warp import backend_on, warp_call, warp_missing


def adam_rows(
    rows: Any,  # noqa: ANN401
    rate: Any,  # noqa: ANN401
    gradient: Any,  # noqa: ANN401
    mu: Any,  # noqa: ANN401
    nu: Any,  # noqa: ANN401
    value: Any,  # noqa: ANN401
    grow: Any,  # noqa: ANN401
    *,
    b1: float,
    b2: float,
    eps: float,
    backend: str = "auto",
) -> tuple[Any, Any, Any]:
    """Adam (Kingma and Ba 2015, Algorithm 1) where ``rows`` is true; the rest stays, moments too.

    Args:
        rows: (N,) bool over the leading axis of the arrays, or None for all of them.
        rate: Learning rate; broadcasts against the arrays.
        gradient: (N, ...), like the next three of one shape and float type.
        mu: First moments.
        nu: Second moments.
        value: What is moved.
        grow: (2,) factors that take the bias from the moments, 1 / (1 - b^t).
        b1: Decay of the first moment.
        b2: Decay of the second moment.
        eps: Added to the root of the second moment.
        backend: "xla"; "warp", which neither reads nor writes the other rows where XLA can give it
            the arrays to keep, else copies them (float32; what it cannot do, xla does); or "auto",
            which is warp on an NVIDIA GPU.

    Returns:
        Value, first and second moments after the step.

    Raises:
        ValueError: If the backend is unknown or not there.
    """
    import jax
    import jax.numpy as jnp

    if backend not in ("auto", "warp", "xla"):
        raise ValueError(f"backend={backend!r}, expected auto, warp or xla")
    if backend == "warp" and (missing := warp_missing()):
        raise ValueError(f"backend='warp', but {missing}, or use 'auto'")
    decay = {"b1": float(b1), "b2": float(b2), "eps": float(eps)}
    plain = partial(_plain, rows, **decay)
    arrays = (jnp.asarray(rate), gradient, mu, nu, value, grow)
    same_in_rows = arrays[0].ndim < value.ndim or arrays[0].shape[0] == 1
    if rows is None or not value.size or value.dtype != jnp.float32 or not same_in_rows:
        return plain(*arrays)
    by_warp = partial(_by_warp, rows, **decay)
    if backend == "auto" and backend_on(jax.default_backend()) == "warp":
        return jax.lax.platform_dependent(*arrays, cuda=by_warp, default=plain)
    return by_warp(*arrays) if backend == "warp" else plain(*arrays)


def _plain(rows: Any, *arrays: Any, b1: float, b2: float, eps: float) -> tuple[Any, Any, Any]:  # noqa: ANN401
    import jax.numpy as jnp

    rate, g, mu, nu, value, grow = arrays
    grow = grow.astype(g.dtype)
    m, v = b1 * mu + (1 - b1) * g, b2 * nu + (1 - b2) * g * g
    moved = (value - rate * (m * grow[0] / (jnp.sqrt(v * grow[1]) + eps))).astype(value.dtype)
    if rows is None:
        return moved, m, v
    chosen = rows.reshape(rows.shape + (1,) * (value.ndim - 1))
    pairs = ((moved, value), (m, mu), (v, nu))
    done = tuple(jnp.where(chosen, new, old) for new, old in pairs)
    return done[0], done[1], done[2]


def _by_warp(rows: Any, *arrays: Any, b1: float, b2: float, eps: float) -> tuple[Any, Any, Any]:  # noqa: ANN401
    import jax.numpy as jnp

    from lumefield.native import _warp_adam

    rate, g, mu, nu, value, grow = arrays
    each = jnp.broadcast_to(rate, (1, *value.shape[1:])).astype(jnp.float32).reshape(-1)
    g, mu, nu, flat = (x.reshape(x.shape[0], -1) for x in (g, mu, nu, value))
    given = (rows, each, grow, g, b1, 1 - b1, b2, 1 - b2, eps, flat, mu, nu)
    names = ("value", "mu", "nu")
    done = warp_call(_warp_adam.adam_rows, {}, *given, dims=flat.shape, in_out=names)
    return done[0].reshape(value.shape), *(x.reshape(value.shape) for x in done[1:])
