"""Runs: folders, killing, resuming, and what stops them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import fledge
from fledge.core.errors import ConfigError, DataError
from fledge.core.records import read_curves, read_metrics, read_paths, read_record
from fledge.run import build, program, recipe
from fledge.run.folder import RunFolder

SOURCE = str(Path(fledge.__file__).parents[1])
LONG = {"train.env_steps": 144_000, "train.n_chunks": 50, "train.checkpoint_every": 1}


def last_state(folder: Path) -> dict[str, bytes]:
    newest = max((folder / "checkpoints").glob("step-*"))
    return {name: array.tobytes() for name, array in load_file(newest).items()}


def test_a_run_folder_holds_every_file(gridnav_run):
    names = {path.name for path in gridnav_run.iterdir()}
    wanted = {"config.toml", "record.json", "metrics.jsonl", "checkpoints", "curves.csv", "paths.json", "report.html"}
    assert wanted <= names


def test_the_curve_has_a_row_for_every_seed_task_and_episode(gridnav_run):
    rows = read_curves(gridnav_run / "curves.csv").where(recipe="rl2-gridnav", metric="return")
    assert rows.cube().scores.shape == (2, 5, 4)


def test_the_optimum_stands_beside_the_curve(gridnav_run):
    rows = read_curves(gridnav_run / "curves.csv")
    own, best = rows.where(recipe="rl2-gridnav", metric="return"), rows.where(recipe="optimum", metric="return")
    assert np.all(own.cube().scores.max(0) <= best.cube().scores[0] + 1e-4)


def test_regret_is_optimum_minus_return(gridnav_run):
    rows = read_curves(gridnav_run / "curves.csv")
    own = rows.where(recipe="rl2-gridnav")
    best = rows.where(recipe="optimum", metric="return").cube().scores
    regret, returns = (own.where(metric=m).cube().scores for m in ("regret", "return"))
    np.testing.assert_allclose(regret, best - returns, atol=1e-5)


def test_the_record_says_what_was_run(gridnav_run):
    record = read_record(gridnav_run / "record.json")
    assert (record.recipe, record.scale, record.seeds, record.finished) == ("rl2-gridnav", "smoke", (0, 1), True)


def test_metrics_have_a_line_per_chunk_and_seed(gridnav_run):
    metrics = read_metrics(gridnav_run / "metrics.jsonl")
    assert metrics.update.tolist() == [4, 4, 8, 8, 12, 12, 16, 16]


def test_walked_paths_are_those_of_the_first_seed_on_test_tasks(gridnav_run):
    walked = read_paths(gridnav_run / "paths.json")
    assert [(walk.seed, walk.split, len(walk.episodes)) for walk in walked] == [(0, "test", 4)] * 2


def test_config_toml_runs_again_with_the_same_settings(gridnav_run):
    own = recipe.load(gridnav_run / "config.toml")
    assert own.config() == recipe.load("rl2-gridnav").config("smoke")


def test_an_existing_folder_is_never_overwritten(gridnav_run):
    with pytest.raises(ConfigError, match=r"is there already\. Choose another --out, go on with it by 'fledge resume"):
        fledge.run("rl2-gridnav", scale="smoke", out=gridnav_run, quiet=True)


def test_folders_are_counted_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = [RunFolder.create("a", "smoke").path.name for _ in range(3)]
    assert made == ["a-smoke-001", "a-smoke-002", "a-smoke-003"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    return fledge.run("rl2-gridnav", scale="smoke", out=folder, quiet=True, **LONG).dir


@pytest.fixture(scope="module")
def killed_and_resumed(tmp_path_factory):
    """A run that died by SIGKILL in the middle of training, and was gone on with."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    words = [f"{key}={value}" for key, value in LONG.items()]
    command = [sys.executable, "-m", "fledge.cli", "run", "rl2-gridnav", "--scale", "smoke", "--out", str(folder)]
    child = subprocess.Popen([*command, *words], env=os.environ | {"PYTHONPATH": SOURCE}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while child.poll() is None and time.monotonic() < deadline:
        steps = [int(path.stem[5:]) for path in (folder / "checkpoints").glob("step-*")]
        if steps and max(steps) >= 30:
            break
    child.send_signal(signal.SIGKILL)
    child.wait()
    died_at = max(int(path.stem[5:]) for path in (folder / "checkpoints").glob("step-*"))
    assert not read_record(folder / "record.json").finished
    fledge.resume(folder, quiet=True)
    return folder, died_at


def test_the_kill_came_in_the_middle(killed_and_resumed):
    assert 30 <= killed_and_resumed[1] < 150


def test_resuming_after_a_kill_gives_the_uninterrupted_run_to_the_bit(killed_and_resumed, uninterrupted):
    assert last_state(killed_and_resumed[0]) == last_state(uninterrupted)


def test_resuming_after_a_kill_gives_the_same_curves(killed_and_resumed, uninterrupted):
    assert (killed_and_resumed[0] / "curves.csv").read_bytes() == (uninterrupted / "curves.csv").read_bytes()


def test_resuming_after_a_kill_neither_loses_nor_repeats_a_metric(killed_and_resumed, uninterrupted):
    found, wanted = (read_metrics(folder / "metrics.jsonl") for folder in (killed_and_resumed[0], uninterrupted))
    assert np.array_equal(found.update, wanted.update)
    assert np.array_equal(found.values["loss/total"], wanted.values["loss/total"])


def test_seed_i_alone_is_seed_i_among_others():
    config = recipe.load("rl2-gridnav").config("smoke", {"train": {"seeds": 3}})
    trial = build.make_trial(config.env)
    found = []
    for settings in (config, build.one_seed(config, 2)):
        loop = build.make_loop(settings, trial)
        state = loop.init(program.seed_keys(program.seeds_of(settings.train)))
        found.append(next(loop.run(state, n_chunks=1)).metrics["loss/total"][:2, -1])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3)


