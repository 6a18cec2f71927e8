"""Fitting and rounding of the families' networks."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lumefield.codecs.families import METHODS, Layout, compress_network
from lumefield.codecs.families import _fit as f
from lumefield.codecs.families._family import searched
from lumefield.codecs.families._quantise import Choice, allotted, choices_of, rounded
from lumefield.codecs.neural import Picture
from tests.codecs.families_cases import brief, frames_of, picture_of

CHOICES = {
    "a": [Choice(2, 100.0, 9.0), Choice(3, 200.0, 2.0), Choice(4, 300.0, 0.5)],
    "b": [Choice(1, 50.0, 1.0), Choice(2, 90.0, 0.25), Choice(3, 130.0, 0.06)],
}


def cost(fractions: dict[str, int]) -> tuple[float, float]:
    chosen = [next(c for c in CHOICES[name] if c.fraction == s) for name, s in fractions.items()]
    return sum(c.bits for c in chosen), sum(c.error for c in chosen)


def test_bits_are_spent_where_they_gain_most_and_within_the_budget():
    errors = list[float]()
    for budget in (150.0, 260.0, 300.0, 400.0, 500.0):
        bits, error = cost(allotted(CHOICES, budget))
        assert bits <= budget
        errors.append(error)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == 0.56
    assert cost(allotted(CHOICES, 1.0))[0] == 150.0  # the coarsest where nothing fits


def test_choices_become_finer_dearer_and_better():
    rng = np.random.default_rng(0)
    tensors = {"w": rng.normal(size=(40, 30)).astype(np.float32), "z": np.zeros(4, np.float32)}

    def error_of(values: dict[str, Any]) -> float:
        return 1.0 + float(np.square(values["w"] - tensors["w"]).mean())

    found = choices_of(tensors, error_of)
    assert found["z"] == [Choice(0, 1.0, 0.0)]
    bits = [c.bits for c in found["w"]]
    assert bits == sorted(bits)
    assert all(a.error >= b.error for a, b in zip(found["w"], found["w"][1:], strict=False))
    for choice in found["w"][:4]:
        near = rounded(tensors["w"], choice.fraction)
        assert np.abs(near.floats() - tensors["w"]).max() <= 0.5001 * 2.0**-choice.fraction


def test_straight_rounding_has_the_gradient_of_the_identity():
    value = {"w": jnp.asarray([0.3, -1.26, 70000.0])}

    def total(p: dict[str, Any]) -> Any:
        return (f.straight(p, {"w": 1})["w"] * jnp.asarray([1.0, 2.0, 3.0])).sum()

    near = f.straight(value, {"w": 1})["w"]
    assert np.allclose(near, [0.5, -1.5, 16383.5])
    assert np.array_equal(jax.grad(total)(value)["w"], [1.0, 2.0, 3.0])


def test_an_epoch_sees_every_item_once_whatever_the_chunks():
    whole = f._batches(10, 3, 7, 0, 9)  # pyright: ignore[reportPrivateUsage]
    parts = [f._batches(10, 3, 7, i, 1) for i in range(9)]  # pyright: ignore[reportPrivateUsage]
    assert np.array_equal(whole, np.concatenate(parts))
    for epoch in whole.reshape(3, 9):
        assert len(set(epoch.tolist())) == 9


def test_refitting_through_the_rounding_recovers_what_rounding_cost():
    family = METHODS["strumpler"]
    family = dataclasses.replace(
        brief(family, 150), recipe=dataclasses.replace(brief(family, 150).recipe, finish=1.0)
    )
    layout = Layout(picture_of(family), (3, 12))
    planes = frames_of(family)[0]
    targets = np.stack(planes, -1).reshape(-1, 3).astype(np.float32) / 255
    data = f.Data(family.inputs(layout), targets, np.full(3, 1 / 3, np.float32))
    plan = f.Plan(150, 150, 0)
    state = f.fit_network(family, layout, f.first_state(family, layout, data, plan), plan)
    fractions = dict.fromkeys(family.shapes(layout), 4)
    error_of = f.probe(family, layout, data)

    def error(scene: dict[str, Any]) -> float:
        near = {k: rounded(np.asarray(v), fractions[k]).floats() for k, v in scene.items()}
        return error_of(near)

    before = error(state.scene)
    after = error(f.fit_rounded(family, layout, state, fractions, plan).scene)
    assert after < 0.8 * before


def test_progress_tells_steps_and_quality():
    told = list[tuple[int, int, float]]()
    family = brief(METHODS["coin"], 60)
    compress_network(
        frames_of(family),
        picture_of(family),
        family,
        900.0,
        progress=lambda *row: told.append(row),
    )
    assert [row[:2] for row in told] == [(50, 60), (60, 60)]
    assert told[1][2] > 8


def test_the_layout_nearest_in_parameters_is_taken():
    def count(layout: Layout) -> int:
        return layout.numbers[0] ** 2

    assert searched(Picture(8, 8), [(4,), (9,), (30,)], 100.0, count).numbers == (9,)
