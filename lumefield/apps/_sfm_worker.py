"""Structure from motion in a child process: ``python -m lumefield.apps._sfm_worker JOB.json``.

A child, because pycolmap logs straight to the terminal, holds the interpreter in C++ for minutes
(Ctrl-C would wait) and can abort the process on odd input. The child reads one job file, prints one
JSON line per step of progress on stdout and writes ``solution.npz`` and a COLMAP model.

All pixels here are those of the *working* images; ``export`` returns to full-size pixels.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

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
REFINE_FROM = 20
"""Photos a camera must have taken for its full lens model to be estimated."""
MAX_ERROR = 4.0
"""Points with a larger mean reprojection error (working pixels) are dropped."""
OPENCV_ORDER = {
    "SIMPLE_PINHOLE": ("f", "cx", "cy"),
    "PINHOLE": ("fx", "fy", "cx", "cy"),
    "SIMPLE_RADIAL": ("f", "cx", "cy", "k1"),
    "OPENCV": ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2"),
    "FULL_OPENCV": ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
    "OPENCV_FISHEYE": ("fx", "fy", "cx", "cy", "k1", "k2", "k3", "k4"),
}
"""Parameter names, in COLMAP's order, of the camera models used here."""


@dataclass(frozen=True)
class _Job:
    """What the parent asks for; a JSON object on disk (lists in place of arrays)."""

    mode: str
    """``map`` (unknown poses) or ``triangulate`` (known poses)."""
    folder: Path
    """Work folder: ``images/NAME`` in, ``database.db``, ``model/`` and ``solution.npz`` out."""
    names: list[str]
    """Working image files, in name order."""
    rows: list[int]
    """Which of the parent's photos each one is."""
    unreadable: list[int]
    """The parent's photos that could not be decoded; only passed on."""
    originals: list[str]
    """Names the images have in the exported model."""
    full_size: list[tuple[int, int]]
    """Width and height of the originals."""
    cameras: list[dict[str, Any]]
    """Each: model, width, height, params, prior (is the focal length trusted)."""
    camera_of: list[int]
    """Index into ``cameras`` per image."""
    pairs: list[tuple[int, int]]
    """Image pairs to match; empty: chosen here, by what the photos share."""
    cam_from_world: list[list[list[float]]]
    """(n, 3, 4) poses of ``triangulate``; empty for ``map``."""
    features: int
    """Most SIFT features per image."""
    threads: int
    """Threads of every step."""


def _say(stage: str, fraction: float) -> None:
    print(json.dumps({"stage": stage, "fraction": round(fraction, 4)}), flush=True)


def _prepare(job: _Job, database: Path) -> None:
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


def _extract(job: _Job, database: Path) -> None:
    import pycolmap

    options = pycolmap.FeatureExtractionOptions()
    options.num_threads = job.threads
    options.sift.max_num_features = job.features
    options.sift.first_octave = 0
    chunk = max(4, 2 * job.threads)
    for start in range(0, len(job.names), chunk):
        _say("features", start / len(job.names))
        pycolmap.extract_features(
            database,
            job.folder / "images",
            image_names=job.names[start : start + chunk],
            extraction_options=options,
            device=pycolmap.Device.cpu,
        )
    _say("features", 1.0)


def _every_pair(n: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(n) for j in range(i + 1, n)]


def _too_few(job: _Job, model: "pycolmap.Reconstruction | None") -> bool:
    return model is None or model.num_reg_images() < ENOUGH * len(job.names)


def _choose_pairs(job: _Job, database: Path) -> list[tuple[int, int]]:
    """Every pair of few photos, else the pairs that share coarse features."""
    import pycolmap

    if len(job.names) <= EXHAUSTIVE:
        return _every_pair(len(job.names))
    _say("choose pairs", 0.0)
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


