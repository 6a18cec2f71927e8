"""Camera paths through keyframes: position, rotation and view angle on smooth curves. NumPy only.

Frames are OpenCV cameras (x right, y down, z forward) in the scene's own world frame; quaternions
are wxyz. A keyframe file is JSON::

    {"fps": 30, "frames": [
      {"time": 0, "position": [2, 0, 1], "look_at": [0, 0, 0], "up": [0, 0, 1], "fov_y": 50},
      {"time": 2.5, "world_from_cam": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, -3]], "fov_y": 40}]}

``time`` is in seconds and must increase; ``up`` defaults to (0, 0, 1), ``fov_y`` (vertical view
angle, degrees) to 50, ``fps`` to 30; ``world_from_cam`` may have 3 or 4 rows.
"""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._paths import look_at, numbers
from lumefield.apps._views import Views
from lumefield.errors import InputError

Doubles = NDArray[np.float64]

MAX_FRAMES = 100_000
"""Longest path; a keyframe file asking for more is taken for a mistake."""


def keyframes(path: Path, *, n: int | None, width: int, height: int) -> tuple[Views, float]:
    """Smooth views through the keyframes of a file (format: see the module) and their frame rate.

    Positions and the logarithm of the focal length follow cubic Hermite curves with Catmull-Rom
    tangents; rotations follow Bezier curves on the sphere with the same tangents (Shoemake,
    "Animating Rotation with Quaternion Curves", 1985). Velocities are continuous.

    Args:
        path: The JSON file.
        n: Number of frames; None follows the file's ``fps``.
        width: Columns of the frames.
        height: Rows of the frames.

    Raises:
        InputError: If the file cannot be read or a keyframe is incomplete or impossible.
    """
    times, poses, focal, fps = _read_keyframes(path, height)
    count = round(float(times[-1] - times[0]) * fps) + 1 if n is None else n
    if not 1 <= count <= MAX_FRAMES:
        raise InputError(
            f"{path}: asks for {count} frames, expected 1 to {MAX_FRAMES}; check fps and time"
        )
    at = np.linspace(times[0], times[-1], count)
    matrices = interpolate(times, poses, at)
    focals = np.exp(_hermite(times, np.log(focal)[:, None], at))
    views = Views(
        names=numbers(count),
        world_from_cam=matrices,
        focal=np.repeat(focals, 2, 1),
        centre=np.broadcast_to(np.array([width, height]) / 2, (count, 2)).copy(),
        size=np.broadcast_to(np.array([width, height]), (count, 2)).copy(),
        held_out=(False,) * count,
    )
    return views, fps


def interpolate(times: Doubles, poses: Doubles, at: Doubles) -> Doubles:
    """Poses [m, 3, 4] at times ``at`` of the smooth curve through ``poses`` [k, 3, 4]."""
    quats = [_quat(p[:, :3]) for p in poses]
    for i in range(1, len(quats)):
        if quats[i] @ quats[i - 1] < 0:
            quats[i] = -quats[i]
    steps = [
        _log(_multiply(_conjugate(a), b)) / (t1 - t0)
        for a, b, t0, t1 in zip(quats[:-1], quats[1:], times[:-1], times[1:], strict=True)
    ]
    rates = [
        *steps[:1],
        *[(a + b) / 2 for a, b in pairwise(steps)],
        *steps[-1:],
    ]
    out = np.zeros((len(at), 3, 4))
    out[:, :, 3] = _hermite(times, poses[:, :, 3], at)
    for row, t in zip(out, at, strict=True):
        if len(times) == 1:
            row[:, :3] = poses[0, :, :3]
            continue
        i = int(np.clip(np.searchsorted(times, t, "right") - 1, 0, len(times) - 2))
        gap = times[i + 1] - times[i]
        curve = [
            quats[i],
            _multiply(quats[i], _exp(rates[i] * gap / 3)),
            _multiply(quats[i + 1], _exp(-rates[i + 1] * gap / 3)),
            quats[i + 1],
        ]
        part = (t - times[i]) / gap
        while len(curve) > 1:
            curve = [_slerp(a, b, part) for a, b in pairwise(curve)]
        row[:, :3] = _matrix(curve[0])
    return out


