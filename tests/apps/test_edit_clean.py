"""``edit clean`` on a ball with floaters around it, and what the renderer's gradients say."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from lumefield.apps._edit_clean import Clean, clean
from lumefield.apps._edit_evidence import around, sight_of
from lumefield.apps._edit_scene import Subject, joined
from lumefield.apps._export_prune import contributions
from lumefield.apps._paths import look_at
from lumefield.apps._views import Views
from lumefield.codecs.formats import Splats
from lumefield.errors import InputError

BALL, PLANTED = 3000, 90
C0 = 0.28209479177387814


def silent(stage: str, share: float) -> None:
    """No progress."""


def gaussians(means: np.ndarray, size: float, opacity: float, colour: np.ndarray) -> Splats:
    n = len(means)
    return Splats(
        means=means.astype(np.float32),
        quats_wxyz=np.tile(np.array([1, 0, 0, 0], np.float32), (n, 1)),
        log_scales=np.full((n, 3), np.log(size), np.float32),
        logit_opacities=np.full(n, np.log(opacity / (1 - opacity)), np.float32),
        sh=((colour - 0.5) / C0).astype(np.float32)[:, None],
    )


def cameras(n: int = 14) -> Views:
    rng = np.random.default_rng(5)
    poses = []
    for k in range(n):
        turn = k / n * 2 * np.pi
        eye = np.array([3 * np.cos(turn), 3 * np.sin(turn), rng.uniform(-1, 1)])
        poses.append(look_at(eye, np.zeros(3), np.array([0, 0, 1.0])))
    return Views(
        names=tuple(f"{k}.png" for k in range(n)),
        world_from_cam=np.array(poses),
        focal=np.full((n, 2), 70.0),
        centre=np.full((n, 2), 32.0),
        size=np.full((n, 2), 64),
        held_out=(False,) * n,
    )


@pytest.fixture(scope="module")
def scene() -> Splats:
    """A smooth ball of 3 000 Gaussians, then 90 of random colour before it."""
    rng = np.random.default_rng(0)
    out = rng.normal(size=(BALL, 3))
    out /= np.linalg.norm(out, axis=1)[:, None]
    ball = gaussians(out, 0.07, 0.95, 0.5 + 0.3 * out)
    away = rng.normal(size=(PLANTED, 3)) * (1, 1, 0.4)
    away *= (rng.uniform(1.3, 2.4, PLANTED) / np.linalg.norm(away, axis=1))[:, None]
    return joined([ball, gaussians(away, 0.04, 0.5, rng.uniform(0, 1, (PLANTED, 3)))])


def cleaned(scene: Splats, **wishes: object) -> np.ndarray:
    subject = Subject(scene, cameras(), (0, 0, 0), Path("ball"), None)
    removed = clean(subject, Clean(**wishes), silent).removed  # pyright: ignore[reportArgumentType]
    assert removed is not None
    return removed.why


def test_floaters_go_and_the_ball_stays(scene: Splats):
    why = cleaned(scene, only=("floaters",))
    assert (why[BALL:] == 0).mean() > 0.9
    assert (why[:BALL] == 0).mean() < 0.02
    assert set(np.unique(why)) == {-1, 0}


def test_more_strength_takes_more_of_what_is_near_the_surface(scene: Splats):
    means = scene.means.copy()
    means[BALL:] *= 0.6
    near = dataclasses.replace(scene, means=means)
    some, more = (int((cleaned(near, strength=s) == 0).sum()) for s in (0.0, 1.0))
    assert some < more


def test_what_no_view_sees_goes_and_is_called_so(scene: Splats):
    means = scene.means.copy()
    means[:40] *= 0.2
    why = cleaned(dataclasses.replace(scene, means=means), only=("unseen",))
    assert (why[:40] == 2).all()
    assert (why == 0).sum() == 0


def test_the_gap_is_how_much_farther_one_looks_without(scene: Splats):
    """Two discs on one axis: behind the first comes the second, behind that nothing."""
    pair = gaussians(np.array([[0, 0, 2.0], [0, 0, 3.0]]), 0.3, 0.95, np.full((2, 3), 0.5))
    view = dataclasses.replace(
        cameras(1), world_from_cam=np.eye(4)[None, :3], size=np.full((1, 2), 64)
    )
    seen = sight_of(pair, view, silent, "")
    assert seen.gap[0] == pytest.approx(0.5, abs=0.01)
    assert seen.gap[1] == 0
    np.testing.assert_allclose(seen.weight, contributions(pair, view, silent), rtol=1e-5)
    np.testing.assert_allclose(seen.support, 1)


def test_neighbours_tell_what_is_alone_and_off_the_surface():
    rng = np.random.default_rng(1)
    flat = rng.uniform(-1, 1, (500, 3)) * (1, 1, 0.001)
    points = np.concatenate([flat, np.array([[0, 0, 0.5]])])
    found = around(gaussians(points, 0.02, 0.5, np.full((501, 3), 0.5)), cameras())
    assert found.off_plane[-1] > 20 * np.median(found.off_plane)
    assert found.reach[-1] > 2 * np.median(found.reach)
    tiny = around(gaussians(points[:3], 0.02, 0.5, np.full((3, 3), 0.5)), cameras())
    assert np.isfinite(tiny.reach).all()


def test_unknown_kinds_are_refused(scene: Splats):
    with pytest.raises(InputError, match="--only dust: expected some of floaters, needles, unseen"):
        cleaned(scene, only=("dust",))
