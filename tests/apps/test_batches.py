"""Batches as a function of the step, photos made smaller, and the frame training runs in."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

from lumefield.apps._batches import Views, shuffled
from lumefield.apps._capture_type import Capture
from lumefield.apps._frame import WorldFrame

# shuffled


@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_every_epoch_is_a_permutation(n: int):
    order = shuffled(0, n, 0, 5 * n).reshape(5, n)
    assert (np.sort(order, 1) == np.arange(n)).all()
    if n == 50:
        assert not (order[0] == order[1]).all()


@pytest.mark.parametrize(
    "cuts", [[0, 100], [0, 1, 2, 3, 100], [0, 13, 26, 39, 99, 100], [0, 50, 100]]
)
def test_any_split_of_the_steps_gives_the_same_sequence(cuts: list[int]):
    parts = [shuffled(3, 13, a, b - a) for a, b in itertools.pairwise(cuts)]
    assert np.array_equal(np.concatenate(parts), shuffled(3, 13, 0, 100))


def test_the_sequence_is_a_function_of_the_seed_alone():
    assert np.array_equal(shuffled(1, 20, 40, 30), shuffled(1, 20, 40, 30))
    assert not np.array_equal(shuffled(1, 20, 40, 30), shuffled(2, 20, 40, 30))
    assert shuffled(1, 20, 40, 0).shape == (0,)


# views


def capture(n: int = 3, height: int = 10, width: int = 15, full: bool = False) -> Capture:
    rng = np.random.default_rng(0)
    per_pixel = (n, height, width) if full else (n, 1, 1)
    return Capture(
        names=tuple(f"{i}.jpg" for i in range(n)),
        images=rng.integers(0, 256, (n, height, width, 3)).astype(np.uint8),
        weights=rng.integers(0, 256, per_pixel).astype(np.uint8),
        alphas=rng.integers(0, 256, per_pixel).astype(np.uint8),
        world_from_cam=rng.normal(size=(n, 3, 4)),
        focal=np.full((n, 2), [30.0, 36.0]),
        centre=np.full((n, 2), [7.5, 5.0]),
        sizes=np.full((n, 2), [width, height]),
        points=np.zeros((0, 3)),
        colours=np.zeros((0, 3), np.uint8),
        held_out=(0,),
    )


FRAME = WorldFrame(scale=2.0, offset=(1.0, -1.0, 3.0))


def test_at_full_size_the_photos_are_the_photos():
    photos = capture(full=True)
    views = Views.of(photos, FRAME, (2, 0))
    assert np.array_equal(views.image, photos.images[[2, 0]])
    assert np.array_equal(views.weight, photos.weights[[2, 0]])
    assert np.array_equal(views.alpha, photos.alphas[[2, 0]])
    assert (views.height, views.width) == (10, 15)
    np.testing.assert_allclose(
        views.world_from_cam, FRAME.inward(photos.world_from_cam[[2, 0]]), rtol=1e-6
    )


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_the_area_average_keeps_constants_and_means(factor: int):
    photos = capture(1, 12, 24, full=True)
    flat = dataclasses.replace(photos, images=np.full_like(photos.images, 137))
    assert (Views.of(flat, FRAME, (0,), factor).image == 137).all()
    views = Views.of(photos, FRAME, (0,), factor)
    assert views.image.shape == (1, 12 // factor, 24 // factor, 3)
    assert views.weight.shape == (1, 12 // factor, 24 // factor)
    for small, large in ((views.image, photos.images), (views.alpha, photos.alphas)):
        mean = small.astype(float).mean((1, 2)) - large.astype(float).mean((1, 2))
        assert np.abs(mean).max() <= 0.5  # each pixel is rounded


def test_each_small_pixel_is_the_mean_of_its_block():
    photos = capture(full=True)
    views = Views.of(photos, FRAME, (1,), 4)
    assert (views.height, views.width) == (2, 3)  # the incomplete rows and columns are left out
    block = photos.images[1, 4:8, 8:12].astype(float).mean((0, 1))
    assert np.abs(views.image[0, 1, 2] - block).max() <= 0.5


def test_cameras_shrink_with_their_photos():
    views = Views.of(capture(), FRAME, (0,), 2)
    assert views.focal.tolist() == [[15.0, 18.0]]
    assert views.centre.tolist() == [[3.75, 2.5]]


def test_weights_of_one_value_stay_one_value():
    views = Views.of(capture(), FRAME, (0, 1), 2)
    assert views.weight.shape == (2, 1, 1) == views.alpha.shape


def test_a_batch_has_the_shape_of_its_index():
    views = Views.of(capture(), FRAME, (2, 1, 0))
    index = np.array([[0, 2], [1, 1], [2, 0], [0, 1]])
    batch: Any = views.batch(index)
    assert all(leaf.shape[:2] == (4, 2) for leaf in batch)
    assert np.array_equal(batch.image[1, 0], views.image[1])
    assert np.array_equal(batch.index, index)
    assert {leaf.dtype for leaf in batch} == {np.dtype(t) for t in ("int32", "uint8", "float32")}


# the frame


def test_inward_and_outward_are_inverse():
    points = np.random.default_rng(1).normal(size=(20, 3)) * 50
    np.testing.assert_allclose(
        FRAME.outward_points(FRAME.inward_points(points)), points, atol=1e-12
    )
    np.testing.assert_allclose(
        FRAME.inward_points(FRAME.outward_points(points)), points, atol=1e-12
    )


def test_poses_keep_their_rotation_and_move_as_points_do():
    poses = np.random.default_rng(2).normal(size=(5, 3, 4))
    moved = FRAME.inward(poses)
    assert np.array_equal(moved[..., :3], poses[..., :3])
    assert np.array_equal(moved[..., 3], FRAME.inward_points(poses[..., 3]))
    assert poses[0, 0, 3] != moved[0, 0, 3]  # the given ones are not changed


def test_the_cameras_are_around_the_origin_the_farthest_at_1():
    poses = np.random.default_rng(3).normal(size=(9, 3, 4)) * 40 + 1000
    centres = WorldFrame.of_cameras(poses).inward(poses)[..., 3]
    np.testing.assert_allclose(centres.mean(0), 0, atol=1e-12)
    assert np.linalg.norm(centres, axis=1).max() == pytest.approx(1)


@pytest.mark.parametrize("n", [1, 3])
def test_cameras_in_one_place_keep_the_scale_of_the_world(n: int):
    poses = np.repeat(np.eye(3, 4)[None] + 2, n, 0)
    assert WorldFrame.of_cameras(poses).scale == 1.0
