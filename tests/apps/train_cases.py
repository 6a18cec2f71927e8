"""Tiny inputs for the train command, and the command itself in a process of its own."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lumefield.apps import _cli
from lumefield.codecs.formats import PosedImages, save_colmap
from tests.apps.posed_folder import render_room, room_poses

ROOT = Path(__file__).parents[2]
SIZE = (40, 28)
FOCAL = 44.0
PHOTOS = 9
"""Two of them held out."""
SMALL = ("--max-gaussians", 300)
"""Words that keep a training small."""
SHORT = (*SMALL, "--steps", 20)
"""Words of the shortest training."""
Capsys = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class Done:
    """How a process of the command line ended."""

    code: int
    out: str
    err: str


def posed_room(
    folder: Path,
    *,
    sizes: Sequence[tuple[int, int]] = (SIZE,) * PHOTOS,
    transparent: bool = False,
    suffix: str = ".png",
) -> Path:
    """Photos of two textured walls, with a COLMAP model and points on the walls."""
    (folder / "images").mkdir(parents=True)
    poses = room_poses(len(sizes))
    paths: list[Path] = []
    for i, (pose, size) in enumerate(zip(poses, sizes, strict=True)):
        pixels = render_room(pose, FOCAL, size)
        if transparent:
            wall = np.any(pixels != 128, axis=-1, keepdims=True)
            pixels = np.concatenate([pixels, wall.astype(np.uint8) * np.uint8(255)], axis=-1)
        paths.append(folder / "images" / f"{i:02}{suffix}")
        Image.fromarray(pixels).save(paths[-1])
    points = 200
    rng = np.random.default_rng(0)
    wall = np.zeros((points, 3))
    wall[:, 2] = rng.uniform(-1, 1, points)
    wall[np.arange(points), rng.integers(0, 2, points)] = rng.uniform(0, 2, points)
    n, whole = len(sizes), np.array(sizes)
    posed = PosedImages(
        paths=tuple(paths),
        world_from_cam=poses,
        focal=np.full((n, 2), FOCAL),
        centre=whole / 2.0,
        size=whole,
        model=("pinhole",) * n,
        distortion=np.zeros((n, 8)),
        points=wall,
        colours=rng.integers(0, 255, (points, 3)).astype(np.uint8),
    )
    save_colmap(posed, folder / "sparse" / "0")
    return folder


def transforms_room(folder: Path, *, absent: int = 0, nan: int = 0) -> Path:
    """The same photos with a transforms.json; of its frames some name no file, some are NaN."""
    posed_room(folder)
    shutil.rmtree(folder / "sparse")
    frames: list[dict[str, object]] = []
    for i, pose in enumerate(room_poses(PHOTOS)):
        matrix = np.vstack([pose * [1, -1, -1, 1], [0, 0, 0, 1]])  # OpenGL axes
        matrix[0, 0] = np.nan if i < nan else matrix[0, 0]
        name = f"images/{'gone' if i < absent else ''}{i:02}.png"
        frames.append({"file_path": name, "transform_matrix": matrix.tolist()})
    lens = {"w": SIZE[0], "h": SIZE[1], "fl_x": FOCAL, "fl_y": FOCAL}
    (folder / "transforms.json").write_text(json.dumps({**lens, "frames": frames}))
    return folder


def command(*words: object) -> list[str]:
    """The command line as words for a process."""
    return [sys.executable, "-m", "lumefield.apps", *(str(word) for word in words)]


def environment() -> dict[str, str]:
    """As the tests have it: on the CPU, with the compile cache they share."""
    import jax

    cache = jax.config.values["jax_compilation_cache_dir"]
    extra = {"JAX_COMPILATION_CACHE_DIR": cache} if cache else {}
    return {**os.environ, "JAX_PLATFORMS": "cpu", "COLUMNS": "200", **extra}


def run(*words: object) -> Done:
    """The command line in a process of its own."""
    done = subprocess.run(
        command(*words),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment(),
        timeout=300,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def train_here(*words: object) -> int:
    """Exit code of ``train`` in this process: no start-up, and tests can reach into it."""
    return _cli.main(["train", *(str(word) for word in words)])


def only_line(capsys: Capsys) -> str:
    """The one line of an error, without its prefix."""
    err = capsys.readouterr().err
    assert err.startswith("lumefield: error: "), err
    assert err.count("\n") == 1, err
    return err.removeprefix("lumefield: error: ").strip()


def run_and_signal(when: Callable[[], bool], number: signal.Signals, *words: object) -> Done:
    """The same, sent a signal as soon as ``when`` holds."""
    with subprocess.Popen(
        command(*words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(),
    ) as process:
        end = time.monotonic() + 240
        while process.poll() is None and not when() and time.monotonic() < end:
            time.sleep(0.005)
        process.send_signal(number)
        out, err = process.communicate(timeout=240)
    return Done(process.returncode, out, err)


def logged_step(folder: Path) -> int:
    """Last step in the log of a run; 0 before there is one."""
    path = folder / "log.jsonl"
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    whole = (json.loads(line) for line in lines if line.endswith("}"))
    return max((int(line["step"]) for line in whole), default=0)


def saved_steps(folder: Path) -> list[int]:
    """Steps of the whole checkpoints of a run."""
    return sorted(int(p.stem.split("-")[1]) for p in (folder / "checkpoints").glob("step-*.json"))


def contents(folder: Path) -> dict[str, str]:
    """Hash of every file below a folder, by name; folders have none."""
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        if p.is_file()
        else ""
        for p in sorted(folder.rglob("*"))
    }
