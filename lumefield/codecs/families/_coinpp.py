"""COIN++: one shipped network for all pictures; a file holds what modulates it, patch by patch.

Dupont, Loya, Alizadeh, Golinski, Teh and Doucet, "COIN++: Neural Compression Across Modalities",
2022, arXiv:2201.12904: a picture is cut into patches of 32 x 32; each has a short vector that a
linear map turns into shifts of every layer of a SIREN (Sec. 3.1, 3.2), and only these vectors are
stored. We differ: base and map are fitted together with the vectors of their own training pictures
(an auto-decoder) instead of by MAML, on procedural pictures (``benchmarks/families_base.py``);
vectors are nested, so that any number of their first components serves; a picture's are fitted by
Adam instead of three steps of gradient descent; and they go through the quantiser and coder of all
families, four components a tensor, instead of 5 bits each.
"""

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.families._family import Family, Layout, Number, Recipe, searched
from lumefield.codecs.families._ops import Ops, Parameters, Shapes, Tensor, Whole, features
from lumefield.codecs.families._siren import siren_shapes, siren_sizes
from lumefield.codecs.neural._container import Picture

PATCH = 32
DEPTH, WIDTH = 6, 64
COMPONENTS = 96
"""Of a patch's vector, at most."""
GROUP = 4
"""Components that share a step and a distribution."""
MAP = "map"
_FILE = Path(__file__).with_name("coinpp_1.npz")
_KEPT = "bits."


def patches(picture: Picture) -> tuple[int, int]:
    """Rows and columns of patches."""
    return -(-picture.rows // PATCH), -(-picture.columns // PATCH)


def base_shapes() -> Shapes:
    """Tensors of the base: a SIREN for RGB, and the map to the shifts of its sine layers."""
    return {**siren_shapes(siren_sizes(3, DEPTH, WIDTH)), MAP: (COMPONENTS, DEPTH * WIDTH)}


def groups(components: int) -> int:
    """Tensors of the file for so many components."""
    return -(-components // GROUP)


def _shapes(layout: Layout) -> Shapes:
    count, (down, across) = layout.numbers[0], patches(layout.picture)
    sizes = [min(GROUP, count - i * GROUP) for i in range(groups(count))]
    return {f"m{i}": (down * across, size) for i, size in enumerate(sizes)}


def _start(key: Tensor, layout: Layout) -> dict[str, Tensor]:
    import jax.numpy as jnp

    del key
    return {name: jnp.zeros(shape, jnp.float32) for name, shape in _shapes(layout).items()}


def _inputs(layout: Layout) -> NDArray[np.float32]:
    """(rows columns, 3): x and y within the patch in [-1, 1], and the number of the patch."""
    picture = layout.picture
    rows, columns = np.arange(picture.rows), np.arange(picture.columns)
    inside = [features((2.0 * (at % PATCH) + 1.0) / PATCH - 1.0) for at in (rows, columns)]
    number = (rows // PATCH)[:, None] * patches(picture)[1] + columns // PATCH
    y, x = np.broadcast_arrays(inside[0][:, None], inside[1])
    return np.stack([x, y, number.astype(np.float32)], -1).reshape(-1, 3)


def _forward(ops: Ops, parameters: Parameters, layout: Layout, inputs: Tensor) -> Tensor:
    parts = [ops.value(parameters[name]) for name in _shapes(layout)]
    vectors = ops.xp.concatenate(parts, axis=-1)
    missing = COMPONENTS - layout.numbers[0]
    vectors = ops.xp.pad(vectors, ((0, 0), (0, missing)))
    return modulated(ops, parameters, vectors, inputs)[..., : layout.picture.channels]


def modulated(ops: Ops, parameters: Parameters, vectors: Tensor, inputs: Tensor) -> Tensor:
    """(n, 3) values of pixels under the vectors (patches, 96) of their patches."""
    shifts = ops.linear(vectors, parameters[MAP])
    patch = inputs[:, 2].astype(np.int32)
    x = ops.input(inputs[:, :2])
    for i in range(DEPTH):
        plain = ops.linear(x, parameters[f"w{i}"], parameters[f"b{i}"])
        mine = ops.xp.take(shifts[:, i * WIDTH : (i + 1) * WIDTH], patch, axis=0)
        x = ops.sin(ops.add(plain, mine))
    half = ops.input(np.full(1, np.float32(0.5)))
    return ops.add(ops.linear(x, parameters[f"w{DEPTH}"], parameters[f"b{DEPTH}"]), half)


@functools.cache
def _shipped() -> dict[str, Whole]:
    with np.load(_FILE, allow_pickle=False) as file:
        return {
            name: Whole(file[name].astype(np.float64), int(file[_KEPT + name]))
            for name in base_shapes()
        }


def save_base(file: Path, tensors: dict[str, Whole]) -> None:
    """Write a base: integers of 16 bits and their fractional bits."""
    arrays = {name: whole.values.astype(np.int16) for name, whole in tensors.items()}
    kept = {_KEPT + name: np.uint8(whole.bits) for name, whole in tensors.items()}
    np.savez_compressed(file, allow_pickle=False, **arrays, **kept)


def _fixed(layout: Layout) -> dict[str, Whole]:
    del layout
    return _shipped()


def _macs(layout: Layout) -> float:
    per_pixel = 2 * WIDTH + (DEPTH - 1) * WIDTH * WIDTH + 3 * WIDTH
    return per_pixel + layout.numbers[0] * DEPTH * WIDTH / PATCH**2


def _layout(picture: Picture, size: float) -> Layout:
    counts = [(count,) for count in range(2, COMPONENTS + 1)]
    return searched(picture, counts, 8 * size / RECIPE.bits, COINPP.count)


RECIPE = Recipe(rate=1.5e-1, batch=1 << 14, probe=1 << 15, steps=600, bits=3.5)

COINPP = Family(
    name="coin++",
    content="image",
    source="Dupont et al. 2022, arXiv:2201.12904",
    identity=2,
    numbers=(Number("components", 1, COMPONENTS),),
    layout=_layout,
    shapes=_shapes,
    start=_start,
    inputs=_inputs,
    forward=_forward,
    macs=_macs,
    recipe=RECIPE,
    channels=(3,),
    fixed=_fixed,
)
