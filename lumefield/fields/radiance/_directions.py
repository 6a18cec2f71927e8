"""What the fields share: directions as features, densities from numbers."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

SH_TERMS = 16
"""Numbers that ``direction_basis`` gives."""


def direction_basis(d: Float[Array, "*s 3"]) -> Float[Array, "*s 16"]:
    """Real spherical harmonics of degree 0 to 3 of unit vectors, orthonormal on the sphere.

    The encoding of directions of Mueller et al., "Instant Neural Graphics Primitives", 2022,
    Sec. 5.4. Signs follow ``render.sh_basis``.
    """
    x, y, z = d[..., 0], d[..., 1], d[..., 2]
    xx, yy, zz = x * x, y * y, z * z
    columns = [
        jnp.full_like(x, 0.28209479177387814),
        -0.4886025119029199 * y,
        0.4886025119029199 * z,
        -0.4886025119029199 * x,
        1.0925484305920792 * x * y,
        -1.0925484305920792 * y * z,
        0.31539156525252005 * (2 * zz - xx - yy),
        -1.0925484305920792 * x * z,
        0.5462742152960396 * (xx - yy),
        -0.5900435899266435 * y * (3 * xx - yy),
        2.890611442640554 * x * y * z,
        -0.4570457994644658 * y * (4 * zz - xx - yy),
        0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy),
        -0.4570457994644658 * x * (4 * zz - xx - yy),
        1.445305721320277 * z * (xx - yy),
        -0.5900435899266435 * x * (xx - 3 * yy),
    ]
    return jnp.stack(columns, -1)


@jax.custom_jvp
def exp_density(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """``exp(x)``, cut at exp(15); the derivative is cut too, so that it never vanishes or bursts.

    The "truncated exponential" of Instant-NGP (Sec. 5.4 and its code).
    """
    return jnp.exp(jnp.clip(x, -15, 15))


@exp_density.defjvp
def _exp_density_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    value = exp_density(*primals)
    return value, value * tangents[0]


def joined(parts: list[Array]) -> Array:
    """Features side by side; leading axes of size 1 are repeated to match."""
    shape = jnp.broadcast_shapes(*(p.shape[:-1] for p in parts))
    return jnp.concatenate([jnp.broadcast_to(p, (*shape, p.shape[-1])) for p in parts], -1)
