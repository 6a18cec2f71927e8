"""The NeRV families of the literature beside our video codec, at real bytes.

    python -m benchmarks.codecs_families_video --method nerv e-nerv ps-nerv hnerv hinerv
        --bytes 30000 [--effort standard] [--ours fast] [--x265] [--out FILE.json]

Every method codes the first 32 frames of carphone (176 x 144, 4:2:0, from LUMEFIELD_DATA) to a file
of about so many bytes, which is decoded again. One line each: parameters, bytes, bits per pixel,
PSNR of the decoded file (mean over frames, Y', Cb, Cr with weights 6 1 1), that of the network
before rounding, CPU seconds of the encoder and milliseconds of decoding a frame, multiplications
per pixel. Steps of the recipes are such that all rows take about equally long at 30 kB on one core.
``--ours`` adds the video codec at the same bytes, ``--x265`` x265 (medium, one intra frame) at the
four rates of ``QUANTISERS``. Rows that are in ``--out`` already are replaced, the others kept.
"""

import argparse
import io
import json
import os
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.codecs_families import keep

CLIP, FRAMES = "carphone/carphone_pristine.mp4", 32
QUANTISERS = (18, 23, 28, 33)
"""x265's constant rate factors."""


def main() -> None:
    """Run the command line above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ["nerv", "e-nerv", "ps-nerv", "hnerv", "hinerv"]
    parser.add_argument("--method", nargs="*", default=names)
    parser.add_argument("--bytes", type=float, nargs="+", default=[30000])
    parser.add_argument("--effort", default="standard", choices=("fast", "standard", "best"))
    parser.add_argument("--ours", choices=("fast", "standard", "best"))
    parser.add_argument("--x265", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    from lumefield.apps._video_files import read_film
    from lumefield.codecs.neural import video_picture

    root = Path(os.environ.get("LUMEFIELD_DATA", "../shared/data")) / "video"
    film = read_film(root / CLIP, None, 0, FRAMES)
    rows, columns = film.frames[0][0].shape
    picture = video_picture(rows, columns, len(film.frames), film.rate, colour=film.colour)
    found = [_x265(film.frames, picture, crf) for crf in QUANTISERS if args.x265]
    for size in args.bytes:
        found += [_network(film.frames, picture, n, size, args.effort) for n in args.method]
        found += [_ours(film.frames, picture, size, args.ours)] if args.ours else []
    for job in found:
        row = {"clip": "carphone", **job()}
        print(json.dumps(row), flush=True)
        if args.out:
            keep(args.out, row)


def _network(frames: Any, picture: Any, name: str, size: float, effort: str) -> Any:
    def row() -> dict[str, Any]:
        from lumefield.codecs.families import EFFORTS, METHODS, compress_network
        from lumefield.codecs.neural import decode_video

        cpu = time.process_time()
        found = compress_network(frames, picture, METHODS[name], size, effort=EFFORTS[effort])
        cpu, begun = time.process_time() - cpu, time.process_time()
        list(decode_video(found.data))
        return {
            **{"method": name, "asked": size, "effort": effort},
            **{"parameters": found.parameters, "layout": list(found.layout)},
            **{"bytes": len(found.data), "bpp": found.bits_per_pixel},
            **{"psnr": found.psnr, "float_psnr": found.float_psnr, "macs": found.macs},
            "encode_cpu_s": cpu,
            "decode_ms": 1e3 * (time.process_time() - begun) / len(frames),
        }

    return row


def _ours(frames: Any, picture: Any, size: float, effort: str) -> Any:
    def row() -> dict[str, Any]:
        from lumefield.codecs.neural import decode_video
        from lumefield.codecs.overfit import VIDEO_EFFORTS, Goal, VideoPlan, compress_video

        cpu = time.process_time()
        plan = VideoPlan(Goal("bits", 8 * size), VIDEO_EFFORTS[effort])
        found = compress_video(frames, picture, plan)
        cpu, begun = time.process_time() - cpu, time.process_time()
        list(decode_video(found.data))
        return {
            **{"method": f"lumefield {effort}", "asked": size, "effort": effort},
            **{"bytes": len(found.data), "bpp": found.bits_per_pixel, "psnr": found.psnr},
            "encode_cpu_s": cpu,
            "decode_ms": 1e3 * (time.process_time() - begun) / len(frames),
        }

    return row


def _x265(frames: Any, picture: Any, crf: int) -> Any:
    def row() -> dict[str, Any]:
        cpu = time.process_time()
        packets, decoded = _coded(frames, picture, crf)
        cpu = time.process_time() - cpu
        psnr = float(np.mean([_psnr(a, b) for a, b in zip(decoded, frames, strict=True)]))
        bpp = 8 * packets / (picture.rows * picture.columns * len(frames))
        return {
            **{"method": "x265 medium", "asked": crf, "bytes": packets},
            **{"bpp": bpp, "psnr": psnr, "encode_cpu_s": cpu},
        }

    return row


def _coded(frames: Any, picture: Any, crf: int) -> tuple[int, list[Any]]:
    """Bytes of all packets and of the stream's head, and the decoded frames."""
    import av

    from lumefield.apps._video_files import as_frame

    held = io.BytesIO()
    with av.open(held, "w", format="matroska") as file:
        stream: Any = file.add_stream("libx265", rate=Fraction(picture.rate))
        stream.width, stream.height = picture.columns, picture.rows
        stream.pix_fmt = "yuv420p"
        stream.options = {
            **{"preset": "medium", "crf": str(crf)},
            "x265-params": f"keyint={len(frames)}:log-level=error:pools=2:frame-threads=1",
        }
        size = 0
        for i, planes in enumerate(frames):
            for packet in stream.encode(as_frame(planes, i)):
                size += packet.size
                file.mux(packet)
        for packet in stream.encode():
            size += packet.size
            file.mux(packet)
        size += len(stream.codec_context.extradata or b"")
    held.seek(0)
    with av.open(held, "r") as file:
        found = [_planes(frame) for frame in file.decode(video=0)]
    return size, found


def _planes(frame: Any) -> tuple[Any, ...]:
    whole = frame.to_ndarray(format="yuv420p")
    h, w = frame.height, frame.width
    flat = whole.reshape(-1)
    u = flat[h * w : h * w * 5 // 4].reshape(h // 2, w // 2)
    v = flat[h * w * 5 // 4 :].reshape(h // 2, w // 2)
    return flat[: h * w].reshape(h, w), u, v


def _psnr(a: Any, b: Any) -> float:
    errors = [np.square(x.astype(float) - y).mean() for x, y in zip(a, b, strict=True)]
    return float(10 * np.log10(255**2 / max((6 * errors[0] + errors[1] + errors[2]) / 8, 1e-9)))


if __name__ == "__main__":
    main()
