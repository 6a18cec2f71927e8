"""Structure from motion in a child process: ``python -m lumefield.apps._sfm_worker JOB.json``.

A child, because pycolmap logs straight to the terminal, holds the interpreter in C++ for minutes
(Ctrl-C would wait) and can abort the process on odd input. The child reads one job file, prints one
JSON line per step of progress on stdout and writes ``solution.npz`` and a COLMAP model.

All pixels here are those of the *working* images; ``_sfm_model`` returns to full-size pixels.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._sfm_job import Job, say
from lumefield.apps._sfm_model import export, refine
from lumefield.apps._sfm_pairs import coarsest, shortlist

if TYPE_CHECKING:
    import pycolmap

_SEED = 7
EXHAUSTIVE = 20
"""Up to this many photos every pair is matched."""
RETRY_PAIRS = 2000
"""Up to this many pairs left out are matched after all when too few photos were registered."""
ENOUGH = 0.6
"""Share of photos that must be registered; below it the next method is tried."""


def _prepare(job: Job, database: Path) -> None:
    """Write cameras and images into a new database; image ``i`` gets the id ``i + 1``."""
    import pycolmap

    with pycolmap.Database.open(database) as db:
        ids: list[int] = []
        for c in job.cameras:
            camera = pycolmap.Camera(
                model=c["model"],
                width=c["width"],
                height=c["height"],
                params=c["params"],
                has_prior_focal_length=c["prior"],
            )
            ids.append(int(db.write_camera(camera)))
    for k, camera_id in enumerate(ids):
        options = pycolmap.ImageReaderOptions()
        options.existing_camera_id = camera_id
        options.camera_model = job.cameras[k]["model"]
        names = [n for n, c in zip(job.names, job.camera_of, strict=True) if c == k]
        pycolmap.import_images(database, job.folder / "images", image_names=names, options=options)


def _extract(job: Job, database: Path) -> None:
    import pycolmap

    options = pycolmap.FeatureExtractionOptions()
    options.num_threads = job.threads
    options.sift.max_num_features = job.features
    options.sift.first_octave = 0
    chunk = max(4, 2 * job.threads)
    for start in range(0, len(job.names), chunk):
        say("features", start / len(job.names))
        pycolmap.extract_features(
            database,
            job.folder / "images",
            image_names=job.names[start : start + chunk],
            extraction_options=options,
            device=pycolmap.Device.cpu,
        )
    say("features", 1.0)


def _every_pair(n: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(n) for j in range(i + 1, n)]


def _too_few(job: Job, model: "pycolmap.Reconstruction | None") -> bool:
    return model is None or model.num_reg_images() < ENOUGH * len(job.names)


def _choose_pairs(job: Job, database: Path) -> list[tuple[int, int]]:
    """Every pair of few photos, else the pairs that share coarse features."""
    import pycolmap

    if len(job.names) <= EXHAUSTIVE:
        return _every_pair(len(job.names))
    say("choose pairs", 0.0)
    coarse: list[NDArray[np.float32]] = []
    with pycolmap.Database.open(database) as db:
        ids = {image.name: image.image_id for image in db.read_all_images()}
        for name in job.names:
            keypoints = np.asarray(db.read_keypoints(ids[name]), np.float32)
            descriptors = np.asarray(db.read_descriptors(ids[name]).data, np.uint8)
            scales = np.abs(keypoints[:, 2]) if keypoints.shape[1] == 4 else _area(keypoints)
            coarse.append(coarsest(descriptors, scales))
    return shortlist(coarse)


def _area(keypoints: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale of keypoints that hold an affine shape (x, y, a11, a12, a21, a22)."""
    a = keypoints[:, 2:6]
    return np.sqrt(np.abs(a[:, 0] * a[:, 3] - a[:, 1] * a[:, 2]))


