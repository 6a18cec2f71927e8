"""Textured meshes as USDZ, for Quick Look and others: the optional extra ``[usd]``."""

import importlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lumefield.apps._mesh_texture import Textured
from lumefield.errors import InputError


def usdz(made: Textured, up: NDArray[np.float64], picture: bytes) -> bytes:
    """The bytes of a USDZ package: the mesh, and its picture as light that it gives off.

    Args:
        made: The mesh, world units.
        up: (3,) up of the world; the nearest axis is turned to y.
        picture: Its picture as PNG.

    Raises:
        InputError: If usd-core is not installed.
    """
    try:
        pxr: Any = importlib.import_module("pxr")
        for name in ("Gf", "Sdf", "Usd", "UsdGeom", "UsdShade", "UsdUtils", "Vt"):
            importlib.import_module(f"pxr.{name}")
    except ImportError:
        raise InputError(
            "a .usdz mesh needs the package usd-core; pip install lumefield[usd], or export a .glb"
        ) from None
    from lumefield.apps._mesh_files import upright

    geom, vt, types = pxr.UsdGeom, pxr.Vt, pxr.Sdf.ValueTypeNames
    x, y, z, w = upright(up)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "photos.png").write_bytes(picture)
        stage = pxr.Usd.Stage.CreateNew(f"{folder}/scene.usdc")
        geom.SetStageUpAxis(stage, geom.Tokens.y)
        geom.SetStageMetersPerUnit(stage, 1.0)
        root = geom.Xform.Define(stage, "/scene")
        stage.SetDefaultPrim(root.GetPrim())
        root.AddOrientOp().Set(pxr.Gf.Quatf(w, x, y, z))
        mesh = geom.Mesh.Define(stage, "/scene/mesh")
        mesh.CreateSubdivisionSchemeAttr("none")
        mesh.CreateDoubleSidedAttr(True)
        points = made.mesh.vertices.astype(np.float32)
        mesh.CreatePointsAttr(vt.Vec3fArray.FromNumpy(points))
        mesh.CreateExtentAttr(vt.Vec3fArray.FromNumpy(np.stack([points.min(0), points.max(0)])))
        faces = made.mesh.faces.astype(np.int32)
        mesh.CreateFaceVertexCountsAttr(vt.IntArray.FromNumpy(np.full(len(faces), 3, np.int32)))
        mesh.CreateFaceVertexIndicesAttr(vt.IntArray.FromNumpy(faces.reshape(-1)))
        uv = np.stack([made.uv[:, 0], 1 - made.uv[:, 1]], 1).astype(np.float32)
        st = geom.PrimvarsAPI(mesh).CreatePrimvar("st", types.TexCoord2fArray, geom.Tokens.vertex)
        st.Set(vt.Vec2fArray.FromNumpy(uv))
        _material(stage, mesh, types, pxr.UsdShade)
        stage.GetRootLayer().Save()
        package = f"{folder}/scene.usdz"
        pxr.UsdUtils.CreateNewUsdzPackage(f"{folder}/scene.usdc", package)
        return Path(package).read_bytes()


def _material(stage: Any, mesh: Any, types: Any, shade: Any) -> None:  # noqa: ANN401
    material = shade.Material.Define(stage, "/scene/material")
    reader = shade.Shader.Define(stage, "/scene/material/st")
    reader.CreateIdAttr("UsdPrimvarReader_float2")
    reader.CreateInput("varname", types.String).Set("st")
    texture = shade.Shader.Define(stage, "/scene/material/photos")
    texture.CreateIdAttr("UsdUVTexture")
    texture.CreateInput("file", types.Asset).Set("photos.png")
    texture.CreateInput("sourceColorSpace", types.Token).Set("sRGB")
    texture.CreateInput("wrapS", types.Token).Set("clamp")
    texture.CreateInput("wrapT", types.Token).Set("clamp")
    texture.CreateInput("st", types.Float2).ConnectToSource(
        reader.CreateOutput("result", types.Float2)
    )
    surface = shade.Shader.Define(stage, "/scene/material/surface")
    surface.CreateIdAttr("UsdPreviewSurface")
    surface.CreateInput("diffuseColor", types.Color3f).Set((0.0, 0.0, 0.0))
    surface.CreateInput("roughness", types.Float).Set(1.0)
    surface.CreateInput("emissiveColor", types.Color3f).ConnectToSource(
        texture.CreateOutput("rgb", types.Float3)
    )
    material.CreateSurfaceOutput().ConnectToSource(surface.CreateOutput("surface", types.Token))
    shade.MaterialBindingAPI.Apply(mesh.GetPrim()).Bind(material)
