"""What programs and headsets open well; what a file will weigh and lose, before it is written."""

import dataclasses
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from lumefield.apps._export_settings import Export

Name = Literal["quest", "visionpro", "web", "archive", "unity", "unreal", "blender"]
Up = Literal["as-is", "auto", "y", "y-down", "z"]


class Preset(NamedTuple):
    """Settings for a place, where the command line does not say otherwise."""

    suffix: str
    """Format, where --out has no suffix."""
    max_splats: int | None
    sh_degree: Literal[0, 1, 2, 3]
    up: Up
    text: str


PRESETS: dict[Name, Preset] = {
    "quest": Preset(".spz", 400_000, 1, "auto", "Quest 3 browser, 72 Hz"),
    "visionpro": Preset(".spz", 800_000, 2, "auto", "Vision Pro, Safari"),
    "web": Preset(".sog", 1_000_000, 2, "auto", "any browser"),
    "archive": Preset(".ply", None, 3, "as-is", "everything, exact"),
    "unity": Preset(".ply", None, 3, "auto", "UnityGaussianSplatting"),
    "unreal": Preset(".ply", 2_000_000, 3, "auto", "XScene, LumaAI and other plugins"),
    "blender": Preset(".ply", 2_000_000, 3, "z", "3DGS add-ons; z is up"),
}
"""--preset -> settings."""


def with_preset(settings: "Export") -> "Export":
    """The settings, what is not given filled in from the preset or the defaults."""
    out, place = settings.out, settings.place
    row = PRESETS[settings.preset] if settings.preset else None
    if settings.format and not out.suffix:
        out = out.with_name(f"{out.name}.{settings.format}")
    elif row and not out.suffix:
        out = out.with_name(out.name + row.suffix)
    if row is None:
        return dataclasses.replace(settings, out=out)
    if place.up is None:
        place = dataclasses.replace(place, up=row.up)
    return dataclasses.replace(
        settings,
        out=out,
        place=place,
        max_splats=row.max_splats if settings.max_splats is None else settings.max_splats,
        sh_degree=row.sh_degree if settings.sh_degree is None else settings.sh_degree,
    )


class Expected(NamedTuple):
    """What is known before a file is written."""

    megabytes: float
    decibels: str
    """PSNR of its pictures against those of the scene, measured on trained scenes."""

    def line(self, count: int, degree: int, *, less: bool = False) -> str:
        """What a person is told; ``less`` where something was left out of the scene before."""
        after = ", after what was left out" if less else ""
        return (
            f"{count:,} Gaussians of degree {degree}: about {self.megabytes:.1f} MB, "
            f"{self.decibels}{after}"
        )


_QUALITY = {
    ".ply": "exact",
    ".compressed.ply": "typically 40 to 48 dB of the scene's own pictures",
    ".splat": "typically 25 to 35 dB, no view-dependent colour",
    ".spz": "typically 37 to 45 dB of the scene's own pictures",
    ".sog": "typically 38 to 50 dB of the scene's own pictures",
}


def expected(suffix: str, count: int, degree: int) -> Expected:
    """Size and quality of a file of ``count`` Gaussians, from what such files weigh."""
    k = (degree + 1) ** 2
    rest = 3 * (k - 1)
    each = {
        ".ply": 56 + 12 * k,
        ".compressed.ply": 16.3 + rest,
        ".splat": 32,
        ".spz": 16 + 0.25 * rest,
        ".sog": 16 + 0.9 * rest * min(1, 65_536 / max(count, 1)),
        ".splats.glb": 60 + 12 * k,
    }.get(suffix, 56 + 12 * k)
    return Expected(count * each / 1e6, _QUALITY.get(suffix, "exact up to rounding"))
