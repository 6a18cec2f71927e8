"""What ``train`` cannot do is said in one line with exit code 2, and a good run stays as it is."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lumefield.apps._plan import check_memory, make_plan
from lumefield.apps._train_settings import Train, check
from tests.apps.posed_folder import texture
from tests.apps.test_capture_errors import (
    empty,
    missing,
    one_photo_in_a_folder,
    silent_film,
    text,
    text_named_mp4,
    texts_named_jpg,
)
from tests.apps.train_cases import (
    ROOT,
    SHORT,
    SIZE,
    Capsys,
    contents,
    only_line,
    posed_room,
    run,
    train_here,
    transforms_room,
)

# -- inputs ----------------------------------------------------------------------------------


def absent_photos(folder: Path) -> Path:
    return transforms_room(folder / "room", absent=9)


def nan_pose(folder: Path) -> Path:
    return transforms_room(folder / "room", nan=1)


def broken_json(folder: Path) -> Path:
    (folder / "transforms.json").write_text('{"frames": [')
    return folder


def no_overlap(folder: Path) -> Path:
    for i in range(3):
        Image.fromarray(texture(i, 256)).save(folder / f"{i}.jpg")
    return folder


INPUTS = [
    (empty, "holds no photos; expected a folder of photos"),
    (missing, "does not exist; expected a folder of photos"),
    (one_photo_in_a_folder, "one photo of 1 can be used, expected at least two"),
    (texts_named_jpg, "skipped 3 files that are not photos: a.jpg"),
    (text, "is not an input that can be trained on"),
    (text_named_mp4, "cannot be decoded as a video"),
    (silent_film, "has no picture in it"),
    (absent_photos, "none of its 9 images exists"),
    (nan_pose, "images/00.png holds NaN or infinity"),
    (broken_json, "is not JSON"),
    (no_overlap, "none of the 3 photos could be placed"),
]


@pytest.mark.parametrize(("make", "message"), INPUTS, ids=[make.__name__ for make, _ in INPUTS])
def test_a_bad_input_leaves_no_folder_and_no_trace_in_a_good_run(
    make: Callable[[Path], Path], message: str, good: Path, tmp_path: Path, capsys: Capsys
) -> None:
    (tmp_path / "in").mkdir()
    source = make(tmp_path / "in")
    before = contents(good)
    assert train_here(source, "--out", tmp_path / "deep" / "new") == 2
    assert message in only_line(capsys)
    assert not (tmp_path / "deep").exists()
    assert train_here(source, "--out", good, "--overwrite") == 2
    assert message in only_line(capsys)
    assert contents(good) == before


def test_an_error_in_a_process_of_its_own_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    done = run("train", tmp_path / "in", "--out", tmp_path / "out")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"lumefield: error: {tmp_path / 'in'} holds no photos")
    assert done.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_without_looking_into_photos_is_said_without_jax(
    made: Path, room: Path, tmp_path: Path
) -> None:
    out = ("--out", tmp_path / "out")
    cases = [
        ("absent", *out),
        (tmp_path, *out),
        (room / "images" / "00.png", *out),
        (room, *out, "--resume"),
        (room, *out, "--steps", -1),
        (room, "--out", made),
        (room, "--out", made, "--resume", "--seed", 3),
    ]
    words = [["train", *map(str, case)] for case in cases]
    code = (
        "import sys; from lumefield.apps._cli import main; "
        f"print([main(words) for words in {words}], 'jax' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == f"{[2] * len(cases)} False"


def test_damaged_photos_among_good_ones_are_skipped_and_counted(
    tmp_path: Path, capsys: Capsys
) -> None:
    room = posed_room(tmp_path / "room", suffix=".jpg")
    whole = (room / "images" / "03.jpg").read_bytes()
    (room / "images" / "03.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    (room / "images" / "05.jpg").write_text("hello")
    assert train_here(room, "--out", tmp_path / "out", *SHORT) == 0
    told = capsys.readouterr().out
    assert "skipped 1 files that are not photos: 05.jpg" in told
    assert "skipped 1 photos that cannot be decoded: 03.jpg" in told
    cameras = json.loads((tmp_path / "out" / "capture" / "cameras.json").read_text())["cameras"]
    assert [c["name"] for c in cameras] == [f"0{i}.jpg" for i in (0, 1, 2, 4, 6, 7, 8)]


def test_absent_photos_of_a_transforms_file_are_counted(tmp_path: Path, capsys: Capsys) -> None:
    room = transforms_room(tmp_path / "room", absent=3)
    assert train_here(room, "--out", tmp_path / "out", *SHORT) == 0
    told = capsys.readouterr().out
    assert "6 of 9 photos with known cameras" in told
    assert "3 of 9 frames name files that do not exist" in told


def test_photos_of_mixed_sizes_are_padded_and_scored_at_their_own(
    tmp_path: Path, capsys: Capsys
) -> None:
    sizes = [SIZE] * 5 + [(28, 40)] * 4  # the held-out ones are the first and the last
    room = posed_room(tmp_path / "room", sizes=sizes)
    assert train_here(room, "--out", tmp_path / "out", *SHORT) == 0
    assert "photos of 2 sizes (28x40, 40x28) padded" in capsys.readouterr().out
    views = json.loads((tmp_path / "out" / "metrics.json").read_text())["views"]
    assert [v["name"] for v in views] == ["00.png", "08.png"]
    for view, size in zip(views, (SIZE, (28, 40)), strict=True):
        drawn, truth = (
            Image.open(tmp_path / "out" / "renders" / view["name"].replace(".png", end))
            for end in (".png", ".truth.png")
        )
        assert drawn.size == truth.size == size
        error = np.asarray(drawn, np.float64) - np.asarray(truth, np.float64)
        psnr = 20 * np.log10(255) - 10 * np.log10(np.mean(error**2))
        assert view["psnr"] == pytest.approx(psnr, abs=1e-3)


# -- options ---------------------------------------------------------------------------------

NUMBERS = [
    ("--steps", -5, "expected 1 to"),
    ("--steps", 0, "expected 1 to"),
    ("--max-gaussians", 0, "expected 1 to"),
    ("--max-gaussians", 10**30, "expected 1 to"),
    ("--cameras-per-step", 0, "expected 1 to 64"),
    ("--cameras-per-step", 10**6, "expected 1 to 64"),
    ("--seed", -1, "expected 0 to"),
    ("--seed", 2**70, "expected 0 to"),
    ("--threads", 0, "expected 1 or more"),
    ("--threads", -2, "expected 1 or more"),
    ("--downscale", 0, "expected 1 or more"),
    ("--downscale", "nan", "expected 1 or more"),
    ("--downscale", 100, "choose a smaller one"),
]


@pytest.mark.parametrize(("flag", "value", "message"), NUMBERS, ids=str)
def test_a_number_outside_its_range_is_refused(
    flag: str, value: object, message: str, room: Path, tmp_path: Path, capsys: Capsys
) -> None:
    assert train_here(room, "--out", tmp_path / "out", flag, value) == 2
    line = only_line(capsys)
    assert flag.lstrip("-") in line
    assert message in line
    assert not (tmp_path / "out").exists()


def test_the_least_and_the_most_of_a_range_are_allowed() -> None:
    check(Train(Path(), Path(), steps=1, seed=0, max_gaussians=1, cameras_per_step=1))
    check(Train(Path(), Path(), seed=2**32 - 1, cameras_per_step=64))


def test_fewer_gaussians_than_points_train_on_some_of_the_points(
    room: Path, tmp_path: Path
) -> None:
    words = ("--max-gaussians", 50, "--steps", 20)
    assert train_here(room, "--out", tmp_path / "out", *words) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["num_gaussians"] == 50


def test_a_run_that_does_not_fit_into_memory_is_told_what_would(
    good: Path, room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    before = contents(good)
    monkeypatch.setattr("lumefield.apps._plan.available_mb", lambda: 2_000.0)
    words = ("--max-gaussians", 1_000_000)
    assert train_here(room, "--out", tmp_path / "out", *words) == 2
    line = only_line(capsys)
    assert "MB of memory and 2000 MB are free; use --max-gaussians " in line
    assert "--downscale" in line
    fits = int(line.split("--max-gaussians ")[1].split()[0])
    plan = make_plan(
        "standard",
        height=SIZE[1],
        width=SIZE[0],
        points=200,
        steps=None,
        max_gaussians=fits,
        cameras_per_step=1,
    )
    check_memory(plan, photos=9, height=SIZE[1], width=SIZE[0], available_mb=2_000.0)
    assert fits > 20_000
    assert not (tmp_path / "out").exists()
    assert train_here(room, "--out", good, "--overwrite", *words) == 2
    assert contents(good) == before
