"""Camera paths: held-out views, orbit and spiral. NumPy only.

Frames are OpenCV cameras (x right, y down, z forward) in the scene's own world frame. World up is
not known, so it is estimated from how the cameras were held.
"""

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._views import Views

Doubles = NDArray[np.float64]


def orbit(views: Views, points: Doubles, n: int) -> Views:
    """``n`` views on a closed path around what the cameras look at.

    A full turn where the cameras stand all around. Where they leave a gap of more than 120 degrees
    the path swings to and fro over the arc that was photographed instead, because nothing is known
    from elsewhere.

    Args:
        views: The cameras of the capture.
        points: (p, 3) scene points, used where the viewing directions do not meet; p may be 0.
        n: Number of frames, at least 1.
    """
    up, centre = world_up(views), look_centre(views, points)
    eyes = views.world_from_cam[:, :, 3] - centre
    east = unit(np.cross(up, _away_from(up)))
    north = np.cross(up, east)
    angle = np.arctan2(eyes @ north, eyes @ east)
    radius = float(np.median(np.hypot(eyes @ north, eyes @ east)))
    height = float(np.median(eyes @ up))
    around = np.arange(n) / n * 2 * np.pi
    ordered = np.sort(angle)
    gaps = np.diff(np.append(ordered, ordered[0] + 2 * np.pi))
    widest = int(gaps.argmax())
    if gaps[widest] > np.radians(120) and len(views) > 1:
        first = ordered[(widest + 1) % len(ordered)]
        span = 2 * np.pi - gaps[widest]
        turn = first + span * (0.5 - 0.45 * np.cos(around))
    else:
        turn = angle[0] + around
    eye = centre + radius * (np.cos(turn)[:, None] * east + np.sin(turn)[:, None] * north)
    eye = eye + height * up
    return _frames([look_at(e, centre, up) for e in eye], views)


def spiral(views: Views, points: Doubles, n: int, *, turns: int = 2) -> Views:
    """``n`` views on a small closed spiral about the middle camera, looking at one point.

    After Mildenhall et al., "Local Light Field Fusion", 2019, as used for forward-facing captures;
    unlike there the radii are bounded by 0.35 of the distance to the scene, so that the path also
    suits cameras all around.

    Args:
        views: The cameras of the capture.
        points: (p, 3) scene points, used where the viewing directions do not meet; p may be 0.
        n: Number of frames, at least 1.
        turns: Rounds of the spiral.
    """
    up, centre = world_up(views), look_centre(views, points)
    eyes = views.world_from_cam[:, :, 3]
    middle = int(np.linalg.norm(eyes - np.median(eyes, 0), axis=1).argmin())
    pose = look_at(eyes[middle], centre, up)
    distance = float(np.linalg.norm(centre - eyes[middle]))
    spread = np.percentile(np.abs((eyes - eyes[middle]) @ pose[:, :3]), 80, axis=0)
    radii = np.clip(spread, 0.05 * distance, 0.35 * distance) * [1, 1, 0.5]
    turn = np.arange(n) / n * 2 * np.pi
    offset = np.stack([np.cos(turns * turn), np.sin(turns * turn), np.sin(turn)], -1) * radii
    return _frames([look_at(pose[:, 3] + pose[:, :3] @ o, centre, up) for o in offset], views)


def world_up(views: Views) -> Doubles:
    """Unit vector that the photographers held upright.

    Photos have level horizons, so up is across all the cameras' x axes where these span a plane;
    elsewhere it is the mean of the -y axes.
    """
    mean = -views.world_from_cam[:, :, 1].mean(0)
    if np.linalg.norm(mean) < 0.1:
        mean = -views.world_from_cam[0, :, 1]
    mean = unit(mean)
    right = views.world_from_cam[:, :, 0]
    values, vectors = np.linalg.eigh(right.T @ right / len(right))
    across = vectors[:, 0] * (1 if vectors[:, 0] @ mean >= 0 else -1)
    level = values[1] > 0.03 and values[0] < 0.3 * values[1] and across @ mean > 0.7
    return across if level else mean


