"""Procedural paint for the demo room: every texture is drawn here, nothing is loaded.

All functions return display-sRGB images, float32 in [0, 1], ``[h, w, 3]``. Detail stops at about
three pixels of the demo photos, so that feature detectors and splats both have something to hold.
"""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Texture = NDArray[Any]
"""Display sRGB [h, w, 3] or one channel [h, w], float32."""
Shape = tuple[str, Any, str]
"""What to draw, where (unit coordinates) and in which colour."""
Rng = np.random.Generator


def _weights(size: int, cells: int, wrap: bool) -> Texture:
    """Rows of smooth interpolation weights from ``cells`` random values to ``size`` pixels."""
    at = (np.arange(size) + 0.5) / size * cells
    low = np.floor(at).astype(int)
    part = at - low
    part = part * part * (3 - 2 * part)
    columns = cells if wrap else cells + 1
    rows = np.zeros((size, columns), np.float32)
    rows[np.arange(size), low % columns] += 1 - part
    rows[np.arange(size), (low + 1) % columns] += part
    return rows


def noise(
    rng: Rng, height: int, width: int, cells: tuple[int, int], *, wrap: bool = False
) -> Texture:
    """Value noise in [0, 1]: random values on a ``cells`` grid, smoothly interpolated.

    Args:
        rng: Source of the grid values.
        height: Rows.
        width: Columns.
        cells: Grid cells along rows and columns.
        wrap: Whether the last column continues into the first.
    """
    down, across = _weights(height, cells[0], False), _weights(width, cells[1], wrap)
    grid = rng.random((down.shape[1], across.shape[1]), dtype=np.float32)
    return down @ grid @ across.T


def fractal(
    rng: Rng,
    height: int,
    width: int,
    cells: tuple[int, int],
    *,
    octaves: int = 4,
    wrap: bool = False,
) -> Texture:
    """Sum of ``octaves`` value noises, each twice as fine and 0.6 times as strong; in [0, 1]."""
    total = np.zeros((height, width), np.float32)
    norm = 0.0
    for k in range(octaves):
        gain = 0.6**k
        total += gain * noise(rng, height, width, (cells[0] << k, cells[1] << k), wrap=wrap)
        norm += gain
    return np.clip((total / norm - 0.5) * 1.7 + 0.5, 0, 1)


def colour(text: str) -> Texture:
    """The colour ``"#rrggbb"`` as three floats."""
    return np.array([int(text[i : i + 2], 16) for i in (1, 3, 5)], np.float32) / 255


def mix(a: Texture, b: Texture, t: Texture | float) -> Texture:
    """Blend from ``a`` to ``b``; ``t`` of shape [h, w] in [0, 1]."""
    t = np.asarray(t, np.float32)[..., None]
    return a * (1 - t) + b * t


