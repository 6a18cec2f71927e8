"""One table of splat formats x one list of laws; other programs as judges where they are found."""

import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy.spatial import KDTree

from lumefield.codecs.formats import SPLAT_SUFFIXES, Splats, load_splats, save_splats
from lumefield.errors import InputError
from tests.codecs.golden import (
    LETTER,
    RIGHT,
    SH_C0,
    SLAB,
    UP,
    colours,
    covariances,
    golden,
    turn,
)


class Loss(NamedTuple):
    """Largest error that a format may make, per attribute of the golden scene."""

    name: str
    options: dict[str, Any]
    position: float
    opacity: float
    colour: float
    """Of the degree-0 colour, sRGB in [0, 1]."""
    covariance: float
    """Relative to the largest entry of the matrix, over all Gaussians but the worst 1 %."""
    harmonics: float
    """Of coefficients of degree 1 and more; infinite where they are dropped."""
    degree: int
    antialiased: bool


EXACT = (0.0, 1e-6, 1e-6, 1e-5, 0.0)
TABLE = [
    Loss("a.ply", {}, *EXACT, 4, True),
    Loss("a.compressed.ply", {}, 1.1e-3, 0.002, 0.002, 0.004, 0.0157, 3, True),
    Loss("a.splat", {}, 0.0, 0.002, 0.002, 0.02, np.inf, 0, False),
    Loss("a.spz", {}, 1.3e-4, 0.002, 0.004, 0.065, 0.0355, 3, True),
    Loss("a.spz", {"spz_version": 4}, 1.3e-4, 0.002, 0.004, 0.065, 0.0665, 4, True),
    Loss("a.sog", {}, 5e-5, 0.002, 0.0005, 0.02, 0.05, 3, True),
    Loss("a.glb", {}, *EXACT, 3, False),
    Loss("a.usdc", {}, *EXACT, 4, False),
    Loss("a.usdz", {}, *EXACT, 4, False),
]
each_format = pytest.mark.parametrize("row", TABLE, ids=lambda r: f"{r.name}{r.options or ''}")


def opacity(s: Splats) -> np.ndarray:
    return 1 / (1 + np.exp(-s.logit_opacities.astype(np.float64)))


def written(row: Loss, splats: Splats, folder: Path) -> Splats:
    if row.name.startswith("a.usd"):
        pytest.importorskip("pxr", reason="usd-core is not installed (extra [usd])")
    save_splats(splats, folder / row.name, **row.options)
    return load_splats(folder / row.name)


def matched(found: Splats, wanted: Splats) -> Splats:
    """``found`` in the order of ``wanted``: formats may reorder."""
    assert len(found.means) == len(wanted.means)
    keys = [np.concatenate([s.means * 100, s.sh[:, 0], s.log_scales], 1) for s in (found, wanted)]
    index = np.asarray(KDTree(keys[0]).query(keys[1])[1], np.int64)
    assert len(np.unique(index)) > 0.99 * len(index), "far from one to one"
    return found.taken(index)


def errors(found: Splats, wanted: Splats) -> tuple[float, float, float, float, float]:
    cov = covariances(wanted)
    relative = np.abs(covariances(found) - cov).max((1, 2)) / np.abs(cov).max((1, 2))
    k = min(found.sh.shape[1], wanted.sh.shape[1])
    rest = np.abs(found.sh[:, 1:k] - wanted.sh[:, 1:k])
    return (
        float(np.abs(found.means - wanted.means).max()),
        float(np.abs(opacity(found) - opacity(wanted)).max()),
        float(np.abs(found.sh[:, 0] - wanted.sh[:, 0]).max() * SH_C0),
        float(np.quantile(relative, 0.99)),
        float(rest.max(initial=0)),
    )


@each_format
def test_what_is_written_comes_back_within_the_formats_steps(row, tmp_path):
    scene = dataclasses.replace(golden(degree=4), antialiased=True)
    found = matched(written(row, scene, tmp_path), scene)
    assert round(found.sh.shape[1] ** 0.5) - 1 == row.degree
    assert found.antialiased == row.antialiased
    limits = (row.position, row.opacity, row.colour, row.covariance, row.harmonics)
    for what, error, limit in zip(Loss._fields[2:7], errors(found, scene), limits, strict=True):
        assert error <= limit + 1e-7, what


