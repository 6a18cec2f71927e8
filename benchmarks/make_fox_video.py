"""Make a video of the fox photos: every photo held for a few frames, H.264, for the video input.

``python benchmarks/make_fox_video.py OUT.mp4 [--hold 3]``; the photos come from ``LUMEFIELD_DATA``
(default ``../shared/data`` beside the repository).
"""

import argparse
import os
from pathlib import Path

import numpy as np


def main() -> None:
    """Write the video."""
    import av
    from PIL import Image

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--hold", type=int, default=3, help="video frames per photo")
    arguments = parser.parse_args()
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("LUMEFIELD_DATA", default)) / "scenes" / "fox" / "images"
    photos = sorted(folder.glob("*.jpg"))
    if not photos:
        raise SystemExit(f"{folder} holds no photos; set LUMEFIELD_DATA")
    with av.open(str(arguments.out), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "16", "preset": "fast"})
        with Image.open(photos[0]) as first:
            stream.width, stream.height = first.size
        stream.pix_fmt = "yuv420p"
        for photo in photos:
            with Image.open(photo) as image:
                pixels = np.asarray(image.convert("RGB"))
            for _ in range(arguments.hold):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())
    print(f"{arguments.out}: {len(photos)} photos, {arguments.hold} frames each")


if __name__ == "__main__":
    main()