def _edge(x: Texture, width: float) -> Texture:
    """Smooth step from 0 to 1 around ``x = 0``, ``width`` wide."""
    t = np.clip(x / width + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def _drawn(image: Texture, draw_on: list[Shape], scale: int = 2) -> Texture:
    """Draw ``(shape, geometry in unit coordinates, colour)`` on an image, antialiased."""
    height, width = image.shape[:2]
    canvas = Image.fromarray((image * 255 + 0.5).astype(np.uint8)).resize(
        (width * scale, height * scale), Image.Resampling.BILINEAR
    )
    pen = ImageDraw.Draw(canvas)
    unit = np.array([width * scale, height * scale])
    for shape, geometry, fill in draw_on:
        if shape == "text":
            text, x, y, size = geometry
            font = ImageFont.load_default(size * unit[1])
            pen.text((x * unit[0], y * unit[1]), text, fill, font, anchor="mm")
        else:
            xy = [tuple(p) for p in np.asarray(geometry, float).reshape(-1, 2) * unit]
            getattr(pen, shape)(xy, fill=fill)
    small = canvas.resize((width, height), Image.Resampling.BOX)
    return np.asarray(small, np.float32) / 255


def wood(rng: Rng, height: int, width: int, tones: tuple[str, str], planks: int) -> Texture:
    """Planks along the columns, one below the other, each with its own tone and grain."""
    image = np.zeros((height, width, 3), np.float32)
    bounds = np.linspace(0, height, planks + 1).astype(int).tolist()
    for top, bottom in pairwise(bounds):
        rows = bottom - top
        grain = fractal(rng, rows, width, (max(3, rows // 40), 3), octaves=3)
        rings = 0.5 + 0.5 * np.sin(grain * 26 + rng.random() * 6)
        fleck = fractal(rng, rows, width, (max(4, rows // 10), 14), octaves=2)
        tone = np.clip(0.15 + 0.5 * rng.random() + 0.22 * rings + 0.35 * (fleck - 0.5), 0, 1)
        image[top:bottom] = mix(colour(tones[0]), colour(tones[1]), tone)
        y = np.minimum(np.arange(rows), np.arange(rows)[::-1])
        image[top:bottom] *= (0.55 + 0.45 * _edge(y - 3.0, 5.0))[:, None, None]
    return image


def carpet(rng: Rng, size: int) -> Texture:
    """A round carpet on stone tiles: rings of petals around a medallion."""
    y, x = (np.mgrid[:size, :size].astype(np.float32) + 0.5) / size * 2 - 1
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    warp = fractal(rng, size, size, (9, 9), octaves=3)
    radius_w = radius + 0.02 * (warp - 0.5)
    palette = ["#7c2b2f", "#c9963f", "#25405e", "#b5523b", "#e4d3ae", "#34606b", "#8e3b3f"]
    rug = np.broadcast_to(colour(palette[0]), (size, size, 3)).copy()
    for ring in range(7):
        middle, petals = 0.1 + 0.105 * ring, 5 + 4 * ring
        wave = 0.042 * np.cos(petals * angle + ring) * (0.7 + 0.6 * warp)
        band = _edge(0.045 + wave - np.abs(radius_w - middle), 0.012)
        rug = mix(rug, colour(palette[(ring * 2 + 1) % 7]), band)
        dots = np.cos(petals * angle + ring + 3.1) > 0.86
        rug = mix(
            rug,
            colour(palette[(ring + 4) % 7]),
            dots * _edge(0.02 - np.abs(radius_w - middle), 0.01),
        )
    rug = rug * (0.7 + 0.6 * fractal(rng, size, size, (48, 48), octaves=2))[..., None]
    tiles = 14
    cell = np.floor((np.stack([x, y]) + 1) / 2 * tiles).astype(int)
    shade = rng.random((tiles + 1, tiles + 1)).astype(np.float32)[cell[0], cell[1]]
    stone = 0.3 + 0.25 * shade + 0.3 * fractal(rng, size, size, (40, 40), octaves=3)
    line = np.abs(((np.stack([x, y]) + 1) / 2 * tiles) % 1 - 0.5).max(0)
    stone = stone * (1 - 0.5 * _edge(line - 0.475, 0.02))
    floor = stone[..., None] * np.array([1.0, 0.93, 0.84], np.float32)
    return np.clip(mix(rug, floor, _edge(radius - 0.82, 0.01)), 0, 1)


def _balloon(rng: Rng, x: float, y: float, size: float, aspect: float) -> list[Shape]:
    hues = ["#d8583c", "#e9b44c", "#3f7f8c", "#f1ead8", "#8c4a6b"]
    first, second = rng.choice(len(hues), 2, replace=False)
    wide, tall = size / aspect, size
    shapes: list[Shape] = [
        (
            "polygon",
            [
                (x - wide * 0.6, y + tall * 0.5),
                (x + wide * 0.6, y + tall * 0.5),
                (x, y + tall * 1.9),
            ],
            hues[first],
        )
    ]
    for k, part in enumerate((1.0, 0.66, 0.28)):
        box = [(x - wide * part, y - tall), (x + wide * part, y + tall)]
        shapes.append(("ellipse", box, hues[first if k % 2 == 0 else second]))
    basket = [(x - wide * 0.18, y + tall * 1.75), (x + wide * 0.18, y + tall * 2.1)]
    return [*shapes, ("rectangle", basket, "#6b4a2f")]


def mural(rng: Rng, height: int, width: int) -> Texture:
    """A landscape around the room: sky, clouds, balloons, hills with trees, wood panelling."""
    v = np.linspace(0, 1, height, dtype=np.float32)[:, None] * np.ones((1, width), np.float32)
    image = mix(colour("#6fa3c8"), colour("#f3dfc0"), np.clip(v / 0.5, 0, 1))
    clouds = fractal(rng, height, width, (4, 14), octaves=5, wrap=True)
    image = mix(image, colour("#fbf6ea"), _edge(clouds - 0.56, 0.3) * 0.9)
    aspect = width / height
    shapes: list[Shape] = []
    for k in range(9):
        place = (k + 0.2 + 0.6 * rng.random()) / 9
        shapes += _balloon(
            rng, place, 0.14 + 0.18 * rng.random(), 0.03 + 0.035 * rng.random(), aspect
        )
    image = _drawn(image, shapes)
    tones = ["#8fb0b5", "#7ba08a", "#6f9460", "#557d45", "#3e6338"]
    for layer, tone in enumerate(tones):
        ridge = fractal(rng, 1, width, (1, 5 + 3 * layer), octaves=4, wrap=True)[0]
        ridge = 0.42 + 0.075 * layer - 0.13 * ridge
        land = fractal(rng, height, width, (12, 44), octaves=4, wrap=True)
        hill = colour(tone) * (0.62 + 0.76 * land[..., None])
        image = mix(image, hill, _edge(v - ridge[None], 0.006))
        trees: list[Shape] = []
        for x in rng.random(26 if layer else 0):
            foot = ridge[int(x * width) % width] + 0.015 + 0.03 * rng.random()
            tall, hue = 0.03 + 0.012 * layer + 0.02 * rng.random(), rng.integers(3)
            wide = tall * 0.32 / aspect
            leaf = ["#2f5233", "#41693a", "#a9702e"][hue]
            trees.append(
                ("rectangle", [(x - wide / 5, foot - tall / 3), (x + wide / 5, foot)], "#4d3826")
            )
            trees.append(
                (
                    "polygon",
                    [
                        (x - wide, foot - tall / 4),
                        (x + wide, foot - tall / 4),
                        (x, foot - tall * 1.3),
                    ],
                    leaf,
                )
            )
        image = _drawn(image, trees)
    panel = wood(rng, width, height, ("#5a3d28", "#9a7148"), 96).transpose(1, 0, 2)
    image = mix(image, panel, _edge(v - 0.74, 0.002))
    rail = _edge(0.012 - np.abs(v - 0.74), 0.003)
    return np.clip(mix(image, colour("#d9c9a5"), rail), 0, 1)


def globe(rng: Rng, height: int) -> Texture:
    """A planet: oceans, land and ice from noise; longitude wraps."""
    width = 2 * height
    land = fractal(rng, height, width, (3, 6), octaves=5, wrap=True)
    fine = fractal(rng, height, width, (12, 24), octaves=3, wrap=True)
    sea = mix(colour("#1d4e7a"), colour("#3f8fb0"), fine)
    soil = mix(
        mix(colour("#5f8f4b"), colour("#d7bd7a"), _edge(land - 0.68, 0.2)),
        colour("#8a6a45"),
        fine * 0.6,
    )
    image = mix(sea, soil, _edge(land - 0.53, 0.03))
    pole = np.abs(np.linspace(-1, 1, height, dtype=np.float32))[:, None] + 0.25 * (fine - 0.5)
    return mix(image, colour("#f2f4f3"), _edge(pole - 0.84, 0.03))


def orange(rng: Rng, height: int, tones: tuple[str, str]) -> Texture:
    """Fruit skin: blotches of two tones with paler specks."""
    blotch = fractal(rng, height, 2 * height, (4, 8), octaves=4, wrap=True)
    specks = noise(rng, height, 2 * height, (24, 48), wrap=True)
    return mix(
        mix(colour(tones[0]), colour(tones[1]), blotch),
        colour("#fbe3b0"),
        _edge(specks - 0.8, 0.1) * 0.7,
    )


def tin(rng: Rng, height: int, width: int) -> Texture:
    """The side of a painted tin: zigzags and dots between two bands."""
    u, v = np.meshgrid(
        np.linspace(0, 1, width, dtype=np.float32), np.linspace(0, 1, height, dtype=np.float32)
    )
    image = np.broadcast_to(colour("#ead9b5"), (height, width, 3))
    zig = np.abs((u * 9) % 1 - 0.5) * 0.3
    for k, tone in enumerate(["#b4432f", "#2f6673", "#d99b33", "#3d4f33"]):
        image = mix(image, colour(tone), _edge(0.035 - np.abs(v - 0.16 - 0.2 * k - zig), 0.012))
    image = (
        image
        * (0.78 + 0.44 * fractal(rng, height, width, (8, 24), octaves=3, wrap=True))[..., None]
    )
    dots = [
        ("ellipse", [(x - 0.012, y - 0.022), (x + 0.012, y + 0.022)], "#7b2d3a")
        for x, y in rng.random((26, 2))
    ]
    return np.clip(
        _drawn(
            image,
            [
                *dots,
                ("text", ("TEA", 0.2, 0.52, 0.26), "#40241c"),
                ("text", ("N 7", 0.7, 0.5, 0.2), "#40241c"),
            ],
        ),
        0,
        1,
    )


def cover(rng: Rng, height: int, width: int, tones: tuple[str, str], title: str) -> Texture:
    """A printed face: marbled paper, a frame, a title and a few painted discs."""
    marble = fractal(rng, height, width, (5, 5), octaves=4)
    image = mix(colour(tones[0]), colour(tones[1]), 0.5 + 0.5 * np.sin(marble * 14))
    image = image * (0.8 + 0.4 * fractal(rng, height, width, (14, 14), octaves=2))[..., None]
    shapes: list[Shape] = []
    for x, y, r in rng.random((9, 3)):
        r, hue = (
            0.02 + 0.07 * r,
            rng.choice(["#e9b44c", "#f1ead8", "#d8583c", "#254e70", "#3e6338"]),
        )
        shapes.append(
            (
                "ellipse",
                [(x - r * height / width, y - r), (x + r * height / width, y + r)],
                str(hue),
            )
        )
    if title:
        shapes.append(("rectangle", [(0.08, 0.3), (0.92, 0.7)], "#f3ead2"))
        shapes.append(
            (
                "text",
                (title, 0.5, 0.5, min(0.34, 1.3 * width / height / max(1, len(title)))),
                "#27313f",
            )
        )
    return np.clip(_drawn(np.clip(image, 0, 1), shapes), 0, 1)


def pages(rng: Rng, height: int, width: int) -> Texture:
    """The edge of a book: thin wavy layers of paper."""
    lines = noise(rng, height, width, (16, 5))
    return mix(colour("#cdb98f"), colour("#f4ead0"), lines)
