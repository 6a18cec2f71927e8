"""Projection by the `warp` backend: the kernels of `_warp_project` as a differentiable function.

This file imports warp only when a kernel is called.
"""

import functools
from typing import NamedTuple

import jax
from jax import Array

from lumefield import native
from lumefield.render._warp import one_by_one


class View(NamedTuple):
    """Static part of a projection; hashable."""

    height: int
    width: int
    near: float
    antialiased: bool

    def scalars(self) -> tuple[float, float, float, bool]:
        """In the order of the kernels."""
        return float(self.width), float(self.height), self.near, self.antialiased


def _project_forward(view: View, *inputs: Array) -> tuple[Array, ...]:
    from lumefield.render import _warp_project as kernels

    n = inputs[0].shape[0]
    shapes = {"xy": (n, 2), "factor": (n, 3), "depth": (n,), "opacity": (n,), "rgb": (n, 3)}
    return tuple(
        native.warp_call(kernels.project_forward, shapes, *inputs, *view.scalars(), dims=n)
    )


def _project_backward(view: View, *arrays: Array) -> tuple[Array, ...]:
    from lumefield.render import _warp_project as kernels

    inputs = arrays[:8]
    n = inputs[0].shape[0]
    names = ("g_means", "g_quats", "g_scales", "g_opacities")
    shapes: dict[str, tuple[int, ...]] = {
        name: x.shape for name, x in zip(names, inputs, strict=False)
    }
    *gaussians, kept = native.warp_call(
        kernels.project_backward, shapes | {"kept": (n, 3)}, *arrays, *view.scalars(), dims=n
    )
    sh = inputs[4].shape
    gaussians += native.warp_call(
        kernels.sh_backward, {"g_sh": sh}, inputs[0], inputs[5], kept, sh[1], dims=n * sh[1]
    )
    size = kernels.CAMERA_BLOCK
    blocks = min(-(-n // size), kernels.CAMERA_BLOCKS)
    (partial,) = native.warp_call(
        kernels.camera_partial,
        {"partial": (blocks, 32)},
        *arrays,
        *view.scalars(),
        blocks * size,
        dims=(blocks, size),
        block=size,
    )
    (total,) = native.warp_call(kernels.camera_total, {"total": (16,)}, partial, dims=16)
    pose = total[:12].reshape(4, 3).T  # rows of cam_from_world, position -> world_from_cam
    return *gaussians, pose, total[12:14], total[14:]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _project(view: View, *inputs: Array) -> tuple[Array, ...]:
    return one_by_one(_project_forward, view)(*inputs)


def _project_fwd(view: View, *inputs: Array) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    return _project(view, *inputs), inputs


def _project_bwd(
    view: View, inputs: tuple[Array, ...], grads: tuple[Array, ...]
) -> tuple[Array, ...]:
    return one_by_one(_project_backward, view)(*inputs, *grads)


_project.defvjp(_project_fwd, _project_bwd)


def project(
    *inputs: Array, height: int, width: int, near: float, antialiased: bool
) -> tuple[Array, ...]:
    """Project Gaussians and evaluate their colour; see ``project_gaussians``.

    Args:
        *inputs: means (N, 3), quats_wxyz (N, 4), scales (N, 3), opacities (N,), sh (N, K, 3) with
            K <= 16, world_from_cam (3, 4), focal (2,), centre (2,), all float32, N >= 1.
        height: Rows of the image.
        width: Columns of the image.
        near: Cull at Z <= near.
        antialiased: Scale opacities as Mip-Splatting does.

    Returns:
        xy, factor, depth, opacities, rgb; rgb is 0 where nothing of a Gaussian can be seen.
    """
    return _project(View(height, width, near, antialiased), *inputs)