def _read_keyframes(path: Path, height: int) -> tuple[Doubles, Doubles, Doubles, float]:
    """Times [k], poses [k, 3, 4], focal lengths [k] in pixels, and frames per second."""
    try:
        record = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a keyframe file ({error})") from None
    frames: Any = record.get("frames") if isinstance(record, dict) else None
    if not isinstance(frames, list) or not frames:
        raise InputError(f'{path}: expected {{"frames": [...]}} with at least one keyframe')
    times: list[float] = []
    poses: list[Doubles] = []
    focal: list[float] = []
    try:
        fps = float(record.get("fps", 30))
        for k, frame in enumerate(frames):
            times.append(float(frame.get("time", k)))
            poses.append(_pose(frame))
            fov = float(frame.get("fov_y", 50))
            if not 1 <= fov <= 170:
                raise ValueError(f"fov_y={fov}, expected 1 to 170 degrees")
            focal.append(height / 2 / float(np.tan(np.radians(fov / 2))))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path}: keyframe {len(times)}: {error}; see the README for the format"
        ) from None
    if not 0 < fps <= 1000:
        raise InputError(f"{path}: fps={fps}, expected more than 0 and at most 1000")
    if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise InputError(f"{path}: times {times[:6]}, expected strictly increasing seconds")
    return np.array(times), np.array(poses), np.array(focal), fps


def _pose(frame: dict[str, Any]) -> Doubles:
    if "world_from_cam" in frame:
        pose = np.array(frame["world_from_cam"], np.float64)[:3]
        if pose.shape != (3, 4) or not np.isfinite(pose).all():
            raise ValueError(f"world_from_cam has shape {pose.shape}, expected finite (3, 4)")
        r = pose[:, :3]
        if np.abs(r.T @ r - np.eye(3)).max() > 1e-3 or np.linalg.det(r) < 0:
            raise ValueError("world_from_cam is not a rotation; its columns must be orthonormal")
        return pose
    if "position" not in frame or "look_at" not in frame:
        raise ValueError("expected position and look_at, or world_from_cam")
    eye, target, up = (
        np.array(frame.get(key, [0, 0, 1]), np.float64) for key in ("position", "look_at", "up")
    )
    for name, value in (("position", eye), ("look_at", target), ("up", up)):
        if value.shape != (3,) or not np.isfinite(value).all():
            raise ValueError(f"{name} has shape {value.shape}, expected 3 finite numbers")
    if np.linalg.norm(target - eye) < 1e-9 or np.linalg.norm(up) < 1e-9:
        raise ValueError("position equals look_at, or up is zero; give a direction")
    return look_at(eye, target, up)


def _hermite(times: Doubles, values: Doubles, at: Doubles) -> Doubles:
    """Cubic Hermite curve through ``values`` [k, c] with Catmull-Rom tangents, at ``at`` [m]."""
    if len(times) == 1:
        return np.repeat(values, len(at), 0)
    slope = np.diff(values, axis=0) / np.diff(times)[:, None]
    rate = np.concatenate([slope[:1], (slope[:-1] + slope[1:]) / 2, slope[-1:]])
    i = np.clip(np.searchsorted(times, at, "right") - 1, 0, len(times) - 2)
    gap = (times[i + 1] - times[i])[:, None]
    s = (at - times[i])[:, None] / gap
    first, last = (1 + 2 * s) * (1 - s) ** 2, s * s * (3 - 2 * s)
    start, end = s * (1 - s) ** 2 * gap, -s * s * (1 - s) * gap
    return first * values[i] + last * values[i + 1] + start * rate[i] + end * rate[i + 1]


def _quat(r: Doubles) -> Doubles:
    """Unit quaternion of a rotation: the eigenvector that Bar-Itzhack (2000) gives."""
    (a, b, c), (d, e, f), (g, h, i) = r
    k = np.array(
        [
            [a + e + i, h - f, c - g, d - b],
            [h - f, a - e - i, b + d, c + g],
            [c - g, b + d, e - a - i, f + h],
            [d - b, c + g, f + h, i - a - e],
        ]
    )
    return np.linalg.eigh(k)[1][:, -1]


def _matrix(q: Doubles) -> Doubles:
    w, v = q[0], q[1:]
    skew = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.eye(3) + 2 * w * skew + 2 * skew @ skew


def _multiply(a: Doubles, b: Doubles) -> Doubles:
    vector = a[0] * b[1:] + b[0] * a[1:] + np.cross(a[1:], b[1:])
    return np.concatenate([[a[0] * b[0] - a[1:] @ b[1:]], vector])


def _conjugate(q: Doubles) -> Doubles:
    return q * [1, -1, -1, -1]


def _log(q: Doubles) -> Doubles:
    """Half the rotation vector of a unit quaternion, the shorter way."""
    q = q if q[0] >= 0 else -q
    norm = float(np.linalg.norm(q[1:]))
    return q[1:] * (np.arctan2(norm, q[0]) / norm if norm > 1e-12 else 1.0)


def _exp(v: Doubles) -> Doubles:
    angle = float(np.linalg.norm(v))
    return np.concatenate([[np.cos(angle)], v * np.sinc(angle / np.pi)])


def _slerp(a: Doubles, b: Doubles, t: float) -> Doubles:
    step = _log(_multiply(_conjugate(a), b)) * t
    q = _multiply(a, _exp(step))
    return q / np.linalg.norm(q)
