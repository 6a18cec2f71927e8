"""Floaters planted into a trained scene, and what ``lumefield edit SCENE clean`` leaves of them.

    python -m benchmarks.clean RUN [--share 0.05] [--seed 31 11] [--way rays ...] [--strength 0.5]
    python -m benchmarks.clean --fit RUN:SEED ... > model.txt

For the scene as it is, and for each way and seed of planting, cleaned with the photos of the run as
a guard and without, it prints how many of the planted are gone, how many others, and the PSNR over
the held-out views before planting, planted, and cleaned (and the change from before planting).
``--fit`` prints the table of ``apps/_edit_model.py``.
"""

import argparse
import dataclasses
import itertools
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.spatial import KDTree

from lumefield.apps import _edit_model
from lumefield.apps._edit_clean import Clean, clean
from lumefield.apps._edit_evidence import around, sight_of
from lumefield.apps._edit_scene import Subject, joined, opacity_of
from lumefield.apps._evaluate import image_stems, score_views
from lumefield.apps._export_prune import chosen_views
from lumefield.apps._runtime import prepare
from lumefield.apps._scene_io import Scene, load_scene, make_draw, to_bytes
from lumefield.apps._views import Views
from lumefield.codecs.formats import Splats

Floats = NDArray[np.float64]
JUDGES = ("photos", "model")
WAYS = ("rays", "hull", "near", "clusters")
_C0 = 0.28209479177387814
_JUDGED = 0.3


