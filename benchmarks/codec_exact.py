"""One checksum of the pixels from every decoder, over all test pictures.

    python -m benchmarks.codec_exact [--steps 60] [--suites kodak cbsd68 set5] [--gpu]

Every picture of the suites is compressed shortly to real bytes. The files are then decoded by C++,
by the NumPy twin, and by XLA in processes of one and of two threads (``--gpu``: and on the GPU); a
line per picture says whether the MD5 of the pixels is the same. Ends with exit code 1 if one is
not.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
from PIL import Image

ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
XLA = {
    "xla, 1 thread": ({"XLA_FLAGS": ONE_THREAD}, 1),
    "xla, 2 threads": ({}, 2),
}
GPU = {"xla, gpu": ({"JAX_PLATFORMS": "cuda"}, 2)}


def checksums(folder: Path, backend: Literal["native", "twin", "xla"]) -> dict[str, str]:
    """MD5 of the pixels of every file."""
    from lumefield.codecs.neural import decode_image

    found: dict[str, str] = {}
    for file in sorted(folder.glob("*.lume")):
        planes, _ = decode_image(file.read_bytes(), backend)
        found[file.stem] = hashlib.md5(b"".join(p.tobytes() for p in planes)).hexdigest()
    return found


def elsewhere(folder: Path, variables: dict[str, str], threads: int) -> dict[str, str]:
    """The same from XLA in a process of its own."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.codec_exact",
            "--decode",
            str(folder),
            "--cores",
            str(threads),
        ],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def compressed(path: Path, steps: int) -> bytes:
    """A file of a picture, fitted shortly."""
    from lumefield.codecs.neural import Picture
    from lumefield.codecs.overfit import Effort, Goal, compress_picture

    with Image.open(path) as file:
        pixels = np.asarray(file.convert("RGB"))
    return compress_picture(
        pixels,
        Picture(*pixels.shape[:2]),
        goal=Goal("lambda", 1e-3),
        effort=Effort(steps, 5, 5),
    ).data


def main() -> None:
    """Run the command line above."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--suites", nargs="+", default=["kodak", "cbsd68", "set5"])
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--decode", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cores", type=int, default=1, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.decode:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
        print(json.dumps(checksums(args.decode, "xla")))
        return
    root = Path(os.environ.get("LUMEFIELD_DATA", "../shared/data")) / "images"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for suite in args.suites:
            for path in sorted((root / suite).glob("*.png")):
                data = compressed(path, args.steps)
                (folder / f"{suite} {path.stem}.lume").write_bytes(data)
        found = {name: checksums(folder, name) for name in ("native", "twin")}
        for name, (variables, threads) in {**XLA, **(GPU if args.gpu else {})}.items():
            found[name] = elsewhere(folder, variables, threads)
        wrong = 0
        for stem, md5 in found["twin"].items():
            others = [name for name, table in found.items() if table[stem] != md5]
            wrong += bool(others)
            size = (folder / f"{stem}.lume").stat().st_size
            verdict = f"DIFFERS in {', '.join(others)}" if others else "the same everywhere"
            print(f"{stem:20} {size:7} bytes  {md5}  {verdict}")
    print(f"{len(found['twin'])} pictures, {len(found)} decoders, {wrong} with differences")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
