"""A shape as a field (x, y, z) -> signed distance, negative inside; a mesh comes out.

The shape's bounding box is moved and scaled so that its longest side spans ``SPAN`` of [-1, 1]; all
distances are in those units. Targets are exact distances to the triangles (to the points of a
cloud) with the sign of the generalised winding number, drawn near the surface and in the whole
cube. The loss is the absolute error relative to the distance (Mueller et al., "Instant Neural
Graphics Primitives", 2022, use such a one), plus the eikonal term (|∇Φ| - 1)^2 of Gropp et al.,
"Implicit Geometric Regularization", 2020, Eq. 2, on a part of the points.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lumefield.apps._fit_settings import Fit
from lumefield.apps._marching import Mesh, marching_cubes
from lumefield.apps._shape_files import Shape, load_shape, save_mesh
from lumefield.apps._signal import Exhibit, Problem, evaluate
from lumefield.apps._signal_plan import make_size
from lumefield.apps._surface import Surface
from lumefield.errors import RunError

Doubles = NDArray[np.float64]

SPAN = 1.8
"""Longest side of the shape in the field's cube, whose sides are 2."""
RESOLUTION = {"draft": 96, "standard": 128, "best": 224}
"""Cells along the cube of the mesh that comes out."""
POOL = {"draft": 1 << 17, "standard": 1 << 18, "best": 1 << 19}
_NEAR = ((0.5, 0.006), (0.25, 0.05))
"""(share, standard deviation of the offset) of the points near the surface; others are uniform."""
SOFT = 0.1
"""Distance below which errors count alike; beyond, relative to the distance."""
_EIKONAL = 0.002
"""Weight of the eikonal term."""
_EIKONAL_SHARE = 8
"""One in so many points takes part in it."""
SCORED = 40_000
"""Points that IoU and Chamfer distance are measured with."""


def prepare(settings: Fit) -> Problem:
    """Make a mesh or a point cloud ready to be fitted.

    Raises:
        InputError: If the file or the field cannot be used.
        FormatError: If the file is damaged or holds no shape.
    """
    shape = load_shape(settings.input)
    low, high = shape.vertices.min(0), shape.vertices.max(0)
    centre, scale = (low + high) / 2, SPAN / float((high - low).max())
    surface = _surface(shape, centre, scale)
    resolution = RESOLUTION[settings.quality]
    pool = POOL[settings.quality]
    size = make_size(settings, "sdf", samples=pool, side=resolution * 2, d_in=3)
    points, distances = draw_pool(surface, pool, settings.seed)
    facts: dict[str, Any] = {
        "centre": centre.tolist(),
        "scale": scale,
        "resolution": resolution,
        "low": ((low - centre) * scale).tolist(),
        "high": ((high - centre) * scale).tolist(),
    }

    def batches(first: int, count: int) -> Any:  # noqa: ANN401
        rows = np.stack(
            [
                np.random.default_rng((settings.seed, step)).integers(0, len(points), size.batch)
                for step in range(first, first + count)
            ]
        )
        return points[rows], distances[rows]

    def finish(field: Any, folder: Path) -> tuple[dict[str, Any], list[Exhibit]]:  # noqa: ANN401
        return _finish(field, folder, surface, facts)

    return Problem(
        kind="sdf",
        d_in=3,
        d_out=1,
        size=size,
        facts=facts,
        summary=f"{settings.input.name}: {shape.summary}",
        notes=shape.notes,
        loss=distance_loss,
        batches=batches,
        unit="mean error",
        result="mesh.glb",
        finish=finish,
    )


def distance_loss(
    field: Any,  # noqa: ANN401
    aux: Any,  # noqa: ANN401
    batch: Any,  # noqa: ANN401
    key: jax.Array,
    step: jax.Array,
) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
    """Relative absolute error plus the eikonal term; ``shown`` is the mean absolute error."""
    from lumefield.fields import value_and_jacobian

    del key, step
    points, target = batch
    value = field(points)[..., 0]
    error = jnp.abs(value - target)
    relative = jnp.mean(error / (jnp.abs(target) + SOFT)) * SOFT
    slope = value_and_jacobian(field, points[::_EIKONAL_SHARE])[1][..., 0, :]
    length = jnp.sqrt(jnp.sum(slope**2, -1) + 1e-12)
    eikonal = jnp.mean((length - 1) ** 2)
    metrics = {"shown": jnp.mean(error), "eikonal": eikonal}
    return relative + _EIKONAL * eikonal, (aux, metrics)


