"""The page that ``export`` writes: what is in it, what stands upright, what is refused."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lumefield.apps import _export_html, _page
from lumefield.apps._cli import main
from lumefield.apps._export_html import write_html
from lumefield.apps._page import Part, scene_stand, settings, stand, whole_page
from lumefield.apps._paths import look_at
from lumefield.apps._views import Views
from lumefield.codecs.formats import Splats, load_splats
from lumefield.errors import InputError, RunError

NASTY = "</title><script>alert(1)</script><!-- & \"'"


def splats(n: int = 40, up: tuple[float, float, float] | None = None) -> Splats:
    rng = np.random.default_rng(0)
    return Splats(
        means=rng.uniform(-1, 1, (n, 3)).astype(np.float32),
        quats_wxyz=np.tile(np.array([1, 0, 0, 0], np.float32), (n, 1)),
        log_scales=np.full((n, 3), -3, np.float32),
        logit_opacities=np.full(n, 3, np.float32),
        sh=rng.normal(size=(n, 1, 3)).astype(np.float32),
        up=up,
    )


def ring(up: np.ndarray, n: int = 8, height: float = 0.5) -> Views:
    """Cameras around the origin, level, ``up`` upwards."""
    east = np.linalg.svd(up[None])[2][1]
    north = np.cross(up, east)
    turns = np.arange(n) / n * 2 * np.pi
    eyes = [3 * (np.cos(t) * east + np.sin(t) * north) + height * up for t in turns]
    poses = np.array([look_at(eye, np.zeros(3), up) for eye in eyes])
    return Views(
        names=tuple(f"{NASTY}{k}.jpg" for k in range(n)),
        world_from_cam=poses,
        focal=np.full((n, 2), 300.0),
        centre=np.tile([160.0, 120.0], (n, 1)),
        size=np.tile(np.array([320, 240]), (n, 1)),
        held_out=tuple(k == 0 for k in range(n)),
    )


def rotation(xyzw: list[float]) -> np.ndarray:
    x, y, z, w = np.array(xyzw) / np.linalg.norm(xyzw)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + 2 * w * cross + 2 * cross @ cross


def between(page: str, before: str, after: str) -> str:
    return page.split(before, 1)[1].split(after, 1)[0]


def record_of(page: str) -> dict[str, Any]:
    return json.loads(between(page, 'id="settings">', "</script>"))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("html") / "scene.html"
    views = ring(np.array([0.0, -1, 0]))
    write_html(splats(), views, out, title=NASTY, background=(1.0, 0.5, 0.0), poster=False)
    return out


def test_the_page_names_no_address_outside_the_script(written: Path):
    page = written.read_text("utf-8")
    rest = page.replace(_page.inline_script(_page.asset("bundle.js").decode()), "")
    assert len(rest) < len(page) - 1_000_000
    assert re.findall(r"https?:|//[a-z]", rest) == []
    assert re.findall(r"\b(?:src|href)=\"(?!data:)[^\"]*", rest) == []


def test_the_policy_lets_only_the_script_of_the_page_run(written: Path):
    page = written.read_text("utf-8")
    policy = between(page, 'Security-Policy" content="', '"')
    script = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}' 'wasm-unsafe-eval'; worker-src blob:;" in policy
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_names_from_files_reach_the_page_as_text_only(written: Path):
    page = written.read_text("utf-8")
    assert "<script>alert" not in page
    assert page.count("&lt;/title&gt;&lt;script&gt;alert(1)") == 2
    record = record_of(page)
    assert record["title"] == NASTY
    assert record["cameras"][3]["name"] == f"{NASTY}3.jpg"


def test_names_that_look_like_slots_of_the_template_are_not_filled():
    at, views = scene_stand(splats(), ring(np.array([0.0, -1, 0])))
    part = Part("{{data}}", "spz", 1, 1, False, {"element": "scene-0"})
    page = whole_page(settings("{{script}}", [part], at, views, (0, 0, 0)), [], None).decode()
    assert "<title>{{script}}</title>" in page
    assert record_of(page)["scenes"][0]["name"] == "{{data}}"


def test_the_scene_in_the_page_is_the_scene(written: Path, tmp_path: Path):
    page = written.read_text("utf-8")
    coded = between(page, 'id="scene-0">', "</script>")
    file = tmp_path / "again.spz"
    file.write_bytes(base64.b64decode(coded, validate=True))
    np.testing.assert_allclose(load_splats(file).means, splats().means, atol=2e-4)
    record = record_of(page)
    assert record["scenes"][0]["count"] == 40
    assert record["scenes"][0]["bytes"] == file.stat().st_size
    assert record["background"] == "#ff8000"
    assert [camera["heldOut"] for camera in record["cameras"]] == [True] + [False] * 7


@pytest.mark.parametrize(
    "up", [(0, -1, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0), (0.6, -0.64, 0.48), (0, 1, 1e-6)]
)
def test_any_scene_stands_upright_and_its_cameras_look_where_they_looked(up):
    up = np.array(up, float) / np.linalg.norm(up)
    views = ring(up)
    at, _ = scene_stand(splats(), views)
    np.testing.assert_allclose(at.turn @ at.turn.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(at.turn) == pytest.approx(1)
    np.testing.assert_allclose(at.turn @ up, [0, 1, 0], atol=1e-6)
    record = settings("", [], at, views, (0, 0, 0))
    np.testing.assert_allclose(rotation(record["pageFromScene"]), at.turn, atol=1e-6)
    for camera, pose in zip(record["cameras"], views.world_from_cam, strict=True):
        axes = rotation(camera["rotation"])  # right, up, backward
        np.testing.assert_allclose(axes[:, 0], at.turn @ pose[:, 0], atol=1e-6)
        np.testing.assert_allclose(axes[:, 1], at.turn @ -pose[:, 1], atol=1e-6)
        np.testing.assert_allclose(axes[:, 2], at.turn @ -pose[:, 2], atol=1e-6)
        np.testing.assert_allclose(camera["position"], at.turn @ pose[:, 3], atol=1e-6)
        assert camera["shift"] == [0.0, 0.0]


def test_floor_centre_radius_and_scale_are_found():
    rng = np.random.default_rng(1)
    points = np.concatenate([rng.uniform([-1, 0, -1], [1, 1, 1], (500, 3)), np.zeros((1, 3))])
    up = np.array([0.0, -1, 0])
    at = stand(points, np.ones(len(points)), ring(up), up)
    np.testing.assert_allclose(at.centre, 0, atol=1e-6)
    assert at.radius == pytest.approx(np.hypot(3, 0.5))
    assert at.floor == pytest.approx(-1, abs=0.05)
    assert at.metres == pytest.approx(1.55 / 1.5, rel=0.05)
    assert stand(points, np.ones(len(points)), ring(up), up, metres=0.3).metres == 0.3


def test_the_scale_is_that_of_the_room_where_cameras_are_not_above_the_floor():
    points = np.zeros((5, 3))
    up = np.array([0.0, -1, 0])
    at = stand(points, np.ones(5), ring(up, height=0.0), up)
    assert at.metres == pytest.approx(2.5 / 3)


def test_a_bare_file_is_looked_at_from_all_around_with_the_up_it_names():
    at, views = scene_stand(splats(up=(0.0, 0.0, -1.0)), None)
    assert views.names == tuple(f"view {k}" for k in range(1, 9))
    np.testing.assert_allclose(at.turn @ [0, 0, -1], [0, 1, 0], atol=1e-9)


def test_of_very_many_cameras_every_so_many_is_listed():
    up = np.array([0.0, -1, 0])
    at, views = scene_stand(splats(), ring(up, n=_page.MAX_CAMERAS * 2 + 1))
    assert len(settings("", [], at, views, (0, 0, 0))["cameras"]) == _page.MAX_CAMERAS * 2 // 3 + 1


def test_a_scene_without_gaussians_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="holds no Gaussians, expected at least one"):
        write_html(splats(0), None, tmp_path / "a.html", title="a")
    assert list(tmp_path.iterdir()) == []


def test_a_scene_too_large_for_a_page_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(_export_html, "MAX_SCENE", 100)
    with pytest.raises(InputError, match="a page holds at most 0 MB; give a smaller --max-splats"):
        write_html(splats(), None, tmp_path / "a.html", title="a", poster=False)
    assert list(tmp_path.iterdir()) == []


def test_a_viewer_that_was_not_built_is_told():
    with pytest.raises(RunError, match="is not built; run `make viewer`"):
        _page.asset("nothing.js")


def test_no_parser_ends_the_script_early():
    text = _page.inline_script("a='</script>'; b='</SCRIPT >'; c='<!-- x';")
    assert re.findall(r"</script|<!--", text, re.IGNORECASE) == []


def test_the_notices_of_others_are_in_the_bundle_and_beside_it():
    notices = _page.asset("THIRD_PARTY.txt").decode()
    bundle = _page.asset("bundle.js").decode()
    assert notices.count("Permission is hereby granted") == 3
    assert notices.strip() in bundle
    for name in ("three 0.", "@sparkjsdev/spark 2.", "fflate 0."):
        assert name in notices


def test_the_command_writes_a_page_with_a_poster_and_tells_its_sizes(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "page.html"
    assert main(["export", str(run), "--out", str(out)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    page = out.read_text("utf-8")
    assert 'src="data:image/jpeg;base64,' in page
    assert "run <1>" not in page.replace(json.dumps("run <1>"), "")
    assert re.search(r"60 Gaussians .*MB: scene .*viewer 3\.\d MB, poster \d+ kB; opens in", told)
    assert f"{out.stat().st_size / 1e6:.1f} MB" in told
    record = record_of(page)
    assert record["title"] == "run <1>"
    assert len(record["cameras"]) == 10
