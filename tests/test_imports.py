"""The rooms import one way only, and the light ones stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lumefield"
RANK = {"errors": -1, "native": 0, "fields": 1, "render": 1, "fit": 2, "codecs": 3, "apps": 4}
HEAVY = ("jax", "jaxlib", "flax", "optax", "torch", "open3d", "scipy", "pycolmap", "trimesh")
COMMANDS = (
    "_train",
    "_fit",
    "_evaluate",
    "_render",
    "_view",
    "_export",
    "_demo",
    "_inspect",
    "_doctor",
    "_compress",
    "_decompress",
    "_quality",
)


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    whole = node.module == "lumefield"
    return [f"lumefield.{a.name}" for a in node.names] if whole else [str(node.module)]


def faults(source: str, room: str) -> list[str]:
    """What is wrong with the imports of a file of ``room``."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        for name in imported(node):
            package, other, *inner = [*name.split("."), ""]
            if package != "lumefield" or other in (room, "__version__"):
                continue
            if RANK.get(other, 9) >= RANK[room]:
                found.append(f"{room} imports {name}")
            if any(part.startswith("_") for part in inner):
                found.append(f"reaches into {name}")
    return found


def loaded(code: str, *names: str) -> list[str]:
    """Which of the modules ``names`` are loaded after running ``code`` in a fresh interpreter."""
    show = f"import sys; print(*[m for m in {names!r} if m in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-c", f"{code}\n{show}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=PACKAGE.parent,
    )
    return out.stdout.split()


def test_rooms_import_only_downwards():
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room != "__init__":
            assert faults(path.read_text("utf-8"), room) == [], path


@pytest.mark.parametrize(
    ("source", "room"),
    [
        ("from lumefield.fields import Gaussians", "render"),
        ("import lumefield.apps", "codecs"),
        ("from lumefield import fit", "native"),
        ("import lumefield", "render"),
        ("from lumefield.render._xla import composite", "fit"),
    ],
)
def test_the_direction_test_sees_a_wrong_import(source: str, room: str):
    assert faults(source, room) != []


def test_every_file_below_a_room_is_private():
    public = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if not path.name.startswith("_")
    }
    assert public <= {"errors.py", "fit.py"}


def test_the_command_line_loads_no_heavy_module():
    assert loaded("import lumefield.apps._cli", *HEAVY, "rich", "PIL") == []


@pytest.mark.parametrize("command", COMMANDS)
def test_the_settings_of_a_command_load_no_jax(command: str):
    assert loaded(f"import lumefield.apps.{command}", "jax", "flax", "torch", "pycolmap") == []


def test_formats_load_no_jax():
    code = "import lumefield.codecs.formats"
    assert loaded(code, "jax", "jaxlib", "flax", "torch", "open3d", "pycolmap") == []


def test_no_room_loads_torch_gsplat_or_nerfstudio():
    code = (
        "import lumefield.codecs, lumefield.codecs.formats, lumefield.fields\n"
        "import lumefield.render, lumefield.fit, lumefield.native"
    )
    assert loaded(code, "torch", "gsplat", "nerfstudio", "open3d", "warp") == []
