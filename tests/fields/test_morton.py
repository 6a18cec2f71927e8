"""Laws of the order along a space-filling curve."""

import jax
import numpy as np
import pytest

from lumefield.fields import morton_order

ORDER = jax.jit(morton_order)


def test_the_corners_of_a_cube_come_x_first_then_y_then_z():
    corners = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1], indexing="ij"), -1).reshape(8, 3)
    shuffled = np.random.default_rng(0).permutation(corners).astype(np.float32)
    order = ORDER(shuffled, np.zeros(8, bool))
    assert [tuple(p) for p in shuffled[order]] == sorted(
        (tuple(p) for p in shuffled), key=lambda p: (p[2], p[1], p[0])
    )


def test_what_comes_last_keeps_its_order_and_has_no_say():
    rng = np.random.default_rng(1)
    points = rng.normal(size=(200, 3)).astype(np.float32)
    last = rng.uniform(size=200) < 0.3
    order = np.asarray(ORDER(points, last))
    assert sorted(order) == list(range(200))
    assert order[-last.sum() :].tolist() == np.flatnonzero(last).tolist()
    moved = np.where(last[:, None], 1e6, points).astype(np.float32)
    np.testing.assert_array_equal(ORDER(moved, last), order)
    one_place = np.ones((5, 3), np.float32)
    assert ORDER(one_place, np.array([False, True, False, False, True])).tolist() == [
        *(0, 2, 3),
        *(1, 4),
    ]


@pytest.mark.parametrize("far", [1.0, 1e4])
def test_neighbours_in_the_order_are_neighbours_in_space(far: float):
    rng = np.random.default_rng(2)
    points = rng.normal(size=(4000, 3)).astype(np.float32)
    points[:40] *= far  # a sky does not spoil the order of the rest
    order = np.asarray(ORDER(points, np.zeros(4000, bool)))

    def gap(p: np.ndarray) -> float:
        return float(np.median(np.linalg.norm(np.diff(p, axis=0), axis=1)))

    assert gap(points[order]) < 0.15 * gap(points)
