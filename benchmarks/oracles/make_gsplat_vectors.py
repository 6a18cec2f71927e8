"""Write ``tests/data/gsplat_*.npz``: numbers of gsplat's torch reference, to compare ours with.

Run by hand, in an environment of its own; nothing in the package or the tests imports this file::

    uv venv -p 3.11 gsplat-env
    uv pip install -p gsplat-env/bin/python torch==2.15.0 gsplat==1.5.3 numpy
    export CUDA_HOME=missing CUDA_VISIBLE_DEVICES=      # and keep nvcc off PATH
    gsplat-env/bin/python benchmarks/oracles/make_gsplat_vectors.py tests/data

gsplat computes projection, spherical harmonics, tile lists and compositing, and torch their
gradients, in float64 on the CPU. Two holes of gsplat's reference need a GPU and are filled here by
our own torch code: the list of (pixel, Gaussian) pairs, and nerfacc's two sums along rays.

Scenes are drawn so that no decision is close: no alpha lies within ``MARGIN`` of the 1/255 cut or
of the clamp, no ray ends early, depths differ. A float32 renderer therefore decides as gsplat did.
Conventions and contents are described in ``tests/data/README.md``.
"""

# torch and gsplat are not in the environment of the package
# pyright: reportMissingImports=false, reportUntypedFunctionDecorator=false

import argparse
import math
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

HEIGHT, WIDTH, TILE = 48, 64, 16
CUT, CLAMP, END = 1 / 255, 0.999, 1e-4  # gsplat 1.5.3
MARGIN = 1e-4
OPAQUE = np.array([[14.55, 11.45], [46.6, 12.5], [15.5, 36.4], [47.45, 35.5]])
Arrays = dict[str, np.ndarray]
Projected = tuple[Tensor, ...]  # radii, xy, depth, conics, opacities
Rendered = tuple[Tensor, Tensor, Projected]  # rgb and summed depth, alpha


# The two holes of gsplat's reference


def pair_alphas(means2d: Tensor, conics: Tensor, opacities: Tensor, pixels: Tensor) -> Tensor:
    """Unclamped alpha of every pixel (rows) and Gaussian (columns)."""
    d = pixels[:, None] + 0.5 - means2d
    a, b, c = conics.unbind(-1)
    return opacities * torch.exp(
        -0.5 * (a * d[..., 0] ** 2 + c * d[..., 1] ** 2) - b * d[..., 0] * d[..., 1]
    )


