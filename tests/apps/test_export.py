"""``export``: what is refused, what is converted; the command on a run of Gaussians."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lumefield.apps import _export_settings
from lumefield.apps._cli import main
from lumefield.apps._export_settings import FORMATS, Export, check
from lumefield.codecs.formats import SPLAT_SUFFIXES, load_splats
from lumefield.errors import InputError, RunError


def refused(settings: Export, match: str, kind: type[Exception] = InputError) -> None:
    with pytest.raises(kind, match=match):
        check(settings)


def field_run(folder: Path) -> Path:
    """A folder that looks like the run of a radiance field."""
    folder.mkdir()
    (folder / "field.safetensors").write_bytes(b"x")
    return folder


def test_every_format_has_a_writer():
    from lumefield.apps._mesh_files import TEXTURED, WRITERS

    ends = {"." + s.rsplit(".", 1)[1] for s, f in FORMATS.items() if "splats" in f.kinds}
    assert ends - {".html"} <= set(SPLAT_SUFFIXES)
    assert {s for s, f in FORMATS.items() if "mesh" in f.kinds} == {*WRITERS, *TEXTURED}


@pytest.mark.parametrize(
    ("out", "mesh", "kind"),
    [
        ("a.ply", False, "splats"),
        ("a.SPZ", False, "splats"),
        ("a.ply", True, "mesh"),
        ("a.glb", False, "mesh"),
        ("a.obj", True, "mesh"),
        ("a.splats.glb", False, "splats"),
        ("a.compressed.PLY", False, "splats"),
    ],
)
def test_the_suffix_says_what_is_written(run: Path, tmp_path: Path, out, mesh, kind):
    assert check(Export(run, tmp_path / out, mesh=mesh)) == kind


def test_an_unknown_suffix_is_refused(run: Path, tmp_path: Path):
    refused(Export(run, tmp_path / "a.xyz"), r"suffix '.xyz', expected one of .ply .compressed.ply")


def test_a_format_without_meshes_takes_none(run: Path, tmp_path: Path):
    refused(
        Export(run, tmp_path / "a.spz", mesh=True),
        r"holds no mesh, expected one of .ply .usdz .glb",
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_splats", 5), ("steps", -1), ("faces", 0), ("resolution", 4000), ("seed", -1)],
)
def test_numbers_out_of_range_are_refused(run: Path, tmp_path: Path, name, value):
    out = tmp_path / ("a.glb" if name in ("faces", "resolution") else "a.ply")
    flag = "--" + name.replace("_", "-")
    refused(Export(run, out, **{name: value}), f"{flag} {value}, expected ")


def test_flags_of_the_other_kind_are_refused(tmp_path: Path):
    field = field_run(tmp_path / "field")
    refused(Export(field, tmp_path / "a.glb", steps=5), "--steps: does nothing for a.glb")
    refused(Export(field, tmp_path / "a.ply", faces=500), "--faces: does nothing for a.ply")


def test_flags_for_fields_are_refused_for_gaussians(run: Path, tmp_path: Path):
    refused(Export(run, tmp_path / "a.ply", steps=500), "--steps: is for radiance fields")
    refused(Export(run, tmp_path / "a.glb", from_="density"), "--from: is for radiance fields")


def test_a_scene_that_is_not_there_is_refused(tmp_path: Path):
    refused(Export(tmp_path / "no", tmp_path / "a.ply"), "no such file or folder")


def test_a_file_that_is_no_scene_is_refused(tmp_path: Path):
    (tmp_path / "a.txt").write_text("x")
    refused(Export(tmp_path / "a.txt", tmp_path / "a.ply"), "not a scene; expected a run folder")


def test_a_run_without_a_scene_is_refused(tmp_path: Path):
    refused(Export(tmp_path, tmp_path / "a.ply"), "holds neither scene.ply nor", RunError)


def test_a_fitted_signal_is_refused(tmp_path: Path):
    field = field_run(tmp_path / "field")
    (field / "config.json").write_text(json.dumps({"command": "fit"}))
    refused(Export(field, tmp_path / "a.ply"), "holds a fitted signal", RunError)


def test_a_folder_is_no_output(run: Path, tmp_path: Path):
    (tmp_path / "a.ply").mkdir()
    refused(Export(run, tmp_path / "a.ply"), "is a folder, expected a file")


def test_the_scene_itself_is_no_output(run: Path, tmp_path: Path):
    refused(Export(run, run / "scene.ply"), "is the scene of the run itself")
    refused(Export(run / "scene.ply", run / "scene.ply"), "is the scene itself")


def test_a_place_that_cannot_be_written_is_refused(run: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(
        _export_settings, "writable", lambda place: False
    )  # root may write anywhere
    refused(Export(run, tmp_path / "a.ply"), "cannot be written; choose another folder")
    monkeypatch.undo()
    if Path("/proc/self").is_dir():
        refused(Export(run, Path("/proc/a.ply")), "/proc cannot be written")


def test_a_file_is_no_folder_to_write_in(run: Path, tmp_path: Path):
    (tmp_path / "f").write_text("x")
    refused(Export(run, tmp_path / "f" / "a.ply"), "cannot be written; choose another")


def test_a_run_without_cameras_cannot_be_baked(tmp_path: Path):
    from lumefield.apps._export_job import write_baked
    from lumefield.apps._scene_io import Scene
    from tests.apps.bake_cases import painted

    with pytest.raises(RunError, match=r"holds no capture/cameras.json"):
        write_baked(
            Export(tmp_path, tmp_path / "a.ply"), Scene(painted(), None, tmp_path, (0, 0, 0))
        )


@pytest.mark.parametrize("suffix", [".ply", ".compressed.ply", ".splat", ".spz", ".sog"])
def test_gaussians_are_converted_in_their_world_frame(run: Path, tmp_path: Path, suffix, capsys):
    out = tmp_path / "new folder" / f"a{suffix}"
    assert main(["export", str(run), "--out", str(out)]) == 0
    assert "wrote 60 Gaussians" in capsys.readouterr().out
    want, found = load_splats(run / "scene.ply"), load_splats(out)
    order = [np.lexsort(np.round(s.means, 2).T) for s in (want, found)]
    np.testing.assert_allclose(found.means[order[1]], want.means[order[0]], atol=2e-3)


def test_conversion_of_a_file_replaces_the_output(run: Path, tmp_path: Path):
    out = tmp_path / "a.splat"
    out.write_bytes(b"old")
    assert main(["export", str(run / "scene.ply"), "--out", str(out)]) == 0
    assert len(load_splats(out).means) == 60


def test_a_wrong_command_line_is_one_line_and_code_two(run: Path, tmp_path: Path, capsys):
    assert main(["export", str(run), "--out", str(tmp_path / "a.doc")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "suffix '.doc'" in error


def test_a_damaged_field_is_one_line(tmp_path: Path, capsys):
    field = field_run(tmp_path / "field")
    assert main(["export", str(field), "--out", str(tmp_path / "a.ply")]) == 2
    assert "not a radiance field of lumefield, or damaged" in capsys.readouterr().err


def test_a_run_of_gaussians_becomes_a_mesh(run: Path, tmp_path: Path, capsys):
    import trimesh

    out = tmp_path / "a.glb"
    words = ["export", str(run), "--out", str(out), "--resolution", "24", "--faces", "4000"]
    words += ["--texture", "256"]
    assert main(words) == 0
    assert "triangles" in capsys.readouterr().out
    mesh: Any = trimesh.load(out, force="mesh")
    assert 0 < len(mesh.faces) <= 4000


def test_a_bare_splat_file_becomes_a_mesh(run: Path, tmp_path: Path):
    out = tmp_path / "a.obj"
    words = ["export", str(run / "scene.ply"), "--out", str(out), "--resolution", "24"]
    assert main([*words, "--texture", "0"]) == 0
    assert out.read_text().count("\nf ") > 0
