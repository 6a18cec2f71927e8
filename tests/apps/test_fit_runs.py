"""``lumefield fit`` as a whole: runs of every kind, resuming, drawing afterwards, wrong input."""

import hashlib
import json
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray
from PIL import Image
from scipy.io import wavfile

from lumefield.apps import _cli, _signal_gradient, _signal_sdf
from lumefield.apps._run import Run
from lumefield.codecs.formats import load_picture, save_picture

Capsys = pytest.CaptureFixture[str]
STEPS = 40
TINY = ("--field", "siren", "--quality", "draft", "--steps", STEPS)


def fit(*words: object) -> int:
    """The exit code of the command in this process."""
    return _cli.main(["fit", *map(str, words)])


def render(*words: object) -> int:
    """The exit code of drawing a run."""
    return _cli.main(["render", *map(str, words)])


def smooth(height: int, width: int, channels: int = 3) -> NDArray[np.float32]:
    """A smooth picture in [0, 1]."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [0.5 + 0.4 * np.sin(3 * x * (c + 1) + 2 * y) * np.cos(4 * y) for c in range(channels)]
    return np.stack(waves, -1).astype(np.float32)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small file of each kind."""
    folder = tmp_path_factory.mktemp("in")
    save_picture(folder / "photo.png", smooth(12, 16))
    save_picture(folder / "light.exr", 20 * smooth(12, 16) ** 4)
    save_picture(folder / "source.png", 1 - smooth(8, 9))
    mask = np.zeros((8, 9, 1), np.float32)
    mask[2:6, 2:7] = 1
    save_picture(folder / "mask.png", mask)
    trimesh.creation.icosphere(subdivisions=2, radius=3).export(folder / "ball.obj")
    t = np.arange(1500) / 8000
    wave = np.stack([np.sin(900 * t), 0.5 * np.cos(500 * t)], 1)
    wavfile.write(folder / "tone.wav", 8000, (wave * 30000).astype(np.int16))
    (folder / "text.png").write_text("hello")
    (folder / "empty.png").write_bytes(b"")
    (folder / "flat.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")
    return folder


@pytest.fixture(scope="module")
def photo_run(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished fit of a picture; copy it before changing it."""
    out = tmp_path_factory.mktemp("made") / "photo"
    assert fit(inputs / "photo.png", "--out", out, *TINY) == 0
    return out


@pytest.fixture(scope="module")
def ball_run(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished fit of a shape."""
    out = tmp_path_factory.mktemp("made") / "ball"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_signal_sdf, "POOL", {"draft": 4096})
        patch.setattr(_signal_sdf, "RESOLUTION", {"draft": 24})
        patch.setattr(_signal_sdf, "SCORED", 2000)
        assert fit(inputs / "ball.obj", "--out", out, *TINY[:4], "--steps", 200) == 0
    return out


