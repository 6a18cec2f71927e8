"""Files as ``torch.save`` writes them, made without torch: a pickle that names its functions."""

import collections
import io
import pickle
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from lumefield.codecs.formats import Splats

_STORAGES = {"<f4": "FloatStorage", "<f2": "HalfStorage", "<i8": "LongStorage"}


def _function(module: str, name: str) -> Any:
    def stub(*arguments: object) -> None:
        raise AssertionError("only its name is pickled")

    stub.__module__, stub.__qualname__, stub.__name__ = module, name, name
    return stub


class _Array:
    def __init__(self, values: np.ndarray) -> None:
        self.values = values


def _modules() -> dict[str, types.ModuleType]:
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in _STORAGES.values():
        setattr(torch, name, _function("torch", name))
    utils._rebuild_tensor_v2 = _function("torch._utils", "_rebuild_tensor_v2")  # type: ignore[attr-defined]
    utils._rebuild_parameter = _function("torch._utils", "_rebuild_parameter")  # type: ignore[attr-defined]
    return {"torch": torch, "torch._utils": utils}


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, modules: dict[str, Any], parameters: bool) -> None:
        super().__init__(file, protocol=2)
        self.modules, self.parameters = modules, parameters
        self.storages: list[np.ndarray] = []

    def persistent_id(self, obj: object) -> Any:
        if not isinstance(obj, _Array):
            return None
        self.storages.append(obj.values)
        kind = getattr(self.modules["torch"], _STORAGES[obj.values.dtype.str])
        return ("storage", kind, str(len(self.storages) - 1), "cpu", obj.values.size)

    def reducer_override(self, obj: object) -> Any:
        if not isinstance(obj, np.ndarray):
            return NotImplemented
        utils = self.modules["torch._utils"]
        steps = tuple(step // obj.itemsize for step in np.ascontiguousarray(obj).strides)
        hooks: Any = collections.OrderedDict()
        words = (_Array(np.ascontiguousarray(obj)), 0, obj.shape, steps, False, hooks)
        return (utils._rebuild_tensor_v2, words)


def write_torch(path: Path, content: object, more: dict[str, bytes] | None = None) -> None:
    """A zip of data.pkl, the arrays of ``content``, and ``more`` entries."""
    modules = _modules()
    kept = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        file = io.BytesIO()
        pickler = _Pickler(file, modules, parameters=False)
        pickler.dump(content)
    finally:
        for name, module in kept.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as bundle:
        bundle.writestr("archive/data.pkl", file.getvalue())
        bundle.writestr("archive/byteorder", "little")
        for i, values in enumerate(pickler.storages):
            bundle.writestr(f"archive/data/{i}", values.tobytes())
        for name, data in (more or {}).items():
            bundle.writestr(name, data)


def state(names: dict[str, np.ndarray]) -> Any:
    """What ``Module.state_dict()`` returns: an ordered dictionary with an attribute."""
    found: Any = collections.OrderedDict(names)
    found._metadata = collections.OrderedDict({"": {"version": 1}})
    return found


def gsplat_content(s: Splats) -> dict[str, Any]:
    return {
        "step": 6999,
        "splats": state(
            {
                **{"means": s.means, "quats": s.quats_wxyz, "scales": s.log_scales},
                **{"opacities": s.logit_opacities, "sh0": s.sh[:, :1], "shN": s.sh[:, 1:]},
            }
        ),
    }


def nerfstudio_content(s: Splats, prefix: str = "_model.gauss_params.") -> dict[str, Any]:
    values = {
        **{"means": s.means, "quats": s.quats_wxyz, "scales": s.log_scales},
        **{"opacities": s.logit_opacities[:, None]},
        **{"features_dc": s.sh[:, 0], "features_rest": s.sh[:, 1:]},
    }
    other = {"datamanager.x": np.zeros(2, np.float32)}
    rates = {"means": {"_last_lr": [np.float64(1e-4)], "step": 3}}
    pipeline = state({**other, **{prefix + name: v for name, v in values.items()}})
    return {"step": 29999, "pipeline": pipeline, "schedulers": rates}
