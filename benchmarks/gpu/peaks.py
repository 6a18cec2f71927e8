"""What the device can do, and what a scene asks of it at least: the roofline.

``python -m benchmarks.gpu.peaks N HEIGHT WIDTH TINY`` prints one JSON line. Bandwidth is that of a
copy; the evaluation rate that of a dense loop of the same arithmetic as one Gaussian at one pixel
(offset, two products and a square, exponential, clamp, one blend of three channels), from
registers. Evaluations are counted on random pixels: Gaussians of alpha >= 1/255 there, front to
back, until T <= 1e-4. Letters: N Gaussians, V of them visible, P pixels, E evaluations.
"""

import argparse
from functools import partial
from typing import Any

import numpy as np

from benchmarks.gpu import scene
from benchmarks.gpu.legs import tell, timed
from benchmarks.gpu.scene import Scene
from benchmarks.suite import garden
from benchmarks.suite.timing import waiting

Numbers = dict[str, float]
_GEOMETRY, _SH, _ALL = 11, 48, 59
"""Floats of a Gaussian: all but colour, colour, both."""
_BACKWARD = 2
"""Evaluations' worth of a backward pass beside the forward's: weight again, and its gradients."""


def main() -> None:
    """Measure and count."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    for word in ("n", "height", "width", "tiny"):
        parser.add_argument(word, type=int)
    given = parser.parse_args()
    made = scene.make(given.n, given.height, given.width)
    tell(peaks(tiny=bool(given.tiny)) | work(made, tiny=bool(given.tiny)))


def peaks(*, tiny: bool) -> Numbers:
    """Copy bandwidth in GB/s and evaluations in G/s."""
    import jax
    import jax.numpy as jnp

    size = 1 << (18 if tiny else 26)
    data = jnp.ones((size,), jnp.float32)
    _, ms = timed(waiting(jax.jit(partial(jnp.add, 1.0)), data), 5)
    evaluations = 64
    pixels = jnp.linspace(0.0, 1.0, 1 << (12 if tiny else 22))
    _, dense_ms = timed(waiting(jax.jit(partial(_dense, evaluations)), pixels), 5)
    return {
        "copy_gb_s": 8 * size / ms / 1e6,
        "evaluations_g_s": evaluations * pixels.size / dense_ms / 1e6,
    }


def _dense(evaluations: int, x: Any) -> Any:
    import jax.numpy as jnp

    t, red, green, blue = jnp.ones_like(x), x * 0, x * 0, x * 0
    for i in range(evaluations):
        dx, dy = x - 0.01 * i, x + 0.02 * i
        row, column = 0.3 * dx + 0.1 * dy, 0.2 * dy
        alpha = jnp.minimum(0.6 * jnp.exp(-0.5 * (row * row + column * column)), 0.999)
        weight = jnp.where(alpha >= 1 / 255, t * alpha, 0.0)
        red, green, blue = red + weight * 0.1, green + weight * 0.2, blue + weight * 0.3
        t = t - weight
    return red + green + blue + t


def work(made: Scene, *, tiny: bool) -> Numbers:
    """Visible Gaussians, and evaluations and bytes that no implementation can do without."""
    import jax.numpy as jnp

    from lumefield import fields, render

    camera = render.Cameras.from_pinhole(
        jnp.asarray(made.world_from_cam),
        jnp.asarray(made.focal),
        jnp.asarray(made.centre),
        height=made.height,
        width=made.width,
    )
    splats = fields.Gaussians(*(jnp.asarray(x) for x in made.inputs)).activate()
    options = render.SplatOptions(backend="xla")
    p = render.project_gaussians(**splats, camera=camera, options=options)
    xy, factor, opacity, depth = (np.asarray(x) for x in (p.xy, p.factor, p.opacities, p.depth))
    seen = np.flatnonzero(opacity >= 1 / 255)
    order = seen[np.argsort(depth[seen], kind="stable")]
    count = 64 if tiny else 1024
    draw = np.random.default_rng(2)
    pixels = draw.integers(0, [made.width, made.height], (count, 2)) + 0.5
    each, met = _counted(xy[order], factor[order], opacity[order], pixels.astype(np.float32))
    n, image = len(opacity), made.height * made.width
    visible = int(np.sum(garden.visible(opacity[order], xy[order], factor[order], made)))
    forward = 4 * (_GEOMETRY * n + _SH * visible + 4 * image)
    backward = 4 * (_ALL * visible + _ALL * n + 8 * image)
    return {
        "visible": visible,
        "evaluations": each * image,
        "meetings_per_pixel": met,
        "forward_bytes": forward,
        "step_bytes": forward + backward,
    }


def _counted(
    xy: np.ndarray, factor: np.ndarray, opacity: np.ndarray, pixels: np.ndarray
) -> tuple[float, float]:
    """Mean evaluations of a pixel up to its stop, and without a stop."""
    import jax
    import jax.numpy as jnp

    size = 1024
    pad = -len(xy) % size
    columns = np.c_[xy, factor, opacity[:, None]]
    chunks = jnp.asarray(np.pad(columns, ((0, pad), (0, 0))).reshape(-1, size, 6))

    def look(carry: Any, chunk: Any) -> tuple[Any, None]:
        t, live, met = carry
        x, y, u, v, w, o = (chunk[None, :, i] for i in range(6))
        dx, dy = jnp.asarray(pixels)[:, :1] - x, jnp.asarray(pixels)[:, 1:] - y
        sigma = 0.5 * ((u * dx + v * dy) ** 2 + (w * dy) ** 2)
        alpha = jnp.minimum(o * jnp.exp(-sigma), 0.999)
        hit = alpha >= 1 / 255
        after = t[:, None] * jnp.cumprod(jnp.where(hit, 1 - alpha, 1.0), -1)
        before = jnp.concatenate([t[:, None], after[:, :-1]], -1)
        live = live + jnp.sum(hit & (before > 1e-4), -1)
        return (after[:, -1], live, met + jnp.sum(hit, -1)), None

    zero = jnp.zeros(len(pixels), jnp.int32)
    start = (jnp.ones(len(pixels), jnp.float32), zero, zero)
    (_, live, met), _ = jax.jit(partial(jax.lax.scan, look))(start, chunks)
    return float(live.mean()), float(met.mean())


def floor_ms(numbers: Numbers, measure: str) -> float:
    """The least time by the slower of memory and arithmetic, "forward" or "step"."""
    times = 1 if measure == "forward" else 1 + _BACKWARD
    bytes_ms = numbers[f"{measure}_bytes"] / numbers["copy_gb_s"] / 1e6
    return max(bytes_ms, times * numbers["evaluations"] / numbers["evaluations_g_s"] / 1e6)


if __name__ == "__main__":
    main()
