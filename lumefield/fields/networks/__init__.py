"""Coordinate networks: fields ``field(x)`` from coordinates in [-1, 1] to values.

In: coordinates ``[*s, d_in]``, any leading axes. Out: values ``[*s, d_out]``. Every network is a
pytree of floating-point arrays and goes through plain jax transforms. Imports only ``native``.
Oracle: the contract table in ``tests/fields/test_networks_contract.py``.
"""

import functools
from collections.abc import Callable
from typing import Any

from flax import nnx

from lumefield.fields._protocol import Field as Field
from lumefield.fields.networks._fourier import FourierMlp as FourierMlp
from lumefield.fields.networks._fused_mlp import mlp as mlp
from lumefield.fields.networks._gaussian import GaussianMlp as GaussianMlp
from lumefield.fields.networks._grids import PixelField as PixelField
from lumefield.fields.networks._grids import VoxelField as VoxelField
from lumefield.fields.networks._hash_encode import Levels
from lumefield.fields.networks._hashgrid import HashGrid as HashGrid
from lumefield.fields.networks._mlp import ReluMlp as ReluMlp
from lumefield.fields.networks._planes import Planes as Planes
from lumefield.fields.networks._pyramid import LatentPyramid as LatentPyramid
from lumefield.fields.networks._siren import Siren as Siren
from lumefield.fields.networks._trig import cos as cos
from lumefield.fields.networks._trig import sin as sin
from lumefield.fields.networks._waveplanes import WavePlanes as WavePlanes
from lumefield.fields.networks._wire import Wire as Wire


def _hashgrid(
    d_in: int,
    d_out: int,
    *,
    levels: int = 16,
    coarsest: int = 16,
    finest: int = 512,
    log2_entries: int = 15,
    features: int = 2,
    rngs: nnx.Rngs,
    **options: Any,  # noqa: ANN401
) -> Field:
    shape = Levels.geometric(
        d_in,
        levels=levels,
        coarsest=coarsest,
        finest=finest,
        log2_entries=log2_entries,
        features=features,
    )
    return HashGrid(d_in, d_out, shape=shape, rngs=rngs, **options)


def _pyramid(d_in: int, d_out: int, *, size: int = 256, rngs: nnx.Rngs, **options: Any) -> Field:  # noqa: ANN401
    return LatentPyramid((size,) * d_in, d_out, rngs=rngs, **options)


def _pixel(d_in: int, d_out: int, *, size: int = 256, rngs: nnx.Rngs) -> Field:
    if d_in != 2:
        raise ValueError(f"d_in={d_in}, expected 2: pixels have two coordinates")
    return PixelField(size, size, d_out, rngs=rngs)


def _voxel(d_in: int, d_out: int, *, size: int = 128, rngs: nnx.Rngs) -> Field:
    if d_in != 3:
        raise ValueError(f"d_in={d_in}, expected 3: voxels have three coordinates")
    return VoxelField(size, size, size, d_out, rngs=rngs)


FIELDS: dict[str, Callable[..., Field]] = {
    "siren": Siren,
    "wire": Wire,
    "wire_real": functools.partial(Wire, real=True),
    "fourier": FourierMlp,
    "positional": functools.partial(FourierMlp, degrees=10),
    "gaussian": GaussianMlp,
    "relu": ReluMlp,
    "pyramid": _pyramid,
    "pixel": _pixel,
    "voxel": _voxel,
    "hashgrid": _hashgrid,
    "planes": Planes,
    "waveplanes": WavePlanes,
}
"""Name -> constructor ``(d_in, d_out, *, rngs, **options)``; the options are the class's own.

Arrays take ``size``, the cells of every axis, in place of a shape, and a hash grid the arguments of
``Levels.geometric``."""