@each_format
def test_written_twice_the_bytes_are_the_same(row, tmp_path):
    if row.name.startswith("a.usd"):
        pytest.skip("OpenUSD's own writer stamps its packages")
    scene = golden(degree=2, sphere=50)
    save_splats(scene, tmp_path / row.name, **row.options)
    first = (tmp_path / row.name).read_bytes()
    save_splats(scene, tmp_path / row.name, **row.options)
    assert (tmp_path / row.name).read_bytes() == first


@each_format
@pytest.mark.parametrize("degree", [0, 1])
def test_one_gaussian_survives_every_format(row, degree, tmp_path):
    one = golden(degree=degree).taken(np.array([700]))
    found = written(row, one, tmp_path)
    np.testing.assert_allclose(found.means, one.means, atol=2e-4)
    assert found.source != ""


@each_format
def test_axes_colours_and_letters_mean_the_same_in_every_format(row, tmp_path):
    """What a person sees: green up, red right, F not mirrored, the sphere orange from the front."""
    scene = golden()
    found = written(row, scene, tmp_path)
    rgb = 255 * (0.5 + SH_C0 * found.sh[:, 0].astype(np.float64))

    def where(colour: tuple[int, int, int], count: int) -> np.ndarray:
        near = (np.abs(rgb - colour) < 3).all(1)
        assert near.sum() == count
        return found.means[near]

    assert where(UP, 30)[:, 1].mean() < -0.5  # y points down
    assert where(RIGHT, 30)[:, 0].mean() > 0.5
    letter = where(LETTER, 72)
    top, bottom = letter[letter[:, 1] < -0.6], letter[letter[:, 1] > 0.1]
    assert top[:, 0].mean() > bottom[:, 0].mean() + 0.2  # bars to the right of the stem
    where(SLAB, 200)
    if row.degree:
        sphere = np.linalg.norm(found.means - (0, 0.15, -0.9), axis=1) < 0.42
        front, back = colours(found.taken(sphere), np.array([[0, 0, 1.0], [0, 0, -1]])).mean(0)
        assert front[0] > front[2] + 0.3  # looking along +z: more red than blue
        assert back[2] > back[0] + 0.3


@pytest.mark.parametrize("first", ["a.spz", "a.sog", "a.compressed.ply", "a.glb"])
@pytest.mark.parametrize("second", ["b.ply", "b.spz", "b.sog", "b.compressed.ply", "b.glb"])
def test_each_format_through_another_loses_no_more_than_both(first, second, tmp_path):
    scene = golden(sphere=150)
    save_splats(scene, tmp_path / first)
    save_splats(load_splats(tmp_path / first), tmp_path / second)
    found = matched(load_splats(tmp_path / second), scene)
    limits = {r.name[1:]: np.array(r[2:7]) for r in TABLE if not r.options}
    both = limits[first[1:]] + limits[second[1:]] + 1e-6
    assert (np.array(errors(found, scene)) <= 1.05 * both).all()


def test_the_vertical_axis_of_brush_is_kept(tmp_path):
    scene = dataclasses.replace(golden(sphere=5), up=(0.0, -0.6, 0.8))
    for name in ("a.ply", "a.compressed.ply"):
        save_splats(scene, tmp_path / name)
        found = load_splats(tmp_path / name).up
        assert found is not None
        np.testing.assert_allclose(found, (0, -0.6, 0.8), atol=1e-7)


@pytest.mark.parametrize(
    ("text", "up"),
    [
        ("0 -2 0", (0, -1, 0)),
        ("z", (0, 0, 1)),
        ("-Y", (0, -1, 0)),
        ("0 0 0", None),
        ("nan 0 1", None),
        ("1 2", None),
        ("north", None),
    ],
)
def test_a_vertical_axis_is_a_direction_or_nothing(tmp_path, text, up):
    save_splats(golden(sphere=5), tmp_path / "a.ply")
    data = (tmp_path / "a.ply").read_bytes()
    line = f"comment Vertical axis: {text}\nelement vertex".encode()
    (tmp_path / "a.ply").write_bytes(data.replace(b"element vertex", line, 1))
    found = load_splats(tmp_path / "a.ply")
    assert found.up == up
    assert found.comments == ()


# Frames -----------------------------------------------------------------------------------------


