"""Every error message of the splat formats, and writing whole or not at all."""

import dataclasses
import gzip
import struct

import numpy as np
import pytest

from lumefield.codecs.formats import Splats, load_splats, save_splats
from lumefield.errors import FormatError, InputError


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


def ply(head: str, body: bytes = b"") -> bytes:
    return f"ply\nformat ascii 1.0\n{head}end_header\n".encode() + body


XYZ = "property float x\nproperty float y\nproperty float z\n"
FULL = XYZ + "".join(
    f"property float {n}\n"
    for n in (
        "f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3"
    ).split()
)
BAD_PLY = {
    "does not begin with `ply`": b"hello\n",
    "no `end_header` line": b"ply\nformat ascii 1.0\n",
    "header line 'element vertex -4' is not understood": ply("element vertex -4\n"),
    "header line 'property int128 x' is not": ply("element vertex 1\nproperty int128 x\n"),
    "has no `format` line": b"ply\nelement vertex 1\nend_header\n",
    "names a property twice": ply("element vertex 1\nproperty float x\nproperty float x\n"),
    "PLY holds face, expected an element `vertex`": ply("element face 1\n"),
    "is a point cloud PLY of 9 points": ply(f"element vertex 9\n{XYZ}"),
    "is a mesh PLY of 9 points": ply(f"element vertex 9\n{XYZ}element face 2\n"),
    "is a PLY of 2D Gaussians": ply("element vertex 9\n" + FULL.replace("scale_2", "s")),
    "no property 'rot_3'": ply("element vertex 9\n" + FULL.replace("rot_3", "r")),
    "has 1 f_rest properties": ply(f"element vertex 9\n{FULL}property float f_rest_0\n"),
    "promises 9 vertices, the file ends before": ply(f"element vertex 9\n{FULL}", b"0 1 2 3"),
    "promises 999999999999 vertices": ply(f"element vertex 999999999999\n{FULL}", b"0 1 2 3"),
    "a word that is not a number": ply(f"element vertex 1\n{FULL}", b"0 1 2 three" + b" 0" * 10),
    "has a list property": ply(f"element vertex 1\n{FULL}property list uchar int i\n"),
}


@pytest.mark.parametrize("message", BAD_PLY)
def test_bad_ply_says_what_it_is(tmp_path, message):
    (tmp_path / "a.ply").write_bytes(BAD_PLY[message])
    with pytest.raises(FormatError, match=message.replace("(", r"\(")):
        load_splats(tmp_path / "a.ply")


def test_binary_ply_cut_off_is_refused(tmp_path):
    save_splats(random_splats(0, 3, 0), tmp_path / "a.ply")
    (tmp_path / "a.ply").write_bytes((tmp_path / "a.ply").read_bytes()[:-1])
    with pytest.raises(FormatError, match="promises 3 vertices, the file ends before"):
        load_splats(tmp_path / "a.ply")


def spz(version: int, n: int, degree: int = 0, bits: int = 12, body: bytes = b"") -> bytes:
    return struct.pack("<4sIIBBBB", b"NGSP", version, n, degree, bits, 0, 0) + body


BAD_SPZ = {
    "does not begin with NGSP": b"hello hello hello hello",
    "ends inside the SPZ header": b"NGSP\x03",
    "is SPZ version 5, expected 2, 3 or 4": spz(5, 1),
    "SH degree 9 and 12 fraction bits": spz(3, 1, degree=9),
    "SH degree 0 and 99 fraction bits": spz(3, 1, bits=99),
    "promises 4000000000 Gaussians": gzip.compress(spz(3, 4_000_000_000)),
    "promises 3 Gaussians": gzip.compress(spz(3, 3, body=bytes(59))),
    "promises 2 Gaussians": spz(2, 2, body=bytes(37)),
    "cannot be decompressed": b"\x1f\x8b" + bytes(50),
    "is damaged": gzip.compress(spz(3, 1, body=bytes(range(20))))[:-8] + bytes(8),
}


@pytest.mark.parametrize("message", BAD_SPZ)
def test_bad_spz_says_why(tmp_path, message):
    (tmp_path / "a.spz").write_bytes(BAD_SPZ[message])
    with pytest.raises(FormatError, match=message):
        load_splats(tmp_path / "a.spz")


def test_bad_splat_files_and_suffixes_say_why(tmp_path):
    (tmp_path / "a.splat").write_bytes(bytes(33))
    with pytest.raises(FormatError, match="has 33 bytes, expected a multiple of 32"):
        load_splats(tmp_path / "a.splat")
    with pytest.raises(InputError, match=r"cannot open .*none.ply: No such file"):
        load_splats(tmp_path / "none.ply")
    with pytest.raises(InputError, match=r"suffix '.xyz' is not known, expected one of .ply"):
        load_splats(tmp_path / "a.xyz")
    with pytest.raises(InputError, match="no Gaussians, expected at least one"):
        save_splats(random_splats(0, 0, 0), tmp_path / "b.splat")
    far = dataclasses.replace(random_splats(0, 1, 0), means=np.full((1, 3), 1e9, np.float32))
    with pytest.raises(InputError, match=r"expected finite ones below 8.4 million"):
        save_splats(far, tmp_path / "b.spz")
    assert not (tmp_path / "b.spz").exists()


def test_arrays_that_do_not_fit_are_a_programming_error(tmp_path):
    splats = random_splats(0, 3, 0)
    with pytest.raises(ValueError, match=r"quats_wxyz has shape \(2, 4\), expected \(3, 4\)"):
        save_splats(
            dataclasses.replace(splats, quats_wxyz=splats.quats_wxyz[:2]), tmp_path / "a.ply"
        )
    with pytest.raises(ValueError, match=r"sh has shape \(3, 2, 3\)"):
        save_splats(
            dataclasses.replace(splats, sh=np.zeros((3, 2, 3), np.float32)), tmp_path / "a.ply"
        )
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    save_splats(random_splats(0, 3, 0), tmp_path / "a.ply")
    before = (tmp_path / "a.ply").read_bytes()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match=r"cannot write .*a.ply: No space left on device"):
        save_splats(random_splats(1, 9, 0), tmp_path / "a.ply")
    assert (tmp_path / "a.ply").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.ply"]


def test_saving_makes_missing_folders(tmp_path):
    save_splats(random_splats(0, 3, 0), tmp_path / "new" / "deep" / "a.spz")
    assert len(load_splats(tmp_path / "new" / "deep" / "a.spz").means) == 3


def test_a_json_that_is_no_sog_says_so(tmp_path):
    for text, error, match in (
        ('{"frames": []}', InputError, "not a scene; expected a SOG"),
        ('{"means": {}, "version": 1}', FormatError, "is SOG version 1, expected 2"),
        ('{"means": {}}', FormatError, "is SOG version 1, expected 2"),
        ("[]", FormatError, "expected an object"),
    ):
        (tmp_path / "meta.json").write_text(text)
        with pytest.raises(error, match=match):
            load_splats(tmp_path / "meta.json")
