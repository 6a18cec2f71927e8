"""What each splat format loses: the golden scene through every format, and every pair of them.

    python -m benchmarks.formats [--pairs] [FILE]

Prints bytes per Gaussian, write and read times, and the largest error of each attribute; with
``--pairs`` the position and colour error after writing in one format and then in another. FILE, if
given, is used in place of the golden scene.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from lumefield.codecs.formats import Splats, load_splats, save_splats
from tests.codecs.golden import SH_C0, covariances, golden

NAMES = (
    *("a.ply", "a.compressed.ply", "a.splat", "a.spz", "four.spz", "a.sog", "a.glb"),
    *("a.usdc", "a.usdz"),
)
_SAMPLE = 2000


def main(words: list[str]) -> None:
    """Print the tables."""
    files = [word for word in words if not word.startswith("-")]
    scene = load_splats(files[0]) if files else golden(degree=4)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        header = "format              B each  write s  read s  degree  position  opacity"
        print(f"{len(scene.means):,} Gaussians\n{header}   colour  covariance  harmonics")
        for name in NAMES:
            print(_row(scene, place / name))
        if "--pairs" in words:
            _pairs(scene, place)


def _save(scene: Splats, path: Path) -> None:
    save_splats(scene, path, spz_version=4 if path.name.startswith("four") else 3)


def _row(scene: Splats, path: Path) -> str:
    start = time.process_time()
    _save(scene, path)
    middle = time.process_time()
    found = load_splats(path)
    end = time.process_time()
    position, opacity, colour, covariance, rest = losses(found, scene)
    degree = round(found.sh.shape[1] ** 0.5) - 1
    each = path.stat().st_size / len(scene.means)
    return (
        f"{path.name:<18}  {each:6.1f}  {middle - start:7.2f}  {end - middle:6.2f}  {degree:6}  "
        f"{position:8.1e}  {opacity:7.4f}  {colour:7.4f}  {covariance:10.4f}  {rest:9.4f}"
    )


def _pairs(scene: Splats, place: Path) -> None:
    print("\nposition / colour error: written in the format of the row, then of the column")
    names = [name for name in NAMES if name not in ("a.usdz", "four.spz")]
    print(" " * 18 + "".join(f"{name[2:]:>18}" for name in names))
    for first in names:
        _save(scene, place / first)
        middle = load_splats(place / first)
        cells: list[str] = []
        for second in names:
            out = place / ("b" + second)
            _save(middle, out)
            found = losses(load_splats(out), scene)
            cells.append(f"{found[0]:.0e} / {found[2]:.4f}")
        print(f"{first[2:]:<18}" + "".join(f"{cell:>18}" for cell in cells))


def losses(found: Splats, scene: Splats) -> tuple[float, float, float, float, float]:
    """Largest errors: position, opacity, colour, covariance (99 %, relative), harmonics."""
    keys = [np.concatenate([s.means * 100, s.sh[:, 0], s.log_scales], 1) for s in (found, scene)]
    found = found.taken(np.asarray(KDTree(keys[0]).query(keys[1])[1], np.int64))
    k = min(found.sh.shape[1], scene.sh.shape[1])
    some = np.arange(0, len(scene.means), max(1, len(scene.means) // _SAMPLE))
    cov = covariances(scene.taken(some))
    relative = np.abs(covariances(found.taken(some)) - cov).max((1, 2)) / np.abs(cov).max((1, 2))
    return (
        float(np.abs(found.means - scene.means).max()),
        float(np.abs(_opacity(found) - _opacity(scene)).max()),
        float(np.abs(found.sh[:, 0] - scene.sh[:, 0]).max() * SH_C0),
        float(np.quantile(relative, 0.99)),
        float(np.abs(found.sh[:, 1:k] - scene.sh[:, 1:k]).max(initial=0)),
    )


def _opacity(splats: Splats) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-splats.logit_opacities.astype(np.float64)))


if __name__ == "__main__":
    main(sys.argv[1:])
