"""Structure from motion: photos -> cameras and points, or known cameras -> points. Cached.

The work is done by pycolmap in a child process (``_sfm_worker``) on upright working copies of at
most ``WORK_SIDE`` pixels, so every photo format and EXIF orientation is handled here, once. Results
lie in ``FOLDER`` as ``solution.npz`` (what is read back), ``sparse/0`` (a COLMAP model in full-size
pixels, for other programs) and ``key.json`` (what they were made from).
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._photos import READ_ERRORS, PhotoInfo, decode, quietly
from lumefield.codecs.formats import PosedImages
from lumefield.errors import InputError, RunError

Progress = Callable[[str, float], None]
WORK_SIDE = 1600
"""Longest side of the working copies of photos with unknown cameras."""
KNOWN_SIDE = 1200
"""The same where the cameras are known: fewer, well spread points are enough."""
FEATURES = 8192
"""Most SIFT features per photo."""
_VERSION = 1


@dataclass(frozen=True)
class Solution:
    """Cameras and points found for ``n`` of the photos given, in pixels of the upright photos."""

    order: NDArray[np.int64]
    """(n,) index of each registered photo."""
    world_from_cam: NDArray[np.float64]
    """(n, 3, 4) poses, OpenCV axes."""
    intrinsics: NDArray[np.float64]
    """(n, 12) fx fy cx cy and the eight distortion numbers of ``PosedImages``."""
    fisheye: NDArray[np.bool_]
    """(n,) whether the camera model is ``fisheye`` rather than ``opencv``."""
    points: NDArray[np.float64]
    """(p, 3) world points."""
    colours: NDArray[np.uint8]
    """(p, 3) sRGB."""
    error: float
    """Mean reprojection error in pixels of the working copies."""
    how: str
    """``incremental``, ``global`` or ``triangulated``."""
    unreadable: NDArray[np.int64]
    """Indices of photos that could not be decoded."""


def fingerprint(paths: Sequence[Path]) -> str:
    """Hash of the files' names, sizes and sampled content; it survives copying."""
    digest = hashlib.blake2b(digest_size=16)
    block = 1 << 16
    for path in paths:
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            for start in sorted({0, max(0, size // 2 - block // 2), max(0, size - block)}):
                file.seek(start)
                digest.update(file.read(block))
    return digest.hexdigest()


def solve(
    photos: Sequence[PhotoInfo],
    *,
    folder: Path,
    threads: int,
    progress: Progress,
) -> Solution:
    """Find the cameras of photos of one static scene.

    Args:
        photos: In name order, all readable.
        folder: Where the result is kept and looked for.
        threads: Threads to use.
        progress: Called with a stage and the share of it that is done.

    Raises:
        InputError: If no two photos overlap.
        RunError: If the reconstruction fails or ``folder`` cannot be written.
    """
    cameras: list[dict[str, Any]] = []
    groups: dict[tuple[Any, ...], int] = {}
    camera_of: list[int] = []
    for photo in photos:
        width, height = _work_size(photo.upright, WORK_SIDE)
        key = (width, height, round(photo.focal), photo.camera)
        if key not in groups:
            groups[key] = len(cameras)
            scale = width / photo.upright[0]
            focal = photo.focal * scale or 1.2 * max(width, height)
            params = [focal, width / 2, height / 2, 0.0]
            cameras.append(_camera("SIMPLE_RADIAL", width, height, params, photo.focal > 0))
        camera_of.append(groups[key])
    job = {
        "mode": "map",
        "cameras": cameras,
        "camera_of": camera_of,
        "pairs": [],
        "cam_from_world": [],
    }
    result = _cached(photos, job, side=WORK_SIDE, folder=folder, threads=threads, progress=progress)
    if result is None:
        raise InputError(
            f"none of the {len(photos)} photos could be placed: no two of them overlap enough; "
            "take photos of one static, textured scene, each sharing most of its view with the next"
        )
    return result


def triangulate(
    posed: PosedImages,
    infos: Sequence[PhotoInfo],
    *,
    folder: Path,
    threads: int,
    progress: Progress,
) -> Solution | None:
    """Find sparse points of photos whose cameras are known; None if there are none.

    Only pairs of cameras that look at something common are matched: see ``near_pairs``.

    Args:
        posed: The cameras.
        infos: Headers of the same photos.
        folder: Where the result is kept and looked for.
        threads: Threads to use.
        progress: Called with a stage and the share of it that is done.

    Raises:
        RunError: If the reconstruction fails or ``folder`` cannot be written.
    """
    cameras: list[dict[str, Any]] = []
    groups: dict[tuple[Any, ...], int] = {}
    camera_of: list[int] = []
    for i, info in enumerate(infos):
        native = info.upright if needs_turn(info, posed.size[i]) else info.size
        size = _work_size(native, KNOWN_SIDE)
        scale = np.array(size) / posed.size[i]
        row = [*(posed.focal[i] * scale), *(posed.centre[i] * scale), *posed.distortion[i]]
        key = (*size, posed.model[i], *(round(float(v), 9) for v in row))
        if key not in groups:
            groups[key] = len(cameras)
            fisheye = posed.model[i] == "fisheye"
            params = [float(v) for v in (row[:8] if fisheye else row)]
            model = "OPENCV_FISHEYE" if fisheye else "FULL_OPENCV"
            cameras.append(_camera(model, *size, params, True))
        camera_of.append(groups[key])
    rotation = posed.world_from_cam[:, :, :3].transpose(0, 2, 1)
    shift = -np.einsum("nij,nj->ni", rotation, posed.world_from_cam[:, :, 3])
    job = {
        "mode": "triangulate",
        "cameras": cameras,
        "camera_of": camera_of,
        "pairs": near_pairs(posed.world_from_cam),
        "cam_from_world": np.concatenate([rotation, shift[..., None]], axis=2).tolist(),
    }
    upright = [needs_turn(info, size) for info, size in zip(infos, posed.size, strict=True)]
    return _cached(
        infos,
        job,
        side=KNOWN_SIDE,
        folder=folder,
        threads=threads,
        progress=progress,
        upright=upright,
    )


def needs_turn(info: PhotoInfo, size: Sequence[int] | NDArray[np.int64]) -> bool:
    """Whether a photo with known intrinsics for ``size`` must be turned by its EXIF orientation.

    Camera files are made by programs that either apply the orientation or do not look at it. Only
    an orientation that swaps the sides tells which; otherwise it is left alone.
    """
    wide, stored = int(size[0]) > int(size[1]), info.size[0] > info.size[1]
    return info.orientation >= 5 and int(size[0]) != int(size[1]) and wide != stored


def near_pairs(world_from_cam: NDArray[np.float64], count: int = 12) -> list[tuple[int, int]]:
    """Pairs of cameras that can see the same thing: near by, and looking less than 75 deg apart.

    Args:
        world_from_cam: (n, 3, 4) poses, OpenCV axes.
        count: Neighbours per camera.
    """
    position, forward = world_from_cam[:, :, 3], world_from_cam[:, :, 2]
    distance = np.linalg.norm(position[:, None] - position[None], axis=-1)
    cosine = forward @ forward.T
    spread = float(np.median(distance)) or 1.0
    cost = distance / spread + 2.0 * (1.0 - cosine)
    cost[cosine < 0.26] = np.inf
    np.fill_diagonal(cost, np.inf)
    chosen: set[tuple[int, int]] = set()
    for i, row in enumerate(cost):
        for j in np.argsort(row, kind="stable")[:count]:
            if np.isfinite(row[j]):
                chosen.add((min(i, int(j)), max(i, int(j))))
    return sorted(chosen)


def _camera(
    model: str, width: int, height: int, params: list[float], prior: bool
) -> dict[str, Any]:
    return {"model": model, "width": width, "height": height, "params": params, "prior": prior}


def _work_size(size: tuple[int, int], side: int) -> tuple[int, int]:
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _cached(
    photos: Sequence[PhotoInfo],
    job: dict[str, Any],
    *,
    side: int,
    folder: Path,
    threads: int,
    progress: Progress,
    upright: Sequence[bool] | None = None,
) -> Solution | None:
    """Look for the result in ``folder``; run the job and keep the result there if it is not."""
    settings = {
        "version": _VERSION,
        "photos": fingerprint([p.path for p in photos]),
        "job": hashlib.blake2b(json.dumps(job).encode(), digest_size=16).hexdigest(),
        "side": side,
        "features": FEATURES,
    }
    found = _read(folder, settings)
    if found is not None:
        return found
    work = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    turn = [True] * len(photos) if upright is None else list(upright)
    try:
        shutil.rmtree(work, ignore_errors=True)
        (work / "images").mkdir(parents=True)
        good = _write_work(photos, work / "images", side, turn, threads, progress)
        if len(good) < 2:
            raise InputError(
                f"only {len(good)} of {len(photos)} photos can be decoded, expected at least two; "
                "export them again as JPEG or PNG"
            )
        job = {**_only(job, good), "folder": str(work), "features": FEATURES, "threads": threads}
        names = _model_names(photos)
        job["names"] = [_work_name(i) for i in good]
        job["originals"] = [names[i] for i in good]
        job["full_size"] = [photos[i].upright if turn[i] else photos[i].size for i in good]
        job["rows"] = good
        job["unreadable"] = sorted(set(range(len(photos))) - set(good))
        (work / "job.json").write_text(json.dumps(job))
        code = _run(work, progress)
        if code == 3:
            return None
        if code != 0:
            raise RunError(f"structure from motion stopped (exit {code}): {_last_line(work)}")
        (work / "database.db").unlink(missing_ok=True)
        (work / "key.json").write_text(json.dumps(settings, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(work, folder)
    except OSError as error:
        raise RunError(
            f"{folder}: cannot write the reconstruction ({error}); free some space or choose "
            "another --out"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return _read(folder, settings)


def _model_names(photos: Sequence[PhotoInfo]) -> list[str]:
    root = Path(os.path.commonpath([p.path.parent for p in photos]))
    return [p.path.relative_to(root).as_posix() for p in photos]


def _only(job: dict[str, Any], rows: list[int]) -> dict[str, Any]:
    """The job of these photos alone."""
    new = {old: k for k, old in enumerate(rows)}
    poses = job["cam_from_world"]
    return {
        **job,
        "camera_of": [job["camera_of"][i] for i in rows],
        "pairs": [(new[i], new[j]) for i, j in job["pairs"] if i in new and j in new],
        "cam_from_world": [poses[i] for i in rows] if poses else [],
    }


def _work_name(i: int) -> str:
    return f"{i:06d}.jpg"


def _write_work(
    photos: Sequence[PhotoInfo],
    folder: Path,
    side: int,
    upright: Sequence[bool],
    threads: int,
    progress: Progress,
) -> list[int]:
    """Write working copies; returns which photos could be decoded."""

    def write(i: int) -> bool:
        from PIL import Image

        native = photos[i].upright if upright[i] else photos[i].size
        size = _work_size(native, side)
        try:
            pixels, _ = decode(photos[i], size, upright=upright[i], premultiplied=True)
        except READ_ERRORS:
            return False
        image = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
        image.save(folder / _work_name(i), quality=95, subsampling=0)
        return True

    good: list[int] = []
    with quietly(), ThreadPoolExecutor(max(1, min(threads, 4))) as pool:
        for i, fine in enumerate(pool.map(write, range(len(photos)))):
            progress("read photos", (i + 1) / len(photos))
            if fine:
                good.append(i)
    return good


def _run(work: Path, progress: Progress) -> int:
    """Run the child to its end, or kill it when this process is interrupted."""
    package = Path(__file__).parents[2]
    paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-P", "-m", "lumefield.apps._sfm_worker", str(work / "job.json")]
    with (work / "log.txt").open("w") as log:
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )
        try:
            assert child.stdout is not None
            for line in child.stdout:
                try:
                    said = json.loads(line)
                    progress(str(said["stage"]), float(said["fraction"]))
                except (ValueError, KeyError, TypeError):
                    continue  # a stray line of a library
            return child.wait()
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
            if child.stdout is not None:
                child.stdout.close()


def _last_line(work: Path) -> str:
    lines = (work / "log.txt").read_text(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "no message"


def _read(folder: Path, settings: dict[str, Any]) -> Solution | None:
    """The kept result if it was made from the same files with the same settings."""
    try:
        if json.loads((folder / "key.json").read_text()) != settings:
            return None
        with (folder / "solution.npz").open("rb") as opened, np.load(opened) as file:
            data = {name: file[name] for name in file.files}
        return Solution(
            order=data["order"],
            world_from_cam=data["world_from_cam"],
            intrinsics=data["intrinsics"],
            fisheye=data["fisheye"],
            points=data["points"],
            colours=data["colours"],
            error=float(data["error"]),
            how=str(data["how"]),
            unreadable=data["unreadable"],
        )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
