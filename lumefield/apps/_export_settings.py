"""What can be asked of ``lumefield export``, and what of it cannot be."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import tyro

from lumefield.apps._export_place import Place, check_place
from lumefield.apps._export_presets import Name
from lumefield.apps._field_file import FIELD_FILE
from lumefield.apps._runtime import writable
from lumefield.errors import InputError, RunError

Kind = Literal["splats", "mesh", "points"]


class Format(NamedTuple):
    """One file format."""

    kinds: tuple[Kind, ...]
    """What it can hold; the first is meant where the command line does not say."""
    text: str


FORMATS: dict[str, Format] = {
    ".ply": Format(("splats", "mesh"), "3DGS PLY, exact; with --mesh a PLY mesh"),
    ".compressed.ply": Format(("splats",), "PlayCanvas compressed PLY, a quarter of a PLY"),
    ".splat": Format(("splats",), "8 bits a value, colours do not change with the view"),
    ".spz": Format(("splats",), "compressed"),
    ".sog": Format(("splats",), "compressed, for PlayCanvas and Spark"),
    ".splats.glb": Format(("splats",), "glTF 2.0 with KHR_gaussian_splatting, exact"),
    ".usdz": Format(
        ("splats", "mesh"),
        "OpenUSD ParticleField3DGaussianSplat, exact; with --mesh a textured mesh; needs usd-core",
    ),
    ".usdc": Format(("splats",), "the same, not packed"),
    ".usda": Format(("splats",), "the same, as text"),
    ".points.ply": Format(("points",), "point cloud of what can be seen, with colours"),
    ".las": Format(("points",), "the same for surveying programs; needs laspy"),
    ".laz": Format(("points",), "the same, compressed"),
    ".html": Format(("splats",), "one page with the viewer in it, VR included"),
    ".glb": Format(("mesh",), "glTF 2.0 mesh, unlit texture from the photos, y up"),
    ".obj": Format(("mesh",), "Wavefront mesh, texture in a .mtl and a .png beside it"),
}
"""Suffix of --out -> its format."""


_HERE = Place()


@dataclass(frozen=True)
class Export:
    """Write a scene for viewers: as Gaussians or as a mesh."""

    scene: tyro.conf.Positional[Path]
    """Folder of a run, or a splat file (.ply .splat .ksplat .spz .sog .glb .usdz .pt .ckpt)."""
    out: Path
    """File to write; its suffix is the format: .ply .compressed.ply .splat .spz .sog .splats.glb
    .usdz (Gaussians) .html (page with its own viewer) .glb .obj (mesh) .points.ply .las .laz (point
    cloud)."""
    format: str | None = None
    """Format where the suffix of --out is not it: one of those, without the first point."""
    preset: Name | None = None
    """What a place opens well: format, number of Gaussians, harmonics and up."""
    mesh: bool = False
    """A mesh, where the suffix could mean either (.ply)."""
    from_: Annotated[Literal["depth", "density"], tyro.conf.arg(name="from")] = "depth"
    """Mesh of the depth that is seen, or of the density of a radiance field."""
    max_splats: int | None = None
    """Most Gaussians: neighbours that look alike are melted until so few are left; baked from a
    radiance field, from the size of its photos when not given."""
    sh_degree: Literal[0, 1, 2, 3] | None = None
    """Degree of the view-dependent colours; what the scene has, at most 3, when not given."""
    place: Annotated[Place, tyro.conf.arg(name="")] = _HERE
    spz_version: Literal[3, 4] = 3
    """4 is smaller, and newer than many viewers."""
    verify: bool = False
    """Read the file back, draw the held-out views from it and compare with the scene's own."""
    steps: int = 4_000
    """Steps of refining baked Gaussians against the field's own pictures."""
    faces: int | None = None
    """Most triangles of the mesh."""
    resolution: int = 256
    """Cells of the mesh's grid along its longest side."""
    texture: int | None = None
    """Texels along a side of the mesh's picture, made from the photos (.glb .obj .usdz); 2048 when
    not given, 0 colours the vertices instead."""
    seed: int = 0
    """Same seed, same machine, same file."""
    threads: int | None = None
    """Threads to use; all cores when not given."""


_SPLATTING = (
    *("max_splats", "sh_degree", "steps"),
    *("preset", "place", "spz_version", "verify"),
)
_BAKING = ("steps", "from_")
_MESHING = ("from_", "faces", "resolution", "texture")
_RANGES = {
    "max_splats": (100, 20_000_000),
    "steps": (0, 1_000_000),
    "faces": (100, 50_000_000),
    "resolution": (16, 1024),
    "texture": (0, 8192),
    "seed": (0, 2**32 - 1),
}
"""Flag -> least and most."""


