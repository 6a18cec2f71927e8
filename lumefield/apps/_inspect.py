"""``lumefield inspect``: what a splat file, a run or a .lume file holds, without jax."""

import dataclasses
import json as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from lumefield.apps._field_file import FIELD_FILE, read_field, surface_of
from lumefield.apps._inspect_lume import describe_lume, lume_facts
from lumefield.errors import InputError, RunError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lumefield.codecs.formats import Splats

_LEFT_OUT = "left out"
"""How the note of a reader begins that dropped Gaussians with NaN or infinity."""


@dataclasses.dataclass(frozen=True)
class Inspect:
    """Show what a splat file or a run holds."""

    scene: tyro.conf.Positional[Path]
    """Splat file (.ply .splat .ksplat .spz .sog .glb .usdz .pt .ckpt), .lume file, or the folder
    of a run."""
    json: bool = False
    """Print JSON instead of text."""


def inspect(settings: Inspect) -> None:
    """Print what :func:`facts` finds.

    Raises:
        InputError: If the path does not exist or is not a splat file.
        RunError: If the folder is not a run, or its files cannot be read.
        FormatError: If the splat file is damaged.
    """
    found = facts(settings.scene)
    print(json_text.dumps(found, indent=2) if settings.json else describe(found))


def facts(scene: Path) -> dict[str, Any]:
    """Everything ``inspect`` tells, as JSON-able values; lengths in world units.

    Raises:
        InputError: If the path does not exist or is not a splat file.
        RunError: If the folder is not a run, or its files cannot be read.
        FormatError: If the splat file is damaged.
    """
    from lumefield.codecs.formats import SPLAT_SUFFIXES, load_splats

    if not scene.exists():
        raise InputError(f"{scene}: no such file or folder; give a splat file or a run")
    run = _run_facts(scene) if scene.is_dir() else {}
    if scene.is_dir() and (scene / FIELD_FILE).is_file():
        file = scene / FIELD_FILE
        return {**_field_facts(file, *read_field(file)), **run}
    file = scene / "scene.ply" if scene.is_dir() else scene
    if file.suffix.lower() == ".lume":
        return _lume_facts(file)
    if file.suffix.lower() not in SPLAT_SUFFIXES:
        raise InputError(f"{file}: not a splat file; expected one of {' '.join(SPLAT_SUFFIXES)}")
    return {
        "file": str(file),
        "bytes": file.stat().st_size,
        **_splat_facts(load_splats(file)),
        **run,
    }


def describe(found: dict[str, Any]) -> str:
    """The text form of :func:`facts`."""
    if "content" in found:
        return describe_lume(found)
    if "parameters" in found:
        return _describe_field(found)
    rows = [
        ("file", f"{found['file']} ({found['bytes'] / 1e6:.1f} MB)"),
        ("format", found["source"]),
        ("gaussians", f"{found['gaussians']:,}, {found['visible']:,} of them visible"),
        ("colour", f"spherical harmonics of degree {found['degree']}"),
        ("antialiased", "yes (2D Mip filter)" if found["antialiased"] else "no"),
    ]
    if found["gaussians"]:
        rows += [
            ("bounds", _box(found["bounds"])),
            ("middle 98 %", _box(found["middle"])),
            ("size", f"{found['size_median']:.4g} (median largest standard deviation)"),
            ("opacity", f"{found['opacity_median']:.3f} (median)"),
        ]
    if found["up"]:
        rows.append(("up", " ".join(f"{v:.4g}" for v in found["up"])))
    rows += [("warning", text) for text in found["problems"]]
    rows += [("comment", text) for text in found["comments"]]
    rows += [(name, str(value)) for name, value in found.get("run", {}).items()]
    return "\n".join(f"{name:<12} {text}" for name, text in rows)


def _describe_field(found: dict[str, Any]) -> str:
    rows = [
        ("file", f"{found['file']} ({found['bytes'] / 1e6:.1f} MB)"),
        ("field", f"{found['method']}, {found['parameters']:,} parameters"),
    ]
    if found["surface_points"]:
        rows.append(("middle 98 %", _box(found["middle"])))
    if found["not_finite"]:
        rows.append(("warning", f"{found['not_finite']:,} parameters are NaN or infinite"))
    rows += [(name, str(value)) for name, value in found.get("run", {}).items()]
    return "\n".join(f"{name:<12} {text}" for name, text in rows)


