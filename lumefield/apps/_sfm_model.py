"""From the model of ``_sfm_worker`` to what it leaves behind: last refinement, cleaning, files.

What comes in has the pixels of the working images; what is written has those of the photos.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._sfm_job import Job, say

if TYPE_CHECKING:
    import pycolmap

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


def refine(job: Job, model: "pycolmap.Reconstruction") -> None:
    """Give cameras seen in many photos the full OpenCV lens and their own principal point.

    The mapper works with one radial term because few photos do not determine more.
    """
    import pycolmap

    seen = [model.image(i).camera_id for i in model.reg_image_ids()]
    cameras = [model.camera(k) for k in sorted(set(seen)) if seen.count(k) >= REFINE_FROM]
    cameras = [camera for camera in cameras if camera.model_name == "SIMPLE_RADIAL"]
    if not cameras:
        return
    say("refine", 0.0)
    for camera in cameras:
        f, cx, cy, k = camera.params
        camera.model = pycolmap.CameraModelId.OPENCV
        camera.params = [f, f, cx, cy, k, 0.0, 0.0, 0.0]
    options = pycolmap.BundleAdjustmentOptions()
    options.ceres.solver_options.num_threads = job.threads
    for centre in (False, True):
        options.refine_principal_point = centre
        pycolmap.bundle_adjustment(model, options)
    say("refine", 1.0)


def export(job: Job, model: "pycolmap.Reconstruction", how: str) -> None:
    """Write ``sparse/0/`` and ``solution.npz`` for the photos that were registered."""
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


def _clean(model: "pycolmap.Reconstruction") -> None:
    """Drop points that fit badly or that a single photo sees."""
    model.update_point_3d_errors()
    for key in list(model.point3D_ids()):
        point = model.point3D(key)
        if not point.error <= MAX_ERROR or point.track.length() < 2:
            model.delete_point3D(key)


def _to_full_size(job: Job, model: "pycolmap.Reconstruction") -> None:
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


def _intrinsics(camera: "pycolmap.Camera") -> NDArray[np.float64]:
    """Focal lengths, centre, then eight numbers in the order of ``PosedImages.distortion``."""
    named = dict(zip(OPENCV_ORDER[camera.model_name], camera.params, strict=True))
    fx = named.get("fx", named.get("f", 0.0))
    keys = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
    if camera.model_name == "OPENCV_FISHEYE":
        keys = ("k1", "k2", "k3", "k4", "-", "-", "-", "-")
    rest = [named.get(key, 0.0) for key in keys]
    return np.array([fx, named.get("fy", fx), named["cx"], named["cy"], *rest])
