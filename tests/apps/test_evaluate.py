"""``evaluate``: the scores of a run, and how images are named and scored."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lumefield.apps._evaluate import Evaluate, evaluate, image_stems, save_renders, score_views
from lumefield.apps._scene_io import Picture, load_scene, make_draw
from lumefield.errors import RunError


def flat(size: tuple[int, int], value: int) -> np.ndarray:
    return np.full((*size, 3), value, np.uint8)


def test_scores_are_those_of_the_definition():
    scores = score_views([flat((16, 20), 100)], [flat((16, 20), 110)], ["a"])
    assert scores["psnr"] == pytest.approx(10 * np.log10(255**2 / 100), abs=1e-3)
    assert scores["views"][0]["name"] == "a"
    assert 0.9 < scores["ssim"] < 1


def test_equal_images_score_one_hundred_and_one():
    image = np.random.default_rng(0).integers(0, 255, (16, 20, 3), np.uint8)
    scores = score_views([image], [image], ["a"])
    assert scores["psnr"] == 100
    assert scores["ssim"] == pytest.approx(1)


def test_ssim_is_that_of_an_independent_convolution():
    from scipy.ndimage import correlate1d

    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 255, (20, 24, 3), np.uint8) for _ in range(2))
    window = np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2)
    window /= window.sum()

    def blur(x: np.ndarray) -> np.ndarray:
        for axis in (0, 1):
            x = correlate1d(x, window, axis=axis, mode="constant")
        return x

    x, y = a / 255.0, b / 255.0
    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    ssim = ((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()
    assert score_views([a], [b], ["a"])["ssim"] == pytest.approx(ssim, abs=2e-5)


@pytest.mark.parametrize("names", [[], ["a", "b"]])
def test_scoring_needs_one_name_an_image(names):
    with pytest.raises(ValueError, match="expected as many of each"):
        score_views([flat((4, 4), 0)] * len(names[:1]), [flat((4, 4), 0)] * len(names[:1]), names)


def test_scoring_needs_equal_sizes():
    with pytest.raises(ValueError, match="must be equal"):
        score_views([flat((4, 4), 0)], [flat((4, 5), 0)], ["a"])


def test_stems_stay_apart():
    assert image_stems(["a.jpg", "sub/b.png"]) == ("a", "b")
    assert image_stems(["x/a.jpg", "y/a.jpg"]) == ("x_a.jpg", "y_a.jpg")


def test_evaluate_draws_the_held_out_views_again_and_keeps_the_other_facts(run: Path):
    metrics = evaluate(Evaluate(run))
    assert [v["name"] for v in metrics["views"]] == ["img_0.jpg", "img_8.jpg"]
    assert metrics == json.loads((run / "metrics.json").read_text())
    assert metrics["method"] == "splat"
    assert metrics["timings"]["evaluation"] > 0
    scene = load_scene(run)
    assert scene.views is not None
    again = make_draw(scene.splats)(scene.views.pick([8])).rgb
    written = np.asarray(Image.open(run / "renders" / "img_8.png"), np.float32) / 255
    np.testing.assert_allclose(written, np.clip(again, 0, 1), atol=0.502 / 255)


def test_evaluating_a_perfect_scene_gives_one_hundred(run: Path):
    truth = [
        np.asarray(Image.open(run / "renders" / f"img_{k}.truth.png"), np.float32) / 255
        for k in (0, 8)
    ]
    frames = iter(truth)
    metrics = evaluate(Evaluate(run), draw=lambda _: Picture((f := next(frames)), f[..., 0]))
    assert metrics["psnr"] == 100


def test_evaluate_says_what_a_run_lacks(run: Path):
    draw = lambda views: Picture(np.zeros((*views.size[0, ::-1], 3)), np.zeros(views.size[0, ::-1]))  # noqa: E731
    save_renders(run, ["img_0.jpg"], [flat((4, 4), 0)], [flat((4, 4), 0)])
    with pytest.raises(RunError, match="like its camera"):
        evaluate(Evaluate(run), draw=draw)
    (run / "renders" / "img_0.truth.png").write_text("no picture")
    with pytest.raises(RunError, match="cannot be read"):
        evaluate(Evaluate(run), draw=draw)
    cameras = run / "capture" / "cameras.json"
    cameras.write_text(cameras.read_text().replace('"held_out": true', '"held_out": false'))
    with pytest.raises(RunError, match="no held-out views"):
        evaluate(Evaluate(run))
    cameras.unlink()
    with pytest.raises(RunError, match="needs a run"):
        evaluate(Evaluate(run))
    (run / "scene.ply").unlink()
    with pytest.raises(RunError, match=r"no scene\.ply"):
        evaluate(Evaluate(run))
