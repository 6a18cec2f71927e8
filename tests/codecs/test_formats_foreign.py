"""glTF and checkpoints: what other programs may write differently, and what is refused."""

import json
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lumefield.codecs.formats import load_splats, save_splats
from lumefield.errors import FormatError
from tests.codecs.golden import golden, turn
from tests.codecs.torch_files import gsplat_content, nerfstudio_content, write_torch

# GLB --------------------------------------------------------------------------------------------


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the JSON of a GLB in place."""
    data = path.read_bytes()
    size = int.from_bytes(data[12:16], "little")
    scene = json.loads(data[20 : 20 + size])
    change(scene)
    text = json.dumps(scene).encode()
    text += b" " * (-len(text) % 4)
    rest = data[20 + size :]
    head = data[:8] + (20 + len(text) + len(rest)).to_bytes(4, "little")
    path.write_bytes(head + len(text).to_bytes(4, "little") + data[16:20] + text + rest)


def test_nodes_of_a_glb_place_its_gaussians(tmp_path):
    scene = golden(degree=1, sphere=20)
    save_splats(scene, tmp_path / "a.glb")

    def change(glb: dict[str, Any]) -> None:
        half = 0.5**0.5
        glb["nodes"] = [
            {"mesh": 0, "rotation": [0, half, 0, half]},
            {"children": [0], "translation": [0, 5, 0], "scale": [2, 2, 2]},
        ]
        glb["scenes"][0]["nodes"] = [1]

    rewritten(tmp_path / "a.glb", change)
    about_y = turn(np.array([0.5**0.5, 0, 0.5**0.5, 0]))
    flip = np.diag([1.0, -1, -1])
    wanted = scene.moved(flip @ about_y @ flip, (0.0, -5, 0), 2.0)
    found = load_splats(tmp_path / "a.glb")
    np.testing.assert_allclose(found.means, wanted.means, atol=1e-5)
    np.testing.assert_allclose(found.sh, wanted.sh, atol=1e-5)
    np.testing.assert_allclose(found.log_scales, wanted.log_scales, atol=1e-5)


def test_scales_of_a_draft_are_taken_as_logarithms(tmp_path):
    scene = golden(sphere=5)
    save_splats(scene, tmp_path / "a.glb")
    raw = (tmp_path / "a.glb").read_bytes()
    plain = np.exp(scene.log_scales.astype(np.float64)).astype("<f4").tobytes()
    assert plain in raw
    (tmp_path / "a.glb").write_bytes(raw.replace(plain, scene.log_scales.astype("<f4").tobytes()))
    found = load_splats(tmp_path / "a.glb")
    np.testing.assert_allclose(found.log_scales, scene.log_scales, atol=1e-6)
    assert "a draft of the extension" in found.comments[0]


BAD_GLB: dict[str, Callable[[dict[str, Any]], None]] = {
    "a glTF mesh without Gaussians": lambda g: g["meshes"][0]["primitives"][0].pop("extensions"),
    "mirrors or stretches": lambda g: g["nodes"][0].update(scale=[1, 2, 1]),
    "are not a tree": lambda g: g["nodes"].append({"children": [0, 0]}),
    "ROTATION is missing": lambda g: g["meshes"][0]["primitives"][0]["attributes"].pop(
        "KHR_gaussian_splatting:ROTATION"
    ),
    "expected 3 plain numbers": lambda g: g["accessors"][0].update(type="VEC2"),
    "needs 999999999999 rows": lambda g: g["accessors"][0].update(count=999999999999),
    "differ in length": lambda g: g["accessors"][0].update(count=3),
    "of a glTF node is not 3 numbers": lambda g: g["nodes"][0].update(translation=[1, 2]),
    "rotation of length 0": lambda g: g["nodes"][0].update(rotation=[0, 0, 0, 0]),
    "glTF names number 99 of": lambda g: g["nodes"][0].update(mesh=99),
    "glTF nodes is not a list": lambda g: g.update(nodes=3),
    "children of a glTF node are not nodes": lambda g: g["nodes"][0].update(children=[7]),
    "of the glTF is not an object": lambda g: g.update(nodes=[3]),
    "is not a whole number": lambda g: g["bufferViews"][0].update(byteOffset=-4),
    "share their data more than 4 times": lambda g: g.update(nodes=[{"mesh": 0}] * 99),
}


@pytest.mark.parametrize("message", BAD_GLB)
def test_a_bad_glb_says_why(message, tmp_path):
    save_splats(golden(degree=1, sphere=5), tmp_path / "a.glb")
    rewritten(tmp_path / "a.glb", BAD_GLB[message])
    with pytest.raises(FormatError, match=message):
        load_splats(tmp_path / "a.glb")


# Checkpoints ------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", [0, 3])
def test_checkpoints_of_gsplat_and_nerfstudio_hold_the_scene(degree, tmp_path):
    scene = golden(degree=degree, sphere=5)
    write_torch(tmp_path / "a.pt", gsplat_content(scene))
    write_torch(tmp_path / "a.ckpt", nerfstudio_content(scene))
    write_torch(tmp_path / "old.ckpt", nerfstudio_content(scene, "_model."))
    for name, program in (("a.pt", "gsplat"), ("a.ckpt", "nerfstudio"), ("old.ckpt", "nerfst")):
        found = load_splats(tmp_path / name)
        for field in ("means", "quats_wxyz", "log_scales", "logit_opacities", "sh"):
            np.testing.assert_array_equal(getattr(found, field), getattr(scene, field))
        assert program in found.source
        assert "999" in found.source


class Code:
    """What a hostile pickle looks like."""

    def __reduce__(self) -> Any:
        return (subprocess.getoutput, ("touch hacked",))


def test_a_pickle_with_code_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_torch(tmp_path / "a.pt", {"splats": Code()})
    with pytest.raises(FormatError, match=r"wants to run [a-z]+\.getoutput, expected tensors"):
        load_splats(tmp_path / "a.pt")
    assert not (tmp_path / "hacked").exists()


def test_other_torch_files_say_what_is_wrong(tmp_path):
    write_torch(tmp_path / "a.pt", {"model": {"w": np.zeros(3, np.float32)}})
    with pytest.raises(FormatError, match="torch file with 'model' holds no Gaussians"):
        load_splats(tmp_path / "a.pt")
    scene = golden(degree=1, sphere=5)
    content = gsplat_content(scene)
    content["splats"]["quats"] = scene.quats_wxyz[:3]
    write_torch(tmp_path / "a.pt", content)
    with pytest.raises(FormatError, match="do not fit one another"):
        load_splats(tmp_path / "a.pt")
    (tmp_path / "a.pt").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(FormatError, match="from before 2020"):
        load_splats(tmp_path / "a.pt")
    (tmp_path / "a.pt").write_bytes(b"no zip")
    with pytest.raises(FormatError, match="is not a zip archive"):
        load_splats(tmp_path / "a.pt")


# SOG --------------------------------------------------------------------------------------------

BAD_SOG: dict[str, Callable[[dict[str, Any]], object]] = {
    "SOG promises 0 Gaussians": lambda m: m.update(count=0),
    "count of meta.json is not a whole number": lambda m: m.update(count=1.5),
    "meta.json has no object 'quats'": lambda m: m.pop("quats"),
    "file 0 of sh0 is '../x', expected a plain name": lambda m: m["sh0"].update(files=["../x"]),
    "file 1 of means is None": lambda m: m["means"].update(files=["means_l.webp"]),
    "zip has no entry nothing.webp": lambda m: m["quats"].update(files=["nothing.webp"]),
    "mins of means is not a list of 3 numbers": lambda m: m["means"].update(mins=[1, "x", 2]),
    "codebook of scales is not a list of 256": lambda m: m["scales"].update(codebook=[]),
    "holds a number too large": lambda m: m["scales"].update(codebook=[10**400]),
    "shN has 7 bands": lambda m: m["shN"].update(bands=7),
    "shN label .* the file is damaged": lambda m: m["shN"].update(count=1),
    "texels, expected": lambda m: m["sh0"].update(files=["shN_centroids.webp"]),
    "is not a WebP picture": lambda m: m["sh0"].update(files=["meta.json"]),
}


@pytest.mark.parametrize("message", BAD_SOG)
def test_a_bad_sog_says_why(message, tmp_path):
    save_splats(golden(degree=1, sphere=5), tmp_path / "a.sog")
    with zipfile.ZipFile(tmp_path / "a.sog") as bundle:
        entries = {name: bundle.read(name) for name in bundle.namelist()}
    meta = json.loads(entries["meta.json"])
    BAD_SOG[message](meta)
    entries["meta.json"] = json.dumps(meta).encode()
    with zipfile.ZipFile(tmp_path / "a.sog", "w") as bundle:
        for name, data in entries.items():
            bundle.writestr(name, data)
    with pytest.raises(FormatError, match=message):
        load_splats(tmp_path / "a.sog")
