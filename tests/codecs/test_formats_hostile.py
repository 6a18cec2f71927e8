"""Damaged files: whatever the bytes, a reader returns or raises a UserError, in little memory."""

import dataclasses
import io
import json
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard
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
from lumefield.errors import FormatError, UserError
from tests.codecs.torch_files import gsplat_content, write_torch

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


@pytest.mark.parametrize(
    ("name", "k"),
    [
        *(("a.ply", 4), ("a.splat", 1), ("a.spz", 16), ("four.spz", 16)),
        *(("a.compressed.ply", 4), ("a.sog", 4), ("a.glb", 4), ("a.pt", 4)),
    ],
)
def test_damaged_splats_raise_or_load(tmp_path, name, k):
    path = tmp_path / name
    if name == "a.pt":
        write_torch(path, gsplat_content(splats(20, k)))
    else:
        save_splats(splats(20, k), path, spz_version=4 if name == "four.spz" else 3)
    if name == "a.splat":  # no header and no checksum: only a wrong length can be noticed
        good = path.read_bytes()
        for cut in range(1, len(good), 7):
            path.write_bytes(good[:cut])
            if cut % 32:
                with pytest.raises(UserError):
                    load_splats(path)
        path.write_bytes(good)
    count = {"a.sog": 40, "a.glb": 80, "a.compressed.ply": 80}.get(name, 200)  # slow to refuse
    survives(path, lambda: load_splats(path), seed=1, count=count)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".usdc", ".usda", ".usdz"])
def test_damaged_usd_raises_or_loads(tmp_path, suffix):
    """OpenUSD's own parser reads these bytes: here it has to live with each of them."""
    pytest.importorskip("pxr", reason="usd-core is not installed (extra [usd])")
    path = tmp_path / f"a{suffix}"
    save_splats(splats(20, 4), path)
    survives(path, lambda: load_splats(path), seed=1)


def test_usd_that_names_other_files_is_refused(tmp_path):
    pytest.importorskip("pxr", reason="usd-core is not installed (extra [usd])")
    path = tmp_path / "a.usda"
    path.write_text("#usda 1.0\n(\n    subLayers = [@/etc/passwd@]\n)\n")
    with pytest.raises(FormatError, match="the layer names other files"):
        load_splats(path)
    path.write_text('#usda 1.0\ndef Xform "a" {}\n')
    with pytest.raises(FormatError, match="stage without a ParticleField3DGaussianSplat"):
        load_splats(path)
    path.write_bytes(b"hello")
    with pytest.raises(FormatError, match="does not begin as USD does"):
        load_splats(path)


def test_damaged_ksplat_raises_or_loads(tmp_path, data_dir):
    good = (data_dir / "splats/format_fixtures/minimal.ksplat").read_bytes()
    path = tmp_path / "a.ksplat"
    path.write_bytes(good)
    survives(path, lambda: load_splats(path), seed=7, count=80)
    fields = (4, 16, 20, 4096, 4100, 4104, 4108, 4112, 4116, 4120, 4128, 4132, 4136)
    for at in fields:  # every number of the headers, at its extremes and off by one
        for level in (0, 1, 2):
            for value in (b"\xff\xff\xff\xff", bytes(4), b"\1\0\0\0", b"\x05\0\0\0"):
                raw = bytearray(good)
                raw[20] = level
                raw[at : at + 4] = value
                path.write_bytes(raw)
                assert quick(path).count("\n") == 0


def quick(path: Path) -> str:
    """The message of a UserError, or nothing; in less than 2 s and 1 GB."""
    start = time.perf_counter()
    tracemalloc.start()
    try:
        load_splats(path)
        message = ""
    except UserError as error:
        message = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2**30
    assert time.perf_counter() - start < 2
    return message


