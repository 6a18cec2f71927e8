"""Damaged files: whatever the bytes, a reader returns or raises a UserError, in little memory."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lumefield.codecs.formats import (
    PosedImages,
    Splats,
    load_points,
    load_posed_images,
    load_splats,
    save_colmap,
    save_splats,
)
from lumefield.errors import UserError

LIMIT = 200 * 2**20


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """One of: cut off, some bits flipped, some bytes replaced by extremes, a piece doubled."""
    raw, kind = bytearray(data), rng.integers(4)
    at = int(rng.integers(len(raw)))
    if kind == 0:
        return bytes(raw[:at])
    if kind == 3:
        return bytes(raw[:at] + raw[at // 2 :])
    near = len(raw) if rng.integers(2) else min(64, len(raw))  # headers are hit often
    for i in rng.integers(0, near, int(rng.integers(1, 6))):
        raw[i] = raw[i] ^ (1 << int(rng.integers(8))) if kind == 1 else int(rng.choice([0, 255]))
    return bytes(raw)


def survives(path: Path, load: Callable[[], object], seed: int, count: int = 200) -> None:
    """Load ``count`` mutations of the file; whatever raises must be a one-line UserError."""
    good, rng, messages = path.read_bytes(), np.random.default_rng(seed), list[str]()
    load()
    tracemalloc.start()
    try:
        for _ in range(count):
            path.write_bytes(mutated(good, rng))
            try:
                load()
            except UserError as error:
                messages.append(str(error))
        assert tracemalloc.get_traced_memory()[1] < LIMIT
    finally:
        tracemalloc.stop()
        path.write_bytes(good)
    assert all(len(m.splitlines()) == 1 for m in messages)
    assert len(messages) > count // 20, (
        "the mutations hardly did any harm; is the file read at all?"
    )


def splats(n: int, k: int) -> Splats:
    rng = np.random.default_rng(0)
    return Splats(
        means=rng.normal(size=(n, 3)).astype(np.float32),
        quats_wxyz=rng.normal(size=(n, 4)).astype(np.float32),
        log_scales=rng.normal(size=(n, 3)).astype(np.float32),
        logit_opacities=rng.normal(size=n).astype(np.float32),
        sh=rng.normal(size=(n, k, 3)).astype(np.float32),
        comments=("a comment",),
    )


def scene(root: Path) -> PosedImages:
    (root / "images").mkdir()
    paths: list[Path] = []
    for i in range(3):
        paths.append(root / "images" / f"{i}.png")
        Image.new("RGB", (8, 6)).save(paths[-1])
    return PosedImages(
        paths=tuple(paths),
        world_from_cam=np.stack([np.eye(4)[:3]] * 3),
        focal=np.full((3, 2), 5.0),
        centre=np.full((3, 2), 3.0),
        size=np.array([[8, 6]] * 3),
        model=("pinhole", "opencv", "fisheye"),
        distortion=np.concatenate([np.zeros((1, 8)), np.full((2, 8), 0.1) * (np.arange(8) < 4)]),
        points=np.zeros((4, 3)),
        colours=np.zeros((4, 3), np.uint8),
    )


@pytest.mark.parametrize(("suffix", "k"), [(".ply", 4), (".splat", 1), (".spz", 16)])
def test_damaged_splats_raise_or_load(tmp_path, suffix, k):
    path = tmp_path / f"a{suffix}"
    save_splats(splats(20, k), path)
    if suffix == ".splat":  # no header and no checksum: only a wrong length can be noticed
        good = path.read_bytes()
        for cut in range(1, len(good), 7):
            path.write_bytes(good[:cut])
            if cut % 32:
                with pytest.raises(UserError):
                    load_splats(path)
        path.write_bytes(good)
    survives(path, lambda: load_splats(path), seed=1)


def test_damaged_raw_spz_and_ascii_ply_raise_or_load(tmp_path, data_dir):
    path = tmp_path / "a.spz"
    path.write_bytes((data_dir / "splats/format_fixtures/minimal-raw.spz").read_bytes())
    survives(path, lambda: load_splats(path), seed=2)
    path = tmp_path / "a.ply"
    head = "ply\nformat ascii 1.0\nelement vertex 3\n"
    head += "".join(f"property float {c}\n" for c in "xyz")
    head += "".join(f"property uchar {c}\n" for c in ("red", "green", "blue")) + "end_header\n"
    path.write_text(head + "1 2 3 4 5 6\n" * 3)
    survives(path, lambda: load_points(path), seed=3)


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
@pytest.mark.parametrize("text", [False, True])
def test_damaged_colmap_models_raise_or_load(tmp_path, name, text):
    save_colmap(scene(tmp_path), tmp_path / "sparse", text=text)
    path = tmp_path / "sparse" / f"{name}{'.txt' if text else '.bin'}"
    survives(path, lambda: load_posed_images(tmp_path), seed=4)


def test_damaged_transforms_raise_or_load(tmp_path):
    scene(tmp_path)
    path = tmp_path / "transforms.json"
    frames = [
        {"file_path": f"images/{i}.png", "transform_matrix": np.eye(4).tolist(), "time": 0.5}
        for i in range(3)
    ]
    meta = {"camera_model": "OPENCV", "fl_x": 5.0, "w": 8, "h": 6, "k1": 0.1}
    path.write_text(json.dumps({**meta, "test_filenames": ["images/0.png"], "frames": frames}))
    survives(path, lambda: load_posed_images(tmp_path), seed=5)


def test_any_json_value_anywhere_raises_or_loads(tmp_path):
    """Every value of a good file is replaced by a value of every other type."""
    scene(tmp_path)
    path = tmp_path / "transforms.json"
    frame = {
        **{"file_path": "images/0.png", "transform_matrix": np.eye(4).tolist(), "time": 0.5},
        **{"mask_path": "images/1.png", "fl_x": 5.0, "w": 8, "camera_model": "OPENCV", "k1": 0.1},
    }
    meta = {
        **{"camera_model": "OPENCV", "fl_x": 5.0, "w": 8, "h": 6, "applied_transform": [[1.0]]},
        **{"ply_file_path": "x.ply", "test_filenames": ["images/0.png"], "is_fisheye": False},
        **{"camera_angle_x": 0.5, "val_filenames": [], "frames": [frame]},
    }
    odd = [None, True, -1, 1e999, 10**400, "", "\0", "x" * 5000, [], [[]], [None], {}, {"a": {}}]
    for value in odd:
        for key in meta:
            path.write_text(json.dumps({**meta, key: value}))
            assert loads_or_message(tmp_path).count("\n") == 0
        for key in frame:
            path.write_text(json.dumps({**meta, "frames": [{**frame, key: value}]}))
            assert loads_or_message(tmp_path).count("\n") == 0
    path.write_text("[" * 100_000)
    assert "is not JSON" in loads_or_message(tmp_path)


def loads_or_message(folder: Path) -> str:
    try:
        load_posed_images(folder)
    except UserError as error:
        return str(error)
    return ""


def test_damaged_llff_raises_or_loads(tmp_path):
    scene(tmp_path)
    matrix = np.stack([[0, 0, -1], [1, 0, 0], [0, -1, 0], [1, 2, 3], [6, 8, 5]], 1).ravel()
    np.save(tmp_path / "poses_bounds.npy", np.array([[*matrix, 1.0, 9.0]] * 3))
    path = tmp_path / "poses_bounds.npy"
    survives(path, lambda: load_posed_images(tmp_path), seed=6)
