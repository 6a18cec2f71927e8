"""``compress`` and ``decompress`` of radiance fields of every method."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from lumefield.apps import _cli
from lumefield.apps._compress_field import field_costs
from lumefield.apps._compress_scene import holds_scene
from lumefield.apps._field_file import read_field
from lumefield.apps._inspect import describe
from lumefield.apps._inspect import facts as facts_of
from lumefield.apps._radiance_rays import Rays
from lumefield.apps._radiance_trace import trace
from lumefield.apps._scene_io import load_scene, scene_draw
from lumefield.codecs.families import decode_field
from tests.apps.test_train_radiance import METHODS, shrink, tiny_ngp
from tests.apps.train_cases import Capsys, only_line, posed_room, train_here


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)
    monkeypatch.setattr("lumefield.apps._compress_field._PASSES", 8)
    monkeypatch.setattr("lumefield.apps._compress_field._JUDGED", 1024)
    monkeypatch.setattr("lumefield.apps._compress_field._MARCHED", 512)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return posed_room(tmp_path_factory.mktemp("fields") / "room")


@pytest.fixture(scope="module")
def trained(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_ngp(place, tmp_path_factory.mktemp("trained") / "run")


@pytest.mark.parametrize("method", METHODS)
def test_a_field_of_any_method_comes_back(
    method: str, place: Path, tmp_path: Path, capsys: Capsys
) -> None:
    run, file, back = tmp_path / "run", tmp_path / "a.lume", tmp_path / "back"
    assert train_here(place, "--out", run, "--method", method, "--steps", 20) == 0
    assert _cli.main(["compress", str(run), "--out", str(file), "--psnr", "45"]) == 0
    said = capsys.readouterr().out
    assert "held-out views: decoded against scene" in said
    assert file.stat().st_size < 0.6 * (run / "field.safetensors").stat().st_size
    assert _cli.main(["decompress", str(file), "--out", str(back)]) == 0
    facts, arrays = read_field(back / "field.safetensors")
    assert facts == read_field(run / "field.safetensors")[0]
    for name, value in decode_field(file.read_bytes())[1].items():
        np.testing.assert_array_equal(arrays[name], value)
    views = load_scene(run).views
    assert views is not None
    drawn = [scene_draw(load_scene(path))(views.pick([1])).rgb for path in (run, back, file)]
    np.testing.assert_array_equal(drawn[1], drawn[2])
    error = np.mean((np.clip(drawn[0], 0, 1) - np.clip(drawn[1], 0, 1)) ** 2)
    assert -10 * np.log10(error) > 38
    assert holds_scene(file)
    told, known = facts_of(file), facts_of(run)
    assert {name: told[name] for name in ("method", "parameters", "not_finite")} == {
        name: known[name] for name in ("method", "parameters", "not_finite")
    }
    assert f"{told['parameters']:,} parameters" in describe(told)


def test_costs_are_the_squared_derivatives_of_colours(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lumefield.apps._compress_field._PASSES", 60)
    scene = load_scene(trained)
    assert scene.views is not None
    assert scene.field is not None
    seen: list[Rays] = []
    real: Any = __import__("lumefield.apps._compress_field", fromlist=["x"])._random_rays

    def noted(*words: Any) -> Any:
        found = real(*words)
        origin, direction, radius = (jnp.asarray(x) for x in found)
        seen.append(Rays(origin, direction, radius, None))
        return found

    monkeypatch.setattr("lumefield.apps._compress_field._random_rays", noted)
    costs = field_costs(scene.field, scene.views, lambda *_: None)
    name = "scene.field.head.weights.2.value"
    at = np.unravel_index(int(costs[name].argmax()), costs[name].shape)
    weights, step, errors = scene.field.scene.field.head.weights[2], 1e-2, list[float]()
    start = weights[...]
    for rays in seen[:8]:
        drawn = list[Any]()
        for sign in (-1, 1):
            weights[...] = start.at[at].add(sign * step)
            drawn.append(
                trace(
                    scene.field.recipe.sampling,
                    scene.field.scene.field,
                    scene.field.occupied,
                    rays,
                    None,
                )
            )
        moved = (drawn[1].rgb - drawn[0].rgb) / (2 * step)
        moved = jnp.where(drawn[0].used[:, None], moved, 0.0)
        errors.append(float(jnp.mean(moved**2)))
    weights[...] = start
    assert float(costs[name][at]) == pytest.approx(np.mean(errors), rel=0.6)  # 60 draws of signs


def test_what_cannot_be_done_is_said_in_one_line(
    trained: Path, tmp_path: Path, capsys: Capsys
) -> None:
    file = tmp_path / "a.lume"
    assert _cli.main(["compress", str(trained), "--out", str(file), "--psnr", "35"]) == 0
    capsys.readouterr()
    assert _cli.main(["decompress", str(file), "--out", str(tmp_path / "a.ply")]) == 2
    assert "give a name without suffix" in only_line(capsys)
    assert _cli.main(["compress", str(file), "--out", str(tmp_path / "b.lume")]) == 2
    capsys.readouterr()
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "field.safetensors").write_bytes((trained / "field.safetensors").read_bytes())
    assert _cli.main(["compress", str(bare), "--out", str(tmp_path / "b.lume")]) == 2
    assert "cameras.json" in only_line(capsys)
    facts = json.dumps(decode_field(file.read_bytes())[0]).encode()
    damaged = file.read_bytes().replace(facts[:20], b"x" * 20)
    (tmp_path / "c.lume").write_bytes(damaged[:-30])
    assert _cli.main(["decompress", str(tmp_path / "c.lume"), "--out", str(tmp_path / "c")]) == 2
    assert "cut off" in only_line(capsys)
    assert not (tmp_path / "c").exists()
