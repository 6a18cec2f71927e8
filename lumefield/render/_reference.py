"""The reference twin: every Gaussian times every pixel, plain autodiff, float64-capable.

Dense and obvious on purpose; memory is N x H x W. Projection is written again with matrices, so
that it shares no formula with ``_project.py``. Every backend is tested against these functions.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from lumefield.render._project import LOW_PASS, Projected
from lumefield.render._sh import degree_of, sh_basis
from lumefield.render._spec import ALPHA_MAX, ALPHA_MIN, T_MIN


class Reference(NamedTuple):
    """Result of the dense composite."""

    image: Float[Array, "h w c"]
    transmittance: Float[Array, "h w"]
    ambiguous: Bool[Array, "h w"]
    """Pixels where a decision lies within the margin, so that rounding may turn it over."""


def composite_reference(
    xy: Array,
    factor: Array,
    opacities: Array,
    depth: Array,
    values: Array,
    *,
    height: int,
    width: int,
    margin: float = 1e-5,
) -> Reference:
    """Composite as ``composite_gaussians`` does, densely.

    Args:
        xy: (N, 2) pixels.
        factor: (N, 3) triangular factor (u, v, w).
        opacities: (N,) in [0, 1].
        depth: (N,) sort key.
        values: (N, C) channels.
        height: Rows of the image.
        width: Columns of the image.
        margin: Relative distance from a threshold below which a decision counts as ambiguous.
    """
    order = jnp.argsort(depth, stable=True)
    xy, factor, values, depth = xy[order], factor[order], values[order], depth[order]
    opacity = opacities[order][:, None, None]
    u, v, w = (factor[:, i, None, None] for i in range(3))
    dx = jnp.arange(width, dtype=xy.dtype)[None, None, :] + 0.5 - xy[:, 0, None, None]
    dy = jnp.arange(height, dtype=xy.dtype)[None, :, None] + 0.5 - xy[:, 1, None, None]
    p, q = u * dx + v * dy, w * dy
    e = opacity * jnp.exp(-0.5 * (p * p + q * q))
    taken = e >= ALPHA_MIN
    alpha = jnp.where(taken, jnp.where(e > ALPHA_MAX, ALPHA_MAX, e), 0.0)

    after = jnp.cumprod(1 - alpha, 0)
    before = jnp.concatenate([jnp.ones_like(after[:1]), after[:-1]], 0)
    live = before > T_MIN
    weight = jnp.where(live, alpha * before, 0.0)
    ambiguous = _ambiguous(e, before, taken & live, depth, margin)
    return Reference(
        image=jnp.einsum("nhw,nc->hwc", weight, values, precision="highest"),
        transmittance=jnp.prod(jnp.where(live, 1 - alpha, 1.0), 0),
        ambiguous=jax.lax.stop_gradient(ambiguous),
    )


def _ambiguous(e: Array, before: Array, used: Array, depth: Array, margin: float) -> Array:
    def close(x: Array, level: float) -> Array:
        return jnp.abs(x - level) < margin * level

    live = before > T_MIN * (1 - margin)
    cut = (close(e, ALPHA_MIN) | close(e, ALPHA_MAX)) & live
    stop = close(before, T_MIN)
    # depth of the last used entry before this one: near but not equal means the order may flip
    z = depth[:, None, None]
    last = jax.lax.cummax(jnp.where(used, z, -jnp.inf), 0)
    last = jnp.concatenate([jnp.full_like(last[:1], -jnp.inf), last[:-1]], 0)
    order = used & (z > last) & (z - last < margin * jnp.abs(z))
    return (cut | stop | order).any(0)


def project_reference(
    means: Array,
    quats_wxyz: Array,
    scales: Array,
    opacities: Array,
    sh: Array,
    world_from_cam: Array,
    focal: Array,
    centre: Array,
    *,
    height: int,
    width: int,
    near: float,
    antialiased: bool,
    model: str,
) -> Projected:
    """Project as ``project_gaussians`` does: one Gaussian at a time, with 3x3 matrices."""
    rotation, position = world_from_cam[:, :3], world_from_cam[:, 3]
    size = jnp.asarray([width, height], means.dtype)
    margin = 0.3 * 0.5 * size / focal
    low, high = -(centre / focal + margin), (size - centre) / focal + margin

    def image_of(point: Array) -> Array:
        if model == "pinhole":
            return focal * point[:2] / point[2] + centre
        if model == "ortho":
            return focal * point[:2] + centre
        r = jnp.sqrt(jnp.sum(point[:2] ** 2) + 1e-30)
        return focal * jnp.arctan2(r, point[2]) / r * point[:2] + centre

    def one(mean: Array, quat: Array, scale: Array, opacity: Array, coeffs: Array) -> Projected:
        point = rotation.T @ (mean - position)
        ok = point[2] > near
        safe = jnp.where(ok, point, 1.0)
        base = safe
        if model == "pinhole":
            xy = safe[2] * jnp.clip(safe[:2] / safe[2], low, high)
            base = jnp.concatenate([xy, safe[2:]])
        half = jax.jacfwd(image_of)(base) @ rotation.T @ _rotation(quat) @ jnp.diag(scale)
        sharp = half @ half.T
        blurred = sharp + LOW_PASS * jnp.eye(2, dtype=means.dtype)
        shape = jnp.linalg.inv(blurred)
        u = jnp.sqrt(shape[0, 0])
        v = shape[0, 1] / u
        if antialiased:
            ratio = jnp.linalg.det(sharp) / jnp.linalg.det(blurred)
            opacity = opacity * jnp.sqrt(jnp.maximum(ratio, 1e-12))
        direction = (mean - position) / jnp.linalg.norm(mean - position)
        rgb = sh_basis(direction, degree_of(coeffs.shape[0])) @ coeffs
        return Projected(
            xy=image_of(safe),
            factor=jnp.stack([u, v, jnp.sqrt(shape[1, 1] - v * v)]),
            depth=point[2],
            opacities=jnp.where(ok, opacity, 0.0),
            rgb=jnp.maximum(rgb + 0.5, 0.0),
        )

    return jax.vmap(one)(means, quats_wxyz, scales, opacities, sh)


def _rotation(quat: Array) -> Array:
    w, x, y, z = quat / jnp.linalg.norm(quat)
    return jnp.stack(
        [
            jnp.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)]),
            jnp.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)]),
            jnp.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]),
        ]
    )
