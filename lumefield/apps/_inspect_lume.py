"""``lumefield inspect`` of a ``.lume`` picture or video, without jax."""

from pathlib import Path
from typing import Any


def lume_facts(file: Path) -> dict[str, Any]:
    """What a ``.lume`` picture or video says of itself.

    Raises:
        FormatError: If it is damaged, or holds neither.
    """
    from lumefield.codecs.families import file_facts

    return {"file": str(file), **file_facts(file.read_bytes(), str(file))}


def describe_lume(found: dict[str, Any]) -> str:
    """The text form of :func:`lume_facts`."""
    is_video = found["content"] == "video"
    samples = f"{found['channels']} channels of {found['bits']} bits"
    rows = [
        ("file", f"{found['file']} ({found['bytes']:,} bytes)"),
        (found["content"], f"{found['columns']} x {found['rows']}, {samples}"),
        ("chroma", "4:2:0" if found["subsampled"] else "4:4:4"),
        ("method", found["method"]),
    ]
    if is_video:
        rows.insert(2, ("frames", f"{found['frames']}, {found['rate']:.6g} a second"))
        rows.append(("sound", f"{found['sound_bytes']:,} bytes"))
    if "parameters" in found:
        sizes = ", ".join(f"{name} {value}" for name, value in found["layout"].items())
        rows += [
            ("paper", found["paper"]),
            ("network", f"{found['parameters']:,} parameters ({sizes})"),
            ("cost", f"{found['macs_per_pixel']:,.0f} multiplications a pixel"),
        ]
    if found["name"]:
        rows.append(("original", found["name"]))
    return "\n".join(f"{name:<12} {text}" for name, text in rows)
