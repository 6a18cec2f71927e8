"""The golden scene as the page shows it: its cameras, its table for ``view``, pictures compared."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._page import Part, scene_stand, served_page, settings
from lumefield.apps._paths import look_at
from lumefield.apps._view import scene_table
from lumefield.apps._view_server import Served
from lumefield.apps._views import Views
from tests.codecs.golden import golden

Serve = Callable[[Served], str]
Image = NDArray[np.uint8]
SIZE = (480, 360)
BACKGROUND = (0.125, 0.14, 0.16)
NASTY = '</title><script>globalThis.broken = 1</script> & "F"'


def cameras() -> Views:
    """Three views of the golden scene: from the front, where F reads right, the side and above."""
    eyes = ((0.3, -0.9, -3.6), (3.0, -0.8, -1.6), (-1.6, -2.4, -2.2))
    target, up = np.array([0.0, -0.1, 0.0]), np.array([0.0, -1.0, 0.0])
    return Views(
        names=("front.jpg", NASTY, "above.jpg"),
        world_from_cam=np.array([look_at(np.array(eye), target, up) for eye in eyes]),
        focal=np.full((3, 2), 1.1 * SIZE[1]),
        centre=np.tile([SIZE[0] / 2, SIZE[1] / 2], (3, 1)),
        size=np.tile(np.array(SIZE), (3, 1)),
        held_out=(True, False, False),
    )


def psnr(a: Image, b: Image) -> float:
    """Likeness of two pictures, dB; 120 where they are equal."""
    return float(-10 * np.log10(max(np.mean((a / 255.0 - b / 255.0) ** 2), 1e-12)))


def served(scenes: tuple[Path, ...]) -> Served:
    """The table of ``view``, with the cameras and background of the tests."""
    table, _ = scene_table(scenes)
    splats = golden()
    at, views = scene_stand(splats, cameras())
    parts = [
        Part(
            file.name,
            file.suffix[1:],
            len(splats.means),
            1,
            False,
            {"url": f"scene-{k}{file.suffix}"},
        )
        for k, file in enumerate(scenes)
    ]
    record = settings("test", parts, at, views, BACKGROUND)
    return {**table, "/": (table["/"][0], served_page(record))}
