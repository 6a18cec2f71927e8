"""A second decoder of the splat formats, for ``export --verify`` alone.

A writer and a reader that share a mistake agree with each other. So these are written a second
time, from the public descriptions of the formats, with NumPy, the
standard library, Pillow and zstandard: nothing of ``lumefield.codecs`` is used but the record that
holds the result. They are plain, trust the file (we have just written it) and keep no memory low.

Not here: USD, whose reader is OpenUSD's own.
"""

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from lumefield.codecs.formats import Splats

Array = NDArray[Any]
_C0 = 0.5 / np.sqrt(np.pi)
_DEGREES = {1: 0, 4: 1, 9: 2, 16: 3, 25: 4}
_SIDES = 1e-4
"""Opacities of 0 and 255 stand for this far from 0 and 1."""


def reread(path: Path, suffix: str) -> "Splats | None":
    """The Gaussians of a file, or None where there is no second decoder of its format.

    Args:
        path: A file that was just written.
        suffix: Its format.

    Raises:
        ValueError: If the file does not hold what its format promises; so do KeyError,
            struct.error and the like, which mean the same here.
    """
    decode = _DECODERS.get(suffix)
    return decode(path.read_bytes()) if decode else None


def has_decoder(suffix: str) -> bool:
    """Whether there is a second decoder of this format."""
    return suffix in _DECODERS


def _ply(data: bytes) -> "Splats":
    head, _, body = data.partition(b"end_header\n")
    lines = head.decode().splitlines()
    if lines[:2] != ["ply", "format binary_little_endian 1.0"]:
        raise ValueError("not a little-endian PLY")
    kinds = {"float": "<f4", "uint": "<u4", "uchar": "u1"}
    tables: dict[str, Array] = {}
    at, name, count, fields = 0, "", 0, list[tuple[str, str]]()
    for line in [*lines[2:], "element end 0"]:
        word = line.split()
        if word[0] == "property":
            fields.append((word[2], kinds[word[1]]))
        elif word[0] == "element":
            if name:
                row = np.dtype(fields)
                tables[name] = np.frombuffer(body, row, count, at)
                at += count * row.itemsize
            name, count, fields = word[1], int(word[2]), []
    soft = any(line.startswith("comment SplatRenderMode: mip") for line in lines)
    if "chunk" in tables:
        return _packed_ply(tables, soft)
    vertex = tables["vertex"]
    rest = [f for f in vertex.dtype.names or () if f.startswith("f_rest_")]
    colour = np.stack([vertex[f"f_dc_{c}"] for c in range(3)], -1)[:, None]
    if rest:
        flat = np.stack([vertex[f"f_rest_{j}"] for j in range(len(rest))], -1)
        each = len(rest) // 3
        more = np.stack([flat[:, c * each : (c + 1) * each] for c in range(3)], -1)
        colour = np.concatenate([colour, more], 1)
    columns = [[*"xyz"], ["rot_0", "rot_1", "rot_2", "rot_3"], ["scale_0", "scale_1", "scale_2"]]
    means, quats, scales = (np.stack([vertex[c] for c in names], -1) for names in columns)
    return _made(means, quats, scales, vertex["opacity"], colour, soft)


def _packed_ply(tables: dict[str, Array], soft: bool) -> "Splats":
    chunk, vertex = tables["chunk"], tables["vertex"]
    which = np.arange(len(vertex)) >> 8

    def field(word: str, shift: int, bits: int) -> Array:
        return ((vertex[word] >> np.uint32(shift)) & np.uint32(2**bits - 1)) / (2**bits - 1)

    def ranged(low: str, high: str, unit: Array) -> Array:
        return chunk[low][which] + (chunk[high][which].astype(float) - chunk[low][which]) * unit

    spans = ((21, 11), (11, 10), (0, 11))
    means = np.stack(
        [
            ranged(f"min_{a}", f"max_{a}", field("packed_position", *span))
            for a, span in zip("xyz", spans, strict=True)
        ],
        -1,
    )
    scales = np.stack(
        [
            ranged(f"min_scale_{a}", f"max_scale_{a}", field("packed_scale", *span))
            for a, span in zip("xyz", spans, strict=True)
        ],
        -1,
    )
    rgb = np.stack(
        [
            ranged(f"min_{a}", f"max_{a}", field("packed_color", 24 - 8 * j, 8))
            for j, a in enumerate("rgb")
        ],
        -1,
    )
    three = [(field("packed_rotation", s, 10) - 0.5) * np.sqrt(2) for s in (20, 10, 0)]
    quats = _fourth(three, (vertex["packed_rotation"] >> np.uint32(30)).astype(int))
    colour = ((rgb - 0.5) / _C0)[:, None]
    if "sh" in tables:
        table = tables["sh"]
        each = len(table.dtype.names or ()) // 3
        flat = np.stack([table[f"f_rest_{j}"] for j in range(3 * each)], -1).astype(float)
        unit = np.select([flat == 0, flat == 255], [0.0, 1.0], (flat + 0.5) / 256)
        more = np.stack([unit[:, c * each : (c + 1) * each] for c in range(3)], -1)
        colour = np.concatenate([colour, (more - 0.5) * 8], 1)
    return _made(means, quats, scales, _logit(field("packed_color", 0, 8)), colour, soft)