def test_moved_turns_everything_that_has_a_direction():
    """Colours seen along a turned direction, and covariances, follow the rotation exactly."""
    scene = golden(degree=4, sphere=20)
    quat = np.array([0.8, 0.3, -0.5, 0.2]) / np.linalg.norm([0.8, 0.3, -0.5, 0.2])
    r = turn(quat)
    moved = dataclasses.replace(scene, up=(0.0, -1.0, 0.0)).moved(r, (1.0, 2, 3), 2.0)
    np.testing.assert_allclose(moved.means, 2 * scene.means @ r.T + (1, 2, 3), atol=1e-5)
    np.testing.assert_allclose(covariances(moved), 4 * r @ covariances(scene) @ r.T, atol=1e-6)
    assert moved.up is not None
    np.testing.assert_allclose(moved.up, r @ (0, -1, 0), atol=1e-12)
    d = np.random.default_rng(0).normal(size=(9, 3))
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    for old, new in zip(evaluated(scene, d), evaluated(moved, d @ r.T), strict=True):
        np.testing.assert_allclose(new, old, atol=2e-6)
    assert np.abs(moved.sh[:, 1:] - scene.sh[:, 1:]).max() > 0.1  # something did turn


def evaluated(splats: Splats, d: np.ndarray) -> np.ndarray:
    """Colours (N, m, 3) of all degrees, by the renderer's own basis."""
    import jax.numpy as jnp

    from lumefield.render import sh_basis

    basis = np.asarray(sh_basis(jnp.asarray(d, jnp.float32), 4), np.float64)
    return np.einsum("mk,nkc->nmc", basis, splats.sh.astype(np.float64))


def test_half_a_turn_about_x_by_the_general_rule_is_the_sign_table(tmp_path):
    """What .spz and .glb store is what ``moved`` makes of half a turn."""
    scene = golden(sphere=20)
    turned = scene.moved(np.diag([1.0, -1, -1]))
    save_splats(scene, tmp_path / "a.glb")
    stored = glb_column(tmp_path / "a.glb", "KHR_gaussian_splatting:SH_DEGREE_3_COEF_2")
    np.testing.assert_allclose(stored, turned.sh[:, 11], atol=1e-6)
    np.testing.assert_allclose(glb_column(tmp_path / "a.glb", "POSITION"), turned.means, atol=1e-7)


def glb_column(path: Path, name: str) -> np.ndarray:
    data = path.read_bytes()
    size = int.from_bytes(data[12:16], "little")
    scene = json.loads(data[20 : 20 + size])
    accessor = scene["accessors"][scene["meshes"][0]["primitives"][0]["attributes"][name]]
    view = scene["bufferViews"][accessor["bufferView"]]
    at = 28 + size + view["byteOffset"]
    return np.frombuffer(data[at : at + view["byteLength"]], "<f4").reshape(accessor["count"], -1)


@pytest.mark.parametrize("rotation", [2 * np.eye(3), np.diag([1.0, 1, -1]), np.eye(2)])
def test_only_rotations_turn_splats(rotation):
    with pytest.raises(ValueError, match="expected 3x3 orthonormal"):
        golden(sphere=1).moved(rotation)
    with pytest.raises(ValueError, match="expected a positive number"):
        golden(sphere=1).moved(np.eye(3), scale=0)


# Files of other programs ------------------------------------------------------------------------


def test_the_angel_is_the_same_in_compressed_ply_and_sog(data_dir):
    ply = load_splats(data_dir / "splats/angel/angel.compressed.ply")
    sog = load_splats(data_dir / "splats/angel/angel.sog")
    assert len(ply.means) == len(sog.means) == 71377
    ply = ply.moved(np.diag([-1.0, -1, 1]))  # the two were exported half a turn apart
    some = ply.taken(np.arange(0, 71377, 40))
    distance, index = KDTree(sog.means).query(some.means)
    found = sog.taken(np.asarray(index, np.int64))
    assert np.quantile(distance, 0.95) < 2e-4
    assert np.median(np.abs(opacity(found) - opacity(some))) <= 1.5 / 255
    assert np.median(np.abs(found.sh - some.sh)) < 0.01
    cov = covariances(some)
    apart = np.abs(covariances(found) - cov).max((1, 2)) / np.abs(cov).max((1, 2))
    assert np.median(apart) < 0.05


