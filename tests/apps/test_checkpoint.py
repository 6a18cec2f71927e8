"""Checkpoints: exact, whole or not counted, the last two kept, damage survived."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lumefield.apps._checkpoint import KEPT, load_checkpoint, save_checkpoint
from lumefield.errors import RunError
from lumefield.fit import TrainState, restore, scaled_adam, state_arrays


def arrays(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "scene.means": rng.normal(size=(5, 3)).astype(np.float32),
        "scene.empty": np.zeros((0, 3, 2), np.float32),
        "aux.used": np.asarray(3, np.int32),
        "key": np.asarray([1, 2**32 - 1], np.uint32),
        "odd.bits": np.asarray([np.nan, -0.0, np.inf, 1e-45], np.float32),
        "turned": rng.normal(size=(4, 6)).astype(np.float32).T,
        "mask": np.asarray([True, False]),
    }


def loaded(folder: Path) -> Any:
    found = load_checkpoint(folder)
    assert found is not None
    return found


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_what_is_saved_is_loaded_to_the_bit(tmp_path: Path):
    given = arrays()
    path = save_checkpoint(tmp_path, 123, given, {"seconds": 1.5, "note": "é"})
    found = loaded(tmp_path)
    assert path.name == "step-00000123.safetensors"
    assert (found.step, found.facts, found.skipped) == (123, {"seconds": 1.5, "note": "é"}, ())
    assert found.arrays.keys() == given.keys()
    for name, value in given.items():
        got = found.arrays[name]
        assert (got.shape, got.dtype) == (value.shape, value.dtype), name
        assert got.tobytes() == value.tobytes(), name


def test_a_training_state_goes_through_a_file_and_comes_back(tmp_path: Path):
    tx = scaled_adam(lambda step: 0.1)
    state = TrainState.start(
        {"x": jnp.ones((3, 2)), "none": jnp.zeros((0, 2))}, tx, jax.random.key(5)
    )
    save_checkpoint(tmp_path, 0, state_arrays(state), {})
    back = restore(state, loaded(tmp_path).arrays)
    mine, yours = state_arrays(state), state_arrays(back)
    assert mine.keys() == yours.keys()
    assert all(np.array_equal(mine[k], yours[k]) for k in mine)


def test_only_the_last_two_are_kept(tmp_path: Path):
    for step in (50, 100, 150, 200):
        save_checkpoint(tmp_path, step, arrays(step), {})
    assert KEPT == 2
    assert names(tmp_path) == [
        f"step-00000{step}.{end}" for step in (150, 200) for end in ("json", "safetensors")
    ]
    assert loaded(tmp_path).step == 200


def test_a_step_written_again_replaces_itself_and_later_ones_go(tmp_path: Path):
    for step in (50, 100):
        save_checkpoint(tmp_path, step, arrays(step), {})
    save_checkpoint(tmp_path, 50, arrays(1), {"again": 1})
    assert loaded(tmp_path).facts == {"again": 1}
    assert names(tmp_path) == ["step-00000050.json", "step-00000050.safetensors"]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-7] ^= 4
    path.write_bytes(data)


def garble_seal(path: Path) -> None:
    path.with_suffix(".json").write_text("{")


def empty_seal(path: Path) -> None:
    path.with_suffix(".json").write_text("[]")


def poor_seal(path: Path) -> None:
    path.with_suffix(".json").write_text(json.dumps({"step": 2}))


def binary_seal(path: Path) -> None:
    path.with_suffix(".json").write_bytes(b"\xff\xfe\x00")


DAMAGE = [truncate, flip, garble_seal, empty_seal, poor_seal, binary_seal]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_newest_falls_back_to_the_one_before_and_says_so(damage: Any, tmp_path: Path):
    save_checkpoint(tmp_path, 50, arrays(1), {"seconds": 1})
    newest = save_checkpoint(tmp_path, 100, arrays(2), {"seconds": 2})
    damage(newest)
    found = loaded(tmp_path)
    assert (found.step, found.facts) == (50, {"seconds": 1})
    assert found.arrays["scene.means"].tobytes() == arrays(1)["scene.means"].tobytes()
    assert len(found.skipped) == 1
    assert found.skipped[0].startswith("step-00000100.safetensors: ")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(truncate, r"\d+ bytes, expected \d+"), (flip, "its SHA-256 does not match")],
)
def test_when_all_are_damaged_the_message_says_what_to_do(damage: Any, reason: str, tmp_path: Path):
    for step in (50, 100):
        damage(save_checkpoint(tmp_path, step, arrays(step), {}))
    with pytest.raises(
        RunError,
        match=rf"every checkpoint is damaged \(step-00000100.safetensors: {reason}\); "
        "train again with --overwrite, the capture is kept",
    ):
        load_checkpoint(tmp_path)


def test_no_checkpoint_is_none_and_so_is_one_without_its_seal(tmp_path: Path):
    assert load_checkpoint(tmp_path) is None
    assert load_checkpoint(tmp_path / "absent") is None
    path = save_checkpoint(tmp_path, 50, arrays(), {})
    path.with_suffix(".json").unlink()  # killed between the two files
    assert load_checkpoint(tmp_path) is None


def test_half_written_files_are_ignored(tmp_path: Path):
    save_checkpoint(tmp_path, 50, arrays(), {})
    (tmp_path / ".step-00000100.safetensors.ab12.part").write_bytes(b"half")
    (tmp_path / ".step-00000100.json.ab12.part").write_text("{}")
    (tmp_path / "step-00000100.safetensors").write_bytes(b"whole, but its seal never came")
    found = loaded(tmp_path)
    assert (found.step, found.skipped) == (50, ())
    save_checkpoint(tmp_path, 75, arrays(), {})
    assert [n for n in names(tmp_path) if n.endswith("safetensors")] == [
        "step-00000050.safetensors",
        "step-00000075.safetensors",
    ]


def test_a_seal_without_its_file_does_not_count(tmp_path: Path):
    save_checkpoint(tmp_path, 50, arrays(), {})
    save_checkpoint(tmp_path, 100, arrays(), {}).unlink()
    assert loaded(tmp_path).step == 50