POISONED = '''
from typing import Any
import jax.numpy as jnp
import equinox as eqx
from fledge.envs.gridnav import GridNav

class Poisoned(GridNav):
    """Pays a reward that is not a number in one far corner."""
    def step(self, key, state, action, task):
        state, timestep = super().step(key, state, action, task)
        there = jnp.all(state.position == jnp.asarray([4, 4]))
        reward = jnp.where(there, jnp.nan, timestep.reward)
        return state, eqx.tree_at(lambda t: t.reward, timestep, reward)

class Crooked(GridNav):
    """Its reset does not return what it promises."""
    def reset(self, key, task):
        state, observation = super().reset(key, task)
        return state, jnp.zeros(3)
'''


@pytest.fixture
def own_envs(tmp_path, monkeypatch):
    (tmp_path / "own_envs.py").write_text(POISONED)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_reward_that_is_no_number_stops_the_run_and_names_metric_and_update(own_envs):
    with pytest.raises(DataError, match=r"return/\w+ of seed \d is not a finite number at update \d+.*paid a reward"):
        poisoned(own_envs)


def poisoned(tmp_path: Path) -> None:
    settings = {"env.family": "own_envs:Poisoned", "train.n_chunks": 300, "train.env_steps": 288_000}
    fledge.run("rl2-gridnav", scale="smoke", out=tmp_path / "run", quiet=True, **settings)


def test_what_was_written_before_a_bad_reward_is_kept(own_envs):
    with pytest.raises(DataError):
        poisoned(own_envs)
    assert not read_record(own_envs / "run" / "record.json").finished


def test_an_environment_that_breaks_its_contract_is_refused_before_training(own_envs):
    with pytest.raises(ConfigError, match=r"own_envs:Crooked: .*float32\[3\]; wanted float32\[2\]"):
        fledge.run("rl2-gridnav", scale="smoke", out=own_envs / "run", quiet=True, **{"env.family": "own_envs:Crooked"})


def test_a_refused_run_leaves_no_folder(own_envs):
    with pytest.raises(ConfigError):
        fledge.run("rl2-gridnav", scale="smoke", out=own_envs / "run", quiet=True, **{"env.family": "own_envs:Crooked"})
    assert not (own_envs / "run").exists()


def test_a_run_of_another_version_is_refused(gridnav_run, tmp_path):
    folder = shutil.copytree(gridnav_run, tmp_path / "run")
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(record | {"format": 99}))
    with pytest.raises(DataError, match="format 99"):
        fledge.resume(folder, quiet=True)


def test_a_truncated_checkpoint_is_told_and_the_one_before_it_used(gridnav_run, tmp_path, capsys):
    folder = shutil.copytree(gridnav_run, tmp_path / "run")
    newest = max((folder / "checkpoints").glob("step-*"))
    newest.write_bytes(newest.read_bytes()[:100])
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(record | {"finished": False}))
    fledge.resume(folder)
    assert "is damaged" in capsys.readouterr().err
    assert last_state(folder) == last_state(gridnav_run)


def test_a_run_that_goes_wrong_in_no_way_has_finite_metrics(gridnav_run):
    metrics = read_metrics(gridnav_run / "metrics.jsonl")
    assert all(np.isfinite(x).all() for x in metrics.values.values())


def test_seed_keys_do_not_depend_on_their_number():
    many, one = program.seed_keys((0, 1, 2)), program.seed_keys((2,))
    assert jnp.array_equal(jax.random.key_data(many)[2], jax.random.key_data(one)[0])


@pytest.mark.parametrize(
    ("env_steps", "n_chunks", "wanted"),
    [
        (16 * 960, 4, (4, 4)),
        (130 * 960, 50, (65, 2)),
        (3 * 960, 50, (3, 1)),
        (1, 50, (1, 1)),
        (4166 * 960, 49, (49, 85)),
    ],
)
def test_training_is_cut_into_whole_chunks(env_steps, n_chunks, wanted):
    config = recipe.load("rl2-gridnav").config("smoke", {"train": {"env_steps": env_steps, "n_chunks": n_chunks}})
    plan = build.plan_of(config, build.make_trial(config.env))
    assert (plan.n_chunks, plan.chunk_len) == wanted
