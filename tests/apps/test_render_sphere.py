"""``render`` for headsets: what videos say of themselves, passes, and what is refused."""

import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.sidedata.sidedata import Type
from PIL import Image

from lumefield.apps._render import Render, render
from lumefield.apps._render_out import normals
from lumefield.apps._scene_io import Picture
from lumefield.apps._sphere import Sphere
from lumefield.apps._views import Views
from lumefield.codecs.formats import save_splats
from lumefield.errors import InputError
from tests.apps.sphere_cases import EYE, around, blobs, expected, found


def written(path: Path, count: int = 2) -> Path:
    """A scene file of one blob ahead and left, one behind, and a path of ``count`` frames."""
    places = np.concatenate([around([-20], 10, 0.5), around([170], -5, 0.5), around([60], 0, 3)])
    save_splats(blobs(places, np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1.0]]), 0.05), path / "s.ply")
    ahead = (EYE + np.array([1.0, 0.5, -0.7])).tolist()  # the camera looks down; the head will not
    frames = [{"time": t, "position": EYE.tolist(), "look_at": ahead} for t in range(count)]
    (path / "path.json").write_text(json.dumps({"fps": 1, "frames": frames}))
    return path / "s.ply"


def sides(path: Path) -> dict[Type, Any]:
    """The side data of the first frame as FFmpeg's libraries hand it over."""
    with av.open(path) as container:
        frame = next(container.decode(video=0))
        both: Any = frame.side_data
        return {data.type: bytes(data) for data in both}


