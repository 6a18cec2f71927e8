"""What a session of ``lumefield fit`` knows of the signal it fits, and fields as files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lumefield.errors import InputError, RunError
from lumefield.fit import Batches, Loss, scaled_adam

BLOCK = 1 << 16
"""Points evaluated per call."""


class Exhibit(NamedTuple):
    """Truth and result side by side, for the report."""

    name: str
    truth: NDArray[np.uint8]
    """[H, W, 3] display sRGB."""
    result: NDArray[np.uint8]
    """As large as the truth."""
    note: str


@dataclass(frozen=True)
class Size:
    """How large a field, and how it is fitted; entries of ``config.json``."""

    field: str
    """Name in ``FIELDS``."""
    options: Mapping[str, Any]
    """Options of its constructor."""
    steps: int
    batch: int
    """Points per step."""
    rate: float
    """Learning rate of Adam at its highest."""


@dataclass(frozen=True)
class Problem:
    """A signal, made ready for :func:`lumefield.fit.fit`."""

    kind: str
    d_in: int
    d_out: int
    size: Size
    facts: dict[str, Any]
    """What a reader of the run needs to draw the field; JSON."""
    summary: str
    """One line about the input."""
    notes: tuple[str, ...]
    loss: Loss
    """Its metrics hold ``shown``: mean squared (or absolute) error of the step."""
    batches: Batches
    unit: str
    """What :meth:`shown` is measured in."""
    result: str
    """Main file of the run folder that ``finish`` writes."""
    finish: Callable[[Any, Path], tuple[dict[str, Any], list[Exhibit]]]
    """(field, run folder) -> entries of ``metrics.json`` and pictures for the report; writes files.
    """

    def shown(self, error: float) -> float:
        """The number of the progress bar and the curve: dB where ``unit`` says so, else itself."""
        return decibels(error) if self.unit == "dB" else error

    def start(self, seed: int) -> Any:  # noqa: ANN401
        """The field before the first step."""
        return make_field(self.size.field, self.d_in, self.d_out, self.size.options, seed)


def decibels(error: float) -> float:
    """Mean squared error of values with peak 1 as PSNR; 100 dB at most."""
    return float(-10 * np.log10(max(error, 1e-10)))


def field_names() -> tuple[str, ...]:
    """Words that ``--field`` knows."""
    from lumefield.fields.networks import FIELDS

    return tuple(FIELDS)


def make_field(name: str, d_in: int, d_out: int, options: Mapping[str, Any], seed: int) -> Any:  # noqa: ANN401
    """A fresh field.

    Raises:
        InputError: If the name is unknown, or the field does not take so many coordinates.
    """
    from flax import nnx

    from lumefield.fields.networks import FIELDS

    if name not in FIELDS:
        raise InputError(f"--field {name}: expected one of {', '.join(FIELDS)}")
    try:
        return FIELDS[name](d_in, d_out, rngs=nnx.Rngs(seed), **options)
    except ValueError as error:
        raise InputError(f"--field {name}: {error}; choose another field") from error


def optimizer(size: Size) -> Any:  # noqa: ANN401
    """Adam whose rate rises over 1 % of the steps and falls along a cosine to 1 %."""
    warm = max(1, size.steps // 100)

    def rate(step: jax.Array) -> jax.Array:
        at = step.astype(jnp.float32)
        rise = jnp.minimum(1.0, (at + 1) / warm)
        wave = jnp.cos(jnp.pi * jnp.minimum(at / size.steps, 1.0))
        return size.rate * rise * (0.01 + 0.99 * (0.5 + 0.5 * wave))

    return scaled_adam(rate)


@cache
def _apply() -> Callable[[Any, Any], jax.Array]:
    def values(field: Any, x: jax.Array) -> jax.Array:  # noqa: ANN401
        return field(x)

    return jax.jit(values)


def evaluate(field: Any, points: NDArray[np.float32]) -> NDArray[np.float32]:  # noqa: ANN401
    """Values of a field at (n, i) points, in blocks of one shape: (n, o)."""
    apply, out = _apply(), []
    for start in range(0, len(points), BLOCK):
        part = points[start : start + BLOCK].astype(np.float32)
        short = BLOCK - len(part) if len(points) > BLOCK else 0
        padded = np.pad(part, ((0, short), (0, 0)))
        out.append(np.asarray(apply(field, jnp.asarray(padded)))[: len(part)])
    return np.concatenate(out)


def parameters(field: Any) -> int:  # noqa: ANN401
    """Numbers that a field consists of."""
    return sum(int(leaf.size) for leaf in jax.tree.leaves(field))


def save_field(field: Any, path: Path) -> None:  # noqa: ANN401
    """Write the numbers of a field by their path, whole or not at all.

    Raises:
        InputError: If the folder cannot be written.
    """
    from safetensors.numpy import save

    from lumefield.codecs.formats import replacing

    leaves = jax.tree_util.tree_flatten_with_path(field)[0]
    arrays = {_name(path): np.asarray(leaf, order="C") for path, leaf in leaves}
    with replacing(path) as file:
        file.write(save(arrays))


def load_field(run: Path, config: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """The field of a run.

    Args:
        run: Its folder.
        config: Content of its ``config.json``.

    Raises:
        RunError: If a file is missing or damaged.
    """
    from safetensors.numpy import load

    try:
        shape, size = config["shape"], config["size"]
        fresh = make_field(
            str(size["field"]), int(shape[0]), int(shape[1]), dict(size["options"]), 0
        )
        arrays = load((run / "field.safetensors").read_bytes())
    except (KeyError, TypeError, ValueError, IndexError, InputError) as error:
        raise RunError(f"{run}: config.json does not describe its field ({error})") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise RunError(f"{run / 'field.safetensors'}: {reason}; finish the run first") from None
    except Exception as error:  # safetensors raises its own kind
        raise RunError(
            f"{run / 'field.safetensors'}: damaged ({error}); fit again with --overwrite"
        ) from None
    leaves, tree = jax.tree_util.tree_flatten_with_path(fresh)
    out: list[jax.Array] = []
    for path, leaf in leaves:
        value = arrays.get(_name(path))
        if value is None or value.shape != leaf.shape or value.dtype != leaf.dtype:
            raise RunError(
                f"{run / 'field.safetensors'}: {_name(path)} is missing or of another shape, "
                "expected what config.json says; fit again with --overwrite"
            )
        out.append(jnp.asarray(value))
    return jax.tree_util.tree_unflatten(tree, out)


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")
