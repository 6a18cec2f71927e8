"""Gaussians: the explicit field of 3D Gaussian splatting.

Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", 2023. The leaves are
unconstrained values; they are activated in one place, :meth:`Gaussians.activate`.
"""

import dataclasses
import typing
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray
from numpy.typing import NDArray

_Values = Array | NDArray[Any]
"""Any array; its shape is checked by hand, so that the message says what to do."""

SH_C0 = 0.28209479177387814
"""The constant basis function: colour = 0.5 + SH_C0 * sh[:, 0]."""

DEAD_LOGIT = -30.0
"""Logit opacity of an unused slot: its opacity is 9e-14, far below every renderer's 1/255 cut."""


class Splatting(TypedDict):
    """Activated Gaussians; the keys are the keyword arguments of ``render.rasterize``."""

    means: Float[Array, "*b n 3"]
    quats_wxyz: Float[Array, "*b n 4"]
    scales: Float[Array, "*b n 3"]
    opacities: Float[Array, "*b n"]
    sh: Float[Array, "*b n k 3"]


@typing.no_type_check
@struct.dataclass
class Gaussians:
    """``n`` anisotropic Gaussians of view-dependent colour; leading axes ``*b`` are batch axes."""

    means: Float[Array, "*b n 3"]
    """Centres, world units."""
    quats_wxyz: Float[Array, "*b n 4"]
    """Rotations, w first, any length; normalised where used."""
    log_scales: Float[Array, "*b n 3"]
    """Natural logarithm of the standard deviations, world units."""
    logit_opacities: Float[Array, "*b n"]
    """Opacity before the sigmoid; ``DEAD_LOGIT`` marks an unused slot."""
    sh: Float[Array, "*b n k 3"]
    """Spherical harmonics, k = (degree + 1)^2; colour = max(0, 0.5 + sum), display sRGB."""

    @classmethod
    def from_arrays(
        cls,
        means: _Values,
        quats_wxyz: _Values,
        log_scales: _Values,
        logit_opacities: _Values,
        sh: _Values,
    ) -> "Gaussians":
        """Build from arrays of any float type after checking shapes.

        Raises:
            ValueError: If a shape does not fit the others.
        """
        n = means.shape[:-1]
        k = sh.shape[-2] if sh.ndim >= 2 else 0
        if k not in (1, 4, 9, 16, 25):
            raise ValueError(
                f"sh has shape {sh.shape}, expected (*b, N, K, 3) with K in 1 4 9 16 25"
            )
        wanted = {
            "means": (means, (*n, 3)),
            "quats_wxyz": (quats_wxyz, (*n, 4)),
            "log_scales": (log_scales, (*n, 3)),
            "logit_opacities": (logit_opacities, n),
            "sh": (sh, (*n, k, 3)),
        }
        for name, (value, shape) in wanted.items():
            if tuple(value.shape) != tuple(shape):
                raise ValueError(
                    f"{name} has shape {value.shape}, expected {shape}; "
                    "all leaves share their leading axes"
                )
        return cls(
            *(jnp.asarray(v, jnp.float32) for v in (means, quats_wxyz, log_scales)),
            logit_opacities=jnp.asarray(logit_opacities, jnp.float32),
            sh=jnp.asarray(sh, jnp.float32),
        )

    @classmethod
    def from_points(
        cls,
        points: _Values,
        colours: _Values,
        *,
        degree: int = 3,
        opacity: float = 0.1,
        scale: float = 1.0,
        key: PRNGKeyArray,
    ) -> "Gaussians":
        """One isotropic Gaussian per point, as in 3DGS: size = mean distance to the 3 neighbours.

        Args:
            points: (n, 3) positions, world units.
            colours: (n, 3) display sRGB in [0, 1].
            degree: Spherical-harmonics degree to allocate.
            opacity: Initial opacity in (0, 1).
            scale: Factor on the neighbour distance.
            key: Draws the rotations.
        """
        from scipy.spatial import KDTree

        points, colours = np.asarray(points, np.float64), np.asarray(colours, np.float64)
        n = len(points)
        if n == 0 or points.shape != (n, 3) or colours.shape != (n, 3):
            raise ValueError(
                f"points has shape {points.shape} and colours {colours.shape}, "
                "expected (n, 3) twice with n >= 1"
            )
        near = np.asarray(KDTree(points).query(points, k=min(4, n))[0]).reshape(n, -1)[:, 1:]
        gap = near.mean(-1) if near.shape[1] else np.full(n, 1e-2)
        gap = np.clip(gap, 1e-7, max(float(np.quantile(gap, 0.99)), 1e-7))
        sh = np.zeros((n, (degree + 1) ** 2, 3), np.float32)
        sh[:, 0] = (colours - 0.5) / SH_C0
        return cls.from_arrays(
            means=points,
            quats_wxyz=jax.random.normal(key, (n, 4)),
            log_scales=np.log(gap * scale)[:, None].repeat(3, 1),
            logit_opacities=np.full(n, np.log(opacity / (1 - opacity))),
            sh=sh,
        )

    @property
    def count(self) -> int:
        """Number of slots, alive or not."""
        return int(self.means.shape[-2])

    @property
    def degree(self) -> int:
        """Degree of the spherical harmonics."""
        return round(self.sh.shape[-2] ** 0.5) - 1

    def activate(self) -> Splatting:
        """Constrained values, named as the arguments of ``render.rasterize``."""
        return Splatting(
            means=self.means,
            quats_wxyz=self.quats_wxyz,
            scales=jnp.exp(self.log_scales),
            opacities=jax.nn.sigmoid(self.logit_opacities),
            sh=self.sh,
        )

    def padded(self, capacity: int) -> "Gaussians":
        """The same Gaussians in ``capacity`` slots; the new ones are dead.

        Raises:
            ValueError: If ``capacity`` is below the present count.
        """
        extra = capacity - self.count
        if extra < 0:
            raise ValueError(f"capacity={capacity}, expected at least {self.count}; prune first")

        def pad(x: Array, value: float) -> Array:
            return jnp.concatenate([x, jnp.full((extra, *x.shape[1:]), value, x.dtype)])

        quats = jnp.tile(jnp.array([[1.0, 0, 0, 0]], self.means.dtype), (extra, 1))
        return dataclasses.replace(
            self,
            means=pad(self.means, 0.0),
            quats_wxyz=jnp.concatenate([self.quats_wxyz, quats]),
            log_scales=pad(self.log_scales, -10.0),
            logit_opacities=pad(self.logit_opacities, DEAD_LOGIT),
            sh=pad(self.sh, 0.0),
        )

    def alive(self, threshold: float = 1 / 255) -> Array:
        """Which slots can be seen at all: opacity of at least ``threshold``."""
        return self.logit_opacities >= float(np.log(threshold / (1 - threshold)))
