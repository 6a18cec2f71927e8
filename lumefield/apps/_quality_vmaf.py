"""VMAF by the libvmaf inside the FFmpeg of the package imageio-ffmpeg, as a program of its own.

FFmpeg pairs the frames of two files by their time stamps, which Matroska rounds to milliseconds:
of an original as .mkv and its copy as .mp4 every third frame was compared with its neighbour, and
VMAF said 63 instead of 99. So both streams get new time stamps, the number of the frame, and the
PSNR that libvmaf reports beside is compared with ours, frame by frame.
"""

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from lumefield.apps._quality_frames import Source, as_rgb
from lumefield.apps._quality_metrics import package
from lumefield.errors import InputError, RunError

_LARGEST = 60.0
"""What libvmaf writes for the PSNR of equal planes of 8 bits, dB."""
_ALLOWED = 0.5
"""Difference of the two PSNR of a frame above which frames are not the same ones, dB."""
_LUMA = np.array([0.299, 0.587, 0.114])


def find_ffmpeg() -> str:
    """The program.

    Raises:
        InputError: If the package is not installed, or its FFmpeg lacks libvmaf.
    """
    program = str(package("vmaf", "imageio-ffmpeg").get_ffmpeg_exe())
    filters = subprocess.run([program, "-hide_banner", "-filters"], capture_output=True, text=True)
    if " libvmaf " not in filters.stdout:
        raise InputError(
            f"--metric vmaf: {program} was built without libvmaf; unset IMAGEIO_FFMPEG_EXE and "
            "pip install -U imageio-ffmpeg"
        )
    return program


def vmaf(reference: Source, distorted: Source, rows: list[dict[str, Any]]) -> list[float]:
    """Scores of the first ``len(rows)`` frames, 0 to 100.

    Args:
        reference: The original.
        distorted: What is judged.
        rows: Scores so far; "psnr_y" is compared with libvmaf's, where both are videos.

    Raises:
        InputError: As :func:`find_ffmpeg`, or if FFmpeg cannot read a file.
        RunError: If FFmpeg pairs other frames than we do.
    """
    program, count = find_ffmpeg(), len(rows)
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            _playable(source, Path(folder) / f"{k}.y4m", count)
            for k, source in enumerate((distorted, reference))
        ]
        stamp = (
            "settb=1/25,setpts=N,format=yuv420p"
            if _both_films(reference, distorted)
            else ("settb=1/25,setpts=N,format=yuv444p")
        )
        graph = (
            f"[0:v]{stamp}[d];[1:v]{stamp}[r];"
            "[d][r]libvmaf=log_fmt=json:log_path=vmaf.json:n_threads=2:feature=name=psnr"
        )
        inputs = [word for path in paths for word in ("-i", str(path.absolute()))]
        command = [program, "-hide_banner", "-loglevel", "error", "-nostdin", *inputs]
        command += ["-lavfi", graph, "-fps_mode", "passthrough", "-frames:v", str(count)]
        ran = subprocess.run(
            [*command, "-f", "null", "-"], cwd=folder, capture_output=True, text=True
        )
        log = Path(folder) / "vmaf.json"
        if ran.returncode or not log.is_file():
            said = (ran.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise InputError(f"{distorted.path}: FFmpeg could not measure VMAF ({said})")
        frames = [frame["metrics"] for frame in json.loads(log.read_text())["frames"]][:count]
    if len(frames) != count:
        raise RunError(
            f"{distorted.path}: FFmpeg found {len(frames)} frames, we {count}; convert both videos "
            "to a constant frame rate"
        )
    if _both_films(reference, distorted) and "psnr_y" in rows[0]:
        gaps = [
            abs(min(row["psnr_y"], _LARGEST) - min(frame["psnr_y"], _LARGEST))
            for row, frame in zip(rows, frames, strict=True)
        ]
        if max(gaps) > _ALLOWED:
            raise RunError(
                f"{distorted.path}: at frame {int(np.argmax(gaps))} the PSNR of libvmaf is "
                f"{max(gaps):.1f} dB from ours, so it compares other frames; convert both videos "
                "to 8 bits and a constant frame rate"
            )
    return [float(frame["vmaf"]) for frame in frames]


def _both_films(reference: Source, distorted: Source) -> bool:
    return reference.kind == distorted.kind == "video"


def _playable(source: Source, path: Path, count: int) -> Path:
    """The file itself where it is a video, else its pictures as uncompressed YUV 4:4:4."""
    if source.kind == "video":
        return source.path
    shape = ()
    with path.open("wb") as file:
        for k, (_, frame) in enumerate(source.frames()):
            if k == count:
                break
            rgb = as_rgb(frame)
            if k and rgb.shape != shape:
                raise InputError(f"{source.path}: pictures of several sizes, VMAF needs one size")
            if not k:
                shape = rgb.shape
                file.write(
                    f"YUV4MPEG2 W{rgb.shape[1]} H{rgb.shape[0]} F25:1 Ip A1:1 C444\n".encode()
                )
            luma = rgb.astype(np.float64) @ _LUMA
            blue, red = (rgb[..., 2] - luma) / 1.772, (rgb[..., 0] - luma) / 1.402
            planes = np.stack([16 + 219 * luma, 128 + 224 * blue, 128 + 224 * red])
            file.write(b"FRAME\n" + np.rint(planes).astype(np.uint8).tobytes())
    return path
