"""The kernels' library for callers without jax."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from lumefield import native
from lumefield.codecs.neural._decoders import decoders
from lumefield.native import _loader
from tests.codecs.neural_models import random_case

ROOT = Path(__file__).parents[2]


@pytest.fixture
def not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has not tried to load a library."""
    monkeypatch.setattr(_loader, "_process", type(getattr(_loader, "_process"))())  # noqa: B009


def test_plain_functions_are_called_without_jax():
    if native.library() is None:
        pytest.skip(f"no native kernels: {native.status().reason}")
    code = (
        "import json, sys; from lumefield import native; library = native.library()\n"
        "print(json.dumps([hasattr(library, 'lumefield_synthesise'), 'jax' in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [True, False]


@pytest.mark.usefixtures("not_opened")
def test_a_library_that_cannot_be_opened_is_one_warning_and_the_decoder_is_xla(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "lib.so").write_text("no library")
    broken = _loader.Status("native", "", "avx2", "", str(tmp_path / "lib.so"))
    failed = _loader.Status("xla", "not available", "avx2", "", "")
    monkeypatch.setattr(_loader, "status", lambda: broken)
    with pytest.warns(RuntimeWarning, match="not available, using the xla backend: .*lib.so"):
        assert native.library() is None
    monkeypatch.setattr(_loader, "status", lambda: failed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert native.library() is None
        assert decoders("auto").planes.__module__.endswith("_tiles")


@pytest.mark.usefixtures("not_opened")
def test_asking_for_native_where_there_is_none_says_why(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LUMEFIELD_NATIVE", "0")
    model, latents = random_case(1, 3, 3)
    with pytest.raises(RuntimeError, match="no native decoder: switched off by LUMEFIELD_NATIVE"):
        decoders("native").planes(model, latents, 8, False)
