"""In which order the frames of a group are coded, and what each is predicted from."""

from typing import NamedTuple

from lumefield.codecs.neural._motion import MAX_RATIO, RATIO_BITS

LAYERS = 8
"""Layers that a format can tell apart."""
MAX_FRAMES = 1 << 10
"""Frames of a group, at most."""
LOW_DELAY = 0
"""The number of the structure in which no frame waits for a later one."""
MAX_ANCHOR = 63
_CYCLE = 4
_FROM = ((-4, -1, 0), (0, -2, 2), (0, 1, 1), (2, 0, 2))
"""References of a frame of a cycle of low delay, from the cycle's first place, and its layer."""


class Role(NamedTuple):
    """One inter frame of a group; places count from the group's first frame, which is intra."""

    place: int
    first: int
    """Place of the reference that motion is told for."""
    second: int
    """Place of the other one; may be the same."""
    layer: int
    """0: others depend on it most."""

    @property
    def ratio(self) -> int:
        """Displacement to the second reference over that to the first, of steady motion; * 256."""
        far, near = self.second - self.place, self.first - self.place
        exact = ((far << RATIO_BITS) * 2 + near) // (2 * near)
        return max(-MAX_RATIO, min(MAX_RATIO, exact))


def roles(frames: int, anchor: int) -> tuple[Role, ...]:
    """The inter frames of a group in coding order.

    Args:
        frames: Frames of the group with the intra frame.
        anchor: Frames from one forward-predicted frame to the next, those between them are
            predicted from both sides, by halves; or ``LOW_DELAY``.
    """
    if anchor == LOW_DELAY:
        return tuple(_low_delay(frames))
    order, last, before = list[Role](), 0, 0
    while last < frames - 1:
        here = min(last + anchor, frames - 1)
        order.append(Role(here, last, before, 0))
        order += _between(last, here, 1)
        last, before = here, last
    return tuple(order)


def _between(left: int, right: int, layer: int) -> list[Role]:
    if right - left < 2:
        return []
    middle = (left + right) // 2
    here = Role(middle, left, right, layer)
    return [here, *_between(left, middle, layer + 1), *_between(middle, right, layer + 1)]


def _low_delay(frames: int) -> list[Role]:
    """Every fourth frame from the fourth before, those between from the nearest of a lower layer.

    So by first references no frame is more than ``frames`` / 4 + 2 away from the intra frame.
    """
    order = list[Role]()
    for place in range(1, frames):
        key = place // _CYCLE * _CYCLE
        first, second, layer = _FROM[place % _CYCLE]
        order.append(Role(place, max(0, key + first), max(0, key + second), layer))
    return order


def needed(order: tuple[Role, ...], wanted: set[int]) -> set[int]:
    """Places of the frames that must be decoded for those wanted, themselves included."""
    found = set(wanted)
    for role in reversed(order):
        if role.place in found:
            found |= {role.first, role.second}
    return found
