"""OpenUSD's ParticleField3DGaussianSplat, in .usdc, .usda, .usd and .usdz (``usd-core`` 26.3+).

Attributes of the prim: positions, orientations, scales (standard deviations), opacities (0 to 1),
radiance:sphericalHarmonicsDegree, and radiance:sphericalHarmonicsCoefficients, for each Gaussian
its (degree + 1)^2 colours in the order and signs of 3DGS files. Each also has a half-precision
variant with an ``h`` at its end. The stage is y up and in metres, so the PLY's right, down, forward
becomes right, up, back by half a turn about x, as in SPZ.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield import __version__
from lumefield.codecs.formats._files import read_bytes, replacing, shown
from lumefield.codecs.formats._splat_rows import (
    SH_C0,
    checked,
    cleaned,
    half_turned,
    logits_of,
    opacities,
    scales_of,
    unit_quaternions,
)
from lumefield.codecs.formats._types import Splats
from lumefield.errors import FormatError, InputError

_TYPE = "ParticleField3DGaussianSplat"
_SH = "radiance:sphericalHarmonics"
_MAGIC = {b"PXR-USDC": ".usdc", b"#usda 1.": ".usda", b"PK\x03\x04": ".usdz"}
_Z_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
"""y up from z up."""


def load_usd(path: Path) -> Splats:
    """Read the Gaussians of a USD stage, placed as its prims say, into the PLY's frame.

    Layers that name other files are refused: a splat file holds everything itself.

    Raises:
        InputError: If the file cannot be opened, or ``usd-core`` is not installed.
        FormatError: If it is no USD file, or holds no Gaussians, or is damaged.
    """
    start = read_bytes(path)[:8]
    kind = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)
    if kind is None:
        raise FormatError(f"{path}: does not begin as USD does; expected .usdc, .usda or .usdz")
    pxr = _pxr(path)
    try:
        stage = _opened(pxr, path, kind)
        found = [prim for prim in stage.Traverse() if prim.GetTypeName() == _TYPE]
        parts = [_part(pxr, prim, path) for prim in found]
        z_up = pxr.UsdGeom.GetStageUpAxis(stage) == "Z"
    except (RuntimeError, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise FormatError(
            f"{path}: USD cannot be read ({_line(error)}); it is damaged, copy it again"
        ) from error
    if not parts:
        raise FormatError(f"{path}: USD stage without a {_TYPE}; expected Gaussians")
    k = min(part.sh.shape[1] for part in parts)
    names = ("means", "quats_wxyz", "log_scales", "logit_opacities")
    arrays: dict[str, Any] = {n: np.concatenate([getattr(p, n) for p in parts]) for n in names}
    sh = np.concatenate([part.sh[:, :k] for part in parts])
    frame = "z up" if z_up else "right up back"
    joined = Splats(**arrays, sh=sh, source=f"USD {_TYPE} ({kind}), stored {frame}")
    return cleaned(half_turned(joined.moved(_Z_UP) if z_up else joined))


def save_usd(splats: Splats, path: Path) -> None:
    """Write a USD stage; .usdz is a package of one .usdc.

    Raises:
        InputError: If there is no Gaussian, ``usd-core`` is missing, or the file cannot be written.
        ValueError: If the arrays do not fit one another.
    """
    splats = half_turned(checked(splats))
    if not len(splats.means):
        raise InputError(f"cannot write {path}: no Gaussians, expected at least one in USD")
    pxr = _pxr(path)
    suffix = path.suffix.lower()
    with tempfile.TemporaryDirectory(prefix="lumefield_usd_") as folder:
        inner = Path(folder) / ("scene.usda" if suffix == ".usda" else "scene.usdc")
        stage = pxr.Usd.Stage.CreateNew(str(inner))
        _fill(pxr, stage, splats)
        stage.GetRootLayer().Save()
        del stage
        if suffix == ".usdz":
            packed = Path(folder) / "scene.usdz"
            if not pxr.UsdUtils.CreateNewUsdzPackage(pxr.Sdf.AssetPath(str(inner)), str(packed)):
                raise InputError(f"cannot write {path}: USD could not make the package")
            inner = packed
        with replacing(path) as file:
            file.write(inner.read_bytes())


def _pxr(path: Path) -> Any:  # noqa: ANN401
    try:
        import pxr
        from pxr import Gf, Sdf, Tf, Usd, UsdGeom, UsdUtils, UsdVol, Vt

        del Gf, Sdf, Tf, Usd, UsdGeom, UsdUtils, Vt
    except ImportError as error:
        raise InputError(
            f"{path}: USD needs usd-core ({error}); run `pip install lumefield[usd]`"
        ) from error
    if not hasattr(UsdVol, _TYPE):
        raise InputError(f"{path}: usd-core has no {_TYPE}, expected 26.3 or later; upgrade it")
    return pxr


def _opened(pxr: Any, path: Path, kind: str) -> Any:  # noqa: ANN401
    """The stage, from a file whose suffix is what its first bytes say."""
    layer = pxr.Sdf.Layer.OpenAsAnonymous(str(path)) if kind != ".usdz" else None
    if layer is not None:
        if layer.GetCompositionAssetDependencies():
            raise ValueError("the layer names other files")
        return pxr.Usd.Stage.Open(layer, load=pxr.Usd.Stage.LoadNone)
    if kind != ".usdz":
        raise ValueError("the layer cannot be opened")
    return pxr.Usd.Stage.Open(str(path), load=pxr.Usd.Stage.LoadNone)


def _part(pxr: Any, prim: Any, path: Path) -> Splats:  # noqa: ANN401
    def column(name: str, width: int) -> NDArray[np.float32]:
        for attribute in (prim.GetAttribute(name), prim.GetAttribute(name + "h")):
            value = attribute.Get() if attribute and attribute.HasAuthoredValue() else None
            if value is not None:
                return np.asarray(value, np.float32).reshape(-1, width)
        return np.zeros((0, width), np.float32)

    means, scales = column("positions", 3), column("scales", 3)
    quats, opacity = column("orientations", 4), column("opacities", 1)
    degree = int(prim.GetAttribute(f"{_SH}Degree").Get() or 0)
    n, k = len(means), (degree + 1) ** 2
    sh = column(f"{_SH}Coefficients", 3)
    shapes = (len(scales), len(quats), len(opacity), len(sh))
    if shapes != (n, n, n, n * k) or not 0 <= degree <= 4:
        raise FormatError(
            f"{path}: USD attributes of {shapes} rows for {n} Gaussians of degree {degree}, "
            f"expected {(n, n, n, n * k)}; the file is damaged"
        )
    splats = Splats(
        means=means,
        quats_wxyz=np.roll(quats, 1, axis=1),  # imaginary part first in memory
        log_scales=scales_of(scales),
        logit_opacities=logits_of(opacity[:, 0]),
        sh=sh.reshape(n, k, 3),
    )
    world = np.array(pxr.UsdGeom.Xformable(prim).ComputeLocalToWorldTransform(0)).T
    if np.array_equal(world, np.eye(4)):
        return splats
    scale = float(np.cbrt(np.linalg.det(world[:3, :3])))
    if not scale > 1e-12:
        raise FormatError(f"{path}: USD mirrors its Gaussians, expected a rotation and a scale")
    return splats.moved(world[:3, :3] / scale, world[:3, 3], scale)


def _fill(pxr: Any, stage: Any, splats: Splats) -> None:  # noqa: ANN401
    geom, vt = pxr.UsdGeom, pxr.Vt
    geom.SetStageUpAxis(stage, geom.Tokens.y)
    geom.SetStageMetersPerUnit(stage, 1.0)
    stage.GetRootLayer().comment = f"Generated by lumefield {__version__}"
    root = geom.Xform.Define(stage, "/World")
    stage.SetDefaultPrim(root.GetPrim())
    prim = pxr.UsdVol.ParticleField3DGaussianSplat.Define(stage, "/World/Splats").GetPrim()
    scales = np.exp(np.clip(splats.log_scales.astype(np.float64), -69, 88))
    reach = 3 * scales.max(1)[:, None]
    low, high = (splats.means - reach).min(0), (splats.means + reach).max(0)
    quats = np.roll(unit_quaternions(splats.quats_wxyz), -1, axis=1)
    k = splats.sh.shape[1]
    values = {
        "positions": vt.Vec3fArray.FromNumpy(_floats(splats.means)),
        "orientations": vt.QuatfArray.FromNumpy(_floats(quats)),
        "scales": vt.Vec3fArray.FromNumpy(_floats(scales)),
        "opacities": vt.FloatArray.FromNumpy(_floats(opacities(splats.logit_opacities))),
        f"{_SH}Degree": round(k**0.5) - 1,
        f"{_SH}Coefficients": vt.Vec3fArray.FromNumpy(_floats(splats.sh.reshape(-1, 3))),
        "extent": vt.Vec3fArray.FromNumpy(_floats(np.stack([low, high]))),
    }
    for name, value in values.items():
        prim.GetAttribute(name).Set(value)
    harmonics = geom.Primvar(prim.GetAttribute(f"{_SH}Coefficients"))
    harmonics.SetElementSize(k)
    harmonics.SetInterpolation(geom.Tokens.vertex)
    display = geom.PrimvarsAPI(prim).CreatePrimvar(
        "displayColor", pxr.Sdf.ValueTypeNames.Color3fArray, geom.Tokens.vertex
    )
    colour = np.clip(0.5 + SH_C0 * splats.sh[:, 0], 0, 1)
    display.Set(vt.Vec3fArray.FromNumpy(_floats(colour)))


def _floats(values: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(values, np.float32)


def _line(error: Exception) -> str:
    try:
        return shown(" ".join(str(error).split())) or type(error).__name__
    except UnicodeDecodeError:  # USD quotes what it found in the file
        return type(error).__name__