def test_the_ksplat_and_spz_fixtures_hold_the_scene_of_the_splat(data_dir):
    base = data_dir / "splats/format_fixtures"
    plain = load_splats(base / "minimal.splat")
    ksplat = load_splats(base / "minimal.ksplat")
    np.testing.assert_array_equal(ksplat.means, plain.means)
    np.testing.assert_allclose(ksplat.log_scales, plain.log_scales, atol=1e-6)
    np.testing.assert_allclose(ksplat.sh, plain.sh, atol=1e-5)
    three, four = (load_splats(base / f"minimal-v{v}.spz") for v in (3, 4))
    for field in ("means", "quats_wxyz", "log_scales", "logit_opacities", "sh"):
        np.testing.assert_array_equal(getattr(four, field), getattr(three, field))


def test_an_unbundled_sog_is_the_bundled_one(tmp_path):
    import zipfile

    save_splats(golden(sphere=5), tmp_path / "a.sog")
    with zipfile.ZipFile(tmp_path / "a.sog") as bundle:
        assert all(info.compress_type == zipfile.ZIP_STORED for info in bundle.infolist())
        bundle.extractall(tmp_path / "folder")
    shutil.copy(tmp_path / "a.sog", tmp_path / "a.zip")
    bundled = load_splats(tmp_path / "a.sog")
    for other in (tmp_path / "folder/meta.json", tmp_path / "a.zip"):
        np.testing.assert_array_equal(load_splats(other).sh, bundled.sh)


@pytest.mark.parametrize("suffix", [".ksplat", ".pt", ".ckpt", ".json", ".zip"])
def test_formats_that_are_only_read_are_not_written(suffix, tmp_path):
    assert suffix in SPLAT_SUFFIXES
    with pytest.raises(InputError, match=r"is read only, expected one of \.ply"):
        save_splats(golden(sphere=1), tmp_path / f"a{suffix}")


def test_usd_without_its_package_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pxr", None)
    with pytest.raises(InputError, match=r"pip install lumefield\[usd\]"):
        save_splats(golden(sphere=1), tmp_path / "a.usdz")


# Judges that are not installed with the tests ---------------------------------------------------


def tool(name: str, variable: str) -> str:
    found = os.environ.get(variable) or shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed; set {variable} to run it")
    return found


@pytest.mark.slow
def test_splat_transform_reads_our_files_and_its_spz_4_is_ours_byte_for_byte(tmp_path):
    program = tool("splat-transform", "SPLAT_TRANSFORM")
    scene = golden()

    def run(source: str, target: str) -> None:
        words = [program, "-q", "-w", str(tmp_path / source), str(tmp_path / target)]
        subprocess.run(words, check=True, capture_output=True, timeout=120)

    for row in TABLE:
        if row.name in ("a.glb", "a.usdc", "a.usdz"):
            continue
        save_splats(golden(degree=min(3, row.degree)), tmp_path / row.name, **row.options)
        run(row.name, "out.ply")
        found = matched(load_splats(tmp_path / "out.ply"), scene)
        limits = np.array(row[2:7]) + 1e-6
        assert (np.array(errors(found, scene)) <= limits).all(), row.name
    save_splats(scene, tmp_path / "a.ply")
    save_splats(scene, tmp_path / "four.spz", spz_version=4)
    run("a.ply", "theirs.spz")
    assert (tmp_path / "theirs.spz").read_bytes() == (tmp_path / "four.spz").read_bytes()


@pytest.mark.slow
def test_gltf_validator_knows_nothing_against_our_glb_but_the_extension(tmp_path):
    package = Path(tool("gltf_validator", "GLTF_VALIDATOR"))
    save_splats(golden(), tmp_path / "a.glb")
    code = (
        "const v=require(process.argv[1]),f=require('fs');"
        "v.validateBytes(new Uint8Array(f.readFileSync(process.argv[2]))).then(r=>"
        "console.log(JSON.stringify([...new Set(r.issues.messages.map(m=>m.code))])))"
    )
    words = ["node", "-e", code, str(package), str(tmp_path / "a.glb")]
    out = subprocess.run(words, check=True, capture_output=True, text=True, timeout=120).stdout
    unknown = {"UNSUPPORTED_EXTENSION", "MESH_PRIMITIVE_INVALID_ATTRIBUTE"}
    assert set(json.loads(out)) <= unknown
