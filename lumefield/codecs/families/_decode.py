"""Pixels of a network: blocks of items through the exact layers, then planes of the picture."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.families._exact import ExactOps
from lumefield.codecs.families._family import Family, Layout
from lumefield.codecs.families._ops import Tensor, Whole
from lumefield.codecs.families._stream import Network, read_network
from lumefield.codecs.neural._container import Picture
from lumefield.codecs.neural._decoders import Backend, Planes

BLOCK = 1 << 14
"""Pixels that go through a network at a time."""
Run = Callable[[NDArray[np.float32]], NDArray[np.float64]]
"""Inputs of some items -> whole numbers of their pixels."""


def decode_planes(
    chunk: bytes, picture: Picture, backend: Backend, wanted: range | None = None
) -> Iterator[Planes]:
    """Planes of the picture, or of wanted frames, in order; each frame is computed alone.

    Args:
        chunk: Data of a network chunk.
        picture: What the file says of it.
        backend: "xla": XLA in float64; else NumPy. The result is the same.
        wanted: Frames; None: all.

    Raises:
        FormatError: If the chunk is not intact.
    """
    network = read_network(chunk, picture)
    return network_planes(network, backend, wanted)


def network_planes(
    network: Network, backend: Backend = "auto", wanted: range | None = None
) -> Iterator[Planes]:
    """Planes of a network that is not in a file yet, or of one that was read."""
    run = _runner(network.family, network.layout, network.tensors, backend == "xla")
    inputs, picture = network.family.inputs(network.layout), network.layout.picture
    if network.family.content == "image":
        parts = [run(inputs[i : i + BLOCK]) for i in range(0, len(inputs), BLOCK)]
        whole = np.concatenate(parts).reshape(picture.rows, picture.columns, picture.channels)
        yield planes_of(whole, picture)
        return
    for frame in range(picture.frames) if wanted is None else wanted:
        yield planes_of(run(inputs[frame : frame + 1])[0], picture)


def planes_of(pixels: NDArray[np.float64], picture: Picture) -> Planes:
    """(rows, columns, channels) whole numbers as planes; 4:2:0 chroma is the mean of 2 x 2."""
    kind = np.uint8 if picture.bits == 8 else np.uint16
    planes = [pixels[..., c] for c in range(picture.channels)]
    if picture.subsampled:
        planes = [planes[0], *(halved(plane) for plane in planes[1:])]
    return tuple(np.ascontiguousarray(plane.astype(kind)) for plane in planes)


def whole_of(planes: Planes) -> NDArray[np.unsignedinteger[Any]]:
    """(rows, columns, channels) of planes; chroma of 4:2:0 is repeated."""
    h, w = planes[0].shape
    return np.stack(
        [p if p.shape == (h, w) else p.repeat(2, 0).repeat(2, 1)[:h, :w] for p in planes], -1
    )


def halved(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of 2 x 2 whole numbers, halves up; odd sides repeat their last row or column."""
    h, w = plane.shape
    even = np.pad(plane, ((0, h % 2), (0, w % 2)), mode="edge")
    total = even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]
    return np.floor((total + 2.0) * 0.25)


def _runner(family: Family, layout: Layout, tensors: dict[str, Whole], xla: bool) -> Run:
    every = {**family.fixed(layout), **tensors}
    bits = layout.picture.bits

    def pixels(ops: ExactOps, values: dict[str, Tensor], inputs: Tensor) -> Tensor:
        parameters = {name: Whole(values[name], whole.bits) for name, whole in every.items()}
        return ops.pixels(family.forward(ops, parameters, layout, inputs), bits)

    values = {name: whole.values for name, whole in every.items()}
    if not xla:
        ops = ExactOps()
        return lambda inputs: pixels(ops, values, inputs)
    return _xla_runner(pixels, values)


def _xla_runner(pixels: Callable[..., Tensor], values: dict[str, Any]) -> Run:
    import jax
    import jax.numpy as jnp

    @jax.jit
    def compiled(values: dict[str, Tensor], inputs: Tensor) -> Tensor:
        return pixels(ExactOps(jnp), values, inputs)

    def run(inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        with jax.enable_x64(True):
            return np.asarray(compiled(values, inputs))

    return run
