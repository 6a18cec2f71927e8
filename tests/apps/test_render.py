"""``render``: pictures and videos along paths, and what is refused."""

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from lumefield.apps._render import Render, plan, render
from lumefield.apps._render_out import DEPTH_STEPS
from lumefield.apps._scene_io import Picture, load_scene, make_draw, read_json, run_background
from lumefield.apps._views import Views
from lumefield.errors import InputError, RunError


def draw(views: Views) -> Picture:
    """Orange everywhere, two units away."""
    width, height = views.size[0]
    rgb = np.broadcast_to(np.array([1.0, 0.5, 0.1]), (height, width, 3))
    return Picture(rgb, np.full((height, width), 2.0))


@pytest.mark.parametrize("path", ["orbit", "spiral"])
def test_a_video_has_every_frame_in_the_right_colour(run: Path, tmp_path: Path, path: str):
    out = render(Render(run, tmp_path / "out.mp4", path, frames=7, width=33), draw=draw)
    with av.open(out) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 30
    assert len(frames) == 7
    assert frames[0].shape == (22, 32, 3)
    assert np.abs(frames[3].reshape(-1, 3).mean(0) - [255, 127.5, 25.5]).max() < 6


def test_a_folder_gets_one_picture_a_frame(run: Path, tmp_path: Path):
    out = render(Render(run, tmp_path / "frames", frames=3, height=8), draw=draw)
    files = sorted(out.iterdir())
    assert [f.name for f in files] == [f"frame_{k:05d}.png" for k in range(3)]
    with Image.open(files[0]) as first:
        assert first.size == (12, 8)


def test_the_test_path_draws_the_held_out_views_by_name(run: Path, tmp_path: Path):
    out = render(Render(run, tmp_path / "frames", "test"))
    assert sorted(f.name for f in out.iterdir()) == ["img_0.png", "img_8.png"]
    scene = load_scene(run)
    assert scene.views is not None
    rgb = make_draw(scene.splats)(scene.views.pick([0])).rgb
    assert rgb.std() > 0.05
    written = np.asarray(Image.open(out / "img_0.png"), np.float32) / 255
    np.testing.assert_allclose(written, np.clip(rgb, 0, 1), atol=0.502 / 255)


def test_a_keyframe_file_is_followed(run: Path, tmp_path: Path):
    path = tmp_path / "path.json"
    frames = [{"time": t, "position": [3, t, 1], "look_at": [0, 0, 0]} for t in (0, 1)]
    path.write_text(json.dumps({"fps": 4, "frames": frames}))
    out = render(Render(run, tmp_path / "out.mp4", str(path)), draw=draw)
    with av.open(out) as container:
        assert len(list(container.decode(video=0))) == 5
        assert container.streams.video[0].average_rate == 4


def test_depth_pictures_hold_world_units(run: Path, tmp_path: Path):
    out = render(Render(run, tmp_path / "frames", frames=2, depth=True), draw=draw)
    step = json.loads((out / "depth.json").read_text())["world_units_per_step"]
    depth = np.asarray(Image.open(out / "frame_00000.depth.png"))
    assert depth.dtype == np.uint16
    assert depth.max() <= DEPTH_STEPS
    np.testing.assert_allclose(depth * step, 2, atol=step)
    assert render(Render(run, tmp_path / "d.mp4", frames=2, depth=True), draw=draw).is_file()


def test_a_bare_splat_file_is_seen_in_its_orbit(run: Path, tmp_path: Path):
    settings = Render(run / "scene.ply", tmp_path / "frames", frames=2, width=48)
    files = sorted(render(settings).iterdir())
    for file in files:
        assert np.asarray(Image.open(file)).max() > 40
    scene = load_scene(run / "scene.ply")
    assert plan(settings, scene)[0].size.tolist() == [[48, 27]] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "zigzag"}, "expected orbit, spiral, test or a keyframe file"),
        ({"path": "absent.json"}, "expected orbit, spiral, test or a keyframe file"),
        ({"out": "x.avi"}, r"expected a \.mp4 file or a folder"),
        ({"width": 0}, "expected 1 to 8192 pixels"),
        ({"frames": 0}, "expected 1 to 100000"),
        ({"fps": -1}, "expected more than 0"),
        ({"out": "x.mp4", "width": 1}, "at least 2x2"),
        ({"scene": "absent.ply"}, "no such file or folder"),
        ({"scene": "config.json"}, "not a scene"),
        ({"scene": "scene.ply", "path": "test"}, "no held-out views"),
    ],
)
def test_bad_settings_are_refused_in_one_line(run: Path, tmp_path: Path, change, message):
    values: dict[str, Any] = {"scene": "", "out": "new", "path": "orbit", **change}
    scene, out = run / values.pop("scene"), tmp_path / values.pop("out")
    with pytest.raises(InputError, match=message) as caught:
        render(Render(scene, out, **values), draw=draw)
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_nothing_is_written_over_unasked(run: Path, tmp_path: Path):
    out = tmp_path / "out.mp4"
    out.write_text("precious")
    with pytest.raises(InputError, match="exists already"):
        render(Render(run, out), draw=draw)
    assert out.read_text() == "precious"
    render(Render(run, out, frames=2, overwrite=True), draw=draw)
    assert out.stat().st_size > 100
    (tmp_path / "plain").write_text("")
    with pytest.raises(InputError, match="is a file"):
        render(Render(run, tmp_path / "plain", overwrite=True), draw=draw)
    (tmp_path / "d.mp4").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        render(Render(run, tmp_path / "d.mp4"), draw=draw)


def test_a_failure_half_way_leaves_no_video(run: Path, tmp_path: Path):
    def broken(views: Views) -> Picture:
        if views.names[0].endswith("3"):
            raise RuntimeError("half way")
        return draw(views)

    with pytest.raises(RuntimeError, match="half way"):
        render(Render(run, tmp_path / "out" / "x.mp4", frames=6), draw=broken)
    assert not list((tmp_path / "out").iterdir())


def test_gaussians_that_are_not_finite_are_left_out(run: Path):
    from dataclasses import replace

    from lumefield.codecs.formats import load_splats, save_splats

    splats = load_splats(run / "scene.ply")
    means = splats.means.copy()
    means[3] = np.nan
    save_splats(replace(splats, means=means), run / "scene.ply")
    assert len(load_scene(run).splats.means) == len(means) - 1


def test_the_background_of_a_run_is_read_from_its_settings(run: Path):
    assert run_background(run) == (0, 0, 0)
    (run / "config.json").write_text('{"background": [1, 0.5, 0]}')
    assert run_background(run) == (1, 0.5, 0)
    for text, message in (("{", "not valid JSON"), ("[]", "expected a JSON object")):
        (run / "config.json").write_text(text)
        with pytest.raises(RunError, match=message):
            read_json(run / "config.json")