@pytest.fixture(scope="module")
def tone_run(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished fit of a sound."""
    out = tmp_path_factory.mktemp("made") / "tone"
    assert fit(inputs / "tone.wav", "--out", out, *TINY[:4], "--steps", 160) == 0
    return out


def metrics(run: Path) -> dict[str, float]:
    return json.loads((run / "metrics.json").read_text())


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# -- what a run holds ------------------------------------------------------------------------


def test_a_run_of_a_picture_holds_field_picture_scores_and_report(photo_run: Path):
    found = metrics(photo_run)
    assert {"psnr", "seconds", "parameters", "versions", "peak_rss_mb", "backend"} <= set(found)
    assert found["psnr"] > 18
    drawn = load_picture(photo_run / "image.png").values
    wanted = np.round(smooth(12, 16) * 255) / 255
    assert -10 * np.log10(np.mean((drawn - wanted) ** 2)) == pytest.approx(found["psnr"], abs=0.01)
    page = (photo_run / "report.html").read_text()
    assert page.count("<img") >= 3
    assert "<svg" in page
    assert "http" not in page


def test_light_is_fitted_in_a_log_like_space_and_comes_out_as_light(inputs: Path, tmp_path: Path):
    assert fit(inputs / "light.exr", "--out", tmp_path / "run", *TINY) == 0
    drawn = load_picture(tmp_path / "run" / "image.exr").values
    truth = load_picture(inputs / "light.exr").values
    assert drawn.max() > 0.6 * truth.max() > 1
    assert {"psnr", "psnr_linear"} <= set(metrics(tmp_path / "run"))


def test_a_run_of_a_shape_holds_a_closed_mesh_in_the_frame_of_the_input(ball_run: Path):
    found = metrics(ball_run)
    assert found["iou"] > 0.85
    assert found["watertight"] is True
    mesh: Any = trimesh.load(ball_run / "mesh.glb", force="mesh")
    assert mesh.is_watertight
    np.testing.assert_allclose(mesh.extents, 6, atol=0.6)


def test_a_run_of_a_sound_holds_a_sound(tone_run: Path):
    assert metrics(tone_run)["snr"] > 3
    rate, samples = wavfile.read(tone_run / "sound.wav")
    assert (rate, samples.shape, samples.dtype) == (8000, (1500, 2), np.int16)


def test_a_clone_has_the_target_outside_and_the_solution_inside(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_signal_gradient, "POOL", 4096)
    words = ("--source", inputs / "source.png", "--mask", inputs / "mask.png", "--at", "3,2")
    out = tmp_path / "run"
    assert fit(inputs / "photo.png", "--out", out, *words, *TINY[:4], "--steps", 160) == 0
    drawn, solved = (load_picture(out / f"{n}.png").values for n in ("image", "solver"))
    target = load_picture(inputs / "photo.png").values
    outside = np.ones((12, 16), bool)
    outside[4:8, 5:10] = False
    np.testing.assert_allclose(drawn[outside], target[outside], atol=1e-6)
    assert (drawn[~outside] != target[~outside]).any()
    found = metrics(out)
    assert found["psnr"] > found["psnr_paste"]
    assert -10 * np.log10(np.mean((drawn - solved) ** 2)) > 20


def test_the_direct_solution_of_a_source_that_is_the_target_is_the_target():
    target = smooth(12, 16)
    mask = np.zeros((12, 16), bool)
    mask[3:9, 4:12] = True
    clone = _signal_gradient.Clone(target, target + np.float32(0.3), mask, ~mask)
    np.testing.assert_allclose(_signal_gradient.solve(clone), target, atol=1e-6)


# -- resuming --------------------------------------------------------------------------------


def test_an_interrupted_fit_resumes_to_the_same_bytes(
    photo_run: Path, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from lumefield.apps import _signal_run

    monkeypatch.setattr(_signal_run, "CHUNK_NUMBERS", 10 * 12 * 16 * 5)
    original = Run.log

    def logged(self: Run, line: dict[str, object]) -> None:
        original(self, line)
        if line["step"] == 20:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Run, "log", logged)
    out = tmp_path / "run"
    assert fit(inputs / "photo.png", "--out", out, *TINY) == 0
    assert not (out / "metrics.json").exists()
    monkeypatch.setattr(Run, "log", original)
    assert fit(inputs / "photo.png", "--out", out, "--resume") == 0
    assert digest(out / "field.safetensors") == digest(photo_run / "field.safetensors")
    assert digest(out / "image.png") == digest(photo_run / "image.png")


def test_resuming_with_another_input_or_setting_is_refused(
    photo_run: Path, inputs: Path, tmp_path: Path, capsys: Capsys
):
    out = Path(shutil.copytree(photo_run, tmp_path / "run"))
    assert fit(inputs / "source.png", "--out", out, "--resume") == 2
    assert "is not the input that the run" in capsys.readouterr().err
    assert fit(inputs / "photo.png", "--out", out, "--resume", "--seed", 3) == 2
    assert "--seed 3: the run in" in capsys.readouterr().err
    assert fit(inputs / "photo.png", "--out", out, "--resume", "--steps", 5) == 2
    assert "has 40 steps, more than --steps 5" in capsys.readouterr().err


# -- drawing afterwards ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "words", "shape"),
    [
        ("a.png", ("--width", 33), (25, 33, 3)),
        ("a.exr", ("--height", 5, "--width", 4), (5, 4, 3)),
        ("a.jpg", (), (12, 16, 3)),
    ],
)
def test_a_picture_is_drawn_at_any_size(
    photo_run: Path, tmp_path: Path, name: str, words: Sequence[object], shape: tuple[int, ...]
):
    assert render(photo_run, "--out", tmp_path / name, *words) == 0
    assert load_picture(tmp_path / name).values.shape == shape


def test_a_shape_is_drawn_at_any_resolution(ball_run: Path, tmp_path: Path):
    assert render(ball_run, "--out", tmp_path / "a.ply", "--resolution", 12) == 0
    assert render(ball_run, "--out", tmp_path / "b.stl", "--resolution", 20) == 0
    small: Any = trimesh.load(tmp_path / "a.ply", force="mesh")
    large: Any = trimesh.load(tmp_path / "b.stl", force="mesh")
    assert small.is_watertight
    assert len(small.faces) < len(large.faces)


def test_a_sound_is_drawn_at_any_rate(tone_run: Path, tmp_path: Path):
    assert render(tone_run, "--out", tmp_path / "a.wav", "--rate", 16000) == 0
    rate, samples = wavfile.read(tmp_path / "a.wav")
    assert (rate, samples.shape) == (16000, (3000, 2))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "a.mp4"), "the run holds a signal of kind image; expected .png"),
        (("--out", "a.png", "--width", 0), "--width 0: expected 1 to"),
        (("--out", "a.png", "--rate", 8000), "--rate: belongs to runs of kind audio"),
        (("--out", "a.png", "--path", "spiral"), "--path: is for scenes"),
        (("--out", "there.png"), "exists already; give another name or add --overwrite"),
        (("--out", "folder.png"), "is a folder; give another name"),
    ],
)
def test_drawing_what_cannot_be_drawn_is_one_clear_line(
    photo_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capsys,
    words: Sequence[object],
    message: str,
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.png").write_text("mine")
    (tmp_path / "folder.png").mkdir()
    assert render(photo_run, *words) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert (tmp_path / "there.png").read_text() == "mine"


def test_a_damaged_run_is_not_drawn(
    photo_run: Path, ball_run: Path, tone_run: Path, tmp_path: Path, capsys: Capsys
):
    out = Path(shutil.copytree(photo_run, tmp_path / "run"))
    (out / "field.safetensors").write_bytes(b"hello")
    assert render(out, "--out", tmp_path / "a.png") == 2
    assert "field.safetensors: damaged" in capsys.readouterr().err
    shutil.copy(tone_run / "field.safetensors", out)
    assert render(out, "--out", tmp_path / "a.png") == 2
    assert "is missing or of another shape" in capsys.readouterr().err
    (out / "field.safetensors").unlink()
    assert render(out, "--out", tmp_path / "a.png") == 2
    assert "finish the run first" in capsys.readouterr().err
    for run, name in ((photo_run, "a.png"), (ball_run, "a.ply"), (tone_run, "a.wav")):
        copy = Path(shutil.copytree(run, tmp_path / f"copy-{name}"))
        config = json.loads((copy / "config.json").read_text())
        config["facts"] = {}
        (copy / "config.json").write_text(json.dumps(config))
        assert render(copy, "--out", tmp_path / name) == 2
        assert "fit it again" in capsys.readouterr().err
        config["size"] = 3
        (copy / "config.json").write_text(json.dumps(config))
        assert render(copy, "--out", tmp_path / name) == 2
        assert "does not describe its field" in capsys.readouterr().err
        assert not (tmp_path / name).exists()


# -- wrong input -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("missing.png",), "missing.png: no such file or directory; check the path"),
        (("text.png",), "text.png: cannot be read as a picture"),
        (("empty.png",), "empty.png: an empty file, expected a picture"),
        (("flat.obj",), "3 points and no faces"),
        ((".",), "cannot tell what kind of signal this is"),
        ((".", "--as", "image"), "is a folder, expected a file"),
        (("notes.txt",), "cannot tell what kind of signal this is"),
        (("photo.png", "--as", "audio"), "cannot be read as a WAV"),
        (("photo.png", "--field", "magic"), "--field magic: expected one of"),
        (("photo.png", "--field", "voxel"), "--field voxel: d_in=2, expected 3"),
        (("photo.png", "--steps", 0), "--steps 0, expected 1 to"),
        (("photo.png", "--seed", -1), "--seed -1, expected 0 to"),
        (("photo.png", "--resume", "--overwrite"), "give one of them"),
        (("photo.png", "--resume"), "holds no run to resume"),
        (("photo.png", "--mask", "mask.png"), "--mask: belongs to a gradient, not to image"),
        (("photo.png", "--source", "source.png"), "needs --source and --mask; give both"),
        (("photo.png", "--as", "gradient"), "needs --source and --mask; give both"),
    ],
)
def test_wrong_input_is_one_clear_line_and_leaves_nothing(
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capsys,
    words: Sequence[object],
    message: str,
):
    monkeypatch.chdir(inputs)
    assert fit(*words, "--out", tmp_path / "run") == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("mask", "at", "message"),
    [
        ("photo.png", "0,0", "16x12 pixels, expected the 9x8 of"),
        ("black.png", "0,0", "is black all over; paint white what is to be cloned"),
        ("mask.png", "12,2", "expected within the 16x12 pixels of"),
        ("mask.png", "1", "--at 1: expected a column and a row, such as 120,80"),
    ],
)
def test_a_mask_that_does_not_fit_is_one_clear_line(
    inputs: Path, tmp_path: Path, capsys: Capsys, mask: str, at: str, message: str
):
    if mask == "black.png":
        Image.fromarray(np.zeros((8, 9), np.uint8)).save(inputs / "black.png")
    words = ("--source", inputs / "source.png", "--mask", inputs / mask, "--at", at)
    assert fit(inputs / "photo.png", "--out", tmp_path / "run", *words) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_light_is_not_cloned(inputs: Path, tmp_path: Path, capsys: Capsys):
    words = ("--source", inputs / "light.exr", "--mask", inputs / "photo.png")
    assert fit(inputs / "photo.png", "--out", tmp_path / "run", *words) == 2
    assert "cloning works on display colours" in capsys.readouterr().err


def test_a_mask_without_a_border_is_refused(inputs: Path, tmp_path: Path, capsys: Capsys):
    Image.fromarray(np.full((12, 16), 255, np.uint8)).save(inputs / "white.png")
    words = ("--source", inputs / "photo.png", "--mask", inputs / "white.png")
    assert fit(inputs / "photo.png", "--out", tmp_path / "run", *words) == 2
    assert "leave a border" in capsys.readouterr().err


def test_a_picture_of_one_pixel_is_refused(tmp_path: Path, capsys: Capsys):
    save_picture(tmp_path / "one.png", smooth(1, 1))
    assert fit(tmp_path / "one.png", "--out", tmp_path / "run") == 2
    assert "1x1 pixels, expected at least 2x2" in capsys.readouterr().err


def test_a_taken_folder_and_a_run_of_train_are_left_alone(
    photo_run: Path, inputs: Path, tmp_path: Path, capsys: Capsys
):
    assert fit(inputs / "photo.png", "--out", photo_run) == 2
    assert "already holds a run" in capsys.readouterr().err
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps({"format": 1, "settings": {}}))
    assert fit(inputs / "photo.png", "--out", other, "--resume") == 2
    assert "was made by `lumefield train`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("evaluate",), "holds no scene; a fitted signal is drawn by"),
        (("inspect",), "holds no scene; a fitted signal is drawn by"),
        (("train", "photos", "--resume", "--out"), "was made by `lumefield fit`; resume it with"),
    ],
)
def test_a_run_of_fit_is_no_scene(
    photo_run: Path, words: tuple[str, ...], line: str, capsys: Capsys
):
    words = tuple(str(photo_run.parent) if w == "photos" else w for w in words)
    assert _cli.main([*words, str(photo_run)]) == 2
    assert line in capsys.readouterr().err


def test_an_overwritten_run_keeps_nothing_of_the_earlier_one(
    tone_run: Path, inputs: Path, tmp_path: Path
):
    out = Path(shutil.copytree(tone_run, tmp_path / "run"))
    assert fit(inputs / "photo.png", "--out", out, *TINY, "--overwrite") == 0
    assert not (out / "sound.wav").exists()
    assert metrics(out)["signal"] == "image"
