"""Fit the network that COIN++ ships, on procedural pictures.

    python -m benchmarks.families_base OUT.npz [--steps 4000] [--seed 0]

Pictures are "dead leaves" (Lee, Mumford and Huang, "Occlusion Models for Natural Images", 2001):
discs and half planes of random size, colour, shading and texture that cover one another, slightly
blurred: edges and spectra like those of photos. Base and map are fitted together with a linear
encoder that gives the vectors of patches, and that is thrown away: it begins as the lowest
frequencies of a cosine transform. In each step the vectors are cut after a random number of
components, so that the first ones matter most. Written are the integers of the format. The shipped
file belongs to the format: a better one gets another name and number.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.families import _coinpp as coinpp
from lumefield.codecs.families._float import FloatOps
from lumefield.codecs.families._ops import MAX_WEIGHT, Whole, features
from lumefield.codecs.families._siren import siren_sizes, siren_start
from lumefield.fit import Chunk, Stage, TrainState, fit, scaled_adam

SIDE = 256
PICTURES = 48
LEAVES = 160
PIXELS = 128
"""Of each patch in a step."""
PATCHES = 96
"""In a step."""


def leaves(rng: np.random.Generator) -> NDArray[np.float32]:
    """(256, 256, 3) in [0, 1]."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    # Grey levels with a little colour, as most photos are.
    tints = rng.normal(size=(6, 3)) * rng.choice([0.03, 0.08, 0.2])
    colours = np.clip(rng.uniform(0.05, 0.95, (6, 1)) + tints, 0, 1)
    noise = [pink(rng) for _ in range(3)]
    picture = np.broadcast_to(colours[0], (SIDE, SIDE, 3)).astype(np.float32).copy()
    for _ in range(LEAVES):
        radius = 4.0 / rng.uniform(0.02, 1.0)
        cy, cx, angle = *rng.uniform(0, SIDE, 2), rng.uniform(0, 2 * np.pi)
        u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        stretch = rng.uniform(0.3, 1.0)
        distance = np.sqrt(u * u + (v / stretch) ** 2) - radius
        cover = np.clip(0.5 - distance / rng.choice([1.0, 1.5, 4.0]), 0, 1)[..., None]
        colour = colours[rng.integers(6)] + rng.normal(size=3) * 0.06
        shade = u / radius * rng.normal() * 0.12 + noise[rng.integers(3)] * (
            rng.choice([0.0, 0.01, 0.03, 0.08, 0.15])
        )
        picture += cover * (np.clip(colour + shade[..., None], 0, 1) - picture)
    return np.clip(picture, 0, 1).astype(np.float32)


def pink(rng: np.random.Generator) -> NDArray[np.float32]:
    """(256, 256) noise whose amplitude falls as 1 / f, up to some frequency, of variance 1."""
    rates = np.fft.fftfreq(SIDE)
    f = np.sqrt(rates[:, None] ** 2 + rates**2)
    f[0, 0] = 1.0
    spectrum = f ** -rng.uniform(0.6, 1.4) * np.exp(-((f / rng.uniform(0.1, 0.5)) ** 2))
    wave = np.fft.ifft2(np.fft.fft2(rng.normal(size=(SIDE, SIDE))) * spectrum).real
    return ((wave - wave.mean()) / wave.std()).astype(np.float32)


