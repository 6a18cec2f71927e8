"""What the rows for video promise beside the contract of all families (``test_families``)."""

import dataclasses
import functools
from fractions import Fraction

import numpy as np
import pytest
from scipy.fft import dctn

from lumefield.codecs.families import METHODS, Family, Layout
from lumefield.codecs.families._exact import ExactOps
from lumefield.codecs.families._float import FloatOps
from lumefield.codecs.families._frames import (
    between,
    cells,
    in_squares,
    moment,
    places,
    times,
)
from lumefield.codecs.families._ops import Tensor, Whole
from lumefield.codecs.neural import Picture, video_picture
from lumefield.errors import FormatError

VIDEO = [family for family in METHODS.values() if family.content == "video"]
NAMES = [family.name for family in VIDEO]
PAIRS = ((0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (2, 0))
"""Frequencies, lowest first."""
CLIP = video_picture(40, 50, 5, Fraction(25))


def small(family: Family) -> tuple[Layout, dict[str, Whole]]:
    """A layout of few parameters, and random ones in multiples of 2^-10."""
    return _small(family.name)


@functools.cache
def _small(name: str) -> tuple[Layout, dict[str, Whole]]:
    import jax

    family = METHODS[name]
    layout = family.checked(family.layout(CLIP, 3000))
    first = family.start(jax.random.key(0), layout)
    wholes = {k: Whole(np.rint(np.asarray(v, np.float64) * 1024), 10) for k, v in first.items()}
    return layout, wholes


def test_the_five_rows_of_the_literature_are_there():
    assert set(NAMES) == {"nerv", "e-nerv", "ps-nerv", "hnerv", "hinerv"}


@pytest.mark.parametrize("family", VIDEO, ids=NAMES)
@pytest.mark.parametrize("size", [8e3, 3e4, 1e5])
def test_layouts_have_the_parameters_that_the_bytes_pay_for(family: Family, size: float):
    picture = video_picture(144, 176, 32, Fraction(30))
    layout = family.checked(family.layout(picture, size))
    assert family.count(layout) == pytest.approx(8 * size / family.recipe.bits, rel=0.15)
    assert all(
        number.low <= n <= number.high
        for n, number in zip(layout.numbers, family.numbers, strict=True)
    )


@pytest.mark.parametrize("family", VIDEO, ids=NAMES)
def test_first_values_have_the_shapes_of_the_file(family: Family):
    layout, wholes = small(family)
    assert {name: whole.values.shape for name, whole in wholes.items()} == family.shapes(layout)
    assert list(wholes) == list(family.shapes(layout))


@pytest.mark.parametrize("family", VIDEO, ids=NAMES)
def test_a_frame_computed_alone_is_that_of_all_frames(family: Family):
    layout, wholes = small(family)
    inputs = family.inputs(layout)
    every = family.forward(ExactOps(), wholes, layout, inputs)
    assert every.shape == (5, 40, 50, 3)
    for k in range(5):
        alone = family.forward(ExactOps(), wholes, layout, inputs[k : k + 1])
        assert np.array_equal(alone[0], every[k])


@pytest.mark.parametrize("family", VIDEO, ids=NAMES)
def test_frames_differ_and_every_parameter_counts(family: Family):
    """Nothing that is paid for is without effect, and time has one."""
    layout, wholes = small(family)
    inputs, ops = family.inputs(layout), ExactOps()
    every = family.forward(ops, wholes, layout, inputs)
    assert all(np.abs(every[i] - every[i + 1]).max() > 16 for i in range(4))
    rng = np.random.default_rng(0)
    for name, whole in wholes.items():
        moved = whole.values + np.rint(rng.normal(size=whole.values.shape) * 400)
        other = family.forward(ops, {**wholes, name: Whole(moved, 10)}, layout, inputs)
        assert np.abs(other - every).max() > 16, name


@pytest.mark.parametrize("family", VIDEO, ids=NAMES)
def test_multiplications_are_those_of_the_layers(family: Family):
    """Counted by an ``ops`` that looks at every product sum."""

    class Counting(FloatOps):
        total = 0

        def linear(self, x: Tensor, w: Tensor, b: Tensor = None) -> Tensor:
            self.total += x.size * w.shape[-1]
            return super().linear(x, w, b)

        def conv(self, x: Tensor, w: Tensor, b: Tensor = None) -> Tensor:
            self.total += x.size * w.shape[0] ** 2 * w.shape[-1]
            return super().conv(x, w, b)

        def depthwise(self, x: Tensor, w: Tensor, b: Tensor = None) -> Tensor:
            self.total += x.size * w.shape[0] ** 2
            return super().depthwise(x, w, b)

    layout, wholes = small(family)
    floats, ops = {k: v.floats() for k, v in wholes.items()}, Counting()
    family.forward(ops, floats, layout, family.inputs(layout)[:1])
    assert family.macs(layout) == pytest.approx(ops.total / (40 * 50), rel=0.02)


def test_squares_of_a_frame_are_told_apart_by_the_lowest_frequencies_of_a_cosine_transform():
    rng = np.random.default_rng(0)
    frames = rng.random((2, 40, 50, 3)).astype(np.float32)
    found = in_squares(frames, 16, 6)
    luma = np.pad(frames[..., 0].astype(np.float64), ((0, 0), (0, 8), (0, 14)), mode="edge")
    blocks = luma.reshape(2, 3, 16, 4, 16).transpose(0, 1, 3, 2, 4)
    whole = np.asarray(dctn(blocks, axes=(3, 4)))
    want = np.stack([whole[..., u, v] for u, v in PAIRS], -1)
    want = (want - want.mean((0, 1, 2))) / want.std((0, 1, 2))
    assert found.shape == (2, 3, 4, 6)
    assert np.abs(found - want).max() < 0.02


@pytest.mark.parametrize("name", ["hnerv", "hinerv"])
def test_what_stands_for_places_begins_as_the_frames_seen_there(name: str):
    family = METHODS[name]
    picture = video_picture(48, 96, 4, Fraction(25))
    layout = family.layout(picture, 3000)
    frames = np.zeros((4, 48, 96, 3), np.float32)
    frames[2:, :, 48:, 0] = 1  # the right half lights up
    for key, value in family.seen(layout, frames).items():
        assert value.shape == family.shapes(layout)[key]
        means, half = value[..., 0], value.shape[2] // 2
        if len(means) > 1:
            assert (means[-1, :, half:] > 0).all()
            assert (means[-1, :, :half] < 0).all()


def test_moments_are_interpolated_in_time():
    layout = Layout(video_picture(16, 16, 8, Fraction(25)), ())
    at = between(layout, 4)
    grid = np.arange(4.0)[:, None] * np.ones(3)
    want = np.clip((np.arange(8) + 0.5) / 2 - 0.5, 0, 3)
    exact = moment(ExactOps(), Whole(grid * 1024, 10), at) / 65536
    assert np.abs(exact - want[:, None]).max() < 1e-4
    near = moment(FloatOps(), grid.astype(np.float32), at)
    assert np.abs(np.asarray(near) - want[:, None]).max() < 1e-4
    one = between(layout, 1)
    assert (one[:, :2] == 0).all()


def test_cells_cover_the_picture_and_features_tell_places_and_times_apart():
    assert cells(Layout(video_picture(17, 32, 2, Fraction(25)), ())) == (2, 2)
    where = places(9, 11, 8).reshape(99, -1)
    when = times(Layout(video_picture(16, 16, 120, Fraction(25)), ()), 20)
    for features in (where, when):
        apart = np.linalg.norm(features[:, None] - features[None], axis=-1)
        assert apart[~np.eye(len(features), dtype=bool)].min() > 0.1


def test_videos_that_a_network_cannot_hold_are_refused():
    family = METHODS["nerv"]
    long = dataclasses.replace(CLIP, frames=1 << 17)
    with pytest.raises(FormatError, match=r"131072 frames, expected at most 32768"):
        family.checked(Layout(long, (2, 4, 4)))
    with pytest.raises(FormatError, match="nerv with 1 channels"):
        family.checked(Layout(Picture(40, 50, channels=1, frames=5), (2, 4, 4)))
    with pytest.raises(FormatError, match="hidden 600, expected 1 to 512"):
        family.checked(Layout(CLIP, (2, 600, 4)))