@pytest.mark.parametrize(
    ("layout", "stereo", "mode"),
    [
        ("vr180", None, 1),
        ("vr360", None, 2),
        ("vr360", "off", 0),
    ],
)
def test_a_video_says_what_sphere_it_is(layout, stereo, mode, tmp_path: Path, capsys):
    scene = written(tmp_path)
    out = tmp_path / "out.mp4"
    flags: dict[str, Any] = {} if stereo == "off" else {"scale_to_metres": 1.0, "ipd": 0.07}
    render(
        Render(scene, out, str(tmp_path / "path.json"), height=128, layout=layout, stereo=stereo,
               **flags)
    )  # fmt: skip
    assert f", {layout}, stereo" in capsys.readouterr().out.replace("\n", " ")
    found_in = sides(out)
    assert struct.unpack_from("<i", found_in[Type.STEREO3D])[0] == mode  # 1 side by side, 2 top
    kind, yaw, pitch, roll, left, top, right, bottom = struct.unpack_from(
        "<i3i4I", found_in[Type.SPHERICAL]
    )
    assert (yaw, pitch, roll, top, bottom) == (0, 0, 0, 0, 0)
    if layout == "vr360":
        assert (kind, left, right) == (0, 0, 0)  # equirectangular
    else:
        assert kind == 2  # the same, cut
        assert left == right == 2**30
    data = out.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(out) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
    assert len(frames) == 2
    if stereo == "off":
        return
    stereo = stereo or ("side-by-side" if layout == "vr180" else "top-bottom")
    rows = 128 if stereo == "side-by-side" else 64
    sphere = Sphere(180 if layout == "vr180" else 360, stereo, rows, 0.035)
    place = around([-20], 10, 0.5)[0]
    for eye, part in zip((-1, 1), sphere.apart(frames[0].astype(np.float32)), strict=True):
        at = expected(sphere, place, eye)
        red = np.clip(part[..., 0] - part[..., 1] - 16, 0, None)
        np.testing.assert_allclose(found(red, at, rows // 12), at, atol=0.5)


def test_ffprobe_reads_the_stereo_mode_and_the_projection(tmp_path: Path):
    program = shutil.which("ffprobe")
    if program is None:
        pytest.skip("ffprobe is not installed (apt-get install ffmpeg)")
    scene, keys = written(tmp_path), str(tmp_path / "path.json")
    wanted = {
        "vr180": ("side by side", "tiled equirectangular"),
        "vr360": ("top and bottom", "equirectangular"),
    }
    for layout, (stereo, projection) in wanted.items():
        out = tmp_path / f"{layout}.mp4"
        render(Render(scene, out, keys, height=128, layout=layout))  # type: ignore[arg-type]
        words = [program, "-v", "error", "-of", "json", "-show_streams", str(out)]
        text = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        data = json.loads(text)["streams"][0]["side_data_list"]
        assert data[0] == {"side_data_type": "Stereo 3D", "type": stereo, "inverted": 0}
        assert data[1]["projection"] == projection


def test_all_passes_are_drawn_at_once(tmp_path: Path):
    scene, keys = written(tmp_path, 1), str(tmp_path / "path.json")
    three: Any = ("rgb", "depth", "normal")
    flags: dict[str, Any] = {"layout": "vr360", "height": 128, "scale_to_metres": 1.0}
    out = render(Render(scene, tmp_path / "out", keys, passes=three, **flags))
    names = {f.name for f in out.iterdir()}
    stem = "frame_00000"
    assert names == {
        *(f"{stem}.png", f"{stem}.depth.png", f"{stem}.normal.png"),
        *("depth.json", "normal.json"),
    }
    facts = json.loads((out / "depth.json").read_text())
    assert facts["axis"] == "ray"
    sphere = Sphere(360, "top-bottom", 64, 0.0315)
    steps = np.asarray(Image.open(out / f"{stem}.depth.png"), np.float32)
    depth = np.asarray(steps * facts["world_units_per_step"], np.float32)
    shade = np.asarray(Image.open(out / f"{stem}.normal.png"))
    normal = np.asarray(shade / 255 * 2 - 1, np.float32)
    place = around([170], -5, 0.5)[0]
    for eye, far, facing in zip((-1, 1), sphere.apart(depth), sphere.apart(normal), strict=True):
        column, row = (int(v) for v in expected(sphere, place, eye))
        away = place - sphere.origins(eye)[row, column]
        assert far[row, column] == pytest.approx(np.linalg.norm(away), rel=0.02)
        towards = -sphere.directions()[row, column] * [1, -1, -1]
        assert facing[row, column] @ towards > 0.95
    render(Render(scene, tmp_path / "a.mp4", keys, passes=three, **flags))
    for name in ("a.mp4", "a.depth.mp4", "a.normal.mp4"):
        assert Type.SPHERICAL in sides(tmp_path / name)
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(InputError, match=r"a\.depth\.mp4: exists already"):
        render(Render(scene, tmp_path / "a.mp4", keys, passes=three, **flags))


def test_normals_of_a_plane_and_of_a_step():
    rows, columns = np.meshgrid(np.arange(80) / 80 - 0.5, np.arange(100) / 80 - 0.6, indexing="ij")
    ways = np.stack([columns, rows, np.ones_like(rows)], -1)
    normal = np.array([0.3, -0.5, -0.8])
    normal /= np.linalg.norm(normal)
    depth = -2 / (ways @ normal)
    depth[depth < 0] = 0
    out = normals(ways * depth[..., None])
    seen = depth > 0
    assert (out[seen] @ normal).mean() > 0.999  # the border of the picture is less good
    assert (out[seen] @ normal).min() > 0.98
    near = np.where(columns < 0.05, 1.0, 3.0)  # two walls, one behind the other
    out = normals(ways * near[..., None])
    assert (out[3:-3, 3:-3, 2] < -0.99).mean() > 0.98  # smoothing ends at borders
    assert (out[..., 2] < -0.95).all()
    far = normals(np.zeros((4, 5, 3)))
    np.testing.assert_array_equal(far, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layout": "mono", "stereo": "top-bottom"}, "--stereo: does nothing for --layout mono"),
        ({"layout": "mono", "ipd": 0.06}, "--ipd: does nothing for --layout mono"),
        ({"layout": "mono", "scale_to_metres": 1.0}, "--scale-to-metres: does nothing"),
        ({"ipd": 0.0}, "--ipd 0: expected 0.0001 to 10 metres"),
        ({"ipd": -0.06}, "--ipd -0.06: expected"),
        ({"ipd": float("nan")}, "--ipd nan: expected"),
        ({"scale_to_metres": 0.0}, "--scale-to-metres 0: expected"),
        ({"stereo": "off", "ipd": 0.06}, "--ipd: does nothing for --stereo off"),
        ({"height": 65}, "--height 65: expected a multiple of 2"),
        ({"width": 130}, "--width 130: expected a multiple of 4"),
        ({"layout": "vr360", "width": 66, "stereo": "off"}, "leaves 33 rows an eye"),
        ({"layout": "vr360", "height": 66}, "--height 66: expected a multiple of 4"),
        ({"width": 128, "height": 128}, "is 2:1, expected 128x64"),
        ({"layout": "vr360", "stereo": "side-by-side", "height": 4096}, "at most 8192 a side"),
        ({"depth": True, "passes": ("rgb", "normal")}, "short for --passes depth"),
        ({"passes": ()}, "each pass at most once"),
        ({"passes": ("rgb", "rgb")}, "each pass at most once"),
    ],
)
def test_what_cannot_be_shown_is_refused(tmp_path: Path, change, message):
    scene = written(tmp_path, 1)
    values: dict[str, Any] = {"layout": "vr180", **change}

    def draw(views: Views) -> Picture:
        raise AssertionError("nothing may be drawn")

    with pytest.raises(InputError, match=message) as caught:
        render(
            Render(scene, tmp_path / "out.mp4", str(tmp_path / "path.json"), **values), draw=draw
        )
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.mp4").exists()
