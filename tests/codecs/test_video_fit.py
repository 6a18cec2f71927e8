"""Fitting videos: the float frames are the decoder's, and a moving picture costs little."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lumefield import native
from lumefield.codecs.neural import decode_video
from lumefield.codecs.neural._base import LEARNED, LEARNED_WIDE, base_model
from lumefield.codecs.neural._group import code_frame
from lumefield.codecs.neural._inter import painter
from lumefield.codecs.neural._inter_model import inter_base, inter_widths
from lumefield.codecs.neural._model import Widths
from lumefield.codecs.neural._motion import motion_planes as exact_planes
from lumefield.codecs.neural._motion import motion_sizes, reference
from lumefield.codecs.neural._order import LOW_DELAY, Role, roles
from lumefield.codecs.overfit import (
    Goal,
    VideoEffort,
    VideoPlan,
    _chroma,
    _video_fit,
    _video_match,
    _video_model,
    compress_video,
)
from lumefield.codecs.overfit._video import first_lambda
from lumefield.codecs.overfit._video_bank import Bank
from lumefield.codecs.overfit._video_finish import Fitted, Group
from lumefield.codecs.overfit._video_integers import GROUPS, inter_model_of, inter_networks_of
from lumefield.codecs.overfit._video_intra import Tell
from lumefield.codecs.overfit._video_servo import Servo
from lumefield.codecs.overfit._video_start import start_references
from lumefield.codecs.overfit._video_step import prices
from lumefield.errors import InputError
from lumefield.fields.latent import level_sizes
from lumefield.fit import TrainState
from tests.codecs.video_models import header, random_latents, random_networks

SIZE = (40, 56)
Planes = tuple[np.ndarray, np.ndarray, np.ndarray]


def film(frames: int, step: float = 2.0) -> list[Planes]:
    """A pattern that moves to the right."""
    out = list[Planes]()
    for i in range(frames):
        y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]].astype(np.float64)
        x = x - step * i
        luma = 120 + 50 * np.sin(x / 3.1 + np.cos(y / 4)) + 30 * np.sin(y / 2.3 + x / 9)
        u, v = ((128 + 30 * np.sin(x / k + y / 11))[::2, ::2] for k in (7, 13))
        y8, u8, v8 = (np.rint(p).astype(np.uint8) for p in (luma, u, v))
        out.append((y8, u8, v8))
    return out


def random_pictures() -> tuple[Planes, Planes]:
    """Two smooth pictures."""
    a, b = film(2, 3.3)
    return a, b


def test_float_frames_are_the_decoders_but_for_rounding():
    rng = np.random.default_rng(0)
    model = random_networks(rng)
    role = Role(4, 0, 8, 0)
    residual, motion = random_latents(rng, SIZE, 0)
    coded = code_frame(model, role, residual, motion)
    both = [reference(planes, 8) for planes in random_pictures()]
    exact = painter("twin")(model, coded.frame, (both[0], both[1]), 8, False)
    networks = inter_networks_of(model)
    latents = tuple(
        jnp.asarray(np.stack([plane[i] for plane in motion]), jnp.float32) for i in range(4)
    )
    planes = _video_model.motion_planes(latents, networks.units, SIZE)
    whole = exact_planes(coded.frame.motion, model.units, SIZE) / 16
    np.testing.assert_allclose(planes, whole, atol=0.5)
    a, b = (jnp.asarray(r.astype(np.float32) / 256) for r in both)
    prediction = _video_model.predicted(planes, jnp.float32(-1), a, b)
    levels = tuple(jnp.asarray(y, jnp.float32) for y in residual)
    z = _video_model.decoded(networks, levels, networks.gains[0], prediction)
    shown = np.clip(np.asarray(z) * (255 / 16), 0, 255)
    error = np.abs(shown - np.stack(exact))
    assert np.median(error) < 0.6
    assert np.mean(error > 3) < 0.02  # where a displacement is rounded the other way


def test_networks_come_back_from_their_integers():
    model = random_networks(np.random.default_rng(1))
    again = inter_model_of(inter_networks_of(model), (0,) * len(GROUPS))
    for name, value in vars(model).items():
        np.testing.assert_array_equal(getattr(again, name), value)


@pytest.mark.skipif(native.library() is None, reason="no native library here")
def test_native_warp_is_the_xla_one_with_its_slopes():
    rng = np.random.default_rng(2)
    picture = jnp.asarray(rng.uniform(0, 16, (3, 20 + 32, 24 + 32)), jnp.float32)
    flow = jnp.asarray(rng.normal(0, 90, (2, 20, 24)), jnp.float32)
    taps, slopes = (jnp.asarray(t) for t in _video_model._taps())  # pyright: ignore[reportPrivateUsage]
    want = _video_model._warp_xla(picture, flow, taps, slopes)  # pyright: ignore[reportPrivateUsage]
    found = _video_model._warp(picture, flow)  # pyright: ignore[reportPrivateUsage]
    for a, b in zip(found, want, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_slopes_of_the_warp_are_differences_of_its_values():
    picture = _video_model.padded(jnp.asarray(film(1)[0][0], jnp.float32)[None])
    at = jnp.full((2, *SIZE), 5.0)
    for axis in (0, 1):
        step = jnp.zeros((2, 1, 1)).at[axis].set(1.0)
        rise = _video_model.warp(picture, at + step) - _video_model.warp(picture, at - step)

        def total(flow: jax.Array) -> jax.Array:
            return _video_model.warp(picture, flow).sum()

        slope = jax.grad(total)(at)[axis]
        np.testing.assert_allclose(slope, rise[0] / 2, atol=1e-3)


def test_colour_error_of_a_grey_step_is_that_of_each_channel():
    target = jnp.full((3, 8, 9), 8.0)
    frame = target.at[0].add(16 / 255)
    want = (1 / 219) ** 2
    assert float(_chroma.colour_error(frame, target)) == pytest.approx(want, rel=1e-4)


def test_block_matching_finds_how_a_picture_moves():
    frames = film(5, 2.0)
    luma = np.stack([f[0] for f in frames]).astype(np.float32) * (16 / 255)
    order = roles(5, 4)
    networks = inter_networks_of(inter_base(inter_widths(16)))
    motion = _video_match.start_motion(luma, order, networks.units)
    for own, role in zip(motion, order, strict=True):
        planes = _video_model.motion_planes(own, networks.units, SIZE)
        want = 16 * 2.0 * (role.place - role.first) * -1
        assert float(jnp.median(planes[0])) == pytest.approx(want, abs=6)


@pytest.mark.parametrize(("identity", "context"), [(LEARNED, 12), (LEARNED_WIDE, 24)])
def test_pictures_in_video_colours_are_those_in_rgb(identity: int, context: int):
    widths = Widths(7, context, 32, 3)
    colour, video = (base_model(i, widths) for i in (identity, identity + 128))
    from lumefield.codecs.neural._twin import synthesise

    rng = np.random.default_rng(3)
    sizes = [(-(-24 // 2**i), -(-32 // 2**i)) for i in range(7)]
    latents = [np.rint(rng.normal(0, 1, s)).astype(np.int8) for s in sizes]
    rgb = np.stack(synthesise(colour, latents, 8, subsampled=False)).astype(np.float64)
    y, u, v = synthesise(video, latents, 8, subsampled=False)
    wide = np.stack([y - 16.0, u - 128.0, v - 128.0])
    again = np.tensordot(_chroma.RGB, wide, 1)
    assert np.abs(again - rgb)[(rgb > 8) & (rgb < 247)].max() < 3


@pytest.mark.parametrize(
    ("goal", "ours", "sign"),
    [
        (Goal("psnr", 30.0), (1e-2, 4000.0), -1),
        (Goal("psnr", 30.0), (1e-4, 4000.0), 1),
        (Goal("bits", 9000.0), (1e-3, 9000.0), 1),
        (Goal("bits", 90_000.0), (1e-3, 4000.0), -1),
        (Goal("lambda", 1e-3), (1e-2, 9000.0), 0),
    ],
)
def test_the_servo_moves_lambda_against_the_miss(goal: Goal, ours: tuple[float, float], sign: int):
    servo = Servo(goal, ours, 2)
    for frame in (0, 1):
        servo.told(frame, *ours)
    order = roles(3, 8)
    aux = start_references(np.zeros((3, 3, 8, 8), np.float32), order, _grey(), 1e-3)
    moved = float(servo.steered(aux, 1.0).log_lambda - aux.log_lambda)
    assert np.sign(moved) == sign
    servo.told(0, *ours)
    assert np.sign(float(servo.steered(aux, 1.0).log_lambda - aux.log_lambda)) == sign


def _grey() -> Planes:
    return tuple(np.full(s, 128, np.uint8) for s in ((8, 8), (4, 4), (4, 4)))  # pyright: ignore[reportReturnType]


def test_first_lambdas_fall_with_quality_and_size():
    luma = np.stack([planes[0] for planes in film(2)])
    target = (np.stack([luma, luma // 2, luma // 3], 1) * (16 / 255)).astype(np.float32)
    assert first_lambda(Goal("lambda", 7e-4), target) == 7e-4
    assert first_lambda(Goal("psnr", 36), target) < first_lambda(Goal("psnr", 26), target)
    assert first_lambda(Goal("bits", 9e4), target) < first_lambda(Goal("bits", 9e3), target)


def test_rare_large_latents_are_coded_as_they_are_under_sharp_distributions():
    """Displacements that were clipped to +-2 moved whole blocks: a decibel of every video."""
    model = inter_base(inter_widths(16))
    residual = [np.zeros(size, np.int32) for size in level_sizes(*SIZE, 5)]
    motion = [[np.zeros(size, np.int32) for size in motion_sizes(*SIZE)] for _ in range(5)]
    residual[1][7, 9], motion[0][1][1, 2], motion[1][2][1, 0] = -8, 8, -8
    coded = code_frame(model, Role(4, 0, 8, 0), residual, motion)
    for found, meant in zip((coded.residual, *coded.motion), (residual, *motion), strict=True):
        for a, b in zip(found.latents, meant, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("cheaper", [0, 1])
def test_a_chain_goes_on_as_the_way_that_costs_less(cheaper: int, monkeypatch: pytest.MonkeyPatch):
    order = roles(4, LOW_DELAY)
    target = np.zeros((4, 3, 8, 8), np.float32)
    aux = start_references(target, order, _grey(), 1e-3)
    servo = Servo(Goal("lambda", 1e-3), (1e-3, 900.0), len(order))
    state = TrainState.start((), optax.sgd(1.0), jax.random.key(0), aux)
    begun = Fitted(state, Bank([()] * len(order), (8, 8)), servo)
    tried: list[Fitted] = []

    def together(fitted: Fitted, group: Group, steps: int, until: int, *_: object) -> Fitted:
        state = dataclasses.replace(fitted.state, step=jnp.int32(until))
        return dataclasses.replace(fitted, state=state)

    def finished(fitted: Fitted, *_: object) -> None:
        for frame in range(len(order)):
            fitted.servo.told(frame, 1e-3, 500.0 + 100 * (len(tried) != cheaper))
        tried.append(fitted)

    monkeypatch.setattr(_video_fit, "_together", together)
    monkeypatch.setattr(_video_fit, "one_by_one", finished)
    monkeypatch.setattr(_video_fit, "rounded", lambda *_: inter_base(inter_widths(16)))
    group = Group(target, order, _grey(), Tell(1, None), 0)
    assert group.chain
    found, _ = _video_fit.fit_together(begun, group, 40, 5)
    assert int(found.state.step) == 40 * len(order)
    costs = [way.servo.cost(prices(aux)) for way in tried]
    assert costs.index(min(costs)) == cheaper
    # The trial itself is forgotten: the finish begins where the steps at all frames ended.
    assert found.servo.cost(prices(aux)) not in costs


def test_costs_are_bits_and_weighted_errors():
    servo = Servo(Goal("lambda", 1e-3), (1e-3, 900.0), 2)
    servo.told(0, 2e-3, 300.0)
    servo.told(1, 3e-3, 200.0)
    servo.told_networks(50.0)
    assert servo.cost([1e5, 2e5]) == pytest.approx(550 + 200 + 600)


@pytest.mark.slow
@pytest.mark.parametrize("low_delay", [False, True])
def test_a_moving_picture_comes_back_and_its_later_frames_cost_little(low_delay: bool):
    frames = film(5, 0.75)
    plan = VideoPlan(Goal("lambda", 1e-3), VideoEffort(200, 60), low_delay=low_delay)
    told = list[tuple[int, int]]()
    found = compress_video(
        frames,
        header(SIZE, 5),
        plan,
        name="a.mp4",
        progress=lambda done, total, _: told.append((done, total)),
    )
    decoded = list(decode_video(found.data))
    errors = [
        float(np.square(a[0].astype(float) - b[0]).mean())
        for a, b in zip(decoded, frames, strict=True)
    ]
    assert max(errors) < 150  # 26 dB
    assert found.psnr > 28
    assert told[-1][0] == told[-1][1]
    still = compress_video(frames[:1], header(SIZE, 1), plan)
    assert len(found.data) < 3.5 * len(still.data)


def test_groups_that_cannot_be_held_are_refused_before_fitting():
    plan = VideoPlan(Goal("lambda", 1e-3), VideoEffort(1, 1), gop=1024)
    with pytest.raises(InputError, match="2\\^28 pixels"):
        compress_video([_grey()] * 1024, dataclasses.replace(header((600, 600), 1024)), plan)
