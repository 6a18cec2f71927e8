"""``lumefield export --out FILE.html``: the scene, the viewer and a poster in one page."""

import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lumefield.apps._page import Part, scene_stand, settings, whole_page
from lumefield.apps._views import Views
from lumefield.errors import InputError

if TYPE_CHECKING:
    from lumefield.codecs.formats import Splats

MAX_SCENE = 250_000_000
"""Bytes of a scene; browsers give up on pages much larger than a third more of it."""
POSTER_SIDE = 960
"""Longest side of the poster, pixels."""
POSTER_QUALITY = 80


class Sizes(NamedTuple):
    """Bytes of a page; what is left is the viewer."""

    page: int
    scene: int
    """Before base64, which makes it a third larger."""
    poster: int

    def line(self, count: int, out: Path) -> str:
        """What a person is told."""
        rest = self.page - -(-self.scene // 3) * 4 - -(-self.poster // 3) * 4
        return (
            f"wrote {count:,} Gaussians to {out}, {self.page / 1e6:.1f} MB: scene "
            f"{self.scene / 1e6:.1f} MB (a third more as text), viewer {rest / 1e6:.1f} MB, "
            f"poster {self.poster / 1e3:.0f} kB; opens in any browser, from disk too"
        )


def write_html(
    splats: "Splats",
    views: Views | None,
    out: Path,
    *,
    title: str,
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
    metres: float | None = None,
    poster: bool = True,
) -> Sizes:
    """Write one HTML file that shows a scene and asks for nothing else.

    The Gaussians are stored as SPZ version 3. The file is replaced, whole or not at all.

    Args:
        splats: What to show, in the frame of ``views``.
        views: Cameras of the capture, or None: then eight are put around the scene.
        out: File to write.
        title: What the page is called; any characters.
        background: Display sRGB behind the scene, 0..1.
        metres: Metres per scene unit for headsets; guessed when None.
        poster: Whether to draw the first view and show it while the page loads; needs jax.

    Raises:
        InputError: If there are no Gaussians, they are too many for a page, or the file cannot be
            written.
        RunError: If the viewer was not built into the package.
    """
    from lumefield.codecs.formats import replacing

    if not len(splats.means):
        raise InputError(f"{out}: the scene holds no Gaussians, expected at least one")
    at, views = scene_stand(splats, views, metres)
    raw = spz_bytes(splats)
    if len(raw) > MAX_SCENE:
        raise InputError(
            f"{out}: the scene takes {len(raw) / 1e6:.0f} MB as SPZ, a page holds at most "
            f"{MAX_SCENE / 1e6:.0f} MB; give a smaller --max-splats, or serve it with "
            "`lumefield view`"
        )
    picture = _poster(splats, views, background) if poster else None
    part = Part(
        title, "spz", len(splats.means), len(raw), splats.antialiased, {"element": "scene-0"}
    )
    record = settings(title, [part], at, views, background)
    page = whole_page(record, [("scene-0", raw)], picture)
    with replacing(out) as file:
        file.write(page)
    return Sizes(len(page), len(raw), len(picture or b""))


def spz_bytes(splats: "Splats") -> bytes:
    """The Gaussians as an SPZ file of version 3, which every viewer reads."""
    return file_bytes(splats, ".spz")


def file_bytes(splats: "Splats", suffix: str) -> bytes:
    """The Gaussians as a file of the format of ``suffix`` would hold them."""
    from lumefield.codecs.formats import save_splats

    with tempfile.TemporaryDirectory(prefix="lumefield-") as folder:
        file = Path(folder) / f"scene{suffix}"
        save_splats(splats, file)
        return file.read_bytes()


def _poster(splats: "Splats", views: Views, background: tuple[float, float, float]) -> bytes:
    """The first view of the page as a JPEG."""
    from PIL import Image

    from lumefield.apps._scene_io import make_draw, to_bytes

    width, height = (int(side) for side in views.size[0])
    scale = min(1.0, POSTER_SIDE / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    drawn = make_draw(splats, background=background)(views.pick([0]).resized(*size))
    held = io.BytesIO()
    Image.fromarray(to_bytes(drawn.rgb)).save(held, "JPEG", quality=POSTER_QUALITY)
    return held.getvalue()