def look_centre(views: Views, points: Doubles) -> Doubles:
    """The point nearest to all optical axes; where they do not meet, the middle of the seen points.

    Args:
        views: The cameras.
        points: (p, 3) scene points; p may be 0.
    """
    eyes, ahead = views.world_from_cam[:, :, 3], views.world_from_cam[:, :, 2]
    across = np.eye(3) - ahead[:, :, None] * ahead[:, None]
    matrix, side = across.mean(0), np.einsum("nij,nj->i", across, eyes) / len(eyes)
    if np.linalg.eigvalsh(matrix)[0] > 2e-3:
        meeting = np.linalg.solve(matrix, side)
        if (np.einsum("nj,nj->n", meeting - eyes, ahead) > 0).mean() > 0.7:
            return meeting
    eye, forward = eyes.mean(0), ahead.mean(0)
    forward = unit(forward) if np.linalg.norm(forward) > 1e-3 else ahead[0]
    depth = (points - eye) @ forward if len(points) else np.zeros(0)
    depth = depth[depth > 0]
    reach = float(np.median(depth)) if len(depth) else max(float(np.ptp(eyes, 0).max()), 1.0)
    return eye + forward * reach


def around_points(
    points: Doubles,
    weights: Doubles,
    width: int,
    height: int,
    *,
    turns: int = 8,
    heights: tuple[float, ...] = (0.35,),
) -> Views:
    """Views around bare points, for a splat file that comes without cameras.

    World up is taken as +z unless the points are flat along y (then -y, as COLMAP files lie).

    Args:
        points: (p, 3) positions, p >= 1.
        weights: (p,) importance >= 0; points of weight 0 do not count.
        width: Columns of the views.
        height: Rows of the views.
        turns: Views of every round.
        heights: How far above the middle each round is, in its radii; rounds begin at different
            angles.
    """
    chosen = points[np.isfinite(points).all(1) & (weights > 0)]
    chosen = chosen if len(chosen) else np.zeros((1, 3))
    low, high = np.percentile(chosen, [5, 95], axis=0)
    centre = np.median(chosen, 0)
    extent = np.maximum(high - low, 1e-6)
    up = np.array([0.0, -1, 0]) if extent[1] < 0.7 * extent[2] else np.array([0.0, 0, 1])
    focal = height / 2 / np.tan(np.radians(25))
    radius = 0.5 * float(np.linalg.norm(extent)) * 2.4 * focal / (1.07 * min(width, height))
    east = unit(np.cross(up, _away_from(up)))
    north = np.cross(up, east)
    poses: list[Doubles] = []
    for round_, rise in enumerate(heights):
        for turn in (np.arange(turns) + round_ / len(heights)) / turns * 2 * np.pi:
            away = np.cos(turn) * east + np.sin(turn) * north + rise * up
            poses.append(look_at(centre + radius * unit(away), centre, up))
    count = len(poses)
    return Views(
        names=numbers(count),
        world_from_cam=np.array(poses),
        focal=np.full((count, 2), focal),
        centre=np.tile(np.array([width, height]) / 2, (count, 1)),
        size=np.tile(np.array([width, height]), (count, 1)),
        held_out=(False,) * count,
    )


def look_at(eye: Doubles, target: Doubles, up: Doubles) -> Doubles:
    """Pose [3, 4] of a camera at ``eye`` that sees ``target`` in its centre, ``up`` upwards."""
    forward = unit(target - eye)
    right = np.cross(forward, up)
    if np.linalg.norm(right) < 1e-6 * np.linalg.norm(up):
        right = np.cross(forward, _away_from(forward))
    right = unit(right)
    return np.stack([right, np.cross(forward, right), forward, eye], -1)


def _frames(poses: list[Doubles], views: Views) -> Views:
    """Views at ``poses`` with the size of the first camera and the median focal length."""
    n, size = len(poses), views.size[0]
    focal = np.median(views.focal * (size / views.size), axis=0)
    return Views(
        names=numbers(n),
        world_from_cam=np.array(poses),
        focal=np.broadcast_to(focal, (n, 2)).copy(),
        centre=np.broadcast_to(size / 2, (n, 2)).copy(),
        size=np.broadcast_to(size, (n, 2)).copy(),
        held_out=(False,) * n,
    )


def numbers(n: int) -> tuple[str, ...]:
    """Names of ``n`` frames."""
    return tuple(f"frame_{k:05d}" for k in range(n))


def unit(v: Doubles) -> Doubles:
    """``v`` at length 1."""
    return v / np.linalg.norm(v)


def _away_from(v: Doubles) -> Doubles:
    """The coordinate axis that is farthest from ``v``."""
    return np.eye(3)[int(np.abs(v).argmin())]
