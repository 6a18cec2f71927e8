"""``python -m benchmarks.siren_photo [--steps N]``: SIREN against ReLU on a photo of 256 x 256.

The photo is the middle square of a Kodak image, Lanczos-filtered to 256 x 256, display sRGB in grey
as in the paper's figures. A picture has a gradient only where it is a function of place: between
the pixels it is the band-limited one through them (cosine series), given to both networks at random
points of a grid three times as fine (``--pixels``: at the pixels alone, where nothing holds a
network back between them). Both have the same widths, and so the same number of parameters, and the
same learning rate. PSNR is over the 256 x 256 pixels. The gradient of the network is compared with
the differences between neighbouring pixels, half-way between them, where a difference is a
derivative to second order: the cosine between the two, over all pixels and both axes. ``limit`` is
that cosine for the band-limited picture itself: what a perfect fit would get.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SIDE, WIDTH, DEPTH, BATCH = 256, 128, 4, 16384
RATES = {"siren": 2e-3, "relu": 2e-3}


def photo(name: str) -> Any:
    """(256, 256, 1) sRGB in [0, 1], float32."""
    import numpy as np
    from PIL import Image

    data = Path(os.environ.get("LUMEFIELD_DATA", ROOT.parent / "shared" / "data"))
    with Image.open(data / "images" / "kodak" / f"{name}.png") as image:
        w, h = image.size
        side = min(w, h)
        box = ((w - side) // 2, (h - side) // 2, (w + side) // 2, (h + side) // 2)
        small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=box)
    return np.asarray(small, np.float32)[..., None] / 255


def finer(image: Any, factor: int) -> Any:
    """The cosine series through the pixels, on a grid ``factor`` times as fine."""
    import numpy as np
    from scipy import fft

    waves = np.zeros((SIDE * factor, SIDE * factor))
    series: Any = fft.dctn(image[..., 0].astype(np.float64), norm="ortho")
    waves[:SIDE, :SIDE] = series * factor
    fine: Any = fft.idctn(waves, norm="ortho")
    return np.asarray(fine, np.float32)[..., None]


def trained(name: str, image: Any, rate: float, steps: int, width: int) -> tuple[Any, float]:
    """The network after ``steps`` on a square picture, and its CPU-seconds, compiling included."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from flax import nnx

    from lumefield.fields.networks import FIELDS
    from lumefield.fit import Stage, TrainState, fit

    pixels, side = jnp.asarray(image.reshape(-1, 1)), len(image)
    options = {"backend": "auto"} if name == "siren" else {}
    field = FIELDS[name](2, 1, width=width, depth=DEPTH, rngs=nnx.Rngs(0), **options)

    def loss(field: Any, aux: Any, batch: Any, key: Any, step: Any) -> Any:
        del key, step
        x = (jnp.stack([batch % side, batch // side], -1) + 0.5) * (2 / side) - 1
        return jnp.mean((field(x) - pixels[batch]) ** 2), (aux, {})

    def batches(first: int, count: int) -> Any:
        rows = [np.random.default_rng(first + k).integers(0, side**2, BATCH) for k in range(count)]
        return np.stack(rows).astype(np.int32)

    tx = optax.adam(optax.cosine_decay_schedule(rate, steps))
    start = time.process_time()
    state = TrainState.start(field, tx, jax.random.key(0))
    state = fit(state, (Stage(steps, loss, batches),), tx)
    return state.scene, time.process_time() - start


def judged(field: Any, image: Any) -> dict[str, float]:
    """PSNR in decibels, and the cosine between the gradients of field and photo."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    def at(shift_x: float, shift_y: float) -> Any:
        centre = (np.arange(SIDE) + 0.5) * (2 / SIDE) - 1
        y, x = np.meshgrid(centre + shift_y, centre + shift_x, indexing="ij")
        return jnp.asarray(np.stack([x, y], -1).reshape(-1, 2), jnp.float32)

    half = 1 / SIDE  # half of a pixel

    @jax.jit
    def read(f: Any, x: Any) -> tuple[Any, Any]:
        values, back = jax.vjp(f, x)
        return values, back(jnp.ones_like(values))[0]

    values, _ = read(field, at(0, 0))
    along_x, along_y = (np.asarray(read(field, at(*s))[1]) for s in ((half, 0), (0, half)))
    flat = image[..., 0].astype(np.float64)
    columns = along_x[:, 0].reshape(SIDE, SIDE)[:, :-1], np.diff(flat, axis=1), spectral(flat.T).T
    rows = along_y[:, 1].reshape(SIDE, SIDE)[:-1], np.diff(flat, axis=0), spectral(flat)
    ours, wanted, exact = (
        np.concatenate([a.ravel(), b.ravel()]) for a, b in zip(columns, rows, strict=True)
    )
    mse = float(np.mean((np.asarray(values, np.float64) - image.reshape(-1, 1)) ** 2))
    return {
        "psnr": -10 * np.log10(mse),
        "gradient cosine": cosine(ours, wanted),
        "limit": cosine(exact, wanted),
    }


def spectral(image: Any) -> Any:
    """Derivative by rows, half-way between them, of the band-limited, mirrored image."""
    import numpy as np

    w = 2 * np.pi * np.fft.fftfreq(2 * len(image))[:, None]
    waves = np.fft.fft(np.concatenate([image, image[::-1]]), axis=0)
    return np.fft.ifft(waves * 1j * w * np.exp(0.5j * w), axis=0).real[: len(image) - 1]


def cosine(a: Any, b: Any) -> float:
    """Of the angle between two vectors."""
    return float(a @ b / ((a @ a) * (b @ b)) ** 0.5)


def main() -> None:
    """Train both networks on each photo and print what they reach."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--photos", nargs="+", default=["kodim23"])
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--rate", type=float, help="instead of each network's own")
    parser.add_argument("--networks", nargs="+", default=["siren", "relu"])
    parser.add_argument("--pixels", action="store_true", help="train at the pixels alone")
    options = parser.parse_args()
    for name in options.photos:
        for network in options.networks:
            rate = options.rate or RATES[network]
            image = photo(name)
            signal = image if options.pixels else finer(image, 3)
            field, seconds = trained(network, signal, rate, options.steps, options.width)
            row = {"photo": name, "network": network, "rate": rate, "steps": options.steps}
            print(json.dumps(row | judged(field, image) | {"cpu seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