def pairs_of_tiles(
    start: int,
    end: int,
    transmittances: Tensor,
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    width: int,
    height: int,
    tile: int,
    offsets: Tensor,
    flat: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """``rasterize_to_indices_in_range`` for one image and lists short enough for one pass."""
    assert start == 0
    assert (transmittances == 1).all()
    firsts = offsets.flatten().tolist()
    lasts = [*firsts[1:], len(flat)]
    assert max(b - a for a, b in zip(firsts, lasts, strict=True)) <= end * tile * tile
    chosen, places = [], []
    for k, (first, last) in enumerate(zip(firsts, lasts, strict=True)):
        ids = flat[first:last].long()
        row, column = divmod(k, offsets.shape[-1])
        y = torch.arange(row * tile, min((row + 1) * tile, height)).repeat_interleave(tile)
        x = torch.arange(column * tile, (column + 1) * tile).repeat(len(y) // tile)
        x, y = x[x < width], y[x < width]
        alpha = pair_alphas(
            means2d[0, ids], conics[0, ids], opacities[0, ids], torch.stack([x, y], -1)
        ).clamp_max(CLAMP)
        alpha = torch.where(alpha >= CUT, alpha, 0.0)
        ended = (torch.cumprod(1 - alpha, 1) <= END).cummax(1).values
        pixel, rank = ((alpha > 0) & ~ended).nonzero(as_tuple=True)
        chosen.append(ids[rank])
        places.append((y * width + x)[pixel])
    image = torch.zeros(sum(map(len, chosen)), dtype=torch.long)
    return torch.cat(chosen), torch.cat(places), image


def ray_weights(alphas: Tensor, ray_indices: Tensor, n_rays: int) -> tuple[Tensor, Tensor]:
    """``nerfacc.render_weight_from_alpha``; the entries of a ray are contiguous."""
    counts = torch.bincount(ray_indices, minlength=n_rays)
    rays, which = torch.unique_consecutive(ray_indices, return_inverse=True)
    begins = torch.cat([torch.zeros(1, dtype=torch.long), counts[rays].cumsum(0)[:-1]])
    rank = torch.arange(len(alphas)) - begins[which]
    passed = torch.ones(len(rays), int(counts.max()) + 1)
    passed = passed.index_put((which, rank + 1), 1 - alphas).cumprod(1)[which, rank]
    return passed * alphas, passed


def ray_sums(weights: Tensor, values: Tensor | None, ray_indices: Tensor, n_rays: int) -> Tensor:
    """``nerfacc.accumulate_along_rays``."""
    terms = weights[:, None] if values is None else weights[:, None] * values
    return torch.zeros(n_rays, terms.shape[-1]).index_add(0, ray_indices, terms)


def load_reference() -> Any:
    """The torch reference of gsplat with the holes filled."""
    nerfacc: Any = types.ModuleType("nerfacc")
    nerfacc.render_weight_from_alpha = ray_weights
    nerfacc.accumulate_along_rays = ray_sums
    sys.modules["nerfacc"] = nerfacc
    import gsplat.cuda._torch_impl as reference
    import gsplat.cuda._wrapper as wrapper

    wrapper.rasterize_to_indices_in_range = pairs_of_tiles
    return reference


# Inputs: all but poses are exact in float32, so that both precisions see the same scene


def exact32(values: np.ndarray) -> np.ndarray:
    """Float64 values that float32 holds exactly."""
    return np.asarray(values, np.float32).astype(np.float64)


def random_pose(rng: np.random.Generator) -> np.ndarray:
    """A world_from_cam of shape (3, 4) with a general rotation."""
    rotation, upper = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation = rotation * np.sign(np.diag(upper))
    rotation[:, 2] *= np.sign(np.linalg.det(rotation))
    return np.concatenate([rotation, rng.normal(size=(3, 1))], 1)


def to_world(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Camera coordinates to world coordinates, rounded to float32."""
    return exact32(points @ pose[:, :3].T + pose[:, 3])


def view_matrix(pose: np.ndarray) -> Tensor:
    """The world-to-camera 4x4 of gsplat, by transposition rather than inversion."""
    view = np.eye(4)
    view[:3, :3] = pose[:, :3].T
    view[:3, 3] = -pose[:, :3].T @ pose[:, 3]
    return torch.tensor(view)


def leaves(arrays: Arrays, *names: str) -> dict[str, Tensor]:
    """The named arrays and the camera, as ``view`` and ``k``, that record gradients."""
    (fx, fy), (cx, cy) = arrays["focal"], arrays["centre"]
    inputs = {name: torch.tensor(arrays[name]) for name in names}
    inputs["view"] = view_matrix(arrays["world_from_cam"])
    inputs["k"] = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    return {name: value.requires_grad_() for name, value in inputs.items()}


def gradients(inputs: dict[str, Tensor]) -> Arrays:
    """``grad_`` + name for each leaf."""
    return {f"grad_{k}": np.asarray(v.grad) for k, v in inputs.items()}


# The three kinds of vectors


def camera_points(model: str, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Camera coordinates and sizes: far off axis, very near, behind, needles and large ones."""
    if model == "ortho":
        z = rng.uniform(-0.5, 6, n)
        points = np.stack([*rng.uniform(-1.2, 1.2, (2, n)) * [[1.0], [0.75]], z], -1)
        reach = np.full(n, 0.5)
    elif model == "fisheye":
        # gsplat adds 1e-7 to squared distances from the axis: stay where that is below 1e-6.
        theta, phi = rng.uniform(0.3, 1.45, n), rng.uniform(-np.pi, np.pi, n)
        reach = np.exp(rng.uniform(np.log(1.0), np.log(8.0), n))
        across = np.stack([np.cos(phi), np.sin(phi)]) * np.sin(theta)
        points = np.stack([*across, np.cos(theta)], -1) * reach[:, None]
        points[: n // 10, 2] *= -1
    else:
        z = np.exp(rng.uniform(np.log(0.03), np.log(8.0), n))
        z[: n // 10] = rng.uniform(-1, 0.02, n // 10)
        points = np.stack([rng.uniform(-1.1, 1.1, n) * z, rng.uniform(-0.9, 0.9, n) * z, z], -1)
        reach = np.abs(z)
    scales = np.exp(rng.uniform(np.log(0.004), np.log(0.3), (n, 3))) * reach[:, None]
    return points, scales


def projection_vectors(reference: Any, model: str, n: int, seed: int) -> Arrays:
    """Projection of ``n`` Gaussians and the gradient of a random linear functional of it."""
    rng = np.random.default_rng(seed)
    points, scales = camera_points(model, n, rng)
    pose = random_pose(rng)
    focal = exact32(np.array({"fisheye": [26.0, 24.5]}.get(model, [50.0, 46.5])))
    centre = exact32(np.array([WIDTH * 0.47, HEIGHT * 0.54]))
    arrays = {
        "means": to_world(points, pose),
        "quats": exact32(rng.normal(size=(n, 4))),
        "scales": exact32(scales),
        "world_from_cam": pose,
        "focal": focal,
        "centre": centre,
    }
    inputs = leaves(arrays, "means", "quats", "scales")
    covariances = reference._quat_scale_to_covar_preci(inputs["quats"], inputs["scales"], True)[0]
    radii, *outputs = reference._fully_fused_projection(
        inputs["means"],
        covariances,
        inputs["view"][None],
        inputs["k"][None],
        WIDTH,
        HEIGHT,
        calc_compensations=True,
        camera_model=model,
    )
    valid = (radii[0] > 0).all(-1)
    total = torch.zeros(())
    for name, value in zip(("xy", "depth", "conic", "compensation"), outputs, strict=True):
        weights = exact32(rng.normal(size=value[0].shape))
        arrays[f"weights_{name}"] = weights.astype(np.float32)
        arrays[name] = value[0].detach().numpy()
        total = total + (torch.tensor(weights)[valid] * value[0][valid]).sum()
    total.backward()
    front = arrays["depth"] > 0.01
    print(f"projection {model}: {int(valid.sum())} of {n} valid, {front.sum()} in front")
    return arrays | gradients(inputs) | {"valid": valid.numpy()}


def sh_vectors(reference: Any, seed: int, n: int = 48) -> Arrays:
    """Sums of spherical harmonics of degree 0 to 4 along ``n`` directions of any length."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(n, 3)) * np.exp(rng.normal(size=(n, 1)))
    directions[:6] = np.concatenate([np.eye(3), -np.eye(3)])
    arrays = {
        "directions": exact32(directions),
        "coefficients": exact32(rng.normal(size=(n, 25, 3))),
        "weights": rng.normal(size=(n, 3)).astype(np.float32),
    }
    for degree in range(5):
        inputs = {k: torch.tensor(arrays[k], requires_grad=True) for k in list(arrays)[:2]}
        values = reference._spherical_harmonics(degree, *inputs.values())
        (torch.tensor(arrays["weights"]) * values).sum().backward()
        arrays[f"values_{degree}"] = values.detach().numpy()
        grad = gradients(inputs)
        arrays[f"grad_directions_{degree}"] = (
            np.zeros((n, 3)) if degree == 0 else grad["grad_directions"]
        )
        # Gradients of coefficients are weights x basis: one channel holds all there is to know.
        arrays[f"grad_coefficients_{degree}"] = grad["grad_coefficients"][:, : (degree + 1) ** 2, 0]
    return arrays


def render(
    reference: Any, inputs: dict[str, Tensor], arrays: Arrays, antialiased: bool
) -> Rendered:
    """Image (rgb and summed depth), alpha, and the projected arrays, all by gsplat."""
    covariances = reference._quat_scale_to_covar_preci(inputs["quats"], inputs["scales"], True)[0]
    radii, xy, depth, conics, factor = reference._fully_fused_projection(
        inputs["means"],
        covariances,
        inputs["view"][None],
        inputs["k"][None],
        WIDTH,
        HEIGHT,
        calc_compensations=True,
    )
    eye = torch.inverse(inputs["view"])[:3, 3]
    degree = math.isqrt(inputs["sh"].shape[1]) - 1
    rgb = reference._spherical_harmonics(degree, inputs["means"] - eye, inputs["sh"])
    values = torch.cat([(rgb + 0.5).clamp_min(0.0)[None], depth[..., None]], -1)
    opacities = inputs["opacities"][None] * (factor if antialiased else 1.0)
    columns, rows = -(-WIDTH // TILE), -(-HEIGHT // TILE)
    _, ids, flat = reference._isect_tiles(xy.detach(), radii, depth.detach(), TILE, columns, rows)
    offsets = reference._isect_offset_encode(ids, 1, columns, rows)
    image, alpha = reference._rasterize_to_pixels(
        xy, conics, values, opacities, WIDTH, HEIGHT, TILE, offsets, flat
    )
    return image[0], alpha[0, ..., 0], (radii[0], xy[0], depth[0], conics[0], opacities[0])


@torch.no_grad()
def close_calls(projected: Projected) -> tuple[Tensor, float, int]:
    """Gaussians with an alpha near a threshold, the lowest final transmittance, clamped pairs."""
    radii, xy, depth, conics, opacities = projected
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    alpha = pair_alphas(xy, conics, opacities, torch.stack([x, y], -1).reshape(-1, 2))
    alpha = torch.where((radii > 0).all(-1), alpha, 0.0)
    near = ((alpha / CUT - 1).abs() < MARGIN) | ((alpha / CLAMP - 1).abs() < MARGIN)
    clipped = torch.where(alpha < CUT, 0.0, alpha.clamp_max(CLAMP))
    gaps = depth.sort().values.diff().min()
    assert gaps > 1e-5, "two depths are too close; take another seed"
    return near.any(0), float((1 - clipped).prod(1).min()), int((alpha > CLAMP).sum())


def settled(
    reference: Any, arrays: Arrays, antialiased: bool, rng: np.random.Generator
) -> tuple[dict[str, Tensor], Rendered]:
    """Lower opacities (in ``arrays``) until no decision is close; the leaves and their image."""
    for _ in range(50):
        inputs = leaves(arrays, "means", "quats", "scales", "opacities", "sh")
        rendered = render(reference, inputs, arrays, antialiased)
        near = close_calls(rendered[2])[0].numpy()
        if not near.any():
            return inputs, rendered
        arrays["opacities"][near] = exact32(arrays["opacities"][near] * rng.uniform(0.9, 1.0))
    raise RuntimeError("decisions stayed close; take another seed")


def image_vectors(
    reference: Any, seed: int, *, n: int, degree: int, antialiased: bool, opaque: bool
) -> Arrays:
    """A rendered scene and the gradient of a random linear functional of its pixels.

    With ``opaque``, four Gaussians reach the clamp at one pixel each; the others are modest.
    """
    rng = np.random.default_rng(seed)
    pose = random_pose(rng)
    focal, centre = exact32(np.array([50.0, 46.5])), exact32(np.array([30.1, 25.9]))
    z = np.linspace(2.0, 6.0, n) + rng.uniform(-0.01, 0.01, n)
    xy = rng.uniform(-5, [[WIDTH + 5], [HEIGHT + 5]], (2, n)).T
    scales = np.exp(rng.uniform(np.log(0.006), np.log(0.15), (n, 3))) * z[:, None]
    opacities = rng.uniform(0.05, 0.6, n)
    hard = rng.permutation(n)[: len(OPAQUE)] if opaque else np.zeros(0, int)
    opacities[hard] = 0.9999
    scales[hard] = rng.uniform(0.12, 0.15, (len(hard), 3)) * z[hard, None]
    xy[hard] = OPAQUE[: len(hard)]
    points = np.concatenate([(xy - centre) / focal * z[:, None], z[:, None]], 1)
    order = rng.permutation(n)
    arrays = {
        "means": to_world(points, pose)[order],
        "quats": exact32(rng.normal(size=(n, 4))),
        "scales": exact32(scales)[order],
        "opacities": exact32(opacities)[order],
        "sh": exact32(rng.normal(size=(n, (degree + 1) ** 2, 3)) * 0.3),
        "world_from_cam": pose,
        "focal": focal,
        "centre": centre,
        "weights_image": rng.integers(-100, 101, (HEIGHT, WIDTH, 4)).astype(np.int8),
        "weights_alpha": rng.integers(-100, 101, (HEIGHT, WIDTH)).astype(np.int8),
    }
    inputs, (image, alpha, projected) = settled(reference, arrays, antialiased, rng)
    _, lowest, clamped = close_calls(projected)
    assert lowest > 2 * END, f"a ray ends (transmittance {lowest:.1e}); take another seed"
    weights = {k: torch.tensor(arrays[f"weights_{k}"]) / 100.0 for k in ("image", "alpha")}
    ((weights["image"] * image).sum() + (weights["alpha"] * alpha).sum()).backward()
    print(f"image: mean alpha {alpha.mean():.3f}, lowest T {lowest:.1e}, {clamped} pairs clamped")
    arrays |= {"image": image.detach().numpy(), "alpha": alpha.detach().numpy()}
    return arrays | gradients(inputs) | {"antialiased": np.array(antialiased)}


def main() -> None:
    """Write all files into the folder given."""
    parser = argparse.ArgumentParser(description="Write gsplat's numbers for the tests.")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    torch.set_default_dtype(torch.float64)  # gsplat's reference allocates in the default type
    reference = load_reference()
    import gsplat

    files = {
        f"projection_{model}": projection_vectors(reference, model, 200, seed)
        for seed, model in enumerate(("pinhole", "ortho", "fisheye"))
    }
    files["sh"] = sh_vectors(reference, 3)
    kinds = ((3, False, False), (2, True, False), (3, False, True))
    for k, (degree, antialiased, opaque) in enumerate(kinds):
        files[f"image_{k}"] = image_vectors(
            reference, 10 + k, n=150, degree=degree, antialiased=antialiased, opaque=opaque
        )
    versions = np.array(f"gsplat {gsplat.__version__}, torch {torch.__version__}")
    for name, arrays in files.items():
        path = folder / f"gsplat_{name}.npz"
        constants = {"max_alpha": np.array(CLAMP), "size": np.array([HEIGHT, WIDTH])}
        contents: dict[str, Any] = {"versions": versions, **constants, **arrays}
        np.savez_compressed(path, **contents)
        print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
