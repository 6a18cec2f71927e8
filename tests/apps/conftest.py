"""Tiny finished runs: one made without training, for commands that read it, and a trained one."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lumefield.codecs.formats import Splats, save_splats
from tests.apps.train_cases import SHORT, posed_room, train_here

SIZE = (24, 16)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Ten cameras around 60 Gaussians, two held out, with log and metrics."""
    from lumefield.apps._paths import look_at

    folder = tmp_path / "run <1>"
    (folder / "capture").mkdir(parents=True)
    (folder / "renders").mkdir()
    rng = np.random.default_rng(0)
    n, f32 = 60, np.float32
    quats = rng.normal(size=(n, 4)).astype(f32)
    splats = Splats(
        means=rng.normal(size=(n, 3), scale=0.4).astype(f32),
        quats_wxyz=quats / np.linalg.norm(quats, axis=1, keepdims=True),
        log_scales=np.full((n, 3), -2, f32),
        logit_opacities=np.full(n, 2, f32),
        sh=rng.normal(size=(n, 1, 3)).astype(f32),
    )
    save_splats(splats, folder / "scene.ply")
    cameras = []
    for k in range(10):
        turn = k / 10 * 2 * np.pi
        eye = np.array([3 * np.cos(turn), 3 * np.sin(turn), 1.0])
        name = f"img_{k}.jpg"
        pose = look_at(eye, np.zeros(3), np.array([0, 0, 1.0]))
        cameras.append(
            {
                "name": name,
                "world_from_cam": pose.tolist(),
                "focal": [30.0, 30.0],
                "centre": [SIZE[0] / 2, SIZE[1] / 2],
                "width": SIZE[0],
                "height": SIZE[1],
                "held_out": k % 8 == 0,
            }
        )
        if k % 8 == 0:
            picture = rng.integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)
            Image.fromarray(picture).save(folder / "renders" / f"img_{k}.truth.png")
            Image.fromarray(picture // 2).save(folder / "renders" / f"img_{k}.png")
    source = {"kind": "photos", "summary": "registered 10 of 10 <photos>", "notes": ["a & b"]}
    record = {"world": "sfm", "cameras": cameras, "source": source}
    (folder / "capture" / "cameras.json").write_text(json.dumps(record))
    views = [{"name": f"img_{k}.jpg", "psnr": 20.0 + k, "ssim": 0.8} for k in (0, 8)]
    metrics = {
        "method": "splat",
        "steps": 100,
        "seconds": 61.4,
        "psnr": 24.0,
        "ssim": 0.8,
        "views": views,
        "num_gaussians": n,
        "peak_rss_mb": 512,
        "backend": "xla",
        "versions": {"jax": "0.10.2"},
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "config.json").write_text(json.dumps({"seed": 0, "quality": "draft"}))
    rows = [
        {"step": k, "loss": 1 / (k + 1), "psnr": 10 + k / 10, "gaussians": k} for k in range(50)
    ]
    text = "\n".join(json.dumps(row) for row in rows)
    (folder / "log.jsonl").write_text(text + '\n{"step": 51, "lo')
    return folder


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good input."""
    return posed_room(tmp_path_factory.mktemp("in") / "room")


@pytest.fixture(scope="module")
def made(room: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 20 steps; copy it before changing it."""
    out = tmp_path_factory.mktemp("made") / "run"
    assert train_here(room, "--out", out, *SHORT) == 0
    return out


@pytest.fixture
def good(made: Path, tmp_path: Path) -> Path:
    """A finished run of 20 steps."""
    return Path(shutil.copytree(made, tmp_path / "good"))
