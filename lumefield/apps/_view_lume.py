"""``lumefield view`` of a ``.lume`` file: decoded here, shown by the browser's own player."""

import html
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lumefield.apps._view_server import Served

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
html,body{{height:100%;margin:0;background:#111;color:#ddd;font:14px system-ui,sans-serif}}
body{{display:flex;flex-direction:column;align-items:center;justify-content:center;gap:12px}}
video,img{{width:min(96vw,{width}px);max-height:86vh;object-fit:contain;background:#000}}
</style>
{body}
<p>{told}</p>
</html>
"""
_PLAYER = """<video id="film" controls loop autoplay muted playsinline></video>
<script>
// The whole film as one piece: any place of it can be jumped to without the server's help.
fetch("film.mp4").then(r => r.blob()).then(b => film.src = URL.createObjectURL(b));
</script>"""
_SMALLEST = 960
"""Pixels wide that small pictures are shown at least."""


def lume_table(path: Path) -> tuple["Served", str]:
    """What is served for a picture or video, and a line that says it.

    Raises:
        FormatError: If the file is damaged, or holds neither.
    """
    from lumefield.codecs.neural import Container, open_video

    data = path.read_bytes()
    if Container.holds(data) == "video":
        _, picture = open_video(data, str(path))
        film = _film(data, path)
        table: Served = {"/film.mp4": ("video/mp4", film)}
        facts = f"{picture.frames} frames, {float(picture.rate):.6g} a second"
        body = _PLAYER
    else:
        from lumefield.codecs.neural import decode_image, pixels_of

        planes, container = decode_image(data, source=str(path))
        picture = container.picture
        assert picture is not None, "an image has one"
        table = {"/picture.png": ("image/png", _png(pixels_of(planes, picture), picture.bits))}
        facts, body = f"{picture.channels} channels", '<img src="picture.png" alt="">'
    told = f"{path.name}: {picture.columns} x {picture.rows}, {facts}, {len(data):,} bytes"
    page = _PAGE.format(
        title=html.escape(path.name),
        width=max(_SMALLEST, picture.columns),
        body=body,
        told=html.escape(told),
    )
    table["/"] = ("text/html; charset=utf-8", page.encode())
    return table, told


def _film(data: bytes, path: Path) -> bytes:
    """All frames and the sound as MP4."""
    from lumefield.apps._video_files import write_film
    from lumefield.codecs.neural import decode_video, open_video, sound_of_video

    container, picture = open_video(data, str(path))
    file = io.BytesIO()
    frames: Any = decode_video(data, source=str(path))
    write_film(file, ".mp4", frames, picture, sound_of_video(container))
    return file.getvalue()


def _png(pixels: Any, bits: int) -> bytes:  # noqa: ANN401
    import numpy as np
    from PIL import Image

    shown = np.rint(pixels.astype(np.float64) * (255 / (2**bits - 1))).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(shown[..., 0] if shown.shape[-1] == 1 else shown).save(file, "PNG")
    return file.getvalue()
