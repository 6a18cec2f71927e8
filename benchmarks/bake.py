"""``python -m benchmarks.bake RUN``: what baking a radiance field to Gaussians and a mesh costs.

Writes both with ``lumefield export`` in processes of their own and scores the files: PSNR over the
held-out views of field and splats against the photos and of splats against the field (goal: splats
within 1.5 dB of the field), faces of the GLB as trimesh reads it, sizes, seconds.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
GOAL = 1.5
"""Most decibels lost against the photos."""


def main() -> None:
    """Bake, mesh, score, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a radiance-field run")
    parser.add_argument("--steps", default="4000", help="steps of refinement")
    parser.add_argument("--suffix", default=".ply", help=".ply, .splat or .spz")
    parser.add_argument("--out", type=Path, help="where to keep the files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.out or Path(scratch)
        splats, mesh = folder / f"baked{options.suffix}", folder / "mesh.glb"
        found = {"bake_seconds": _export(options.run, splats, "--steps", options.steps)}
        found["mesh_seconds"] = _export(options.run, mesh)
        found |= _splat_scores(options.run, splats) | _mesh_scores(mesh)
    print(json.dumps(found, indent=2))
    lost = found.get("lost_db")
    if lost is not None:
        print(f"lost against the photos: {lost:.2f} dB (goal {GOAL})")


def _export(run: Path, out: Path, *words: str) -> float:
    command = [sys.executable, "-m", "lumefield.apps", "export", str(run), "--out", str(out)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    subprocess.run([*command, *words], check=True, env=env, stdout=sys.stderr)
    return round(time.perf_counter() - start, 1)


def _splat_scores(run: Path, file: Path) -> dict[str, float]:
    from lumefield.apps._export_job import scores
    from lumefield.apps._scene_io import load_scene, make_draw
    from lumefield.codecs.formats import load_splats

    scene, splats = load_scene(run), load_splats(file)
    assert scene.views is not None, f"{run} holds no cameras"
    got = scores(scene, scene.views.test(), make_draw(splats, background=scene.background))
    found = {"gaussians": len(splats.means), "megabytes": file.stat().st_size / 1e6}
    if got.faithful is not None:
        found["splats_against_field_db"] = got.faithful
    if got.field is not None and got.splats is not None:
        found |= {"field_db": got.field, "splats_db": got.splats, "lost_db": got.field - got.splats}
    return found


def _mesh_scores(file: Path) -> dict[str, float]:
    import trimesh

    mesh: Any = trimesh.load(file, force="mesh")
    return {
        "faces": len(mesh.faces),
        "mesh_megabytes": file.stat().st_size / 1e6,
        "mesh_components": len(set(trimesh.graph.connected_component_labels(mesh.face_adjacency))),
    }


if __name__ == "__main__":
    main()
