"""What a field is: a callable pytree of floating-point arrays."""

from typing import Protocol, runtime_checkable

from jaxtyping import Array, Float


@runtime_checkable
class Field(Protocol):
    """A function from coordinates to values whose numbers are the leaves of a pytree.

    The networks of ``fields.networks`` are fields, and so is anything else that jax sees as a
    pytree of floating-point arrays and that can be called: a frozen dataclass, an Equinox module.
    """

    def __call__(self, x: Float[Array, "*s i"], /) -> Float[Array, "*s o"]:
        """Values at ``x``, coordinates in [-1, 1]; every leading axis is a batch axis."""
        ...