def _splat(data: bytes) -> "Splats":
    raw = np.frombuffer(data, np.uint8).reshape(-1, 32)
    numbers = np.ascontiguousarray(raw[:, :24]).view("<f4")
    quats = raw[:, 28:].astype(float) / 128 - 1
    colour = ((raw[:, None, 24:27] / 255) - 0.5) / _C0
    scales = np.log(numbers[:, 3:].astype(float))
    return _made(numbers[:, :3], quats, scales, _logit(raw[:, 27] / 255), colour, False)


def _spz(data: bytes) -> "Splats":
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    magic, version, n, degree, bits, flags, streams = struct.unpack_from("<IIIBBBB", data)
    if magic != 0x5053474E or version not in (3, 4):
        raise ValueError(f"SPZ magic {magic:#x}, version {version}")
    k = (degree + 1) ** 2
    sizes = [9, 1, 3, 3, 4, 3 * (k - 1)]
    if version == 3:
        body = data[16:]
    else:
        import zstandard

        (toc,) = struct.unpack_from("<I", data, 16)
        at, parts = toc + 16 * streams, list[bytes]()
        for j in range(streams):
            packed, size = struct.unpack_from("<QQ", data, toc + 16 * j)
            parts.append(zstandard.decompress(data[at : at + packed], size))
            at += packed
        body = b"".join(parts)
    if len(body) != n * sum(sizes):
        raise ValueError(f"SPZ of {n} Gaussians has {len(body)} bytes")
    ends = np.cumsum([n * size for size in sizes])[:-1]
    cut = [
        part.reshape(n, -1) if size else np.zeros((n, 0), np.uint8)
        for part, size in zip(np.split(np.frombuffer(body, np.uint8), ends), sizes, strict=True)
    ]
    where, alpha, base, scale, turn, rest = cut
    low = where.reshape(n, 3, 3).astype(np.int64) @ np.array([1, 1 << 8, 1 << 16])
    means = np.where(low < 1 << 23, low, low - (1 << 24)) / 2.0**bits
    colour = ((base.astype(float) / 255 - 0.5) / 0.15)[:, None]
    more = (rest.reshape(n, k - 1, 3).astype(float) - 128) / 128
    quats = _spz_turns(turn)
    # An SPZ is right, up, back; a PLY right, down, forward: half a turn about x.
    means, quats = means * (1, -1, -1), quats * (1, 1, -1, -1)
    colour = np.concatenate([colour, more], 1) * _half_turn(degree)[:, None]
    scales, soft = scale / 16 - 10, bool(flags & 1)
    return _made(means, quats, scales, _logit(alpha[:, 0] / 255), colour, soft)


def _spz_turns(raw: Array) -> Array:
    """Quaternions, w first, of words that hold three of x y z w, nine bits and a sign each."""
    word = np.ascontiguousarray(raw).view("<u4")[:, 0].astype(np.int64)
    missing = word >> 30
    three = [
        (1 - 2 * (part >> 9)) * (part & 511) / 511 / np.sqrt(2)
        for part in ((word >> 20) & 1023, (word >> 10) & 1023, word & 1023)
    ]
    return _fourth(three, missing)[:, [3, 0, 1, 2]]