def draw_pool(
    surface: Surface, count: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Points (count, 3) in the cube [-1, 1]^3 and their signed distances (count,)."""
    rng = np.random.default_rng((seed, 1 << 40))
    parts: list[Doubles] = []
    for share, spread in _NEAR:
        at, _ = surface.sample(int(count * share), rng)
        parts.append(at + rng.normal(scale=spread, size=at.shape))
    parts.append(rng.uniform(-1, 1, (count - sum(map(len, parts)), 3)))
    points = np.clip(np.concatenate(parts), -1, 1)
    return points.astype(np.float32), surface.signed_distance(points).astype(np.float32)


def extract(field: Any, facts: Mapping[str, Any], resolution: int) -> Mesh:  # noqa: ANN401
    """The closed zero level set of a field, in the frame of the input file.

    Args:
        field: Signed distance on the cube.
        facts: ``facts`` of the run.
        resolution: Cells along the cube.

    Raises:
        RunError: If the field has no inside, or ``facts`` are damaged.
    """
    try:
        centre, scale = np.array(facts["centre"], float), float(facts["scale"])
    except (KeyError, TypeError, ValueError):
        raise RunError("config.json does not tell the frame of the shape; fit it again") from None
    axis = np.linspace(-1, 1, resolution + 1)
    values = np.empty((resolution + 1,) * 3, np.float32)
    for i, x in enumerate(axis):
        grid = np.stack(np.meshgrid(axis, axis), -1)[..., ::-1].reshape(-1, 2)
        plane = np.concatenate([np.full((len(grid), 1), x), grid], 1)
        values[i] = evaluate(field, plane.astype(np.float32)).reshape(values.shape[1:])
    if not (values < 0).any():
        raise RunError("the field has no inside, so there is no surface; fit it with more steps")
    step = 2.0 / resolution
    mesh = marching_cubes(values, origin=(-1, -1, -1), spacing=(step, step, step), close=True)
    return Mesh(mesh.vertices / scale + centre, mesh.faces)


def scores(
    field: Any,  # noqa: ANN401
    mesh: Mesh,
    surface: Surface,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """IoU and Chamfer distance of a field's mesh, by points drawn with a fixed seed.

    * ``iou``: of the volumes, over points uniform in the bounding box of the truth: inside of the
      field (negative) against inside of the truth (winding number above one half).
    * ``chamfer_percent``: the mean of the two mean distances, mesh to truth and truth to mesh, in
      percent of the diagonal of the truth's bounding box. Distances are exact, from points uniform
      by area to triangles.
    """
    rng = np.random.default_rng(7)
    low, high = np.array(facts["low"]), np.array(facts["high"])
    points = rng.uniform(low, high, (SCORED, 3))
    ours = evaluate(field, points.astype(np.float32))[:, 0] < 0
    truth = surface.winding(points) > 0.5
    unit = (mesh.vertices - np.array(facts["centre"])) * float(facts["scale"])
    drawn = Surface.of_mesh(unit, mesh.faces)
    diagonal = float(np.linalg.norm(high - low))
    there = surface.distance(drawn.sample(SCORED, rng)[0]).mean() / diagonal * 100
    back = drawn.distance(surface.sample(SCORED, rng)[0]).mean() / diagonal * 100
    return {
        "iou": round(float((ours & truth).sum() / max((ours | truth).sum(), 1)), 5),
        "chamfer_percent": round(float(there + back) / 2, 5),
        "to_truth_percent": round(float(there), 5),
        "from_truth_percent": round(float(back), 5),
    }


def _surface(shape: Shape, centre: Doubles, scale: float) -> Surface:
    vertices = (shape.vertices - centre) * scale
    if shape.normals is not None:
        return Surface.of_points(vertices, shape.normals)
    return Surface.of_mesh(vertices, shape.faces)


def _finish(
    field: Any,  # noqa: ANN401
    folder: Path,
    surface: Surface,
    facts: dict[str, Any],
) -> tuple[dict[str, Any], list[Exhibit]]:
    from lumefield.apps._shape_picture import picture_of

    mesh = extract(field, facts, int(facts["resolution"]))
    save_mesh(folder / "mesh.glb", mesh)
    measured = scores(field, mesh, surface, facts)
    edges = np.sort(mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1)
    uses = np.unique(edges, axis=0, return_counts=True)[1]
    measured |= {"faces": len(mesh.faces), "watertight": bool((uses == 2).all())}
    unit = (mesh.vertices - np.array(facts["centre"])) * float(facts["scale"])
    exhibits = [
        Exhibit(
            name,
            picture_of(surface, axis),
            picture_of(Surface.of_mesh(unit, mesh.faces), axis),
            f"IoU {measured['iou']:.4f}",
        )
        for name, axis in (("front", 2), ("side", 0))
    ]
    return measured, exhibits