def main() -> None:
    """Plant, clean, score, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="+", help="folder of a run; with --fit RUN:SEED")
    parser.add_argument("--share", type=float, default=0.05, help="planted, of all Gaussians")
    parser.add_argument("--seed", type=int, nargs="*", default=[0])
    parser.add_argument("--way", nargs="*", default=["mix"], help=f"mix, or some of {WAYS}")
    parser.add_argument("--strength", type=float, help="the command's default when not given")
    parser.add_argument("--judge", nargs="*", choices=JUDGES, default=list(JUDGES))
    parser.add_argument("--fit", action="store_true")
    options = parser.parse_args()
    prepare(None)
    if options.fit:
        pairs = [run.rpartition(":") for run in options.run]
        print(_fitted([(Path(run), int(seed)) for run, _, seed in pairs]))
        return
    print("| run | planted | judged by | planted removed | others | before | planted | cleaned |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for run in map(Path, options.run):
        scene = load_scene(run)
        own = _psnr(scene, scene.splats)
        none = np.zeros(len(scene.splats.means), bool)
        cases = [("nothing", scene.splats, none)]
        for way, seed in itertools.product(options.way, options.seed):
            cases.append((f"{way} {seed}", *plant(scene, options.share, seed, way)))
        for what, splats, planted in cases:
            before = _psnr(scene, splats) if planted.any() else own
            for judge in options.judge:
                kept, took = _cleaned(scene, splats, options.strength, judge)
                after = _psnr(scene, splats.taken(kept))
                gone, most = int((planted & ~kept).sum()), max(int(planted.sum()), 1)
                print(
                    f"| {run.name} | {what} | {judge} | {gone:,} ({100 * gone / most:.1f} %) "
                    f"| {int((~planted & ~kept).sum()):,} | {own:.2f} dB | {before:.2f} "
                    f"| {after:.2f} ({after - own:+.2f}), {took:.0f} CPU-s |",
                    flush=True,
                )


def _cleaned(
    scene: Scene, splats: Splats, strength: float | None, judge: str
) -> tuple[NDArray[np.bool_], float]:
    """What stays, and the CPU seconds that took."""
    assert scene.run is not None
    start = time.process_time()
    # A run knows its photos, and a subject without one does not.
    run = scene.run if judge == "photos" else None
    subject = Subject(splats, scene.views, scene.background, scene.run, run)
    made = clean(subject, Clean(strength=strength), lambda stage, share: None)
    assert made.removed is not None
    return made.removed.kept, time.process_time() - start


def _psnr(scene: Scene, splats: Splats) -> float:
    from PIL import Image

    assert scene.run is not None and scene.views is not None  # noqa: PT018
    views = scene.views.test()
    draw = make_draw(splats, background=scene.background)
    truths: list[NDArray[np.uint8]] = []
    for stem in image_stems(views.names):
        with Image.open(scene.run / "renders" / f"{stem}.truth.png") as image:
            truths.append(np.asarray(image.convert("RGB")))
    shown = [to_bytes(draw(views.pick([k])).rgb) for k in range(len(views))]
    return score_views(shown, truths, views.names)["psnr"]


def plant(scene: Scene, share: float, seed: int, way: str) -> tuple[Splats, NDArray[np.bool_]]:
    """The scene with floaters added, and which they are.

    Places: ``rays`` anywhere between a camera and something it may see; ``hull`` anywhere in the
    box that holds the cameras and most of the scene; ``near`` in view of a camera, at 5 to 35 % of
    the way to the scene; ``clusters`` of about 30 on such rays; ``mix`` a quarter of each. As large
    in the nearest camera as the scene's own Gaussians, times 0.3 to 3; any colour; opacities from
    0.05 to 1, evenly in the logarithm; any turn; axes that differ by a factor of about 1.5.

    Args:
        scene: A run.
        share: Planted Gaussians per Gaussian of the scene.
        seed: Same seed, same floaters.
        way: One of ``WAYS``, or mix.
    """
    assert scene.views is not None
    rng, s = np.random.default_rng(seed), scene.splats
    n = int(share * len(s.means))
    at = np.concatenate([_places(scene, n // 4, w, rng) for w in WAYS]) if way == "mix" else None
    means = _places(scene, n, way, rng) if at is None else at
    n, eyes = len(means), KDTree(scene.views.world_from_cam[:, :, 3])
    solid = s.means[opacity_of(s) > 0.3].astype(np.float64)
    far = np.asarray(eyes.query(means)[0]) / np.median(np.asarray(eyes.query(solid)[0]))
    typical = np.exp(np.median(s.log_scales.max(1))) * np.minimum(1, far)[:, None]
    size = typical * np.exp(rng.uniform(np.log(0.3), np.log(3), (n, 1)))
    size = size * np.exp(rng.normal(0, 0.4, (n, 3)))
    opacity = np.clip(np.exp(rng.uniform(np.log(0.05), 0, n)), 0, 1 - 1e-6)
    sh = rng.normal(0, 0.05, (n, s.sh.shape[1], 3))
    sh[:, 0] = (rng.uniform(0, 1, (n, 3)) - 0.5) / _C0
    floaters = dataclasses.replace(
        s,
        means=means.astype(np.float32),
        quats_wxyz=rng.normal(size=(n, 4)).astype(np.float32),
        log_scales=np.log(size).astype(np.float32),
        logit_opacities=np.log(opacity / (1 - opacity)).astype(np.float32),
        sh=sh.astype(np.float32),
    )
    return joined([s, floaters]), np.arange(len(s.means) + n) >= len(s.means)


def _places(scene: Scene, n: int, way: str, rng: np.random.Generator) -> Floats:
    assert scene.views is not None
    views, s = scene.views, scene.splats
    eyes, means = views.world_from_cam[:, :, 3], s.means.astype(np.float64)
    solid = means[opacity_of(s) > 0.3]
    if way == "hull":
        corners = np.concatenate([eyes, np.quantile(means, [0.02, 0.98], axis=0)])
        return rng.uniform(corners.min(0), corners.max(0), (n, 3))
    if way == "near":
        k = rng.integers(len(views), size=n)
        away = np.median(np.linalg.norm(solid - eyes.mean(0), axis=1)) * rng.uniform(0.05, 0.35, n)
        flat = rng.uniform(-0.5, 0.5, (n, 2)) * (views.size[k] / views.focal[k])
        local = np.concatenate([flat, np.ones((n, 1))], 1) * away[:, None]
        return eyes[k] + np.einsum("nij,nj->ni", views.world_from_cam[k][:, :, :3], local)
    if way == "clusters":
        m = max(1, n // 30)
        middle = _places(scene, m, "rays", rng)
        size = np.exp(np.median(s.log_scales.max(1)) + rng.uniform(np.log(2), np.log(12), m))
        k = rng.integers(m, size=n)
        return middle[k] + rng.normal(size=(n, 3)) * size[k, None]
    target, eye = solid[rng.integers(len(solid), size=n)], eyes[rng.integers(len(eyes), size=n)]
    return eye + (target - eye) * rng.uniform(0.05, 0.95, (n, 1))


# The model --------------------------------------------------------------------------------------


def _fitted(runs: list[tuple[Path, int]]) -> str:
    """The numbers of ``_edit_model``, as Python."""
    rows: list[tuple[Floats, NDArray[np.bool_], Floats]] = []
    for run, seed in runs:
        scene = load_scene(run)
        views = Subject(scene.splats, scene.views, scene.background, run, run).looks()
        views = chosen_views(views)
        splats, planted = plant(scene, 0.05, seed, "mix")
        x, weight = _numbers(splats, views)
        rows.append((x, planted, weight))
        left = (_edit_model.log_odds(x) <= 0) & (weight > 0)
        x, weight = _numbers(splats.taken(left), views)
        rows.append((x, planted[left], weight))
        x, weight = _numbers(scene.splats, views)
        rows.append((x, np.zeros(len(x), bool), weight))
    costs = [np.sqrt(w + 1) for _, _, w in rows]  # what is hardly seen matters less
    judged = [w >= _JUDGED for _, _, w in rows]
    x = np.concatenate([row[0][j] for row, j in zip(rows, judged, strict=True)])
    y = np.concatenate([row[1][j] for row, j in zip(rows, judged, strict=True)]).astype(float)
    cost = np.concatenate([c[j] for c, j in zip(costs, judged, strict=True)])
    return _table(x, y, cost / cost.mean())


def _numbers(splats: Splats, views: Views) -> tuple[Floats, Floats]:
    sight = sight_of(splats, views, lambda stage, share: None, "")
    pixels = int(views.size[0].prod())
    return _edit_model.numbers_of(sight, around(splats, views), len(views), pixels), sight.weight


def _table(x: Floats, y: Floats, cost: Floats, ridge: float = 1e-4) -> str:
    mean, spread = x.mean(0), x.std(0)
    x = np.clip((x - mean) / spread, -4, 4)
    i, j = np.triu_indices(x.shape[1])
    x = np.concatenate([x, x[:, i] * x[:, j]], 1)

    def loss(p: Floats) -> tuple[float, Floats]:
        s = x @ p[:-1] + p[-1]
        error = (1 / (1 + np.exp(-s)) - y) * cost
        value = (cost * (np.logaddexp(0, s) - y * s)).mean() + ridge * (p[:-1] ** 2).sum()
        return float(value), np.append(x.T @ error / len(y) + 2 * ridge * p[:-1], error.mean())

    start = np.zeros(x.shape[1] + 1)
    p = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 300}).x
    n = len(mean)
    products = np.zeros((n, n))
    products[i, j] = p[n:-1]
    parts = {"MEANS": mean, "SPREADS": spread, "LINEAR": p[:n], "PRODUCTS": products}
    lines = [f"{name} = np.array({np.round(v, 4).tolist()})" for name, v in parts.items()]
    return "\n".join([f"CONSTANT = {p[-1]:.4f}", *lines])


if __name__ == "__main__":
    main()