def _match(job: _Job, pairs: Sequence[tuple[int, int]], database: Path) -> None:
    import pycolmap

    matching = pycolmap.FeatureMatchingOptions()
    matching.num_threads = job.threads
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = _SEED
    pairing = pycolmap.ImportedPairingOptions()
    chunk = max(20, len(pairs) // 20)
    for start in range(0, len(pairs), chunk):
        _say("match", start / len(pairs))
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
    _say("match", 1.0)


def _largest(
    models: "dict[int, pycolmap.Reconstruction]",
) -> "pycolmap.Reconstruction | None":
    """The model with the most registered images, then the most points; None if there is none."""
    ranked = sorted(
        models.values(), key=lambda m: (m.num_reg_images(), m.num_points3D()), reverse=True
    )
    return ranked[0] if ranked else None


def _map(job: _Job, database: Path) -> "tuple[pycolmap.Reconstruction | None, str]":
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
        _say("map", min(done[0] / len(job.names), 1.0))

    (job.folder / "incremental").mkdir(exist_ok=True)
    _say("map", 0.0)
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
    _say("map", 1.0)
    return best, how


def _global(job: _Job, database: Path) -> "pycolmap.Reconstruction | None":
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


def _refine(job: _Job, model: "pycolmap.Reconstruction") -> None:
    """Give cameras seen in many photos the full OpenCV lens and their own principal point.

    The mapper works with one radial term because few photos do not determine more.
    """
    import pycolmap

    seen = [model.image(i).camera_id for i in model.reg_image_ids()]
    cameras = [model.camera(k) for k in sorted(set(seen)) if seen.count(k) >= REFINE_FROM]
    cameras = [camera for camera in cameras if camera.model_name == "SIMPLE_RADIAL"]
    if not cameras:
        return
    _say("refine", 0.0)
    for camera in cameras:
        f, cx, cy, k = camera.params
        camera.model = pycolmap.CameraModelId.OPENCV
        camera.params = [f, f, cx, cy, k, 0.0, 0.0, 0.0]
    options = pycolmap.BundleAdjustmentOptions()
    options.ceres.solver_options.num_threads = job.threads
    for centre in (False, True):
        options.refine_principal_point = centre
        pycolmap.bundle_adjustment(model, options)
    _say("refine", 1.0)


def _triangulate(job: _Job, database: Path) -> "pycolmap.Reconstruction | None":
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
        _say("triangulate", 0.5 * two_view)
        best = pycolmap.triangulate_points(
            start, database, job.folder / "images", output, clear_points=True, options=options
        )
        if best.num_points3D() >= 500:
            break
    _say("triangulate", 1.0)
    return best


def _clean(model: "pycolmap.Reconstruction") -> None:
    """Drop points that fit badly or that a single photo sees."""
    model.update_point_3d_errors()
    for key in list(model.point3D_ids()):
        point = model.point3D(key)
        if not point.error <= MAX_ERROR or point.track.length() < 2:
            model.delete_point3D(key)


def _to_full_size(job: _Job, model: "pycolmap.Reconstruction") -> None:
    """Turn working pixels into pixels of the photos, and working names into theirs."""
    number = {name: i for i, name in enumerate(job.names)}
    scaled: dict[int, tuple[float, float]] = {}
    for image in model.images.values():
        i = number[image.name]
        camera = model.camera(image.camera_id)
        if image.camera_id not in scaled:
            w, h = job.full_size[i]
            scaled[image.camera_id] = (w / camera.width, h / camera.height)
            camera.rescale(w, h)
        sx, sy = scaled[image.camera_id]
        for point in image.points2D:
            point.xy = point.xy * np.array([sx, sy])
        image.name = job.originals[i]


def _export(job: _Job, model: "pycolmap.Reconstruction", how: str) -> None:
    """Write ``model/`` and ``solution.npz`` for the photos that were registered."""
    _clean(model)
    work_error = float(model.compute_mean_reprojection_error()) if model.num_points3D() else 0.0
    index = {name: i for i, name in enumerate(job.names)}
    images = sorted((model.image(i) for i in model.reg_image_ids()), key=lambda m: index[m.name])
    order = [index[image.name] for image in images]
    _to_full_size(job, model)
    poses, intrinsics = [], np.zeros((len(images), 12))
    for row, image in zip(intrinsics, images, strict=True):
        poses.append(image.cam_from_world().inverse().matrix())
        row[:] = _intrinsics(model.camera(image.camera_id))
    points = [model.point3D(key) for key in sorted(model.point3D_ids())]
    np.savez(
        job.folder / "solution.npz",
        order=np.array([job.rows[i] for i in order], np.int64),
        unreadable=np.array(job.unreadable, np.int64),
        world_from_cam=np.array(poses, np.float64).reshape(-1, 3, 4),
        intrinsics=intrinsics,
        fisheye=np.array(
            [model.camera(m.camera_id).model_name == "OPENCV_FISHEYE" for m in images], bool
        ),
        points=np.array([p.xyz for p in points], np.float64).reshape(-1, 3),
        colours=np.array([p.color for p in points], np.uint8).reshape(-1, 3),
        error=np.array(work_error),
        how=np.array(how),
    )
    folder = job.folder / "sparse" / "0"
    folder.mkdir(parents=True)
    model.write(folder)


def _intrinsics(camera: "pycolmap.Camera") -> NDArray[np.float64]:
    """Focal lengths, centre, then eight numbers in the order of ``PosedImages.distortion``."""
    named = dict(zip(OPENCV_ORDER[camera.model_name], camera.params, strict=True))
    fx = named.get("fx", named.get("f", 0.0))
    keys = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
    if camera.model_name == "OPENCV_FISHEYE":
        keys = ("k1", "k2", "k3", "k4", "-", "-", "-", "-")
    rest = [named.get(key, 0.0) for key in keys]
    return np.array([fx, named.get("fy", fx), named["cx"], named["cy"], *rest])


def main(path: Path) -> int:
    """Run one job file; returns the exit code (3: nothing could be reconstructed)."""
    import pycolmap

    pycolmap.logging.minloglevel = pycolmap.logging.WARNING.value
    pycolmap.set_random_seed(_SEED)
    given = cast(dict[str, Any], json.loads(path.read_text()))
    given["folder"] = Path(given["folder"])
    job = _Job(**given)
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
        _refine(job, model)
    _export(job, model, how)
    for leftover in ("incremental", "global", "triangulated0", "triangulated1", "images"):
        shutil.rmtree(job.folder / leftover, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