def zipped(path: Path, entries: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", kind) as bundle:
        for name, data in entries.items():
            bundle.writestr(name, data)


def sog_meta(**changes: object) -> bytes:
    files = {"files": ["a.webp", "b.webp"]}
    meta = {
        **{"version": 2, "count": 16, "means": {"mins": [0], "maxs": [1], **files}},
        **{"scales": {"codebook": [0], **files}, "quats": files, "sh0": {"codebook": [0], **files}},
    }
    return json.dumps({**meta, **changes}).encode()


def webp(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGBA", (width, height)).save(file, "WEBP", lossless=True)
    return file.getvalue()


def spz4(n: int, streams: bytes, table: list[tuple[int, int]]) -> bytes:
    head = struct.pack("<IIIBBBBI12x", 0x5053474E, 4, n, 0, 12, 0, len(table), 32)
    return head + b"".join(struct.pack("<QQ", *row) for row in table) + streams


def test_bombs_and_absurd_counts_are_refused_at_once(tmp_path):
    """Each file is small and promises much."""
    zeros, many = bytes(1 << 26), 4_000_000_000
    squeezed = zstandard.compress(zeros)
    cases: dict[str, bytes] = {
        "huge.spz": spz4(many, b"", [(1, 9 * many)] * 5),
        "table.spz": spz4(3, b"", [(2**63, 27)] * 5),
        "window.spz": spz4(3, squeezed, [(len(squeezed), 27)] + [(0, 3)] * 4),
        "toc.spz": spz4(1, b"", [])[:28] + b"\xff" * 4,
        "vertices.compressed.ply": packed_header(many, many),
        "chunks.compressed.ply": packed_header(9, 0),
        "long.ksplat": b"\0\1" + bytes(2) + b"\xff" * 4094,
        "deep.glb": glb(b"[" * 200_000),
        "none.glb": glb(b"{}"),
        "meta.json": b'{"version": 1}',
        "wrong.glb": b"\x89PNG" + bytes(60),
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
    zipped(tmp_path / "bomb.sog", {"meta.json": b" " * (1 << 26)})
    zipped(tmp_path / "empty.sog", {})
    zipped(tmp_path / "two.sog", {"a/meta.json": b"{}", "b/meta.json": b"{}"})
    zipped(tmp_path / "count.sog", {"meta.json": sog_meta(count=many)})
    zipped(tmp_path / "up.sog", {"meta.json": sog_meta(means={"files": ["../../etc/passwd"]})})
    big = webp(4000, 4000)
    zipped(tmp_path / "big.sog", {"meta.json": sog_meta(), "a.webp": big, "b.webp": big})
    zipped(tmp_path / "bomb.pt", {"a/data.pkl": bytes(1 << 26)})
    memo = b"\x80\x02]r\xff\xff\xff\x7f."
    zipped(tmp_path / "memo.pt", {"a/data.pkl": memo}, zipfile.ZIP_STORED)
    for path in sorted(tmp_path.iterdir()):
        message = quick(path)
        assert message.startswith(str(path)), path.name
        assert message.count("\n") == 0
        assert len(message) < 500


def packed_header(vertices: int, chunks: int) -> bytes:
    ends = [f"{e}_{a}" for e in ("min", "max") for a in ("x", "y", "z")]
    ends += [f"{e}_scale_{a}" for e in ("min", "max") for a in ("x", "y", "z")]
    words = [f"packed_{n}" for n in ("position", "rotation", "scale", "color")]
    text = f"ply\nformat binary_little_endian 1.0\nelement chunk {chunks}\n"
    text += "".join(f"property float {n}\n" for n in ends)
    text += f"element vertex {vertices}\n" + "".join(f"property uint {n}\n" for n in words)
    return (text + "end_header\n").encode()


def glb(text: bytes) -> bytes:
    text += b" " * (-len(text) % 4)
    return struct.pack("<IIIII", 0x46546C67, 2, 20 + len(text), len(text), 0x4E4F534A) + text


@pytest.mark.parametrize("name", ["a.ply", "a.glb", "a.pt"])
def test_a_scene_of_nothing_but_nan_is_refused(tmp_path, name):
    bad = dataclasses.replace(splats(5, 1), means=np.full((5, 3), np.nan, np.float32))
    if name == "a.pt":
        write_torch(tmp_path / name, gsplat_content(bad))
    elif name == "a.glb":
        save_splats(splats(5, 1), tmp_path / name)
        data = (tmp_path / name).read_bytes()
        good = (splats(5, 1).means * np.array([1, -1, -1], np.float32)).tobytes()
        assert good in data
        (tmp_path / name).write_bytes(data.replace(good, bad.means.tobytes()))
    else:
        save_splats(bad, tmp_path / name)
    with pytest.raises(FormatError, match="every Gaussian has values that are not finite"):
        load_splats(tmp_path / name)


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
