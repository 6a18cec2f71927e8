"""Fit the networks that the image codec ships and starts from.

    python -m benchmarks.codec_base OUT.npz [--steps 4000] [--context 24]

A mosaic of photo crops from LUMEFIELD_DATA is fitted as one picture, whose networks are written as
the integers of the file format. Wider context networks begin as the shipped one with silent
features more. None of the pictures that ``benchmarks.codecs`` scores is among
them. The numbers depend on the machine in their last bits, so the shipped file is not made again:
it belongs to the format (see ``lumefield/codecs/neural/_base.py``).
"""

import argparse
import math
import os
from pathlib import Path

import numpy as np
from PIL import Image

from lumefield.codecs.neural._base import LEARNED, base_model
from lumefield.codecs.neural._model import INPUTS, ImageModel, Widths
from lumefield.codecs.overfit import _image_fit as image_fit
from lumefield.codecs.overfit._compress import CONTEXT, SYNTHESIS
from lumefield.codecs.overfit._integers import GROUPS, ONE, model_of, networks_of
from lumefield.fields.latent import Networks

SIDE = 256
PHOTOS = (
    *(f"images/cbsd68/{name}.png" for name in ("101085", "108082", "14037", "160068", "182053")),
    *(f"images/cbsd68/{name}.png" for name in ("216081", "241004", "295087", "306005")),
    *("scenes/fox/images/0027.jpg", "scenes/banana/images/DSC_0433.JPG"),
    "scenes/sceaux_castle/images/100_7103.JPG",
)
COLUMNS = 4
WAKING = 0.1
"""Deviation of the first weights of new features."""


def crop(path: Path) -> np.ndarray:
    """The middle SIDE x SIDE pixels of a photo, large ones scaled down by a whole number first."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    scale = max(1, min(image.size) // 300)
    size = (image.width // scale, image.height // scale)
    pixels = np.asarray(image.resize(size, Image.Resampling.BOX) if scale > 1 else image)
    top, left = (pixels.shape[0] - SIDE) // 2, (pixels.shape[1] - SIDE) // 2
    return pixels[top : top + SIDE, left : left + SIDE]


def mosaic(root: Path) -> np.ndarray:
    """(3, h, w) in [0, 1]."""
    tiles = [crop(root / name) for name in PHOTOS]
    rows = [np.concatenate(tiles[i : i + COLUMNS], 1) for i in range(0, len(tiles), COLUMNS)]
    return (np.concatenate(rows).transpose(2, 0, 1) / 255).astype(np.float32)


def first(context: int) -> Networks:
    """The shipped networks, with features more that look at something and are not yet heard."""
    shipped = base_model(LEARNED, Widths(7, CONTEXT, SYNTHESIS, 3))
    named, more = dict(vars(shipped)), context - CONTEXT
    for name, axes in {"W1": (0,), "W2": (0, 1), "W3": (1,), "b1": (1,), "b2": (0,)}.items():
        room = [(0, more if axis in axes else 0) for axis in range(named[name].ndim)]
        named[name] = np.pad(named[name], room)
    noise = np.random.default_rng(0).normal(0, WAKING, (more, INPUTS))
    named["W1"][CONTEXT:] = np.rint(ONE * noise)
    return networks_of(ImageModel(**named))


def main() -> None:
    """Run the command line above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--lambda", dest="exchange", type=float, default=1e-3)
    parser.add_argument("--context", type=int, default=24)
    args = parser.parse_args()
    target = mosaic(Path(os.environ.get("LUMEFIELD_DATA", "../shared/data")))
    networks = first(args.context)
    goal = image_fit.Goal("lambda", args.exchange)
    effort = image_fit.Effort(args.steps, args.steps // 10, 1)
    state = image_fit.start(networks, target, np.ones(target.shape[1:], np.float32), goal)

    def told(_: object, chunk: image_fit.Chunk) -> bool:
        mse, bpp = chunk.metrics["mse"].mean(), chunk.metrics["bpp"].mean()
        if chunk.step % 500 < len(chunk.metrics["mse"]):
            print(f"{chunk.step} {-10 * math.log10(mse):.2f} dB {bpp:.3f} bpp", flush=True)
        return True

    state = image_fit.fit_latents(state, effort, goal, on_chunk=told)
    model = model_of(state.scene.networks, (0,) * len(GROUPS))
    np.savez_compressed(args.out, **{k: v.astype(np.int32) for k, v in vars(model).items()})
    print(f"{args.out}: {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
