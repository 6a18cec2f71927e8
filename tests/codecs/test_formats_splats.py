"""Splat files: what is written comes back, and three programs' files of one scene agree."""

import dataclasses
import gzip
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumefield import __version__
from lumefield.codecs.formats import Splats, load_points, load_splats, save_splats

SH_C0 = 0.28209479177387814
TEMPORARY = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
FIELDS = ("means", "quats_wxyz", "log_scales", "logit_opacities", "sh")


def random_splats(seed: int, n: int, degree: int, antialiased: bool = False) -> Splats:
    rng = np.random.default_rng(seed)
    f32 = np.float32
    return Splats(
        means=rng.normal(0, 10, (n, 3)).astype(f32),
        quats_wxyz=rng.normal(0, 1, (n, 4)).astype(f32),
        log_scales=rng.uniform(-9, 3, (n, 3)).astype(f32),
        logit_opacities=rng.uniform(-5, 5, n).astype(f32),
        sh=rng.uniform(-0.9, 0.9, (n, (degree + 1) ** 2, 3)).astype(f32),
        antialiased=antialiased,
    )


def assert_same(a: Splats, b: Splats) -> None:
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert a.antialiased == b.antialiased
    assert a.comments == b.comments


def rotation(q: np.ndarray) -> np.ndarray:
    w, x, y, z = (q / np.linalg.norm(q, axis=1, keepdims=True)).astype(np.float64).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.array(rows).transpose(2, 0, 1)


def opacity(s: Splats) -> np.ndarray:
    return 1 / (1 + np.exp(-s.logit_opacities.astype(np.float64)))


@given(
    seed=st.integers(0, 2**31),
    n=st.integers(0, 40),
    degree=st.integers(0, 4),
    antialiased=st.booleans(),
    comments=st.lists(
        st.text("abcXYZ 0123:_-.", min_size=1).map(lambda s: " ".join(s.split())).filter(bool),
        max_size=3,
    ),
)
@TEMPORARY
def test_ply_returns_exactly_what_was_written(tmp_path, seed, n, degree, antialiased, comments):
    splats = random_splats(seed, n, degree, antialiased)
    splats = dataclasses.replace(splats, comments=tuple(comments))
    save_splats(splats, tmp_path / "a.ply")
    assert_same(load_splats(tmp_path / "a.ply"), splats)