def _sog(data: bytes) -> "Splats":
    from PIL import Image

    with zipfile.ZipFile(io.BytesIO(data)) as bundle:
        meta = json.loads(bundle.read("meta.json"))
        n = meta["count"]

        def texels(group: str, j: int = 0) -> Array:
            with Image.open(io.BytesIO(bundle.read(meta[group]["files"][j]))) as image:
                return np.asarray(image.convert("RGBA")).reshape(-1, 4)

        low, high, turn = texels("means")[:n], texels("means", 1)[:n], texels("quats")[:n]
        book = {g: np.array(meta[g]["codebook"]) for g in ("scales", "sh0")}
        scales, base = book["scales"][texels("scales")[:n, :3]], texels("sh0")[:n]
        colour = book["sh0"][base[:, :3]][:, None]
        if "shN" in meta:
            k = (meta["shN"]["bands"] + 1) ** 2 - 1
            label = texels("shN", 1)[:n].astype(int) @ np.array([1, 256, 0, 0])
            entry = np.array(meta["shN"]["codebook"])[texels("shN")[:, :3]]
            colour = np.concatenate([colour, entry.reshape(-1, k, 3)[label]], 1)
    unit = (low[:, :3] + 256.0 * high[:, :3]) / 65535
    ends = [np.array(meta["means"][key]) for key in ("mins", "maxs")]
    folded = ends[0] + (ends[1] - ends[0]) * unit
    means = np.sign(folded) * (np.exp(np.abs(folded)) - 1)
    three = [(turn[:, j] / 255.0 - 0.5) * np.sqrt(2) for j in range(3)]
    quats = _fourth(three, turn[:, 3].astype(int) - 252)
    soft = meta.get("model") == "antialiased"
    return _made(means, quats, scales, _logit(base[:, 3] / 255), colour, soft)


def _glb(data: bytes) -> "Splats":
    (size,) = struct.unpack_from("<I", data, 12)
    scene, body = json.loads(data[20 : 20 + size]), data[28 + size :]
    (primitive,) = (p for mesh in scene["meshes"] for p in mesh["primitives"])

    def values(name: str) -> Array:
        accessor = scene["accessors"][primitive["attributes"][name]]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        view = scene["bufferViews"][accessor["bufferView"]]
        at = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        flat = np.frombuffer(body, "<f4", accessor["count"] * width, at)
        return flat.reshape(-1, width).astype(float)

    name = "KHR_gaussian_splatting:"
    found = [a for a in primitive["attributes"] if a.startswith(name + "SH_DEGREE_")]
    degree = _DEGREES[len(found)]
    bands = [f"SH_DEGREE_{d}_COEF_{j}" for d in range(degree + 1) for j in range(2 * d + 1)]
    colour = np.stack([values(name + band) for band in bands], 1)
    means, quats = values("POSITION") * (1, -1, -1), values(name + "ROTATION")[:, [3, 0, 1, 2]]
    opacity = np.clip(values(name + "OPACITY")[:, 0], 1e-30, 1 - 1e-9)
    logit = np.log(opacity / (1 - opacity))
    scales = np.log(np.maximum(values(name + "SCALE"), 1e-30))
    colour = colour * _half_turn(degree)[:, None]
    return _made(means, quats * (1, 1, -1, -1), scales, logit, colour, False)


def _fourth(three: list[Array], missing: Array) -> Array:
    """Quaternions (n, 4) of three components in order and the place of the one left out."""
    made, rows = np.zeros((len(missing), 4)), np.arange(len(missing))
    for j in range(3):
        made[rows, j + (missing <= j)] = three[j]
    made[rows, missing] = np.sqrt(np.maximum(0, 1 - (made**2).sum(1)))
    return made


def _half_turn(degree: int) -> Array:
    """Signs of the coefficients under half a turn about x, from the polynomials themselves."""
    x, y, z = 0.3, 0.5, 0.7
    signs = [1.0]
    terms = (
        ("y", "z", "x"),
        ("xy", "yz", "1", "xz", "1"),
        ("y", "xyz", "y", "z", "x", "z", "x"),
        ("xy", "yz", "xy", "yz", "1", "xz", "1", "xz", "1"),
    )
    for row in terms[:degree]:
        for factors in row:  # what is odd in it: even factors keep their sign
            before = np.prod([{"x": x, "y": y, "z": z, "1": 1.0}[f] for f in factors])
            after = np.prod([{"x": x, "y": -y, "z": -z, "1": 1.0}[f] for f in factors])
            signs.append(float(np.sign(after / before)))
    return np.array(signs)


def _logit(opacity: Array) -> Array:
    held = np.clip(opacity, _SIDES, 1 - _SIDES)
    return np.log(held / (1 - held))


def _made(
    means: Array, quats: Array, scales: Array, logit: Array, colour: Array, soft: bool
) -> "Splats":
    from lumefield.codecs.formats import Splats

    f32 = np.float32
    return Splats(
        means=means.astype(f32),
        quats_wxyz=quats.astype(f32),
        log_scales=scales.astype(f32),
        logit_opacities=logit.astype(f32),
        sh=colour.astype(f32),
        antialiased=soft,
    )


_DECODERS: dict[str, Callable[[bytes], "Splats"]] = {
    ".ply": _ply,
    ".compressed.ply": _ply,
    ".splat": _splat,
    ".spz": _spz,
    ".sog": _sog,
    ".splats.glb": _glb,
}
"""Format -> its second decoder."""
