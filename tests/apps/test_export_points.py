"""Point clouds: PLY and LAS out of scenes, and back in."""

from pathlib import Path

import numpy as np
import pytest

from lumefield.apps._cli import main
from lumefield.apps._scene_io import load_scene
from lumefield.codecs.formats import load_points
from lumefield.errors import FormatError, InputError


@pytest.mark.parametrize("suffix", [".points.ply", ".las", ".laz"])
def test_points_come_back_with_their_colours(run: Path, tmp_path: Path, suffix, capsys):
    if suffix != ".points.ply":
        pytest.importorskip("laspy", reason="laspy is not installed (extra [las])")
    out = tmp_path / f"a{suffix}"
    assert main(["export", str(run), "--out", str(out)]) == 0
    assert "wrote 60 points" in capsys.readouterr().out
    scene = load_scene(run).splats
    xyz, rgb = load_points(out)
    np.testing.assert_allclose(xyz, scene.means, atol=1e-6)
    own = np.clip(0.5 + 0.28209479177387814 * scene.sh[:, 0], 0, 1) * 255
    np.testing.assert_allclose(rgb, own, atol=0.51)


def test_flags_of_splats_and_meshes_are_refused(run: Path, tmp_path: Path, capsys):
    words = ["export", str(run), "--out", str(tmp_path / "a.las")]
    for flags in (["--faces", "200"], ["--verify"], ["--sh-degree", "1"]):
        assert main([*words, *flags]) == 2
        assert f"{flags[0]}: does nothing for a.las" in capsys.readouterr().err


def test_damaged_las_raises_or_loads(run: Path, tmp_path: Path):
    pytest.importorskip("laspy", reason="laspy is not installed (extra [las])")
    for suffix in (".las", ".laz"):
        path = tmp_path / f"a{suffix}"
        assert main(["export", str(run), "--out", str(path)]) == 0
        good, rng, said = path.read_bytes(), np.random.default_rng(0), list[str]()
        for k in range(60):
            raw = bytearray(good)
            if k % 3 == 0:
                raw = raw[: int(rng.integers(len(raw)))]
            else:
                raw[int(rng.integers(min(400, len(raw))))] = int(rng.choice([0, 255]))
            path.write_bytes(raw)
            try:
                load_points(path)
            except FormatError as error:
                said.append(str(error))
        assert len(said) > 15
        assert all(len(message.splitlines()) == 1 for message in said)
    path.write_bytes(b"hello")
    with pytest.raises(FormatError, match="does not begin with LASF"):
        load_points(path)
    with pytest.raises(InputError, match="cannot open"):
        load_points(tmp_path / "none.las")