@given(seed=st.integers(0, 2**31), n=st.integers(1, 40), degree=st.integers(0, 3))
@TEMPORARY
def test_splat_returns_what_was_written_within_8_bits(tmp_path, seed, n, degree):
    splats = random_splats(seed, n, degree)
    save_splats(splats, tmp_path / "a.splat")
    got = load_splats(tmp_path / "a.splat")
    np.testing.assert_array_equal(got.means, splats.means)
    np.testing.assert_allclose(got.log_scales, splats.log_scales, atol=2e-6)
    np.testing.assert_allclose(opacity(got), opacity(splats), atol=0.5 / 255 + 1e-6)
    colour = np.clip(0.5 + SH_C0 * splats.sh[:, :1], 0, 1)
    np.testing.assert_allclose(0.5 + SH_C0 * got.sh, colour, atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(rotation(got.quats_wxyz), rotation(splats.quats_wxyz), atol=0.035)


@given(
    seed=st.integers(0, 2**31),
    n=st.integers(0, 40),
    degree=st.integers(0, 3),
    antialiased=st.booleans(),
)
@TEMPORARY
def test_spz_returns_what_was_written_within_its_steps(tmp_path, seed, n, degree, antialiased):
    splats = random_splats(seed, n, degree, antialiased)
    save_splats(splats, tmp_path / "a.spz")
    got = load_splats(tmp_path / "a.spz")
    assert got.antialiased == antialiased
    np.testing.assert_allclose(got.means, splats.means, atol=0.5 / 4096 + 1e-5)
    np.testing.assert_allclose(got.log_scales, splats.log_scales, atol=1 / 32 + 1e-6)
    np.testing.assert_allclose(opacity(got), opacity(splats), atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(got.sh[:, 0], splats.sh[:, 0], atol=0.5 / 255 / 0.15 + 1e-6)
    np.testing.assert_allclose(got.sh[:, 1:4], splats.sh[:, 1:4], atol=4.51 / 128)
    np.testing.assert_allclose(got.sh[:, 4:], splats.sh[:, 4:], atol=4.51 / 128)
    np.testing.assert_allclose(rotation(got.quats_wxyz), rotation(splats.quats_wxyz), atol=0.006)
    # Written again, nothing moves any more, except that two components of a rotation may tie.
    save_splats(got, tmp_path / "b.spz")
    again = load_splats(tmp_path / "b.spz")
    for name in ("means", "log_scales", "logit_opacities", "sh"):
        np.testing.assert_array_equal(getattr(again, name), getattr(got, name), err_msg=name)
    np.testing.assert_allclose(rotation(again.quats_wxyz), rotation(got.quats_wxyz), atol=3e-3)


def test_one_gaussian_ply_has_channel_major_rest_and_log_logit_wxyz(tmp_path):
    """Pins the layout by hand: f_rest_0..2 are red of the three degree-1 functions."""
    names = ["rot_0", "rot_1", "rot_2", "rot_3", "x", "y", "z", "opacity", "f_dc_0", "f_dc_1"]
    names += ["f_dc_2", *(f"f_rest_{i}" for i in range(9)), "scale_0", "scale_1", "scale_2"]
    values = [float(i) for i in range(len(names))]
    head = "ply\nformat binary_little_endian 1.0\nelement vertex 1\n"
    head += "".join(f"property float {n}\n" for n in names) + "end_header\n"
    (tmp_path / "a.ply").write_bytes(head.encode() + struct.pack(f"<{len(names)}f", *values))
    s = load_splats(tmp_path / "a.ply")
    np.testing.assert_array_equal(s.quats_wxyz, [[0, 1, 2, 3]])
    np.testing.assert_array_equal(s.means, [[4, 5, 6]])
    np.testing.assert_array_equal(s.logit_opacities, [7])
    np.testing.assert_array_equal(s.sh[0], [[8, 9, 10], [11, 14, 17], [12, 15, 18], [13, 16, 19]])
    np.testing.assert_array_equal(s.log_scales, [[20, 21, 22]])


def test_written_ply_has_the_reference_property_order_and_comments(tmp_path):
    save_splats(random_splats(0, 2, 1, antialiased=True), tmp_path / "a.ply")
    head = (tmp_path / "a.ply").read_bytes().split(b"end_header")[0].decode()
    names = [line.split()[-1] for line in head.splitlines() if line.startswith("property")]
    rest = [f"f_rest_{i}" for i in range(9)]
    assert names[:9] == ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    assert names[9:18] == rest
    assert names[18:] == [
        "opacity",
        *(f"scale_{i}" for i in range(3)),
        *(f"rot_{i}" for i in range(4)),
    ]
    assert f"comment Generated by lumefield {__version__}\n" in head
    assert "comment SH degree: 1\n" in head
    assert "comment SplatRenderMode: mip\n" in head


@pytest.mark.parametrize("comment", ["SplatRenderMode: mip", "antialiased 1"])
def test_antialiased_comments_of_brush_and_postshot_are_read(tmp_path, comment):
    save_splats(random_splats(0, 2, 0), tmp_path / "a.ply")
    data = (tmp_path / "a.ply").read_bytes()
    data = data.replace(b"element vertex", f"comment {comment}\nelement vertex".encode(), 1)
    (tmp_path / "a.ply").write_bytes(data)
    assert load_splats(tmp_path / "a.ply").antialiased


def test_ascii_big_endian_and_double_ply_equal_the_binary_one(tmp_path):
    splats = random_splats(3, 5, 2)
    save_splats(splats, tmp_path / "a.ply")
    head, body = (tmp_path / "a.ply").read_bytes().split(b"end_header\n")
    table = np.frombuffer(body, "<f4").reshape(5, -1)
    big = head.replace(b"little", b"big").replace(b"property float", b"property double")
    (tmp_path / "b.ply").write_bytes(big + b"end_header\n" + table.astype(">f8").tobytes())
    plain = head.replace(b"binary_little_endian", b"ascii").replace(b"\n", b"\r\n")
    text = "\n".join(" ".join(repr(float(v)) for v in row) for row in table)
    (tmp_path / "c.ply").write_bytes(plain + b"end_header\r\n" + text.encode())
    for name in ("b.ply", "c.ply"):
        assert_same(load_splats(tmp_path / name), splats)


def test_elements_before_and_after_the_vertices_are_skipped(tmp_path):
    splats = random_splats(3, 5, 0)
    save_splats(splats, tmp_path / "a.ply")
    head, body = (tmp_path / "a.ply").read_bytes().split(b"end_header\n")
    extra = b"element note 2\nproperty uchar a\nproperty double b\nelement vertex"
    head = head.replace(b"element vertex", extra)
    head += b"element tail 1\nproperty list uchar int i\nend_header\n"
    (tmp_path / "b.ply").write_bytes(head + bytes(18) + body + b"\x01abcd")
    assert_same(load_splats(tmp_path / "b.ply"), splats)


def test_fruit_drops_with_an_extra_property_loads_and_returns_equal(data_dir, tmp_path):
    splats = load_splats(data_dir / "splats/fruit_drops/fruit_drops_minimal.ply")
    assert splats.means.shape == (4721, 3)
    assert splats.sh.shape == (4721, 16, 3)
    save_splats(splats, tmp_path / "a.ply")
    assert_same(load_splats(tmp_path / "a.ply"), splats)


THREE = (".ply", ".splat", ".spz")


def three_points(data_dir: Path) -> dict[str, Path]:
    base = data_dir / "splats/three_points_from_train"
    return {s: base / f"test-splat.3-points-from-train{s}" for s in THREE}


def test_three_programs_files_of_one_scene_agree(data_dir):
    ply, splat, spz = (load_splats(p) for p in three_points(data_dir).values())
    np.testing.assert_array_equal(splat.means, ply.means)
    np.testing.assert_allclose(splat.log_scales, ply.log_scales, atol=1e-6)
    np.testing.assert_allclose(spz.means, ply.means, atol=0.51 / 4096)
    np.testing.assert_allclose(spz.log_scales, ply.log_scales, atol=0.51 / 16)
    for other in (splat, spz):
        np.testing.assert_allclose(opacity(other), opacity(ply), atol=1.01 / 255)
        np.testing.assert_allclose(rotation(other.quats_wxyz), rotation(ply.quats_wxyz), atol=0.03)
    np.testing.assert_allclose(splat.sh[:, 0], ply.sh[:, 0], atol=1.01 / 255 / SH_C0)
    np.testing.assert_allclose(spz.sh[:, 0], ply.sh[:, 0], atol=1.01 / 255 / 0.15)
    np.testing.assert_allclose(spz.sh[:, 1:4], ply.sh[:, 1:4], atol=4.51 / 128)
    np.testing.assert_allclose(spz.sh[:, 4:], ply.sh[:, 4:], atol=8.51 / 128)


@pytest.mark.parametrize("suffix", THREE)
def test_each_of_the_three_formats_is_rewritten_equal(data_dir, tmp_path, suffix):
    splats = load_splats(three_points(data_dir)[suffix])
    save_splats(splats, tmp_path / f"a{suffix}")
    again = load_splats(tmp_path / f"a{suffix}")
    if suffix == ".splat":  # a quaternion in bytes is not of unit length; it is normalised
        np.testing.assert_allclose(
            rotation(again.quats_wxyz), rotation(splats.quats_wxyz), atol=0.02
        )
        splats = dataclasses.replace(splats, quats_wxyz=again.quats_wxyz)
    assert_same(again, splats)


def test_spz_of_another_program_is_rewritten_byte_for_byte(data_dir, tmp_path):
    source = three_points(data_dir)[".spz"]
    save_splats(load_splats(source), tmp_path / "a.spz")
    assert gzip.decompress((tmp_path / "a.spz").read_bytes()) == gzip.decompress(
        source.read_bytes()
    )


def test_spz_version_2_gzip_and_raw_hold_the_same(data_dir):
    base = data_dir / "splats/format_fixtures"
    raw, packed = load_splats(base / "minimal-raw.spz"), load_splats(base / "minimal-v2.spz")
    assert_same(raw, packed)
    newer = load_splats(base / "minimal-v3.spz")
    assert raw.means.shape == newer.means.shape == (4, 3)
    np.testing.assert_array_equal(raw.log_scales, newer.log_scales)
    np.testing.assert_array_equal(raw.logit_opacities, newer.logit_opacities)
    np.testing.assert_allclose(rotation(raw.quats_wxyz), rotation(newer.quats_wxyz), atol=0.02)


def test_splat_fixture_of_another_program_has_four_gaussians(data_dir):
    splats = load_splats(data_dir / "splats/format_fixtures/minimal.splat")
    np.testing.assert_allclose(np.exp(splats.log_scales), 0.1, rtol=1e-6)
    assert splats.means.shape == (4, 3)


def test_spz_stores_right_up_back_with_turned_harmonics(tmp_path):
    """Half a turn about x: y and z change sign, and so do the harmonics y, z, xy, xz, ..."""
    splats = dataclasses.replace(
        random_splats(0, 1, 1),
        means=np.array([[1.0, 2.0, 3.0]], np.float32),
        sh=np.full((1, 4, 3), 0.5, np.float32),
    )
    save_splats(splats, tmp_path / "a.spz")
    raw = gzip.decompress((tmp_path / "a.spz").read_bytes())
    fixed = [int.from_bytes(raw[16 + 3 * i : 19 + 3 * i], "little", signed=True) for i in range(3)]
    assert fixed == [4096, -2 * 4096, -3 * 4096]
    y, z, x = raw[-9], raw[-6], raw[-3]
    assert (y, z, x) == (64, 64, 192)


def test_spz_positions_far_out_take_fewer_fraction_bits(tmp_path):
    splats = dataclasses.replace(
        random_splats(0, 2, 0), means=np.array([[1e5, 0, 0], [0, -3e6, 1]], np.float32)
    )
    save_splats(splats, tmp_path / "a.spz")
    np.testing.assert_allclose(load_splats(tmp_path / "a.spz").means, splats.means, atol=0.5)


def test_spz_and_splat_drop_what_they_cannot_hold(tmp_path):
    splats = random_splats(0, 3, 4)
    save_splats(splats, tmp_path / "a.spz")
    save_splats(splats, tmp_path / "a.splat")
    assert load_splats(tmp_path / "a.spz").sh.shape == (3, 16, 3)
    assert load_splats(tmp_path / "a.splat").sh.shape == (3, 1, 3)


def test_values_that_are_not_finite_are_left_out_with_a_note(tmp_path):
    splats = random_splats(0, 5, 1)
    splats.means[1, 2] = np.nan
    splats.sh[3, 2, 1] = np.inf
    splats.logit_opacities[:] = [np.inf, 0, -np.inf, 0, 1]
    save_splats(splats, tmp_path / "a.ply")
    got = load_splats(tmp_path / "a.ply")
    assert len(got.means) == 3
    assert got.comments == ("left out 2 of 5 Gaussians with values that are not finite",)
    np.testing.assert_allclose(opacity(got)[:2], [1 - 1e-4, 1e-4], rtol=1e-5)


def test_zero_quaternion_is_written_as_no_rotation(tmp_path):
    splats = random_splats(0, 1, 0)
    splats.quats_wxyz[:] = 0
    for suffix in (".spz", ".splat"):
        save_splats(splats, tmp_path / f"a{suffix}")
        got = load_splats(tmp_path / f"a{suffix}").quats_wxyz
        np.testing.assert_allclose(got, [[1, 0, 0, 0]], atol=0.01)


def test_plyfile_reads_our_ply(tmp_path):
    plyfile = pytest.importorskip("plyfile")
    splats = random_splats(1, 7, 3)
    save_splats(dataclasses.replace(splats, comments=("Grüße",)), tmp_path / "a.ply")
    vertex = plyfile.PlyData.read(tmp_path / "a.ply")["vertex"]
    np.testing.assert_array_equal(np.stack([vertex[c] for c in "xyz"], 1), splats.means)
    rest = np.stack([vertex[f"f_rest_{i}"] for i in range(45)], 1).reshape(7, 3, 15)
    np.testing.assert_array_equal(rest.transpose(0, 2, 1), splats.sh[:, 1:])
    np.testing.assert_array_equal(vertex["opacity"], splats.logit_opacities)


@pytest.mark.slow
def test_open3d_reads_our_ply_as_points(tmp_path):
    open3d = pytest.importorskip("open3d", reason="open3d is not installed (extra [mesh])")
    splats = random_splats(1, 7, 3)
    save_splats(splats, tmp_path / "a.ply")
    cloud = open3d.io.read_point_cloud(str(tmp_path / "a.ply"))
    np.testing.assert_allclose(np.asarray(cloud.points), splats.means, rtol=1e-6)


def test_point_cloud_ply_gives_positions_and_colours(tmp_path):
    head = "ply\nformat ascii 1.0\nelement vertex 3\n"
    head += "".join(f"property float {c}\n" for c in "xyz")
    rows = "1 2 3 {}\n4 5 6 {}\nnan 0 0 {}\n"
    byte, unit = "255 0 128", "1.0 0.0 0.5"
    colours = "".join(f"property KIND {c}\n" for c in ("red", "green", "blue"))
    for kind, value in (("uchar", byte), ("float", unit)):
        text = head + colours.replace("KIND", kind) + "end_header\n" + rows.format(*[value] * 3)
        (tmp_path / "a.ply").write_text(text)
        xyz, rgb = load_points(tmp_path / "a.ply")
        np.testing.assert_array_equal(xyz, [[1, 2, 3], [4, 5, 6]])
        np.testing.assert_array_equal(rgb, [[255, 0, 128]] * 2)
    (tmp_path / "a.ply").write_text(head + "end_header\n" + rows.format("", "", ""))
    np.testing.assert_array_equal(load_points(tmp_path / "a.ply")[1], [[128] * 3] * 2)


def test_formats_never_import_jax():
    code = (
        "import sys, lumefield.codecs.formats as f; "
        "print(any(m in sys.modules for m in ('jax', 'flax', 'PIL', 'pycolmap')), len([n for n in "
        "vars(f) if not n.startswith('_')]) <= 15)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "True"]
