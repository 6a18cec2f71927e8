"""What a ``.lume`` file of pictures says of itself, without decoding any."""

from typing import Any

from lumefield.codecs.families._stream import read_network
from lumefield.codecs.neural._container import (
    AUDIO_CHUNK,
    IMAGE,
    NETWORK_CHUNK,
    VIDEO,
    Picture,
    unpack,
)
from lumefield.errors import FormatError, format_errors_of


def file_facts(data: bytes, source: str = "the data") -> dict[str, Any]:
    """Size, format and method of an image or video, as JSON-able values.

    Args:
        data: The whole file.
        source: What to call the data in errors.

    Raises:
        FormatError: If the data is damaged, or holds neither.
    """
    with format_errors_of(source):
        container = unpack(data)
        picture = container.picture
        if container.content not in (IMAGE, VIDEO) or picture is None:
            raise FormatError("holds no image or video; decompress it first")
        network = next(container.all(NETWORK_CHUNK), None)
        found = {
            "content": "image" if container.content == IMAGE else "video",
            "bytes": len(data),
            "columns": picture.columns,
            "rows": picture.rows,
            "channels": picture.channels,
            "bits": picture.bits,
            "subsampled": picture.subsampled,
            "frames": picture.frames,
            "rate": float(picture.rate),
            "name": container.name(),
            "sound_bytes": sum(map(len, container.all(AUDIO_CHUNK))),
            "method": "lumefield",
        }
        return found if network is None else found | _network_facts(network, picture)


def _network_facts(chunk: bytes, picture: Picture) -> dict[str, Any]:
    family, layout, tensors = read_network(chunk, picture)
    names = [number.name for number in family.numbers]
    return {
        "method": family.name,
        "paper": family.source,
        "layout": dict(zip(names, layout.numbers, strict=True)),
        "parameters": sum(whole.values.size for whole in tensors.values()),
        "macs_per_pixel": family.macs(layout),
    }
