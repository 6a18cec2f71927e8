"""Rate and distortion of the scene codec beside SPZ and SOG.

    python -m benchmarks.scenes_codec RUN ... SCENE.ply ... [--loss 0.1 0.3 1] [--out rows.json]

Every scene is compressed at every loss, decoded from the real bytes and drawn. Printed are bytes,
their share of the PLY, Gaussians, PSNR against the scene's own pictures, and for runs PSNR of the
held-out photos. A run is judged in its held-out views. A bare file is judged in 14 views around it
that lie at other heights and angles than all 58 of the encoder, and its loss is that of a scene of
32 dB. SPZ (version 3) and SOG are ours, see docs/codecs.md.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    """Run the command line above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenes", nargs="+", type=Path)
    parser.add_argument("--loss", type=float, nargs="+", default=[0.3])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = [row for path in args.scenes for row in _rows(path, args.loss)]
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


def _rows(path: Path, losses: list[float]) -> list[dict[str, Any]]:
    from lumefield.apps._compress import Compress, compress
    from lumefield.apps._scene_io import load_scene
    from lumefield.codecs.formats import load_splats, save_splats
    from lumefield.codecs.scene import decode_scene

    scene = load_scene(path)
    judge = _Judge(scene)
    plain = (path / "scene.ply" if path.is_dir() else path).stat().st_size
    found = list[dict[str, Any]]()

    def add(name: str, size: int, splats: Any, seconds: float) -> None:
        row = {"scene": path.name, "codec": name, "bytes": size, "of_ply": plain / size}
        row |= {"gaussians": len(splats.means), "seconds": round(seconds, 1)} | judge(splats)
        found.append(row)
        print(json.dumps(row), flush=True)

    add("ply", plain, scene.splats, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("spz", "sog"):
            file, begun = Path(folder) / f"a.{suffix}", time.monotonic()
            save_splats(scene.splats, file)
            add(suffix, file.stat().st_size, load_splats(file), time.monotonic() - begun)
        for loss in losses:
            file, begun = Path(folder) / "a.lume", time.monotonic()
            compress(Compress(path, file, psnr_loss=loss, overwrite=True))
            data, took = file.read_bytes(), time.monotonic() - begun
            add(f"lume, {loss:g} dB", len(data), decode_scene(data)[0], took)
    return found


class _Judge:
    """Draws scenes in the views that they are judged in."""

    def __init__(self, scene: Any) -> None:
        from PIL import Image

        from lumefield.apps._evaluate import image_stems
        from lumefield.apps._paths import around_points

        self._background, self._truths = scene.background, list[Any]()
        if scene.views is None:
            points, weights = scene.surface()
            self._views = around_points(points, weights, 640, 480, turns=7, heights=(0.75, 0.2))
        else:
            self._views = scene.views.test()
            for stem in image_stems(self._views.names):
                with Image.open(scene.run / "renders" / f"{stem}.truth.png") as image:
                    self._truths.append(np.asarray(image.convert("RGB"), np.float64))
        self._own = self._drawn(scene.splats)

    def _drawn(self, splats: Any) -> list[Any]:
        from lumefield.apps._scene_io import make_draw, to_bytes

        draw, views = make_draw(splats, background=self._background), self._views
        return [to_bytes(draw(views.pick([k])).rgb).astype(float) for k in range(len(views))]

    def __call__(self, splats: Any) -> dict[str, float]:
        drawn = self._drawn(splats)
        found = {"psnr_own": _psnr(drawn, self._own)}
        return found | ({"psnr": _psnr(drawn, self._truths)} if self._truths else {})


def _psnr(a: list[Any], b: list[Any]) -> float:
    errors = [float(np.mean((x - y) ** 2)) for x, y in zip(a, b, strict=True)]
    each = [min(99.0, 10 * np.log10(255**2 / e)) if e > 0 else 99.0 for e in errors]
    return round(float(np.mean(each)), 3)


if __name__ == "__main__":
    main()