def cut(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """(patches, 32 x 32, 3)."""
    n, side = len(pictures), coinpp.PATCH
    parts = pictures.reshape(n, SIDE // side, side, SIDE // side, side, 3)
    return parts.transpose(0, 1, 3, 2, 4, 5).reshape(-1, side * side, 3)


def inside() -> NDArray[np.float32]:
    """(32 x 32, 2) positions in a patch."""
    at = features((2.0 * np.arange(coinpp.PATCH) + 1.0) / coinpp.PATCH - 1.0)
    return np.stack(np.meshgrid(at, at), -1).reshape(-1, 2)


def cosines() -> NDArray[np.float32]:
    """(3 x 32 x 32, 96): the first components of patches, luma before chroma of a frequency."""
    side = coinpp.PATCH
    at = (np.arange(side) + 0.5) / side
    waves = np.cos(np.pi * np.arange(12)[:, None] * at)  # frequency, place
    mixes = np.array([[1, 1, 1], [1, 0, -1], [-0.5, 1, -0.5]]) / 3
    rates = [(i, j, c) for i in range(12) for j in range(12) for c in range(3)]
    # Chroma of a frequency comes with the luma of one three times as high.
    rates.sort(key=lambda r: np.hypot(r[0], r[1]) * (3 if r[2] else 1) + 0.5 * r[2])
    found = []
    for i, j, c in rates[: coinpp.COMPONENTS]:
        wave = np.multiply.outer(np.multiply.outer(waves[i], waves[j]), mixes[c])
        found.append(wave.ravel() / side**2 * (2 + 4 * np.hypot(i, j)) * (2 if c else 1))
    return np.stack(found, 1).astype(np.float32)


def start(key: Any) -> dict[str, Any]:
    """Base, map and encoder."""
    network = siren_start(key, siren_sizes(3, coinpp.DEPTH, coinpp.WIDTH))
    # A patch is a small part of a picture: lower frequencies.
    network["w0"] = network["w0"] * np.float32(0.5)
    shape = coinpp.base_shapes()[coinpp.MAP]
    scale = np.float32(0.3 / np.sqrt(shape[0]))
    mapped = jax.random.normal(jax.random.fold_in(key, 99), shape) * scale
    return {**network, coinpp.MAP: mapped, "encoder": jnp.asarray(cosines())}


def fitted(targets: NDArray[np.float32], steps: int, seed: int) -> dict[str, NDArray[np.float32]]:
    """The base after fitting."""
    places, ops, count = jnp.asarray(inside()), FloatOps(), len(targets)

    def loss(scene: Any, aux: Any, batch: Any, key: Any, step: Any) -> Any:
        del step
        patches, pixels, kept = batch
        at = jnp.arange(coinpp.COMPONENTS, dtype=jnp.int32)
        whole = aux[patches].reshape(PATCHES, -1) - 0.5
        vectors = (whole @ scene["encoder"]) * (at[None] < kept[:, None]).astype(jnp.float32)
        number = jnp.repeat(jnp.arange(PATCHES, dtype=jnp.int32), PIXELS)
        where = pixels.reshape(-1)
        inputs = jnp.concatenate([places[where], number[:, None].astype(jnp.float32)], 1)
        values = coinpp.modulated(ops, scene, vectors, inputs)
        target = aux[patches[number], where]
        return jnp.square(values - target).mean(), (aux, {})

    def batches(first: int, number: int) -> Any:
        found = []
        for step in range(first, first + number):
            rng = np.random.default_rng((seed, step))
            patches = rng.choice(count, PATCHES, replace=False).astype(np.int32)
            pixels = rng.integers(0, coinpp.PATCH**2, (PATCHES, PIXELS)).astype(np.int32)
            most = np.log2(coinpp.COMPONENTS + 0.99)
            kept = (2 ** rng.uniform(1, most, PATCHES)).astype(np.int32)
            found.append((patches, pixels, kept))
        return tuple(np.stack(part) for part in zip(*found, strict=True))

    def rates(step: Any) -> Any:
        fall = 0.02 + 0.98 * (0.5 + 0.5 * jnp.cos(jnp.pi * step.astype(jnp.float32) / steps))
        names = {**dict.fromkeys(coinpp.base_shapes(), 2e-3), "encoder": 3e-4}
        return {name: np.float32(rate) * fall for name, rate in names.items()}

    def told(_: object, chunk: Chunk) -> bool:
        if chunk.step % 250 == 0:
            error = float(chunk.metrics["loss"].mean())
            print(f"{chunk.step} {-10 * np.log10(error):.2f} dB", flush=True)
        return True

    tx = scaled_adam(rates)
    key = jax.random.key(seed)
    state = TrainState.start(start(key), tx, key, jnp.asarray(targets))
    state = fit(state, (Stage(steps, loss, batches),), tx, on_chunk=told)
    encoder = np.asarray(state.scene["encoder"])
    vectors = (targets.reshape(count, -1) - np.float32(0.5)) @ encoder
    # Components of one size for all: the map takes what the vectors lose.
    size = np.sqrt(np.square(vectors).mean(0)) + 1e-6
    base = {name: np.asarray(state.scene[name]) for name in coinpp.base_shapes()}
    base[coinpp.MAP] = base[coinpp.MAP] * size[:, None]
    return base


def whole(value: NDArray[np.float32]) -> Whole:
    """A tensor in integers, at most 14 fractional bits."""
    most = float(np.abs(value).max())
    bits = min(14, int(np.floor(np.log2(MAX_WEIGHT / max(most, 1e-9)))))
    return Whole(np.rint(value.astype(np.float64) * 2.0**bits), bits)


def main() -> None:
    """Run the command line above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    targets = cut(np.stack([leaves(rng) for _ in range(PICTURES)]))
    base = fitted(targets, args.steps, args.seed)
    coinpp.save_base(args.out, {name: whole(value) for name, value in base.items()})
    print(f"{args.out}: {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
