"""Checkpoints: bit for bit, whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fledge.core.errors import DataError, ShapeError
from fledge.run import checkpoint
from fledge.run.checkpoint import load_checkpoint, save_checkpoint


def tree(shift: float = 0.0):
    return {
        "weights": (jnp.asarray([[1.5, np.nan, -0.0], [np.inf, 1e-42, 3.0]]).T + 0, jnp.full((2,), 2.0 + shift)),
        "half": jnp.asarray([1.5, -2.25], jnp.bfloat16),
        "count": jnp.asarray(7, jnp.int32),
        "none": None,
        "empty": jnp.zeros((0, 3)),
        "keys": jax.random.split(jax.random.key(3), 4),
        "flags": jnp.asarray([True, False]),
        "wide": np.asarray([1 / 3], np.float64),
    }


def bits(value) -> list[bytes]:
    leaves = jax.tree.leaves(value)
    plain = [jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in leaves]
    return [str(np.asarray(x).dtype).encode() + np.asarray(x).tobytes() for x in plain]


def test_what_is_loaded_is_what_was_saved_to_the_bit(tmp_path):
    save_checkpoint(tmp_path, tree(), step=5, about={"chunks": 2})
    found = load_checkpoint(tmp_path, tree(1.0))
    assert bits(found.tree) == bits(tree())


def test_step_and_json_come_back(tmp_path):
    save_checkpoint(tmp_path, tree(), step=5, about={"chunks": 2})
    found = load_checkpoint(tmp_path, tree())
    assert (found.step, found.about) == (5, {"chunks": 2})


def test_random_keys_go_on_as_if_nothing_had_happened(tmp_path):
    save_checkpoint(tmp_path, tree(), step=1)
    keys = load_checkpoint(tmp_path, tree(1.0)).tree["keys"]
    assert np.array_equal(jax.random.normal(keys[1], (3,)), jax.random.normal(tree()["keys"][1], (3,)))


def test_only_the_last_two_are_kept(tmp_path):
    for step in (1, 2, 3, 10):
        save_checkpoint(tmp_path, tree(), step=step)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [f"step-{n:012d}.safetensors" for n in (3, 10)]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


def hollow(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip, hollow])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, damage):
    save_checkpoint(tmp_path, tree(), step=1)
    damage(save_checkpoint(tmp_path, tree(1.0), step=2))
    assert load_checkpoint(tmp_path, tree()).step == 1


def test_falling_back_is_told(tmp_path):
    save_checkpoint(tmp_path, tree(), step=1)
    cut(save_checkpoint(tmp_path, tree(), step=2))
    told: list[str] = []
    load_checkpoint(tmp_path, tree(), tell=told.append)
    assert "step-000000000002" in told[0]
    assert "is damaged" in told[0]


def test_if_all_are_damaged_the_error_says_to_run_again(tmp_path):
    for step in (1, 2):
        cut(save_checkpoint(tmp_path, tree(), step=step))
    with pytest.raises(DataError, match="no earlier checkpoint to fall back to: run again"):
        load_checkpoint(tmp_path, tree())


def test_an_empty_folder_is_said_to_have_none(tmp_path):
    with pytest.raises(DataError, match="There is no checkpoint in"):
        load_checkpoint(tmp_path, tree())


def test_another_structure_is_refused_naming_every_path(tmp_path):
    save_checkpoint(tmp_path, {"a": jnp.zeros(2), "b": jnp.zeros((2, 3)), "c": jnp.zeros(1)}, step=1)
    like = {"a": jnp.zeros(2, jnp.int32), "b": jnp.zeros((3, 2)), "d": jnp.zeros(1)}
    with pytest.raises(ShapeError) as caught:
        load_checkpoint(tmp_path, like)
    for line in (
        "['a']: float32[2] came, int32[2] was wanted",
        "['b']: float32[2, 3] came, float32[3, 2] was wanted",
        "['c']: is in the checkpoint, but nothing asks for it",
        "['d']: is not in the checkpoint",
    ):
        assert line in str(caught.value)


def test_another_format_is_refused_naming_both(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 9)
    save_checkpoint(tmp_path, tree(), step=1)
    monkeypatch.undo()
    with pytest.raises(DataError, match="format 9, but this Fledge reads format 1"):
        load_checkpoint(tmp_path, tree())


def test_a_leaf_that_is_no_array_is_refused_by_its_path(tmp_path):
    with pytest.raises(DataError, match=r"\['f'\] is a str; only arrays can be saved"):
        save_checkpoint(tmp_path, {"f": "text"}, step=1)


WRITER = """
import sys
from pathlib import Path
import numpy as np
from fledge.run.checkpoint import save_checkpoint
for step in range(1, 10_000):
    save_checkpoint(Path(sys.argv[1]), {"x": np.full(6_000_000, step, np.float32)}, step=step)
"""


def kill_in_mid_write(folder: Path) -> bool:
    """Whether a write was going on when the writer died."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], env=os.environ | {"PYTHONPATH": source()})
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        parts = list(folder.glob(".step-*"))
        if parts and len(list(folder.glob("step-*"))) >= 2 and 0 < size(parts[0]) < 24_000_000:
            break
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    return any(folder.glob(".step-*"))


def size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def source() -> str:
    return str(Path(checkpoint.__file__).parents[2])


def test_a_kill_in_the_middle_of_a_write_leaves_a_whole_checkpoint(tmp_path):
    like = {"x": np.zeros(6_000_000, np.float32)}
    caught = any(kill_in_mid_write(tmp_path) for _ in range(10))
    found = load_checkpoint(tmp_path, like)
    assert caught, "the writer was never caught in the middle of a write"
    assert np.all(np.asarray(found.tree["x"]) == found.step)


def test_what_a_killed_write_left_is_swept_up_by_the_next(tmp_path):
    (tmp_path / ".step-000000000007.safetensors.abcd").write_bytes(b"half")
    save_checkpoint(tmp_path, tree(), step=8)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000000008.safetensors"]