def _lume_facts(file: Path) -> dict[str, Any]:
    from lumefield.codecs.families import decode_field
    from lumefield.codecs.neural import Container
    from lumefield.codecs.scene import decode_scene

    data = file.read_bytes()
    holds = Container.holds(data)
    if holds == "field":
        return _field_facts(file, *decode_field(data, str(file)))
    if holds == "splats":
        splats, _ = decode_scene(data, source=str(file))
        return {"file": str(file), "bytes": len(data), **_splat_facts(splats)}
    return lume_facts(file)


def _field_facts(
    file: Path, record: dict[str, Any], arrays: dict[str, "NDArray[Any]"]
) -> dict[str, Any]:
    import numpy as np

    points, _ = surface_of(arrays, file)
    leaves = [v for k, v in arrays.items() if k.startswith("scene.field")]
    found: dict[str, Any] = {
        "file": str(file),
        "bytes": file.stat().st_size,
        "method": str(record.get("recipe", {}).get("method")),
        "parameters": sum(v.size for v in leaves),
        "not_finite": sum(int((~np.isfinite(v)).sum()) for v in leaves),
        "surface_points": len(points),
    }
    if len(points):
        found["middle"] = np.quantile(points, [0.01, 0.99], axis=0).tolist()
    return found


def _splat_facts(splats: "Splats") -> dict[str, Any]:
    import numpy as np

    finite = np.isfinite(splats.means).all(1) & np.isfinite(splats.log_scales).all(1)
    finite &= ~np.isnan(splats.logit_opacities)  # infinite logits are opacities 0 and 1
    means = splats.means[finite].astype(np.float64)
    opacity = 1 / (1 + np.exp(-np.clip(splats.logit_opacities[finite].astype(np.float64), -80, 80)))
    found: dict[str, Any] = {
        "gaussians": len(splats.means),
        "visible": int((opacity >= 1 / 255).sum()),
        "not_finite": int((~finite).sum()),
        "degree": round(splats.sh.shape[1] ** 0.5) - 1,
        "antialiased": splats.antialiased,
        "up": None if splats.up is None else list(splats.up),
        "source": splats.source,
        "problems": _problems(splats),
        "comments": [c for c in splats.comments if not c.startswith(_LEFT_OUT)],
    }
    if len(means):
        size = np.exp(splats.log_scales[finite].astype(np.float64).max(1))
        found["bounds"] = np.stack([means.min(0), means.max(0)]).tolist()
        found["middle"] = np.quantile(means, [0.01, 0.99], axis=0).tolist()
        found["size_median"] = float(np.median(size))
        found["opacity_median"] = float(np.median(opacity))
    return found


def _problems(splats: "Splats") -> list[str]:
    """What a person should know before using the file."""
    import numpy as np

    found = [c for c in splats.comments if c.startswith(_LEFT_OUT)]
    n = max(len(splats.means), 1)
    size = splats.log_scales.astype(np.float64)
    length = np.linalg.norm(splats.quats_wxyz.astype(np.float64), axis=1)
    checks = (
        (length < 1e-6, "have no rotation (a quaternion of length 0)"),
        ((length > 1e-6) & (np.abs(length - 1) > 0.05), "have quaternions far from unit length"),
        (size.max(1, initial=-np.inf) - size.min(1, initial=np.inf) > 7, "are needles or sheets"),
        (splats.logit_opacities < -6, "are practically invisible"),
    )
    for wrong, text in checks:
        count = int(wrong.sum())
        if count > 0.01 * n or (count and "rotation" in text):
            found.append(f"{count:,} Gaussians {text}")
    return found


def _run_facts(run: Path) -> dict[str, Any]:
    metrics = run / "metrics.json"
    if not (run / "scene.ply").is_file() and not (run / FIELD_FILE).is_file():
        raise RunError(f"{run}: holds no scene.ply; expected the folder of a finished run")
    if not metrics.is_file():
        return {}
    try:
        values = json_text.loads(metrics.read_text("utf-8"))
        if not isinstance(values, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise RunError(f"{metrics}: not valid JSON ({error}); run `lumefield evaluate`") from None
    wanted = ("method", "steps", "seconds", "psnr", "ssim", "backend")
    return {"run": {name: values[name] for name in wanted if name in values}}


def _box(corners: list[list[float]]) -> str:
    low, high = (" ".join(f"{v:.4g}" for v in corner) for corner in corners)
    return f"({low}) to ({high})"