def check(settings: Export) -> Kind:
    """What is to be written; refuses what cannot be before anything heavy is loaded.

    Raises:
        InputError: If a number is out of range, flags do not go together, --out cannot be written,
            or there is no scene.
        RunError: If the run holds no scene that can be exported.
    """
    kind = _kind(settings)
    check_place(settings.place)
    for name, (low, high) in _RANGES.items():
        value = getattr(settings, name)
        if value is not None and not low <= value <= high:
            raise InputError(f"{_flag(name)} {value}, expected {low} to {high}")
    field = _holds_field(settings.scene)
    for name in {"splats": _MESHING, "mesh": _SPLATTING}.get(kind, (*_MESHING, *_SPLATTING)):
        if getattr(settings, name) != getattr(Export, name):
            raise InputError(f"{_flag(name)}: does nothing for {settings.out.name}; leave it out")
    for name in () if field else _BAKING:
        if getattr(settings, name) != getattr(Export, name):
            raise InputError(
                f"{_flag(name)}: is for radiance fields, and {settings.scene} holds Gaussians; "
                "leave it out"
            )
    if suffix_of(settings) == ".html" and settings.verify:
        raise InputError("--verify: a page cannot be read back; export a .spz and verify that")
    if suffix_of(settings) != ".spz" and settings.spz_version != Export.spz_version:
        raise InputError(f"--spz-version: does nothing for {settings.out.name}; leave it out")
    if kind == "mesh":
        texture_of(settings)
    _check_out(settings)
    return kind


def texture_of(settings: Export) -> int:
    """Texels along a side of the texture of a mesh; 0 where its vertices are coloured.

    Raises:
        InputError: If the format holds none, or holds nothing else.
    """
    suffix, size = suffix_of(settings), settings.texture
    if size is None:
        return 0 if suffix == ".ply" else 2048
    if size and suffix == ".ply":
        raise InputError(f"--texture {size}: a .ply mesh has none, expected .glb, .obj or .usdz")
    if 0 < size < 64 or (size == 0 and suffix == ".usdz"):
        least = "64" if suffix == ".usdz" else "0 or 64"
        raise InputError(f"--texture {size}, expected {least} to {_RANGES['texture'][1]}")
    return size


def suffix_of(settings: Export) -> str:
    """The row of ``FORMATS`` that is meant: by --format, else the longest end of --out that fits.

    Raises:
        InputError: If there is none, or the two disagree.
    """
    out = settings.out
    fitting = [suffix for suffix in FORMATS if out.name.lower().endswith(suffix)]
    known = " ".join(FORMATS)
    if settings.format is None:
        if not fitting:
            raise InputError(f"--out {out}: suffix {out.suffix!r}, expected one of {known}")
        return max(fitting, key=len)
    suffix = "." + settings.format.lower().lstrip(".")
    if suffix not in FORMATS:
        raise InputError(f"--format {settings.format}: expected one of {known}, without the point")
    if fitting and not any(suffix.endswith(end) for end in fitting):
        raise InputError(
            f"--format {settings.format}: --out {out} has another suffix; leave one of them out"
        )
    return suffix


def _kind(settings: Export) -> Kind:
    suffix = suffix_of(settings)
    kinds = FORMATS[suffix].kinds
    if not settings.mesh:
        return kinds[0]
    if "mesh" not in kinds:
        fit = " ".join(s for s, f in FORMATS.items() if "mesh" in f.kinds)
        raise InputError(f"--out {settings.out}: {suffix} holds no mesh, expected one of {fit}")
    return "mesh"


def _holds_field(scene: Path) -> bool:
    """Whether the scene is a radiance field rather than Gaussians."""
    from lumefield.apps._scene_io import read_json
    from lumefield.codecs.formats import SPLAT_SUFFIXES

    if not scene.exists():
        raise InputError(f"{scene}: no such file or folder; give a run folder or a splat file")
    if not scene.is_dir():
        if scene.suffix.lower() in SPLAT_SUFFIXES:
            return False
        known = " ".join(SPLAT_SUFFIXES)
        raise InputError(f"{scene}: not a scene; expected a run folder or one of {known}")
    if (scene / "scene.ply").is_file():
        return False
    if (scene / FIELD_FILE).is_file():
        if read_json(scene / "config.json").get("command") == "fit":
            raise RunError(
                f"{scene}: holds a fitted signal, expected a scene; `lumefield render` writes it"
            )
        return True
    raise RunError(
        f"{scene}: holds neither scene.ply nor {FIELD_FILE}; expected a finished run of train"
    )


def _check_out(settings: Export) -> None:
    out = settings.out
    if out.is_dir():
        raise InputError(f"--out {out}: is a folder, expected a file; give a name in it")
    if settings.scene.is_file() and out.exists() and out.samefile(settings.scene):
        raise InputError(f"--out {out}: is the scene itself; give another name")
    place = out.parent
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir() or not writable(place):
        raise InputError(f"--out {out}: {place} cannot be written; choose another folder")
    protected = settings.scene / "scene.ply" if settings.scene.is_dir() else None
    if protected and protected.exists() and out.exists() and out.samefile(protected):
        raise InputError(f"--out {out}: is the scene of the run itself; give another name")


def _flag(name: str) -> str:
    return "--" + name.strip("_").replace("_", "-")
