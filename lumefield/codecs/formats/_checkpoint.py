"""Gaussians out of training checkpoints: gsplat's ``.pt`` and nerfstudio's splatfacto ``.ckpt``.

gsplat (examples/simple_trainer.py) saves {"step", "splats": {means, quats, scales, opacities, sh0,
shN}}; nerfstudio 1.x {"step", "pipeline": {"_model.gauss_params.means", ...}} with features_dc and
features_rest, and before 1.0 without ``gauss_params``. Both hold what a 3DGS PLY holds: logarithms,
logits, quaternions w first, in the frame of training.
"""

from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from lumefield.codecs.formats._files import shown
from lumefield.codecs.formats._splat_rows import cleaned
from lumefield.codecs.formats._torch_file import Tensor, TorchFile
from lumefield.codecs.formats._types import Splats
from lumefield.errors import FormatError


class _Layout(NamedTuple):
    """Where a trainer keeps its Gaussians."""

    program: str
    group: str
    prefix: str
    names: tuple[str, str, str, str, str, str]
    """Names of centres, quaternions, scales, opacities, degree 0 and the degrees above."""


_GSPLAT = ("means", "quats", "scales", "opacities", "sh0", "shN")
_NERFSTUDIO = ("means", "quats", "scales", "opacities", "features_dc", "features_rest")
_LAYOUTS = (
    _Layout("gsplat", "splats", "", _GSPLAT),
    _Layout("nerfstudio", "pipeline", "_model.gauss_params.", _NERFSTUDIO),
    _Layout("nerfstudio", "pipeline", "module._model.gauss_params.", _NERFSTUDIO),
    _Layout("nerfstudio", "pipeline", "_model.", _NERFSTUDIO),
)


def load_checkpoint(path: Path) -> Splats:
    """Read the Gaussians of a checkpoint, without torch.

    Raises:
        InputError: If the file cannot be opened.
        FormatError: If it is no torch file, wants to run code, or holds no Gaussians.
    """
    file = TorchFile(path)
    for layout in _LAYOUTS:
        group = _group(file.content, layout.group)
        tensors = [group.get(layout.prefix + name) for name in layout.names]
        if all(isinstance(t, Tensor) for t in tensors):
            return cleaned(_splats(file, cast("list[Tensor]", tensors), layout))
    content = cast("object", file.content)
    keys = cast("dict[object, Any]", content) if isinstance(content, dict) else ()
    raise FormatError(
        f"{path}: torch file with {shown(', '.join(map(str, keys)))!r} holds no Gaussians, "
        "expected a checkpoint of gsplat or of nerfstudio's splatfacto"
    )


def _group(content: object, name: str) -> dict[str, Any]:
    value: object = None
    if isinstance(content, dict):
        value = cast("dict[str, Any]", content).get(name)
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _splats(file: TorchFile, tensors: list[Tensor], layout: _Layout) -> Splats:
    means, quats, scales, opacities, low, high = (file.array(t) for t in tensors)
    n = len(means) if means.ndim else 0
    base = low.reshape(n, 1, 3) if low.size == 3 * n else low
    rest = high.reshape(n, -1, 3) if n and high.size % (3 * n) == 0 else high.reshape(n, 0, 3)
    arrays: dict[str, NDArray[Any]] = {
        "means": means,
        "quats_wxyz": quats,
        "log_scales": scales,
        "logit_opacities": opacities.reshape(-1),
    }
    wanted = {"means": (n, 3), "quats_wxyz": (n, 4), "log_scales": (n, 3), "logit_opacities": (n,)}
    fine = all(arrays[name].shape == shape for name, shape in wanted.items())
    if not fine or base.shape != (n, 1, 3) or 1 + rest.shape[1] not in (1, 4, 9, 16, 25):
        shapes = ", ".join(str(t.shape) for t in tensors)
        raise FormatError(
            f"{file.path}: {layout.program} tensors of shapes {shapes} do not fit one another, "
            "expected (N, 3), (N, 4), (N, 3), (N), (N, 1, 3) and (N, K, 3)"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        floats: dict[str, Any] = {k: v.astype(np.float32) for k, v in arrays.items()}
        sh = np.concatenate([base, rest], 1).astype(np.float32)
    step = cast("dict[str, Any]", file.content).get("step")
    at = f" of step {step}" if isinstance(step, int) else ""
    source = f"{layout.program} checkpoint{at}, frame of training"
    return Splats(**floats, sh=sh, source=source)