def _match(job: Job, pairs: Sequence[tuple[int, int]], database: Path) -> None:
    import pycolmap

    matching = pycolmap.FeatureMatchingOptions()
    matching.num_threads = job.threads
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = _SEED
    pairing = pycolmap.ImportedPairingOptions()
    chunk = max(20, len(pairs) // 20)
    for start in range(0, len(pairs), chunk):
        say("match", start / len(pairs))
        listed = job.folder / "pairs.txt"
        part = pairs[start : start + chunk]
        listed.write_text("".join(f"{job.names[i]} {job.names[j]}\n" for i, j in part))
        pairing.match_list_path = listed
        pycolmap.match_image_pairs(
            database,
            matching_options=matching,
            pairing_options=pairing,
            verification_options=verification,
            device=pycolmap.Device.cpu,
        )
    say("match", 1.0)


def _largest(
    models: "dict[int, pycolmap.Reconstruction]",
) -> "pycolmap.Reconstruction | None":
    """The model with the most registered images, then the most points; None if there is none."""
    ranked = sorted(
        models.values(), key=lambda m: (m.num_reg_images(), m.num_points3D()), reverse=True
    )
    return ranked[0] if ranked else None


def _map(job: Job, database: Path) -> "tuple[pycolmap.Reconstruction | None, str]":
    """Unknown poses: incremental mapping, then GLOMAP if that leaves too many photos out."""
    import pycolmap

    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = job.threads
    options.random_seed = _SEED
    options.min_model_size = 2
    options.max_num_models = 5
    options.ba_global_function_tolerance = 1e-6
    done = [1]

    def another() -> None:
        done[0] += 1
        say("map", min(done[0] / len(job.names), 1.0))

    (job.folder / "incremental").mkdir(exist_ok=True)
    say("map", 0.0)
    models = pycolmap.incremental_mapping(
        database,
        job.folder / "images",
        job.folder / "incremental",
        options=options,
        next_image_callback=another,
    )
    best, how = _largest(models), "incremental"
    if _too_few(job, best):
        second = _global(job, database)
        if second is not None and (best is None or second.num_reg_images() > best.num_reg_images()):
            best, how = second, "global"
    say("map", 1.0)
    return best, how


def _global(job: Job, database: Path) -> "pycolmap.Reconstruction | None":
    import pycolmap

    options = pycolmap.GlobalPipelineOptions()
    options.num_threads = job.threads
    options.random_seed = _SEED
    (job.folder / "global").mkdir(exist_ok=True)
    try:
        models = pycolmap.global_mapping(
            database, job.folder / "images", job.folder / "global", options=options
        )
    except (RuntimeError, ValueError) as error:  # no connected view graph
        print(f"global mapping failed: {error}", file=sys.stderr)
        return None
    return _largest(models)


def _triangulate(job: Job, database: Path) -> "pycolmap.Reconstruction | None":
    """Known poses: points only, poses and intrinsics stay as given."""
    import pycolmap

    with pycolmap.Database.open(database) as db:
        images = {image.name: image for image in db.read_all_images()}
        cameras = {camera.camera_id: camera for camera in db.read_all_cameras()}
    start = pycolmap.Reconstruction()
    for camera in cameras.values():
        start.add_camera_with_trivial_rig(camera)
    for name, pose in zip(job.names, job.cam_from_world, strict=True):
        known = images[name]
        image = pycolmap.Image(
            name=name,
            points2D=pycolmap.Point2DList(),
            camera_id=known.camera_id,
            image_id=known.image_id,
        )
        start.add_image_with_trivial_frame(image, pycolmap.Rigid3d(np.asarray(pose)))
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = job.threads
    options.random_seed = _SEED
    best = None
    for two_view in (False, True):
        options.triangulation.ignore_two_view_tracks = not two_view
        output = job.folder / f"triangulated{int(two_view)}"
        output.mkdir()
        say("triangulate", 0.5 * two_view)
        best = pycolmap.triangulate_points(
            start, database, job.folder / "images", output, clear_points=True, options=options
        )
        if best.num_points3D() >= 500:
            break
    say("triangulate", 1.0)
    return best


def main(path: Path) -> int:
    """Run one job file; returns the exit code (3: nothing could be reconstructed)."""
    import pycolmap

    pycolmap.logging.minloglevel = pycolmap.logging.WARNING.value
    pycolmap.set_random_seed(_SEED)
    given = cast(dict[str, Any], json.loads(path.read_text()))
    given["folder"] = Path(given["folder"])
    job = Job(**given)
    database = job.folder / "database.db"
    _prepare(job, database)
    _extract(job, database)
    pairs = job.pairs or _choose_pairs(job, database)
    _match(job, pairs, database)
    if job.mode == "map":
        model, how = _map(job, database)
        rest = [p for p in _every_pair(len(job.names)) if p not in set(pairs)]
        if _too_few(job, model) and 0 < len(rest) <= RETRY_PAIRS:
            _match(job, rest, database)
            model, how = _map(job, database)
    else:
        model, how = _triangulate(job, database), "triangulated"
    if model is None or model.num_reg_images() < 2:
        return 3
    if job.mode == "map":
        refine(job, model)
    export(job, model, how)
    for leftover in ("incremental", "global", "triangulated0", "triangulated1", "images"):
        shutil.rmtree(job.folder / leftover, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
